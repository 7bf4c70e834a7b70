"""The generator: one thread, one epoll, plain sockets; and the bot, which lives on the same epoll.

It has to cost much less than any server it loads, so that the server, not this, is what is measured: requests are
prepared bytes, answers are parsed just far enough to know where they end, and what happens next is one callback. Every
wait has a deadline, and an answer that is not the expected one ends the run.
"""

from __future__ import annotations

import base64
import errno
import os
import re
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

RECEIVE_BYTES = 64 * 1024
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: (\d+)\r\n")
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_KEY = base64.b64encode(bytes(16)).decode()
_PONG = bytes((0x8A, 0x80, 0, 0, 0, 0))

BROWSER = (
    "Accept: */*\r\nAccept-Language: en-US,en;q=0.9\r\nOrigin: http://127.0.0.1:8000\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36\r\n"
)
"""What a browser adds to each request."""


class Unexpected(AssertionError):
    """A server did not do its part of the work; a figure made of this would mean nothing."""


class Reactor:
    """Whoever has bytes to read, or room to write, is told so; nothing else happens."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wires: dict[int, Any] = {}

    def add(self, wire: Any, descriptor: int, events: int) -> None:
        self._wires[descriptor] = wire
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def remove(self, descriptor: int) -> None:
        """To be called before the descriptor is closed: closing takes it out of the epoll."""
        del self._wires[descriptor]

    def close(self) -> None:
        """Close every connection that is left."""
        for wire in list(self._wires.values()):
            wire.close()
        self._epoll.close()

    def turn(self, timeout_s: float) -> None:
        """Serve what is ready, or wait for it."""
        wires = self._wires
        for descriptor, events in self._epoll.poll(timeout_s, 256):
            wire = wires.get(descriptor)
            if wire is None:
                continue
            if events & _OUT:
                wire.writable()
            if events & ~_OUT and descriptor in wires:
                wire.readable()

    def until(self, done: Callable[[], bool], deadline_s: float = 30) -> None:
        """Turn until `done`; raises `Unexpected` at the deadline.

        It never sleeps. To wake a sleeping process on another core costs the one that writes to it 10 µs and more, so
        a server would pay for being slower than its generator; clients across a network are not woken by it."""
        end = time.monotonic() + deadline_s
        while not done():
            if time.monotonic() > end:
                raise Unexpected(f"not done within {deadline_s} s")
            self.turn(0)

    def rest(self, seconds: float) -> None:
        """Serve what comes for so long, without sleeping either."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn(0)


