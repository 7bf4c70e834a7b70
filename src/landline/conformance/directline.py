"""A thin Direct Line client for checks and tests: every call says what it sends and answers what came.

It never retries, follows no redirect and keeps no cookie. In tests each answer is held against what all answers have in
common (specification 3.2, 3.3, 3.5) before it is seen, so that every test of the house checks those rules too; a check
asks for them by itself, or one mistake of a server would fail them all.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from landline.conformance.expect import accepted, expect, same

DEADLINE_S = 10.0
"""Nobody waits longer for anything without saying so."""

PAGES = 10_000
"""Where a walk through the pages of Get Activities is taken for an endless one."""

Activity = dict[str, Any]
WATERMARK = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
CONVERSATION_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)


@dataclass(frozen=True, repr=False)
class Answer:
    """What the server answered. Header names are compared without regard to case."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def __repr__(self) -> str:
        headers = "".join(f"{name}: {value}; " for name, value in self.headers.items())
        return f"{self.status} {self.body[:120].decode(errors='replace')} ({headers.rstrip('; ')})"

    @cached_property
    def json(self) -> Any:
        """The parsed body; fails where it is no JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of 3.5; fails where there is none."""
        return str(self.json["error"]["code"])

    @property
    def error(self) -> tuple[int, str]:
        """Status and error code: what is stable about an error (3.5)."""
        return self.status, self.code

    @property
    def conversation_id(self) -> str:
        """The conversation of a token, a start or a reconnect."""
        return str(self.json["conversationId"])

    @property
    def token(self) -> str:
        """The token of such an answer."""
        return str(self.json["token"])

    @property
    def stream_url(self) -> str:
        """The stream URL of a start or a reconnect."""
        return str(self.json["streamUrl"])

    @property
    def replay(self) -> str | None:
        """The `X-DirectLine-Replay` header (8.2.6)."""
        return self.headers.get("X-DirectLine-Replay")

    @property
    def watermark(self) -> str:
        """The watermark of an ActivitySet."""
        return str(self.json["watermark"])

    @property
    def activities(self) -> list[Activity]:
        """The activities of an ActivitySet."""
        found = self.json["activities"]
        expect(isinstance(found, list), self)
        return list(found)


Inspect = Callable[[Answer, str | None], None]
"""Looks at an answer, and at the origin of the page that asked."""


