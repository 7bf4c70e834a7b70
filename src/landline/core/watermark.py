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


class Start(NamedTuple):
    """Where a reader begins. `watermark` is the wire form of `position`; `rolled_back` says that the client holds a
    position which this log never had: the store may have been rolled back (8.2.7)."""

    position: int
    watermark: str
    replay: Replay
    rolled_back: bool = False


def start_of(
    given: Watermark | Given,
    conversation: str,
    *,
    head: int,
    last_ms: int | None,
    oldest: int,
    behind_ms: int | None,
    absent_means_head: bool,
) -> Start:
    """The table of 8.2.4 (D-45): what a `watermark` parameter means for a log that reaches from `oldest` to `head`.

    `behind_ms` is the acceptance time of the entry numbered `given.position - 1`, None where there is none; it is not
    needed for a position at the head, which `last_ms` proves, nor for one that retention has removed.
    """
    if given is Given.ABSENT and absent_means_head:
        return Start(head, watermark(conversation, head, last_ms or 0), Replay.COMPLETE)
    if given is Given.UNRECOGNISED:
        return Start(0, BEGINNING, Replay.FROM_START)
    if isinstance(given, Given):
        return Start(0, BEGINNING, Replay.TRUNCATED if oldest else Replay.COMPLETE)
    if given.position < oldest:
        return Start(0, BEGINNING, Replay.TRUNCATED)
    if given.position == oldest > 0 and given.position != head:
        # Retention has removed the entry that would prove it, but what comes next is the oldest retained one anyway.
        return Start(given.position, f"{given.position}-{given.tag}", Replay.COMPLETE)
    proof = last_ms if given.position == head else behind_ms
    if given.position > head or proof is None or tag(conversation, given.position, proof) != given.tag:
        return Start(0, BEGINNING, Replay.FROM_START, rolled_back=True)
    return Start(given.position, f"{given.position}-{given.tag}", Replay.COMPLETE)
