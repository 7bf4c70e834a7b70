"""When the write-ahead log is scrubbed: what was erased in the database still stands in the log until that starts over,
which on a quiet server it never does.

A scrub costs those who append a few milliseconds, and a little more for as long as the log has to grow again. So what
is erased bit by bit, as a sweep does it, is scrubbed once, when there is no more for a moment; but what was erased is
never left for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from landline.stores.sqlite.bounds import Bounds


class Scrubbing:
    """The timer of one store, on its event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, scrub: Callable[[], None], bounds: Bounds) -> None:
        """`scrub` has the log scrubbed; it does not wait for that."""
        self._loop = loop
        self._scrub = scrub
        self._bounds = bounds
        self._timer: asyncio.TimerHandle | None = None
        self._moment = 0.0
        self._latest = 0.0

    def erased(self) -> None:
        """Something was erased."""
        now = self._loop.time()
        self._moment = now + self._bounds.scrub_after_s
        if self._timer is None:
            self._latest = now + self._bounds.scrub_latest_s
            self._timer = self._loop.call_at(self._moment, self._look)

    def failed(self) -> None:
        """It was not scrubbed; nor will it be by itself."""
        if self._timer is None:
            self._timer = self._loop.call_at(self._loop.time() + self._bounds.scrub_again_s, self._look)

    def _look(self) -> None:
        due = min(self._moment, self._latest)
        if due > self._loop.time():
            self._timer = self._loop.call_at(due, self._look)
        else:
            self._timer = None
            self._scrub()

    def close(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
