from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from landline.errors import DeadlinePassed, OutcomeUnknown, StoreUnavailable
from landline.stores.lane import Job, Lane
from support.clock import FakeClock


class Numbered(Job[int]):
    """Asks for its own number."""

    __slots__ = ("number",)

    def __init__(self, number: int, deadline: float = float("inf"), size: int = 0) -> None:
        super().__init__(deadline, size)
        self.number = number


class Workshop:
    """A lane whose thread can be held up."""

    def __init__(self, **settings: Any) -> None:
        self.batches: list[list[int]] = []
        self.settled: list[list[int]] = []
        self.way_is_free = threading.Event()
        self.way_is_free.set()
        self.busy = threading.Event()
        settings = {"batch": 100, "waiting": 100} | settings
        self.lane: Lane[Numbered] = Lane("test", FakeClock(), self.serve, settle=self.settle, **settings)

    def serve(self, batch: list[Numbered]) -> None:
        self.busy.set()
        assert self.way_is_free.wait(10)
        self.batches.append([job.number for job in batch])
        for job in batch:
            job.outcome = StoreUnavailable() if job.number < 0 else job.number

    def settle(self, batch: list[Numbered]) -> None:
        self.settled.append([job.number for job in batch if not job.answer.done()])

    def put(self, number: int, deadline: float = float("inf"), size: int = 0) -> asyncio.Future[int]:
        job = Numbered(number, deadline, size)
        self.lane.put(job)
        return job.answer

    async def held(self) -> asyncio.Future[int]:
        """A job that runs until `way_is_free` is set."""
        self.way_is_free.clear()
        self.busy.clear()
        job = self.put(0)
        assert await asyncio.to_thread(self.busy.wait, 10)
        return job


@pytest.fixture
async def workshop() -> AsyncIterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.way_is_free.set()
    await workshop.lane.close()


async def test_what_queues_in_one_turn_of_the_loop_is_one_batch(workshop: Workshop) -> None:
    answers = [workshop.put(number) for number in range(10)]
    assert await asyncio.gather(*answers) == list(range(10))
    assert workshop.batches == [list(range(10))]


async def test_what_queues_while_a_batch_runs_is_the_next_batch(workshop: Workshop) -> None:
    first = await workshop.held()
    rest = [workshop.put(number) for number in (1, 2, 3)]
    workshop.way_is_free.set()
    assert await asyncio.gather(first, *rest) == [0, 1, 2, 3]
    assert workshop.batches == [[0], [1, 2, 3]]


async def test_a_batch_has_its_bound_and_the_rest_keeps_its_order() -> None:
    workshop = Workshop(batch=3)
    answers = [workshop.put(number) for number in range(8)]
    assert await asyncio.gather(*answers) == list(range(8))
    assert workshop.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]
    await workshop.lane.close()


async def test_a_batch_is_settled_before_anybody_is_answered(workshop: Workshop) -> None:
    await asyncio.gather(workshop.put(1), workshop.put(2))
    assert workshop.settled == [[1, 2]]


async def test_a_refused_job_hurts_no_other(workshop: Workshop) -> None:
    answers = await asyncio.gather(workshop.put(1), workshop.put(-1), workshop.put(2), return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, StoreUnavailable, int]


async def test_settling_that_fails_leaves_nobody_without_an_answer() -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    workshop = Workshop()
    workshop.settle = lambda batch: 1 / 0  # type: ignore[assignment]
    failing: Lane[Numbered] = Lane(
        "test", FakeClock(), workshop.serve, batch=10, waiting=10, settle=lambda batch: workshop.settle(batch)
    )
    job = Numbered(7)
    failing.put(job)
    assert await job.answer == 7
    await failing.close()
    await workshop.lane.close()


async def test_a_full_queue_refuses_and_takes_again_once_there_is_room() -> None:
    workshop = Workshop(waiting=2)
    first = await workshop.held()
    waiting = [workshop.put(1), workshop.put(2)]
    with pytest.raises(StoreUnavailable):
        workshop.put(3)
    workshop.way_is_free.set()
    await asyncio.gather(first, *waiting)
    assert await workshop.put(4) == 4
    await workshop.lane.close()


async def test_bytes_count_only_while_they_wait() -> None:
    workshop = Workshop(waiting_bytes=10, batch=1)
    first = await workshop.held()
    late = workshop.put(1, time.monotonic() + 0.05, size=9)
    large = workshop.put(2, size=9)
    with pytest.raises(StoreUnavailable):
        workshop.put(3, size=1)
    with pytest.raises(DeadlinePassed):
        await late
    small = workshop.put(4, size=1)
    workshop.way_is_free.set()
    assert await asyncio.gather(first, large, small) == [0, 2, 4]
    assert await workshop.put(5, size=100) == 5
    await workshop.lane.close()


async def test_a_job_that_waits_is_withdrawn_at_its_deadline_and_never_served(workshop: Workshop) -> None:
    first = await workshop.held()
    late, patient = workshop.put(1, time.monotonic() + 0.05), workshop.put(2)
    with pytest.raises(DeadlinePassed):
        await late
    workshop.way_is_free.set()
    assert await asyncio.gather(first, patient) == [0, 2]
    assert workshop.batches == [[0], [2]]


async def test_the_earliest_deadline_rings_whoever_came_first(workshop: Workshop) -> None:
    await workshop.held()
    now = time.monotonic()
    later, sooner = workshop.put(1, now + 5), workshop.put(2, now + 0.05)
    with pytest.raises(DeadlinePassed):
        await sooner
    assert not later.done()


async def test_one_deadline_behind_the_other_is_noticed_too(workshop: Workshop) -> None:
    await workshop.held()
    now = time.monotonic()
    for late in [workshop.put(n, now + n * 0.02) for n in range(1, 8)]:
        with pytest.raises(DeadlinePassed):
            await late


async def test_a_job_that_runs_too_long_is_given_up_and_what_it_did_stays_done() -> None:
    workshop = Workshop(grace_s=0.05)
    workshop.way_is_free.clear()
    with pytest.raises(OutcomeUnknown):
        await workshop.put(1, time.monotonic() + 0.05)
    workshop.way_is_free.set()
    assert await workshop.put(2) == 2
    assert workshop.batches == [[1], [2]]
    await workshop.lane.close()


async def test_a_cancelled_answer_does_not_take_its_job_back(workshop: Workshop) -> None:
    first = await workshop.held()
    workshop.put(1).cancel()
    workshop.way_is_free.set()
    await first
    await workshop.put(2)
    assert workshop.batches == [[0], [1], [2]]


async def test_closing_finishes_what_waits_and_refuses_what_comes(workshop: Workshop) -> None:
    first = await workshop.held()
    waiting = workshop.put(1)
    closing = asyncio.create_task(workshop.lane.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable) as failure:
        workshop.put(2)
    assert not failure.value.retry
    assert not closing.done()
    workshop.way_is_free.set()
    await closing
    assert (first.result(), waiting.result()) == (0, 1)


async def test_closing_does_not_wait_for_a_job_that_was_withdrawn(workshop: Workshop) -> None:
    """Nothing is left that could end it."""
    late = workshop.put(1, time.monotonic() - 1)
    await asyncio.wait_for(workshop.lane.close(), 10)
    assert isinstance(late.exception(), DeadlinePassed)
    assert workshop.batches == []


async def test_a_closed_lane_can_be_closed_again_and_leaves_no_thread() -> None:
    before = threading.active_count()
    lanes = [Workshop().lane for _ in range(3)]
    for lane in (*lanes, *lanes):
        await lane.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "test"]
    assert threading.active_count() <= before + 3  # the executor's own
