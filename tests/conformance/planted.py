"""Mistakes that a Direct Line server can have, planted one at a time into ours, each with the check that notices it.

A plant changes one function, one value or one setting. It is planted before the server is built, in the process of the
test, so that it is gone when the test is over.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
import msgspec
import pytest

from landline import errors
from landline.channel import activities, joins
from landline.channel.conversations import Conversations
from landline.channel.streams import OpenStreams
from landline.channel.tokens import Tokens
from landline.core import activity, attachments, disposition, json_text, log, stream, watermark
from landline.core import tokens as core_tokens
from landline.core.activity import Kind
from landline.core.tokens import Ticket
from landline.core.watermark import Given, Start
from landline.server import attachments as downloads
from landline.server import directline, exchange
from landline.server.exchange import Exchange
from landline.server.paths import Paths
from landline.wire import answers, problems
from landline.wire import connection as http
from landline.wire.connection import HttpProtocol

Sow = Callable[[pytest.MonkeyPatch], None]
Answering = Callable[[Exchange, int, bytes], tuple[int, bytes]]


@dataclass(frozen=True)
class Plant:
    """A mistake. `number` is the check that must fail."""

    number: int
    mistake: str
    sow: Sow
    settings: Mapping[str, Any] = field(default_factory=dict)


def value(where: object, name: str, other: object) -> Sow:
    """Something else in the place of a function or a value."""
    return lambda patch: patch.setattr(where, name, other)


def wrapped(where: Any, name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Sow:
    """A function made of the one that is there."""
    return lambda patch: patch.setattr(where, name, change(getattr(where, name)))


def all_of(*sows: Sow) -> Sow:
    """Several changes that make one mistake."""

    def sow(patch: pytest.MonkeyPatch) -> None:
        for each in sows:
            each(patch)

    return sow


def forgetful(where: Any, name: str) -> Sow:
    """A function that remembers nothing of the time before the mistake."""
    return wrapped(where, name, lambda function: function.__wrapped__)  # type: ignore[attr-defined]


def answering(change: Answering) -> Sow:
    """Other statuses and bodies than the endpoints answer."""

    def sow(patch: pytest.MonkeyPatch) -> None:
        say = Exchange._say

        def changed(self: Exchange, status: int, body: bytes, lines: bytes) -> Awaitable[None]:
            status, body = change(self, status, body)
            return say(self, status, body, lines)

        patch.setattr(Exchange, "_say", changed)

    return sow


def without(name: bytes) -> Sow:
    """A header that is forgotten."""

    def sow(patch: pytest.MonkeyPatch) -> None:
        say = Exchange._say

        def changed(self: Exchange, status: int, body: bytes, lines: bytes) -> Awaitable[None]:
            left = [line for line in lines.splitlines(keepends=True) if not line.startswith(name + b":")]
            return say(self, status, body, b"".join(left))

        patch.setattr(Exchange, "_say", changed)

    return sow


def on(path: str, change: Callable[[int, Any], tuple[int, Any]]) -> Sow:
    """Other good answers than an endpoint gives: `change` gets status and JSON."""

    def answer(asked: Exchange, status: int, body: bytes) -> tuple[int, bytes]:
        if status >= 300 or not asked.scope["path"].endswith(path):
            return status, body
        status, parsed = change(status, json.loads(body))
        return status, json.dumps(parsed).encode()

    return answering(answer)


def code(kind: type[errors.LandlineError], status: int, name: str) -> Sow:
    """An error that looks like another one."""
    return all_of(value(problems, "_TABLE", ((kind, status, name), *problems._TABLE)), forgetful(problems, "_line"))


def start_at(change: Callable[..., Start]) -> Sow:
    """Another place where readers begin; `change` gets the right one and what was given."""

    def wrap(right: Callable[..., Start]) -> Callable[..., Start]:
        return lambda given, *more, **named: change(right(given, *more, **named), given)

    return lambda patch: patch.setattr("landline.channel.conversations.start_of", wrap(watermark.start_of))


async def _nothing(*_: object, **__: object) -> None:
    return None


def _anything(*_: object, **__: object) -> None:
    return None


def _not_read(*_: object) -> None:
    raise errors.MissingCredential


def both(*sows: Sow) -> Sow:
    """Mistakes that only together are one."""

    def sow(patch: pytest.MonkeyPatch) -> None:
        for each in sows:
            each(patch)

    return sow


# What some of them do


def any_scheme(self: Exchange) -> str:
    parts = (self.header(b"authorization") or b"x").split()
    return parts[-1].decode("latin-1")


def unverified(token: str, keys: object) -> core_tokens.Claims:
    try:
        return msgspec.convert(jwt.decode(token, options={"verify_signature": False}), core_tokens.Claims)
    except (jwt.PyJWTError, ValueError) as error:
        raise errors.Forbidden from error


def any_ticket(right: Callable[..., Ticket]) -> Callable[..., Ticket]:
    def read(text: str, keys: object) -> Ticket:
        ticket = right(text, keys)
        return msgspec.structs.replace(ticket, expires_ms=ticket.expires_ms + 10**7)

    return read


def case_counts(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda members: right({name: each for name, each in members.items() if name == name.lower()})


def unbound(right: Callable[..., Any]) -> Callable[..., Any]:
    def sender(written: dict[str, Any], bound: Any) -> Any:
        return right(written, bound if "id" not in written else None)

    return sender


def with_role(right: Callable[..., Any]) -> Callable[..., Any]:
    def account(written: dict[str, Any], account_id: str, name: str | None) -> dict[str, object]:
        return {**right(written, account_id, name), **{k: v for k, v in written.items() if k == "role"}}

    return account


def one_fewer(right: Callable[..., Any]) -> Callable[..., Any]:
    """A stream that steps over the first entry behind its position, if it does not begin at the beginning."""

    def init(self: Any, conversation: Any, position: int, *more: Any, **named: Any) -> None:
        right(self, conversation, position + 1 if position else 0, *more, **named)

    return init


def all_in_one(self: stream.Stream, page: log.Page) -> list[bytes]:
    frames = FRAMES(self, page)
    if len(frames) < 2:
        return frames
    sets = [json.loads(frame) for frame in frames]
    together = [each for one in sets for each in one["activities"]]
    return [json.dumps({"activities": together, "watermark": sets[-1]["watermark"]}).encode()]


FRAMES = stream.Stream._frames


def beginning_with_nothing(right: Callable[..., list[bytes]]) -> Callable[..., list[bytes]]:
    """What Landline did before: a set without activities says where a stream stands."""

    def frames(self: stream.Stream, page: log.Page) -> list[bytes]:
        first = [json.dumps({"activities": [], "watermark": self.watermark}).encode()] if self._start else []
        return first + right(self, page)

    return frames


def typing_moves(passing: log.Transient, last_watermark: str, base: bytes = b"") -> bytes:
    return log.transient_frame(passing, "99-00000000", base)


def key_forgotten(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *given: right(*given[:5])


def swallowing(right: Callable[..., Any]) -> Callable[..., Any]:
    """A send with a `clientActivityID` that was seen before is taken for a repeat."""

    async def send(*given: Any) -> Any:
        data = json.loads(given[3]).get("channelData") or {}
        return await right(*given[:5], data.get("clientActivityID"))

    return send


def awaiting_the_bot(right: Callable[..., Any]) -> Callable[..., Any]:
    async def start(self: Conversations, grant: Any, parameters: Any, deadline: float) -> Any:
        opened = await right(self, grant, parameters, deadline)
        await asyncio.sleep(2.2)
        return opened

    return start


def same_token(self: Tokens, grant: Any) -> Any:
    assert grant.claims is not None
    return self._issue(grant.claims, 3600)


def surrogates_replaced(right: Callable[..., Any]) -> Callable[..., Any]:
    return lambda body: right(activity._SURROGATES.sub(lambda found: b"?" if found[1] else found[0], body))


PUBLIC = exchange._JSON_LINES.replace(b"no-store", b"public")


def query_wins(message: Callable[..., Any]) -> Callable[..., Any]:
    """Uploads whose sender is `userId`, whatever their activity says."""

    def changed(written: bytes | None, files: Any, user_id: str | None) -> Any:
        found = message(written, files, user_id)
        if user_id:
            found.members["from"] = msgspec.Raw(msgspec.json.encode({"id": user_id}))
        return found

    return changed


PLANTS = (
    # A
    Plant(1, "answers may be stored", value(exchange, "_JSON_LINES", PUBLIC)),
    Plant(2, "operation ids repeat", value(exchange, "operation_id", lambda: "always-the-same")),
    Plant(5, "405 without Allow", without(b"allow")),
    Plant(8, "any media type is JSON", value(Exchange, "check_json", _anything)),
    Plant(
        13,
        "Retry-After is not exposed",
        all_of(
            value(answers, "_EXPOSED", (b"access-control-expose-headers", b"X-Correlating-OperationId")),
            forgetful(exchange, "cross_origin_lines"),
        ),
    ),
    Plant(17, "a missing credential is 404", code(errors.MissingCredential, 404, "BadArgument")),
    # B
    Plant(24, "any scheme is Bearer", value(Exchange, "bearer", any_scheme)),
    Plant(27, "signatures are not verified", value(core_tokens, "read", unverified)),
    Plant(28, "tokens do not expire", value(core_tokens, "check_time", _anything)),
    Plant(31, "a token opens every conversation", value(Tokens, "check_scope", _anything)),
    Plant(36, "revoking leaves streams open", value(OpenStreams, "close_unless", _anything)),
    # C
    Plant(42, "generate gives a stream URL", on("/generate", lambda s, each: (s, {**each, "streamUrl": "ws://x"}))),
    Plant(45, "capitals count", wrapped(directline, "read_parameters", case_counts)),
    Plant(49, "a token generates tokens", value(Tokens, "secret_grant", lambda self, text: self.grant(text))),
    Plant(50, "refresh gives the old token", value(Tokens, "refresh", same_token)),
    # D
    Plant(59, "a repeated start is 201", on("/conversations", lambda status, each: (201, each))),
    Plant(
        63,
        "stream URLs are http",
        on("/conversations", lambda s, e: (s, {**e, "streamUrl": f"http{e['streamUrl'][2:]}"})),
    ),
    Plant(64, "a start waits for the bot", wrapped(Conversations, "start", awaiting_the_bot)),
    Plant(71, "nobody joins", value(joins.Joins, "tell_of", _nothing)),
    # E
    Plant(73, "ids are short", value(log, "activity_id", lambda conversation, n: f"{conversation}|{n}")),
    Plant(79, "the token's user does not win", wrapped(activity, "_sender", unbound)),
    Plant(84, "clients may be bots", wrapped(activity, "_account", with_role)),
    Plant(90, "the limit is a byte too high", lambda patch: None, {"activity_bytes": 262_145}),
    Plant(91, "a rejection is a BotError", code(errors.BotRejected, 502, "BotError")),
    Plant(100, "credentials are replayed", value(activity, "_signs_in", lambda members: False)),
    # F
    Plant(103, "downloads may be sniffed", value(downloads, "_HARMLESS", ())),
    Plant(110, "paths stay in names", value(attachments, "file_name", lambda given: given or "attachment")),
    Plant(105, "templates are not filled", value(attachments, "_template", lambda attachment: None)),
    Plant(112, "scripts are shown", both(value(downloads, "may_be_shown", bool), value(downloads, "_HARMLESS", ()))),
    Plant(213, "any parameters will do", value(attachments, "_MEDIA_TYPE", re.compile(r"[^/]+/[^;,]+(;.*)?"))),
    # G
    Plant(118, "pages are too long", lambda patch: None, {"page_activities": 150}),
    Plant(
        120,
        "nobody is told of a replay",
        start_at(lambda right, given: right._replace(replay=watermark.Replay.COMPLETE)),
    ),
    Plant(121, "typing is kept", value(activity, "_FROM_CLIENT", {"typing": Kind.STORED})),
    Plant(115, "an empty page has no watermark", on("/activities", lambda s, e: (s, {**e, "watermark": ""}))),
    # H
    Plant(
        130,
        "absent means the beginning",
        start_at(lambda right, given: Start(0, "0", right.replay) if given is Given.ABSENT else right),
    ),
    Plant(132, "one activity is skipped", wrapped(stream.Stream, "__init__", one_fewer)),
    Plant(136, "tickets live for hours", wrapped(core_tokens, "read_ticket", any_ticket)),
    Plant(143, "a page is told of nothing", code(errors.NotWebSocket, 426, "BadArgument")),
    # I
    Plant(144, "several activities in a frame", value(stream.Stream, "_frames", all_in_one)),
    Plant(144, "streams begin with an empty set", wrapped(stream.Stream, "_frames", beginning_with_nothing)),
    Plant(145, "no keep-alive", value(stream.Stream, "_sign_of_life", _anything)),
    Plant(150, "typing moves the watermark", value(stream, "transient_frame", typing_moves)),
    Plant(155, "seven streams", lambda patch: None, {"streams_per_conversation": 7}),
    # J
    Plant(164, "reconnecting skips one", wrapped(stream.Stream, "__init__", one_fewer)),
    Plant(166, "keys are forgotten", wrapped(activities.Activities, "send", key_forgotten)),
    Plant(170, "equal sends are one", wrapped(activities.Activities, "send", swallowing)),
    Plant(173, "replies to joins name them", value(activity, "names_unseen", lambda named, conversation: False)),
    Plant(178, "429 does not say when", without(b"retry-after")),
    Plant(185, "half an emoji becomes a question mark", wrapped(activity, "decode", surrogates_replaced)),
    # K
    Plant(198, "slashes count", value(Paths, "_with_single_slashes", lambda self, path: path)),
    Plant(200, "compressed bodies are read", value(Exchange, "check_coding", _anything)),
    Plant(204, "nobody reads the header of a stream", value(Tokens, "admit_bearer", _not_read)),
    Plant(210, "connections are reset", value(HttpProtocol, "_part", lambda self: self.transport.close())),
    Plant(211, "any host will do", value(http, "check_fields", _anything)),
    Plant(203, "ids are strings only", value(activity, "_INTEGER", re.compile(rb"(?!)"))),
    Plant(205, "bare numbers mean nothing", value(watermark, "_NUMBER", re.compile("(?!)"))),
    Plant(206, "streams begin with an empty set", wrapped(stream.Stream, "_frames", beginning_with_nothing)),
    Plant(209, "whatever has a type is stored", value(activity, "_check_shapes", _anything)),
    Plant(214, "clients install themselves", value(activity, "_NOT_CLIENTS", frozenset())),
    Plant(199, "null is a body", value(json_text, "is_none", lambda body: not body.strip())),
    Plant(201, "the query wins over the part", wrapped(attachments, "message", query_wins)),
    Plant(202, "encoded words stay as they are", value(disposition, "_decoded", lambda words: words[0])),
)
