"""Rows of entries, as several subjects read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from landline.core.log import Audience, Entry, Original

COLUMNS = "e.sequence, e.time_ms, e.audience, e.original, e.original_ms, e.body"
"""Of an entry, for `entry_of`."""

_AUDIENCES = tuple(Audience)


def entry_of(row: Sequence[Any]) -> Entry:
    """Of a row of `COLUMNS`."""
    sequence, time_ms, audience, original, original_ms, body = row
    first = None if original is None else Original(original, original_ms)
    return Entry(sequence, time_ms, body, _AUDIENCES[audience], first)
