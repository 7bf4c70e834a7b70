from __future__ import annotations

import asyncio
import time

import pytest

from landline.channel import throttle as throttling
from landline.channel.throttle import Rates, Throttle
from landline.core.rate import Rate
from landline.errors import RateLimited

ONE = Rate(per_s=1000, burst=1)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


def throttle(clock: Clock, *, sends: Rate = ONE, polls: Rate = ONE, starts: Rate = ONE) -> Throttle:
    return Throttle(Rates(sends, polls, starts), clock)


async def test_conversations_do_not_use_up_each_others_turns() -> None:
    clock = Clock()
    limited = throttle(clock, sends=Rate(per_s=1, burst=2))
    conversations = ("bot", "a"), ("bot", "b"), ("other bot", "a")
    for conversation in conversations * 2:
        limited.send(conversation)
    for conversation in conversations:
        with pytest.raises(RateLimited):
            limited.send(conversation)


async def test_sends_polls_and_starts_are_counted_apart() -> None:
    limited = throttle(Clock(), sends=Rate(1, 1), polls=Rate(1, 1), starts=Rate(1, 1))
    limited.send(("bot", "a"))
    await limited.poll(("bot", "a"), 10.0)
    await limited.start("a", 10.0)


async def test_a_poll_over_the_rate_waits_for_its_turn() -> None:
    limited = throttle(Clock(), polls=Rate(per_s=20, burst=1, longest_wait_s=1))
    began = time.monotonic()
    await asyncio.gather(*(limited.poll(("bot", "a"), 10.0) for _ in range(4)))
    assert time.monotonic() - began >= 0.15


async def test_nobody_is_made_to_wait_beyond_their_deadline() -> None:
    clock = Clock()
    limited = throttle(clock, starts=Rate(per_s=1, burst=1, longest_wait_s=10))
    await limited.start("site", 0.5)
    with pytest.raises(RateLimited) as refused:
        await limited.start("site", 0.5)
    assert refused.value.wait_s == pytest.approx(1.0)
    clock.now = 1.0
    await limited.start("site", 1.0)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttling, "_SWEEP", 10)
    clock = Clock()
    limited = throttle(clock, sends=Rate(per_s=1, burst=1))
    limited._sends._sweep_at = 10
    for number in range(1000):
        clock.now = float(2 * number)
        limited.send(("bot", f"conversation {number}"))
    assert len(limited._sends._buckets) <= 11