class Wire:
    """One connection. It connects by itself; what is written before that waits."""

    __slots__ = ("_held", "_reactor", "_socket", "_unsent", "descriptor")

    def __init__(self, reactor: Reactor, sock: socket.socket, *, connected: bool = False) -> None:
        self._reactor = reactor
        self._socket = sock
        self._unsent = b""
        self._held = b""
        self.descriptor = sock.fileno()
        reactor.add(self, self.descriptor, _IN if connected else _IN | _OUT)

    @staticmethod
    def connect(port: int) -> socket.socket:
        """A socket on its way to the server."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = sock.connect_ex(("127.0.0.1", port))
        if error not in (0, errno.EINPROGRESS):
            raise Unexpected(f"cannot connect: {os.strerror(error)}")
        return sock

    def write(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, OSError) as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN):
                raise
            sent = 0
        if sent < len(data):
            self._unsent = data[sent:]
            self._reactor.change(self.descriptor, _IN | _OUT)

    def writable(self) -> None:
        data, self._unsent = self._unsent, b""
        self._reactor.change(self.descriptor, _IN)
        if data:
            self.write(data)

    def readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone()
            return
        held = self._held + data if self._held else data
        self._held = held[used:] if (used := self.take(held)) < len(held) else b""

    def take(self, data: bytes) -> int:
        """Use what is complete; answers how many bytes that was."""
        raise NotImplementedError

    def gone(self) -> None:
        """The server has closed."""
        raise Unexpected("the server closed a connection")

    def close(self, *, reset: bool = False) -> None:
        """Close; `reset` leaves nothing behind in the kernel, for the end of a measurement."""
        if self.descriptor >= 0:
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self._reactor.remove(self.descriptor)
            self._socket.close()
            self.descriptor = -1


Answered = Callable[["Client", int, bytes], None]


class Client(Wire):
    """A keep-alive HTTP connection with at most one request under way."""

    __slots__ = ("_answered",)

    def __init__(self, reactor: Reactor, port: int) -> None:
        super().__init__(reactor, self.connect(port))
        self._answered: Answered | None = None

    def ask(self, request: bytes, answered: Answered) -> None:
        """Send `request`; `answered` gets this client, the status and the body."""
        self._answered = answered
        self.write(request)

    def take(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        length = _LENGTH.search(data, 0, end)
        total = end + (int(length[1]) if length else 0)
        if len(data) < total:
            return 0
        answered, self._answered = self._answered, None
        if answered is None:
            raise Unexpected("an answer to nothing")
        answered(self, int(data[9:12]), data[end:total])
        return total

    def gone(self) -> None:
        if self._answered is not None:
            raise Unexpected("the server closed a connection with a request under way")
        self.close()


OnFrame = Callable[["Stream", bytes], None]
_NO_ACTIVITY = b'{"activities":[]'
"""How earlier versions began every stream; it counts for nothing where two versions are compared."""


class Stream(Wire):
    """A client's end of a stream. `on_open` is called when it is open; `on_frame` gets every frame with one."""

    __slots__ = ("_on_frame", "_on_open", "ended", "frames", "keepalives", "open")

    def __init__(
        self,
        reactor: Reactor,
        port: int,
        handshake: bytes,
        on_frame: OnFrame,
        receive_bytes: int = 0,
        on_open: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(reactor, self._connect(port, receive_bytes))
        self._on_frame = on_frame
        self._on_open = on_open
        self.open = False
        self.ended = False
        self.frames = 0
        self.keepalives = 0
        self.write(handshake)

    @staticmethod
    def _connect(port: int, receive_bytes: int) -> socket.socket:
        if not receive_bytes:
            return Wire.connect(port)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        return sock

    def stop_reading(self) -> None:
        """From now on this client reads nothing."""
        self._reactor.change(self.descriptor, 0)

    def take(self, data: bytes) -> int:
        at = 0
        if not self.open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                return 0
            if not data.startswith(b"HTTP/1.1 101"):
                raise Unexpected(f"no upgrade: {data[:200]!r}")
            self.open = True
            self._on_open()
        end = len(data)
        while end - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if start + length > end:
                break
            self._frame(data[at], data[start : start + length])
            at = start + length
        return at

    def _frame(self, first: int, payload: bytes) -> None:
        if first == 0x81 and payload.startswith(_NO_ACTIVITY):
            return
        if first == 0x81 and payload:
            self.frames += 1
            self._on_frame(self, payload)
        elif first == 0x81:
            self.keepalives += 1
        elif first == 0x89:
            self.write(_PONG)
        else:
            self.ended = True

    def gone(self) -> None:
        self.ended = True
        self.close()


class BotWire(Wire):
    """The bot's end of a connection from the server."""

    __slots__ = ("_bot",)

    def __init__(self, reactor: Reactor, sock: socket.socket, bot: Bot) -> None:
        super().__init__(reactor, sock, connected=True)
        self._bot = bot

    def take(self, data: bytes) -> int:
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        length = _LENGTH.search(data, 0, end)
        total = end + (int(length[1]) if length else 0)
        if len(data) < total:
            return 0
        self._bot.heard(self, data[end:total])
        return total

    def gone(self) -> None:
        self.close()


class _Conversation(msgspec.Struct):
    id: str


class Heard(msgspec.Struct, rename="camel"):
    """What a bot reads of an activity."""

    type: str
    id: str
    service_url: str
    conversation: _Conversation


class Bot:
    """A bot that answers 200 at once; with `replies`, only when the reply that it sends first was accepted."""

    OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    REPLY = b'{"type":"message","text":"You said something, and this is my answer.","inputHint":"acceptingInput"}'

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._decode = msgspec.json.Decoder(Heard).decode
        self._idle: deque[Client] = deque()
        self.port: int = self._listener.getsockname()[1]
        self.replies = False
        self.messages = 0
        self.service_url = ""
        """What the last activity came with."""
        reactor.add(self, self._listener.fileno(), _IN)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/messages"

    def readable(self) -> None:
        """Somebody connects."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            BotWire(self._reactor, sock, self)

    def heard(self, wire: BotWire, body: bytes) -> None:
        """An activity arrived."""
        activity = self._decode(body)
        self.service_url = activity.service_url
        if activity.type != "message":
            wire.write(self.OK)
            return
        self.messages += 1
        if not self.replies:
            wire.write(self.OK)
            return

        def replied(client: Client, status: int, answer: bytes) -> None:
            if status != 200:
                raise Unexpected(f"the bot's reply was answered {status} {answer!r}")
            self._idle.append(client)
            if wire.descriptor >= 0:
                wire.write(self.OK)

        path, port = bot_path(activity.service_url, activity.conversation.id, activity.id)
        self.client(port).ask(post(port, path, self.REPLY, None), replied)

    def client(self, port: int) -> Client:
        """An idle connection to the connector."""
        while self._idle:
            client = self._idle.popleft()
            if client.descriptor >= 0:
                return client
        return Client(self._reactor, port)

    def close(self) -> None:
        self._reactor.remove(self._listener.fileno())
        self._listener.close()
        for client in self._idle:
            client.close()
        self._idle.clear()


def bot_path(service_url: str, conversation: str, reply_to: str = "") -> tuple[str, int]:
    """Where a bot posts, as path and port."""
    address, _, base = service_url.removeprefix("http://").partition("/")
    path = f"/{base}/v3/conversations/{conversation}/activities"
    return path + (f"/{reply_to}" if reply_to else ""), int(address.rpartition(":")[2])


# Requests, ready to be sent


def get(port: int, path: str, credential: str) -> bytes:
    """A GET as a browser sends it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{BROWSER}Authorization: Bearer {credential}\r\n\r\n"
    ).encode()


def post(port: int, path: str, body: bytes, credential: str | None) -> bytes:
    """A POST as a browser sends it, or without a credential, as a bot does."""
    who = f"{BROWSER}Authorization: Bearer {credential}\r\n" if credential else "User-Agent: bot\r\nAccept: */*\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{who}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def handshake(stream_url: str) -> tuple[int, bytes]:
    """The port of a stream URL, and its handshake as a browser sends it."""
    address, _, path = stream_url.removeprefix("ws://").partition("/")
    return int(address.rpartition(":")[2]), (
        f"GET /{path} HTTP/1.1\r\nHost: {address}\r\n{BROWSER}Connection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {_KEY}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    ).encode()
