"""Figures with a bot behind the server: ours alone, since none of the others has one, or a store."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

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
from benchmarks.load import Bot, Client, Reactor, Stream, Unexpected, bot_path
from benchmarks.load import post as post_request
from benchmarks.report import Figure, Sample
from benchmarks.servers import Server
from benchmarks.storage import program

RATE_PER_S = 1000
SECONDS = 6.0


def post(bench: Bench, server: Server, bot: Bot) -> Figure:
    """A message, stored, taken by the bot, answered 200."""
    say("POST with a bot")
    values = Sample(tuple(1e6 / _post_us(bench, server, bot) for _ in range(bench.rounds)))
    return Figure(
        name="post-bot",
        title="POST with a bot that answers at once",
        unit="per CPU second",
        values={"ours": values},
        goal="≥ 6 000",
        met=values.median >= 6000,
    )


def _post_us(bench: Bench, server: Server, bot: Bot) -> float:
    conversations = start_conversations(bench, server, CLIENTS)
    count = bench.count(6000)
    with connected(bench, server) as pool:
        ask_all(bench, pool, posts(server, conversations, max(count // 5, CLIENTS)))
        heard = bot.messages
        cost = cpu_us(server, count, lambda: ask_all(bench, pool, posts(server, conversations, count)))
    if bot.messages - heard != count:
        raise Unexpected(f"the bot has heard {bot.messages - heard} of {count} messages")
    return cost


def round_trip(bench: Bench, server: Server, bot: Bot) -> Figure:
    """A user's message reaches the bot, whose reply reaches the user: two appends, two requests, two frames."""
    say("round trip user → bot → user")
    bot.replies = True
    values = Sample(tuple(_round_trip_us(bench, server) for _ in range(bench.rounds)))
    bot.replies = False
    return Figure(
        name="round-trip",
        title="Round trip user → bot → user",
        unit="µs",
        values={"ours": values},
        goal="≤ 400 µs",
        met=values.median <= 400,
    )


