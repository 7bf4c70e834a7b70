"""What the OpenAPI document says of the admin API: its bodies, with an example of each, and its parameters.

Bots and sites are described by the types that read them (`core/bot.py`), so a new property is in the document at once.
"""

from __future__ import annotations

from typing import Any

import msgspec

from landline.core.activity import ID_CHARACTERS
from landline.core.bot import Profile, Site

Json = dict[str, Any]

_text: Json = {"type": "string", "minLength": 1}
_time: Json = {"type": "string", "format": "date-time"}
_ski: Json = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]{12}$",
    "description": "The mark of a secret, which does not open anything.",
}
_read_only: Json = {
    "type": "boolean",
    "description": "Whether it is named in the settings, and can be changed only there.",
}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(item: Json) -> Json:
    return {"type": "array", "items": item}


def _properties(kind: type[msgspec.Struct]) -> Json:
    """Those of an operator's type, without defaults: what is absent from a change stays as it is."""
    _, components = msgspec.json.schema_components((kind,))
    described = components[kind.__name__]["properties"]
    return {name: {key: value for key, value in each.items() if key != "default"} for name, each in described.items()}


_BOT, _SITE = _properties(Profile), _properties(Site)
_numbered = _list(_object(key={"enum": [1, 2]}, ski=_ski, since=_time))

SCHEMAS: dict[str, Json] = {
    "NewBot": {"type": "object", "properties": _BOT, "required": ["id"], "additionalProperties": False},
    "BotChange": {"type": "object", "properties": _BOT, "additionalProperties": False},
    "Bot": _object(
        **_BOT,
        service_keys=_list(_object(mark=_text, since=_time)),
        app_secrets=_numbered,
        settings=_list(_object(ski=_ski)),
        read_only=_read_only,
    ),
    "NewSite": {"type": "object", "properties": _SITE, "required": ["id", "bot_id"], "additionalProperties": False},
    "SiteChange": {"type": "object", "properties": _SITE, "additionalProperties": False},
    "Site": _object(
        **_SITE,
        secrets=_numbered,
        settings=_list(_object(ski=_ski, revoked={"type": "boolean"})),
        former=_list(_object(ski=_ski, until=_time)),
        revoked=_list(_ski),
        read_only=_read_only,
    ),
    "Secret": _object(
        key={"enum": [1, 2]},
        secret={"type": "string", "description": "Answered once; the server keeps only its digest."},
        ski=_ski,
    ),
    "Revocation": {
        **_object(ski=_ski),
        "additionalProperties": False,
    },
    "Person": {
        **_object(user={"type": "string", "minLength": 1, "maxLength": ID_CHARACTERS}),
        "additionalProperties": False,
    },
    "Forgotten": _object(conversations={"type": "integer", "minimum": 0}),
    "KnownConversation": _object(
        id=_text,
        bot_id=_text,
        activities={"type": "integer", "minimum": 0},
        last_activity={"type": ["string", "null"], "format": "date-time"},
        members=_list(_object(id=_text, name={"type": ["string", "null"]}, bot={"type": "boolean"})),
    ),
    "Failure": _object(
        activity=_text,
        bot_id=_text,
        conversation=_text,
        at=_time,
        reason=_text,
        status={"type": ["integer", "null"]},
        attempts={"type": "integer", "minimum": 1},
    ),
    "OwnAuthority": _object(base=_text, issuer=_text),
    "SigningKey": _object(kid=_text, signs_from=_time),
}
SCHEMAS["NewSiteSecret"] = {
    **SCHEMAS["Site"],
    "properties": {**SCHEMAS["Site"]["properties"], "secret": SCHEMAS["Secret"]["properties"]["secret"]},
}


def _listed(name: str, kind: str) -> Json:
    return _object(**{name: _list({"$ref": f"#/components/schemas/{kind}"})})


SCHEMAS["Bots"] = _listed("bots", "Bot")
SCHEMAS["Sites"] = _listed("sites", "Site")
SCHEMAS["Failures"] = _listed("failures", "Failure")
SCHEMAS["SigningKeys"] = _listed("signing_keys", "SigningKey")

_since = "2026-01-05T10:00:00.001Z"
_mark = "qk2M9X0cTz1-"
_secret: Json = {"key": 1, "secret": "bPq0...", "ski": _mark}
_new_bot: Json = {"id": "support", "endpoint": "http://127.0.0.1:3978/api/messages"}
_new_site: Json = {"id": "web", "bot_id": "support", "trusted_origins": ["https://www.example.org"]}
_whole_bot: Json = {
    **msgspec.structs.asdict(Profile(**_new_bot)),
    "service_keys": [{"mark": _mark, "since": _since}],
    "app_secrets": [],
    "settings": [],
    "read_only": False,
}
_whole_site: Json = {
    **msgspec.to_builtins(msgspec.structs.asdict(msgspec.convert(_new_site, Site))),
    "secrets": [{"key": 1, "ski": _mark, "since": _since}],
    "settings": [],
    "former": [],
    "revoked": [],
    "read_only": False,
}
_failure: Json = {
    "activity": "Kq3vW9sTz1|0000000",
    "bot_id": "support",
    "conversation": "Kq3vW9sTz1",
    "at": _since,
    "reason": "bot returned an error",
    "status": 500,
    "attempts": 1,
}
_signing_key: Json = {"kid": "1hXrUDbH", "signs_from": _since}
EXAMPLES: dict[str, Json] = {
    "NewBot": _new_bot,
    "BotChange": {"concurrency": 8},
    "Bot": _whole_bot,
    "Bots": {"bots": [_whole_bot]},
    "NewSite": _new_site,
    "SiteChange": {"enabled": False},
    "Site": _whole_site,
    "NewSiteSecret": {**_whole_site, "secret": _secret["secret"]},
    "Sites": {"sites": [_whole_site]},
    "Secret": _secret,
    "Revocation": {"ski": _mark},
    "Person": {"user": "dl_b41d"},
    "Forgotten": {"conversations": 2},
    "KnownConversation": {
        "id": "Kq3vW9sTz1",
        "bot_id": "support",
        "activities": 12,
        "last_activity": _since,
        "members": [{"id": "dl_7f3c", "name": "Ann", "bot": False}],
    },
    "Failures": {"failures": [_failure]},
    "OwnAuthority": {"base": "https://landline.example", "issuer": "https://landline.example"},
    "SigningKey": _signing_key,
    "SigningKeys": {"signing_keys": [_signing_key]},
}


def _in_path(name: str, description: str, example: str, **schema: Any) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": {**_text, **schema},
        "example": example,
    }


PARAMETERS: dict[str, Json] = {
    "bot": _in_path("bot", "The bot's id.", "support"),
    "site": _in_path("site", "The site's id.", "web"),
    "number": _in_path("number", "Which of the two secrets.", "1", enum=["1", "2"]),
    "mark": _in_path("mark", "The mark of a service key.", _mark),
    "kid": _in_path("kid", "The id of a signing key.", "1hXrUDbH"),
    "of": {
        "name": "bot",
        "in": "query",
        "description": "Only the sites of this bot.",
        "schema": {"type": "string"},
        "example": "support",
    },
}
