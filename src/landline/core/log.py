"""What the conversation log holds, and how its bytes become what clients read.

A stored body is the JSON text of an activity *without* `id` and `timestamp`: both are assigned with the sequence
number, inside the store's transaction (docs/explanation/design-facts.md). A frame is therefore one concatenation;
nothing is parsed or encoded again on the way out, neither live nor in a replay. All that depends on who reads is the
base of links that lead to this server (`core.links`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import IntEnum
from functools import lru_cache
from typing import NewType

import msgspec

from landline.core import links
from landline.core.watermark import watermark

ConversationId = NewType("ConversationId", str)

SEQUENCE_BITS = 28
LAST_SEQUENCE = (1 << SEQUENCE_BITS) - 1
"""The last number is refused, never wrapped: a number is given once."""


class Audience(IntEnum):
    """Who reads an entry (spec 6.3)."""

    EVERYONE = 0
    STREAMS = 1
    """Replayed on streams, never in Get Activities: a contentless `typing` that concludes a livestream (D-33)."""
    NOBODY = 2
    """Erased, because a bot deleted it (D-35): only number and time are left, and every reader steps over it."""


class Original(msgspec.Struct, frozen=True, gc=False):
    """The entry that an update repeats: its id and timestamp are shown again (D-35)."""

    sequence: int
    time_ms: int


class SendKey(msgspec.Struct, frozen=True, gc=False):
    """What makes a repeated send the same send (8.5): who sent it, under which key, and a digest of what was sent.

    What was sent before `since_ms` is forgotten: the same key then makes a new send.
    """

    sender: str
    key: str
    digest: bytes
    since_ms: int = 0


class Newcomer(msgspec.Struct, frozen=True, gc=False):
    """A sender that may not be a member yet, and how many members there may be."""

    account_id: str
    most_members: int


class NewEntry(msgspec.Struct, frozen=True, gc=False):
    """An activity on its way into the log. `body`: a JSON object, at least one member, without `id` and `timestamp`.

    Kept as bytes, never as text: `core.links` explains the one byte in it that is not UTF-8."""

    body: bytes
    audience: Audience = Audience.EVERYONE
    original: Original | None = None
    key: SendKey | None = None
    newcomer: Newcomer | None = None


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An activity in the log. `time_ms` is its own acceptance time: UTC, milliseconds since 1970."""

    sequence: int
    time_ms: int
    body: bytes
    audience: Audience = Audience.EVERYONE
    original: Original | None = None

    @property
    def is_deleted(self) -> bool:
        """Whether a delete left this: nothing, or the notice of it, which shows another's id, but its own time."""
        return self.audience is Audience.NOBODY or (self.original is not None and self.original.time_ms == self.time_ms)


class Transient(msgspec.Struct, frozen=True, gc=False):
    """An activity that passes by: complete JSON, no number, open streams only, best effort (D-49).

    `counter` rises by one per transient in this process; `behind` is the head at which it was accepted, that is the
    place between stored entries where it is shown.
    """

    counter: int
    behind: int
    activity: bytes


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """What `Store.append` assigned. `repeated` says that it did so before, to an earlier send with the same key, and
    appended nothing now; `taken`, that the bot took it then."""

    sequence: int
    time_ms: int
    repeated: bool = False
    taken: bool = False


class Page(msgspec.Struct, frozen=True):
    """One read of the log: `records` in order; the reader now stands at `position` and has passed `transient`.

    `behind_ms` is the acceptance time of the last entry behind `position`, or None where the read moved nothing (the
    reader's own watermark stays good). `more` says that the bound of the page, not the end of the log, ended it.
    """

    records: Sequence[Entry | Transient]
    position: int
    behind_ms: int | None
    transient: int
    more: bool


def activity_id(conversation: ConversationId, sequence: int) -> str:
    """`{conversationId}|{n}`, at least seven digits (spec 6.1)."""
    return f"{conversation}|{sequence:07d}"


def sequence_of(conversation: ConversationId, text: str) -> int | None:
    """The number in an id of that form, or None: an id of something that is not in the log."""
    digits = text[len(conversation) + 1 :]
    if len(digits) > 9 or not (digits.isascii() and digits.isdecimal()):
        return None
    sequence = int(digits)
    return sequence if text == activity_id(conversation, sequence) else None


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(time_ms: int) -> str:
    """ISO 8601, UTC, exactly three fraction digits and `Z` (spec 6.1, D-30)."""
    return f"{_second(time_ms // 1000)}.{time_ms % 1000:03d}Z"


def activity(conversation: ConversationId, entry: Entry, base: bytes = b"") -> bytes:
    """The complete JSON of an entry as a client reads it whose links begin with `base`."""
    shown = entry.original or entry
    head = f'{{"id":"{conversation}|{shown.sequence:07d}","timestamp":"{timestamp(shown.time_ms)}",'
    return head.encode() + links.shown(entry.body[1:], base)


def frame(conversation: ConversationId, entry: Entry, base: bytes = b"") -> bytes:
    """The ActivitySet of one entry, with the watermark right behind it (spec 7.3, D-48)."""
    shown = entry.original or entry
    behind = watermark(conversation, entry.sequence + 1, entry.time_ms)
    return b"".join(
        (
            f'{{"activities":[{{"id":"{conversation}|{shown.sequence:07d}",'
            f'"timestamp":"{timestamp(shown.time_ms)}",'.encode(),
            links.shown(entry.body[1:], base),
            f'],"watermark":"{behind}"}}'.encode(),
        )
    )


def transient_frame(passing: Transient, last_watermark: str, base: bytes = b"") -> bytes:
    """The ActivitySet of a transient; it repeats the last watermark, so that no client loses a good one (D-39)."""
    return (
        b'{"activities":[' + links.shown(passing.activity, base) + b'],"watermark":"' + last_watermark.encode() + b'"}'
    )


def activity_set(conversation: ConversationId, page: Page, end: str, base: bytes = b"") -> bytes:
    """The ActivitySet that Get Activities answers: the page's entries and the watermark behind them (8.3)."""
    shown = b",".join(activity(conversation, record, base) for record in page.records if isinstance(record, Entry))
    return b'{"activities":[' + shown + b'],"watermark":"' + end.encode() + b'"}'
