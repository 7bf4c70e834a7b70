"""Two versions of Landline in one run: the installed one, and a checkout of another commit.

Each group of figures is measured for both in turn, round after round, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.bench import Bench, say
from benchmarks.report import Figure, number

WORSE = 1.10
"""What counts as worse. Less is noise."""

Group = Callable[[Bench], list[Figure]]


def compare(bench: Bench, groups: Iterable[Group], other: Path) -> int:
    """Print a table of what each figure costs beside what it costs in the checkout `other`. 1 where one is worse."""
    rows = [row for group in groups for row in _of_group(bench, group, other.resolve())]
    print(table(rows))
    return 1 if any(row.cost > WORSE for row in rows) else 0


class Row(NamedTuple):
    """A figure of both. `cost` is how many times as much it costs here as there: the median of the rounds."""

    title: str
    unit: str
    here: float
    there: float
    cost: float


def _of_group(bench: Bench, group: Group, other: Path) -> list[Row]:
    rounds: list[list[tuple[Figure, Figure]]] = []
    for turn in range(bench.rounds):
        say(f"round {turn + 1} of {bench.rounds}")
        here, there = (_measured(bench, group, turn, source) for source in (None, other))
        rounds.append(list(zip(here, there, strict=True)))
    return [_row(figures) for figures in zip(*rounds, strict=True)]


def _measured(bench: Bench, group: Group, turn: int, source: Path | None) -> list[Figure]:
    """The figures that are about us."""
    directory = bench.directory / f"{'here' if source is None else 'there'}-{turn}"
    directory.mkdir(exist_ok=True)
    found = group(bench._replace(directory=directory, rounds=1, source=source))
    return [figure for figure in found if "ours" in figure.values]


def _row(rounds: Sequence[tuple[Figure, Figure]]) -> Row:
    figure, _ = rounds[0]
    pairs = [(here.values["ours"].median, there.values["ours"].median) for here, there in rounds]
    rate = figure.unit.startswith("per ") or figure.unit.startswith("/")  # of which more is better
    costs = [there / here if rate else here / there for here, there in pairs]
    here, there = (median(values) for values in zip(*pairs, strict=True))
    return Row(figure.title, figure.unit, here, there, median(costs))


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | here | there | cost, here ÷ there | |", "|-|-|-|-|-|"]
    for row in rows:
        worse = "**worse**" if row.cost > WORSE else ""
        here, there = (f"{number(value)} {row.unit}" for value in (row.here, row.there))
        lines.append(f"| {row.title} | {here} | {there} | {row.cost:.2f} | {worse} |")
    return "\n".join(lines)
