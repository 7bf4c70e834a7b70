"""The demo as a whole: a bot, its own or the visitor's, a server in front of it, and the page; what `landline demo` and
`landline try` run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Callable, Sequence

import msgspec
from starlette.routing import BaseRoute

from landline.bots.http import HttpBotTransport
from landline.config import Settings
from landline.core.bot import without_query
from landline.demo.bot import EchoBot
from landline.demo.endpoint import Typed
from landline.demo.page import Behind, Page
from landline.demo.watch import Standing, Watch
from landline.errors import ConfigurationError
from landline.ports import BotTransport
from landline.server.app import Server

PATIENCE_S = 3.0
"""How long a bot may take to be connected to, or to answer, before that is said to be long."""


class Demo:
    """`start`, then `stop`; both on one event loop."""

    def __init__(self, settings: Settings, *, patience_s: float = PATIENCE_S) -> None:
        """With a `bot` in the settings it is that one which the page talks to. Raises `ConfigurationError` for a `host`
        that others could reach: whoever loads the page gets a token."""
        if not _is_loopback(settings.host):
            raise ConfigurationError(f"host: the demo listens on this machine only, not on {settings.host}")
        self._settings = settings
        self._patience_s = patience_s
        self._secret = settings.secret or secrets.token_urlsafe(32)
        self._server: Server | None = None
        self._watch: Watch | None = None
        self._closers = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the page is."""
        assert self._server is not None
        return self._server.url

    @property
    def endpoint(self) -> str | None:
        """Where the visitor's own bot is; None if it is the demo's."""
        return self._settings.bot

    @property
    def standing(self) -> Standing:
        """How the line to the bot stands."""
        assert self._watch is not None
        return self._watch.standing

    def reload(self, read: Callable[[], Settings]) -> None:
        """As `Server.reload`; bot and secret stay the demo's own."""
        server = self._server
        if server is not None:
            ours = server.settings
            server.reload(lambda: msgspec.structs.replace(read(), bot=ours.bot, secret=ours.secret))

    async def start(self) -> None:
        """Start the bot, unless there is one, then the server; and ask the bot. Raises `StartupError`; then nothing is
        left open."""
        async with contextlib.AsyncExitStack() as closers:
            settings = msgspec.structs.replace(self._settings, secret=self._secret)
            if settings.bot is None:
                bot = EchoBot()
                closers.push_async_callback(bot.stop)
                await bot.start()
                settings = msgspec.structs.replace(settings, bot=bot.endpoint)
            server = self._server = Server(settings, more=self._page, carry=self._carry)
            await server.start()
            closers.push_async_callback(server.stop)
            if self._watch is not None:
                await self._watch.ask()
            self._closers = closers.pop_all()

    def _carry(self, transport: HttpBotTransport) -> BotTransport:
        is_ours = self._settings.bot is None  # the demo's own bot streams an answer for some seconds
        self._watch = Watch(transport, patience_s=self._patience_s, may_take_long=is_ours)
        return self._watch

    def _page(self, server: Server) -> Sequence[BaseRoute]:
        settings, watch = server.settings, self._watch
        assert watch is not None
        assert settings.bot is not None
        watch.begin(server.registry.bot(settings.bot_id), server.store, server.clock)
        behind = Behind(settings.bot, self._settings.bot is not None, watch)
        deadline_s = max(settings.bot_timeout_s, 2 * self._patience_s)
        page = Page(server.channel.tokens, server.store, server.streams, self._secret, behind, deadline_s=deadline_s)
        return page.routes()

    async def stop(self) -> None:
        """The server first: it lets turns of the bot end. May be repeated."""
        await self._closers.aclose()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def greeting(demo: Demo, typed: Typed | None) -> str:
    """What is printed when the demo runs: where the page is, and how the bot was found."""
    lines = ["", f"Landline's demo is at {demo.url}"]
    if demo.endpoint is not None:
        understood = f" ({typed.added} was added)" if typed is not None and typed.added else ""
        standing = demo.standing
        lines.append(f"Your bot is at {without_query(demo.endpoint)}{understood}")
        lines.append(f"    {standing.word}: {standing.help}")
    return "\n".join([*lines, "Ctrl-C stops it.", ""])
