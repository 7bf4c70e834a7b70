"""The demo as a whole: a bot, a server in front of it, and the page; what `landline demo` runs."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
from collections.abc import Callable, Sequence

import msgspec
from starlette.routing import BaseRoute

from landline.config import Settings
from landline.demo.bot import EchoBot
from landline.demo.page import Page
from landline.errors import ConfigurationError
from landline.server.app import Server


class Demo:
    """`start`, then `stop`; both on one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises `ConfigurationError` for a `host` that others could reach: whoever loads the page gets a token."""
        if not _is_loopback(settings.host):
            raise ConfigurationError(f"host: the demo listens on this machine only, not on {settings.host}")
        self._settings = settings
        self._secret = settings.secret or secrets.token_urlsafe(32)
        self._server: Server | None = None
        self._closers = contextlib.AsyncExitStack()

    @property
    def url(self) -> str:
        """Where the page is."""
        assert self._server is not None
        return self._server.url

    def reload(self, read: Callable[[], Settings]) -> None:
        """As `Server.reload`; bot and secret stay the demo's own."""
        server = self._server
        if server is not None:
            ours = server.settings
            server.reload(lambda: msgspec.structs.replace(read(), bot=ours.bot, secret=ours.secret))

    async def start(self) -> None:
        """Start the bot, then the server. Raises `StartupError`; then nothing is left open."""
        async with contextlib.AsyncExitStack() as closers:
            bot = EchoBot()
            closers.push_async_callback(bot.stop)
            await bot.start()
            settings = msgspec.structs.replace(self._settings, bot=bot.endpoint, secret=self._secret)
            self._server = Server(settings, more=self._page)
            await self._server.start()
            closers.push_async_callback(self._server.stop)
            self._closers = closers.pop_all()

    def _page(self, server: Server) -> Sequence[BaseRoute]:
        page = Page(server.tokens, server.store, server.streams, self._secret, deadline_s=server.settings.bot_timeout_s)
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
