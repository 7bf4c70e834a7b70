"""HTTP/1.1 over one connection to a bot: POSTs, one at a time, and the answer to each, piece by piece.

Theory of operation. A `Connection` is httptools' parser between a transport and the `Answer` that is awaited. It says
of each request when it was *taken*: when the operating system has the last of its bytes. Before that nobody can have
read it as a whole. Nothing is repeated here; whoever asked knows from that whether it may be (ADR 10).

What a bot sends is bounded, whatever it sends. Which connection is used for what is decided in `bots/connections.py`.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol, Self, cast

import httptools

_BARREN_BYTES = 65_536
"""Bound of what comes in a row and is no body: heads, 1xx answers, chunk extensions, trailers."""

_HELD_BYTES = 65_536
"""So much of a body that nobody has asked for yet stops the reading."""

_PIECE_BYTES = 65_536
"""What is written at once, and what a compressed body is inflated to at once."""

_ESTABLISHED = b"\x01"
"""The first byte of Linux' `tcp_info` where neither side has said that it is done."""

_INFLATED = (b"gzip", b"x-gzip", b"deflate")
_ZLIB_OR_GZIP = zlib.MAX_WBITS | 32


class Broken(Exception):
    """The connection broke, or what came over it was no HTTP."""


class Origin(NamedTuple):
    """Where connections go to."""

    host: str
    port: int
    tls: bool


class Owner(Protocol):
    """Who hears of what becomes of a connection."""

    def made(self, connection: Connection) -> None:
        """It is open."""

    def lost(self, connection: Connection) -> None:
        """It is no longer."""

    def keep(self, connection: Connection) -> None:
        """It has done its work, and can do more."""


class Connection(asyncio.Protocol):
    """One connection to a bot, with at most one request under way."""

    __slots__ = (
        "_answer",
        "_barren_bytes",
        "_connected",
        "_full",
        "_headers",
        "_last",
        "_owner",
        "_parser",
        "_reading",
        "_reusable",
        "_taken",
        "_transport",
        "_unwritten",
        "idle_since_s",
        "origin",
    )

    def __init__(self, owner: Owner, origin: Origin, connected: socket.socket) -> None:
        """`connected` is what the transport has a duplicate of. It is closed when the connection is lost."""
        self.origin = origin
        self._connected = connected
        self.idle_since_s = 0.0
        self._owner = owner
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

    def is_good(self) -> bool:
        """Whether neither side has ended the connection, by what the kernel knows now: the event loop may hear of it
        too late."""
        return not self._transport.is_closing() and _is_established(self._connected)

    def done(self, answer: Answer) -> None:
        """Nobody wants more of this answer."""
        self._answer = None
        if answer.ended and self._reusable and self._taken is None:
            self._owner.keep(self)
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
        self._parser = httptools.HttpResponseParser(self)
        # Bots are not always strict, and no cache stands between them and us that could read an answer in another way.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._owner.made(self)

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
        self._connected.close()
        del self._parser  # they hold each other
        if self._answer is not None:
            self._answer.fail(error if isinstance(error, OSError) else Broken("the connection was closed"))
        self._owner.lost(self)

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


def _is_established(connected: socket.socket) -> bool:
    """What the kernel says. Not `poll`: that lets go of the interpreter, and to get it back from the store's thread
    costs ten times as much as the question."""
    if sys.platform != "linux":
        return True  # the event loop's word has to do
    return connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == _ESTABLISHED
