"""Figures of the store alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from benchmarks.appends import WRITERS, Rate
from benchmarks.bench import Bench, say
from benchmarks.million import Opened
from benchmarks.report import Figure, Sample, ratio
from benchmarks.servers import SERVER_CORE, Server, environment_of, landline, pinned_to, running

LEAST = {1: 0.85, 64: 0.35}
MILLION = 1_000_000


def program(module: str, *arguments: object, source: Path | None = None) -> bytes:
    """Run a program of ours on the server's core; what it prints."""
    with pinned_to(SERVER_CORE):
        command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
        environment = environment_of(source)
        return subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout


def appends(bench: Bench) -> list[Figure]:
    """How much of what the disk can do the store leaves to its callers."""
    say("durable appends")
    printed = program("appends", "appends", bench.directory, bench.rounds, 1.5 * bench.scale, source=bench.source)
    rates = msgspec.json.decode(printed, type=dict[str, list[Rate]])
    return [_appends(rates, writers) for writers in WRITERS]


def _appends(rates: dict[str, list[Rate]], writers: int) -> Figure:
    store, file = rates[f"store-{writers}"], rates[f"file-{writers}"]
    values = {name: Sample(tuple(rate.per_s for rate in found)) for name, found in (("ours", store), ("file", file))}
    found = ratio(values["ours"], values["file"])
    cpu = Sample(tuple(rate.cpu_us for rate in store)).median
    return Figure(
        name=f"appends-{writers}",
        title=f"Durable appends, {writers} writer{'s' if writers > 1 else ''}",
        unit="/s",
        values=values,
        goal=f"≥ {LEAST[writers]:.2f} of a group-committed file",
        met=found >= LEAST[writers],
        ratio=found,
        note=f"{cpu:.0f} µs of CPU each",
    )


def million(bench: Bench) -> list[Figure]:
    """What conversations cost that exist and in which nothing happens: opening them, and the memory of the server."""
    count = bench.count(MILLION)
    say(f"a store with {count} idle conversations")
    empty, full = (landline(bench.directory / name, source=bench.source) for name in ("empty", "full"))
    program("million", "fill", bench.directory / "full" / "data", count, source=bench.source)
    grown = Sample(tuple((_at_rest(full) - _at_rest(empty)) / (1 << 20) for _ in range(bench.rounds)))
    opened = Sample(tuple(_opened_ms(bench, full) for _ in range(bench.rounds)))
    none = Sample(tuple(_opened_ms(bench, empty) for _ in range(bench.rounds)))
    return [
        Figure(
            name="million-open",
            title=f"Opening a store with {count:,} conversations".replace(",", " "),
            unit="ms",
            values={"ours": opened, "with none": none},
            goal="≤ 50 ms",
            met=opened.median <= 50,
        ),
        Figure(
            name="million-memory",
            title="Memory that they cost the server",
            unit="MiB",
            values={"ours": grown},
            goal="none: ≤ 1 MiB",
            met=grown.median <= 1,
        ),
    ]


def _opened_ms(bench: Bench, server: Server) -> float:
    printed = program("million", "open", server.directory / "data", source=bench.source)
    return msgspec.json.decode(printed, type=Opened).ms


def _at_rest(server: Server) -> int:
    """What a server has in memory right after its start."""
    with running(server):
        return server.resident_bytes()
