"""HTTP/1.1 towards bots: POSTs, one at a time on each connection, and connections that are kept for the next one.

Theory of operation. A `Connection` is httptools' parser between a transport and the `Answer` that is awaited. It says
of each request when it was *taken*: when the operating system has the last of its bytes. Before that nobody can have
read it as a whole. Nothing is repeated here; whoever asked knows from that whether it may be (decision 10). A
connection is kept if its answer came to a clean end. Before it is used again the kernel is asked whether the bot has
closed it, or said something that nobody asked for: what became of a POST written to such a connection cannot be known.

Redirects are not followed, cookies not kept, proxies not used. What a bot sends is bounded, whatever it sends.
"""

from __future__ import annotations

import asyncio
import re
import select
import socket
import ssl
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Self, cast
from urllib.parse import quote, urlsplit

import aiohappyeyeballs
import httptools
from aiohappyeyeballs import AddrInfoType

from landline import __version__

KEEPALIVE_S = 1.5
"""How long an idle connection is kept. A POST on a connection that the bot closes at that moment has an unknown outcome
and cannot be repeated, so ours must be the side that closes first: gunicorn gives up after 2 s, Node and uvicorn after
5 s. Busy bots keep their connections all the same; a new one per pause in a chat is cheap."""

_EYEBALLS_S = 0.25
"""How long one address of a host may take before the next one is tried beside it (RFC 8305)."""

_BARREN_BYTES = 65_536
"""Bound of what comes in a row and is no body: heads, 1xx answers, chunk extensions, trailers."""

_HELD_BYTES = 65_536
"""So much of a body that nobody has asked for yet stops the reading."""

_PIECE_BYTES = 65_536
"""What is written at once, and what a compressed body is inflated to at once."""

_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_IN_PATH = "/?%:@!$&'()*+,;="

_INFLATED = (b"gzip", b"x-gzip", b"deflate")
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


class Broken(Exception):
    """The connection broke, or what came over it was no HTTP."""


class NotAUrl(ValueError):
    """No http or https URL."""


class Origin(NamedTuple):
    """Where connections go to."""

    host: str
    port: int
    tls: bool


class Connections:
    """Connections to bots, made when needed on the running event loop and kept for a while."""

    def __init__(self, tls: ssl.SSLContext, connect_timeout_s: float) -> None:
        """`connect_timeout_s` limits one attempt to connect: name, TCP and TLS together."""
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, deque[Connection]] = {}
        """Of each origin the connections that nobody uses, longest idle first; some may be closed already."""
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._all_lost: asyncio.Event | None = None

    async def post(
        self, url: str, body: bytes, *, authorization: str | None, apart: bool, taken: Callable[[], None]
    ) -> Answer:
        """POST JSON; answers once the head of the answer is there. `taken` is called when the operating system has
        taken all of the request, unless that never comes about, or the answer comes first.

        `apart` takes a connection of its own. Raises `NotAUrl`, and `OSError` (`TimeoutError` while connecting among
        them) or `Broken` for whatever befell the connection."""
        origin, head = _endpoint(url)
        connection = None if apart else self._kept(origin)
        if connection is None:
            connection = await self._connect(origin)
        if authorization is not None:
            head += f"Authorization: {authorization}\r\n".encode("latin-1")
        if apart:
            head += b"Connection: close\r\n"
        request = b"%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body)
        return await connection.post(request, taken, last=apart)

    def _kept(self, origin: Origin) -> Connection | None:
        """The connection that was used last, while it is good: the others may grow old."""
        idle = self._idle.get(origin)
        oldest_s = asyncio.get_running_loop().time() - KEEPALIVE_S
        while idle:
            connection = idle.pop()
            if connection.idle_since_s > oldest_s and connection.is_quiet():
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._connect_timeout_s):
            addresses = await _addresses(origin)
            # uvloop's own way to connect tries one address after the other, each for as long as it takes.
            connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_EYEBALLS_S)
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(self, origin),
                    sock=connected,
                    ssl=self._tls if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
            except BaseException:
                connected.close()
                raise
        return connection

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
        self._all_lost = asyncio.Event()
        for connection in list(self._open):
            connection.abort()
        if self._open:
            await self._all_lost.wait()


