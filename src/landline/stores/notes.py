"""Notes: what need not be durable at once, and is written along with whatever is written next.

They cost no commit of their own while there is traffic. A crash may lose the last of them; each kind says in
`landline.ports.Store` why that does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from landline.core.log import ConversationId
from landline.errors import StoreUnavailable

_LATER_S = 1.0
"""After so long they are written even though nothing else is."""

_USES = 256
"""Uses written at a time: when a hundred thousand streams close at once, no append is to wait for all of them."""

_MOST = 1 << 20
"""Of each kind, if the disk is full for hours. Beyond that the newest are lost, as in a crash."""

Taken = tuple[ConversationId, int]
Write = Callable[[Sequence[Taken], Mapping[ConversationId, int]], "asyncio.Future[None]"]


class Notes:
    """The notes of one store, on its event loop."""

    def __init__(self, write: Write) -> None:
        """`write` queues notes to be written in the next group; it may raise `StoreUnavailable`."""
        self._write = write
        self._taken: dict[Taken, None] = {}
        self._writing_taken: list[list[Taken]] = []
        self._used: dict[ConversationId, int] = {}
        self._writing_uses = False
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Future[None]] = set()
        self.waiting = False
        """Whether `write` would do anything: the one thing that an append asks."""

    def taken(self, conversation: ConversationId, sequence: int) -> None:
        """As `Store.mark_taken`."""
        if len(self._taken) < _MOST:
            self._taken[conversation, sequence] = None
        self._later()

    def used(self, conversation: ConversationId, at_ms: int) -> None:
        """As `Store.touch`."""
        if conversation in self._used or len(self._used) < _MOST:
            self._used[conversation] = max(at_ms, self._used.get(conversation, 0))
        self._later()

    def took(self, conversation: ConversationId, sequence: int) -> bool:
        """Whether the bot took this activity, and that is not written yet."""
        place = (conversation, sequence)
        return place in self._taken or any(place in taken for taken in self._writing_taken)

    def use_of(self, conversation: ConversationId) -> int:
        """The last use that is not queued yet; 0 if there is none."""
        return self._used.get(conversation, 0)

    def _later(self) -> None:
        self.waiting = bool(self._taken) or (bool(self._used) and not self._writing_uses)
        if self.waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LATER_S, self.write)

    def write(self) -> None:
        """Queue what there is: every outcome, so that whatever is appended behind it knows of it, and some uses."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        taken, used = list(self._taken), {}
        if not self._writing_uses:
            used = dict(islice(self._used.items(), _USES))
        if not taken and not used:
            return
        try:
            writing = self._write(taken, used)
        except StoreUnavailable:
            self._later()
            return
        self._taken.clear()
        self._writing_taken.append(taken)
        for conversation in used:
            del self._used[conversation]
        self._writing_uses = self._writing_uses or bool(used)
        self._under_way.add(writing)
        writing.add_done_callback(lambda done: self._written(done, taken, used))
        self._later()

    def _written(self, done: asyncio.Future[None], taken: list[Taken], used: Mapping[ConversationId, int]) -> None:
        self._under_way.discard(done)
        self._writing_taken.remove(taken)
        if used:
            self._writing_uses = False
        if done.cancelled() or done.exception() is not None:
            for conversation, sequence in taken:
                self.taken(conversation, sequence)
            for conversation, at_ms in used.items():
                self.used(conversation, at_ms)
        self._later()

    async def finish(self) -> None:
        """Write all of them, unless the store refuses."""
        while self.waiting or self._under_way:
            self.write()
            if not self._under_way:
                break
            done, _ = await asyncio.wait(self._under_way)
            if any(each.exception() is not None for each in done):
                break
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
