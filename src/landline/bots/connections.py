"""The connections to all bots and issuers: made when they are needed, kept for a while, used again while they are good.

A connection is kept if its answer came to a clean end. Before it is used again the kernel is asked whether the bot has
closed it: what became of a POST written to such a connection cannot be known, so it could not be repeated.

Redirects are not followed, cookies not kept, proxies not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import quote, urlsplit

import aiohappyeyeballs
from aiohappyeyeballs import AddrInfoType

from landline import __version__
from landline.bots.wire import Answer, Connection, Origin

KEEPALIVE_S = 1.5
"""How long an idle connection is kept. A POST on a connection that the bot closes at that moment has an unknown outcome
and cannot be repeated, so ours must be the side that closes first: gunicorn gives up after 2 s, Node and uvicorn after
5 s. Busy bots keep their connections all the same; a new one per pause in a chat is cheap."""

_EYEBALLS_S = 0.25
"""How long one address of a host may take before the next one is tried beside it (RFC 8305)."""

_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_IN_PATH = "/?%:@!$&'()*+,;="


class NotAUrl(ValueError):
    """No http or https URL."""


class Connections:
    """Connections to bots, made when needed on the running event loop and kept for a while."""

    def __init__(self, trust: Callable[[], ssl.SSLContext], connect_timeout_s: float) -> None:
        """`trust` is called in a thread before the first connection by TLS: to read the system's authorities takes as
        long as a tenth of a start. `connect_timeout_s` limits one attempt to connect: name, TCP and TLS together."""
        self._trust = trust
        self._trusted: ssl.SSLContext | None = None
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, deque[Connection]] = {}
        """Of each origin the connections that nobody uses, longest idle first; some may be closed already."""
        self._open: set[Connection] = set()
        self._opening: dict[asyncio.Task[Connection], socket.socket] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._all_lost: asyncio.Event | None = None

    async def post(
        self, url: str, body: bytes, *, authorization: str | None, own_connection: bool, taken: Callable[[], None]
    ) -> Answer:
        """POST JSON; answers once the head of the answer is there. `taken` is called when the operating system has
        taken all of the request, unless that never comes about, or the answer comes first.

        `own_connection` takes one that nothing else uses. Raises `NotAUrl`, and `OSError` (`TimeoutError` while
        connecting among them) or `Broken` for whatever befell the connection."""
        origin, head = _endpoint(url)
        connection = None if own_connection else self._kept(origin)
        if connection is None:
            connection = await self._connect(origin)
        if authorization is not None:
            head += f"Authorization: {authorization}\r\n".encode("latin-1")
        if own_connection:
            head += b"Connection: close\r\n"
        request = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
        return await connection.post(request, taken, last=own_connection)

    async def get(self, url: str) -> Answer:
        """GET JSON over a connection of its own; answers once the head of the answer is there. Raises like `post`."""
        origin, target, authority = _place(url)
        connection = await self._connect(origin)
        request = (
            f"GET {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: landline/{__version__}\r\n"
            "Accept: application/json\r\nConnection: close\r\n\r\n"
        )
        return await connection.post(request.encode("ascii"), lambda: None, last=True)

    async def reach(self, url: str) -> None:
        """Connect as `post` would, and say nothing. Raises `NotAUrl`, and `OSError`: no name, no TCP, no TLS."""
        (await self._connect(_place(url)[0])).abort()

    def _kept(self, origin: Origin) -> Connection | None:
        """The connection that was used last, while it is good: the others may grow old."""
        idle = self._idle.get(origin)
        oldest_s = asyncio.get_running_loop().time() - KEEPALIVE_S
        while idle:
            connection = idle.pop()
            if connection.idle_since_s > oldest_s and connection.is_good():
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        async with asyncio.timeout(self._connect_timeout_s):
            if origin.tls and self._trusted is None:
                self._trusted = await asyncio.to_thread(self._trust)
            addresses = await _addresses(origin)
            # uvloop's own way to connect tries one address after the other, each for as long as it takes.
            connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_EYEBALLS_S)
            opening = asyncio.create_task(self._open_on(connected, origin))
            self._opening[opening] = connected
            opening.add_done_callback(self._opening.pop)
            try:
                return await asyncio.shield(opening)
            except asyncio.CancelledError:
                self._give_up(opening)
                raise

    async def _open_on(self, connected: socket.socket, origin: Origin) -> Connection:
        """Give the event loop a descriptor of its own. uvloop closes one that it has only just taken without telling
        anybody, and the Python object then stands for a number that may be another file's. So it is never cancelled
        here, its object is detached, and the one that we ask and shut stays ours until the connection is lost."""
        loop = asyncio.get_running_loop()
        lent = None
        try:
            lent = connected.dup()
            _, connection = await loop.create_connection(
                lambda: Connection(self, origin, connected),
                sock=lent,
                ssl=self._trusted if origin.tls else None,
                server_hostname=origin.host if origin.tls else None,
            )
        except BaseException:
            connected.close()
            raise
        finally:
            if lent is not None and not isinstance(loop, asyncio.BaseEventLoop):
                lent.detach()
        return connection

    def _give_up(self, opening: asyncio.Task[Connection]) -> None:
        """Nobody wants it any more. A handshake fails at once when its socket is shut."""

        def abort(opened: asyncio.Task[Connection]) -> None:
            if not opened.cancelled() and opened.exception() is None:
                opened.result().abort()

        if connected := self._opening.get(opening):
            with contextlib.suppress(OSError):  # it may have ended by itself
                connected.shutdown(socket.SHUT_RDWR)
        opening.add_done_callback(abort)

    def made(self, connection: Connection) -> None:
        """A connection is open."""
        self._open.add(connection)

    def lost(self, connection: Connection) -> None:
        """It is no longer."""
        self._open.discard(connection)
        if self._all_lost is not None and not self._open:
            self._all_lost.set()

    def keep(self, connection: Connection) -> None:
        """It has done its work, and can do more."""
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle = self._idle.get(connection.origin)
        if idle is None:
            idle = self._idle[connection.origin] = deque()
        idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(KEEPALIVE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle for too long, and come back when the next one will have been."""
        loop = asyncio.get_running_loop()
        oldest_s = loop.time() - KEEPALIVE_S
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since_s <= oldest_s:
                idle.popleft().abort()
            if not idle:
                del self._idle[origin]
        since_s = min((idle[0].idle_since_s for idle in self._idle.values()), default=None)
        self._sweeping = None if since_s is None else loop.call_at(since_s + KEEPALIVE_S, self._sweep)

    async def close(self) -> None:
        """Close every connection. What is under way on one breaks."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._idle.clear()
        for opening in list(self._opening):
            self._give_up(opening)
        await asyncio.gather(*self._opening, return_exceptions=True)
        self._all_lost = asyncio.Event()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._all_lost.wait()


async def _addresses(origin: Origin) -> Sequence[AddrInfoType]:
    """Of a host that has several, one after the other may be tried."""
    return await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)


@lru_cache(1024)
def _endpoint(url: str) -> tuple[Origin, bytes]:
    """Where a POST to `url` goes, and its head as far as it is always the same. Raises `NotAUrl`."""
    origin, target, authority = _place(url)
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: landline/{__version__}\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
    )
    return origin, head.encode("ascii")


def _place(url: str) -> tuple[Origin, str, str]:
    """Where a request for `url` goes, its target, and what stands in its `Host`. Raises `NotAUrl`."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except ValueError as error:
        raise NotAUrl from error
    tls = parts.scheme == "https"
    if parts.scheme not in ("http", "https") or not (":" in host or _HOST.fullmatch(host)):
        raise NotAUrl
    authority = f"[{host.partition('%')[0]}]" if ":" in host else host
    standard = 443 if tls else 80
    if port not in (None, standard):
        authority += f":{port}"
    target = quote(parts.path or "/", safe=_IN_PATH) + (f"?{quote(parts.query, safe=_IN_PATH)}" if parts.query else "")
    return Origin(host.rstrip("."), standard if port is None else port, tls), target, authority
