"""The floor: what the same work costs behind the least edge that Python allows.

One hand-written asyncio protocol on uvloop and httptools, no framework, no routing table, no store, no bot, no limits,
no errors to speak of. Nobody would run this; it shows how far a real server is from what is possible.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys
from typing import cast

import httptools
import uvloop

from benchmarks.work import PREFIX, Sent, Work

_PATH = PREFIX.encode() + b"/"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "


class Connection(asyncio.Protocol):
    """One connection: requests, until it becomes a stream."""

    __slots__ = (
        "_authorization",
        "_body",
        "_conversation",
        "_key",
        "_parser",
        "_streams",
        "_transport",
        "_url",
        "_work",
    )

    def __init__(self, work: Work, streams: dict[str, asyncio.WriteTransport]) -> None:
        self._work = work
        self._streams = streams
        self._conversation: str | None = None
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._url = self._authorization = self._key = self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._parser = None
        if self._conversation is not None and self._streams.get(self._conversation) is self._transport:
            del self._streams[self._conversation]

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            return  # a stream: what clients say on it is ignored
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = None
            self._open_stream()

    # What the parser reports

    def on_url(self, url: bytes) -> None:
        self._url = url
        self._body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        lower = name.lower()
        if lower == b"authorization":
            self._authorization = value
        elif lower == b"sec-websocket-key":
            self._key = value

    def on_body(self, body: bytes) -> None:
        self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        parser = self._parser
        if parser is not None and not parser.should_upgrade():
            answer = self._answer(parser.get_method() == b"POST")
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
            self._transport.write(head + answer)

    def _answer(self, posted: bool) -> bytes:
        path, _, query = self._url.partition(b"?")
        if path == b"/bare":
            return b'{"id":"0"}'
        conversation, _, what = path[len(_PATH) :].decode().partition("/")
        credential = self._authorization[len("Bearer ") :].decode()
        if posted and what:
            return self._push(self._work.send(credential, conversation, self._body))
        if posted:
            return self._work.start(credential)
        given = query.partition(b"watermark=")[2].decode() or None
        if what:
            return self._work.read(credential, conversation, given)
        return self._work.reconnect(credential, conversation, given)

    def _push(self, sent: Sent) -> bytes:
        stream = self._streams.get(sent.conversation)
        if stream is not None:
            stream.write(framed(sent.frame))
        return sent.answer

    def _open_stream(self) -> None:
        path, _, query = self._url.partition(b"?")
        self._conversation = path[len(_PATH) :].decode().partition("/")[0]
        given, _, ticket = query.decode().removeprefix("watermark=").partition("&t=")
        frames = self._work.admit(self._conversation, ticket, given)
        accept = base64.b64encode(hashlib.sha1(self._key + _GUID, usedforsecurity=False).digest())
        self._transport.write(b"".join((_UPGRADED, accept, b"\r\n\r\n", *map(framed, frames))))
        self._streams[self._conversation] = self._transport


def framed(payload: bytes) -> bytes:
    """`payload` as one text frame."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 1 << 16:
        return b"\x81\x7e" + length.to_bytes(2) + payload
    return b"\x81\x7f" + length.to_bytes(8) + payload


async def serve(port: int) -> None:
    work, streams = Work(f"ws://127.0.0.1:{port}"), {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(work, streams), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
