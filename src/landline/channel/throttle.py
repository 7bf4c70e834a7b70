"""Who is asking too often, and how long they are made to wait for it (specification 10).

In a storm work waits rather than being refused (spec 10, D-15): any answer but a good one ends a polling client for
ever, and a refused start is final. So polls and starts are answered late, inside the request's deadline, and refused
only when their turn would be too far away. Sends are refused at once: a client can tell its user.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

from landline.core.bot import Own
from landline.core.rate import Bucket, Rate
from landline.errors import RateLimited
from landline.ports import Clock

_SWEEP = 4096
"""Buckets kept before those that are as good as new are looked for; afterwards, twice as many as were left."""

Counted = TypeVar("Counted", bound=Hashable)


class Rates(msgspec.Struct, frozen=True):
    """Sends and polls count per conversation, starts and token calls per site."""

    sends: Rate
    polls: Rate
    starts: Rate


class Throttle:
    """Takes a turn for whoever asks, and waits for it. Raises `RateLimited` where there is none in time."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._clock = clock
        self._sends = _Turns[tuple[str, str]](rates.sends, clock)
        self._polls = _Turns[tuple[str, str]](rates.polls, clock)
        self._starts = _Turns[str](rates.starts, clock)

    # `overrides` are those who may have rates of their own, the first first: a site, its bot. A conversation is named
    # by the id of the bot of who asks and by its own: whether it is that bot's is known later only (3.4).

    def send(self, conversation: tuple[str, str], *overrides: Own) -> None:
        """Before an activity of a client is accepted. Nobody is made to wait here."""
        self._sends.turn(conversation, 0.0, _first([each.sends_per_s for each in overrides]))

    def poll(self, conversation: tuple[str, str], deadline: float, *overrides: Own) -> Awaitable[None]:
        """Before Get Activities (10.1)."""
        return self._polls.take(conversation, deadline, _first([each.polls_per_s for each in overrides]))

    def start(self, site: str, deadline: float, *overrides: Own) -> Awaitable[None]:
        """Before a start, or a call for a token."""
        return self._starts.take(site, deadline, _first([each.starts_per_s for each in overrides]))


def _first(rates: Sequence[float | None]) -> float | None:
    for rate in rates:
        if rate is not None:
            return rate
    return None


class _Turns(Generic[Counted]):
    """The buckets of one kind. A bucket that is as good as new may be forgotten, so what is kept is bounded by how many
    ask within a burst."""

    def __init__(self, rate: Rate, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._buckets: dict[Counted, Bucket] = {}
        self._sweep_at = _SWEEP

    async def take(self, key: Counted, deadline: float, per_s: float | None) -> None:
        """Wait for a turn, until `deadline` at most. `per_s` is as in `turn`."""
        wait_s = self.turn(key, max(0.0, deadline - self._clock.monotonic()), per_s)
        if wait_s > 0:
            await asyncio.sleep(wait_s)

    def turn(self, key: Counted, longest_wait_s: float, per_s: float | None) -> float:
        """Take a turn that is at most so many seconds away, and no more than the rate allows; answers how many.
        `per_s` is a rate in place of the usual one; bursts are as many seconds of it."""
        now = self._clock.monotonic()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket()
            if len(self._buckets) > self._sweep_at:
                self._sweep(now)
        rate = self._rate if per_s is None else self._rate.at(per_s)
        if rate.longest_wait_s > longest_wait_s:
            rate = msgspec.structs.replace(rate, longest_wait_s=longest_wait_s)
        wait_s = bucket.turn(rate, now)
        if wait_s > rate.longest_wait_s:
            raise RateLimited(wait_s)
        return wait_s

    def _sweep(self, now: float) -> None:
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.idle(now)}
        self._sweep_at = max(_SWEEP, 2 * len(self._buckets))
