"""What a check is given: a server to talk to, the bot behind it, and where there are such, ways to start servers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from landline.conformance.directline import Activity, Answer, ClientStream, DirectLine
from landline.conformance.expect import Violation, accepted, same
from landline.conformance.scripted_bot import Answer as BotAnswer
from landline.conformance.scripted_bot import ScriptedBot

USER = "user"
"""Who speaks where a check does not care."""
_LOOK_S = 0.02


class Running(Protocol):
    """A server that can be ended and started again on the same address and data."""

    @property
    def directline(self) -> str:
        """What a client is given as its `domain`."""

    async def restart(self, *, kill: bool = False) -> None:
        """End it, by `kill -9` or in good order, and start it again."""

    async def terminate(self) -> int:
        """End it in good order; the exit code."""

    async def start(self) -> object:
        """Start it, and wait until it is ready."""


class Operator(Protocol):
    """Who may add sites, and bots, to a running server. Ids are new; what is returned is a secret."""

    async def add_bot(self, bot_id: str, endpoint: str | None = None) -> object:
        """Add a bot."""

    async def add_site(self, site_id: str, bot_id: str = "bot", **settings: object) -> str:
        """Add a site; its first secret."""

    async def rotate(self, site_id: str, key: int) -> str:
        """Rotate a key of a site."""

    async def revoke(self, site_id: str, key: int) -> str:
        """Revoke a key of a site."""

    async def disable(self, site_id: str) -> None:
        """Disable a site."""


class Control(Protocol):
    """A way to have servers. Only who runs the server has it."""

    async def server(self, settings: dict[str, object]) -> Running:
        """A server with these settings, and everything else as in the subject; the same one for the same settings."""

    def operator(self, running: Running) -> AbstractAsyncContextManager[Operator]:
        """Somebody who may change it while it runs."""


@dataclass(frozen=True)
class Pace:
    """How long a server takes for what the specification gives it time for, in seconds: at its defaults, the most."""

    keepalive_s: float = 30.0
    stream_url_s: float = 60.0
    bot_s: float = 18.0
    headers_s: float = 10.0
    body_s: float = 30.0


@dataclass
class Subject:
    """The server that is checked. `client` has the secret.

    Whoever made it enters `open`, and closes nothing else. `bot` and `control` exist only where a check says that it
    needs them.
    """

    domain: str
    secret: str
    second_secret: str | None = None
    foreign_secret: str | None = None
    maybe_bot: ScriptedBot | None = None
    control: Control | None = None
    pace: Pace = field(default_factory=Pace)
    running: Running | None = None
    client: DirectLine = field(init=False)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Subject]:
        """With connections."""
        async with DirectLine(self.domain, self.secret, inspect=lambda answer, origin: None) as client:
            self.client = client
            yield self

    @property
    def bot(self) -> ScriptedBot:
        """The bot behind the server."""
        if self.maybe_bot is None:
            raise LookupError("a check uses the bot without saying that it needs it")
        return self.maybe_bot

    @contextlib.asynccontextmanager
    async def server(self, pace: Pace | None = None, **settings: object) -> AsyncIterator[Subject]:
        """A server with these settings, beside the same bot."""
        if self.control is None:
            raise LookupError("a check starts a server without saying that it needs to")
        running = await self.control.server(settings)
        async with replace(self, domain=running.directline, running=running, pace=pace or self.pace).open() as other:
            yield other

    @contextlib.asynccontextmanager
    async def quick(self) -> AsyncIterator[Subject]:
        """A server that waits for nothing for long, if there is a way to have one; else this one, at its own pace."""
        if self.control is None:
            yield self
            return
        pace = Pace(keepalive_s=0.75, stream_url_s=2.0, bot_s=1.5, headers_s=1.0, body_s=1.0)
        async with self.server(
            pace, keepalive_s=0.5, stream_url_ttl_s=2, bot_timeout_s=1, header_timeout_s=1, body_stall_s=1
        ) as other:
            yield other

    @contextlib.asynccontextmanager
    async def brief(self) -> AsyncIterator[Subject]:
        """A server whose tokens live for a second, and where a conversation has one stream."""
        async with self.server(token_ttl_s=1, clock_leeway_s=0, streams_per_conversation=1) as other:
            yield other

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        """An operator of this server."""
        if self.control is None or self.running is None:
            raise LookupError("a check changes the server without saying that it needs to")
        async with self.control.operator(self.running) as operator:
            yield operator

    async def start(self, **parameters: object) -> Conversation:
        """A new conversation, started with the secret; where there is a bot, it has heard of it."""
        return await self.started(accepted(await self.client.start(**parameters), 201))

    async def started(self, opened: Answer) -> Conversation:
        """The conversation of the answer to a start."""
        conversation = Conversation(self, opened)
        if self.maybe_bot is not None:
            await self.maybe_bot.wait_for(lambda each: each.conversation_id == conversation.id)
        return conversation


class Conversation:
    """A conversation, seen by the client that has the token of its start."""

    def __init__(self, subject: Subject, opened: Answer) -> None:
        self.opened = opened
        self.id = opened.conversation_id
        self.client = subject.client.using(opened.token)
        self._subject = subject

    # As the client

    async def send(self, activity: Activity | str = "hello", **options: Any) -> Answer:
        """Send an activity, or a text."""
        return await self.client.send(self.id, activity, **options)

    async def sent(self, activity: Activity | str = "hello", **options: Any) -> str:
        """The same, when it has to be taken; the id."""
        return str(accepted(await self.send(activity, **options)).json["id"])

    async def read(self, watermark: str | None = None) -> Answer:
        """One page of activities."""
        return accepted(await self.client.activities(self.id, watermark))

    async def log(self, watermark: str | None = None) -> list[Activity]:
        """All pages."""
        return await self.client.all_activities(self.id, watermark)

    async def texts(self) -> list[object]:
        """The texts of the whole log."""
        return [each.get("text") for each in await self.log()]

    async def reconnect(self, watermark: str | None = None) -> Answer:
        """GET conversation, which has to work."""
        return accepted(await self.client.reconnect(self.id, watermark))

    @contextlib.asynccontextmanager
    async def stream(self, url: str | None = None) -> AsyncIterator[ClientStream]:
        """An open stream: from the beginning unless `url` is given."""
        async with self.client.stream(url or self.opened.stream_url) as stream:
            yield stream

    async def stream_of(self, watermark: str | None, last: str) -> list[object]:
        """The texts that a stream brings after a reconnect with this watermark, up to the text `last`."""
        async with self.stream((await self.reconnect(watermark)).stream_url) as stream:
            await stream.until_text(last)
            return stream.texts

    # As the bot

    async def say(self, activity: Activity | str, **more: object) -> str:
        """Let the bot send an activity, or a text, of its own accord; the id."""
        message = {"type": "message", "text": activity} if isinstance(activity, str) else activity
        answer = await self._subject.bot.send(self.id, {**message, **more})
        same(answer.status, 200, "status of the bot's call")
        return str(answer.json["id"])

    async def change(self, method: str, activity_id: str, activity: Activity | None = None) -> BotAnswer:
        """Let the bot update or delete an activity."""
        base = self._subject.bot.service_url(self.id)
        url = f"{base}/v3/conversations/{self.id}/activities/{activity_id}"
        return await self._subject.bot.request(method, url, json=activity)

    def heard(self, type_: str = "message") -> list[Activity]:
        """What the bot got of this conversation, of one type."""
        return [each for each in self._subject.bot.heard(self.id) if each["type"] == type_]


async def until(condition: Callable[[], object], what: str, timeout: float = 10.0) -> None:
    """Wait until `condition` holds. Raises `Violation` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise Violation(f"not within {timeout} s: {what}")
        await asyncio.sleep(_LOOK_S)


async def until_texts(conversation: Conversation, *texts: str) -> None:
    """Wait until the log has exactly these texts."""
    end = time.monotonic() + 10
    while (seen := await conversation.texts()) != list(texts):
        if time.monotonic() > end:
            raise Violation(f"the log has {seen} instead of {list(texts)}")
        await asyncio.sleep(_LOOK_S * 10)
