"""Figures of open streams: what one costs while nothing happens, what a client that does not read costs, a storm."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.bench import Bench, ask_all, close_all, connected, open_streams, say, start_conversations
from benchmarks.bots import RATE_PER_S, Paced, Watching, percentile, service_paths
from benchmarks.edges import Returning, leave
from benchmarks.load import Bot, Unexpected
from benchmarks.load import post as post_request
from benchmarks.report import Figure, Sample
from benchmarks.servers import PEERS, Server, floor, landline, peer, running

STREAMS = 10_000
IDLE_S = 60.0
WARM = 20
"""Streams that are opened and closed beforehand: what the first ones of a process make it load is not theirs."""
KIB = 1024


def idle(bench: Bench) -> list[Figure]:
    """Memory and CPU of streams on which nothing happens but keep-alives.

    The conversations are started before the server is, so that nothing of them is in memory but what a stream brings.
    """
    say("idle streams")
    count = bench.count(STREAMS)
    server = landline(bench.directory / "idle", source=bench.source)
    with running(server):
        urls = [each.stream_url for each in start_conversations(bench, server, count)]
        warm = [each.stream_url for each in start_conversations(bench, server, WARM)]
        server.stop()
        server.start()
        close_all(bench, open_streams(bench, warm))
        before = server.resident_bytes()
        streams = open_streams(bench, urls)
        used, began = server.cpu_s(), time.monotonic()
        bench.reactor.rest(IDLE_S * bench.scale)
        share = (server.cpu_s() - used) / (time.monotonic() - began) * STREAMS / count * 100
        per_stream = (server.resident_bytes() - before) / count / KIB
        kept_alive = sum(stream.keepalives > 0 for stream in streams)
        if bench.scale >= 1 and kept_alive < count:
            raise Unexpected(f"only {kept_alive} of {count} streams were kept alive")
        close_all(bench, streams)
    peers = [floor(bench.directory), *(peer(name, bench.directory) for name in PEERS)]
    others = {server.name: Sample((_open_kib(bench, server),)) for server in peers}
    memory = Figure(
        name="idle-memory",
        title=f"Memory of an idle stream, {count} open",
        unit="KiB",
        values={"ours": Sample((per_stream,)), **others},
        goal="≤ 2.5 KiB",
        met=per_stream <= 2.5,
    )
    cpu = Figure(
        name="idle-cpu",
        title="CPU of 10 000 idle streams",
        unit="% of a core",
        values={"ours": Sample((share,))},
        goal="≤ 1 %",
        met=share <= 1.0,
    )
    return [memory, cpu]


def _open_kib(bench: Bench, server: Server) -> float:
    """The same for a server that forgets everything when it is restarted, and sends no keep-alives: right after the
    streams were opened."""
    with running(server):
        count = bench.count(STREAMS // 5)
        started = [each.stream_url for each in start_conversations(bench, server, count + WARM)]
        warm, urls = started[:WARM], started[WARM:]
        close_all(bench, open_streams(bench, warm))
        before = server.resident_bytes()
        streams = open_streams(bench, urls)
        bench.reactor.rest(1)
        grown = server.resident_bytes() - before
        close_all(bench, streams)
    return grown / count / KIB


STUCK = 100
POSTS = 20
BIG = b'{"type":"message","value":-1,"text":"' + b"x" * 24_000 + b'"}'


def stuck(bench: Bench) -> list[Figure]:
    """Clients that open a stream and never read it, against the same number that do."""
    say("clients that never read")
    reading, _ = _push_to(bench, bench.directory / "reading", reads=True)
    stuck, slowed = _push_to(bench, bench.directory / "stuck", reads=False)
    each = (stuck - reading) / STUCK / KIB
    memory = Figure(
        name="stuck-memory",
        title="Memory of a client that never reads",
        unit="KiB",
        values={"ours": Sample((each,))},
        goal="≤ 64 KiB",
        met=each <= 64,
        note=f"{STUCK} of them, {POSTS * len(BIG) // KIB} KiB sent to each",
    )
    others = Figure(
        name="stuck-others",
        title=f"Bot POST → frame of others, with {STUCK} such clients, p50",
        unit="times as long",
        values={"ours": Sample((slowed,))},
        goal="≤ 1.25",
        met=slowed <= 1.25,
    )
    return [memory, others]


def _push_to(bench: Bench, directory: Path, *, reads: bool) -> tuple[int, float]:
    """Memory that a server gains by sending far more than a kernel holds to each client, and how many times longer
    than before another client waits for its frames then."""
    bot = Bot(bench.reactor)
    server = landline(directory, "--bot", bot.endpoint, source=bench.source)
    with running(server):
        conversations = start_conversations(bench, server, STUCK)
        paths = service_paths(bench, server, bot, conversations)
        watched = start_conversations(bench, server, 1)
        watching = Watching(bench, server, bot, watched)
        watching.p50(2 * bench.scale)
        quiet = watching.p50(4 * bench.scale)
        before = server.resident_bytes()
        streams = open_streams(bench, [each.stream_url for each in conversations], receive_bytes=4096)
        if not reads:
            for stream in streams:
                stream.stop_reading()
        big = [post_request(server.port, path, BIG, None) for path in paths]
        with connected(bench, server) as pool:
            ask_all(bench, pool, big * POSTS)
        if reads:
            bench.reactor.until(lambda: all(stream.frames == POSTS for stream in streams))
        gained = server.resident_bytes() - before
        slowed = watching.p50(4 * bench.scale) / quiet
        watching.close()
        close_all(bench, streams)
    bot.close()
    return gained, slowed


STORM = 5_000
QUIET_S = 4.0
STEP = 50
"""Clients that begin between two looks at the clock, so that the generator itself does not hold up the appends."""


def storm(bench: Bench) -> list[Figure]:
    """Everybody reconnects at once, as after a cut of the network, while bots go on talking elsewhere."""
    say("reconnect storm")
    bot = Bot(bench.reactor)
    server = landline(bench.directory / "storm", "--bot", bot.endpoint, source=bench.source)
    with running(server):
        absent = leave(bench, server, bench.count(STORM), 1, 200)
        paths = service_paths(bench, server, bot, start_conversations(bench, server, 64))
        returning = Returning(bench, server, absent, 1)
        paced = Paced(bench.reactor, server.port, paths, RATE_PER_S)
        quiet_s, began, over = QUIET_S * bench.scale, 0.0, 0.0

        def more(passed: float) -> bool:
            nonlocal began, over
            if passed >= quiet_s:
                began = began or time.perf_counter()
                returning.let_in(STEP)
            if returning.back == len(absent):
                over = over or time.perf_counter()
            return not over and passed < quiet_s + 60

        paced.run(more)
        times = list(zip(paced.sent, paced.answered, strict=True))
        quiet = [(answered - sent) * 1e3 for sent, answered in times[len(times) // 20 :] if answered < began]
        stormy = [(answered - sent) * 1e3 for sent, answered in times if began <= sent]
        paced.close()
        close_all(bench, returning.streams)
    bot.close()
    return _storm(len(absent), returning.back, over - began, quiet, stormy)


def _storm(count: int, back: int, seconds: float, quiet: list[float], stormy: list[float]) -> list[Figure]:
    slower = percentile(stormy, 0.5) / percentile(quiet, 0.5)
    p99 = percentile(stormy, 0.99)
    served = Figure(
        name="storm",
        title=f"{count} reconnects at once, during {RATE_PER_S} appends/s: everybody served after",
        unit="s",
        values={"ours": Sample((seconds,))},
        goal="everybody",
        met=back == count,
    )
    median = Figure(
        name="storm-p50",
        title="Appends meanwhile, p50",
        unit="ms",
        values={"ours": Sample((percentile(stormy, 0.5),)), "quiet": Sample((percentile(quiet, 0.5),))},
        goal="≤ 5 times the quiet one",
        met=slower <= 5,
        ratio=slower,
    )
    tail = Figure(
        name="storm-p99",
        title="Appends meanwhile, p99",
        unit="ms",
        values={"ours": Sample((p99,)), "quiet": Sample((percentile(quiet, 0.99),))},
        goal="≤ 500 ms",
        met=p99 <= 500,
    )
    return [served, median, tail]