class DirectLine:
    """`async with DirectLine(landline.directline, SECRET) as client:`. Without a credential, none is sent.

    Paths are relative to the domain and go out as they are written, percent signs included. `activity` may be a text: a
    message of the user `user`. Keyword arguments of the calls are those of `request`.
    """

    _session: aiohttp.ClientSession

    def __init__(
        self,
        domain: str,
        credential: str | None = None,
        origin: str | None = None,
        inspect: Inspect | None = None,
        tls: ssl.SSLContext | bool = True,
    ) -> None:
        """`inspect` sees each answer before the caller does; `check_manners` unless it is given. `tls` says whom to
        trust where the domain is https."""
        self.domain = domain
        self.credential = credential
        self.origin = origin
        self._inspect = inspect or check_manners
        self._tls = tls

    async def __aenter__(self) -> DirectLine:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Content-Type", "User-Agent"),
            timeout=aiohttp.ClientTimeout(total=30),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    def using(self, credential: str | None) -> DirectLine:
        """The same client with another credential, or with none. It shares the connections and need not be left."""
        return self._like(credential, self.origin)

    def at(self, origin: str) -> DirectLine:
        """The same client in a page of that origin, as a browser shows it to the server."""
        return self._like(self.credential, origin)

    def _like(self, credential: str | None, origin: str | None) -> DirectLine:
        other = DirectLine(self.domain, credential, origin, self._inspect, self._tls)
        other._session = self._session
        return other

    # Endpoints

    async def generate(self, **parameters: object) -> Answer:
        """Generate Token; the keyword arguments are the TokenParameters, none is no body."""
        return await self._post("/tokens/generate", parameters)

    async def refresh(self) -> Answer:
        """Refresh Token."""
        return await self.request("POST", "/tokens/refresh")

    async def start(self, **parameters: object) -> Answer:
        """Start Conversation; the keyword arguments are the TokenParameters and `locale`, none is no body."""
        return await self._post("/conversations", parameters)

    async def reconnect(self, conversation_id: str | None, watermark: str | None = None, **options: Any) -> Answer:
        """GET conversation. `watermark` None leaves the parameter out, "" leaves it empty."""
        return await self.request("GET", f"/conversations/{conversation_id}{_watermark(watermark)}", **options)

    async def activities(self, conversation_id: str | None, watermark: str | None = None, **options: Any) -> Answer:
        """Get Activities, one page."""
        path = f"/conversations/{conversation_id}/activities{_watermark(watermark)}"
        return await self.request("GET", path, **options)

    async def all_activities(self, conversation_id: str | None, watermark: str | None = None) -> list[Activity]:
        """Get Activities, page after page until one is empty (8.3)."""
        found: list[Activity] = []
        for _ in range(PAGES):
            answer = await self.activities(conversation_id, watermark)
            accepted(answer)
            if not answer.activities:
                return found
            found += answer.activities
            watermark = answer.watermark
        raise AssertionError(f"no empty page among {PAGES}")

    async def send(self, conversation_id: str | None, activity: Activity | str, **options: Any) -> Answer:
        """Send Activity."""
        return await self.request(
            "POST", f"/conversations/{conversation_id}/activities", json=_activity(activity), **options
        )

    async def _post(self, path: str, parameters: Mapping[str, object]) -> Answer:
        return await self.request("POST", path, json=parameters or None)

    # Anything

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        data: bytes | io.BytesIO | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any request below the domain, or to a complete URL.

        `json` goes out as `application/json`; `data` goes out as it is, with only the headers that are given, and
        chunked, without a declared length, where it is an iterator.
        """
        sent = self._headers(headers)
        if json is not None:
            data = dumps(json)
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(
            method, self._url(path), data=data, headers=sent, allow_redirects=False
        ) as response:
            answer = Answer(response.status, response.headers, await response.read())
        self._inspect(answer, sent.get("Origin"))
        return answer

    def _headers(self, headers: Mapping[str, str] | None) -> dict[str, str]:
        sent = dict(headers or {})
        if self.credential and not any(name.lower() == "authorization" for name in sent):
            sent["Authorization"] = f"Bearer {self.credential}"
        if self.origin:
            sent.setdefault("Origin", self.origin)
        return sent

    def _url(self, path: str) -> URL:
        return URL(path if "://" in path else self.domain + path, encoded=True)

    # Streams

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        pongs: bool = True,
        receive_buffer: int | None = None,
    ) -> AsyncIterator[ClientStream]:
        """An open stream, read until the block ends. No credential is sent but the URL's own.

        `pongs` False answers no Ping; a small `receive_buffer` makes a client that stops reading felt at once. A
        refused handshake raises `aiohttp.WSServerHandshakeError`; `handshake` shows its whole answer.
        """
        connector = aiohttp.TCPConnector(
            socket_factory=_socket_factory(receive_buffer) if receive_buffer else None,
            force_close=True,
            ssl=self._tls,
        )
        async with (
            aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.ws_connect(
                _web(url), headers=headers, autoping=pongs, max_msg_size=0, timeout=aiohttp.ClientWSTimeout(ws_close=5)
            ) as socket_,
        ):
            stream = ClientStream(socket_, parameter(url, "watermark"))
            try:
                yield stream
            finally:
                await stream.leave()

    async def handshake(self, url: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Ask for a stream, show the answer, and hang up if it was opened."""
        asked = {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            **({"Origin": self.origin} if self.origin else {}),
            **(headers or {}),
        }
        async with self._session.get(_web(url), headers=asked, allow_redirects=False) as response:
            opened = response.status == 101
            answer = Answer(response.status, response.headers, b"" if opened else await response.read())
            if opened:
                response.close()
        self._inspect(answer, asked.get("Origin"))
        return answer


