"""One HTTP exchange: what was asked, and how it is answered. The rules that every endpoint shares (spec 3).

An endpoint is a coroutine function that takes an `Exchange` and answers through it, or raises a `LandlineError`. What
surrounds it is `Resource`: methods, preflight, errors, one log line.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import lru_cache

import msgspec
import structlog
from starlette.types import Receive, Scope, Send

from landline.core import percent
from landline.errors import (
    BadArgument,
    ClientGone,
    LandlineError,
    MethodNotAllowed,
    MissingCredential,
    NotFound,
    OutcomeUnknown,
    StoreUnavailable,
    TooLarge,
    TooSlow,
    UnsupportedCoding,
    UnsupportedMediaType,
    UrlTooLong,
)
from landline.wire.answers import (
    EXTENSION,
    JSON,
    Arrival,
    Header,
    cross_origin,
    cross_origin_lines,
    header_lines,
    operation_id,
)
from landline.wire.head import is_host
from landline.wire.problems import UNEXPECTED, Problem, problem_of
from landline.wire.timeout import WheelTimeout

_NO_STORE = (b"cache-control", b"no-store")
_JSON_LINES = b"%b: %b\r\n%b: %b\r\n" % (*JSON, *_NO_STORE)
_ALLOWED_HEADERS = b"Authorization, Content-Type, Accept, x-ms-bot-agent, X-Requested-With, Idempotency-Key"
_PREFIX = re.compile(rb"(/[A-Za-z0-9._~%-]+)*")
_AGENT_BYTES = 100
_LONG = re.compile(rb"[A-Za-z0-9._~%+/=-]{24,}")
_PRINTABLE = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))
"""A log may be read on a terminal, which obeys more control characters than JSON escapes."""
_MEDIA_TYPES = (b"application/json", b"text/json")

GRACE_S = 2.25
"""How long after its deadline a request may still be answered: a commit that is running gets 2 s (`stores/lane.py`).
With the default deadline this ends before the 18 s after which clients give up (8.6)."""

_log = structlog.get_logger(__name__)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HttpRules(msgspec.Struct, frozen=True):
    """What the operator decided about requests in general.

    `deadline_s` is the one deadline of a request (8.6), `body_bytes` the largest body, `upload_bytes` that of an
    upload. `cross_origin` is on for the Direct Line API and off for the connector (3.3); `cors_origins` empty means
    any origin.
    """

    deadline_s: float
    body_bytes: int
    public_url: str | None = None
    trusted_proxies: tuple[Network, ...] = ()
    cors_origins: frozenset[str] = frozenset()
    show_inner: bool = False
    cross_origin: bool = True
    credentials: bool = False
    """Whether a page may send cookies (3.3: on `session/getsessionid` only)."""
    upload_bytes: int = 20 << 20

    def for_files(self) -> HttpRules:
        """The rules of an endpoint that takes files."""
        return msgspec.structs.replace(self, body_bytes=self.upload_bytes)


class Exchange:
    """A request, and the means to answer it. Header names are lower case; the first of several values counts."""

    __slots__ = (
        "_answer",
        "_begun",
        "_fields",
        "_receive",
        "_rules",
        "_send",
        "_started",
        "_url_is_cut",
        "_wheel",
        "_whole_body",
        "bot",
        "conversation",
        "deadline",
        "id",
        "limit",
        "reading",
        "scope",
        "site",
        "status",
    )

    limit: WheelTimeout
    """What ends the endpoint if nothing else does."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, rules: HttpRules) -> None:
        self.scope = scope
        self.id = operation_id()
        self.conversation = self.site = self.bot = ""
        """For the log: what was asked for, and who asked, once they are known. Never what a path or a query says, which
        may be a secret in the wrong place."""
        self.status = 0
        self._receive = receive
        self._send = send
        self._rules = rules
        arrival: Arrival = scope["extensions"][EXTENSION]
        self._fields, self._wheel, self._answer, self._whole_body, begun, self._url_is_cut = arrival
        self._begun = time.monotonic() if begun is None else begun
        self.deadline = self._begun + rules.deadline_s
        self._started = False
        self.reading = False
        """Whether it is the client who is waited for."""

    def limited(self) -> WheelTimeout:
        """What ends the endpoint at the deadline, which is moved from there as the rules say."""
        self.limit = WheelTimeout(self._wheel, self.deadline)
        return self.limit

    @property
    def age_s(self) -> float:
        """Seconds since its first byte was read here."""
        return time.monotonic() - self._begun

    # What was asked

    def header(self, name: bytes) -> bytes | None:
        """The first header of that name, or None."""
        return self._fields.get(name)

    def path(self, name: str) -> str:
        """A variable segment of the path, percent-decoded."""
        return percent.text_of(self.scope["path_params"][name].encode(errors="replace"))

    def query(self, name: str) -> str | None:
        """The first query parameter of that name, decoded; None where it is absent, "" where it is empty (D-45)."""
        return query_parameter(self.scope["query_string"], name)

    def origin(self) -> str | None:
        """The origin of the page that asks; None where no page does."""
        return origin_of(self._fields.get(b"origin"))

    def cookie(self, name: str) -> str | None:
        """The first cookie of that name, or None."""
        found = re.search(
            rf"(?:^|;)[ \t]*+{re.escape(name)}=([^;]*+)", (self.header(b"cookie") or b"").decode("latin-1")
        )
        return None if found is None else found[1].strip()

    def bearer(self) -> str:
        """The credential. Raises `MissingCredential` unless there is exactly one, of the scheme Bearer (3.1)."""
        return bearer_of(self._fields.get(b"authorization"))

    def base_url(self) -> str:
        """The public base of every URL that is given out (D-1): configured, or what this request was sent to.

        Forwarded headers count only from trusted proxies. Raises `BadArgument` for a Host that is none.
        """
        scope = self.scope
        host = self.header(b"host")
        return public_base(
            self._rules, host, scope["headers"], scope["scheme"], scope.get("client"), scope.get("server")
        )

    async def body(self) -> bytes:
        """The whole body. Raises `UnsupportedCoding`, `TooLarge` over the limit, `TooSlow` at the deadline (8.6)."""
        self.check_coding()
        body = self._whole_body()
        if body is None:
            self.reading = True
            body = b"".join([chunk async for chunk in self._chunks()])
            self.reading = False
        elif len(body) > self._rules.body_bytes:
            raise TooLarge
        self.limit.move(self.deadline + GRACE_S)
        return body

    def check_declared(self) -> None:
        """Raises `UrlTooLong`, and `TooLarge` for a declared length over the limit, before anybody asks who is there
        (3.4, step 3)."""
        if self._url_is_cut:
            raise UrlTooLong
        declared = self._fields.get(b"content-length")
        if declared is not None and declared.isdigit() and int(declared) > self._rules.body_bytes:
            raise TooLarge

    async def _chunks(self) -> AsyncIterator[bytes]:
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._rules.body_bytes:
                raise TooLarge
            more = message.get("more_body", False)
            yield chunk

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body of an upload as it comes in. It may take as long as it is not silent (D-52): the deadline counts
        from its end (8.6). Raises `UnsupportedCoding`, and `TooLarge` over the limit."""
        self.check_coding()
        self.limit.move(None)
        async for chunk in self._chunks():
            yield chunk
        self.deadline = time.monotonic() + self._rules.deadline_s
        self.limit.move(self.deadline + GRACE_S)

    async def whole_upload(self) -> bytes:
        """The same in one piece."""
        return b"".join([piece async for piece in self.pieces()])

    def json_body(self) -> Awaitable[bytes]:
        """The body of a JSON endpoint, not parsed yet. Raises `UnsupportedMediaType` first (3.4, step 9).

        An absent Content-Type means JSON, and one on an empty body means nothing (3.1).
        """
        if self._is_json():
            return self.body()
        self.check_coding()
        if self.header(b"transfer-encoding") is not None:
            return self._empty_body()
        self.check_json()
        return self.body()

    def check_json(self) -> None:
        """Raises `UnsupportedMediaType` for a body that says it is something else."""
        self.check_coding()
        if not self._is_empty() and not self._is_json():
            raise UnsupportedMediaType

    def check_coding(self) -> None:
        """Raises `UnsupportedCoding` for a body that says it is compressed (3.1). It is not unpacked: a small one can
        become a huge one."""
        if b"content-encoding" in self._fields and not self._is_empty():
            said = b",".join(value for name, value in self.scope["headers"] if name == b"content-encoding")
            if any(coding.strip().lower() not in (b"", b"identity") for coding in said.split(b",")):
                raise UnsupportedCoding

    def _is_empty(self) -> bool:
        """Whether there is no body, as far as the head says."""
        return self.header(b"content-length") in (None, b"0") and self.header(b"transfer-encoding") is None

    def _is_json(self) -> bool:
        kind = self._fields.get(b"content-type")
        return not kind or kind == b"application/json" or kind.split(b";", 1)[0].strip().lower() in _MEDIA_TYPES

    async def _empty_body(self) -> bytes:
        """Of a body that says it is something else, and not how long it is, the first byte is one too many."""
        self.reading = True
        async for chunk in self._chunks():
            if chunk:
                raise UnsupportedMediaType
        self.reading = False
        self.limit.move(self.deadline + GRACE_S)
        return b""

    # How it is answered

    def answer(self, status: int, body: bytes, *headers: Header) -> Awaitable[None]:
        """Answer, once, with everything at the same time."""
        return self._say(status, body, header_lines(headers))

    def json(self, status: int, body: bytes, *headers: Header) -> Awaitable[None]:
        """Answer with JSON text."""
        return self._say(status, body, _JSON_LINES + header_lines(headers) if headers else _JSON_LINES)

    def _say(self, status: int, body: bytes, lines: bytes) -> Awaitable[None]:
        self.status = status
        self._started = True
        if status != 204:  # which has no body by definition (RFC 9110, section 8.6)
            lines = b"content-length: %d\r\n%b" % (len(body), lines)
        named = b"x-correlating-operationid: %b\r\n" % self.id.encode()
        return self._answer(status, named + lines + self._cross_origin(), body)

    async def stream(self, status: int, pieces: AsyncIterator[bytes], size: int, *headers: Header) -> None:
        """Answer with `size` bytes as they come; HEAD does without them. From the beginning of the answer on there is
        no deadline (8.6)."""
        self.limit.move(None)
        self.status = status
        self._started = True
        usual = (b"x-correlating-operationid", self.id.encode()), (b"content-length", b"%d" % size)
        crossing = cross_origin(self._fields.get(b"origin"), self._rules.cors_origins)
        said = (*usual, *headers, *crossing) if self._rules.cross_origin else (*usual, *headers)
        await self._send({"type": "http.response.start", "status": status, "headers": said})
        if self.scope["method"] != "HEAD":
            async for piece in pieces:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def problem(self, problem: Problem) -> None:
        """Answer with an error object, unless the answer has begun."""
        if not self._started:
            await self.json(problem.status, problem.body(), *problem.headers)

    async def preflight(self) -> None:
        """Answer OPTIONS (3.3, D-7). The requested headers are echoed: what a client library invents must not fail."""
        asked = self.header(b"access-control-request-headers")
        await self.answer(
            204,
            b"",
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", asked or _ALLOWED_HEADERS),
            (b"access-control-max-age", b"7200"),
        )

    def _cross_origin(self) -> bytes:
        rules = self._rules
        if not rules.cross_origin:
            return b""
        return cross_origin_lines(self._fields.get(b"origin"), rules.cors_origins, credentials=rules.credentials)


def bearer_of(header: bytes | None) -> str:
    """The credential in an `Authorization` header. Raises `MissingCredential` unless there is exactly one, of the
    scheme Bearer (3.1)."""
    parts = (header or b"").split(None, 2)
    if len(parts) != 2 or parts[0].lower() != b"bearer":
        raise MissingCredential
    return parts[1].decode("latin-1")


def origin_of(header: bytes | None) -> str | None:
    """What an `Origin` header says."""
    return None if header is None else header.decode("latin-1").strip()


def public_base(
    rules: HttpRules,
    host: bytes | None,
    headers: Iterable[Header],
    scheme: str,
    client: tuple[str, int] | None,
    server: tuple[str, int | None] | None,
) -> str:
    """The public base by which a request came in, as `Exchange.base_url` says."""
    if rules.public_url is not None:
        return rules.public_url
    protocol, prefix = scheme.encode(), b""
    if _is_trusted(client, rules.trusted_proxies):
        host = _forwarded(headers, b"host") or host
        # For a WebSocket, some proxies write ws or wss.
        protocol = (_forwarded(headers, b"proto") or protocol).lower().replace(b"ws", b"http", 1)
        prefix = (_forwarded(headers, b"prefix") or b"").rstrip(b"/")
    if host is None and server is not None:
        host = f"{server[0]}:{server[1]}".encode()
    return _base(protocol, host, prefix)


@lru_cache(maxsize=256)
def _base(protocol: bytes, host: bytes | None, prefix: bytes) -> str:
    if host is None or not is_host(host) or protocol not in (b"http", b"https") or not _PREFIX.fullmatch(prefix):
        raise BadArgument("Host header is not valid")
    return (protocol + b"://" + host.rstrip(b":") + prefix).decode("ascii")


def _is_trusted(client: tuple[str, int] | None, proxies: tuple[Network, ...]) -> bool:
    """Whether the other end of the connection is a trusted proxy."""
    if client is None or not proxies:
        return False
    address = ipaddress.ip_address(client[0].partition("%")[0])  # behind % is the interface
    # A listener on all addresses sees IPv4 peers in this form.
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in proxies)


def _forwarded(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The nearest proxy, which is the trusted one, wrote the last value of the last such header."""
    values = [value for key, value in headers if key == b"x-forwarded-" + name]
    return bytes(values[-1].split(b",")[-1].strip()) if values else None


