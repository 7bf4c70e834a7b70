"""The HTTP calls of Direct Line 3.0: one request each, an answer or one of this client's errors."""

from __future__ import annotations

import asyncio
import mimetypes
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from landline.client.errors import BotFailed, OutcomeUnknown, Refused, TokenRejected, Unreachable
from landline.client.states import Replay

FRAME_BYTES = 32 << 20
"""The longest frame or page that is read: several times the longest activity of any known server."""
MULTIPART = "multipart/form-data; boundary="
JSON = "application/json"
_ACTIVITY_PART = "application/vnd.microsoft.activity"
_IDEMPOTENCY_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers that matter, body."""

    status: int
    body: bytes
    retry_after_s: float | None
    replay: Replay | None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def error(self) -> Refused:
        """The error object as an exception."""
        try:
            code, message = msgspec.json.decode(self.body, type=_Problem).texts
        except (msgspec.DecodeError, UnicodeDecodeError):
            code, message = "", ""
        kind = {401: TokenRejected, 403: TokenRejected, 502: BotFailed}.get(self.status, Refused)
        return kind(self.status, code, message)


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Problem(msgspec.Struct):
    error: _Error = msgspec.field(default_factory=_Error)

    @property
    def texts(self) -> tuple[str, str]:
        return self.error.code, self.error.message


class Opened(msgspec.Struct, rename={"conversation_id": "conversationId", "stream_url": "streamUrl"}):
    """What a start and a reconnect answer. Servers without streams or tokens leave those out."""

    conversation_id: str = ""
    token: str | None = None
    expires_in: float | None = None
    stream_url: str | None = None


def opened_by(answer: Answer) -> Opened:
    """Read it; a body that is not one is a refusal, as from a proxy that answers 200 with a page."""
    try:
        return msgspec.json.decode(answer.body, type=Opened)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refused(answer.status, "", "the answer is not one of Direct Line") from None


class Calls:
    """All calls of one client go over one session, whose connections are shared."""

    def __init__(
        self, base: str, session: aiohttp.ClientSession, streams: aiohttp.ClientSession, timeout_s: float
    ) -> None:
        self.base = base
        self._session = session
        self._streams = streams
        self._timeout_s = timeout_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def call(
        self,
        method: str,
        path: str,
        credential: str,
        *,
        body: bytes | None = None,
        content_type: str = JSON,
        key: str | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        """Raises `Unreachable` if nothing was sent, `OutcomeUnknown` if something was and no answer came back."""
        headers = {"Authorization": f"Bearer {credential}"}
        if body is not None:
            headers["Content-Type"] = content_type
        if key is not None:
            headers[_IDEMPOTENCY_KEY] = key
        try:
            async with self._session.request(
                method, self.base + path, params=query, data=body, headers=headers, timeout=self._timeout
            ) as answer:
                return Answer(
                    answer.status,
                    await _body(answer),
                    _seconds(answer.headers.get("Retry-After")),
                    _replay(answer.headers.get("X-DirectLine-Replay")),
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"{self.base}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OutcomeUnknown(f"{method} {self.base}{path}: {type(error).__name__}: {error}") from error

    async def stream(self, url: str, heartbeat_s: float, close_s: float) -> aiohttp.ClientWebSocketResponse:
        """Open a stream. The handshake has the deadline of a call, which the library does not set."""
        async with asyncio.timeout(self._timeout_s):
            return await self._streams.ws_connect(
                url,
                heartbeat=heartbeat_s,
                max_msg_size=FRAME_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=close_s),
            )

    async def knows_idempotency(self) -> bool:
        """Whether the server says that it takes `Idempotency-Key`: among the headers that it allows pages (spec 3.3).

        The header is not named in the question, since some servers allow whatever they are asked for."""
        question = {"Origin": "https://client.invalid", "Access-Control-Request-Method": "POST"}
        try:
            async with self._session.options(
                f"{self.base}/conversations", headers=question, timeout=self._timeout
            ) as answer:
                allowed = answer.headers.get("Access-Control-Allow-Headers", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error)) from error
        return _IDEMPOTENCY_KEY.lower() in allowed.lower()


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > FRAME_BYTES:
            raise Refused(answer.status, "", f"the answer is longer than {FRAME_BYTES} bytes")
    return bytes(body)


def _seconds(retry_after: str | None) -> float | None:
    try:
        return max(0.0, float(retry_after)) if retry_after else None
    except ValueError:
        return None  # a date: rare, and the clocks of both ends would have to agree


def _replay(said: str | None) -> Replay | None:
    try:
        return Replay(said) if said else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class File:
    """A file to upload, in memory."""

    name: str
    content: bytes
    content_type: str | None = None


def multipart(activity: dict[str, Any], files: Sequence[File]) -> tuple[bytes, str]:
    """Body and content type of an upload (spec 5.6). It is made once, since a repeat has to have the same bytes."""
    boundary = secrets.token_hex(16)
    parts = [('name="activity"', _ACTIVITY_PART, msgspec.json.encode(activity))]
    for file in files:
        name = file.name.replace("\\", "_").replace('"', "_").replace("\r", "_").replace("\n", "_")
        kind = file.content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        parts.append((f'name="file"; filename="{name}"', kind, file.content))
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for disposition, kind, content in parts
    )
    return body + f"--{boundary}--\r\n".encode(), MULTIPART + boundary