class Connection(asyncio.Protocol):
    """One connection to a bot, with at most one request under way."""

    __slots__ = (
        "_answer",
        "_barren_bytes",
        "_connections",
        "_full",
        "_headers",
        "_kernel",
        "_last",
        "_parser",
        "_reading",
        "_reusable",
        "_taken",
        "_transport",
        "_unwritten",
        "idle_since_s",
        "origin",
    )

    def __init__(self, connections: Connections, origin: Origin) -> None:
        self.origin = origin
        self.idle_since_s = 0.0
        self._connections = connections
        self._answer: Answer | None = None
        self._headers: dict[bytes, bytes] | None = None
        """Those of the head that is being read; None outside of one, so that trailers go nowhere."""
        self._unwritten = memoryview(b"")
        self._taken: Callable[[], None] | None = None
        """To be called when the request was taken; None from then on."""
        self._full = False
        """Whether the transport waits until the operating system takes more."""
        self._reading = True
        self._last = False
        self._reusable = False
        self._barren_bytes = 0

    # Requests

    async def post(self, request: bytes, taken: Callable[[], None], *, last: bool) -> Answer:
        """Send a request, the `last` one or not, and wait for the head of its answer."""
        if self._transport.is_closing():
            raise Broken("the connection was closed")
        answer = self._answer = Answer(self)
        self._taken = taken
        self._last = last
        self._reusable = False
        self._barren_bytes = 0
        self._unwritten = memoryview(request)
        self._write()
        try:
            await answer.begin()
        except BaseException:
            answer.close()
            raise
        return answer

    def _write(self) -> None:
        """Write as much as the operating system takes at once. Of what is written to a TLS transport in one piece all
        goes on to a buffer that no high-water mark is set on; of several, the second stays behind."""
        while self._unwritten and not self._full:
            piece, self._unwritten = self._unwritten[:_PIECE_BYTES], self._unwritten[_PIECE_BYTES:]
            self._transport.write(piece)
            if self._transport.is_closing():
                return  # it broke under the write
        if not self._full and self._taken is not None:
            taken, self._taken = self._taken, None
            taken()

    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing has come over it, not even its end, by what the kernel knows now:
        the event loop may hear of it too late."""
        return not self._transport.is_closing() and not self._kernel.poll(0)

    def done(self, answer: Answer) -> None:
        """Nobody wants more of this answer."""
        self._answer = None
        if answer.ended and self._reusable and self._taken is None:
            self._connections.keep(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Close at once, without a farewell: there is nothing left to be said, or nobody listens."""
        self._unwritten = memoryview(b"")
        self._taken = None
        self._transport.abort()

    def read_on(self) -> None:
        """There is room for more of the answer."""
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    # The transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # "Not full" must mean "empty". A mark of zero would not do for TLS: asyncio's TLS transport stops at the mark,
        # not above it. Of a TLS stream some 64 KiB may wait encrypted; they count as taken.
        self._transport.set_write_buffer_limits(high=1 if self.origin.tls else 0)
        self._kernel = select.poll()
        self._kernel.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        self._parser = httptools.HttpResponseParser(self)
        # Bots are not always strict, and no cache stands between them and us that could read an answer in another way.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._connections.made(self)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if not self._transport.is_closing():
            self._write()

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        self._barren_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(error)
            return
        if answer is None or answer.ended:
            return
        if self._barren_bytes > _BARREN_BYTES:
            self._break(Broken("the head of an answer is too large"))
        elif answer.held_bytes > _HELD_BYTES:
            self._reading = False
            self._transport.pause_reading()

    def eof_received(self) -> None:
        if self._answer is not None:
            self._answer.hung_up()

    def connection_lost(self, error: Exception | None) -> None:
        self._taken = None
        del self._parser  # they hold each other
        if self._answer is not None:
            self._answer.fail(error if isinstance(error, OSError) else Broken("the connection was closed"))
        self._connections.lost(self)

    def _break(self, error: Exception) -> None:
        """What comes is of no use. An answer that was complete before stands."""
        self._reusable = False
        if self._answer is not None:
            self._answer.fail(error if isinstance(error, Broken) else Broken(f"not HTTP: {error}"))
        self.abort()

    # The parser

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.ended:
            raise Broken("two answers to one request")
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headers is not None:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        headers, self._headers = self._headers, None
        status = self._parser.get_status_code()
        if status >= 200 and self._answer is not None and headers is not None:
            self._answer.head(status, headers)

    def on_body(self, part: bytes) -> None:
        self._barren_bytes = 0
        if self._answer is not None:
            self._answer.feed(part)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._reusable = not self._last and self._parser.should_keep_alive()
            self._answer.end()