Endpoint = Callable[[Exchange], Awaitable[None]]


class Resource:
    """What can be done at one path: an ASGI application. `template` names the path in the log, without ids."""

    def __init__(self, template: str, rules: HttpRules, **methods: Endpoint) -> None:
        self.template = template
        self.methods = methods
        self._rules = rules
        self._allowed = tuple(methods)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._rules)
        try:
            await self._serve(exchange)
        except ClientGone:
            pass
        except LandlineError as error:
            await exchange.problem(problem_of(error, show_inner=self._rules.show_inner))
        except Exception:  # noqa: BLE001  # the edge: whatever breaks in there, the client gets its 500
            _log.exception("unexpected failure", route=self.template, operation=exchange.id)
            await exchange.problem(UNEXPECTED)
        finally:
            self._record(exchange)

    async def _serve(self, exchange: Exchange) -> None:
        method: str = exchange.scope["method"]
        endpoint = self.methods.get(method)
        if endpoint is not None:
            exchange.check_declared()
            try:
                # Every wait inside knows the deadline, but for that for the body; this ends it, and what hangs all the
                # same, such as a disk (8.6).
                with exchange.limited():
                    await endpoint(exchange)
            except TimeoutError as error:
                raise _too_late(exchange) from error
        elif method == "OPTIONS" and self._rules.cross_origin:
            await exchange.preflight()
        elif not self._allowed:
            raise NotFound
        else:
            raise MethodNotAllowed(self._allowed)

    def _record(self, exchange: Exchange) -> None:
        """One line per request: never the path or the query, which carry credentials and keys."""
        level = "info" if exchange.status < 500 else "warning"
        agent = exchange.header(b"x-ms-bot-agent")
        named = (("conversation", exchange.conversation), ("site", exchange.site), ("bot", exchange.bot))
        getattr(_log, level)(
            "request",
            method=exchange.scope["method"],
            route=self.template,
            status=exchange.status,
            operation=exchange.id,
            ms=int(exchange.age_s * 10_000) / 10,  # five times as fast as `round`
            **{name: value for name, value in named if value},
            **({} if agent is None else {"agent": _shown(agent)}),
        )


@lru_cache(256)
def _shown(agent: bytes) -> str:
    """What a client library says of itself, as far as it is worth a place in the log (3.1). What is as long as a secret
    may be one, wherever a client puts it."""
    return _LONG.sub(b"...", agent)[:_AGENT_BYTES].translate(_PRINTABLE).decode("ascii")


def _too_late(exchange: Exchange) -> LandlineError:
    """What it means that a request has run out of time."""
    if exchange.reading:
        return TooSlow()
    if exchange.scope["method"] in ("GET", "HEAD"):
        return StoreUnavailable("Storage did not answer in time")
    return OutcomeUnknown()


def query_parameter(query: bytes, name: str) -> str | None:
    """The first parameter of that name in a raw query string."""
    return query_parameters(query, name).get(name)


def query_parameters(query: bytes, *names: str) -> dict[str, str]:
    """The first of each of these names, decoded, among the first `percent.FIELDS`; none for what is absent."""
    found: dict[str, str] = {}
    for name, value in percent.fields(query, [name.encode() for name in names]):
        found.setdefault(name.decode(), value.decode(errors="replace"))
    return found
