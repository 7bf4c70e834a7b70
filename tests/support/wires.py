"""Raw bytes against our real HTTP server: a listener on a loop in a thread of its own, and a blocking socket to it.

What makes it useful: the test sees exactly the bytes that leave and arrive, the server runs uncut, and the same test
runs on the loop of the standard library and on uvloop.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from landline.wire.connection import ConnectionContext, Limits
from landline.wire.crowd import Crowd
from landline.wire.listener import Listener, listening_sockets
from landline.wire.websocket import Accept, Refuse, Upgrade, WebSocket
from landline.wire.wheel import Wheel

DEADLINE_S = 10.0
"""No test waits longer for anything."""

MAX_MESSAGE_BYTES = 65536


def until(condition: Callable[[], Any], deadline_s: float = DEADLINE_S) -> None:
    """Wait for `condition` to become true; fail at the deadline."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the condition did not become true in time")
        time.sleep(0.005)


def listening_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """One that listens, where the host has one address."""
    (listener,) = listening_sockets(host, port)
    return listener


class Recorder:
    """A WebSocket handler that notes what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.websocket: WebSocket | None = None

    def opened(self, websocket: WebSocket) -> None:
        self.websocket = websocket
        self.events.append(("opened",))

    def text(self, payload: bytes) -> None:
        self.events.append(("text", payload))

    def binary(self, payload: bytes) -> None:
        self.events.append(("binary", payload))

    def heard(self) -> None:
        self.events.append(("heard",))

    def resumed(self) -> None:
        self.events.append(("resumed",))

    def closed(self, code: int | None) -> None:
        self.events.append(("closed", code))

    def of(self, *kinds: str) -> list[tuple[Any, ...]]:
        """The events of these kinds only."""
        return [event for event in self.events if event[0] in kinds]


class Echo(Recorder):
    """Answers every text with the same text, and every binary message with its length and digest as text."""

    def text(self, payload: bytes) -> None:
        super().text(payload)
        assert self.websocket is not None
        self.websocket.send_texts([payload])

    def binary(self, payload: bytes) -> None:
        super().binary(payload)
        assert self.websocket is not None
        self.websocket.send_texts([digest(payload)])


class Greeter(Recorder):
    """Has something to say at once."""

    def opened(self, websocket: WebSocket) -> None:
        super().opened(websocket)
        websocket.send_texts([b"welcome"])


def digest(payload: bytes) -> bytes:
    """What `Echo` answers to a binary message."""
    return f"{len(payload)} {hashlib.sha256(payload).hexdigest()}".encode()


_HANDLERS: dict[str, type[Recorder]] = {"/echo": Echo, "/later": Echo, "/greets": Greeter}


class Wires:
    """A listener with `limits` on a loop of the given kind (`asyncio` or `uvloop`).

    WebSockets: `/echo`, `/plain` (silent), `/greets`, `/later` (decided by a coroutine, when `decide` is set),
    `/forbidden`, `/broken`; not at `/page`. HTTP: `/hold` answers when `release` is set, `/unread` answers 413 without
    reading the body, `/refused-at-length` with 4 MiB, `/big` answers 4 MiB, everything else what it was asked, as
    JSON."""

    def __init__(
        self, kind: str = "asyncio", *, crowd: Crowd | None = None, tls: ssl.SSLContext | None = None, **limits: Any
    ) -> None:
        self.kind = kind
        self._crowd = crowd
        self._tls = tls
        self.limits = Limits(**limits)
        self.handlers: list[Recorder] = []
        self.upgrades: list[Upgrade] = []
        self.scopes: list[Any] = []
        self.disconnects = 0
        self.complaints: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started: Future[None] = Future()

    def __enter__(self) -> Wires:
        self._thread.start()
        self._started.result(DEADLINE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._finish.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        assert self.complaints == []

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run `function` on the server's loop and answer its result."""

        async def run() -> Any:
            result = function(*arguments)
            return await result if asyncio.iscoroutine(result) else result

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(DEADLINE_S)

    def connections(self) -> int:
        """HTTP connections that uvicorn knows."""
        return len(self.listener._server.server_state.connections)

    def connect(self, receive_buffer: int | None = None) -> Wire:
        """A new connection."""
        plug = socket.socket()
        if receive_buffer is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        plug.settimeout(DEADLINE_S)
        try:
            plug.connect(("127.0.0.1", self.port))
        except OSError:
            plug.close()
            raise
        return Wire(plug)

    def websocket(self, path: str = "/echo", receive_buffer: int | None = None) -> Wire:
        """A new connection that has become a WebSocket."""
        wire = self.connect(receive_buffer)
        wire.send(handshake(path))
        assert wire.response().status == 101
        handler = self.handlers[-1]
        until(lambda: handler.websocket is not None)  # the 101 may be here before the handler is told
        return wire

    def _run(self) -> None:
        factory = None
        if self.kind == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self._finish = asyncio.Event()
        self.release = asyncio.Event()
        self.decide = asyncio.Event()
        self.wheel = Wheel(self.loop)
        listener = listening_socket()
        door = ConnectionContext(self.limits, self.wheel, self._on_upgrade, crowd=self._crowd)
        self.listener = Listener(self._app, [listener], door, self._tls)
        self.port = self.listener.addresses[0][1]
        await self.listener.start()
        self._started.set_result(None)
        await self._finish.wait()
        for handler in self.handlers:
            if handler.websocket is not None:
                handler.websocket.abort()
        await self.listener.stop(1.0)
        self.wheel.close()

    def _on_upgrade(self, request: Upgrade) -> Any:
        self.upgrades.append(request)
        if request.path == "/forbidden":
            return Refuse(403, [(b"x-why", b"because")], b"no")
        if request.path == "/page":
            return None
        if request.path == "/broken":
            raise RuntimeError("on_upgrade broke")
        handler = _HANDLERS.get(request.path, Recorder)()
        self.handlers.append(handler)
        accepted = Accept(handler, MAX_MESSAGE_BYTES)
        return self._later(accepted) if request.path == "/later" else accepted

    async def _later(self, accepted: Accept) -> Accept:
        await self.decide.wait()
        return accepted

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["path"] == "/unread":
            await self._answer(send, 413, b"too much")
            return
        if scope["path"] == "/refused-at-length":
            await self._answer(send, 413, bytes(1 << 22))
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.disconnects += 1
                return
            body += message["body"]
            more = message["more_body"]
        if scope["path"] == "/hold":
            await self.release.wait()
        asked = {
            "method": scope["method"],
            "path": scope["path"],
            "query": scope["query_string"].decode(),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": body.decode("latin-1"),
        }
        await self._answer(send, 200, bytes(1 << 22) if scope["path"] == "/big" else json.dumps(asked).encode())

    async def _answer(self, send: Any, status: int, body: bytes) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Response(NamedTuple):
    """An HTTP answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, str]:
        """The error object of spec 3.5; fails if it is none."""
        assert self.headers["content-type"] == "application/json; charset=utf-8"
        assert self.headers["cache-control"] == "no-store"
        assert self.headers["x-correlating-operationid"]
        error: dict[str, str] = json.loads(self.body)["error"]
        assert sorted(error) == ["code", "message"]
        return error


class Frame(NamedTuple):
    """One frame as it came: its first byte, its payload, and whether it was masked."""

    first: int
    payload: bytes
    masked: bool


class Wire:
    """The client's end of one connection: sends what it is given, reads what it is asked to."""

    def __init__(self, plug: socket.socket) -> None:
        self.plug = plug
        self._held = b""

    def send(self, data: bytes) -> None:
        """All of it, in as few packets as the system likes."""
        self.plug.sendall(data)

    def drip(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own."""
        self.plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            self.plug.sendall(piece)
            time.sleep(0.0005)  # apart, as far as a test can make them; nothing depends on it

    def take(self, count: int) -> bytes:
        """Exactly that many bytes. Raises `EOFError` if the connection ends before."""
        while len(self._held) < count:
            self._fill()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def response(self) -> Response:
        """The next HTTP answer."""
        while b"\r\n\r\n" not in self._held:
            self._fill()
        head, self._held = self._held.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        return Response(status, headers, self.take(int(headers.get("content-length", "0"))))

    def frame(self) -> Frame:
        """The next WebSocket frame."""
        first, second = self.take(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.take(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.take(8))
        return Frame(first, self.take(length), bool(second & 0x80))

    def text(self) -> bytes:
        """The payload of the next frame, which must be an unfragmented, unmasked text."""
        frame = self.frame()
        assert (frame.first, frame.masked) == (0x81, False), frame
        return frame.payload

    def close_frame(self) -> tuple[int | None, str]:
        """Code and reason of the next frame, which must be a close."""
        frame = self.frame()
        assert (frame.first, frame.masked) == (0x88, False), frame
        if not frame.payload:
            return None, ""
        return int.from_bytes(frame.payload[:2], "big"), frame.payload[2:].decode()

    def at_end(self) -> bool:
        """Wait for the end of the connection; whether nothing came before it."""
        try:
            self._fill()
        except (EOFError, ConnectionResetError):
            return True
        return False

    @property
    def held(self) -> bytes:
        """What came along with what was taken."""
        return self._held

    def close(self) -> None:
        """Hang up."""
        self.plug.close()

    def cut(self) -> None:
        """Hang up with a reset, as a process that dies with unread bytes does."""
        self.plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.plug.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self) -> None:
        received = self.plug.recv(1 << 16)
        if not received:
            raise EOFError
        self._held += received


KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
"""The example of RFC 6455, section 1.3."""


def handshake(path: str = "/echo", *extra: str, key: bytes = KEY, version: str = "13", method: str = "GET") -> bytes:
    """A handshake; `extra` are complete header lines."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: here",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        f"Sec-WebSocket-Version: {version}",
        f"Sec-WebSocket-Key: {key.decode('latin-1')}",
        *extra,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def masked(first: int, payload: bytes = b"", *, mask: bytes | None = None, head: bytes | None = None) -> bytes:
    """A client's frame. `head` replaces the length field (the byte with the mask bit and what follows it)."""
    mask = os.urandom(4) if mask is None else mask
    if head is None:
        length = len(payload)
        if length < 126:
            head = bytes([0x80 | length])
        elif length < 65536:
            head = b"\xfe" + struct.pack("!H", length)
        else:
            head = b"\xff" + struct.pack("!Q", length)
    return bytes([first]) + head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def text(payload: str | bytes) -> bytes:
    """A client's unfragmented text message."""
    return masked(0x81, payload.encode() if isinstance(payload, str) else payload)


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A client's close frame."""
    return masked(0x88, b"" if code is None else code.to_bytes(2, "big") + reason)