class Answer:
    """An answer: its head, and its body piece by piece. Whoever has it closes it, read to its end or not."""

    __slots__ = (
        "_connection",
        "_error",
        "_headers",
        "_inflating",
        "_parts",
        "_waiting",
        "ended",
        "held_bytes",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        """0 until the head is there."""
        self.ended = False
        self.held_bytes = 0
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._inflating: zlib._Decompress | None = None
        """Made when the body is read, if it is compressed."""
        self._error: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._connection: Connection | None = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back, or let go of it where the answer has not come to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.done(self)

    def header(self, name: bytes) -> str | None:
        """The header of that name (lower case); the first one, if there are several."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def begin(self) -> None:
        """Wait for the head. Raises `OSError`, `Broken`."""
        while not self.status:
            await self._more()

    async def read(self) -> bytes:
        """The next piece of the body as soon as it is there; empty at the end. Raises `OSError`, `Broken`."""
        coding = self._headers.get(b"content-encoding", b"").lower()
        if coding in (b"", b"identity"):
            return await self._read()
        if coding not in _INFLATED:
            raise Broken("the answer is encoded in a way that was not asked for")
        if self._inflating is None:
            self._inflating = zlib.decompressobj(_ZLIB_OR_GZIP)
        return await self._inflated(self._inflating)

    async def _inflated(self, inflating: zlib._Decompress) -> bytes:
        """Nobody asked for it; some bots compress all the same."""
        while not inflating.eof:
            packed = inflating.unconsumed_tail or await self._read()
            try:
                plain = inflating.decompress(packed, _PIECE_BYTES)
            except zlib.error as error:
                raise Broken("what is said to be compressed is not") from error
            if plain:
                return plain
            if not packed and not inflating.eof:
                raise Broken("a compressed body broke off")
        return b""

    async def _read(self) -> bytes:
        while not self._parts:
            if self.ended:
                return b""
            await self._more()
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self.held_bytes = 0
        if self._connection is not None:
            self._connection.read_on()
        return part

    async def _more(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = asyncio.get_running_loop().create_future()
        await self._waiting

    def _tell(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    # The connection's side

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self.status = status
        self._headers = headers
        self._tell()

    def feed(self, part: bytes) -> None:
        self._parts.append(part)
        self.held_bytes += len(part)
        self._tell()

    def end(self) -> None:
        self.ended = True
        self._tell()

    def hung_up(self) -> None:
        """The bot says no more. That is how an answer of unknown length ends."""
        if self.status and not self._is_framed():
            self.end()
        else:
            self.fail(Broken("the bot hung up"))

    def _is_framed(self) -> bool:
        return b"content-length" in self._headers or b"chunked" in self._headers.get(b"transfer-encoding", b"").lower()

    def fail(self, error: Exception) -> None:
        if not self.ended and self._error is None:
            self._error = error
            self._tell()


async def _addresses(origin: Origin) -> Sequence[AddrInfoType]:
    """Of a host that has several, one after the other may be tried."""
    return await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)


@lru_cache(1024)
def _endpoint(url: str) -> tuple[Origin, bytes]:
    """Where a POST to `url` goes, and its head as far as it is always the same. Raises `NotAUrl`."""
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
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: landline/{__version__}\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
    )
    return Origin(host.rstrip("."), standard if port is None else port, tls), head.encode("ascii")
