"""The lane to PostgreSQL: the queue of `stores.lane`, served by a coroutine instead of a thread.

Theory of operation. What queued while the last statement was under way is the next batch. A batch is cut into groups of
one kind, each of which is one statement and one commit; a job never overtakes another of its conversation.

The connection may be lost while a statement is under way, and then nobody knows whether it was committed. Each lane has
a row in the database, which each of its transactions locks. The next connection deletes that row: this waits for what
is still running, and what comes later finds no row and is refused. Only then is it asked which operations are there,
each by its number; the others surely are not, and are done again. So an unknown commit is neither repeated nor lost.
"""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import ClassVar, TypeVar

import asyncpg
import structlog

from landline.core.log import ConversationId
from landline.errors import DeadlinePassed, LandlineError, OutcomeUnknown, StoreUnavailable
from landline.ports import Clock
from landline.stores.lane import COMMIT_GRACE_S, Job, Lane
from landline.stores.postgres.bounds import Bounds
from landline.stores.postgres.connections import AGAIN, KEEP_WHAT_IS_PROMISED, Connection, Link, is_away

T = TypeVar("T")
J = TypeVar("J", bound=Job)  # type: ignore[type-arg]  # a lane carries jobs with answers of many types

_FIRST_PAUSE_S = 0.02
_FENCED = "LL001"
"""What `landline.enter` raises."""

_operations = itertools.count(secrets.randbits(62))
"""Numbers of 64 bits that no other process gives, as far as chance goes: they are only looked for in conversations that
the lost statement named."""

_log = structlog.get_logger(__name__)


class Write(Job[T]):
    """Something to be written. Jobs of one class become one statement."""

    __slots__ = ("claim", "comes_first", "conversation", "operation")

    most: ClassVar[int] = 1
    """How many may be in one statement."""

    claim: Hashable
    """At most one of a statement has it."""

    comes_first: bool
    """Whether it has to see what others of its conversation wrote, and so is the first of them in a statement."""

    def __init__(self, conversation: ConversationId, deadline: float, size: int = 0) -> None:
        super().__init__(deadline, size)
        self.conversation = conversation
        self.claim = None
        self.comes_first = False
        self.operation = next(_operations)

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[Write[T]]) -> None:
        """Write all of them in one transaction, and give each its outcome."""
        raise NotImplementedError

    @classmethod
    async def look_for(cls, connection: Connection, group: Sequence[Write[T]]) -> None:
        """Give those an outcome that were written. By default it does no harm to write them again."""


class TaskLane(Lane[J]):
    """A lane whose batches are served on the event loop."""

    def __init__(
        self,
        name: str,
        clock: Clock,
        serve: Callable[[list[J]], Awaitable[None]],
        *,
        batch: int,
        waiting: int,
        waiting_bytes: int,
        settle: Callable[[list[J]], None],
    ) -> None:
        """As `Lane`; `serve` must not raise."""
        self._serve_batch = serve
        self._task: asyncio.Task[None] | None = None
        super().__init__(
            name,
            clock,
            lambda batch: None,
            batch=batch,
            waiting=waiting,
            waiting_bytes=waiting_bytes,
            settle=settle,
        )

    @property
    def is_closing(self) -> bool:
        """Whether nobody waits for the database to come back."""
        return self._closing

    def _begin(self, name: str) -> None:
        pass

    def _hand(self, batch: list[J]) -> None:
        self._task = self._loop.create_task(self._run(batch))

    async def _run(self, batch: list[J]) -> None:
        await self._serve_batch(batch)
        self._back(batch)

    async def _end(self) -> None:
        if self._task is not None:
            await self._task


