"""The timer wheel: never early, at most a slot late, and cheap to change one's mind about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from landline.server.wheel import Wheel

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


def test_beat_goes_on_until_it_is_cancelled(loop: FakeLoop, wheel: Wheel) -> None:
    beats: list[float] = []
    timer = wheel.every(2, lambda: beats.append(loop.now))
    loop.advance(8.4)
    assert beats == [102, 104, 106, 108]
    timer.cancel()
    loop.advance(10)
    assert len(beats) == 4


def test_beat_can_cancel_itself(loop: FakeLoop, wheel: Wheel) -> None:
    beats: list[float] = []

    def once() -> None:
        beats.append(loop.now)
        timer.cancel()

    timer = wheel.every(1, once)
    loop.advance(5)
    assert len(beats) == 1
    assert len(wheel) == 0


def test_loop_that_was_held_up_skips_beats_instead_of_making_up_for_them(loop: FakeLoop, wheel: Wheel) -> None:
    beats: list[float] = []
    wheel.every(1, lambda: beats.append(loop.now))
    loop.now += 7.3
    loop.advance(0)
    assert beats == [107.3]
    loop.advance(1.5)
    assert beats == [107.3, 108.5]


def test_closed_wheel_forgets_everything(loop: FakeLoop, wheel: Wheel) -> None:
    fired: list[str] = []
    timer = wheel.after(1, lambda: fired.append("no"))
    wheel.every(1, lambda: fired.append("no"))
    wheel.close()
    timer.cancel()
    loop.advance(5)
    assert fired == []
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
