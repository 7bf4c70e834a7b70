"""The OpenAPI document at `/openapi.json`: what each endpoint says of itself, joined with where the router has it.

An endpoint that is public carries `@operation(...)`. Paths and methods come from the routes themselves, summaries from
docstrings, statuses and error bodies from the errors that an operation may raise, by the one table of `problems.py`. So
nothing is stated here that the server does not do elsewhere.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.routing import BaseRoute

from landline import __version__, errors
from landline.core.watermark import BEGINNING
from landline.server.exchange import Resource
from landline.server.problems import UNEXPECTED, Problem, problem_of

VERSION = "3.1.0"
"""Of OpenAPI."""

Json = dict[str, Any]
Raised = type[errors.LandlineError]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_NOT_ACCEPTABLE = {
    400: Problem(400, "BadArgument", "The request is not acceptable HTTP"),
    408: Problem(408, "BadArgument", "The request did not arrive in time"),
    414: Problem(414, "BadArgument", "The URL is too long"),
    431: Problem(431, "BadArgument", "The header fields are too many or too large"),
}
"""What any path may answer before an endpoint is asked (D-52)."""

CREDENTIALS: tuple[Raised, ...] = (errors.MissingCredential, errors.Forbidden, errors.TokenExpired)
_STORE: tuple[Raised, ...] = (errors.StoreUnavailable, errors.DeadlinePassed)
_BODY: tuple[Raised, ...] = (errors.BadSyntax, errors.BadArgument, errors.TooSlow, errors.UnsupportedMediaType)
_DELIVERY: tuple[Raised, ...] = (
    errors.BotRejected,
    errors.BotUnreachable,
    errors.BotTimedOut,
    errors.BotBroke,
    errors.NoBot,
)
ADDING: tuple[Raised, ...] = (errors.MissingProperty, errors.ConversationFull, errors.OutcomeUnknown)
"""What may come of anything that makes a conversation's log longer."""
SENDING: tuple[Raised, ...] = (*ADDING, errors.Conflict, errors.RateLimited, *_DELIVERY)
"""What may come of an activity that a client sends (5.5)."""


class Operation(msgspec.Struct, frozen=True):
    """What an endpoint says of itself beside its docstring.

    `answers` are the good ones: status and schema, None for an answer without a body. `security` lists what opens it,
    empty for nothing. `parameters` are those of query and headers. `raises` are the errors besides those that all
    operations share.
    """

    tag: str
    answers: dict[int, str | None]
    body: str | None = None
    security: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    raises: tuple[Raised, ...] = ()


def operation(
    tag: str,
    answers: Mapping[int, str | None],
    *,
    body: str | None = None,
    security: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    raises: tuple[Raised, ...] = (),
) -> Callable[[_Function], _Function]:
    """Make an endpoint public: it is part of the document from now on."""
    described = Operation(tag, dict(answers), body, security, parameters, headers, raises)

    def mark(endpoint: _Function) -> _Function:
        endpoint.operation = described  # type: ignore[attr-defined]  # a function takes any attribute
        return endpoint

    return mark


def document(routes: Iterable[BaseRoute], url: str = "/") -> bytes:
    """The whole document, as JSON text. `url` is the base that clients are given."""
    paths: dict[str, Json] = {}
    names: set[str] = set()
    for route in routes:
        resource = getattr(route, "endpoint", None)
        if not isinstance(resource, Resource):
            continue
        for method, endpoint in resource.methods.items():
            described: Operation | None = getattr(endpoint, "operation", None)
            if described is not None and method != "HEAD":  # which answers as GET does
                there = paths.setdefault(resource.template, {})
                name: str = endpoint.__qualname__
                if name in names:  # one endpoint at two paths
                    name += "." + resource.template.rpartition("/")[2]
                names.add(name)
                there[method.lower()] = _operation(name, resource.template, endpoint, described)
    return msgspec.json.encode(
        {
            "openapi": VERSION,
            "info": {
                "title": "Landline",
                "summary": "A Direct Line 3.0 channel.",
                "version": __version__,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": url}],
            "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": _SCHEMAS,
                "parameters": _PARAMETERS,
                "headers": _HEADERS,
                "securitySchemes": _SECURITY,
            },
        }
    )


# One operation


def _operation(name: str, template: str, endpoint: Callable[..., Any], described: Operation) -> Json:
    summary = inspect.getdoc(endpoint) or ""
    found: Json = {
        "operationId": name,
        "summary": re.sub(r" \([^)]*\)", "", summary.split("\n\n")[0]).replace("\n", " ").rstrip("."),
        "tags": [described.tag],
        "security": [{name: []} for name in described.security],
        "responses": _responses(described),
    }
    names = *re.findall(r"{(\w+)}", template), *described.parameters
    parameters = [_reference("parameters", name) for name in names]
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        found["requestBody"] = {"required": described.body != "TokenParameters", "content": _content(described.body)}
    return found


