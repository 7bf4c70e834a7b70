"""What each error looks like on the wire: one table (spec 3.5; bot 3).

The first line whose class fits decides. Status and code are stable, the message is free text (3.5).
"""

from __future__ import annotations

import contextlib
import math
from functools import cache, lru_cache

import msgspec

from landline import errors
from landline.core.json_text import DEPTH

_TABLE: tuple[tuple[type[errors.LandlineError], int, str], ...] = (
    (errors.BadSyntax, 400, "BadSyntax"),
    (errors.MissingProperty, 400, "MissingProperty"),
    (errors.UnsupportedMediaType, 415, "BadArgument"),
    (errors.TooLarge, 413, "MessageSizeTooBig"),
    (errors.UrlTooLong, 414, "BadArgument"),
    (errors.TooSlow, 408, "BadArgument"),
    (errors.RangeNotSatisfiable, 416, "BadArgument"),
    (errors.NotFound, 404, "BadArgument"),
    (errors.MethodNotAllowed, 405, "BadArgument"),
    (errors.RequestError, 400, "BadArgument"),
    (errors.MissingCredential, 401, "BadArgument"),
    (errors.BotNotAuthenticated, 401, "BadArgument"),
    (errors.TokenExpired, 403, "TokenExpired"),
    (errors.NotTrusted, 403, "ServiceError"),
    (errors.CredentialError, 403, "BadArgument"),
    (errors.RateLimited, 429, "RateLimited"),
    (errors.UnknownConversation, 404, "BadArgument"),
    (errors.UnknownActivity, 404, "BadArgument"),
    (errors.UnknownBot, 404, "BadArgument"),
    (errors.UnknownSite, 404, "BadArgument"),
    (errors.UnknownKey, 404, "BadArgument"),
    (errors.AlreadyThere, 409, "Conflict"),
    (errors.ReadOnly, 409, "Conflict"),
    (errors.UnknownAttachment, 404, "BadArgument"),
    (errors.UnknownMember, 404, "BadArgument"),
    (errors.Conflict, 409, "Conflict"),
    (errors.IssuerUnavailable, 503, "ServiceError"),
    (errors.Draining, 503, "ServiceError"),
    (errors.NotServing, 409, "Conflict"),
    (errors.ConversationFull, 400, "BadArgument"),
    (errors.StoreError, 503, "ServiceError"),
    (errors.BotRejected, 502, "BotRejectedActivity"),
    (errors.DeliveryError, 502, "BotError"),
)

_encode = msgspec.json.Encoder().encode

RETRY_AFTER_S = 1
"""`Retry-After` of every 503: whole seconds, at least 1 (spec 10)."""


class Problem(msgspec.Struct, frozen=True):
    """An error answer."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    inner: dict[str, object] | None = None

    def body(self) -> bytes:
        """The error object of 3.5."""
        if self.inner is None:
            return _error_object(self.code, self.message)
        return _encode({"error": {"code": self.code, "message": self.message, "innerHttpError": self.inner}})


@lru_cache(64)
def _error_object(code: str, message: str) -> bytes:
    """Most say one of a few things, and say it again."""
    return _encode({"error": {"code": code, "message": message}})


UNEXPECTED = Problem(500, "ServiceError", "Internal error")


def problem_of(error: errors.LandlineError, *, show_inner: bool = False) -> Problem:
    """The answer that `error` becomes. `show_inner` adds what a bot answered (D-9: off unless asked for)."""
    status, code = _line(type(error))  # type: ignore[arg-type]  # mypy takes its hash for that of an instance
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if status == 503:
        headers = ((b"retry-after", str(RETRY_AFTER_S).encode()),)
    elif isinstance(error, errors.RateLimited):
        headers = ((b"retry-after", str(max(1, math.ceil(error.wait_s))).encode()),)
    elif isinstance(error, errors.BotNotAuthenticated):
        headers = ((b"www-authenticate", b"Bearer"),)
    elif isinstance(error, errors.MethodNotAllowed):
        headers = ((b"allow", ", ".join(error.allowed).encode()),)
    elif isinstance(error, errors.UnsupportedCoding):
        headers = ((b"accept-encoding", b"identity"),)
    elif isinstance(error, errors.RangeNotSatisfiable):
        headers = ((b"content-range", f"bytes */{error.size}".encode()),)
    inner = _inner(error) if show_inner and isinstance(error, errors.BotRejected) else None
    return Problem(status, code, error.message, headers, inner)


@cache
def _line(kind: type[errors.LandlineError]) -> tuple[int, str]:
    return next((status, code) for known, status, code in _TABLE if issubclass(kind, known))


def _inner(error: errors.BotRejected) -> dict[str, object]:
    return {"statusCode": error.status, "body": _shown(error.body) if error.body else None}


def _shown(body: bytes) -> object:
    """JSON as JSON, anything else as text; so also what might be nested too deeply for whoever reads our answer."""
    if body.count(b"[") + body.count(b"{") <= DEPTH:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            return msgspec.json.decode(body)
    return body.decode("utf-8", "replace")
