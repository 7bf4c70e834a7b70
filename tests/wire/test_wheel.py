"""The timer wheel: never early, at most a slot late, and cheap to change one's mind about."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from landline.wire.wheel import Pulse, Wheel

SLOT_S = 0.5


class FakeLoop:
    """A loop whose time is moved by hand; remembers what it was asked to call and when."""

    def __init__(self) -> None:
        self.now = 100.0
        self.armed: list[Any] = []
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any) -> Any:
        handle = Handle(self, when, callback)
        self.armed.append(handle)
        return handle

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(context)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [handle for handle in self.armed if handle.when <= end]:
            handle = min(due, key=lambda each: each.when)
            self.armed.remove(handle)
            self.now = max(self.now, handle.when)
            handle.callback()
        self.now = end


class Handle:
    def __init__(self, loop: FakeLoop, when: float, callback: Any) -> None:
        self.loop, self.when, self.callback = loop, when, callback

    def cancel(self) -> None:
        self.loop.armed.remove(self)


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def wheel(loop: FakeLoop) -> Wheel:
    return Wheel(loop, SLOT_S)  # type: ignore[arg-type]


@pytest.mark.parametrize("delay_s", [0, 0.1, 0.5, 0.7, 3, 59.9])
@pytest.mark.parametrize("offset_s", [0, 0.1, 0.49])
def test_deadline_is_never_early_and_at_most_one_slot_late(
    loop: FakeLoop, wheel: Wheel, delay_s: float, offset_s: float
) -> None:
    loop.advance(offset_s)
    fired: list[float] = []
    due = loop.now + delay_s
    wheel.after(delay_s, lambda: fired.append(loop.now))
    loop.advance(delay_s + 2 * SLOT_S)
    assert len(fired) == 1
    assert due <= fired[0] <= due + SLOT_S + 1e-9


def test_deadlines_of_one_slot_share_one_timer_of_the_loop(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[int] = []
    for number in range(1000):
        wheel.after(3.2 + number / 10_000, lambda number=number: fired.append(number))
    assert len(wheel) == 1000
    assert len(loop.armed) == 1
    loop.advance(4)
    assert sorted(fired) == list(range(1000))
    assert len(wheel) == 0


def test_idle_wheel_asks_the_loop_for_nothing(loop: FakeLoop, wheel: Wheel) -> None:
    assert loop.armed == []
    wheel.after(1, lambda: None)
    loop.advance(2)
    assert loop.armed == []


def test_cancelled_deadline_is_not_reached(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[str] = []
    timer = wheel.after(1, lambda: fired.append("cancelled"))
    wheel.after(1, lambda: fired.append("kept"))
    timer.cancel()
    timer.cancel()
    loop.advance(2)
    assert fired == ["kept"]


def test_earlier_deadline_set_later_comes_first(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[str] = []
    wheel.after(10, lambda: fired.append("late"))
    wheel.after(1, lambda: fired.append("early"))
    loop.advance(2)
    assert fired == ["early"]
    loop.advance(10)
    assert fired == ["early", "late"]


def test_deadline_can_cancel_another_of_the_same_slot(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[int] = []
    timers = []

    def first_one_wins(number: int) -> None:
        fired.append(number)
        for timer in timers:
            timer.cancel()

    timers += [wheel.after(1, lambda number=number: first_one_wins(number)) for number in range(5)]
    loop.advance(2)
    assert len(fired) == 1


def test_callback_that_raises_is_reported_and_harms_no_other(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[str] = []

    def broken() -> None:
        raise RuntimeError("broken")

    wheel.after(1, broken)
    wheel.after(1, lambda: fired.append("same slot"))
    wheel.after(2, lambda: fired.append("next"))
    loop.advance(3)
    assert sorted(fired) == ["next", "same slot"]
    assert [str(failure["exception"]) for failure in loop.failures] == ["broken"]


class Listener:
    """A member of a pulse."""

    def __init__(self) -> None:
        self.beats: list[float] = []

    def tick(self, now: float) -> None:
        self.beats.append(now)


def test_pulse_goes_on_until_a_member_leaves(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, member = Pulse(wheel, 2), Listener()
    circle = pulse.join(member)
    loop.advance(8.4)
    assert member.beats == [102, 104, 106, 108]
    circle.discard(member)
    loop.advance(10)
    assert len(member.beats) == 4
    assert len(wheel) == 0


def test_members_that_join_at_one_time_share_a_timer_and_others_do_not(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, members = Pulse(wheel, 10), [Listener() for _ in range(9)]
    for member in members:
        pulse.join(member)
        loop.advance(SLOT_S / 4)
    assert len(wheel) == 2
    joined = [100 + number * SLOT_S / 4 for number in range(9)]
    loop.advance(30)
    for at, member in zip(joined, members, strict=True):
        assert len(member.beats) == 3
        assert at + 10 - SLOT_S <= member.beats[0] <= at + 10 + SLOT_S
        assert [later - earlier for earlier, later in pairwise(member.beats)] == [10, 10]
    assert len(wheel) == 2


def test_who_joins_a_circle_that_was_just_told_is_told_an_interval_later(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, first, second = Pulse(wheel, 4), Listener(), Listener()
    pulse.join(first)
    loop.advance(4)
    pulse.join(second)
    loop.advance(4)
    assert (first.beats, second.beats) == ([104, 108], [108])
    assert len(wheel) == 1


def test_pulse_that_everybody_left_can_be_joined_again(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, member = Pulse(wheel, 1), Listener()
    pulse.join(member).discard(member)
    loop.advance(5)
    assert len(wheel) == 0
    pulse.join(member)
    loop.advance(1)
    assert member.beats == [106]


def test_member_can_make_others_leave(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, told = Pulse(wheel, 1), []

    class Last:
        def tick(self, now: float) -> None:
            told.append(now)
            circle.clear()

    for member in (Last(), Last()):
        circle = pulse.join(member)
    loop.advance(5)
    assert told == [101]


def test_member_that_raises_is_reported_and_harms_no_other(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, others = Pulse(wheel, 1), [Listener() for _ in range(3)]

    class Broken:
        def tick(self, now: float) -> None:
            raise RuntimeError("broken")

    for member in (others[0], Broken(), *others[1:]):
        pulse.join(member)
    loop.advance(2)
    assert [member.beats for member in others] == [[101, 102]] * 3
    assert [str(failure["exception"]) for failure in loop.failures] == ["broken"] * 2


def test_loop_that_was_held_up_skips_beats_instead_of_making_up_for_them(loop: FakeLoop, wheel: Wheel) -> None:
    pulse, member = Pulse(wheel, 1), Listener()
    pulse.join(member)
    loop.now += 7.3
    loop.advance(0)
    assert member.beats == [107.3]
    loop.advance(1.5)
    assert member.beats == [107.3, 108.5]


def test_closed_wheel_forgets_everything(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[str] = []
    timer = wheel.after(1, lambda: fired.append("no"))
    Pulse(wheel, 1).join(member := Listener())
    wheel.close()
    timer.cancel()
    loop.advance(5)
    assert fired == []
    assert member.beats == []
    assert loop.armed == []


async def test_wheel_turns_on_a_real_loop() -> None:
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop)
    reached = asyncio.Event()
    began = loop.time()
    wheel.after(0.1, reached.set)
    async with asyncio.timeout(5):
        await reached.wait()
    assert loop.time() - began >= 0.1 - 1e-3  # the loop's clock may be that coarse
    wheel.close()
