"""One timer wheel per event loop: a hundred thousand deadlines that are hardly ever reached, for one timer of the loop.

Deadlines that fall into the same slot share it. To set one is to put an object into a set, to cancel it is to take it
out again; the loop is asked for a timer only for the next slot that somebody waits for, so an idle server sleeps.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable

SLOT_S = 0.05
"""How late a deadline may be noticed. It is never noticed early."""


class Timer:
    """A deadline that was set, or a beat. Cancelling is cheap, may be repeated, and lets go of the callback."""

    __slots__ = ("_callback", "_interval_s", "_slot")

    def __init__(self, callback: Callable[[], None], interval_s: float = 0.0) -> None:
        """Made by `Wheel`; `interval_s` 0 means once."""
        self._callback: Callable[[], None] | None = callback
        self._interval_s = interval_s
        self._slot: set[Timer] | None = None

    def cancel(self) -> None:
        """The callback is not called again."""
        self._callback = None
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None


class Wheel:
    """The deadlines of one loop. Callbacks run on the loop; one that raises is reported and harms no other."""

    __slots__ = ("_armed", "_armed_for", "_loop", "_numbers", "_slot_s", "_slots")

    def __init__(self, loop: asyncio.AbstractEventLoop, slot_s: float = SLOT_S) -> None:
        """`slot_s` is the width of a slot in seconds."""
        self._loop = loop
        self._slot_s = slot_s
        self._slots: dict[int, set[Timer]] = {}
        self._numbers: list[int] = []  # a heap of the keys of `_slots`
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = 0

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that it turns with. To ask for the running one is a system call before Python 3.12."""
        return self._loop

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `delay_s` to `delay_s` + one slot from now."""
        timer = Timer(callback)
        self._set(timer, delay_s)
        return timer

    def every(self, interval_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` each `interval_s`, first after one interval, until the timer is cancelled. A loop that was
        held up skips beats rather than making up for them."""
        timer = Timer(callback, interval_s)
        self._set(timer, interval_s)
        return timer

    def close(self) -> None:
        """Forget every deadline."""
        for slot in self._slots.values():
            for timer in list(slot):
                timer.cancel()
        self._slots.clear()
        self._numbers.clear()
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None

    def __len__(self) -> int:
        """How many deadlines are set."""
        return sum(map(len, self._slots.values()))

    def _set(self, timer: Timer, delay_s: float) -> None:
        number = math.ceil((self._loop.time() + delay_s) / self._slot_s)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._numbers, number)
            self._arm()
        slot.add(timer)
        timer._slot = slot

    def _arm(self) -> None:
        if not self._numbers:
            return
        number = self._numbers[0]
        if self._armed is not None:
            if self._armed_for == number:
                return
            self._armed.cancel()
        self._armed_for = number
        self._armed = self._loop.call_at(number * self._slot_s, self._turn)

    def _turn(self) -> None:
        self._armed = None
        now = self._loop.time()
        # Compared as times, not as slot numbers: the loop may fire a moment early, by its clock's resolution.
        while self._numbers and self._numbers[0] * self._slot_s <= now:
            slot = self._slots.pop(heapq.heappop(self._numbers))
            while slot:
                self._fire(slot.pop())
        self._arm()

    def _fire(self, timer: Timer) -> None:
        callback = timer._callback
        timer._slot = None
        if callback is None:
            return
        if timer._interval_s:
            # Set before the call, so that the callback may cancel its own timer.
            self._set(timer, timer._interval_s)
        else:
            timer._callback = None
        try:
            callback()
        except Exception as error:  # noqa: BLE001  # the outermost edge: reported where every lost exception is
            self._loop.call_exception_handler({"message": "a deadline's callback failed", "exception": error})
