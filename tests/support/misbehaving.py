"""Small real servers that misbehave at the place of a bot, each in one way."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Misbehaving:
    """A listener on the loopback address whose way to answer can be changed while it runs."""

    def __init__(self, behave: Handler, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self.connections = 0
        self._tls = tls

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self.behave(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        """Listen; yields `127.0.0.1:port`."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, ssl=self._tls)
        try:
            yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


async def request(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = (line.partition(b":") for line in head.split(b"\r\n"))
    length = next((int(value) for name, _, value in fields if name.lower() == b"content-length"), 0)
    return head + await reader.readexactly(length)


def answering(status: str, body: bytes = b"", *headers: str) -> Handler:
    """Every request gets this answer, on a connection of its own; what is none gets 400."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (begin := await reader.read(5)) != b"POST ":
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" if begin else b"")
            return
        await request(reader)
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return behave


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It takes everything and says nothing."""
    while await reader.read(65_536):
        pass


async def hanging_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It reads a request and ends the connection."""
    await request(reader)


async def another_protocol(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """It speaks first, and not HTTP."""
    writer.write(b"220 mail.example ESMTP\r\n")
    await reader.read(1)
    writer.write(b"500 what?\r\n")
    await writer.drain()
