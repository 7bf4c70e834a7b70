"""Listening sockets, the file limit, and uvicorn started from our code.

How the composition root uses it, on a running loop:

    wheel = Wheel(asyncio.get_running_loop())
    sockets = listening_sockets(settings.host, settings.port)
    listener = Listener(app, sockets, ConnectionContext(Limits(...), wheel, on_upgrade))
    await listener.start()
    ...
    listener.stop_listening()       # new connections are refused, those that are open are still served
    await streams.drain(drain_s)    # WebSockets are the application's to close
    await listener.stop(timeout_s)
    wheel.close()

`uvicorn.Server.serve` is not called: it would take over the process's signal handlers. The loop itself (uvloop where it
installs) is the caller's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import structlog
import uvicorn
from starlette.types import ASGIApp

from landline.errors import ConfigurationError
from landline.wire.connection import ConnectionContext, HttpProtocol
from landline.wire.crowd import Place

BACKLOG = 4096
"""In a reconnect storm the kernel's queue is where connections wait (docs/explanation/design-facts.md)."""

SEND_BUFFER_BYTES = 128 * 1024
"""What the kernel holds of one connection's output. A client that never reads must not cost megabytes."""

_FIRST_INHERITED = 3
"""The first file descriptor behind the three that every process has (sd_listen_fds)."""

_DATE_S = 1.0
"""The resolution of the Date header (RFC 9110, section 5.6.7)."""

USER_TIMEOUT_S = 60
"""A peer that acknowledges nothing for this long is gone."""

_AT_ONCE = 64
"""Connections that are accepted before others get their turn."""

_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FILES_S = 1.0
"""How long it waits for some to be closed."""

_GOODBYE_S = 1.0
"""How long a client may take at a stop to end TLS from its side, when everything else has been said."""

_log = structlog.get_logger(__name__)

_Address = tuple[Any, ...]
"""Host, port, and for IPv6 two more."""


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` stands for, on the same port; 0 takes a free one. Raises `OSError`.

    `localhost` has an address of each kind, and clients take the one or the other. One that this machine does not have
    is passed over as long as there are others."""
    missing: OSError | None = None
    with contextlib.ExitStack() as closers:
        listening: list[socket.socket] = []
        for family, address in _addresses(host, port):
            try:
                listener = _listening(family, (address[0], port, *address[2:]))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                missing = missing or error
                continue
            closers.callback(listener.close)
            listening.append(listener)
            port = listener.getsockname()[1]
        if missing is not None and not listening:
            raise missing
        closers.pop_all()
    return listening


def _addresses(host: str, port: int) -> list[tuple[int, _Address]]:
    """Families and addresses, each once."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def _listening(family: int, address: _Address) -> socket.socket:
    """The options are set here because accepted sockets inherit them, at no cost per connection."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        _set_options(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def inherited_socket(environment: Mapping[str, str], pid: int) -> socket.socket | None:
    """The listening socket that our parent hands over, as systemd and its like do (`LISTEN_FDS`), or None.

    The parent keeps it open while this process is exchanged, so that connections wait in the kernel and nobody is
    refused (spec 11). A parent that does not know our pid before we run leaves `LISTEN_PID` out. Raises
    `ConfigurationError` for anything but one listening TCP socket."""
    whose = environment.get("LISTEN_PID")
    if whose != str(pid) and "LISTEN_FDS" not in environment:
        return None
    if whose not in (None, str(pid)):
        _log.warning("LISTEN_FDS is for another process and was ignored", pid=pid, listen_pid=whose)
        return None
    if environment.get("LISTEN_FDS") != "1":
        raise ConfigurationError("LISTEN_FDS: exactly one socket is expected")
    try:
        listener = socket.socket(fileno=_FIRST_INHERITED)
    except OSError as error:
        raise ConfigurationError(f"LISTEN_FDS: {error.strerror}") from error
    internet = listener.family in (socket.AF_INET, socket.AF_INET6) and listener.type == socket.SOCK_STREAM
    if not internet or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # not ours to close
        raise ConfigurationError("LISTEN_FDS: this is no listening TCP socket")
    os.set_inheritable(_FIRST_INHERITED, False)
    _set_options(listener)
    listener.setblocking(False)
    return listener


def _set_options(listener: socket.socket) -> None:
    if sys.platform != "win32":
        # On Windows this option lets two processes share a port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_S * 1000)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, USER_TIMEOUT_S)


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What the listener shows: a certificate with its chain, and its key, both PEM. Raises `ConfigurationError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for setting, path in (("tls_cert", certificate), ("tls_key", key)):
        if not os.access(path, os.R_OK):
            raise ConfigurationError(f"{setting}: {path} cannot be read")
    try:
        # A key that needs a password must end the start, not ask for it at a terminal that nobody watches.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"tls_cert: {certificate} and {key} are no certificate and its key in PEM") from error
    return context


def raise_file_limit() -> int | None:
    """Raise the soft limit of open files to the hard one and answer it, about one file per stream; None where the
    system has no such limit, or does not tell."""
    if sys.platform == "win32":
        return None
    import resource  # does not exist on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems refuse "unlimited" here
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return None if soft == resource.RLIM_INFINITY else soft


