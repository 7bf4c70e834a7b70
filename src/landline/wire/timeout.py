"""How long something may take that a request waits for.

What `asyncio.timeout` does, with a place on the timer wheel instead of timers of the loop: to set, move and cancel
those was a tenth of what a send costs.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from landline.wire.wheel import Timer, Wheel


class WheelTimeout:
    """Ends what runs inside of it with `TimeoutError` at `at`, on the wheel's clock; None is never.

    At `at` or up to a slot of the wheel later, and only where it waits. To be used by one task, once."""

    __slots__ = ("_at", "_cancelled", "_passed", "_task", "_timer", "_wheel")

    def __init__(self, wheel: Wheel, at: float | None) -> None:
        self._wheel = wheel
        self._at = at
        self._passed = False
        self._timer: Timer | None = None

    def move(self, at: float | None) -> None:
        """It ends then. To move it away costs nothing: whether its time has come is looked at when it seems so."""
        sooner = at is not None and (self._timer is None or self._at is None or at < self._at)
        self._at = at
        if sooner:
            self._set()

    def __enter__(self) -> WheelTimeout:
        task = asyncio.current_task(self._wheel.loop)
        assert task is not None
        self._task = task
        self._cancelled = task.cancelling()
        self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
        # Somebody else may have cancelled the task as well: then it is that which it ends with.
        if self._passed and self._task.uncancel() <= self._cancelled and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _set(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if self._at is None else self._wheel.at(self._at, self._look)

    def _look(self) -> None:
        """The time that was set last has come; it may have been moved since."""
        self._timer = None
        if self._at is None:
            return
        if self._wheel.time() < self._at:
            self._set()
        else:
            self._passed = True
            self._task.cancel()