def _round_trip_us(bench: Bench, server: Server) -> float:
    conversations = start_conversations(bench, server, CLIENTS)
    streams = open_streams(bench, [each.stream_url for each in conversations])
    count, sent = bench.count(4000), 0

    def send(pool: Sequence[Client], number: int) -> None:
        nonlocal sent
        sent += number
        ask_all(bench, pool, posts(server, conversations, number))
        bench.reactor.until(lambda: sum(stream.frames for stream in streams) == 2 * sent)

    with connected(bench, server) as pool:
        send(pool, max(count // 5, CLIENTS))
        cost = cpu_us(server, count, lambda: send(pool, count))
    close_all(bench, streams)
    return cost


class Paced:
    """POSTs of the bot at a steady rate, whatever becomes of them: each on a free connection, or on a new one.

    The activity's text is the number of the POST, so that a frame can be told from its neighbours."""

    def __init__(self, reactor: Reactor, port: int, paths: Sequence[str], per_s: float) -> None:
        self._reactor = reactor
        self._port = port
        self._paths = paths
        self._per_s = per_s
        self._idle: deque[Client] = deque(Client(reactor, port) for _ in range(CLIENTS))
        self._clients = list(self._idle)
        self.sent: list[float] = []
        self.answered: list[float] = []
        """When each was sent, and when it was answered; 0.0 until then."""

    def run(self, more: Callable[[float], bool]) -> None:
        """Send while `more`, which is asked all the time and told how long it has been; then wait for all answers.

        It never sleeps, so that the times are its server's."""
        began = time.perf_counter()
        while more(passed := time.perf_counter() - began):
            while len(self.sent) < passed * self._per_s:
                self._send()
            self._reactor.turn(0)
        self._reactor.until(lambda: all(self.answered), 30)

    def _send(self) -> None:
        number = len(self.sent)
        if not self._idle:
            self._clients.append(Client(self._reactor, self._port))
            self._idle.append(self._clients[-1])
        client = self._idle.popleft()
        path = self._paths[number % len(self._paths)]
        body = b'{"type":"message","value":%d,"text":"What you have asked for is ready, and waits for you."}' % number
        self.sent.append(time.perf_counter())
        self.answered.append(0.0)

        def answered(client: Client, status: int, answer: bytes) -> None:
            if status != 200:
                raise Unexpected(f"the bot's POST was answered {status} {answer!r}")
            self.answered[number] = time.perf_counter()
            self._idle.append(client)

        client.ask(post_request(self._port, path, body, None), answered)

    def close(self) -> None:
        for client in self._clients:
            client.close(reset=True)


class _Numbered(msgspec.Struct):
    value: int


class _Frame(msgspec.Struct):
    activities: list[_Numbered]


frame_of = msgspec.json.Decoder(_Frame).decode


def service_paths(bench: Bench, server: Server, bot: Bot, conversations: Sequence[Conversation]) -> list[str]:
    """Where the bot posts into each of these conversations. It learns its service URL by being talked to."""
    with connected(bench, server, 1) as pool:
        ask_all(bench, pool, posts(server, start_conversations(bench, server, 1), 1))
    return [bot_path(bot.service_url, each.id)[0] for each in conversations]


class Watching:
    """Streams, and bot POSTs whose way to them is timed."""

    def __init__(self, bench: Bench, server: Server, bot: Bot, conversations: Sequence[Conversation]) -> None:
        self._bench = bench
        self._server = server
        self._paths = service_paths(bench, server, bot, conversations)
        self._arrived: dict[int, float] = {}
        self._streams = open_streams(bench, [each.stream_url for each in conversations], self._note)

    def _note(self, stream: Stream, frame: bytes) -> None:
        self._arrived[frame_of(frame).activities[0].value] = time.perf_counter()

    def took_ms(self, seconds: float) -> list[float]:
        """How long after the bot has begun each POST the client had the frame."""
        self._arrived.clear()
        paced = Paced(self._bench.reactor, self._server.port, self._paths, RATE_PER_S)
        paced.run(lambda passed: passed < seconds)
        self._bench.reactor.until(lambda: len(self._arrived) == len(paced.sent))
        paced.close()
        warm = len(paced.sent) // 10
        return [(self._arrived[number] - paced.sent[number]) * 1e3 for number in range(warm, len(paced.sent))]

    def p50(self, seconds: float) -> float:
        """The middle one of them."""
        return percentile(self.took_ms(seconds), 0.5)

    def close(self) -> None:
        close_all(self._bench, self._streams)


def latency(bench: Bench, server: Server, bot: Bot) -> list[Figure]:
    """How long after the bot has begun its POST the client has the frame, at a thousand a second."""
    say(f"bot POST → frame at {RATE_PER_S}/s")
    watching = Watching(bench, server, bot, start_conversations(bench, server, 64))
    took, syncs = [], []
    for _ in range(bench.rounds):
        seconds = SECONDS * bench.scale
        syncs.append(msgspec.json.decode(program("appends", "syncs", bench.directory, seconds), type=list[float]))
        took.append(watching.took_ms(seconds))
    watching.close()
    return [_latency("p50", took, syncs), _latency("p99", took, syncs)]


def percentile(values: Sequence[float], fraction: float) -> float:
    """The value that so many of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def _latency(name: str, took: Sequence[Sequence[float]], syncs: Sequence[Sequence[float]]) -> Figure:
    fraction = float(name[1:]) / 100
    ours = Sample(tuple(percentile(each, fraction) for each in took))
    bare = Sample(tuple(percentile(each, fraction) for each in syncs))
    return Figure(
        name=f"latency-{name}",
        title=f"Bot POST → frame at {RATE_PER_S}/s, {name}",
        unit="ms",
        values={"ours": ours, "write + fdatasync": bare},
        goal="≤ 1.5 ms" if name == "p50" else "",
        met=ours.median <= 1.5 if name == "p50" else None,
        ratio=ours.median / bare.median,
    )
