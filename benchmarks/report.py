"""What a run comes to: samples, figures, and how they are shown as text and kept as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One quantity, measured several times. `rounds` are all of them, in order."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """Half of the distance between the extremes: what noise there was."""
        return (max(self.rounds) - min(self.rounds)) / 2


class Figure(msgspec.Struct, kw_only=True):
    """One line of the table. `values` are by who was measured, `ours` and, where it makes sense, others.

    `goal` says in words what is aimed at; `met` is None where nothing is.
    """

    name: str
    title: str
    unit: str
    values: dict[str, Sample]
    goal: str = ""
    met: bool | None = None
    ratio: float | None = None
    note: str = ""


def ratio(of: Sample, to: Sample) -> float:
    """The median of the ratios of each round: what slowed one down for a moment slowed the other down too."""
    return median(a / b for a, b in zip(of.rounds, to.rounds, strict=True))


class Run(msgspec.Struct, kw_only=True):
    """Everything that one run measured, and on what."""

    machine: dict[str, str]
    versions: dict[str, str]
    began: str
    quick: bool
    rounds: int
    seconds: float = 0.0
    valid: bool = True
    figures: list[Figure] = []


def machine(directory: Path) -> dict[str, str]:
    """What the figures depend on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": f"{os.cpu_count()} × {cpu}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file system": _file_system(directory),
    }


def _file_system(directory: Path) -> str:
    """The type of the mount that the data lies on."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(point, kind) for point, kind in mounts if directory.resolve().is_relative_to(point)]
    return max(inside, key=lambda mount: len(mount[0]))[1]


def versions() -> dict[str, str]:
    """Of what was measured."""
    names = ("landline", "uvicorn", "starlette", "uvloop", "httptools", "aiohttp", "fastapi", "websockets", "apsw")
    return {name: version(name) for name in names}


BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def into_page(page: str, run: Run) -> str:
    """The page with this run in the place of the one before."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        raise ValueError(f"the page has no place between {BEGIN} and {END}")
    return f"{head}{BEGIN}\n{section(run)}\n{END}{tail}"


def section(run: Run) -> str:
    """What a page says of a run: when, on what, and the table."""
    caution = (
        "**A quick run, a tenth of the real thing: it shows that everything works, not how fast.** "
        if run.quick
        else ""
    )
    on = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    of = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    void = "" if run.valid else "\n\n**The floor was not fast enough: this run does not count.**"
    notes = [f"- {figure.title}: {figure.note}." for figure in run.figures if figure.note]
    return (
        f"{caution}Measured on {run.began[:10]}, in {run.seconds:.0f} s, {run.rounds} rounds each. Machine: {on}. "
        f"Versions: {of}.{void}\n\n{table(run.figures)}\n\n" + "\n".join(notes)
    ).rstrip()


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [("", "ours", "others", "ratio", "goal", "")]
    for figure in figures:
        values = dict(figure.values)
        ours = values.pop("ours", None)
        rows.append(
            (
                figure.title,
                f"{_value(ours)} {figure.unit}" if ours else "–",
                ", ".join(f"{name} {_value(value)}" for name, value in values.items()) or "–",
                f"{figure.ratio:.2f}" if figure.ratio is not None else "–",
                figure.goal or "–",
                {None: "", True: "met", False: "**missed**"}[figure.met],
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _value(sample: Sample) -> str:
    shown = number(sample.median)
    return f"{shown} ±{number(sample.spread)}" if len(sample.rounds) > 1 else shown


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
