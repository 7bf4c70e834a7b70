"""What runs inside of a limit ends in time, and what ends in time is left alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from landline.wire.timeout import WheelTimeout
from landline.wire.wheel import Wheel


@pytest.fixture
async def wheel() -> AsyncIterator[Wheel]:
    wheel = Wheel(asyncio.get_running_loop(), 0.01)
    yield wheel
    wheel.close()


async def for_ever() -> None:
    await asyncio.wait_for(asyncio.Event().wait(), 10)


async def test_what_takes_too_long_is_ended_and_not_too_early(wheel: Wheel) -> None:
    began = time.monotonic()
    with pytest.raises(TimeoutError) as raised, WheelTimeout(wheel, wheel.time() + 0.1):
        await for_ever()
    assert time.monotonic() - began >= 0.09
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def test_what_is_in_time_leaves_nothing_on_the_wheel(wheel: Wheel) -> None:
    with WheelTimeout(wheel, wheel.time() + 0.02):
        await asyncio.sleep(0)
    assert len(wheel) == 0
    await asyncio.sleep(0.06)  # past the limit: whoever goes on is not ended for what is over


async def test_a_limit_that_was_moved_away_does_not_end_anything_at_its_first_time(wheel: Wheel) -> None:
    async def moved() -> None:
        with WheelTimeout(wheel, wheel.time() + 0.03) as limit:
            limit.move(wheel.time() + 0.2)
            await for_ever()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await moved()
    assert time.monotonic() - began >= 0.19


async def test_a_limit_that_was_moved_closer_ends_it_sooner(wheel: Wheel) -> None:
    async def moved() -> None:
        with WheelTimeout(wheel, wheel.time() + 60) as limit:
            limit.move(wheel.time() + 0.02)
            await for_ever()

    with pytest.raises(TimeoutError):
        await moved()


async def test_a_limit_that_was_lifted_ends_nothing_until_there_is_one_again(wheel: Wheel) -> None:
    async def lifted() -> None:
        with WheelTimeout(wheel, wheel.time() + 0.02) as limit:
            limit.move(None)
            await asyncio.sleep(0.1)
            limit.move(wheel.time() + 0.1)
            await for_ever()

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await lifted()
    assert time.monotonic() - began >= 0.19


async def test_a_limit_without_a_time_is_none(wheel: Wheel) -> None:
    with WheelTimeout(wheel, None):
        await asyncio.sleep(0.03)
    assert len(wheel) == 0


async def test_a_failure_is_not_covered_by_the_limit(wheel: Wheel) -> None:
    with pytest.raises(ValueError, match="its own"), WheelTimeout(wheel, wheel.time() + 60):
        raise ValueError("its own")
    assert len(wheel) == 0


async def test_who_is_cancelled_by_somebody_else_stays_cancelled(wheel: Wheel) -> None:
    async def limited(at: float) -> None:
        with WheelTimeout(wheel, at):
            await for_ever()

    for after_s in (60.0, 0.0):  # the second one's time has come as well
        task = asyncio.ensure_future(limited(wheel.time() + after_s))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_whoever_was_ended_is_not_left_cancelled(wheel: Wheel) -> None:
    with pytest.raises(TimeoutError), WheelTimeout(wheel, wheel.time()):
        await for_ever()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)