class Listener:
    """An HTTP server on sockets that are already listening."""

    def __init__(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        context: ConnectionContext,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`app` gets the requests, `context.on_upgrade` the WebSocket handshakes. With `tls` nothing else is spoken."""
        self._sockets = list(sockets)
        self._config = uvicorn.Config(
            app,
            http=cast(type[asyncio.Protocol], partial(HttpProtocol, context)),
            ws="none",  # upgrades leave through `HttpProtocol`
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="warning",  # at less, uvicorn formats a line per connection that nobody sees
            access_log=False,  # it would print tickets
            proxy_headers=False,  # it trusts forwarded headers from loopback
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=context.limits.keep_alive_s,
        )
        self._server = uvicorn.Server(self._config)
        self._context = context
        self._tls = tls
        self._accepting: list[asyncio.Task[None]] = []
        self._shaking: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Where it listens: host and port of each socket."""
        return [each.getsockname()[:2] for each in self._sockets]

    async def start(self) -> None:
        """Accept connections from now on."""
        self._config.load()
        self._server.lifespan = self._config.lifespan_class(self._config)
        if self._tls is None:
            await self._server.startup(sockets=self._sockets)
        else:
            self._server.servers = []
            self._accepting = [asyncio.create_task(self._accept(each)) for each in self._sockets]
        self._ticking = asyncio.create_task(self._keep_the_date())

    # Under TLS connections are accepted here: before the handshake, a protocol learns of nobody. Without, that would be
    # twice what an accept costs.

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.closing(listening):
            while True:
                for _ in range(_AT_ONCE):
                    try:
                        connection, address = await loop.sock_accept(listening)
                    except OSError as error:  # or who was to be accepted is gone
                        if error.errno in _NO_MORE_FILES:
                            _log.error("no connection can be accepted", error=error.strerror)
                            await asyncio.sleep(_FILES_S)
                        break
                    self._admit(connection, address)
                await asyncio.sleep(0)

    def _admit(self, connection: socket.socket, address: _Address) -> None:
        place = None
        if self._context.crowd is not None:
            place = self._context.crowd.enter(address[0])
            if place is None:
                connection.close()
                return
        shaking = asyncio.create_task(self._shake_hands(connection, place))
        self._shaking.add(shaking)
        shaking.add_done_callback(self._shaking.discard)

    async def _shake_hands(self, connection: socket.socket, place: Place | None) -> None:
        """The handshake has the time that a head has: what follows it has as much again."""
        server = self._server
        protocol = HttpProtocol(self._context, self._config, server.server_state, server.lifespan.state)
        protocol.place = place
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._context.limits.header_timeout_s,
            )
        except OSError:
            protocol.leave()  # nobody who speaks TLS, or not in time
        except BaseException:
            protocol.leave()
            raise

    def show(self, tls: ssl.SSLContext) -> None:
        """From now on, who connects is shown this certificate. Raises nothing, and changes no open connection."""
        self._tls = tls

    async def _keep_the_date(self) -> None:
        """What is left to do of uvicorn's main loop, which wakes up ten times a second: an eighth of what ten thousand
        idle streams cost."""
        while True:
            await self._server.on_tick(0)
            await asyncio.sleep(_DATE_S)

    def stop_listening(self) -> None:
        """Refuse new connections. Those that are open are served as before."""
        for server in self._server.servers:
            server.close()
        for accepting in self._accepting:
            accepting.cancel()

    async def stop(self, timeout_s: float) -> None:
        """Let requests finish that are under way, and serve the open connections meanwhile; then what is on its way;
        for `timeout_s` at most. What is left is cut. Idempotent."""
        if self._ticking is None:
            return
        self.stop_listening()
        ticking, self._ticking = self._ticking, None
        ticking.cancel()
        await asyncio.wait((ticking,))
        state = self._server.server_state
        cutting = None if self._tls is None else asyncio.create_task(self._cut_the_silent())
        until = asyncio.get_running_loop().time() + timeout_s
        if state.tasks:
            # A bot whose turn is under way says what it has to say over a connection that is open.
            await asyncio.wait(tuple(state.tasks), timeout=timeout_s)
        try:
            # uvicorn's own time limit would call it an error that somebody is slow.
            async with asyncio.timeout_at(until):
                await self._server.shutdown(sockets=self._sockets)
        except TimeoutError:
            _log.info("the stop cut connections off", connections=len(state.connections), requests=len(state.tasks))
            for task in state.tasks:
                task.cancel()
        if cutting is not None:
            cutting.cancel()
        for task in (*self._accepting, *self._shaking):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._shaking, return_exceptions=True)
        for connection in list(state.connections):
            connection.transport.abort()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=timeout_s)

    async def _cut_the_silent(self) -> None:
        """TLS has ended when both sides have said so. A client that is not looking, such as an idle one in a pool, does
        not hear that it should, and would hold up the stop for all the time it has."""
        state = self._server.server_state
        while True:
            await asyncio.sleep(_GOODBYE_S)
            for connection in list(state.connections):
                if not state.tasks and connection.transport.get_write_buffer_size() == 0:
                    connection.transport.abort()