def _responses(described: Operation) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for status, schema in sorted(described.answers.items()):
        answer: Json = {"description": _MEANINGS[status], "headers": _headers(described.headers)}
        if schema is not None:
            answer["content"] = _content(schema)
        found[str(status)] = answer
    for status, problems in sorted(_problems(described).items()):
        found[str(status)] = {
            "description": "; ".join(sorted({f"`{problem.code}`" for problem in problems.values()})),
            "headers": _headers(_HEADERS_OF_ERRORS.get(status, ())),
            "content": {
                "application/json": {
                    "schema": _reference("schemas", "Error"),
                    "examples": {
                        name: {"value": msgspec.json.decode(problem.body())} for name, problem in problems.items()
                    },
                }
            },
        }
    return found


def _problems(described: Operation) -> dict[int, dict[str, Problem]]:
    """The error answers of an operation, by their status and by the name of what was raised."""
    found: dict[int, dict[str, Problem]] = {
        status: {"NotAcceptable": problem} for status, problem in _NOT_ACCEPTABLE.items()
    }
    for kind in (*_shared(described), *described.raises):
        problem = problem_of(_one(kind))
        found.setdefault(problem.status, {})[kind.__name__] = problem
    found[UNEXPECTED.status] = {"Unexpected": UNEXPECTED}
    return found


def _shared(described: Operation) -> tuple[Raised, ...]:
    """What an operation may raise by its kind."""
    kinds: tuple[Raised, ...] = (errors.TooLarge,)
    if described.security:
        kinds += CREDENTIALS
    if described.body == "Upload":
        kinds += (errors.BadSyntax, errors.BadArgument, errors.TooSlow)
    elif described.body is not None:
        kinds += _BODY
    return kinds + _STORE


def _one(kind: Raised) -> errors.LandlineError:
    """One of a kind, as it might be raised."""
    if issubclass(kind, errors.RateLimited):
        return kind(1.0)
    if issubclass(kind, errors.BotRejected):
        return kind(500)
    if issubclass(kind, errors.RangeNotSatisfiable):
        return kind(4096)
    return kind()


def _headers(names: Iterable[str]) -> Json:
    return {name: _reference("headers", name) for name in ("X-Correlating-OperationId", *names)}


def _reference(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}


def _content(schema: str) -> Json:
    """JSON, but for files: a form of them, or the bytes of one."""
    if schema == "File":
        return {"*/*": {}}
    if schema == "Upload":
        return {"multipart/form-data": {"schema": _reference("schemas", schema)}, "image/jpeg": {}}
    return {
        "application/json": {
            "schema": _reference("schemas", schema),
            "examples": {"example": {"value": _EXAMPLES[schema]}},
        }
    }


# What the operations refer to

_TAGS = {
    "Direct Line": "What clients call: Web Chat, DirectLineJS, scripts.",
    "Connector": "What bots call back. The base of these paths is the `serviceUrl` of the activities that a bot gets. "
    "A bot with an app id shows a token besides.",
    "Attachments": "Who has the link has the bytes. Links are made by uploads, and come in activities.",
    "Health": "For whoever watches over the server.",
}
_MEANINGS = {
    101: "The stream is open.",
    200: "Done.",
    201: "Made.",
    206: "The part that was asked for.",
}
_HEADERS_OF_ERRORS = {416: ("Content-Range",), 429: ("Retry-After",), 503: ("Retry-After",)}

_text: Json = {"type": "string"}
_name: Json = {"type": "string", "minLength": 1}


def _object(required: tuple[str, ...] = (), *, open_: bool = False, **properties: Json) -> Json:
    """`open_` objects carry whatever else their sender wrote."""
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    if not open_:
        schema["additionalProperties"] = False
    return schema


_conversation_id: Json = {"type": "string", "pattern": "^[A-Za-z0-9_-]{8,64}$"}
_watermark: Json = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
_issued: Json = {
    "conversationId": _conversation_id,
    "token": {"type": "string", "description": "Opens this one conversation, until it expires."},
    "expires_in": {"type": "integer", "minimum": 1, "description": "Seconds."},
}

