"""The bounds of a store: how much it holds and does at once, and how long it waits. Tests shrink them."""

from __future__ import annotations

import msgspec


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody has to set: these are right from a laptop to a large server."""

    waiting: int = 16_384
    waiting_bytes: int = 64 << 20
    """The most writes that are queued, and their bytes together; and the most reads."""

    patience_s: float = 10.0
    """Whatever has no deadline of its own is given up after this long."""

    tail_bytes: int = 64 << 20
    """What is kept in memory of live conversations (see `tail`)."""

    stands: int = 32_768
    """Conversations whose stand the writer remembers; then it forgets all of them, and pays a look-up for each."""

    index_after: int = 512
    """The index of places learns of this many entries at once. More would save little; fewer hold up the group less."""

    last: int = 16
    """What is read along with a conversation: whoever asks for it first is nearly always a client that comes back."""

    ahead: int = 64
    ahead_bytes: int = 32 << 10
    """What is read along with an entry: as much as a stream holds at a time. A client that missed more reads page by
    page anyway."""

    slice_rows: int = 256
    slice_bytes: int = 1 << 20
    """What is removed at a time: a few milliseconds, so that no append waits long behind it. At least one row."""

    checkpoint_pages: int = 1024
    """The write-ahead log is moved into the database each time it has grown by this: 4 MiB, a few milliseconds. Until
    it has that length for the first time, each append also makes the file longer, and its sync takes half as long
    again."""

    scrub_after_s: float = 2.0
    """For this long nothing more is erased before what was is scrubbed (see `scrub`)."""

    scrub_latest_s: float = 30.0
    """But no longer than this, whatever else is erased meanwhile."""

    scrub_again_s: float = 5.0
    """After a scrub that did not come to its end."""
