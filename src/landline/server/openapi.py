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
from landline.server.components import (
    EXAMPLES,
    HEADERS,
    HEADERS_OF_ERRORS,
    MEANINGS,
    PARAMETERS,
    SCHEMAS,
    SECURITY,
    TAGS,
    Json,
    reference,
)
from landline.server.exchange import Resource
from landline.wire.problems import UNEXPECTED, Problem, problem_of

VERSION = "3.1.0"
"""Of OpenAPI."""

Raised = type[errors.LandlineError]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_NOT_ACCEPTABLE = {
    400: Problem(400, "BadArgument", "The request is not acceptable HTTP"),
    408: Problem(408, "BadArgument", "The request did not arrive in time"),
    431: Problem(431, "BadArgument", "The header fields are too many or too large"),
    501: Problem(501, "BadArgument", "Transfer-Encoding is not chunked alone"),
}
"""What any path may answer before an endpoint is asked (D-52)."""

CREDENTIALS: tuple[Raised, ...] = (errors.MissingCredential, errors.Forbidden, errors.TokenExpired)
_STORE: tuple[Raised, ...] = (errors.StoreUnavailable, errors.DeadlinePassed)
_BODY: tuple[Raised, ...] = (
    errors.BadSyntax,
    errors.BadArgument,
    errors.TooSlow,
    errors.UnsupportedMediaType,
    errors.UnsupportedCoding,
)
DELIVERY: tuple[Raised, ...] = (
    errors.BotRejected,
    errors.BotUnreachable,
    errors.BotTimedOut,
    errors.BotBroke,
    errors.NoBot,
)
ADDING: tuple[Raised, ...] = (errors.MissingProperty, errors.ConversationFull, errors.OutcomeUnknown)
"""What may come of anything that makes a conversation's log longer."""
SENDING: tuple[Raised, ...] = (*ADDING, errors.Conflict, errors.RateLimited, *DELIVERY)
"""What may come of an activity that a client sends (5.5)."""

_OPTIONAL = ("TokenParameters",)
"""Bodies that may be absent."""

NOBODY = ""
"""In the security of an operation: it also opens to who shows nothing."""


class Operation(msgspec.Struct, frozen=True):
    """What an endpoint says of itself beside its docstring.

    `answers` are the good ones: status and schema, None for an answer without a body. `security` lists what opens it,
    empty for nothing. `parameters` are those of query and headers. `raises` are the errors besides those that all
    operations share. `refusals` are errors in the words of RFC 6749, by status, where SDKs expect those.
    """

    tag: str
    answers: dict[int, str | None]
    body: str | None = None
    security: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    raises: tuple[Raised, ...] = ()
    refusals: Mapping[int, tuple[str, ...]] = {}


def operation(
    tag: str,
    answers: Mapping[int, str | None],
    *,
    body: str | None = None,
    security: tuple[str, ...] = (),
    parameters: tuple[str, ...] = (),
    headers: tuple[str, ...] = (),
    raises: tuple[Raised, ...] = (),
    refusals: Mapping[int, tuple[str, ...]] | None = None,
) -> Callable[[_Function], _Function]:
    """Make an endpoint public: it is part of the document from now on."""
    described = Operation(tag, dict(answers), body, security, parameters, headers, raises, refusals or {})

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
                name = _new_name(endpoint.__qualname__, resource.template, names)
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
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "paths": paths,
            "components": {
                "schemas": SCHEMAS,
                "parameters": PARAMETERS,
                "headers": HEADERS,
                "securitySchemes": SECURITY,
            },
        }
    )


def _new_name(name: str, template: str, names: set[str]) -> str:
    """An endpoint that is at several paths goes by as much of their ends as it takes to tell them apart."""
    segments = re.sub(r"[{}]", "", template).strip("/").split("/")
    longer = (".".join((name, *segments[-count:])) for count in range(1, len(segments) + 1))
    return next(each for each in (name, *longer) if each not in names)


# One operation


def _operation(name: str, template: str, endpoint: Callable[..., Any], described: Operation) -> Json:
    summary = inspect.getdoc(endpoint) or ""
    found: Json = {
        "operationId": name,
        "summary": re.sub(r" \([^)]*\)", "", summary.split("\n\n")[0]).replace("\n", " ").rstrip("."),
        "tags": [described.tag],
        "security": [{} if name is NOBODY else {name: []} for name in described.security],
        "responses": _responses(described),
    }
    names = *re.findall(r"{(\w+)}", template), *described.parameters
    parameters = [reference("parameters", name) for name in names]
    if parameters:
        found["parameters"] = parameters
    if described.body is not None:
        found["requestBody"] = {"required": described.body not in _OPTIONAL, "content": _content(described.body)}
    return found


def _responses(described: Operation) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for status, schema in sorted(described.answers.items()):
        answer: Json = {"description": MEANINGS[status], "headers": _headers(described.headers)}
        if schema is not None:
            answer["content"] = _content(schema)
        found[str(status)] = answer
    problems = _problems(described)
    for status in sorted({*problems, *described.refusals}):
        found[str(status)] = _error(status, problems.get(status, {}), described.refusals.get(status, ()))
    return found


def _error(status: int, problems: Mapping[str, Problem], refusals: tuple[str, ...]) -> Json:
    codes = {problem.code for problem in problems.values()} | set(refusals)
    schemas = [reference("schemas", name) for name, some in (("Error", problems), ("TokenError", refusals)) if some]
    examples = {name: {"value": msgspec.json.decode(problem.body())} for name, problem in problems.items()}
    examples |= {code: {"value": {**EXAMPLES["TokenError"], "error": code}} for code in refusals}
    return {
        "description": "; ".join(f"`{code}`" for code in sorted(codes)),
        "headers": _headers(HEADERS_OF_ERRORS.get(status, ())),
        "content": {
            "application/json": {
                "schema": schemas[0] if len(schemas) == 1 else {"oneOf": schemas},
                "examples": examples,
            }
        },
    }


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
    kinds: tuple[Raised, ...] = (errors.TooLarge, errors.UrlTooLong)
    if {"secret", "token"} & set(described.security):
        kinds += CREDENTIALS
    if "admin" in described.security:
        kinds += (errors.MissingCredential, errors.Forbidden)
    if described.body == "TokenRequest":
        kinds += (errors.TooSlow,)
    elif described.body == "Upload":
        kinds += (errors.BadSyntax, errors.BadArgument, errors.TooSlow, errors.UnsupportedCoding)
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
    return {name: reference("headers", name) for name in ("X-Correlating-OperationId", *names)}


def _content(schema: str) -> Json:
    """JSON, but for forms and for the bytes of a file."""
    if schema == "File":
        return {"*/*": {}}
    if schema == "Upload":
        return {"multipart/form-data": {"schema": reference("schemas", schema)}, "image/jpeg": {}}
    media_type = "application/x-www-form-urlencoded" if schema == "TokenRequest" else "application/json"
    return {
        media_type: {
            "schema": reference("schemas", schema),
            "examples": {"example": {"value": EXAMPLES[schema]}},
        }
    }
