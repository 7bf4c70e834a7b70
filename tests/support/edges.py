"""Parts of the edge, served by the real listener on the test's own loop, and a client that shows all of an answer.

What makes it useful: one `Resource` or one `Paths` can be tried over a real connection without a store behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from starlette.types import ASGIApp

from landline.wire.connection import ConnectionContext, Limits
from landline.wire.listener import Listener
from landline.wire.websocket import Accept, Refuse, Upgrade
from landline.wire.wheel import Wheel
from support.wires import DEADLINE_S, Response, listening_socket

OnUpgrade = Callable[[Upgrade], Awaitable[Accept] | Refuse]


class Served(NamedTuple):
    """Something that is being served."""

    listener: Listener
    port: int

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"", host: str | None = None) -> Response:
        """One request on a connection of its own, with these header lines beside Host; fails where no answer comes."""
        answer = await self.exchange(request(method, path, *headers, "Connection: close", body=body, host=host))
        return response(answer)

    async def exchange(self, sent: bytes) -> bytes:
        """What comes back on a new connection until the other side ends it."""
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await self.connect()
            with contextlib.closing(writer):
                writer.write(sent)
                return await reader.read()

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A new connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, on_upgrade: OnUpgrade = lambda request: Refuse(404, [], b"")) -> AsyncIterator[Served]:
    """Serve `app` on a free port of the loopback address."""
    wheel = Wheel(asyncio.get_running_loop())
    listener = Listener(app, [listening_socket()], ConnectionContext(Limits(), wheel, on_upgrade))
    await listener.start()
    try:
        yield Served(listener, listener.addresses[0][1])
    finally:
        await listener.stop(1)
        wheel.close()


def request(method: str, path: str, *headers: str, body: bytes = b"", host: str | None = None) -> bytes:
    """A request as it goes over the wire. A body has its length declared unless `headers` speak of it."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or 'here'}", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def response(answer: bytes) -> Response:
    """A whole answer, taken apart. Fails unless it is one, whole."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    assert separator, answer
    first, *lines = head.decode("latin-1").split("\r\n")
    names = [line.partition(": ")[0].lower() for line in lines]
    assert len(names) == len(set(names)), f"a header is given twice: {names}"
    headers = {name: line.partition(": ")[2] for name, line in zip(names, lines, strict=True)}
    if "content-length" in headers:
        assert int(headers["content-length"]) == len(body)
    return Response(int(first.split(" ")[1]), headers, body)
