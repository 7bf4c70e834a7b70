"""The engine of the store: its file, the thread that writes it, and the thread that reads it.

Theory of operation. One thread writes: whatever queued while the last group was committed is the next group, one
transaction and one sync for all of it (see `lane`). One thread reads: up to 64 queued reads per hop. The loop itself
never touches the disk; what open streams need it finds in the tail, which learns of an append before anybody else does.

A full disk fails the group that met it, and the next group tries again. After a failed sync or a corrupt page nothing
is written until a restart, because the file can no longer be trusted to keep what it is given; reads go on.

What was erased is overwritten in the database, and then stands in the write-ahead log still: that is emptied soon after
(see `scrub`).
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

import apsw
import structlog

from landline.core.log import Accepted, ConversationId, Entry
from landline.errors import LandlineError, OutcomeUnknown, StoreError, StoreUnavailable
from landline.ports import Clock
from landline.stores.directory import STORE_FILE, Directory
from landline.stores.lane import Job, Lane
from landline.stores.notes import Notes, Taken
from landline.stores.sqlite import layout
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.connections import Reader, Writer
from landline.stores.sqlite.scrub import Scrubbing
from landline.stores.sqlite.unindexed import Unindexed
from landline.stores.tail import Tail

_USUAL = Bounds()

_GROUP = 4096
_READS = 64

_FORCED = 8
"""At so many times its usual length the write-ahead log must start over: the writer waits until no reader is in it."""

_STEP_ASIDE_S = 0.1
"""How long it waits for that. A batch of reads takes milliseconds; where one hangs, the next group is not held up."""

_CHECK_S = 1.0
"""Whoever asks whether writes work wants to know it soon."""

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class _Write(Job[T]):
    """Anything to be written. `work` runs inside the group's transaction; what it raises is its own outcome. `settled`
    is told of any other outcome once it is durable, in its turn among the appends, whoever still waits for it."""

    __slots__ = ("settled", "work")

    def __init__(
        self, work: Callable[[Writer], T], deadline: float, settled: Callable[[T], None] = lambda outcome: None
    ) -> None:
        super().__init__(deadline)
        self.work = work
        self.settled = settled

    def run(self, writer: Writer) -> None:
        self.outcome = self.work(writer)


class Appending(Job[Accepted | None]):
    """Whatever adds to a log. `run`, inside the group's transaction as well, leaves behind `entry`, which the tail
    learns: what was added, or None."""

    __slots__ = ("conversation", "entry")

    entry: Entry | None

    def __init__(self, conversation: ConversationId, deadline: float, size: int) -> None:
        super().__init__(deadline, size)
        self.conversation = conversation

    def run(self, writer: Writer) -> None:
        """Do it. What it raises is its outcome."""
        raise NotImplementedError


class _Read(Job[T], Generic[T]):
    """Anything to be read. Nobody has to wonder about the outcome of a read that took too long."""

    __slots__ = ("work",)

    given_up = StoreUnavailable

    def __init__(self, work: Callable[[Reader], T], deadline: float) -> None:
        super().__init__(deadline)
        self.work = work


class Engine:
    """What the subjects of a store have in common: `_read` and `_write`, whose work runs on the threads, and on the
    loop the tail and the notes."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        bounds: Bounds = _USUAL,
        *,
        connect: layout.Connect = layout.connect,
    ) -> None:
        """Touches nothing yet."""
        self._directory = directory
        self._clock = clock
        self._connect = connect
        self._bounds = bounds
        self._tail = Tail(bounds.tail_bytes)
        self._notes = Notes(self._put_notes)
        self._moved: Callable[[ConversationId], None] = lambda conversation: None
        self._writes: Lane[Appending | _Write[object]] | None = None
        self._reads: Lane[_Read[object]] | None = None
        self._final = False
        """Set by whichever thread meets it: nothing is written any more."""
        self._trouble: str | None = None
        """Why the last write failed, if it did."""
        self._snapshot = threading.Lock()
        """Held by the reader while it looks at a snapshot, which keeps the write-ahead log from starting over."""
        self._wal_pages = 0
        self._moved_pages = 0
        self._erasures = 0
        """Of the writer, as far as the loop has seen."""
        self._is_to_scrub = False
        """For the writer's thread: between two groups."""

    async def open(self) -> None:
        self._directory.take()
        try:
            await asyncio.to_thread(self._open_file)
        except BaseException:
            self._directory.release()
            raise
        self._loop = asyncio.get_running_loop()
        self._scrubbing = Scrubbing(self._loop, self._put_scrub, self._bounds)
        self._writes = Lane(
            "landline-writer",
            self._clock,
            self._serve_writes,
            batch=_GROUP,
            waiting=self._bounds.waiting,
            waiting_bytes=self._bounds.waiting_bytes,
            settle=self._settle,
            rest=self._rest,
        )
        self._reads = Lane(
            "landline-reader", self._clock, self._serve_reads, batch=_READS, waiting=self._bounds.waiting
        )

    def _open_file(self) -> None:
        path = self._directory.private_file(STORE_FILE)
        connection = layout.open_writer(path, self._connect, self._clock.now_ms())
        try:
            recent = Unindexed(layout.unindexed(connection, path))
            self._reader = Reader(layout.open_reader(path, self._connect), recent, self._bounds)
            self._writer = Writer(connection, recent, self._bounds)
        except BaseException:
            connection.close()
            raise
        connection.set_wal_hook(self._written)

    async def close(self) -> None:
        if self._writes is not None:
            await self._notes.finish()
        reads, writes = self._reads, self._writes
        self._reads = self._writes = None
        if reads is None or writes is None:
            return
        await reads.close()
        await writes.close()
        self._scrubbing.close()
        try:
            await asyncio.to_thread(self._close_file)
        finally:
            self._directory.release()

    def _close_file(self) -> None:
        connection = self._writer.connection
        self._reader.connection.close()
        self._serve_writes([_Write(Writer.index, math.inf)])  # who opens it next finds all of it in the index
        if not self._checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE):
            # SQLite would try once more, and might believe that it worked. The write-ahead log is what is sure.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.close()

    async def check(self) -> None:
        if self._writing().is_idle and self._trouble is None:
            return
        try:
            await self._write(Writer.rewrite, patience_s=_CHECK_S)
        except StoreError as error:
            raise StoreUnavailable(f"Storage cannot be written: {self._trouble or 'the disk is stuck'}") from error

    # The loop's side of the lanes.

    def _writing(self) -> Lane[Appending | _Write[object]]:
        if self._writes is None:
            raise StoreUnavailable("Storage is not open; nothing was stored", retry=False)
        if self._final:
            raise _read_only()
        return self._writes

    async def _write(
        self,
        work: Callable[[Writer], T],
        settled: Callable[[T], None] = lambda outcome: None,
        patience_s: float | None = None,
    ) -> T:
        job = _Write(work, self._clock.monotonic() + (patience_s or self._bounds.patience_s), settled)
        self._writing().put(job)  # type: ignore[arg-type]  # a lane carries jobs with answers of many types
        return await job.answer

    def _put_notes(self, taken: Sequence[Taken], used: Mapping[ConversationId, int]) -> asyncio.Future[None]:
        job = _Write(lambda writer: writer.note(taken, used), math.inf)
        self._writing().put(job)  # type: ignore[arg-type]  # a lane carries jobs with answers of many types
        return job.answer

    def _put_scrub(self) -> None:
        """Between two groups, and so behind one: it is empty if nobody has anything to write."""

        def scrub(writer: Writer) -> None:
            self._is_to_scrub = True

        if self._writes is not None and not self._final:
            try:
                self._writes.put(_Write(scrub, math.inf))
            except StoreUnavailable:
                self._scrubbing.failed()

    async def _read(self, work: Callable[[Reader], T]) -> T:
        if self._reads is None:
            raise StoreUnavailable("Storage is not open", retry=False)
        job = _Read(work, self._clock.monotonic() + self._bounds.patience_s)
        self._reads.put(job)  # type: ignore[arg-type]  # a lane carries jobs with answers of many types
        return await job.answer

    def _settle(self, group: list[Appending | _Write[object]]) -> None:
        """A group is durable: the tail learns all of it before the first stream looks."""
        moved: dict[ConversationId, None] = {}
        for job in group:
            if isinstance(job, Appending):
                if type(job.outcome) is Accepted and job.entry is not None:
                    self._tail.append(job.conversation, job.entry)
                    moved[job.conversation] = None
            elif not isinstance(job.outcome, LandlineError):
                job.settled(job.outcome)
        if self._writer.erasures != self._erasures:
            self._erasures = self._writer.erasures
            self._scrubbing.erased()
        for conversation in moved:
            self._moved(conversation)

    # What runs on the threads.

    def _serve_writes(self, group: list[Appending | _Write[object]]) -> None:
        if self._final:
            for job in group:
                job.outcome = _read_only()
            return
        writer, committing = self._writer, False
        try:
            writer.begin(self._clock.now_ms())
            for job in group:
                try:
                    job.run(writer)
                except LandlineError as error:
                    job.outcome = error
            writer.write()
            committing = True
            writer.commit()
        except Exception as error:  # noqa: BLE001
            # The outermost edge of the thread: whoever waits must hear of it, and the next group have its chance.
            self._failed(group, error, committing=committing)
        else:
            if self._trouble is not None:
                self._trouble = None
                _log.warning("storage works again")

    def _failed(self, group: list[Appending | _Write[object]], error: Exception, *, committing: bool) -> None:
        """Nothing of the group is in the log. Unless the error was a full disk, a commit that failed may have left
        behind what a restart takes for committed."""
        self._complain(error)
        for job in group:
            if committing and not isinstance(error, apsw.FullError):
                job.outcome = OutcomeUnknown()
            else:
                job.outcome = _read_only() if self._final else StoreUnavailable()
        self._writer.roll_back()

    def _complain(self, error: Exception) -> None:
        """Once per trouble, not once per group: a full disk may last for hours."""
        ours = None if isinstance(error, apsw.Error) else error  # only a mistake of ours needs its traceback
        if isinstance(error, apsw.Error) and layout.is_final(error) and not self._final:
            self._final = True
            _log.critical("storage is read-only until a restart", error=repr(error))
        elif self._trouble is None and not self._final:
            _log.error("storage failed; the next write tries again", error=repr(error), exc_info=ours)
        self._trouble = layout.trouble(error)

    def _written(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _rest(self) -> None:
        """Between two groups: move the write-ahead log into the database, once there is enough of it or it is to be
        scrubbed."""
        if self._is_to_scrub:
            self._is_to_scrub = False
            self._scrub()
            return
        if self._wal_pages < self._moved_pages:
            self._moved_pages = 0  # it started over
        if self._wal_pages - self._moved_pages < self._bounds.checkpoint_pages:
            return
        # Most of the work is done beside the reader, whatever its snapshot holds back.
        self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._wal_pages >= _FORCED * self._bounds.checkpoint_pages:
            self._start_over(apsw.SQLITE_CHECKPOINT_RESTART)

    def _scrub(self) -> None:
        """Empty the write-ahead log, and cut its file off."""
        # As above: what is left is little.
        moved = self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if not (moved and self._start_over(apsw.SQLITE_CHECKPOINT_TRUNCATE)):
            self._loop.call_soon_threadsafe(self._scrubbing.failed)

    def _start_over(self, mode: int) -> bool:
        """Move what is left of the write-ahead log, so that it begins anew; not if it is being read for long. Other
        processes that read it are not waited for."""
        if not self._snapshot.acquire(timeout=_STEP_ASIDE_S):
            return False
        connection = self._writer.connection
        connection.set_busy_timeout(0)
        try:
            if not self._checkpoint(mode):
                return False
            self._wal_pages = self._moved_pages = 0
            return True
        finally:
            connection.set_busy_timeout(layout.BUSY_MS)
            self._snapshot.release()

    def _checkpoint(self, mode: int) -> bool:
        if self._final:
            return False
        try:
            self._writer.connection.wal_checkpoint(mode=mode)
        except apsw.BusyError:
            return False  # somebody reads it
        except apsw.Error as error:
            self._complain(error)
            return False
        self._moved_pages = self._wal_pages
        return True

    def _serve_reads(self, batch: list[_Read[object]]) -> None:
        """One snapshot for all of them: it costs one look at the write-ahead log's index instead of 64."""
        with self._snapshot:
            self._read_all(batch)

    def _read_all(self, batch: list[_Read[object]]) -> None:
        try:
            self._reader.begin_reading()
            for job in batch:
                job.outcome = self._read_one(job)
            self._reader.end_reading()
        except Exception as error:  # noqa: BLE001
            # As in `_serve_writes`.
            self._complain(error)
            for job in batch:
                job.outcome = StoreUnavailable("Storage could not be read")
            self._reader.roll_back()

    def _read_one(self, job: _Read[T]) -> T | LandlineError:
        try:
            return job.work(self._reader)
        except LandlineError as error:
            return error
        except apsw.Error as error:
            self._complain(error)
            return StoreUnavailable("Storage could not be read")


def _read_only() -> StoreUnavailable:
    return StoreUnavailable("Storage is read-only until the server restarts; nothing was stored", retry=False)
