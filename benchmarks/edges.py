"""Figures of the edge: the same requests to the floor, to well-known servers, and to ours with its store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from benchmarks.bench import (
    CLIENTS,
    Bench,
    Conversation,
    ask_all,
    close_all,
    connected,
    cpu_us,
    open_streams,
    posts,
    say,
    start_conversations,
)
from benchmarks.load import Client, Stream, Unexpected, get, handshake
from benchmarks.report import Figure, Sample, ratio
from benchmarks.servers import Server
from benchmarks.work import PREFIX

FLOOR_OVER_BARE = 2.0
"""A floor that is not twice as fast as a framework's constant answer is no floor, and the run does not count."""

Measure = Callable[[Bench, Server], float]


def beside(bench: Bench, servers: Sequence[Server], measure: Measure) -> dict[str, Sample]:
    """`measure` on each server in turn, round after round, so that a slow moment hits all of them."""
    found: dict[str, list[float]] = {_who(server): [] for server in servers}
    for _ in range(bench.rounds):
        for server in servers:
            found[_who(server)].append(measure(bench, server))
    return {name: Sample(tuple(rounds)) for name, rounds in found.items()}


def _who(server: Server) -> str:
    return "ours" if server.name == "landline" else server.name


def compared(name: str, title: str, values: dict[str, Sample], least: float, *, or_us: float = 0.0) -> Figure:
    """A figure in CPU per operation. Its ratio to the floor is to be at least this, or its value at most `or_us`."""
    found = ratio(values["floor"], values["ours"])
    goal = f"≥ {least:.2f} of the floor" + (f", or ≤ {or_us:.0f} µs" if or_us else "")
    met = found >= least or values["ours"].median <= or_us
    return Figure(name=name, title=title, unit="µs", values=values, goal=goal, met=met, ratio=found)


def bare(bench: Bench, bare_server: Server, floor: Server) -> Figure:
    """Whether the floor is one: the same constant answer from it and from uvicorn with Starlette."""
    say("floor against a bare answer")
    values = beside(bench, [floor, bare_server], bare_us)
    found = ratio(values["bare"], values["floor"])
    return Figure(
        name="floor",
        title="A constant answer: uvicorn and Starlette, against the floor",
        unit="µs",
        values=values,
        goal="≥ 2 times the floor, else the run does not count",
        met=found >= FLOOR_OVER_BARE,
        ratio=found,
    )


