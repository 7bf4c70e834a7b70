"""Requests that no HTTP library would make: lines of text on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from landline.conformance.expect import Violation, expect

_DEADLINE_S = 10.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def connected(domain: str) -> AsyncIterator[Connection]:
    """A connection to the server of a domain."""
    url = urlsplit(domain)
    secure = url.scheme == "https"
    port = url.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(url.hostname, port, ssl=secure or None)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(domain: str, method: str, path: str, *lines: str) -> bytes:
    """The beginning of a request: all of it where it has no body. `path` is below the domain."""
    url = urlsplit(domain)
    return "\r\n".join([f"{method} {url.path}{path} HTTP/1.1", f"Host: {url.netloc}", *lines, "", ""]).encode()


async def status(domain: str, method: str, path: str, *lines: str, body: bytes = b"", closes: bool = False) -> int:
    """The status of the answer to these lines; with `closes` the server has to hang up after it."""
    async with asyncio.timeout(_DEADLINE_S), connected(domain) as (reader, writer):
        writer.write(head(domain, method, path, *lines) + body)
        first = await reader.readline()
        if closes:
            await reader.read()
    try:
        return int(first.split(b" ")[1])
    except (IndexError, ValueError):
        raise Violation(f"no answer but {first!r}") from None


async def hung_up(reader: asyncio.StreamReader, within_s: float, what: str) -> None:
    """Raises `Violation` unless the server ends the connection in time."""
    try:
        async with asyncio.timeout(within_s):
            with contextlib.suppress(ConnectionError):
                await reader.read()
    except TimeoutError:
        expect(False, f"still connected after {within_s} s: {what}")