class ClientStream:
    """The client's end of an open stream. It reads from its first moment on and keeps everything.

    `frames` are the data frames as they came: `str` for text, an empty one is a keep-alive, `bytes` for binary. `sets`
    are the parsed ActivitySets, `activities` all their activities. `close_code` is None while the stream is open, and
    1006 when it ended without a close frame. `start` is the watermark in the URL that it was opened by.
    """

    def __init__(self, socket_: aiohttp.ClientWebSocketResponse, start: str | None) -> None:
        self._start = start
        self.frames: list[str | bytes] = []
        self.sets: list[dict[str, Any]] = []
        self.activities: list[Activity] = []
        self.close_code: int | None = None
        self.close_reason = ""
        self.socket = socket_
        self._taken = 0
        self._news = asyncio.Event()
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._reading = asyncio.create_task(self._read())

    def __repr__(self) -> str:
        ids = [each.get("id") for each in self.activities]
        return f"<stream: {len(self.frames)} frames, closed: {self.close_code} {self.close_reason!r}, {ids}>"

    @property
    def open(self) -> bool:
        """Whether the stream has not ended."""
        return self.close_code is None

    @property
    def watermark(self) -> str | None:
        """What a correct client presents when it reconnects: the last one, at first that of the stream URL (8.7)."""
        return self.sets[-1]["watermark"] if self.sets else self._start

    @property
    def texts(self) -> list[object]:
        """The texts of all activities, None where there is none."""
        return [each.get("text") for each in self.activities]

    @property
    def keep_alives(self) -> int:
        """How many empty frames have come."""
        return self.frames.count("")

    async def next_activity(self, timeout: float = DEADLINE_S) -> Activity:
        """The next activity that this method has not given out yet."""
        await self.until(lambda stream: len(stream.activities) > self._taken, "has one more activity", timeout)
        self._taken += 1
        return self.activities[self._taken - 1]

    async def until(
        self, condition: Callable[[ClientStream], object], what: str = "is as expected", timeout: float = DEADLINE_S
    ) -> None:
        """Wait until `condition` holds of this stream. AssertionError after `timeout` seconds, or when it has ended."""
        try:
            async with asyncio.timeout(timeout):
                while not condition(self):
                    if self._reading.done():
                        self._reading.result()  # what it could not read, if that is why
                        raise AssertionError(f"ended before it {what}: {self}")
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {what}: {self}") from None

    async def until_text(self, text: str, timeout: float = DEADLINE_S) -> Activity:
        """Wait for the activity with this text."""
        await self.until(lambda stream: text in stream.texts, f"has {text!r}", timeout)
        return self.activities[self.texts.index(text)]

    async def until_closed(self, timeout: float = DEADLINE_S) -> tuple[int, str]:
        """Wait for the end: close code and reason."""
        await self.until(lambda stream: not stream.open, "is closed", timeout)
        return self.close_code or 0, self.close_reason

    def stop_reading(self) -> None:
        """Take nothing off the socket any more, and answer no Ping. One message may still come through."""
        self._may_read.clear()

    def go_on_reading(self) -> None:
        """Read again."""
        self._may_read.set()

    async def say(self, text: str | bytes) -> None:
        """Send one frame, text or binary."""
        await (self.socket.send_str(text) if isinstance(text, str) else self.socket.send_bytes(text))

    def cut(self) -> None:
        """Hang up without a close frame."""
        self.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)

    async def leave(self, code: int = 1000) -> None:
        """Close from this side."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        if self.open:
            await self.socket.close(code=code)

    async def _read(self) -> None:
        try:
            while self.open:
                await self._may_read.wait()
                self._take(await self.socket.receive())
                self._news.set()
        finally:
            self._news.set()

    def _take(self, message: aiohttp.WSMessage) -> None:
        match message.type:
            case aiohttp.WSMsgType.TEXT:
                self.frames.append(message.data)
                if message.data:
                    self._take_set(json.loads(message.data))
            case aiohttp.WSMsgType.BINARY:
                self.frames.append(message.data)
            case aiohttp.WSMsgType.CLOSE:
                self.close_code, self.close_reason = message.data or 1005, message.extra or ""
            case aiohttp.WSMsgType.CLOSED | aiohttp.WSMsgType.CLOSING | aiohttp.WSMsgType.ERROR:
                self.close_code = 1006

    def _take_set(self, activity_set: dict[str, Any]) -> None:
        self.sets.append(activity_set)
        self.activities += activity_set["activities"]


def check_manners(answer: Answer, origin: str | None) -> None:
    """Fail unless the answer keeps what every answer of the API promises (3.2, 3.3, 3.5)."""
    has_manners(answer)
    expect(answer.headers.get("Referrer-Policy") == "no-referrer", answer)
    if answer.status >= 400:
        is_error(answer)
    if origin is not None:
        readable_by(answer, origin)


def has_manners(answer: Answer) -> None:
    """Fail unless the answer has an operation id, and is JSON that nobody stores, or nothing at all (3.2)."""
    expect(answer.headers.get("X-Correlating-OperationId"), f"no operation id: {answer}")
    expect(not 300 <= answer.status < 400, f"a redirect: {answer}")
    if answer.status not in (101, 204):
        content_type = answer.headers.get("Content-Type", "").lower().replace(" ", "")
        same(content_type, "application/json;charset=utf-8", "Content-Type")
        same(answer.headers.get("Cache-Control"), "no-store", "Cache-Control")
        expect(isinstance(answer.json, dict), f"no object: {answer}")


def is_error(answer: Answer) -> None:
    """Fail unless the body is the error object of 3.5."""
    expect(isinstance(answer.json, dict) and list(answer.json) == ["error"], answer)
    error = answer.json["error"]
    expect(isinstance(error, dict) and isinstance(error.get("code"), str) and error["code"], answer)
    expect(isinstance(error.get("message"), str), answer)


def readable_by(answer: Answer, origin: str) -> None:
    """Fail unless a page of this origin may read the answer (3.3)."""
    same(answer.headers.get("Access-Control-Allow-Origin"), origin, "Access-Control-Allow-Origin")
    expect("Origin" in answer.headers.get("Vary", ""), f"Vary: {answer}")
    exposed = answer.headers.get("Access-Control-Expose-Headers", "")
    expect("retry-after" in exposed.lower(), f"Access-Control-Expose-Headers: {exposed!r}")


def edited(url: str, **parameters: str | None) -> str:
    """The stream URL with these query parameters replaced or added; None takes one away, "" leaves it empty."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) | parameters
    kept = {name: value for name, value in query.items() if value is not None}
    return urlunsplit(parts._replace(query=urlencode(kept)))


def parameter(url: str, name: str) -> str | None:
    """A query parameter of a URL, None where it is absent."""
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True)).get(name)


def claims(token: str) -> dict[str, Any]:
    """What a token says, read as clients read it: without verifying (4.2)."""
    payload = token.split(".")[1]
    decoded = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    expect(isinstance(decoded, dict), decoded)
    return dict(decoded)


def dumps(value: object) -> bytes:
    """JSON as a browser writes it: compact, and nothing escaped that need not be. Half a surrogate pair must be."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text).encode()


def _activity(activity: Activity | str) -> Activity:
    if isinstance(activity, str):
        return {"type": "message", "from": {"id": "user"}, "text": activity}
    return activity


def _watermark(watermark: str | None) -> str:
    return "" if watermark is None else f"?watermark={quote(watermark, safe='%')}"


def _web(url: str) -> URL:
    """What aiohttp asks for a `ws:` URL."""
    return URL(re.sub(r"^ws", "http", url), encoded=True)


def _socket_factory(receive_buffer: int) -> Callable[[Any], socket.socket]:
    def make(address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        plug = socket.socket(family, kind, protocol)
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plug.setblocking(False)
        return plug

    return make
