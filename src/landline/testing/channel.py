"""The channel of a test: one server for each bot, in a thread of this process.

A thread and not a process: it is there in a fraction of the time, ends with the test whatever happens, and a restart
on the same data is a restart for whoever is connected. The loop is not the test's, so that a test that blocks does not
stop the channel; the calls can be awaited from any loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import structlog

from landline.client import Options
from landline.client.line import DirectLine
from landline.config import Settings
from landline.server.app import Server
from landline.testing.bot import Bot
from landline.testing.chat import Chat

T = TypeVar("T")

_QUICK = Options(first_wait_s=0.05, longest_wait_s=0.5, request_timeout_s=20, send_timeout_s=20)
_UNHURRIED = 100_000
"""A rate that no test meets by being quick."""


class _Behind:
    """The server in front of one bot, and its data."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._server: Server | None = None

    async def start(self) -> None:
        self._server = Server(self.settings)
        await self._server.start()
        port = int(self._server.url.rpartition(":")[2])
        self.settings = msgspec.structs.replace(self.settings, port=port)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop()

    @property
    def url(self) -> str:
        assert self._server is not None
        return self._server.url

    async def restart(self) -> None:
        await self.stop()
        await self.start()


class Landline:
    """`with Landline() as landline:`, or the fixture of that name. Everything is gone when the block is left."""

    def __init__(self, **settings: Any) -> None:
        """Settings of the server by their names, such as `bot_timeout_s=2`."""
        self.secret = secrets.token_urlsafe(32)
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="landline", daemon=True)
        self._closers = contextlib.AsyncExitStack()
        self._behind: dict[str, _Behind] = {}
        self._lines: dict[str, DirectLine] = {}
        self._bot: Bot | None = None

    def __enter__(self) -> Landline:
        if not structlog.is_configured():
            # Otherwise every request would be a line on standard output.
            structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
        self._data = Path(self._closers_enter_directory())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait(self._closers.aclose())
        finally:
            self._wait(self._loop.shutdown_default_executor())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def bot(self) -> Bot:
        """The scripted bot, started when it is first asked for."""
        if self._bot is None:
            self._bot = self._wait(self._started_bot())
        return self._bot

    @property
    def url(self) -> str:
        """The channel in front of `bot`, for a client of your own: `url` and `secret` are all that it needs."""
        return self._wait(self._in_front_of(self.bot.endpoint)).url

    async def chat(self, bot_url: str | None = None, *, user: str = "user") -> Chat:
        """Begin a conversation with the bot at this messaging endpoint; without one, with `bot`."""
        endpoint = bot_url or (await asyncio.to_thread(lambda: self.bot)).endpoint
        return await self._await(self._chat(endpoint, user))

    async def _chat(self, endpoint: str, user: str) -> Chat:
        behind = await self._in_front_of(endpoint)
        if endpoint not in self._lines:
            line = DirectLine(behind.url, self.secret, options=_QUICK)
            self._lines[endpoint] = await self._closers.enter_async_context(line)
        conversation = await self._lines[endpoint].start(user=user)
        return Chat(conversation, behind.restart, self._await)

    async def _in_front_of(self, endpoint: str) -> _Behind:
        if endpoint not in self._behind:
            rates: dict[str, Any] = dict.fromkeys(("sends_per_s", "polls_per_s", "starts_per_s"), _UNHURRIED)
            data = self._data / str(len(self._behind))
            fixed = {"bot": endpoint, "data": data, "port": 0, "secret": self.secret, "drain_s": 0}
            behind = _Behind(Settings(**(rates | fixed | self._settings)))
            await behind.start()
            self._closers.push_async_callback(behind.stop)
            self._behind[endpoint] = behind
        return self._behind[endpoint]

    async def _started_bot(self) -> Bot:
        bot = Bot()
        await bot.start()
        self._closers.push_async_callback(bot.stop)
        return bot

    def _closers_enter_directory(self) -> str:
        directory = tempfile.TemporaryDirectory(prefix="landline-")
        self._closers.callback(directory.cleanup)
        return directory.name

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._submit(work).result()

    async def _await(self, work: Coroutine[Any, Any, T]) -> T:
        """From whatever loop the test runs on."""
        return await asyncio.wrap_future(self._submit(work))
