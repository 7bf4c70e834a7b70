"""A bot that speaks no HTTP of its own: a listening socket and a script, for what no HTTP server would do; and a
certificate for one that speaks TLS."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import inspect
import ipaddress
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class RawBot:
    """A listening socket and a script per connection: for faults that no HTTP server would produce.

    `script(number, connection)` gets blocking-free socket calls through `asyncio` loop methods; numbers count from 0.
    """

    def __init__(self, script: Callable[[int, RawConnection], Awaitable[None]], *, receive_buffer: int = 65536) -> None:
        self._script = script
        self._receive_buffer = receive_buffer
        self._tasks: list[asyncio.Task[None]] = []
        self._listener = socket.socket()

    async def __aenter__(self) -> RawBot:
        # A small buffer, set before listening, keeps the kernel from swallowing a whole request that nobody reads.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.setblocking(False)
        self._tasks.append(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listener.close()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    @property
    def connections(self) -> int:
        return len(self._tasks) - 1

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/api/messages"

    async def _accept(self) -> None:
        while True:
            accepted, _ = await asyncio.get_running_loop().sock_accept(self._listener)
            self._tasks.append(asyncio.create_task(self._serve(self.connections, accepted)))

    async def _serve(self, number: int, accepted: socket.socket) -> None:
        with accepted:
            await self._script(number, RawConnection(accepted))


class RawConnection:
    """One accepted connection of a `RawBot`."""

    def __init__(self, accepted: socket.socket) -> None:
        self._socket = accepted
        self._unread = b""
        self.head = b""
        """Of the last request."""

    async def begin(self) -> None:
        """Wait for the first bytes of a request, without making room for more than a few of them."""
        self._unread += await asyncio.get_running_loop().sock_recv(self._socket, 16)

    async def request(self) -> bytes:
        """Read one request to its end, answer its body."""
        loop = asyncio.get_running_loop()
        received = bytearray(self._unread)
        self._unread = b""
        while b"\r\n\r\n" not in received:
            received += await self._more(loop)
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        self.head = head
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        )
        received = bytearray(body)
        while len(received) < length:
            received += await self._more(loop)
        return bytes(received)

    async def _more(self, loop: asyncio.AbstractEventLoop) -> bytes:
        part = await loop.sock_recv(self._socket, 262144)
        if not part:
            raise EOFError
        return part

    async def send(self, raw: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, raw)

    async def gone(self) -> None:
        """Wait until the other side has closed."""
        with contextlib.suppress(ConnectionResetError):
            while await asyncio.get_running_loop().sock_recv(self._socket, 65536):
                pass

    def say(self, raw: bytes) -> None:
        """Send at once, without a turn of the loop."""
        self._socket.send(raw)

    def is_idle(self) -> bool:
        """Whether nothing has come that was not read."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True

    def hang_up(self) -> None:
        """Send nothing more. The script may go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def saying(*pieces: bytes, close: bool = False) -> Callable[[int, RawConnection], Awaitable[None]]:
    """Answer each request with these pieces, of which each arrives alone; `close` the connection behind them."""

    async def script(_: int, connection: RawConnection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await connection.request()
                for piece in pieces:
                    await connection.send(piece)
                    # Both ends are on one loop: it has looked for what is readable before this goes on.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                if close:
                    return

    return script


def on_each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run `test` on the standard loop and on uvloop: they differ in when bytes leave."""

    def run(loop_factory: Callable[[], asyncio.AbstractEventLoop], **given: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(asyncio.wait_for(test(**given), 30))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.pytestmark = list(getattr(test, "pytestmark", ()))  # type: ignore[attr-defined]
    factory = inspect.Parameter("loop_factory", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = inspect.Signature([factory, *inspect.signature(test).parameters.values()])  # type: ignore[attr-defined]
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)


def certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a bot")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "bot.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
