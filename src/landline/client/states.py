"""How the line to a conversation stands, and those who want to know when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import Enum

_KEPT = 64
"""Changes kept for a reader of `states()` that is behind; beyond that the oldest are dropped."""


class State(Enum):
    """How the line stands."""

    CONNECTING = "connecting"
    ONLINE = "online"
    """Activities come by a stream, or, where none gets through, by polling."""
    RECONNECTING = "reconnecting"
    WAITING_FOR_TOKEN = "waiting-for-token"  # noqa: S105 - a word, no credential
    OVER = "over"


class Replay(Enum):
    """What the server said of the activities that a reconnect brings (spec 8.2.6). None where it said nothing."""

    COMPLETE = "complete"
    FROM_START = "from-start"
    """It did not know the watermark and starts over: what the session still remembers is not delivered again."""
    TRUNCATED = "truncated"
    """It has removed activities that this client never saw."""


@dataclass(frozen=True, slots=True)
class Change:
    """A new state, why, and what the server said of the replay where the change is a reconnect."""

    state: State
    reason: str = ""
    replay: Replay | None = None


class States:
    """The state as it is, and its changes. Readers that are slow lose the oldest changes, never the newest."""

    def __init__(self) -> None:
        self.last = Change(State.CONNECTING)
        self._readers: set[asyncio.Queue[Change]] = set()

    def change(self, change: Change) -> None:
        """Note a change and tell the readers. The same state without news is no change."""
        if self.last == change or self.last.state is State.OVER:
            return
        self.last = change
        for reader in self._readers:
            if reader.full():
                reader.get_nowait()
            reader.put_nowait(change)

    async def changes(self) -> AsyncIterator[Change]:
        """The state as it is now, then each change; ends behind `OVER`."""
        reader: asyncio.Queue[Change] = asyncio.Queue(_KEPT)
        self._readers.add(reader)
        try:
            change = self.last
            while True:
                yield change
                if change.state is State.OVER:
                    return
                change = await reader.get()
        finally:
            self._readers.discard(reader)
