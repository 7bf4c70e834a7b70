"""What the OpenAPI document refers to: bodies, with an example of each; parameters, headers, credentials.

Which operation refers to what, it says itself, by `@operation(...)` in `server/openapi.py`.
"""

from __future__ import annotations

from typing import Any

from landline.core.bot import CONNECTOR
from landline.core.origins import ORIGINS
from landline.core.tokens import NAME_CHARACTERS
from landline.core.watermark import BEGINNING
from landline.server import admin_schemas

Json = dict[str, Any]


def reference(kind: str, name: str) -> Json:
    """Where something of this name stands among the components."""
    return {"$ref": f"#/components/{kind}/{name}"}


TAGS = {
    "Direct Line": "For clients: Web Chat, DirectLineJS, scripts.",
    "Connector": "For bots. The base of these paths is the `serviceUrl` of the activities that a bot gets. "
    "A bot with an app id also sends a token.",
    "Attachments": "A link to a file needs no credential. Links are made by uploads, and come in activities.",
    "Authority": "Where bots with an app id get their tokens and our public keys. It is at the base of the service "
    "URL, below `/adfs` there, and below any name of a tenant, because SDKs look for it in all three places.",
    "Admin": "For operators, with the admin credential. Behind a proxy these paths should stay inside.",
    "Health": "For probes of load balancers and orchestrators.",
}
MEANINGS = {
    101: "The stream is open.",
    200: "Done.",
    201: "Created.",
    204: "Done; the answer has no body.",
    206: "The requested part.",
}
HEADERS_OF_ERRORS = {416: ("Content-Range",), 429: ("Retry-After",), 503: ("Retry-After",)}

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