def bare_us(bench: Bench, server: Server) -> float:
    """CPU of a GET whose answer is always the same."""
    requests = [get(server.port, "/bare", "none")] * bench.count(8000)
    with connected(bench, server) as pool:
        ask_all(bench, pool, requests[: len(requests) // 5])
        return cpu_us(server, len(requests), lambda: ask_all(bench, pool, requests))


def post(bench: Bench, servers: Sequence[Server]) -> Figure:
    """A message, stored, answered; nobody listens, and there is no bot (ours answers 502 then, after the same work)."""
    say("POST")
    return compared("post", "POST without a bot", beside(bench, servers, post_us), 0.25)


def post_us(bench: Bench, server: Server) -> float:
    """CPU of one POST."""
    conversations = start_conversations(bench, server, 64)
    status, count = status_of_send(server), bench.count(6000)
    with connected(bench, server) as pool:
        ask_all(bench, pool, posts(server, conversations, count // 5), status)
        return cpu_us(server, count, lambda: ask_all(bench, pool, posts(server, conversations, count), status))


def status_of_send(server: Server) -> int:
    """Ours says that there is no bot."""
    return 502 if server.name == "landline" else 200


def frame(bench: Bench, servers: Sequence[Server]) -> Figure:
    """The same, with a stream on each conversation that gets the frame."""
    say("POST → frame")
    return compared("frame", "POST → frame on a stream", beside(bench, servers, frame_us), 0.30)


def frame_us(bench: Bench, server: Server) -> float:
    """CPU of one POST and the frame that it leads to."""
    conversations = start_conversations(bench, server, 64)
    streams = open_streams(bench, [each.stream_url for each in conversations])
    status, count = status_of_send(server), bench.count(6000)
    sent = 0

    def send(pool: Sequence[Client], number: int) -> None:
        nonlocal sent
        sent += number
        ask_all(bench, pool, posts(server, conversations, number), status)
        bench.reactor.until(lambda: sum(stream.frames for stream in streams) == sent)

    with connected(bench, server) as pool:
        send(pool, count // 5)
        cost = cpu_us(server, count, lambda: send(pool, count))
    close_all(bench, streams)
    return cost


def upgrade(bench: Bench, servers: Sequence[Server]) -> Figure:
    """A new connection, the handshake with its ticket."""
    say("upgrade")
    return compared("upgrade", "Upgrade with ticket check", beside(bench, servers, upgrade_us), 0.42, or_us=75)


def upgrade_us(bench: Bench, server: Server) -> float:
    """CPU of one upgrade. The streams stay open meanwhile."""
    conversations = start_conversations(bench, server, bench.count(2000))
    urls = [each.stream_url for each in conversations]
    opened = []
    close_all(bench, open_streams(bench, urls[: len(urls) // 5]))
    cost = cpu_us(server, len(urls), lambda: opened.extend(open_streams(bench, urls)))
    close_all(bench, opened)
    return cost


MISSED = 10
"""Activities that a client that comes back has missed."""


class Absent(NamedTuple):
    """A client that was away: it has seen what lies behind `watermark`, and nothing since."""

    conversation: Conversation
    watermark: str


class _Seen(msgspec.Struct):
    watermark: str


_watermark_of = msgspec.json.Decoder(_Seen).decode
_opened_of = msgspec.json.Decoder(Conversation).decode


def reconnect(bench: Bench, servers: Sequence[Server]) -> list[Figure]:
    """GET, upgrade, ten missed activities, each on a new connection; then the same from the disk."""
    say("reconnect")
    absent = {server: leave(bench, server, bench.count(1000), MISSED, status_of_send(server)) for server in servers}
    ours = next(server for server in servers if server.name == "landline")

    def measure(bench: Bench, server: Server) -> float:
        return reconnect_us(bench, server, absent[server])

    values = beside(bench, servers, measure)
    memory = compared("reconnect", "Reconnect: GET, upgrade, replay of 10 from memory", values, 0.30)
    disk = []
    for _ in range(bench.rounds):
        ours.stop()  # what it had in memory is gone, what it had acknowledged is not
        ours.start()
        disk.append(reconnect_us(bench, ours, absent[ours]))
    return [memory, _from_disk(Sample(tuple(disk)), values["ours"])]


def _from_disk(disk: Sample, memory: Sample) -> Figure:
    found = disk.median / memory.median
    return Figure(
        name="reconnect-disk",
        title="The same from the disk, after a restart",
        unit="µs",
        values={"ours": disk, "from memory": memory},
        goal="≤ 1.7 times the CPU",
        met=found <= 1.7,
        ratio=found,
    )


def leave(bench: Bench, server: Server, count: int, missed: int, status: int) -> list[Absent]:
    """Conversations whose client has seen one activity, and missed some. `status` is what a send is answered."""
    conversations = start_conversations(bench, server, count)
    reads = [get(server.port, f"{PREFIX}/{each.id}/activities", each.token) for each in conversations]
    with connected(bench, server) as pool:
        ask_all(bench, pool, posts(server, conversations, len(conversations)), status)
        seen = [_watermark_of(body).watermark for body in ask_all(bench, pool, reads)]
        ask_all(bench, pool, posts(server, conversations, missed * len(conversations)), status)
    return [Absent(each, watermark) for each, watermark in zip(conversations, seen, strict=True)]


def reconnect_us(bench: Bench, server: Server, absent: Sequence[Absent]) -> float:
    """CPU of one client that comes back. A tenth of them come first, and are not counted."""
    first = len(absent) // 10
    close_all(bench, come_back(bench, server, absent[:first]))
    back: list[Stream] = []
    cost = cpu_us(server, len(absent) - first, lambda: back.extend(come_back(bench, server, absent[first:])))
    close_all(bench, back)
    return cost


def come_back(bench: Bench, server: Server, absent: Sequence[Absent]) -> list[Stream]:
    """Every client reconnects, some at a time."""
    returning = Returning(bench, server, absent, MISSED)
    returning.let_in(CLIENTS)
    bench.reactor.until(lambda: returning.back == len(absent), 60)
    return returning.streams


class Returning:
    """Clients that come back as those do whose network was gone: new connections for the GET and for the stream.

    Each that is done, with its `missed` activities, lets the next one in."""

    def __init__(self, bench: Bench, server: Server, absent: Sequence[Absent], missed: int) -> None:
        self._bench = bench
        self._server = server
        self._waiting = iter(absent)
        self._missed = missed
        self.streams: list[Stream] = []
        self.back = 0

    def let_in(self, count: int) -> None:
        """So many begin."""
        for _ in range(count):
            if (each := next(self._waiting, None)) is not None:
                path = f"{PREFIX}/{each.conversation.id}?watermark={each.watermark}"
                request = get(self._server.port, path, each.conversation.token)
                Client(self._bench.reactor, self._server.port).ask(request, self._opened)

    def _opened(self, client: Client, status: int, body: bytes) -> None:
        client.close()
        if status != 200:
            raise Unexpected(f"{self._server.name} answered {status} to a reconnect")
        port, request = handshake(_opened_of(body).stream_url)
        self.streams.append(Stream(self._bench.reactor, port, request, self._arrived))

    def _arrived(self, stream: Stream, frame: bytes) -> None:
        if stream.frames == self._missed:
            self.back += 1
            self.let_in(1)
