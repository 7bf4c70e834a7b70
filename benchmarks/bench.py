"""What every figure needs: conversations on a server, closed loops of requests, and the CPU that they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.load import Client, Reactor, Stream, Unexpected, handshake, post
from benchmarks.servers import Server
from benchmarks.work import PREFIX, SECRET

CLIENTS = 64
"""Requests under way at the same time."""

ACTIVITY = msgspec.json.encode(
    {
        "type": "message",
        "text": "Is there still a table for four this evening, somewhere near the river?",
        "textFormat": "plain",
        "locale": "en-US",
        "from": {"id": "user-1", "name": "Ada"},
        "channelData": {"clientActivityID": "17210b0c3f9-1f6a2", "clientTimestamp": "2025-06-01T12:00:00.000Z"},
        "entities": [{"type": "ClientCapabilities", "requiresBotState": True, "supportsListening": True}],
    }
)
"""What Web Chat sends, more or less."""


class Bench(NamedTuple):
    """The circumstances of a run. `scale` 1.0 is a full one; with less, counts and times shrink, and so does trust.

    `source` is a checkout of ours to be measured instead of the installed one."""

    directory: Path
    reactor: Reactor
    rounds: int
    scale: float
    source: Path | None = None

    def count(self, full: int) -> int:
        return max(CLIENTS, int(full * self.scale))


class Conversation(msgspec.Struct):
    """A conversation that was started, as its client knows it."""

    id: str = msgspec.field(name="conversationId")
    token: str
    stream_url: str = msgspec.field(name="streamUrl")


_decode = msgspec.json.Decoder(Conversation).decode


@contextmanager
def connected(bench: Bench, server: Server, count: int = CLIENTS) -> Iterator[list[Client]]:
    """So many keep-alive connections."""
    pool = [Client(bench.reactor, server.port) for _ in range(count)]
    try:
        yield pool
    finally:
        for client in pool:
            client.close(reset=True)


def ask_all(bench: Bench, pool: Sequence[Client], requests: Iterable[bytes], status: int = 200) -> list[bytes]:
    """Every request once, one at a time on each connection; the bodies of the answers, in the order of the requests."""
    waiting = iter(requests)
    bodies: list[bytes] = []
    places: dict[Client, int] = {}

    def ask_next(client: Client) -> None:
        if (request := next(waiting, None)) is None:
            places.pop(client, None)
            return
        places[client] = len(bodies)
        bodies.append(b"")
        client.ask(request, answered)

    def answered(client: Client, answer: int, body: bytes) -> None:
        if answer != status:
            raise Unexpected(f"the answer was {answer} {body!r} instead of {status}")
        bodies[places[client]] = body
        ask_next(client)

    for client in pool:
        ask_next(client)
    bench.reactor.until(lambda: not places, 60)
    return bodies


def start_conversations(bench: Bench, server: Server, count: int) -> list[Conversation]:
    """New conversations, by the secret."""
    request = post(server.port, PREFIX, b"", SECRET)
    status = 201 if server.name == "landline" else 200
    with connected(bench, server) as pool:
        return [_decode(body) for body in ask_all(bench, pool, [request] * count, status)]


def posts(server: Server, conversations: Sequence[Conversation], count: int) -> Iterator[bytes]:
    """`count` sends, to each conversation in turn."""
    ready = [post(server.port, f"{PREFIX}/{each.id}/activities", ACTIVITY, each.token) for each in conversations]
    return islice(cycle(ready), count)


def open_streams(
    bench: Bench,
    urls: Sequence[str],
    on_frame: Callable[[Stream, bytes], None] = lambda stream, frame: None,
    *,
    receive_bytes: int = 0,
) -> list[Stream]:
    """A stream for each URL; done when each is open. `on_frame` gets the frames that come.

    `receive_bytes` is what the kernel may hold for each client, if not what it likes."""
    waiting = iter(urls)
    streams: list[Stream] = []
    complete = 0

    def opened() -> None:
        nonlocal complete
        complete += 1
        open_next()

    def open_next() -> None:
        if (url := next(waiting, None)) is not None:
            port, request = handshake(url)
            streams.append(Stream(bench.reactor, port, request, on_frame, receive_bytes, opened))

    for _ in range(CLIENTS):
        open_next()
    bench.reactor.until(lambda: complete == len(urls), 60)
    return streams


def cpu_us(server: Server, operations: int, work: Callable[[], object]) -> float:
    """Microseconds of the server's CPU per operation."""
    before = server.cpu_s()
    work()
    return (server.cpu_s() - before) * 1e6 / operations


def close_all(bench: Bench, wires: Iterable[Stream]) -> None:
    """Cut every stream, and give the server the time to notice."""
    for wire in wires:
        wire.close(reset=True)
    bench.reactor.rest(0.2)


def say(text: str) -> None:
    """Progress, for who watches."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
