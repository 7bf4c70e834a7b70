"""How often something may happen: a rate, a burst, and how long somebody may be made to wait for their turn.

A bucket is one number: the moment at which everything that was let through so far would have been through at the plain
rate. Whoever has to wait has their turn from the moment they ask, so turns are taken in the order of asking.
"""

from __future__ import annotations

import math

import msgspec

_LEAST_PER_S, _MOST_PER_S = 1e-9, 1e12


class Rate(msgspec.Struct, frozen=True):
    """`per_s` a second on average, up to `burst` at once; `longest_wait_s` is how long a turn may be away."""

    per_s: float
    burst: int
    longest_wait_s: float = 0.0

    def at(self, per_s: float) -> Rate:
        """Another rate, with a burst that is as many seconds of it. One that is next to nothing, or to everything, is
        as good as such a number that can be calculated with."""
        per_s = min(max(per_s, _LEAST_PER_S), _MOST_PER_S)
        return Rate(per_s, max(1, math.ceil(self.burst / self.per_s * per_s)), self.longest_wait_s)


class Bucket:
    """The turns of one conversation, or of one site."""

    __slots__ = ("_paid_until",)

    def __init__(self) -> None:
        self._paid_until = float("-inf")

    def turn(self, rate: Rate, now: float) -> float:
        """Seconds until the turn of who asks now; 0 is at once. More than `rate.longest_wait_s` means that there is
        none: nothing is reserved then."""
        paid_until = max(self._paid_until, now)
        wait_s = max(0.0, paid_until - now - (rate.burst - 1) / rate.per_s)
        if wait_s <= rate.longest_wait_s:
            self._paid_until = paid_until + 1 / rate.per_s
        return wait_s

    def idle(self, now: float) -> bool:
        """Whether it is as good as new."""
        return self._paid_until <= now
