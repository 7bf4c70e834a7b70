"""Unindexed entries: those that the index of places does not know yet, in memory.

Theory of operation. An entry is durable with its row alone; where it stands in its conversation is in the row. The
index, one page per conversation, is brought up to date for a few hundred entries at once, and until then what it does
not know is here. A process that is killed loses nothing: whoever opens the file finds the newest rows that the index
lacks, and keeps them here again.

The index always knows a beginning of the arrivals, and so of each conversation; the rest is here. One thread appends
and another reads, without a lock: a reader takes `arrivals` *before* its snapshot begins, and then ignores what arrived
after that snapshot. What has left for the index by then is in the snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

Place = int
"""Conversation number << 28 | sequence number."""


class Unindexed:
    """The entries of one store that its index does not know. All of this is for its writer, but `arrivals`."""

    def __init__(self, found: Mapping[Place, int]) -> None:
        """`found` are those that are in the file, in the order in which they arrived."""
        self._arrivals = dict(found)
        self._kept = len(found)
        self._indexed = 0

    @property
    def arrivals(self) -> Mapping[Place, int]:
        """Under which number each of them arrived, by its place. Replaced, never emptied, when the index has them."""
        return self._arrivals

    def add(self, place: Place, arrival: int) -> None:
        """One more, part of a transaction that is not yet committed."""
        self._arrivals[place] = arrival

    def to_index(self) -> Sequence[tuple[Place, int]]:
        """What the index is now told, in its order: neighbours share a page."""
        rows = sorted(islice(self._arrivals.items(), self._indexed, None))
        self._indexed = len(self._arrivals)
        return rows

    def committed(self) -> None:
        """The transaction is durable: the index knows what it was told."""
        if self._indexed:
            self._arrivals = dict(islice(self._arrivals.items(), self._indexed, None))
            self._indexed = 0
        self._kept = len(self._arrivals)

    def rolled_back(self) -> None:
        """Nothing of the transaction has happened."""
        self._indexed = 0
        while len(self._arrivals) > self._kept:
            self._arrivals.popitem()
