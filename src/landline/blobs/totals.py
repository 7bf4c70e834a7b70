"""How much is stored in uploads, per conversation and per site, and how much may be.

Theory of operation. What is *taken* is what is on the disk and what is reserved by drafts: whoever writes reserves
first, so concurrent uploads together stay within the bounds. Nothing of this is kept: what is on the disk says it all,
and is counted anew. A conversation is counted when somebody uploads into it, since its files share a directory. Sites
are counted once after the start, file by file; files that come later are counted when they are kept.

A file counts in whole blocks. So the number of files is bounded, too: an empty one takes a block.

Loop and threads come here, so there is a lock, which is held for arithmetic only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec

from landline.errors import TooMuchInConversation, TooMuchOfSite

BLOCK_BYTES = 4096
"""The unit in which files count: what file systems give them."""

_CONVERSATIONS = 4096
"""Conversations whose total is remembered; those with an upload under way always are. Forgetting one costs that its
directory is looked through again."""


class Bounds(msgspec.Struct, frozen=True):
    """What stored uploads may take up, in bytes; 0 is no bound. `free_floor_bytes` stay free on the disk."""

    conversation_bytes: int = 0
    site_bytes: int = 0
    free_floor_bytes: int = 0


class _Total:
    """Of one conversation. It is not forgotten while `drafts` reserve in it."""

    __slots__ = ("drafts", "taken")

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.drafts = 0


class Totals:
    """What is taken, by the name of a conversation's directory and by the id of a site."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._lock = threading.Lock()
        self._conversations: OrderedDict[str, _Total] = OrderedDict()
        self._sites: dict[str, int] = {}

    def begin(self, directory: str) -> bool:
        """A draft begins to reserve here. False where the directory has to be counted first (`count`)."""
        with self._lock:
            total = self._conversations.get(directory)
            if total is None:
                return False
            self._conversations.move_to_end(directory)
            total.drafts += 1
            return True

    def count(self, directory: str, stored: int) -> None:
        """So much is on the disk there. Known already, it is not learned again: drafts may have reserved meanwhile."""
        with self._lock:
            if directory not in self._conversations:
                self._conversations[directory] = _Total(stored)
                self._forget_some()

    def end(self, directory: str) -> None:
        """The draft is kept or gone."""
        with self._lock:
            self._conversations[directory].drafts -= 1
            self._forget_some()

    def _forget_some(self) -> None:
        for directory in list(self._conversations) if len(self._conversations) > 2 * _CONVERSATIONS else ():
            if len(self._conversations) <= _CONVERSATIONS:
                break
            if self._conversations[directory].drafts == 0:
                del self._conversations[directory]

    def take(self, directory: str, site: str | None, more: int) -> None:
        """Reserve so much more, or give back what is less than 0. Raises `TooMuchInConversation`, `TooMuchOfSite`, with
        nothing reserved."""
        with self._lock:
            total = self._conversations.get(directory)
            of_site = 0 if site is None else self._sites.get(site, 0)
            if more > 0:
                assert total is not None, "who reserves has begun"
                if 0 < self._bounds.conversation_bytes < total.taken + more:
                    raise TooMuchInConversation
                if site is not None and 0 < self._bounds.site_bytes < of_site + more:
                    raise TooMuchOfSite
            if total is not None:
                total.taken += more
            if site is not None:
                self._sites[site] = of_site + more

    def found(self, site: str, stored: int) -> None:
        """A file of an earlier process was found on the disk."""
        with self._lock:
            self._sites[site] = self._sites.get(site, 0) + stored


def blocks(size: int) -> int:
    """What a file of that size counts."""
    return max(BLOCK_BYTES, -(-size // BLOCK_BYTES) * BLOCK_BYTES)