SCHEMAS: dict[str, Json] = {
    "TokenParameters": _object(
        open_=True,
        user={
            "type": ["object", "null"],
            "properties": {
                "id": {"type": ["string", "null"], "minLength": 1, "maxLength": 256},
                "name": {"type": ["string", "null"], "maxLength": NAME_CHARACTERS},
            },
        },
        trustedOrigins={"type": ["array", "null"], "items": _text, "maxItems": ORIGINS},
        locale={"description": "Read by a start, and only if it is a string."},
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
        **{"from": reference("schemas", "Account")},
        text=_text,
        attachments={"type": "array"},
        entities={"type": "array"},
        channelData={},
    ),
    "ActivitySet": _object(
        ("activities", "watermark"),
        activities={"type": "array", "items": reference("schemas", "KeptActivity")},
        watermark=_watermark,
    ),
    "KeptActivity": _object(
        ("type", "id", "timestamp", "from", "conversation", "channelId"),
        open_=True,
        type=_name,
        id={"type": "string", "pattern": r"^[A-Za-z0-9_-]{8,64}\|[0-9]{7,}$"},
        timestamp={"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,}Z$"},
        **{"from": reference("schemas", "Account")},
        conversation=_object(("id",), open_=True, id=_conversation_id),
        channelId={"const": "directline"},
    ),
    "Resource": _object(("id",), id={"type": "string", "description": "The activity's id."}),
    "Upload": {
        "type": "object",
        "description": "Parts that have a file name, or the name `file`, are attachments.",
        "properties": {
            "activity": {
                "description": "At most one part of the type `application/vnd.microsoft.activity`, whatever its name.",
                **reference("schemas", "Activity"),
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
        activities={"type": "array", "items": reference("schemas", "Activity"), "minItems": 1},
    ),
    "Members": {"type": "array", "items": reference("schemas", "Account")},
    "PagedMembers": _object(
        ("members",), members={"type": "array", "items": reference("schemas", "Account")}, continuationToken=_name
    ),
    "ConversationParameters": _object(
        ("members",),
        open_=True,
        members={"type": "array", "items": _object(("id",), open_=True, id=_name, name=_text), "minItems": 1},
        activity=reference("schemas", "Activity"),
    ),
    "CreatedConversation": _object(("id", "serviceUrl"), id=_conversation_id, serviceUrl=_name, activityId=_name),
    "Conversations": _object(
        ("conversations",),
        conversations={
            "type": "array",
            "items": _object(
                ("id", "members"),
                id=_conversation_id,
                members={"type": "array", "items": reference("schemas", "Account")},
            ),
        },
        continuationToken=_name,
    ),
    "Authority": _object(
        ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "end_session_endpoint"),
        open_=True,
        issuer={"type": "string", "description": "The name in our tokens."},
        authorization_endpoint={"type": "string", "description": "Required by SDKs; there is no sign-in here."},
        token_endpoint=_name,
        jwks_uri=_name,
        end_session_endpoint=_name,
        id_token_signing_alg_values_supported={"type": "array", "items": {"const": "RS256"}},
    ),
    "KeySet": _object(
        ("keys",),
        keys={
            "type": "array",
            "minItems": 1,
            "items": _object(
                ("kty", "use", "alg", "kid", "x5t", "n", "e", "endorsements"),
                kty={"const": "RSA"},
                use={"const": "sig"},
                alg={"const": "RS256"},
                kid=_name,
                x5t=_name,
                n=_name,
                e=_name,
                endorsements={"type": "array", "items": _text, "description": "The channelIds that it speaks for."},
            ),
        },
    ),
    "TokenRequest": _object(
        ("grant_type", "client_id", "client_secret"),
        open_=True,
        grant_type={"const": "client_credentials"},
        client_id={
            "type": "string",
            "minLength": 1,
            "description": "The bot's app id. It may also come by HTTP Basic.",
        },
        client_secret=_name,
        scope={"const": f"{CONNECTOR}/.default"},
    ),
    "GrantedToken": _object(
        ("token_type", "expires_in", "ext_expires_in", "access_token"),
        token_type={"const": "Bearer"},
        expires_in={"type": "integer", "minimum": 1, "description": "Seconds."},
        ext_expires_in={"type": "integer"},
        access_token=_name,
    ),
    "TokenError": _object(("error", "error_description"), error=_name, error_description=_text),
    "Error": _object(
        ("error",),
        error=_object(("code", "message"), code=_name, message=_text, innerHttpError={"type": "object"}),
    ),
    "Status": _object(("status",), status={"enum": ["live", "ready"]}),
    **admin_schemas.SCHEMAS,
}

_ID = "Kq3vW9sTz1"
_issued_example: Json = {"conversationId": _ID, "token": "eyJ...", "expires_in": 3600}
_said: Json = {"type": "message", "from": {"id": "dl_7f3c"}, "text": "hello"}
_member: Json = {"id": "dl_7f3c", "name": "Ann", "role": "user"}
EXAMPLES: dict[str, Any] = {
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
    "Authority": {
        "issuer": "https://landline.example",
        "authorization_endpoint": "https://landline.example/adfs/oauth2/v2.0/authorize",
        "token_endpoint": "https://landline.example/adfs/oauth2/v2.0/token",
        "jwks_uri": "https://landline.example/adfs/discovery/v2.0/keys",
        "end_session_endpoint": "https://landline.example/adfs/oauth2/v2.0/logout",
        "id_token_signing_alg_values_supported": ["RS256"],
    },
    "KeySet": {
        "keys": [
            {
                "kty": "RSA",
                "use": "sig",
                "alg": "RS256",
                "kid": "1hXrUDbH",
                "x5t": "1hXrUDbH",
                "n": "u1SU1LfVLPHCozMxH2Mo",
                "e": "AQAB",
                "endorsements": ["directline", "webchat"],
            }
        ]
    },
    "TokenRequest": {
        "grant_type": "client_credentials",
        "client_id": "11111111-2222-4333-8444-555555555555",
        "client_secret": "THE-APP-SECRET",
        "scope": f"{CONNECTOR}/.default",
    },
    "GrantedToken": {"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": "eyJ..."},
    "TokenError": {"error": "invalid_client", "error_description": "What is wrong, in words."},
    **admin_schemas.EXAMPLES,
}

PARAMETERS: dict[str, Json] = {
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
        "description": "The activity's id.",
        "schema": _name,
        "example": f"{_ID}|0000000",
    },
    "key": {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "The key that identifies a bot; part of its service URL.",
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
    "tenant": {
        "name": "tenant",
        "in": "path",
        "required": True,
        "description": "Any name. With `adfs`, SDKs do not ask Microsoft about it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "example": "adfs",
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
        "description": "The account's id.",
        "schema": _name,
        "example": "dl_7f3c",
    },
    "pageSize": {
        "name": "pageSize",
        "in": "query",
        "description": "Maximum members on the page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
        "example": 50,
    },
    "continuationToken": {
        "name": "continuationToken",
        "in": "query",
        "description": "The continuation token of the page before.",
        "schema": _text,
        "example": "",
    },
    "watermark": {
        "name": "watermark",
        "in": "query",
        "description": "The last watermark received. Empty, `-` or one that was never issued: from the beginning.",
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
        "description": "The sender's id, if the token names no user.",
        "schema": _text,
        "example": "dl_7f3c",
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A send that is repeated with the same key is stored once.",
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
        "example": "8e03978e-40d5-43e8-bc93-6894a57f9324",
    },
    "Origin": {
        "name": "Origin",
        "in": "header",
        "description": "The origin of the page that sends the request; browsers set it.",
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
    **admin_schemas.PARAMETERS,
}

HEADERS: dict[str, Json] = {
    "X-Correlating-OperationId": {
        "description": "An id of the request, which is also in the server's log line.",
        "required": True,
        "schema": _name,
    },
    "X-DirectLine-Replay": {
        "description": "Whether anything after the given watermark is missing.",
        "required": True,
        "schema": {"enum": ["complete", "from-start", "truncated"]},
    },
    "Content-Range": {"description": "The range that is sent, or the size.", "required": True, "schema": _text},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer", "minimum": 1}},
}

SECURITY: dict[str, Json] = {
    "secret": {"type": "http", "scheme": "bearer", "description": "Opens every conversation of the bot."},
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Opens one conversation."},
    "bot": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token that the authority issued to a bot with an app id. A bot without one sends none.",
    },
    "admin": {
        "type": "http",
        "scheme": "bearer",
        "description": "The setting `admin_secret`, or the content of `admin-secret` in the data directory.",
    },
}
