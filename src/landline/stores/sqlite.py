"""The embedded store: one SQLite file in a directory that one process owns.

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

from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.failure import FailedDelivery
from landline.core.log import Accepted, ConversationId, Entry, NewEntry, Page
from landline.errors import LandlineError, OutcomeUnknown, StoreError, StoreUnavailable
from landline.ports import Clock
from landline.stores import layout
from landline.stores.directory import STORE_FILE, Directory
from landline.stores.lane import Job, Lane
from landline.stores.notes import Notes, Taken
from landline.stores.recent import Recent
from landline.stores.scrub import Scrubbing
from landline.stores.tables import Reader, Writer
from landline.stores.tail import Tail

FILE = STORE_FILE

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


class _Append(Job[Accepted | None]):
    """An append. `entry` is what was written, for the tail; None where nothing was."""

    __slots__ = ("conversation", "entry", "new")

    entry: Entry | None

    def __init__(self, conversation: ConversationId, new: NewEntry, deadline: float) -> None:
        super().__init__(deadline, len(new.body))
        self.conversation = conversation
        self.new = new

    def run(self, writer: Writer) -> None:
        done = writer.append(self.conversation, self.new)
        if type(done) is Entry:
            self.entry = done
            self.outcome = Accepted(done.sequence, done.time_ms)
        else:
            self.entry = None
            self.outcome = done  # type: ignore[assignment]  # what is no Entry is Accepted


class _Delete(_Append):
    """A delete, which appends as well."""

    __slots__ = ("sequence",)

    def __init__(self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float) -> None:
        super().__init__(conversation, notice, deadline)
        self.sequence = sequence

    def run(self, writer: Writer) -> None:
        self.entry = entry = writer.delete(self.conversation, self.sequence, self.new)
        self.outcome = Accepted(entry.sequence, entry.time_ms) if entry is not None else None


class _Read(Job[T], Generic[T]):
    """Anything to be read. Nobody has to wonder about the outcome of a read that took too long."""

    __slots__ = ("work",)

    given_up = StoreUnavailable

    def __init__(self, work: Callable[[Reader], T], deadline: float) -> None:
        super().__init__(deadline)
        self.work = work


class SqliteStore:
    """A `landline.ports.Store` in a directory of its own."""

    def __init__(
        self,
        directory: Directory,
        clock: Clock,
        *,
        tail_bytes: int = 64 << 20,
        waiting: int = 16_384,
        waiting_bytes: int = 64 << 20,
        patience_s: float = 10.0,
        checkpoint_pages: int = 1024,
        connect: layout.Connect = layout.connect,
    ) -> None:
        """Touches nothing yet. At most `waiting` writes of together `waiting_bytes`, and as many reads, are queued;
        whatever has no deadline of its own is given up after `patience_s`. The write-ahead log is moved into the
        database each time it has grown by `checkpoint_pages`: 4 MiB, a few milliseconds. Until it has that length
        for the first time, each append also makes the file longer, and its sync takes half as long again."""
        self._directory = directory
        self._clock = clock
        self._connect = connect
        self._most_waiting = waiting
        self._most_bytes = waiting_bytes
        self._patience_s = patience_s
        self._checkpoint_pages = checkpoint_pages
        self._tail = Tail(tail_bytes)
        self._notes = Notes(self._put_notes)
        self._moved: Callable[[ConversationId], None] = lambda conversation: None
        self._writes: Lane[_Append | _Write[object]] | None = None
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
        """As `Store.open`."""
        self._directory.take()
        try:
            await asyncio.to_thread(self._open_file)
        except BaseException:
            self._directory.release()
            raise
        self._loop = asyncio.get_running_loop()
        self._scrubbing = Scrubbing(self._loop, self._put_scrub)
        self._writes = Lane(
            "landline-writer",
            self._clock,
            self._serve_writes,
            batch=_GROUP,
            waiting=self._most_waiting,
            waiting_bytes=self._most_bytes,
            settle=self._settle,
            rest=self._rest,
        )
        self._reads = Lane("landline-reader", self._clock, self._serve_reads, batch=_READS, waiting=self._most_waiting)

    def _open_file(self) -> None:
        path = self._directory.private_file(FILE)
        connection = layout.open_writer(path, self._connect, self._clock.now_ms())
        try:
            recent = Recent(layout.unindexed(connection, path))
            self._reader = Reader(layout.open_reader(path, self._connect), recent)
            self._writer = Writer(connection, recent)
        except BaseException:
            connection.close()
            raise
        connection.set_wal_hook(self._written)

    async def close(self) -> None:
        """As `Store.close`."""
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

    # What is asked of the store.

    async def check(self) -> None:
        """As `Store.check`."""
        if self._writing().is_idle and self._trouble is None:
            return
        try:
            await self._write(Writer.rewrite, patience_s=_CHECK_S)
        except StoreError as error:
            raise StoreUnavailable(f"Storage cannot be written: {self._trouble or 'the disk is stuck'}") from error

    async def remember(self, name: str, value: bytes) -> bytes:
        """As `Store.remember`."""
        return await self._write(lambda writer: writer.remember(name, value))

    async def recall(self, name: str) -> bytes | None:
        """As `Store.recall`."""
        return await self._read(lambda reader: reader.recall(name))

    async def kept(self, prefix: str) -> Mapping[str, bytes]:
        """As `Store.kept`."""
        return await self._read(lambda reader: reader.kept(prefix))

    async def replace(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        """As `Store.replace`."""
        return await self._write(lambda writer: writer.replace(name, old, new))

    async def start(self, conversation: NewConversation) -> bool:
        """As `Store.start`."""
        forgotten = self._tail.forgotten
        created = await self._write(lambda writer: writer.start(conversation))
        if created:
            self._tail.meet(conversation.id, 0, None, forgotten, conversation)
        return created

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        """As `Store.conversation`."""
        known = self.known(conversation)
        if known is not None:
            return known
        forgotten = self._tail.forgotten
        read = await self._read(lambda reader: reader.conversation(conversation))
        if read is None:
            return None
        found, last = read
        started = NewConversation(found.id, found.bot_id, found.user, found.locale)
        self._tail.meet(conversation, found.head, found.last_ms, forgotten, started, found.oldest)
        self._tail.recall(conversation, last, forgotten)
        return found

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        """As `Store.append`."""
        job = _Append(conversation, entry, deadline)
        writing = self._writing()
        if self._notes.waiting:
            self._notes.write()
        writing.put(job)
        accepted = await job.answer
        assert accepted is not None
        return accepted

    async def delete(
        self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float
    ) -> Accepted | None:
        """As `Store.delete`."""
        job = _Delete(conversation, sequence, notice, deadline)
        self._writing().put(job)
        return await job.answer

    def taken(self, conversation: ConversationId, sequence: int) -> None:
        """As `Store.taken`."""
        if self._writes is not None:
            self._notes.taken(conversation, sequence)

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        """As `Store.read_after`."""
        transient, forgotten = self._tail.transients, self._tail.forgotten
        page, stand = await self._read(
            lambda reader: reader.read_after(
                conversation, position, max_activities, max_bytes, transient, for_stream=for_stream
            )
        )
        if for_stream and stand is not None:
            # The next look of this stream needs no disk.
            self._tail.meet(conversation, stand.head, stand.last_ms, forgotten, oldest=stand.oldest)
        return page

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """As `Store.accepted_at`."""
        known = self.known_time(conversation, sequence)
        if known is not None:
            return known
        forgotten = self._tail.forgotten
        entries, stand = await self._read(lambda reader: reader.read_on(conversation, sequence))
        if not entries or entries[0].sequence != sequence:
            return await self._read(lambda reader: reader.before_gap_ms(conversation, sequence))
        if stand is not None:
            # Who asks goes on from there: what a client missed that comes back needs no disk then.
            self._tail.meet(conversation, stand.head, stand.last_ms, forgotten, oldest=stand.oldest)
            self._tail.recall(conversation, entries, forgotten)
        return entries[0].time_ms

    async def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        """As `Store.entry`."""
        return await self._read(lambda reader: reader.entry(conversation, sequence))

    def recent(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        """As `Store.recent`."""
        return self._tail.recent(conversation, position, transient, max_bytes)

    def known(self, conversation: ConversationId) -> Conversation | None:
        """As `Store.known`; nothing is known once the store is closed."""
        return self._tail.conversation(conversation) if self._reads is not None else None

    def known_time(self, conversation: ConversationId, sequence: int) -> int | None:
        """As `Store.known_time`."""
        return self._tail.accepted_at(conversation, sequence) if self._reads is not None else None

    def transients(self) -> int:
        """As `Store.transients`."""
        return self._tail.transients

    def pass_by(self, conversation: ConversationId, activity: bytes) -> None:
        """As `Store.pass_by`."""
        if self._tail.pass_by(conversation, activity):
            self._moved(conversation)

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        """As `Store.listen`."""
        self._moved = moved

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        """As `Store.members`."""
        return await self._read(lambda reader: reader.members(conversation))

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        """As `Store.join`."""
        return await self._write(lambda writer: writer.join(conversation, account, most))

    async def announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """As `Store.announced`."""
        await self._write(lambda writer: writer.announced(conversation, account_ids))

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        """As `Store.leave`."""
        await self._write(lambda writer: writer.leave(conversation, account_id))

    async def started_by(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        """As `Store.started_by`."""
        return await self._read(lambda reader: reader.started_by(bot_id, after, most))

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        """As `Store.record_failure`."""
        await self._write(lambda writer: writer.record_failure(failure, most))

    async def failures(self) -> Sequence[FailedDelivery]:
        """As `Store.failures`."""
        return await self._read(lambda reader: reader.failures())

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        """As `Store.settle_failure`."""
        await self._write(lambda writer: writer.settle_failure(conversation, sequence))

    # How long conversations are kept.

    def used(self, conversation: ConversationId, at_ms: int) -> None:
        """As `Store.used`."""
        if self._writes is not None:
            self._notes.used(conversation, at_ms)

    async def idle(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        """As `Store.idle`."""
        return await self._read(lambda reader: reader.idle(before_ms, most))

    async def of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        """As `Store.of_member`."""
        return await self._read(lambda reader: reader.of_member(account_id, most))

    async def purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        """As `Store.purge`."""
        if used_before_ms is not None and self._notes.use_of(conversation) >= used_before_ms:
            return False

        def settled(ended: bool) -> None:
            if ended:
                self._tail.forget(conversation)

        return await self._write(lambda writer: writer.purge(conversation, used_before_ms), settled)

    async def is_purged(self, conversation: ConversationId) -> bool:
        """As `Store.is_purged`."""
        return await self._read(lambda reader: reader.is_purged(conversation))

    async def purged(self, most: int) -> Sequence[ConversationId]:
        """As `Store.purged`."""
        return await self._read(lambda reader: reader.purged(most))

    async def clear(self, conversation: ConversationId) -> bool:
        """As `Store.clear`."""
        return await self._write(lambda writer: writer.clear(conversation))

    async def bury(self, before_ms: int) -> bool:
        """As `Store.bury`."""
        return await self._write(lambda writer: writer.bury(before_ms))

    async def expire(self, before_ms: int, keys_before_ms: int, after: int) -> int | None:
        """As `Store.expire`."""

        def settled(outcome: tuple[Mapping[ConversationId, int], int | None]) -> None:
            for conversation, oldest in outcome[0].items():
                self._tail.expire(conversation, oldest)

        _, go_on = await self._write(lambda writer: writer.expire(before_ms, keys_before_ms, after), settled)
        return go_on

    # The loop's side of the lanes.

    def _writing(self) -> Lane[_Append | _Write[object]]:
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
        job = _Write(work, self._clock.monotonic() + (patience_s or self._patience_s), settled)
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
        job = _Read(work, self._clock.monotonic() + self._patience_s)
        self._reads.put(job)  # type: ignore[arg-type]  # a lane carries jobs with answers of many types
        return await job.answer

    def _settle(self, group: list[_Append | _Write[object]]) -> None:
        """A group is durable: the tail learns all of it before the first stream looks."""
        moved: dict[ConversationId, None] = {}
        for job in group:
            if isinstance(job, _Append):
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

    def _serve_writes(self, group: list[_Append | _Write[object]]) -> None:
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

    def _failed(self, group: list[_Append | _Write[object]], error: Exception, *, committing: bool) -> None:
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
        if self._wal_pages - self._moved_pages < self._checkpoint_pages:
            return
        # Most of the work is done beside the reader, whatever its snapshot holds back.
        self._checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._wal_pages >= _FORCED * self._checkpoint_pages:
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
