"""A lane: one thread that serves jobs in batches, and the queue of those that wait for it.

Theory of operation. A batch is whatever queued while the batch before it ran: no timer, no fixed size. The list of
waiting jobs belongs to the event loop alone and is handed to the thread whole; when the thread is done, the batch comes
back by one `call_soon_threadsafe`. So a job has one owner at any time, the loop or the thread, and nothing is locked.
(Letting the thread swap a shared list can lose a job that is being added, and answer it all the same.)

There is one timer per lane, not one per job: it rings at the earliest deadline and looks at all of them.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import ClassVar, Generic, TypeVar

from landline.errors import DeadlinePassed, LandlineError, OutcomeUnknown, StoreError, StoreUnavailable
from landline.ports import Clock

COMMIT_GRACE_S = 2.0
"""How long after its deadline a job whose batch is running is still waited for: docs/explanation/design-facts.md."""

_GRAIN_S = 0.05
"""How late a deadline may be noticed: ten thousand different ones then cost twenty looks a second, not ten thousand."""

T = TypeVar("T")


class Job(Generic[T]):
    """Something to be done on a lane's thread, which writes `outcome`: what was asked for, or why it was refused."""

    __slots__ = ("answer", "deadline", "outcome", "size")

    given_up: ClassVar[type[StoreError]] = OutcomeUnknown
    """What a job is answered that ran too long."""

    answer: asyncio.Future[T]
    outcome: T | LandlineError

    def __init__(self, deadline: float = math.inf, size: int = 0) -> None:
        """`deadline` is on the scale of `Clock.monotonic`; `size` is in bytes, as far as it matters."""
        self.deadline = deadline
        self.size = size


J = TypeVar("J", bound=Job)  # type: ignore[type-arg]  # a lane carries jobs with answers of many types


class Lane(Generic[J]):
    """A thread and its queue. Jobs are served, and answered, in the order in which they were put."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        serve: Callable[[list[J]], None],
        *,
        batch: int,
        waiting: int,
        waiting_bytes: int = 1 << 62,
        grace_s: float = COMMIT_GRACE_S,
        settle: Callable[[list[J]], None] = lambda batch: None,
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the thread `name`; to be called on the event loop.

        `serve` runs on the thread, gives every job of a batch its outcome, and must not raise. `settle` then runs on
        the loop, right before the batch is answered; `rest` on the thread, right after. A batch has at most `batch`
        jobs; at most `waiting` wait, and no more once those that wait have `waiting_bytes`. One whose batch is running
        is waited for until `grace_s` after its deadline.
        """
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._serve = serve
        self._settle = settle
        self._rest = rest
        self._batch = batch
        self._most_waiting = waiting
        self._most_bytes = waiting_bytes
        self._grace_s = grace_s
        self._waiting: list[J] = []
        self._bytes = 0
        self._running: list[J] = []
        self._gathering = False
        self._closing = False
        self._idle = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf
        self._begin(name)

    # A lane that works in another way than by a thread has these three of its own.

    def _begin(self, name: str) -> None:
        self._handed: SimpleQueue[list[J] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def _hand(self, batch: list[J]) -> None:
        self._handed.put(batch)

    async def _end(self) -> None:
        self._handed.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being served and nothing waits."""
        return not self._running and not self._waiting

    def put(self, job: J) -> None:
        """Queue `job`; its `answer` is a future from here on. Cancelling that does not take the job back.

        Raises `StoreUnavailable` when the queue is full or the lane is closed.
        """
        waiting = self._waiting
        if self._closing:
            raise StoreUnavailable("Storage is closed; nothing was stored", retry=False)
        if len(waiting) >= self._most_waiting or self._bytes >= self._most_bytes:
            raise StoreUnavailable("Storage is overloaded; nothing was stored")
        job.answer = self._loop.create_future()
        waiting.append(job)
        self._bytes += job.size
        if job.deadline < self._alarm_at:
            self._set_alarm(job.deadline)
        if not self._gathering and not self._running:
            # Whatever else this turn of the loop has to put goes into the same batch.
            self._gathering = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._gathering = False
        if self._alarm_at <= self._clock.monotonic():
            self._ring()
        if self._running:
            return
        if self._waiting:
            self._running, self._waiting = self._waiting[: self._batch], self._waiting[self._batch :]
            self._bytes = sum([job.size for job in self._waiting]) if self._waiting else 0
            self._hand(self._running)
        else:
            self._idle.set()

    def _work(self) -> None:
        """The thread."""
        while (batch := self._handed.get()) is not None:
            self._serve(batch)
            self._loop.call_soon_threadsafe(self._back, batch)
            self._rest()

    def _back(self, batch: list[J]) -> None:
        self._running = []
        self._hand_over()  # the thread works while the loop answers
        try:
            self._settle(batch)
        finally:
            for job in batch:
                if not job.answer.done():
                    _answer(job)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(at - self._clock.monotonic(), self._ring)

    def _ring(self) -> None:
        """Withdraw what waited too long, give up what ran too long, and set the alarm for the next of them."""
        now = self._clock.monotonic()
        self._alarm_at = math.inf
        in_time = []
        for job in self._waiting:
            if job.deadline > now:
                in_time.append(job)
            elif not job.answer.done():
                job.answer.set_exception(DeadlinePassed())
        self._waiting = in_time
        self._bytes = sum(job.size for job in in_time)
        for job in self._running:
            if not job.answer.done() and job.deadline + self._grace_s <= now:
                job.answer.set_exception(job.given_up())
        dues = [job.deadline for job in in_time]
        dues += [job.deadline + self._grace_s for job in self._running if not job.answer.done()]
        if (next_due := min(dues, default=math.inf)) < math.inf:
            self._set_alarm(max(next_due, now + _GRAIN_S))

    async def close(self) -> None:
        """Take no more jobs, finish those there are, end the thread. May be repeated."""
        self._closing = True
        self._idle.clear()
        self._hand_over()
        await self._idle.wait()
        if self._alarm is not None:
            self._alarm.cancel()
        await self._end()


def _answer(job: Job[T]) -> None:
    if isinstance(job.outcome, LandlineError):
        job.answer.set_exception(job.outcome)
    else:
        job.answer.set_result(job.outcome)