class Appends:
    """What serves the lane: its connection, and the row in the database that stands for it."""

    def __init__(self, dsn: str, name: str, clock: Clock, bounds: Bounds, *, is_pooled: bool) -> None:
        """Connects to nothing yet."""
        self._clock = clock
        self._bounds = bounds
        self._link = Link(dsn, name, bounds, greet=self._greet, is_pooled=is_pooled)
        self._lane = 0
        self._left: int | None = None
        """The lane whose connection was lost with a statement under way."""
        self.trouble: str | None = None
        """Why the last write failed, if it did."""
        self.is_closing: Callable[[], bool] = lambda: False

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as is known."""
        return self._link.is_open

    async def close(self) -> None:
        """Take the lane's row away and let go of the connection."""
        if self._link.is_open:
            try:
                await self._link.run(lambda connection: connection.execute(_FORGET, self._lane))
            except Exception as error:  # noqa: BLE001  # it is the end, and the row goes with time
                _log.debug("a lane was left behind", error=repr(error))
        await self._link.close()

    async def _greet(self, connection: Connection) -> None:
        await connection.execute(KEEP_WHAT_IS_PROMISED)
        lane = secrets.randbits(62)
        await connection.execute("DELETE FROM landline.lanes WHERE opened_at < now() - interval '30 days'")
        await connection.execute("INSERT INTO landline.lanes (lane) VALUES ($1)", lane)
        self._lane = lane

    async def serve(self, batch: Sequence[Write[object]]) -> None:
        """Write a batch: all of it has an outcome afterwards."""
        rest = list(batch)
        while rest:
            group, rest = _next_group(rest, self._bounds.group_bytes)
            await self._serve_group(group)

    async def _serve_group(self, group: list[Write[object]]) -> None:
        pause_s = _FIRST_PAUSE_S
        while group := self._in_time(group):
            try:
                group = await self._tried(group)
            except Exception as error:  # noqa: BLE001
                # The outermost edge of the lane: whoever waits must hear of it, and the next group have its chance.
                if not is_away(error):
                    self._complain(error)
                    await self._one_by_one(group)
                    return
                self._complain(error)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, self._bounds.again_s)
        if self.trouble is not None and self._link.is_open:
            self.trouble = None
            _log.warning("storage works again")

    def _in_time(self, group: list[Write[object]]) -> list[Write[object]]:
        """Those that may still be written. Nothing is known to be stored of the others, unless a commit is in doubt."""
        now = self._clock.monotonic() - (0 if self._left is None else COMMIT_GRACE_S)
        left = []
        for job in group:
            if job.deadline > now and not self.is_closing_away:
                left.append(job)
            else:
                job.outcome = self._too_late()
                if not job.answer.done():
                    job.answer.set_exception(job.outcome)
        return left

    @property
    def is_closing_away(self) -> bool:
        """Whether the store is being closed while the database is away."""
        return self.trouble is not None and not self._link.is_open and self.is_closing()

    def _too_late(self) -> LandlineError:
        if self._left is not None:
            return OutcomeUnknown()
        return StoreUnavailable() if self.is_closing_away else DeadlinePassed()

    async def _tried(self, group: list[Write[object]]) -> list[Write[object]]:
        """What is left of the group after one attempt."""
        connection = await self._link.connection()
        if self._left is not None:
            group = await self._settled(group, self._left)
            self._left = None
            if not group:
                return []
        lane = self._lane
        try:
            await self._link.run(lambda connection: type(group[0]).write(connection, lane, self._clock.now_ms(), group))
        except AGAIN:
            return group
        except asyncpg.PostgresError as error:
            if error.sqlstate == _FENCED:
                self._link.drop()  # somebody took the row for one of a node that died
                return group
            if is_away(error):
                self._left = lane
            raise
        except BaseException:
            self._left = lane
            raise
        assert connection is not None
        return []

    async def _settled(self, group: list[Write[object]], left: int) -> list[Write[object]]:
        """What is left of the group once it is known what was committed before the connection was lost."""

        async def look(connection: Connection) -> None:
            await connection.execute(_FORGET, left)
            for job in group:
                job.outcome = _NOTHING
            await type(group[0]).look_for(connection, group)

        await self._link.run(look)
        missing = [job for job in group if job.outcome is _NOTHING]
        _log.warning("a commit was in doubt", stored=len(group) - len(missing), again=len(missing))
        return missing

    async def _one_by_one(self, group: list[Write[object]]) -> None:
        """One statement was refused: what of it is wrong must not take the others with it."""
        if len(group) > 1:
            for job in group:
                await self._serve_group([job])
            return
        group[0].outcome = StoreUnavailable()

    def _complain(self, error: Exception) -> None:
        """Once per trouble, not once per attempt: a database may be away for hours."""
        ours = None if is_away(error) else error
        if self.trouble is None or ours is not None:
            _log.error("storage failed", error=repr(error), exc_info=ours)
        self.trouble = "the database is away" if is_away(error) else "see the server's log"


_FORGET = "DELETE FROM landline.lanes WHERE lane = $1"

_NOTHING = LandlineError("not found")


def _next_group(jobs: list[Write[object]], most_bytes: int) -> tuple[list[Write[object]], list[Write[object]]]:
    """The jobs that are one statement with the first, and the rest, in their order."""
    kind = type(jobs[0])
    group: list[Write[object]] = []
    rest: list[Write[object]] = []
    held: set[ConversationId] = set()
    present: set[Hashable] = set()
    size = 0
    for job in jobs:
        fits = len(group) < kind.most and (size + job.size <= most_bytes or not group)
        is_met = job.claim in present or (job.comes_first and job.conversation in present)
        if type(job) is not kind or not fits or is_met or job.conversation in held:
            rest.append(job)
            held.add(job.conversation)
            continue
        group.append(job)
        size += job.size
        present.add(job.conversation)
        if job.claim is not None:
            present.add(job.claim)
    return group, rest
