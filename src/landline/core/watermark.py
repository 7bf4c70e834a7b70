"""Watermarks: a position in one conversation's log, in the form that clients carry (specification 8.2).

A position p means: every entry with a number below p lies behind the reader. The tag is a checksum over the last entry
behind it, so that a log that was rolled back and went on differently is recognised although nobody declared it (8.2.7).
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple
from zlib import crc32

BEGINNING = "0"
_FORM = re.compile(r"([1-9][0-9]{0,9})-([0-9a-f]{8})", re.ASCII)
_LONGEST = 256


class Replay(Enum):
    """What `X-DirectLine-Replay` tells the client (specification 8.2.6, D-6)."""

    COMPLETE = "complete"
    FROM_START = "from-start"
    TRUNCATED = "truncated"


class Given(Enum):
    """What a `watermark` parameter asks for where it names no position (specification 8.2.4, D-45)."""

    ABSENT = "absent"
    START = "start"
    UNRECOGNISED = "unrecognised"


class Watermark(NamedTuple):
    """A position and the tag that proves it; well-formed, not yet compared with the log."""

    position: int
    tag: str


def tag(conversation: str, position: int, time_ms: int) -> str:
    """The tag of `position`, where `time_ms` is the acceptance time of the entry numbered `position - 1` (8.2.7)."""
    return f"{crc32(f'{conversation}|{position}|{time_ms}'.encode('ascii')):08x}"


def watermark(conversation: str, position: int, time_ms: int) -> str:
    """The wire form of a position: `0`, or `<position>-<tag>`. Matches `[A-Za-z0-9_.-]{1,64}` (D-2)."""
    if position == 0:
        return BEGINNING
    return f"{position}-{crc32(f'{conversation}|{position}|{time_ms}'.encode('ascii')):08x}"


def parse(text: str | None) -> Watermark | Given:
    """Read a `watermark` parameter, already percent-decoded; None means that it was absent.

    Never raises: what cannot be read is `Given.UNRECOGNISED`, and the caller starts over (8.2.4: sending again costs
    duplicates, skipping costs messages).
    """
    if text is None:
        return Given.ABSENT
    if text in ("", "-", BEGINNING):
        return Given.START
    form = _FORM.fullmatch(text) if len(text) <= _LONGEST else None
    return Watermark(int(form[1]), form[2]) if form else Given.UNRECOGNISED
