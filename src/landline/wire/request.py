"""One request, and the answer to it: what an ASGI application is given, and what of it goes over the connection.

The head of an answer waits for the first piece of the body, as ASGI wants it, so that an answer in one piece is one
write. Nothing here knows who asks or when it takes too long; that is `http.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Scope
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl

from landline.wire.answers import Header

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LENGTHS = (b"content-length", b"transfer-encoding")
_BODILESS = (204, 304)
_BROKEN: tuple[Header, ...] = ((b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close"))

_log = structlog.get_logger(__name__)


def status_line(status: int) -> bytes:
    """The first line of an answer, without its end. A status that has no phrase may lack it (RFC 9112, section 4)."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status


_STATUS_LINES = {each.value: b"HTTP/1.1 %d %s" % (each.value, each.phrase.encode()) for each in HTTPStatus}


class Request:
    """A request on its way through the application.

    `expects_continue`: the client waits for our word before it sends the body (RFC 9110, section 10.1.1). `default`
    headers are in every answer. `answered` is called once, when the whole answer is with the transport: who is told
    ends the connection then, unless `keep_alive` says that it goes on.
    """

    __slots__ = (
        "_answered",
        "_body",
        "_chunked",
        "_default",
        "_expects_continue",
        "_flow",
        "_head",
        "_headless",
        "_left",
        "_more",
        "_news",
        "_transport",
        "_waiting",
        "begun",
        "complete",
        "disconnected",
        "keep_alive",
        "scope",
        "task",
    )

    scope: Scope
    """What the application is told; until it is."""

    task: asyncio.Task[None]

    def __init__(
        self,
        method: str,
        transport: asyncio.Transport,
        flow: FlowControl,
        default: Sequence[Header],
        answered: Callable[[], None],
        *,
        keep_alive: bool,
        expects_continue: bool,
    ) -> None:
        self._headless = method == "HEAD"
        self.keep_alive = keep_alive
        self.disconnected = False
        """Nobody is there any more: the application is told so, and what it still sends is dropped."""
        self.begun = False
        """Whether the application has begun to answer."""
        self.complete = False
        """Whether it has said everything."""
        self._transport = transport
        self._flow = flow
        self._default = default
        self._answered = answered
        self._expects_continue = expects_continue
        self._body: bytes | bytearray = b""  # what has arrived and was not fetched
        self._more = True
        self._news = False  # there is something to fetch
        self._waiting: asyncio.Event | None = None  # for news; few have to
        self._head: bytes | None = None  # waits for the first piece
        self._left = 0  # bytes of the body that were announced and not sent
        self._chunked = False

    @property
    def silent(self) -> bool:
        """Whether nothing of an answer has left."""
        return not self.begun or self._head is not None

    @property
    def has_arrived(self) -> bool:
        """Whether all of the request is there."""
        return not self._more

    # What the connection reports

    def arrived(self, piece: bytes) -> None:
        """A piece of the body. Who sends faster than the application reads is made to wait."""
        if self.complete:
            return
        if not self._body:
            self._body = piece
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += piece
        if len(self._body) > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._tell()

    def arrived_whole(self) -> None:
        """That was the body."""
        self._more = False
        self._tell()

    def disconnect(self) -> None:
        """The connection is gone, or of no use."""
        self.disconnected = self.disconnected or not self.complete
        self._tell()

    def _tell(self) -> None:
        self._news = True
        if self._waiting is not None:
            self._waiting.set()
            self._waiting = None

    # What the application is given

    def start(self, app: ASGIApp, loop: asyncio.AbstractEventLoop, running: set[asyncio.Task[Any]]) -> None:
        """Let `app` answer, in a task that is among `running` until it is over."""
        self.task = loop.create_task(self._run(app, running))
        running.add(self.task)

    async def _run(self, app: ASGIApp, running: set[asyncio.Task[Any]]) -> None:
        scope = self.scope
        del self.scope  # it leads back here, by `answer`
        try:
            await app(scope, self.receive, self.send)
            if not self.complete and not self.disconnected:
                _log.error("a request was not answered")
                await self._break()
        except asyncio.CancelledError:
            # By a stop, when this has had all the time that there was: the client gets what a network failure gives it.
            self._transport.abort()
        except Exception:  # noqa: BLE001  # the outermost edge: the client gets its 500
            _log.exception("a request broke")
            await self._break()
        finally:
            running.discard(self.task)
            del self.task  # it holds this
            self._answered = _nothing

    def whole_body(self) -> bytes | None:
        """All of the body, for those who need not go through ASGI; None where there is something to wait for, or to be
        told."""
        if self._more or not self._news or self._expects_continue or self.disconnected or self.complete:
            return None
        self._news = False
        body, self._body = self._body, b""
        return bytes(body)

    async def receive(self) -> Message:
        """ASGI: the next piece of the body, or `http.disconnect` as soon as there is nobody to answer."""
        if self._expects_continue and not self._transport.is_closing():
            self._expects_continue = False
            self._transport.write(_CONTINUE)
        while not (self._news or self.disconnected or self.complete):
            self._flow.resume_reading()
            if self._waiting is None:
                self._waiting = asyncio.Event()
            await self._waiting.wait()
        self._news = False
        if self.disconnected or self.complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self._more}

    async def answer(self, status: int, lines: bytes, body: bytes) -> None:
        """The whole answer, for those who know it and need not go through ASGI: complete header lines, which tell the
        length of the body, and the body. Waits as `send` does."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self.begun:
            raise RuntimeError("the answer has begun")
        self.begun = True
        self._answer_expectation()
        usual = b"".join([b"%b: %b\r\n" % header for header in self._default])
        ending = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        said = b"" if self._headless else body
        self._transport.write(b"".join((status_line(status), b"\r\n", usual, lines, ending, said)))
        self._end()

    async def send(self, message: Message) -> None:
        """ASGI: the head of the answer, then pieces of its body. Waits while the client takes nothing."""
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.start" and not self.begun:
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and self.begun and not self.complete:
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} has no place here")

    def _answer_expectation(self) -> None:
        """A client that waits for our word before it sends the body will not send it now; or it will, having waited
        long enough. What comes next on the connection is no longer known (RFC 9110, section 10.1.1)."""
        if self._expects_continue and self._more:
            self.keep_alive = False
        self._expects_continue = False

    def _begin(self, status: int, headers: Iterable[Header]) -> None:
        self._answer_expectation()
        lines, framed = [status_line(status)], False
        for name, value in (*self._default, *headers):
            lower = name.lower()
            if lower in _LENGTHS:
                framed = True
                self._measure(lower, value)
            elif lower == b"connection" and b"close" in value.lower():
                self.keep_alive = False
                continue
            lines.append(lower + b": " + value)
        if not framed and status not in _BODILESS and not self._headless:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked")
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
            # What an application takes from one client and shows to another must not become a header, or an answer.
            raise RuntimeError("a header has a line break in it")
        self._head = head + b"\r\n\r\n"
        self.begun = True

    def _measure(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            self._left = int(value)
        else:
            self._chunked = value.lower() == b"chunked"

    def _go_on(self, piece: bytes, *, more: bool) -> None:
        if self._headless:
            self._left, piece = 0, b""
        elif self._chunked:
            piece = (b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self._left -= len(piece)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer has another length than it said")
        if self._head is not None:
            piece, self._head = self._head + piece, None
        self._transport.write(piece)
        if not more:
            self._end()

    def _end(self) -> None:
        self.complete = True
        self._tell()
        self._answered()

    async def _break(self) -> None:
        """The application will not answer. Where it has begun to, the client must see that this was not all."""
        if self.complete or self.disconnected:
            return
        if not self.silent:
            self._transport.close()
            return
        self._chunked, self._head, self._left = False, None, 0
        said = b"Internal Server Error"
        self._begin(500, (*_BROKEN, (b"content-length", b"%d" % len(said))))
        self._go_on(said, more=False)


def _nothing() -> None:
    """Nobody waits for the end any more."""
