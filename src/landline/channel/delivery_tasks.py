"""What goes on for bots in the background: nobody waits for it but a stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import structlog

from landline.errors import LandlineError
from landline.ports import Clock

_log = structlog.get_logger(__name__)


class DeliveryTasks:
    """The tasks that are under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: set[asyncio.Task[object]] = set()

    def keep(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        """Begin a task, and hold it until it ends. What it raises is logged unless it is a `LandlineError`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, LandlineError):
            _log.error("delivery failed unexpectedly", exc_info=error)

    async def wait(self, until: float) -> None:
        """Until all tasks have ended, those that begin meanwhile among them, or the clock stands at `until`."""
        while self._tasks and (left_s := until - self._clock.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)

    async def cancel(self) -> None:
        """End all tasks."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
