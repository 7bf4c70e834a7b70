"""POSTs over the connections that bots are reached by, and their answers, in one line."""

from __future__ import annotations

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from landline.bots.connections import Connections
from landline.bots.wire import Answer


@contextlib.asynccontextmanager
async def some_connections(trusted: Path | None = None, connect_timeout_s: float = 5) -> AsyncIterator[Connections]:
    made = Connections(functools.partial(ssl.create_default_context, cafile=trusted), connect_timeout_s)
    try:
        yield made
    finally:
        await made.close()


class Taken:
    """Counts how often a request was said to be taken."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


async def begin(
    connections: Connections, url: str, body: bytes = b"{}", *, taken: Callable[[], None] | None = None, **how: Any
) -> Answer:
    options = {"authorization": None, "own_connection": False} | how
    return await connections.post(url, body, taken=taken or Taken(), **options)


async def whole(answer: Answer) -> bytes:
    body = b""
    while part := await answer.read():
        body += part
    return body


async def post(connections: Connections, url: str, body: bytes = b"{}", **how: Any) -> tuple[int, bytes]:
    """The whole answer: status and body."""
    with await begin(connections, url, body, **how) as answer:
        return answer.status, await whole(answer)
