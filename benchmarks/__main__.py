"""`python -m benchmarks [group …] [--quick]`: every figure, or those of some groups, side by side in one run.

With `--beside CHECKOUT` they are measured for another version of Landline, too, and compared with that."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks import bots, edges, plots, report, storage, streams, versions
from benchmarks.bench import Bench, say
from benchmarks.load import Bot, Reactor
from benchmarks.report import Figure, Run
from benchmarks.servers import GENERATOR_CORE, PEERS, SERVER_CORE, floor, landline, peer, running

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "how-fast.md"
IMAGES = PAGE.parent / "images"


def edge_figures(bench: Bench) -> list[Figure]:
    """Beside the floor and the peers."""
    directory = bench.directory / "edges"
    ground, bare, ours = floor(directory), peer("bare", directory), landline(directory, source=bench.source)
    compared = [ground, *(peer(name, directory) for name in PEERS), ours]
    with running(bare, *compared):
        return [
            edges.bare(bench, bare, ground),
            edges.upgrade(bench, compared),
            *edges.reconnect(bench, compared),
            edges.post(bench, compared),
            edges.frame(bench, compared),
        ]


def bot_figures(bench: Bench) -> list[Figure]:
    """With a bot behind the server."""
    bot = Bot(bench.reactor)
    server = landline(bench.directory / "bots", "--bot", bot.endpoint, source=bench.source)
    with running(server):
        found = [
            bots.post(bench, server, bot),
            bots.round_trip(bench, server, bot),
            *bots.latency(bench, server, bot),
        ]
    bot.close()
    return found


GROUPS: dict[str, Callable[[Bench], list[Figure]]] = {
    "idle": streams.idle,
    "edges": edge_figures,
    "bots": bot_figures,
    "appends": storage.appends,
    "storm": streams.storm,
    "stuck": streams.stuck,
    "million": storage.million,
}


def main() -> int:
    """Measure, show the table, keep the results. 1 where a goal was missed or the run does not count."""
    arguments = _arguments()
    _prepare()
    RESULTS.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="data-", dir=RESULTS))
    bench = Bench(directory, Reactor(), arguments.rounds, 0.1 if arguments.quick else 1.0)
    run = Run(
        machine=report.machine(directory),
        versions=report.versions(),
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        quick=arguments.quick,
        rounds=arguments.rounds,
    )
    began = time.monotonic()
    groups = [GROUPS[name] for name in arguments.groups or GROUPS]
    try:
        if arguments.beside is not None:
            return versions.compare(bench, groups, arguments.beside)
        for group in groups:
            run.figures += group(bench)
    finally:
        bench.reactor.close()
        shutil.rmtree(directory, ignore_errors=True)
    run.seconds = time.monotonic() - began
    run.valid = all(figure.met for figure in run.figures if figure.name == "floor")
    _keep(run, document=arguments.document)
    return 0 if run.valid and all(figure.met is not False for figure in run.figures) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="group", help=f"which figures: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the counts and times: shows that it works")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is measured (default: 3)")
    parser.add_argument(
        "--beside", type=Path, metavar="CHECKOUT", help="another version, whose figures are measured in turn with ours"
    )
    parser.add_argument("--document", action="store_true", help="put the results into docs/how-fast.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    return arguments


def _prepare() -> None:
    if GENERATOR_CORE == SERVER_CORE:
        sys.exit("two cores are needed: one for the server, one for the generator")
    os.sched_setaffinity(0, {GENERATOR_CORE})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _keep(run: Run, *, document: bool) -> None:
    path = RESULTS / f"{run.began.replace(':', '')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
    if document:
        PAGE.write_text(report.into_page(PAGE.read_text(), run))
        IMAGES.mkdir(exist_ok=True)
        for name, drawing in plots.of(run.figures).items():
            (IMAGES / f"{name}.svg").write_text(drawing)
    print(f"\n{report.table(run.figures)}\n")
    say(f"{run.seconds:.0f} s; kept in {path}")
    if not run.valid:
        say("this run does not count: the floor is not twice as fast as a bare answer")


if __name__ == "__main__":
    sys.exit(main())
