"""Durations and sizes as people write them: `10m`, `1.5h`, `20MB`, `1GiB`. A bare number is seconds, or bytes."""

from __future__ import annotations

import re

_SECONDS: dict[str, float] = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_BYTES: dict[str, float] = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
_AMOUNT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]{1,3})", re.ASCII)


def measured(name: str, text: str) -> str | float:
    """What `text` means as the value of something whose name ends with its unit: a number where a unit is written,
    otherwise `text` as it is. Raises `ValueError` for a unit that does not belong there."""
    units, examples = _units(name)
    amount = _AMOUNT.fullmatch(text)
    if not units or amount is None:
        return text
    unit = amount[2] if units is _SECONDS else amount[2].lower()
    if unit not in units:
        raise ValueError(f"{amount[2]!r} is no unit here; write {examples}")
    value = round(float(amount[1]) * units[unit], 9)
    return int(value) if value == int(value) else value


def examples(name: str) -> str:
    """How something of this name can be written; empty where it is no duration and no size."""
    return _units(name)[1]


def _units(name: str) -> tuple[dict[str, float], str]:
    if name.endswith("_s") and not name.endswith("_per_s"):
        return _SECONDS, "90s, 10m, 2h or 7d"
    if name.endswith("_bytes") or "_bytes_" in name:
        return _BYTES, "500KB, 10MB or 1GiB"
    return {}, ""
