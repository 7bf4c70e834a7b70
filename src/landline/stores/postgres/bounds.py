"""The bounds of a store in PostgreSQL: how much it holds and does at once, and how long it waits. Tests shrink them."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody has to set."""

    waiting: int = 16_384
    waiting_bytes: int = 64 << 20
    """The most writes that are queued, and their bytes together; and the most reads."""

    group_bytes: int = 8 << 20
    """The most bytes that are appended in one statement."""

    patience_s: float = 10.0
    """Whatever has no deadline of its own is given up after this long."""

    silent_s: float = 8.0
    """A connection that answers nothing for this long is taken for lost: a primary that was cut off says nothing."""

    connect_s: float = 5.0
    """For one attempt to connect."""

    again_s: float = 0.5
    """The longest pause between two attempts to connect."""

    readers: int = 2
    """Connections for reads and for writes that need no order among the appends. With the lane, the doorbells out and
    those in there are five a node."""

    page_rows: int = 256
    """Entries that are read in one statement."""

    tail_bytes: int = 64 << 20
    """What is kept in memory of live conversations (see `tail`)."""

    slice_rows: int = 256
    slice_bytes: int = 1 << 20
    """What is removed at a time, so that no append waits long behind it. At least one row."""

    ring_s: float = 0.005
    """Doorbells of this long go out as one."""

    sweep_s: float = 5.0
    """Where live conversations stand is asked this often, more or less: the net under lost doorbells."""

    poll_s: float = 0.1
    """The same, where doorbells cannot be heard because a pooler stands in between."""

    live_s: float = 120.0
    """A conversation is live for this long after a stream looked at it."""
