"""A server, or something like it, that runs until it is told to stop. Whoever imports this imports the server."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Protocol

import click
import structlog

from landline.commands.options import warn_of_unknown_variables
from landline.config import Settings
from landline.core.bot import SHORT_LIFE, SHORT_LIFE_S
from landline.server.app import Server
from landline.server.certificates import end_of
from landline.wire.listener import inherited_socket, raise_file_limit

_SOON = dt.timedelta(days=14)
"""What an operator needs at most to get another certificate."""

_log = structlog.get_logger(__name__)


def run_server(settings: Settings, read: Callable[[], Settings]) -> None:
    """What `landline serve` does; `read` reads the settings again. Raises `StartupError`."""
    server = Server(settings, show_secret=_show_secret, listening=inherited_socket(os.environ, os.getpid()))
    files = raise_file_limit()
    run(server, lambda: _say_what_to_expect(settings, files), read)


class Service(Protocol):
    """What runs until it is told to stop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def reload(self, read: Callable[[], Settings]) -> None: ...


def run(service: Service, say_started: Callable[[], None], read: Callable[[], Settings]) -> None:
    """Start it, say so, and stop it at SIGTERM or Ctrl-C; at SIGHUP it takes from `read` what may change while it runs.
    Raises `StartupError`."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_until_told_to_stop(service, say_started, read))


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it installs."""
    try:
        import uvloop  # does not exist everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _until_told_to_stop(service: Service, say_started: Callable[[], None], read: Callable[[], Settings]) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C cancels us instead
            asyncio.get_running_loop().add_signal_handler(number, told.set)
    with contextlib.suppress(NotImplementedError, AttributeError):  # Windows has none
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, service.reload, read)
    try:
        await service.start()
        say_started()
        _spare_the_collector()
        await told.wait()
    finally:
        await service.stop()


def _spare_the_collector() -> None:
    """What was loaded stays loaded; sockets leave no cycles behind. About a tenth of the CPU (ADR 3)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


def _say_what_to_expect(settings: Settings, files: int | None) -> None:
    _log.info("open files", limit=files or "unlimited", enough_for="about as many streams")
    warn_of_unknown_variables(_log.warning)
    if settings.bot is None and not settings.bots:
        _log.warning("no bot endpoint is configured: conversations work, but nobody answers (--bot)")
    if settings.tls_cert is not None:
        end = end_of(settings.tls_cert)
        if end < dt.datetime.now(dt.UTC) + _SOON:
            _log.warning("the certificate ends soon, or has ended: nobody will connect", ends=end.isoformat())
    if settings.token_ttl_s < SHORT_LIFE_S:
        _log.warning(SHORT_LIFE, setting="token_ttl_s")


def _show_secret(secret: str) -> bool:
    """On a terminal, once: it is kept nowhere in readable form."""
    if not sys.stderr.isatty():
        return False
    intro = "The secret of this server's first site. It is shown only now; clients and backends need it:"
    click.echo(f"\n{intro}\n\n    {click.style(secret, bold=True)}\n", err=True)
    return True