_SCHEMAS: dict[str, Json] = {
    "TokenParameters": _object(
        open_=True,
        user={
            "type": ["object", "null"],
            "properties": {
                "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
                "name": {"type": ["string", "null"]},
            },
        },
        trustedOrigins={"type": ["array", "null"], "items": _text},
        locale={"description": "Heard by a start, and only if it is a string."},
    ),
    "Token": _object(("conversationId", "token", "expires_in"), **_issued),
    "Conversation": _object(
        ("conversationId", "token", "expires_in", "streamUrl", "referenceGrammarId"),
        **_issued,
        streamUrl={"type": "string", "pattern": "^wss?://", "description": "A WebSocket; opens within 60 s."},
        referenceGrammarId=_text,
    ),
    "Session": _object(("sessionId",), sessionId={"type": "string", "minLength": 1}),
    "Account": _object(open_=True, id=_text, name=_text, role=_text),
    "Activity": _object(
        ("type",),
        open_=True,
        type=_name,
        id=_text,
        timestamp=_text,
        **{"from": _reference("schemas", "Account")},
        text=_text,
        attachments={"type": "array"},
        entities={"type": "array"},
        channelData={},
    ),
    "ActivitySet": _object(
        ("activities", "watermark"),
        activities={"type": "array", "items": _reference("schemas", "KeptActivity")},
        watermark=_watermark,
    ),
    "KeptActivity": _object(
        ("type", "id", "timestamp", "from", "conversation", "channelId"),
        open_=True,
        type=_name,
        id={"type": "string", "pattern": r"^[A-Za-z0-9_-]{8,64}\|[0-9]{7,}$"},
        timestamp={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,}Z$"},
        **{"from": _reference("schemas", "Account")},
        conversation=_object(("id",), open_=True, id=_conversation_id),
        channelId={"const": "directline"},
    ),
    "Resource": _object(("id",), id={"type": "string", "description": "The activity's id."}),
    "Upload": {
        "type": "object",
        "description": "Parts with a file name, or named `file`, are attachments.",
        "properties": {
            "activity": {
                "description": "At most one part of the type `application/vnd.microsoft.activity`, whatever its name.",
                **_reference("schemas", "Activity"),
            },
            "file": {"type": "array", "items": {"type": "string", "contentMediaType": "application/octet-stream"}},
        },
    },
    "AttachmentData": _object(
        ("type", "originalBase64"),
        open_=True,
        type={"type": "string", "description": "The media type."},
        name={"type": ["string", "null"]},
        originalBase64={"type": "string", "contentEncoding": "base64"},
        thumbnailBase64={"type": ["string", "null"], "contentEncoding": "base64"},
    ),
    "AttachmentInfo": _object(
        ("name", "type", "views"),
        name=_text,
        type=_text,
        views={"type": "array", "items": _object(("viewId", "size"), viewId=_text, size={"type": "integer"})},
    ),
    "History": _object(
        ("activities",),
        open_=True,
        activities={"type": "array", "items": _reference("schemas", "Activity"), "minItems": 1},
    ),
    "Members": {"type": "array", "items": _reference("schemas", "Account")},
    "PagedMembers": _object(
        ("members",), members={"type": "array", "items": _reference("schemas", "Account")}, continuationToken=_name
    ),
    "ConversationParameters": _object(
        ("members",),
        open_=True,
        members={"type": "array", "items": _object(("id",), open_=True, id=_name, name=_text), "minItems": 1},
        activity=_reference("schemas", "Activity"),
    ),
    "CreatedConversation": _object(("id", "serviceUrl"), id=_conversation_id, serviceUrl=_name, activityId=_name),
    "Conversations": _object(
        ("conversations",),
        conversations={
            "type": "array",
            "items": _object(
                ("id", "members"),
                id=_conversation_id,
                members={"type": "array", "items": _reference("schemas", "Account")},
            ),
        },
        continuationToken=_name,
    ),
    "Error": _object(
        ("error",),
        error=_object(("code", "message"), code=_name, message=_text, innerHttpError={"type": "object"}),
    ),
    "Status": _object(("status",), status={"enum": ["live", "ready"]}),
}

