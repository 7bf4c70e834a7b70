"""The benchmarks measure what they say: real answers, counted ones, and an end where a server does not do its part."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.bench import ACTIVITY, Bench, ask_all, close_all, connected, open_streams, start_conversations
from benchmarks.load import Bot, Reactor, Stream, Unexpected, post
from benchmarks.report import Figure, Run, Sample
from benchmarks.servers import Server, floor, landline, running
from benchmarks.work import PREFIX

from benchmarks import bots, edges, plots, report, versions

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A run of the smallest size."""
    reactor = Reactor()
    yield Bench(tmp_path, reactor, rounds=1, scale=0.001)
    reactor.close()


@pytest.fixture(params=[floor, landline])
def server(request: pytest.FixtureRequest, bench: Bench) -> Iterator[Server]:
    """The floor, and ours."""
    server: Server = request.param(bench.directory)
    with running(server):
        yield server


def test_every_figure_of_the_edge_costs_cpu(bench: Bench, server: Server) -> None:
    """More of each than elsewhere in here: the kernel may charge a running process some milliseconds later."""
    bench = bench._replace(scale=0.2)
    assert edges.post_us(bench, server) > 1
    assert edges.frame_us(bench, server) > 1
    assert edges.upgrade_us(bench, server) > 1
    absent = edges.leave(bench, server, 200, edges.MISSED, edges.status_of_send(server))
    assert edges.reconnect_us(bench, server, absent) > 1


def test_a_stream_of_the_generator_gets_the_frame_of_a_send(bench: Bench, server: Server) -> None:
    frames: list[bytes] = []
    (conversation,) = start_conversations(bench, server, 1)
    streams = open_streams(bench, [conversation.stream_url], lambda stream, frame: frames.append(frame))
    request = post(server.port, f"{PREFIX}/{conversation.id}/activities", ACTIVITY, conversation.token)
    with connected(bench, server, 1) as pool:
        ask_all(bench, pool, [request], edges.status_of_send(server))
    bench.reactor.until(lambda: len(frames) == 1, 10)
    assert b"Is there still a table for four" in frames[0]
    close_all(bench, streams)


def test_an_answer_that_is_not_the_expected_one_ends_the_run(bench: Bench) -> None:
    ours = landline(bench.directory)
    with running(ours):
        request = post(ours.port, f"{PREFIX}/no-such-conversation/activities", ACTIVITY, "no-token")
        with connected(bench, ours, 1) as pool, pytest.raises(Unexpected, match="403"):
            ask_all(bench, pool, [request], 502)


def test_the_bot_takes_messages_and_its_replies_reach_the_client(bench: Bench) -> None:
    bot = Bot(bench.reactor)
    ours = landline(bench.directory, "--bot", bot.endpoint)
    with running(ours):
        assert bots.post(bench, ours, bot).values["ours"].median > 1
        assert bots.round_trip(bench, ours, bot).values["ours"].median > 1
    bot.close()


def test_frames_are_found_however_the_bytes_are_cut() -> None:
    payloads = [b"a", b"b" * 300, b"c" * 70_000]
    data = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    for payload in payloads:
        length = len(payload)
        if length < 126:
            data += bytes((0x81, length))
        elif length < 1 << 16:
            data += b"\x81\x7e" + length.to_bytes(2)
        else:
            data += b"\x81\x7f" + length.to_bytes(8)
        data += payload
    for step in (1, 7, 4096, len(data)):
        assert _frames_of(data, step) == payloads


def _frames_of(data: bytes, step: int) -> list[bytes]:
    stream = Stream.__new__(Stream)
    frames: list[bytes] = []
    stream.open, stream.frames, stream.keepalives = False, 0, 0
    stream._on_open = lambda: None
    stream._on_frame = lambda _, frame: frames.append(frame)
    held = b""
    for start in range(0, len(data), step):
        held += data[start : start + step]
        held = held[stream.take(held) :]
    assert held == b""
    return frames


def test_the_cpu_of_a_server_is_that_of_its_process() -> None:
    """The clock that `Server.cpu_s` reads, for a process whose CPU is known by other means."""
    server = Server("this process", 0, [], Path())
    server._process = type("Process", (), {"pid": os.getpid()})()  # type: ignore[assignment]
    before, times = server.cpu_s(), os.times()
    while os.times().user + os.times().system - times.user - times.system < 0.2:
        sum(range(10_000))
    assert server.cpu_s() - before == pytest.approx(0.2, abs=0.05)


# What is reported.


def figure(name: str, **values: float) -> Figure:
    return Figure(
        name=name,
        title=name,
        unit="µs",
        values={who: Sample((value,)) for who, value in values.items()},
        goal="≤ 1",
        met=values["ours"] <= 1,
    )


def run(*figures: Figure) -> Run:
    return Run(
        machine={"cpu": "a"}, versions={"b": "1"}, began="2025-01-02T", quick=False, rounds=1, figures=list(figures)
    )


def test_a_version_that_costs_more_is_named(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def group(bench: Bench) -> list[Figure]:
        costs = 1.0 if bench.source else 1.2
        return [figure("slow", ours=costs), figure("same", ours=1.0), Figure(name="x", title="x", unit="µs", values={})]

    assert versions.compare(bench, [group], ROOT) == 1
    slow, same = capsys.readouterr().out.splitlines()[-2:]
    assert "| 1.20 | **worse** |" in slow
    assert "| 1.00 |  |" in same
    monkeypatch.setattr(versions, "WORSE", 1.25)
    assert versions.compare(bench, [group], ROOT) == 0


def test_another_checkout_is_what_is_measured(bench: Bench, tmp_path: Path) -> None:
    """One whose code cannot even be imported: nothing of the installed one may stand in for it."""
    package = tmp_path / "src" / "landline"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('another version')")
    with pytest.raises(subprocess.CalledProcessError):
        landline(bench.directory, source=tmp_path)


def test_a_ratio_is_taken_round_by_round() -> None:
    assert report.ratio(Sample((10.0, 40.0, 30.0)), Sample((20.0, 80.0, 60.0))) == 0.5


def test_a_goal_that_was_missed_shows_in_the_page() -> None:
    page = report.into_page(f"before {report.BEGIN} old {report.END} behind", run(figure("slow", ours=2.0, floor=1.0)))
    assert "**missed**" in page
    assert "old" not in page
    assert page.startswith("before ")
    assert page.endswith(" behind")


def test_a_page_can_be_written_again_and_again() -> None:
    once = report.into_page(f"{report.BEGIN}{report.END}.", run(figure("fast", ours=1.0)))
    assert report.into_page(once, run(figure("fast", ours=1.0))) == once


def test_every_plot_of_the_page_is_drawn_and_there() -> None:
    shown = {name for _, names in plots.PLOTS.values() for name in names}
    drawn = plots.of([figure(name, ours=1.0, floor=2.0) for name in shown])
    page = (ROOT / "docs" / "how-fast.md").read_text()
    assert {name for name in plots.PLOTS if f"images/{name}.svg" in page} == set(drawn) == set(plots.PLOTS)
    assert all((ROOT / "docs" / "images" / f"{name}.svg").exists() for name in drawn)
