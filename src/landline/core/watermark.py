"""Watermarks: a position in one conversation's log, in the form that clients carry (spec 8.2).

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
_NUMBER = re.compile(r"[0-9]{1,10}", re.ASCII)
_FIRST = "0000000"
"""The number in the id of the first entry. A lone `0` is the folk recipe for all of the history, this is not."""
_LONGEST = 256


class Replay(Enum):
    """What `X-DirectLine-Replay` tells the client (spec 8.2.6, D-6)."""

    COMPLETE = "complete"
    FROM_START = "from-start"
    TRUNCATED = "truncated"


class Given(Enum):
    """What a `watermark` parameter asks for where it names no position (spec 8.2.4, D-45)."""

    ABSENT = "absent"
    START = "start"
    UNRECOGNISED = "unrecognised"


class Watermark(NamedTuple):
    """A position and the tag that proves it; well-formed, not yet compared with the log."""

    position: int
    tag: str


class Number(NamedTuple):
    """The hosted service's own form of a watermark, which clients take from the id of an activity: the number of an
    entry that they have, and no tag to prove it."""

    sequence: int


def tag(conversation: str, position: int, time_ms: int) -> str:
    """The tag of `position`, where `time_ms` is the acceptance time of the entry numbered `position - 1` (8.2.7)."""
    return f"{crc32(f'{conversation}|{position}|{time_ms}'.encode('ascii')):08x}"


def watermark(conversation: str, position: int, time_ms: int) -> str:
    """The wire form of a position: `0`, or `<position>-<tag>`. Matches `[A-Za-z0-9_.-]{1,64}` (D-2)."""
    if position == 0:
        return BEGINNING
    return f"{position}-{crc32(f'{conversation}|{position}|{time_ms}'.encode('ascii')):08x}"


def parse(text: str | None) -> Watermark | Number | Given:
    """Read a `watermark` parameter, already percent-decoded; None means that it was absent.

    Never raises: what cannot be read is `Given.UNRECOGNISED`, and the caller starts over (8.2.4: sending again costs
    duplicates, skipping costs messages).
    """
    if text is None:
        return Given.ABSENT
    if text in ("", "-", BEGINNING):
        return Given.START
    if len(text) > _LONGEST:
        return Given.UNRECOGNISED
    if _NUMBER.fullmatch(text):
        return Number(int(text)) if int(text) or text == _FIRST else Given.START
    form = _FORM.fullmatch(text)
    return Watermark(int(form[1]), form[2]) if form else Given.UNRECOGNISED


class Start(NamedTuple):
    """Where a reader begins. `watermark` is the wire form of `position`; `rolled_back` says that the client holds a
    position which this log never had: the store may have been rolled back (8.2.7)."""

    position: int
    watermark: str
    replay: Replay
    rolled_back: bool = False


def proven_by(given: Watermark | Number | Given, *, oldest: int, head: int) -> int | None:
    """The number of the entry whose acceptance time `start_of` needs; None where it needs none."""
    if isinstance(given, Number):
        return given.sequence if oldest <= given.sequence < head else None
    if isinstance(given, Watermark):
        return given.position - 1 if oldest <= given.position < head else None
    return None


def start_of(
    given: Watermark | Number | Given,
    conversation: str,
    *,
    head: int,
    last_ms: int | None,
    oldest: int,
    behind_ms: int | None,
    absent_means_head: bool,
) -> Start:
    """The table of 8.2.4 (D-45): what a `watermark` parameter means for a log that reaches from `oldest` to `head`.

    `behind_ms` is the acceptance time of the entry that `proven_by` names, None where there is no such entry. A
    position at the head is proven by `last_ms`; for what retention has removed there is no proof.
    """
    if given is Given.ABSENT and absent_means_head:
        return Start(head, watermark(conversation, head, last_ms or 0), Replay.COMPLETE)
    if given is Given.UNRECOGNISED:
        return Start(0, BEGINNING, Replay.FROM_START)
    if isinstance(given, Given):
        return Start(0, BEGINNING, Replay.TRUNCATED if oldest else Replay.COMPLETE)
    if isinstance(given, Number):
        return _behind(given.sequence, conversation, head=head, oldest=oldest, behind_ms=behind_ms)
    if given.position < oldest:
        return Start(0, BEGINNING, Replay.TRUNCATED)
    if given.position == oldest > 0 and given.position != head:
        # Retention has removed the entry that would prove it, but what comes next is the oldest retained one anyway.
        return Start(given.position, f"{given.position}-{given.tag}", Replay.COMPLETE)
    proof = last_ms if given.position == head else behind_ms
    if given.position > head or proof is None or tag(conversation, given.position, proof) != given.tag:
        return Start(0, BEGINNING, Replay.FROM_START, rolled_back=True)
    return Start(given.position, f"{given.position}-{given.tag}", Replay.COMPLETE)


def _behind(sequence: int, conversation: str, *, head: int, oldest: int, behind_ms: int | None) -> Start:
    """Right behind the entry with this number. It has no tag, so that a store that was rolled back cannot be noticed;
    a number that no entry has is nobody's."""
    position = sequence + 1
    if position < oldest:
        return Start(0, BEGINNING, Replay.TRUNCATED)
    if position == oldest:
        # Retention has removed the entry: the bare number itself is all that can be said of the place.
        return Start(position, str(sequence), Replay.COMPLETE)
    if position > head or behind_ms is None:
        return Start(0, BEGINNING, Replay.FROM_START)
    return Start(position, watermark(conversation, position, behind_ms), Replay.COMPLETE)