_ID = "Kq3vW9sTz1"
_issued_example: Json = {"conversationId": _ID, "token": "eyJ...", "expires_in": 3600}
_said: Json = {"type": "message", "from": {"id": "dl_7f3c"}, "text": "hello"}
_member: Json = {"id": "dl_7f3c", "name": "Ann", "role": "user"}
_EXAMPLES: dict[str, Any] = {
    "Session": {"sessionId": "b0b9a3d6f1c24e67a9d1"},
    "TokenParameters": {"user": {"id": "dl_7f3c", "name": "Ann"}},
    "Token": _issued_example,
    "Conversation": {
        **_issued_example,
        "streamUrl": f"wss://chat.example.org/v3/directline/conversations/{_ID}/stream?watermark={BEGINNING}&t=AVr0c2",
        "referenceGrammarId": "5d0e8f2a-6d0f-5c3e-9a59-1d1c5a1f7b9e",
    },
    "Activity": {**_said, "channelData": {"clientActivityID": "c1"}},
    "ActivitySet": {
        "activities": [
            {
                **_said,
                "id": f"{_ID}|0000000",
                "timestamp": "2026-01-05T10:00:00.001Z",
                "channelId": "directline",
                "conversation": {"id": _ID},
            }
        ],
        "watermark": "1-9f3a06c2",
    },
    "Resource": {"id": f"{_ID}|0000000"},
    "AttachmentData": {"type": "image/png", "name": "a.png", "originalBase64": "iVBORw0KGgo="},
    "AttachmentInfo": {"name": "a.png", "type": "image/png", "views": [{"viewId": "original", "size": 8}]},
    "Account": _member,
    "History": {"activities": [{"type": "message", "id": "past-1", "text": "hello"}]},
    "Members": [_member],
    "PagedMembers": {"members": [_member]},
    "ConversationParameters": {"members": [{"id": "dl_7f3c"}], "activity": {"type": "message", "text": "hello"}},
    "CreatedConversation": {
        "id": _ID,
        "serviceUrl": "https://chat.example.org/b/Zm9vYmFy",
        "activityId": f"{_ID}|0000000",
    },
    "Conversations": {"conversations": [{"id": _ID, "members": [_member]}]},
    "Status": {"status": "ready"},
}

_PARAMETERS: dict[str, Json] = {
    "conversation": {
        "name": "conversation",
        "in": "path",
        "required": True,
        "description": "The conversation's id.",
        "schema": _name,
        "example": _ID,
    },
    "activity": {
        "name": "activity",
        "in": "path",
        "required": True,
        "description": "The id of the activity that is meant.",
        "schema": _name,
        "example": f"{_ID}|0000000",
    },
    "key": {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "What a bot is known by; part of its service URL.",
        "schema": _name,
        "example": "Zm9vYmFy",
    },
    "attachment": {
        "name": "attachment",
        "in": "path",
        "required": True,
        "description": "The attachment's id.",
        "schema": _name,
        "example": "V1StGXR8Z5jdHi6B",
    },
    "filename": {
        "name": "filename",
        "in": "path",
        "required": True,
        "description": "For people and programs that save the file.",
        "schema": _name,
        "example": "a.png",
    },
    "view": {
        "name": "view",
        "in": "path",
        "required": True,
        "description": "`original`, or `thumbnail` where there is one.",
        "schema": _name,
        "example": "original",
    },
    "member": {
        "name": "member",
        "in": "path",
        "required": True,
        "description": "The id of the account that is meant.",
        "schema": _name,
        "example": "dl_7f3c",
    },
    "pageSize": {
        "name": "pageSize",
        "in": "query",
        "description": "Most members on the page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "example": 50,
    },
    "continuationToken": {
        "name": "continuationToken",
        "in": "query",
        "description": "What the page before said.",
        "schema": _text,
        "example": "",
    },
    "watermark": {
        "name": "watermark",
        "in": "query",
        "description": "The last watermark that came. Empty, `-` or one that was never issued: from the beginning.",
        "schema": _text,
        "example": "1-9f3a06c2",
    },
    "t": {
        "name": "t",
        "in": "query",
        "required": True,
        "description": "The ticket of a stream URL, or a token.",
        "schema": _text,
        "example": "AVr0c2",
    },
    "userId": {
        "name": "userId",
        "in": "query",
        "description": "Who sends, where the token does not say.",
        "schema": _text,
        "example": "dl_7f3c",
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A send that is repeated under its key is said once.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    },
    "Origin": {
        "name": "Origin",
        "in": "header",
        "description": "The origin of the page that asks; browsers send it.",
        "schema": _text,
        "example": "https://www.example.org",
    },
    "Range": {
        "name": "Range",
        "in": "header",
        "description": "One range of bytes.",
        "schema": _text,
        "example": "bytes=0-1023",
    },
}

_HEADERS: dict[str, Json] = {
    "X-Correlating-OperationId": {
        "description": "Stands in the server's log line, too.",
        "required": True,
        "schema": _name,
    },
    "X-DirectLine-Replay": {
        "description": "Whether anything behind the given position is missing.",
        "required": True,
        "schema": {"enum": ["complete", "from-start", "truncated"]},
    },
    "Content-Range": {"description": "What there is.", "required": True, "schema": _text},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}},
}

_SECURITY: dict[str, Json] = {
    "secret": {"type": "http", "scheme": "bearer", "description": "Opens every conversation of the bot."},
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Opens one conversation."},
}
