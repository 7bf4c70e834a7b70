"""One timer wheel per event loop: a hundred thousand deadlines that are hardly ever reached, for one timer of the loop.

Deadlines that fall into the same slot share it. To set one is to put an object into a set, to cancel it is to take it
out again; the loop is asked for a timer only for the next slot that somebody waits for, so an idle server sleeps.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

SLOT_S = 0.05
"""How late a deadline may be noticed. It is never noticed early."""


class Timer:
    """A deadline that was set. Cancelling is cheap, may be repeated, and lets go of the callback."""

    __slots__ = ("_callback", "_slot")

    def __init__(self, callback: Callable[[], None]) -> None:
        """Made by `Wheel`."""
        self._callback: Callable[[], None] | None = callback
        self._slot: set[Timer] | None = None

    def cancel(self) -> None:
        """The callback is not called again."""
        self._callback = None
        if self._slot is not None:
            self._slot.discard(self)
            self._slot = None


class Wheel:
    """The deadlines of one loop. Callbacks run on the loop; one that raises is reported and harms no other."""

    __slots__ = ("_armed", "_armed_for", "_loop", "_numbers", "_slots", "slot_s")

    def __init__(self, loop: asyncio.AbstractEventLoop, slot_s: float = SLOT_S) -> None:
        """`slot_s` is the width of a slot in seconds."""
        self._loop = loop
        self.slot_s = slot_s
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
        return self.at(self._loop.time() + delay_s, callback)

    def at(self, time: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, at that time of the loop or up to one slot later."""
        timer = Timer(callback)
        number = math.ceil(time / self.slot_s)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = set()
            heapq.heappush(self._numbers, number)
            self._arm()
        slot.add(timer)
        timer._slot = slot
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

    def _arm(self) -> None:
        if not self._numbers:
            return
        number = self._numbers[0]
        if self._armed is not None:
            if self._armed_for == number:
                return
            self._armed.cancel()
        self._armed_for = number
        self._armed = self._loop.call_at(number * self.slot_s, self._turn)

    def _turn(self) -> None:
        self._armed = None
        now = self._loop.time()
        # Compared as times, not as slot numbers: the loop may fire a moment early, by its clock's resolution.
        while self._numbers and self._numbers[0] * self.slot_s <= now:
            slot = self._slots.pop(heapq.heappop(self._numbers))
            while slot:
                self._fire(slot.pop())
        self._arm()

    def _fire(self, timer: Timer) -> None:
        callback = timer._callback
        timer._slot = None
        if callback is None:
            return
        timer._callback = None
        try:
            callback()
        except Exception as error:  # noqa: BLE001  # the outermost edge
            self.report(error)

    def report(self, error: Exception) -> None:
        """Report an exception where every lost one is."""
        self._loop.call_exception_handler({"message": "a deadline's callback failed", "exception": error})


class Beating(Protocol):
    """Whoever wants to be told the time again and again."""

    def tick(self, now: float) -> None:
        """One interval has passed, and it is `now` on the wheel's clock."""
        ...


class Circle(set[Beating]):
    """Those who are told at the same moment. To leave is `discard`."""

    __slots__ = ("due",)

    due: float


class Pulse:
    """One beat for many: whoever joins is told the time each interval, first after one of them, less a slot at most.

    Those who joined within one slot form a circle, which has one timer. So a member costs its place in a set, no object
    of its own; and the time that it is told is one number for all of the circle, which it may keep.
    """

    __slots__ = ("_interval_s", "_latest", "_wheel")

    def __init__(self, wheel: Wheel, interval_s: float) -> None:
        self._wheel = wheel
        self._interval_s = interval_s
        self._latest: Circle | None = None  # the one that began or was told last

    def join(self, member: Beating) -> Circle:
        """Tell `member` the time from now on, until it is discarded from the circle that is answered."""
        now = self._wheel.time()
        circle = self._latest
        if circle is None or circle.due - self._interval_s + self._wheel.slot_s < now:
            circle = Circle()
            self._set(circle, now + self._interval_s, now)
        circle.add(member)
        return circle

    def _set(self, circle: Circle, due: float, now: float) -> None:
        circle.due = due
        self._latest = circle
        self._wheel.after(due - now, partial(self._beat, circle))

    def _beat(self, circle: Circle) -> None:
        if not circle:
            if circle is self._latest:
                self._latest = None
            return
        now = self._wheel.time()
        due = circle.due + self._interval_s
        # A loop that was held up skips beats rather than making up for them.
        self._set(circle, due if due > now else now + self._interval_s, now)
        for member in tuple(circle):
            try:
                if member in circle:  # and was not made to leave by one before it
                    member.tick(now)
            except Exception as error:  # noqa: BLE001  # as in `Wheel`
                self._wheel.report(error)
