"""The engine of the store in PostgreSQL: the lane that appends, the connections that read, and the node's memory.

Theory of operation. Appends, deletes, starts and purges go through one lane, a statement for each group (see `lane`).
Everything else takes one of a few connections for itself. What open streams need is found in the tail; it learns of
this node's appends before anybody else does, and of those of other nodes through doorbells (see `doorbells`), which
carry nothing but where a log stands: what it says is then read.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import asyncpg
import structlog

from landline.core.log import ConversationId
from landline.errors import DataDirectoryError, LandlineError, OutcomeUnknown, StoreError, StoreUnavailable
from landline.ports import Clock
from landline.stores.notes import Notes, Taken
from landline.stores.postgres import layout
from landline.stores.postgres.bounds import Bounds
from landline.stores.postgres.connections import AGAIN, KEEP_WHAT_IS_PROMISED, Connection, Link, is_away, is_pooled
from landline.stores.postgres.doorbells import Doorbells, Rung
from landline.stores.postgres.lane import Appends, TaskLane, Write
from landline.stores.tail import Tail

_BATCH = 4096
_CHECK_S = 1.0
_FIRST_PAUSE_S = 0.02

_USUAL = Bounds()

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class _Noting(Write[None]):
    """What the bot took, and when conversations were used (see `notes`)."""

    __slots__ = ("taken", "used")

    def __init__(self, taken: Sequence[Taken], used: Mapping[ConversationId, int], deadline: float) -> None:
        super().__init__(ConversationId(""), deadline)
        self.taken = taken
        self.used = used

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[_Noting]) -> None:  # type: ignore[override]  # a group is of one class
        for job in group:
            async with connection.transaction():
                await connection.execute("SELECT landline.enter($1)", lane)
                await connection.execute(
                    """
                    UPDATE landline.sends AS s SET taken = true
                    FROM unnest($1::text[], $2::integer[]) AS t (id, sequence)
                    JOIN landline.conversations AS c ON c.id = t.id
                    WHERE s.conversation << 28 | s.sequence = c.number << 28 | t.sequence AND NOT s.taken
                    """,
                    [conversation for conversation, _ in job.taken],
                    [sequence for _, sequence in job.taken],
                )
                await connection.execute(
                    """
                    UPDATE landline.conversations AS c SET used_ms = u.used_ms
                    FROM unnest($1::text[], $2::bigint[]) AS u (id, used_ms)
                    WHERE c.id = u.id AND c.used_ms < u.used_ms
                    """,
                    list(job.used),
                    list(job.used.values()),
                )
            job.outcome = None


class Engine:
    """What the subjects of the store have in common."""

    def __init__(
        self, dsn: str, clock: Clock, bounds: Bounds = _USUAL, *, listen_dsn: str | None = None, node: str | None = None
    ) -> None:
        """Connects to nothing yet. `listen_dsn` leads past a pooler to the primary itself, for doorbells."""
        self._dsn = dsn
        self._clock = clock
        self._bounds = bounds
        self._listen_dsn = listen_dsn
        self._node = node or secrets.token_hex(4)
        self._tail = Tail(bounds.tail_bytes)
        self._notes = Notes(self._put_notes)
        self._moved: Callable[[ConversationId], None] = lambda conversation: None
        self._records_changed: Callable[[], None] = lambda: None
        self._lane: TaskLane[Write[object]] | None = None
        self._free: asyncio.Queue[Link] | None = None
        self._waiting = 0
        self._under_way: set[asyncio.Task[Any]] = set()
        self._watched: dict[ConversationId, float] = {}
        """When a stream last looked at each conversation."""
        self._behind: dict[ConversationId, int] = {}
        """What other nodes moved, and has not been read yet."""
        self._catching_up: asyncio.Task[None] | None = None
        self.found_late = 0
        """What the sweep found that no doorbell had told."""

    async def open(self) -> None:
        pooled = await self._prepared()
        name = f"landline/{self._node}"
        self._appends = appends = Appends(self._dsn, name, self._clock, self._bounds, is_pooled=pooled)
        self._lane = lane = TaskLane(
            name,
            self._clock,
            appends.serve,
            batch=_BATCH,
            waiting=self._bounds.waiting,
            waiting_bytes=self._bounds.waiting_bytes,
            settle=self._settle,
        )
        appends.is_closing = lambda: lane.is_closing
        self._links = [
            Link(self._dsn, name, self._bounds, greet=_greet if pooled else _greet_own, is_pooled=pooled)
            for _ in range(self._bounds.readers)
        ]
        self._free = asyncio.Queue()
        for link in self._links:
            self._free.put_nowait(link)
        listen = self._listen_dsn or (None if pooled else self._dsn)
        self._doorbells = Doorbells(self._dsn, listen, self._node, self._bounds, self._heard, self._look, self._show)
        self._doorbells.start(is_pooled=pooled)
        if self._doorbells.is_polling:
            _log.warning("a pooler stands before the database: set store_listen to hear of other nodes at once")

    async def _prepared(self) -> bool:
        """Bring the database up to date; whether a pooler stands in between."""
        link = Link(self._dsn, f"landline/{self._node}", self._bounds)
        try:
            connection = await link.connection()
            await layout.prepare(connection)
            return await is_pooled(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
            raise DataDirectoryError(f"The database cannot be used: {error or type(error).__name__}") from error
        finally:
            await link.close()

    async def close(self) -> None:
        if self._lane is not None:
            await self._notes.finish()
        lane, self._lane = self._lane, None
        if lane is None:
            return
        await lane.close()
        self._free = None
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._doorbells.close()
        if self._catching_up is not None:
            await asyncio.wait([self._catching_up])
        await self._appends.close()
        for link in self._links:
            await link.close()

    async def check(self) -> None:
        lane = self._writing()
        if lane.is_idle and self._appends.trouble is None and self._appends.is_open:
            return
        try:
            await self._put(_Noting((), {}, self._clock.monotonic() + _CHECK_S))
        except StoreError as error:
            why = self._appends.trouble or "the database does not answer"
            raise StoreUnavailable(f"Storage cannot be written: {why}") from error

    # Writing, in order.

    def _writing(self) -> TaskLane[Write[object]]:
        if self._lane is None:
            raise StoreUnavailable("Storage is not open; nothing was stored", retry=False)
        return self._lane

    def _put(self, job: Write[T]) -> asyncio.Future[T]:
        self._writing().put(job)  # type: ignore[arg-type]  # a lane carries jobs with answers of many types
        return job.answer

    def _put_notes(self, taken: Sequence[Taken], used: Mapping[ConversationId, int]) -> asyncio.Future[None]:
        return self._put(_Noting(taken, used, math.inf))

    def _settle(self, batch: list[Write[object]]) -> None:
        """A batch is durable: the tail learns all of it before the first stream looks."""
        moved: dict[ConversationId, None] = {}
        for job in batch:
            if not isinstance(job.outcome, LandlineError) and self._learn(job):
                moved[job.conversation] = None
        for conversation in moved:
            self._moved(conversation)

    def _learn(self, job: Write[object]) -> bool:
        """Learn of what was written; whether streams are to look."""
        return False

    # Reading, and writing without an order.

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """What is read, from a database that may be away for a moment. Raises `StoreUnavailable`.

        It is read to the end without its caller, too: to break it off would cost the connection."""
        return await self._go_on(self._read(work))

    async def _read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        until = self._clock.monotonic() + self._bounds.patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with self._link(until) as link:
                    return await link.run(work)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                if not is_away(error):
                    _log.error("a read failed", error=repr(error), exc_info=error)
                    raise StoreUnavailable from error
                if self._free is None or self._clock.monotonic() + pause_s >= until:
                    raise StoreUnavailable from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._bounds.again_s)

    async def change(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The same for what writes, in one transaction that goes on without its caller. Raises `StoreUnavailable` where
        nothing was stored, `OutcomeUnknown` where the connection was lost while it was under way."""
        self._writing()
        return await self._go_on(self._change(work))

    async def _go_on(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _change(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        until = self._clock.monotonic() + self._bounds.patience_s
        pause_s = _FIRST_PAUSE_S
        while True:
            begun = False

            async def transact(connection: Connection) -> T:
                nonlocal begun
                begun = True
                async with connection.transaction():
                    return await work(connection)

            try:
                async with self._link(until) as link:
                    return await link.run(transact)
            except AGAIN:
                continue
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                if not is_away(error):
                    _log.error("a write failed", error=repr(error), exc_info=error)
                    raise StoreUnavailable from error
                if begun:
                    raise OutcomeUnknown from error
                if self._free is None or self._clock.monotonic() + pause_s >= until:
                    raise StoreUnavailable from error
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._bounds.again_s)

    @contextlib.asynccontextmanager
    async def _link(self, until: float) -> AsyncIterator[Link]:
        """A connection for oneself."""
        free = self._free
        if free is None:
            raise StoreUnavailable("Storage is not open", retry=False)
        if self._waiting >= self._bounds.waiting:
            raise StoreUnavailable("Storage is overloaded; nothing was stored")
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, until - self._clock.monotonic())):
                link = await free.get()
        except TimeoutError as error:
            raise StoreUnavailable("Storage is overloaded; nothing was stored") from error
        finally:
            self._waiting -= 1
        try:
            yield link
        finally:
            free.put_nowait(link)

    # What other nodes did.

    def _heard(self, rung: Sequence[Rung]) -> None:
        """Doorbells came in."""

    def _show(self, conversation: ConversationId, activity: bytes) -> None:
        """Another node shows a transient."""

    async def _look(self) -> None:
        """Ask where live conversations stand, and what is kept by name."""


async def _greet(connection: Connection) -> None:
    await connection.execute(KEEP_WHAT_IS_PROMISED)


async def _greet_own(connection: Connection) -> None:
    """Where the session is ours alone. Every statement finds few rows by an index, also while the statistics of a table
    that has grown say otherwise, and none is worth compiling."""
    await _greet(connection)
    await connection.execute("SET jit = off; SET enable_seqscan = off; SET enable_bitmapscan = off")
