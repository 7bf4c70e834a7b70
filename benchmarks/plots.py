"""Plots for the documentation: bars as SVG, readable on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.report import Figure, number

_WIDTH, _LEFT, _BAR, _GAP = 720, 210, 20, 6
_INK, _OURS, _OTHERS = "#7d8590", "#2f81f7", "#afb8c1"
_NAMES = {"ours": "Landline", "floor": "floor", "fastapi": "FastAPI", "aiohttp": "aiohttp"}

PLOTS = {
    "cpu-per-request": ("CPU per operation, µs", ("upgrade", "reconnect", "post", "frame")),
    "memory-per-stream": ("Memory per open stream, KiB", ("idle-memory",)),
    "durable-appends": ("Durable appends per second", ("appends-1", "appends-64")),
}
"""Name of the file: title, and the figures in it."""


def of(figures: Sequence[Figure]) -> dict[str, str]:
    """Every plot whose figures were measured."""
    by_name = {figure.name: figure for figure in figures}
    return {
        name: bars(title, [by_name[each] for each in shown])
        for name, (title, shown) in PLOTS.items()
        if all(each in by_name for each in shown)
    }


def bars(title: str, figures: Sequence[Figure]) -> str:
    """One group of bars per figure, all on one scale per group: groups differ by orders of magnitude."""
    parts, y = [_text(0, 18, title, weight="bold")], 34
    for figure in figures:
        parts.append(_text(0, y + 14, figure.title))
        y += 24
        most = max(sample.median for sample in figure.values.values())
        for name, sample in figure.values.items():
            length = max(2.0, sample.median / most * (_WIDTH - _LEFT - 90))
            parts.append(_text(_LEFT - 8, y + 15, _NAMES.get(name, name), anchor="end"))
            colour = _OURS if name == "ours" else _OTHERS
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>')
            parts.append(_text(_LEFT + length + 8, y + 15, number(sample.median)))
            y += _BAR + _GAP
        y += 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}" '
        f'font-family="system-ui, sans-serif" font-size="14" role="img">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" fill="{_INK}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'
    )
