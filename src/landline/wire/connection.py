"""HTTP/1.1 on one connection: our rules for slow and odd requests (D-52), and our own way out for upgrades.

What is not acceptable as HTTP ends here, before any endpoint hears of it; what is becomes a `Request`, one at a time,
in the order in which the requests came. An upgrade is handed on as a value: the request is neither written out again
nor parsed twice, and bytes behind it in the same packet are not lost. The rules about heads are in `head.py`, and
`parting.py` sees to the end of a connection whose client is still sending.

A connection has at most one entry in the timer wheel: for the rest of a head or of a body, for room for what was
written, or for the next request; and one more at a stop.

uvicorn opens and closes these connections. It is told of them in the way of its own protocol class, which is public
only by habit: `tests/wire/test_uvicorn_contract.py` holds what is relied on, and pyproject.toml pins the range it has
passed with.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httptools
import msgspec
import structlog
from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from landline.core import percent
from landline.errors import LandlineError
from landline.wire.answers import EXTENSION, JSON, Arrival, cross_origin, cross_origin_lines, operation_id
from landline.wire.crowd import Crowd, Place, refusal
from landline.wire.head import NotAcceptable, authority, bad_target, check_fields, fields_of, path_and_query
from landline.wire.parting import Parting, Patience
from landline.wire.problems import UNEXPECTED, Problem, problem_of
from landline.wire.request import Request, status_line
from landline.wire.websocket import (
    Accept,
    Header,
    Refuse,
    Upgrade,
    WebSocket,
    handshake_answer,
    handshake_problem,
)
from landline.wire.wheel import Timer, Wheel

STOP_GRACE_S = 0.5
"""How long a stop waits for a request that is on its way: for the first of a connection, or the rest of a head."""

_LAST_LOOK_S = 0.02
"""The same between requests: by then the loop has seen what was in the socket already."""

EARLY_BYTES = 64 * 1024
"""What a client may send behind its handshake before that is decided. What is beyond waits in the kernel."""

PIPELINED = 16
"""Requests that may wait on one connection behind the one that is being answered."""

_ASGI = {"version": "3.0", "spec_version": "2.3"}
_REQUEST_LINE = re.compile(rb"[\r\n]*([!#$%&'*+.^_`|~0-9A-Za-z-]+) [!-~]+ HTTP/1\.[01]\r?\n")
_GONE = ("0.0.0.0", 0)  # noqa: S104  # whom a connection is from that ended before anybody looked
_BAD_CODING = "Invalid `Transfer-Encoding`"
"""What the parser says of one in which something follows `chunked`; the header itself it does not show."""
_NOT_HTTP = b"This is an HTTP server.\n"
_CROSS_ORIGIN_PATH = re.compile(rb"/v3/+directline")

_log = structlog.get_logger(__name__)

Decision = Accept | Refuse
OnUpgrade = Callable[[Upgrade], Decision | Awaitable[Decision] | None]


class Limits(msgspec.Struct, frozen=True):
    """What a request may be and how long it may take. `cors_origins` empty means any origin (spec 3.3)."""

    header_timeout_s: float = 10.0
    body_stall_s: float = 30.0
    close_timeout_s: float = 5.0
    keep_alive_s: int = 75
    url_bytes: int = 8 * 1024
    header_fields: int = 100
    header_bytes: int = 32 * 1024
    cors_origins: frozenset[str] = frozenset()
    patience: Patience = Patience()
    """With clients that were answered while they were sending."""


class ConnectionContext(msgspec.Struct, frozen=True):
    """What the connections of one server share.

    `on_upgrade` decides about a WebSocket handshake: at once, or as an awaitable, which then runs as a short-lived task
    of uvicorn's (a graceful stop waits for it). If the client is gone by then, its answer is dropped. A `LandlineError`
    that it raises becomes the error answer of `wire/problems.py`. None is that there are no WebSockets at this path:
    the offer is ignored, as any other is.

    `address` is the listener's own. Where it is given, no connection is asked for its ends, and requests have no
    `client`: that was a tenth of an upgrade and 350 bytes of a stream, and only trusted proxies need it.

    `crowd` counts connections by address, and may have no place for one more.
    """

    limits: Limits
    wheel: Wheel
    on_upgrade: OnUpgrade
    address: tuple[str, int] | None = None
    crowd: Crowd | None = None


class HttpProtocol(asyncio.Protocol):
    """One HTTP connection, until it ends or becomes a WebSocket."""

    # More than thirty attributes: instances without slots would no longer share their keys, and be slow to make.
    __slots__ = (
        "_app",
        "_begun_at",
        "_context",
        "_discard_at",
        "_dropped",
        "_due",
        "_early",
        "_fed",
        "_head_at",
        "_head_fed",
        "_heard_at",
        "_idle_at",
        "_in_body",
        "_in_head",
        "_leaving",
        "_limits",
        "_over",
        "_pending_refusal",
        "_timer",
        "_timer_at",
        "_unread",
        "_unsent",
        "_unsent_at",
        "_wrong",
        "client",
        "connections",
        "cycle",
        "fields",
        "flow",
        "headers",
        "loop",
        "parser",
        "pipeline",
        "place",
        "scheme",
        "server",
        "server_state",
        "tasks",
        "transport",
        "url",
    )

    transport: asyncio.Transport
    flow: FlowControl
    headers: list[Header]
    fields: dict[bytes, bytes]
    url: bytes

    def __init__(
        self,
        context: ConnectionContext,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`context` comes from us (`functools.partial`), the rest from uvicorn, by name."""
        self._app = config.loaded_app
        self.server_state = server_state
        self.connections = server_state.connections
        self.tasks = server_state.tasks
        self.loop = _loop or context.wheel.loop
        self.parser: httptools.HttpRequestParser | _Renamed = _parser(self)
        self.place: Place | None = None  # in the crowd; what was accepted before TLS has one already
        self.cycle: Request | None = None  # the one that is being answered, or was last
        self.pipeline: deque[Request] = deque()  # those behind it
        self._context = context
        self._limits = context.limits
        self._due = 0  # responses that are still owed
        self._over = False  # what still arrives is dropped
        self._pending_refusal: bytes | None = None  # to be said when every response that is due is out
        self._leaving = False  # the request that is on its way, if there is one, is the last
        self._early: bytearray | None = None  # behind a handshake that is being decided
        self._in_head = False
        self._in_body = False
        self._fed = 0  # bytes in the packet that is being parsed
        self._head_fed = 0  # bytes in the packets that the head has come in: no fewer than it has
        self._dropped = 0  # bytes of a body that nobody wants any more
        self._unread = 0  # bytes that have arrived since something was complete: a head, a message, a piece of body
        self._wrong: NotAcceptable | None = None  # known, but answered when the head is complete
        # Times of the loop, in seconds.
        self._head_at: float | None = None
        self._begun_at: float | None = None  # since when a head has been arriving that was not there at once
        self._heard_at = 0.0
        self._discard_at: float | None = None
        self._unsent_at: float | None = None
        self._idle_at: float | None = None
        self._unsent = 0
        self._timer: Timer | None = None
        self._timer_at = 0.0

    # What the transport reports

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected; the time for its first head begins."""
        self.connections.add(self)  # type: ignore[arg-type]  # uvicorn expects one of its own classes
        self.transport = transport
        self.flow = FlowControl(transport)
        asked = self._context.address is None
        self.server = get_local_addr(transport) if asked else self._context.address
        self.client = get_remote_addr(transport) if asked else None
        self.scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        crowd = self._context.crowd
        if crowd is not None and self.place is None:
            self.place = crowd.enter((transport.get_extra_info("peername") or _GONE)[0])
            if self.place is None:
                self._over = True
                transport.write(refusal())
                transport.close()
                return
        self._head_at = self._context.wheel.time() + self._limits.header_timeout_s
        self._watch_until(self._head_at)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._over = True
        self._stop_watching()
        self.connections.discard(self)
        if self.cycle is not None:
            self.cycle.disconnect()
        self.flow.resume_writing()
        if exc is None:
            self.transport.close()
        self.leave()
        del self.parser  # they point at each other

    def leave(self) -> None:
        """It takes no place in the crowd any more."""
        place, self.place = self.place, None
        if place is not None:
            place.leave()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        if self._over:
            return
        if self._early is not None:
            self._wait_with(data)
            return
        self._idle_at = None
        amid = self._in_head or self._in_body
        self._fed = size = len(data)
        self._head_fed += size
        self._unread += size
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            again, early = None, data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            again = None if amid else _renamed(data)
            if again is None:
                self._refuse(self._reason(error) or (None if amid else bad_target(data)))
                return
        else:
            if self._unread > self._limits.url_bytes + self._limits.header_bytes:
                # One endless line: the parser holds it back until it is complete.
                self._refuse(self._wrong or self._endless())
            elif self._dropped > self._limits.patience.most_bytes:
                self._hang_up(b"")
            else:
                self._note_time()
            return
        # Behind the handlers: what is wrong with bytes that are parsed again has nothing to do with what they handled.
        if again is None:
            self._upgrade(early)
        else:
            self.parser = _Renamed(self)
            self.data_received(again)

    def eof_received(self) -> None:
        """The client has no more to ask, and may still wait for answers: asyncio closes once they are out."""

    def pause_writing(self) -> None:
        """The client does not take what it asked for."""
        self.flow.pause_writing()
        self._expect_room()

    def resume_writing(self) -> None:
        """It does again."""
        self.flow.resume_writing()
        self._unsent_at = None

    def shutdown(self) -> None:
        """uvicorn: finish what is under way, and close. A request that was sent before its client could know is served
        as well: a connection that ends without an answer is an error to most clients (spec 11)."""
        newest = self._arriving
        if newest is not None and not newest.complete:
            newest.keep_alive = False
        elif self._over:
            self.transport.close()
        else:
            self._leaving = True
            begun = newest is None or self._in_head
            self._context.wheel.after(
                STOP_GRACE_S if begun else _LAST_LOOK_S, self._leave if begun else self._leave_idle
            )

    def _leave_idle(self) -> None:
        if self._in_head:
            self._context.wheel.after(STOP_GRACE_S, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        """Close, unless a request has come, whose answer does."""
        if not (self._over or self._due or self._early is not None):
            self.transport.close()

    # What the parser reports

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._in_head = True
        self._wrong = None
        self._head_fed = self._fed
        self.url = b""
        self.headers = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request target. Of one that is too long so much is kept that it can be seen to be."""
        self.url += url[: self._limits.url_bytes + 1 - len(self.url)]

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; or a trailer field, which nobody reads, and which must not look like a header (RFC 9110)."""
        if not self._in_head:
            return
        name, headers = name.lower(), self.headers
        if len(headers) >= self._limits.header_fields:
            self._wrong = self._wrong or NotAcceptable(431, "Too many header fields")
            # A refusal needs the origin to be readable in a browser (spec 3.3), wherever it stands.
            if name != b"origin":
                return
        # The parser takes away what stands in front of a value, but not what stands behind it (RFC 9110, section 5.5).
        headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is complete: its turn begins or waits, unless the head is refused or asks for an upgrade."""
        self._in_head = False
        self._head_at = None
        self._unread = 0
        self._check_head()
        parser = self.parser
        if parser.should_upgrade():
            return
        method, version = parser.get_method().decode("ascii"), parser.get_http_version()
        scope = self._scope(method, version)
        raw, query = path_and_query(self.url)
        path = raw.decode("ascii")
        scope["raw_path"] = raw
        scope["path"] = percent.text_of(raw) if b"%" in raw else path
        scope["query_string"] = query
        cycle = self._cycle(method, version)
        cycle.scope = scope
        waits = self.cycle is not None and not self.cycle.complete
        begun, self._begun_at = self._begun_at, None
        if waits and begun is None:
            begun = self._context.wheel.time()
        scope["extensions"] = {
            EXTENSION: Arrival(
                self.fields, self._context.wheel, cycle.answer, cycle.whole_body, begun, self._url_is_too_long
            )
        }
        self._in_body = True
        self._due += 1
        if waits:
            self.flow.pause_reading()
            self.pipeline.append(cycle)
        else:
            self._start(cycle)

    def _scope(self, method: str, version: str) -> Scope:
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "method": method,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "headers": self.headers,
        }

    def _cycle(self, method: str, version: str) -> Request:
        return Request(
            method,
            self.transport,
            self.flow,
            self.server_state.default_headers,
            self._answered,
            keep_alive=version != "1.0" and not self._leaving and self.parser.should_keep_alive(),
            # HTTP/1.0 has no such answer (RFC 9110, section 10.1.1).
            expects_continue=version != "1.0" and self.fields.get(b"expect", b"").lower() == b"100-continue",
        )

    def _start(self, cycle: Request) -> None:
        self.cycle = cycle
        cycle.start(self._app, self.loop, self.tasks)

    @property
    def _arriving(self) -> Request | None:
        """The newest request; what is read of the connection belongs to it."""
        return self.pipeline[-1] if self.pipeline else self.cycle

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unread = 0
        if (cycle := self._arriving) is not None:
            if cycle.complete:
                self._dropped += len(body)
            cycle.arrived(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        self._unread = 0
        if self.parser.should_upgrade():
            return
        if (cycle := self._arriving) is not None:
            cycle.arrived_whole()
        self._in_body = False
        self._discard_at = None

    def _answered(self) -> None:
        """A response was handed to the transport."""
        self._due -= 1
        self.server_state.total_requests += 1
        cycle = self.cycle
        if cycle is not None and not cycle.keep_alive and not self.transport.is_closing():
            if self.pipeline or not cycle.has_arrived:
                self._part()
                return
            self.transport.close()
        if self.transport.is_closing():
            self._expect_room()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start(self.pipeline.popleft())
        else:
            self._idle_at = self._context.wheel.time() + self._limits.keep_alive_s
            self._watch_until(self._idle_at)
        if self._pending_refusal is not None and not self._due:
            self._hang_up(self._pending_refusal)
        elif self._in_body and not self._due:
            # Answered before it was read, 413 for instance. The rest is dropped, but not for ever.
            self._discard_at = self._context.wheel.time() + self._limits.header_timeout_s
            self._dropped = 0
            self._watch()

    # What is refused

    def _check_head(self) -> None:
        if self._wrong is not None:
            raise self._wrong
        if self._head_fed > self._limits.header_bytes and self._head_bytes() > self._limits.header_bytes:
            raise NotAcceptable(431, "Header fields are too large")
        self.fields = fields = fields_of(self.headers)
        check_fields(self.parser.get_http_version(), fields)
        named = authority(self.url)
        if named is not None:
            fields[b"host"] = named
        if len(self.pipeline) >= PIPELINED:
            raise NotAcceptable(400, "Too many requests on one connection")

    @property
    def _url_is_too_long(self) -> bool:
        return len(self.url) > self._limits.url_bytes

    def _head_bytes(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _endless(self) -> NotAcceptable:
        if self._in_head and self._url_is_too_long:
            return NotAcceptable(414, "URL is too long")
        return NotAcceptable(431, "Header fields are too large")

    def _reason(self, error: httptools.HttpParserError) -> NotAcceptable | None:
        """What to answer to bytes that the parser does not take; None where they are not HTTP at all."""
        if self._wrong is not None:
            return self._wrong
        if isinstance(error.__context__, NotAcceptable):
            return error.__context__
        if _BAD_CODING in str(error):
            return NotAcceptable(501, "Transfer-Encoding is not chunked alone")
        if self._in_body or (self._in_head and self.url):
            return NotAcceptable(400, f"Request is malformed: {error}")
        if error.__context__ is not None:
            return NotAcceptable(400, "URL is malformed")
        if self.cycle is not None:
            return NotAcceptable(400, f"Request is malformed: {error}")
        return None

    def _refuse(self, why: NotAcceptable | None) -> None:
        """Answer, after the responses that are still due, and end the connection. What still arrives is dropped."""
        self._over = True
        self._stop_watching()
        answer = _plain(400, _NOT_HTTP) if why is None else self._error(why.status, why.message)
        if self._in_body and not self._abandon():
            answer = b""
        if not self._due:
            self._hang_up(answer)
        elif not self.transport.is_closing():
            self._pending_refusal = answer
            self.flow.pause_reading()

    def _abandon(self) -> bool:
        """Give up the request whose body is bad. Answers whether nothing has been said to it yet."""
        self._in_body = False
        if self.pipeline:
            self.pipeline.pop()  # the newest, which is the one: it has not begun
            self._due -= 1
            return True
        if self.cycle is None or self.cycle.complete:
            return False
        self.cycle.disconnect()
        self._due -= 1
        return self.cycle.silent

    def _error(self, status: int, message: str) -> bytes:
        """A complete answer with an error object (spec 3.5)."""
        refused = self._error_object(Problem(status, "BadArgument", message))
        return _answer(refused, self.server_state.default_headers)

    def _error_object(self, problem: Problem) -> Refuse:
        operation = operation_id()
        _log.info("request refused", status=problem.status, reason=problem.message, operation=operation)
        headers = [JSON, (b"cache-control", b"no-store"), (b"x-correlating-operationid", operation.encode())]
        if problem.status == 426:
            headers += [(b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
        return Refuse(problem.status, [*headers, *problem.headers, *self._cross_origin()], problem.body())

    def _cross_origin(self) -> tuple[Header, ...]:
        url: bytes = getattr(self, "url", b"")
        if not _CROSS_ORIGIN_PATH.search(url):
            return ()
        origin = next((value for name, value in self.headers if name == b"origin"), None)
        return cross_origin(origin, self._limits.cors_origins)

    def _hang_up(self, answer: bytes) -> None:
        """Say this and close, in such a way that it arrives."""
        if self.transport.is_closing():
            self._over = True
            self._stop_watching()
            return
        self.transport.write(answer)
        self._part()

    def _part(self) -> None:
        """Nothing more is said, and what still comes is dropped: somebody else sees to the end of the connection."""
        flow, connections = self.flow, self.connections
        self._let_go()
        parting = Parting(self.transport, self._context.wheel, self._limits.patience, connections.discard)
        connections.add(parting)  # type: ignore[arg-type]
        flow.resume_writing()  # whoever waits to write learns that nobody reads
        flow.resume_reading()
        parting.begin()

    # What takes too long

    def _note_time(self) -> None:
        self._heard_at = self._context.wheel.time()
        if self._in_head and self._begun_at is None:
            self._begun_at = self._heard_at
        if self._in_head or not (self._in_body or self._due):
            # The second case is bytes that begin nothing, such as empty lines between requests.
            if self._head_at is None:
                self._head_at = self._heard_at + self._limits.header_timeout_s
            self._watch()
        elif self._in_body:
            self._watch()

    def _expect_room(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._unsent_at = self._context.wheel.time() + self._limits.body_stall_s if self._unsent else None
        self._watch()

    def _next_deadline(self) -> float | None:
        due = [at for at in (self._head_at, self._unsent_at, self._idle_at) if at is not None]
        if self._in_body:
            due.append(self._discard_at or self._heard_at + self._limits.body_stall_s)
        return min(due, default=None)

    def _watch(self) -> None:
        """Have the wheel look at this connection when the next deadline comes. One that moved away is left alone."""
        at = self._next_deadline()
        if at is not None:
            self._watch_until(at)

    def _watch_until(self, at: float) -> None:
        if self._over:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._context.wheel.at(at, self._look)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """A deadline may have come."""
        self._timer = None
        now = self._context.wheel.time()
        if self.flow.read_paused:
            self._reset_client_timers(now)
        if self._unsent_at is not None and now >= self._unsent_at and self._is_stuck(now):
            self.transport.abort()
        elif self._head_at is not None and now >= self._head_at:
            if self._in_head:
                self._refuse(NotAcceptable(408, "Headers did not arrive in time"))
            else:
                self.transport.close()
        elif self._idle_at is not None and now >= self._idle_at:
            self._idle_at = None
            self.transport.close()
            self._expect_room()
        elif self._in_body and self._discard_at is not None and now >= self._discard_at:
            self._hang_up(b"")
        elif self._in_body and now >= self._heard_at + self._limits.body_stall_s:
            self._refuse(NotAcceptable(408, "Body did not arrive in time"))
        else:
            self._watch()

    def _reset_client_timers(self, now: float) -> None:
        """It is us who do not read: the client's time begins anew."""
        self._heard_at = now
        if self._head_at is not None:
            self._head_at = now + self._limits.header_timeout_s

    def _is_stuck(self, now: float) -> bool:
        """Whether the client has taken nothing of a response for `body_stall_s`. A slow one is waited for."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and unsent >= self._unsent:
            return True
        self._unsent = unsent
        self._unsent_at = now + self._limits.body_stall_s if unsent else None
        return False

    # The way out to a WebSocket

    def _upgrade(self, early: bytes) -> None:
        """The head that is complete asks for something else than HTTP; `early` stands behind it."""
        if self._url_is_too_long or not self._wants_websocket():
            self._ignore_upgrade(early)
        elif self._due:
            self._refuse(NotAcceptable(400, "A WebSocket handshake cannot be pipelined"))
        else:
            self._hand_over(early)

    def _wants_websocket(self) -> bool:
        if self.parser.get_method() != b"GET":  # what it is instead is not answered here (3.4, step 2)
            return False
        if self.fields.get(b"upgrade", b"").lower() == b"websocket":
            return True
        offers = [value for name, value in self.headers if name == b"upgrade"]
        return any(token.strip().lower() == b"websocket" for offer in offers for token in offer.split(b","))

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Go on as if nothing but HTTP/1.1 had been asked for (RFC 9110, section 7.8).

        Some HTTP clients of bots offer h2c on every first request, with a body. The parser takes that for the new
        protocol, so the head is parsed again without the offer."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":
            self._refuse(NotAcceptable(400, "CONNECT is not supported"))
            return
        head = [method, b" ", self.url, b" HTTP/", version.encode(), b"\r\n"]
        for name, value in self.headers:
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = _parser(self)
        self.data_received(b"".join([*head, b"\r\n", rest]))

    def _hand_over(self, early: bytes) -> None:
        try:
            request = self._upgrade_request()
        except (httptools.HttpParserError, UnicodeDecodeError):
            self._refuse(NotAcceptable(400, "URL is malformed"))
            return
        decision: Decision | Awaitable[Decision] | None
        try:
            decision = self._context.on_upgrade(request)
        except LandlineError as error:
            decision = self._error_object(problem_of(error))
        except Exception:  # noqa: BLE001  # the edge: whatever breaks in there, the client gets its 500
            _log.exception("upgrade failed")
            decision = self._error_object(UNEXPECTED)
        if isinstance(decision, Accept | Refuse):
            self._settle(request, decision, early)
            return
        if decision is None:
            self._ignore_upgrade(early)
            return
        self._wait_with(early)
        task = self.loop.create_task(self._decide(request, decision))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _upgrade_request(self) -> Upgrade:
        path, query = path_and_query(self.url)
        parser = self.parser
        problem = handshake_problem(parser.get_http_version(), self.headers, self.fields)
        status, message = problem or (400, None)
        return Upgrade(
            path=percent.by_segment(path) if b"%" in path else path.decode("ascii"),
            query=query,
            headers=self.headers,
            fields=self.fields,
            client=self.client,
            server=self.server,
            scheme=self.scheme,
            problem=message,
            problem_status=status,
        )

    def _wait_with(self, data: bytes) -> None:
        if self._early is None:
            self._early = bytearray()
        self._early += data
        if len(self._early) > EARLY_BYTES:
            self.flow.pause_reading()

    async def _decide(self, request: Upgrade, undecided: Awaitable[Decision]) -> None:
        try:
            decision = await undecided
        except LandlineError as error:
            decision = self._error_object(problem_of(error))
        except Exception:  # noqa: BLE001  # the edge: whatever breaks in there, the client gets its 500
            _log.exception("upgrade failed")
            decision = self._error_object(UNEXPECTED)
        early, self._early = self._early, None
        if not self._over and not self.transport.is_closing():
            self._settle(request, decision, bytes(early or b""))

    def _settle(self, request: Upgrade, decision: Decision, early: bytes) -> None:
        if isinstance(decision, Accept) and request.problem is not None:
            decision = self._error_object(Problem(request.problem_status, "BadArgument", request.problem))
        if isinstance(decision, Refuse):
            self._hang_up(_answer(decision, self.server_state.default_headers))
            return
        transport, paused = self.transport, self.flow.write_paused
        self.flow.resume_reading()
        self._let_go()
        operation = operation_id()
        _log.info("upgraded", operation=operation)
        crossing = cross_origin_lines(request.fields.get(b"origin"), self._limits.cors_origins)
        named = b"x-correlating-operationid: %b\r\n%b" % (operation.encode(), crossing)
        answer = handshake_answer(request.fields, named)
        socket = WebSocket(transport, decision, self._context.wheel, self._limits.close_timeout_s)
        socket.place, self.place = self.place, None
        socket.open(answer, early, paused)

    def _let_go(self) -> None:
        """Cut what uvicorn would leave behind for the garbage collector: the parser points at this object and this
        object at the parser. 1.5 KiB per socket, and a third of what an upgrade costs (ADR 3)."""
        self._over = True
        self._stop_watching()
        self.connections.discard(self)
        self.cycle = None
        del self.parser


def _parser(listening: HttpProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(listening)
    # What stands behind a request with `Connection: close` is dropped; it is no reason not to answer that request.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser


class _Renamed:
    """A parser for one request of unknown method, which is fed to it with `METHOD` in its place. It is the last request
    of its connection. What the method was is not passed on: it may be anything, also a credential that is in the wrong
    place, and is written into the log."""

    METHOD = b"PATCH"

    def __init__(self, listening: HttpProtocol) -> None:
        parser = _parser(listening)
        self.feed_data = parser.feed_data
        self.get_http_version = parser.get_http_version
        self.should_upgrade = parser.should_upgrade

    def get_method(self) -> bytes:
        return b"UNKNOWN"

    def should_keep_alive(self) -> bool:
        return False


def _renamed(data: bytes) -> bytes | None:
    """`data` with `_Renamed.METHOD` in place of the method of the request at its beginning; None unless that, which the
    parser does not know, is all that is wrong with the first line.

    Which methods there are is the business of the resource at the path (3.4, step 2)."""
    line = _REQUEST_LINE.match(data)
    if line is None or _is_known(line[1]):
        return None
    return _Renamed.METHOD + data[line.end(1) :]


def _is_known(method: bytes) -> bool:
    """Whether the parser takes it in a request of HTTP/1.1."""
    try:
        httptools.HttpRequestParser(object()).feed_data(method + b" / HTTP/1.1\r\n")
    except httptools.HttpParserError:
        return False
    return True


def _answer(refused: Refuse, more_headers: Sequence[Header] = ()) -> bytes:
    """A complete HTTP/1.1 answer, the last one of its connection."""
    upgrade = any(name == b"upgrade" for name, _ in refused.headers)
    lines = [status_line(refused.status)]
    lines += [name + b": " + value for name, value in (*more_headers, *refused.headers)]
    lines.append(b"content-length: %d" % len(refused.body))
    lines.append(b"connection: close, upgrade" if upgrade else b"connection: close")
    return b"\r\n".join([*lines, b"", refused.body])


def _plain(status: int, text: bytes) -> bytes:
    return _answer(Refuse(status, [(b"content-type", b"text/plain; charset=utf-8")], text))
