"""A disk that is full, stalls or breaks, and a file that was damaged: no false success, and reads go on."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from landline.core.log import Accepted, ConversationId, NewEntry
from landline.errors import DataDirectoryError, DeadlinePassed, OutcomeUnknown, StoreUnavailable
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from support.faulty_vfs import Disk, Gate, breaks
from support.stores import InSqlite, a_conversation

A = ConversationId("A")
SOON = math.inf


@pytest.fixture
async def disk() -> Disk:
    return Disk()


@pytest.fixture
async def store(disk: Disk, embedded: InSqlite) -> SqliteStore:
    """A store on `disk`, with a conversation of one entry."""
    embedded.connect = disk.connect
    store = await embedded.open()
    await store.start(a_conversation(A, "ann"))
    await say(store, "before")
    return store


async def say(store: SqliteStore, text: str, deadline: float = SOON) -> Accepted:
    return await store.append(A, NewEntry(f'{{"text":"{text}"}}'.encode()), deadline)


async def texts(store: SqliteStore) -> list[str]:
    page = await store.read_after(A, 0, 100, 1 << 20, for_stream=False)
    return [record.body.decode().split('"')[3] for record in page.records]  # type: ignore[union-attr]


async def reach(gate: Gate) -> None:
    """Until somebody stands before the gate."""
    assert await asyncio.to_thread(gate.reached.wait, 10)


# A full disk


async def test_a_full_disk_is_a_delay_and_not_the_end(store: SqliteStore, disk: Disk, embedded: InSqlite) -> None:
    disk.trouble = breaks("write", apsw.SQLITE_FULL)
    for _ in range(3):
        with pytest.raises(StoreUnavailable) as failure:
            await say(store, "too much")
        assert failure.value.retry
    with pytest.raises(StoreUnavailable):
        await store.start(a_conversation("B"))
    assert await texts(store) == ["before"]
    disk.trouble = lambda action, file: None
    assert (await say(store, "after")).sequence == 1
    store = await embedded.restart()
    assert await texts(store) == ["before", "after"]
    assert await store.conversation(ConversationId("B")) is None


async def test_whoever_shares_a_group_with_a_full_disk_is_refused_and_nothing_of_it_is_seen(
    store: SqliteStore, disk: Disk
) -> None:
    woken: list[ConversationId] = []
    store.listen(woken.append)
    disk.trouble = breaks("write", apsw.SQLITE_FULL)
    answers = await asyncio.gather(*(say(store, str(n)) for n in range(20)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreUnavailable}
    assert len({id(answer) for answer in answers}) == 20, "an exception of one's own for everybody"
    assert woken == []
    page = store.read_cached(A, 0, 0, 1 << 20)
    assert page is None or len(page.records) == 1


async def test_a_disk_that_is_full_for_the_checkpoint_only_still_takes_appends(disk: Disk, embedded: InSqlite) -> None:
    embedded.connect, embedded.bounds = disk.connect, Bounds(checkpoint_pages=4)
    store = await embedded.open()
    await store.start(a_conversation(A))
    disk.trouble = breaks("write", apsw.SQLITE_FULL, FILE)
    said = [(await say(store, str(n))).sequence for n in range(30)]
    disk.trouble = lambda action, file: None
    said += [(await say(store, str(n))).sequence for n in range(30, 40)]
    assert said == list(range(40))
    store = await embedded.restart()
    assert await texts(store) == [str(n) for n in range(40)]


async def test_trouble_is_told_once_and_its_end_too(store: SqliteStore, disk: Disk) -> None:
    with capture_logs() as logs:
        disk.trouble = breaks("write", apsw.SQLITE_FULL)
        for _ in range(5):
            with pytest.raises(StoreUnavailable):
                await say(store, "too much")
        disk.trouble = lambda action, file: None
        await say(store, "after")
    assert [each["event"] for each in logs] == ["storage failed; the next write tries again", "storage works again"]


async def test_a_write_error_at_the_commit_leaves_the_outcome_open(store: SqliteStore, disk: Disk) -> None:
    """What was written before the error might be found, whole, by a restart."""
    disk.trouble = breaks("write", apsw.SQLITE_IOERR_WRITE)
    with pytest.raises(OutcomeUnknown):
        await say(store, "maybe")
    disk.trouble = lambda action, file: None
    assert (await say(store, "after")).sequence == 1
    assert await texts(store) == ["before", "after"]


async def test_a_check_says_that_the_disk_is_full_and_finds_room_without_anybody_who_writes(
    store: SqliteStore, disk: Disk
) -> None:
    disk.trouble = breaks("write", apsw.SQLITE_FULL)
    with pytest.raises(StoreUnavailable):
        await say(store, "too much")
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await store.check()
    disk.trouble = lambda action, file: None
    await store.check()
    assert await texts(store) == ["before"]


async def test_a_check_of_a_store_that_is_well_costs_no_write(store: SqliteStore, disk: Disk) -> None:
    before = disk.syncs()
    await store.check()
    assert disk.syncs() == before
    disk.trouble = breaks("write", apsw.SQLITE_IOERR_WRITE)
    await store.check()
    with pytest.raises(OutcomeUnknown):
        await say(store, "maybe")
    with pytest.raises(StoreUnavailable, match="the disk fails"):
        await store.check()
    disk.trouble = lambda action, file: None
    await store.check()
    assert disk.syncs() == before + 1


async def test_a_check_does_not_wait_for_a_disk_that_is_stuck(store: SqliteStore, disk: Disk) -> None:
    disk.trouble = gate = Gate("sync")
    running = asyncio.create_task(say(store, "running"))
    await reach(gate)
    with pytest.raises(StoreUnavailable, match="the disk is stuck"):
        await store.check()
    gate.open()
    await running
    await store.check()


# A failed sync


async def test_after_a_failed_sync_nothing_is_written_until_a_restart(
    store: SqliteStore, disk: Disk, embedded: InSqlite
) -> None:
    disk.trouble = breaks("sync", apsw.SQLITE_IOERR_FSYNC)
    with pytest.raises(OutcomeUnknown):
        await say(store, "maybe")
    disk.trouble = lambda action, file: None
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as failure:
            await say(store, "no more")
        assert not failure.value.retry
        with pytest.raises(StoreUnavailable, match="until the server restarts"):
            await store.check()
    with pytest.raises(StoreUnavailable):
        await store.start(a_conversation("B"))
    assert await texts(store) == ["before"]
    assert (await store.members(A))[1].account.id == "ann"
    store = await embedded.restart()
    found = await texts(store)
    assert found in (["before"], ["before", "maybe"])
    assert (await say(store, "after")).sequence == len(found)


async def test_who_waits_behind_a_failed_sync_is_refused_too(store: SqliteStore, disk: Disk) -> None:
    gate = Gate("sync")
    disk.trouble = gate
    first = asyncio.create_task(say(store, "maybe"))
    await reach(gate)
    behind = asyncio.create_task(say(store, "no more"))
    await asyncio.sleep(0)
    gate.open(apsw.SQLITE_IOERR_FSYNC)
    with pytest.raises(OutcomeUnknown):
        await first
    with pytest.raises(StoreUnavailable) as failure:
        await behind
    assert not failure.value.retry


async def test_a_checkpoint_that_cannot_be_synced_stops_all_writing_and_keeps_the_log(
    disk: Disk, embedded: InSqlite
) -> None:
    """The write-ahead log is then the only copy that is surely there: neither a later checkpoint nor the one that
    SQLite makes when it closes a file may let it go."""
    embedded.connect, embedded.bounds = disk.connect, Bounds(checkpoint_pages=4)
    store = await embedded.open()
    await store.start(a_conversation(A))
    disk.trouble = breaks("sync", apsw.SQLITE_IOERR_FSYNC, FILE)
    said: list[str] = []

    async def say_on() -> None:
        for number in range(100):
            await say(store, str(number))
            said.append(str(number))

    with pytest.raises(StoreUnavailable) as failure:
        await say_on()
    assert not failure.value.retry
    disk.trouble = lambda action, file: None
    await embedded.close()
    assert (embedded.path / f"{FILE}-wal").stat().st_size > 0
    store = await embedded.open()
    assert await texts(store) == said


# A disk that stalls


async def test_what_is_still_queued_at_its_deadline_is_withdrawn(store: SqliteStore, disk: Disk) -> None:
    gate = Gate("sync")
    disk.trouble = gate
    running = asyncio.create_task(say(store, "running"))
    await reach(gate)
    with pytest.raises(DeadlinePassed):
        await say(store, "late", time.monotonic() + 0.05)
    gate.open()
    assert (await running).sequence == 1
    assert (await say(store, "after")).sequence == 2
    assert await texts(store) == ["before", "running", "after"]


async def test_a_commit_that_ends_soon_after_the_deadline_is_a_success(store: SqliteStore, disk: Disk) -> None:
    gate = Gate("sync")
    disk.trouble = gate
    deadline = time.monotonic() + 0.2
    running = asyncio.create_task(say(store, "running", deadline))
    await reach(gate)
    await asyncio.wait([running], timeout=deadline + 0.2 - time.monotonic())
    assert not running.done()
    gate.open()
    assert (await running).sequence == 1


async def test_nobody_waits_longer_than_two_seconds_for_a_commit_that_hangs(store: SqliteStore, disk: Disk) -> None:
    """As docs/explanation/design-facts.md says. The entry may turn up all the same, and here it does."""
    gate = Gate("sync")
    disk.trouble = gate
    deadline = time.monotonic() + 0.2
    with pytest.raises(OutcomeUnknown):
        await say(store, "maybe", deadline)
    assert deadline + 2 <= time.monotonic() < deadline + 3
    gate.open()
    assert (await say(store, "after")).sequence == 2
    assert await texts(store) == ["before", "maybe", "after"]


async def test_reads_and_transients_do_not_wait_for_a_commit_that_hangs(store: SqliteStore, disk: Disk) -> None:
    gate = Gate("sync")
    disk.trouble = gate
    running = asyncio.create_task(say(store, "running"))
    await reach(gate)
    assert await texts(store) == ["before"]
    assert await store.conversation(A) is not None
    store.send_transient(A, b"{}")
    page = store.read_cached(A, 1, 0, 1000)
    assert page is not None
    assert len(page.records) == 1
    gate.open()
    await running


async def test_a_read_that_hangs_is_given_up(disk: Disk, embedded: InSqlite) -> None:
    embedded.connect, embedded.bounds = disk.connect, Bounds(patience_s=0.1)
    store = await embedded.open()
    await store.start(a_conversation(A))
    await say(store, "before")
    gate = Gate("read")
    disk.trouble = gate
    with pytest.raises(StoreUnavailable):
        await texts(store)
    gate.open()
    assert await texts(store) == ["before"]


async def test_a_full_queue_is_refused_at_once(disk: Disk, embedded: InSqlite) -> None:
    embedded.connect, embedded.bounds = disk.connect, Bounds(waiting=3)
    store = await embedded.open()
    await store.start(a_conversation(A))
    gate = Gate("sync")
    disk.trouble = gate
    running = asyncio.create_task(say(store, "0"))
    await reach(gate)
    queued = [asyncio.create_task(say(store, str(n))) for n in (1, 2, 3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable) as failure:
        await say(store, "one too many")
    assert failure.value.retry
    gate.open()
    assert [(await task).sequence for task in (running, *queued)] == [0, 1, 2, 3]
    assert await texts(store) == ["0", "1", "2", "3"]


async def test_a_queue_is_full_by_bytes_too(disk: Disk, embedded: InSqlite) -> None:
    embedded.connect, embedded.bounds = disk.connect, Bounds(waiting_bytes=1000)
    store = await embedded.open()
    await store.start(a_conversation(A))
    gate = Gate("sync")
    disk.trouble = gate
    running = asyncio.create_task(say(store, "0"))
    await reach(gate)
    queued = asyncio.create_task(say(store, "x" * 1000))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await say(store, "1")
    gate.open()
    await asyncio.gather(running, queued)
    assert (await say(store, "1")).sequence == 2


async def test_what_was_cancelled_while_its_commit_ran_is_stored(store: SqliteStore, disk: Disk) -> None:
    gate = Gate("sync")
    disk.trouble = gate
    running = asyncio.create_task(say(store, "running"))
    await reach(gate)
    running.cancel()
    await asyncio.wait([running])
    gate.open()
    assert (await say(store, "after")).sequence == 2
    assert await texts(store) == ["before", "running", "after"]


# What is found on opening


async def test_two_processes_cannot_have_one_directory(embedded: InSqlite) -> None:
    await embedded.open()
    script = """
import asyncio, sys, time
from pathlib import Path
from landline.errors import DataDirectoryError
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore

class Clock:
    now_ms = staticmethod(lambda: 0)
    monotonic = staticmethod(time.monotonic)

async def main():
    store = SqliteStore(Directory(Path(sys.argv[1])), Clock())
    try:
        await store.open()
    except DataDirectoryError as error:
        print(error)

asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(embedded.path), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert said.decode().strip() == f"{embedded.path} is in use by another process"


async def test_a_store_that_was_closed_or_never_opened_lets_go_of_its_directory(embedded: InSqlite) -> None:
    first = await embedded.open()
    await first.close()
    (embedded.path / FILE).write_bytes(b"x" * 4096)
    for _ in range(2):
        with pytest.raises(DataDirectoryError, match="damaged"):
            await embedded.open()


async def test_a_file_of_a_newer_version_is_left_alone(embedded: InSqlite) -> None:
    await embedded.open()
    await embedded.close()
    change(embedded.path / FILE, "PRAGMA user_version = 99")
    before = (embedded.path / FILE).read_bytes()
    with pytest.raises(DataDirectoryError, match="newer version"):
        await embedded.open()
    assert (embedded.path / FILE).read_bytes() == before


async def test_what_a_killed_newer_version_had_not_yet_moved_into_its_database_stays_where_it_is(
    embedded: InSqlite,
) -> None:
    await embedded.open()
    change(embedded.path / FILE, "PRAGMA user_version = 99")
    found = {name: (embedded.path / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    await embedded.close()
    for name, content in found.items():
        (embedded.path / name).write_bytes(content)
    with pytest.raises(DataDirectoryError, match="newer version"):
        await embedded.open()
    assert {name: (embedded.path / name).read_bytes() for name in found} == found


async def test_another_programs_database_is_left_alone(embedded: InSqlite) -> None:
    embedded.path.mkdir()
    (embedded.path / FILE).touch()
    change(embedded.path / FILE, "CREATE TABLE theirs (a)")
    before = (embedded.path / FILE).read_bytes()
    with pytest.raises(DataDirectoryError, match="not a store"):
        await embedded.open()
    assert (embedded.path / FILE).read_bytes() == before


async def test_a_file_that_was_cut_short_is_refused(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    for number in range(50):
        await say(store, "x" * 1000 + str(number))
    await embedded.close()
    with (embedded.path / FILE).open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(DataDirectoryError, match="damaged"):
        await embedded.open()


async def test_a_log_without_its_database_is_refused_and_kept(embedded: InSqlite, tmp_path: Path) -> None:
    """SQLite would delete it."""
    store = await embedded.open()
    await store.start(a_conversation(A))
    log = (embedded.path / f"{FILE}-wal").read_bytes()
    await embedded.close()
    (embedded.path / FILE).write_bytes(b"")
    (embedded.path / f"{FILE}-wal").write_bytes(log)
    with pytest.raises(DataDirectoryError, match="lost or replaced"):
        await embedded.open()
    assert (embedded.path / f"{FILE}-wal").read_bytes() == log


async def test_a_clock_a_day_behind_the_newest_entry_is_not_trusted(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await say(store, "x")
    await embedded.close()
    embedded.clock.move(by_ms=-86_400_001)
    with pytest.raises(DataDirectoryError, match="ahead of the clock"):
        await embedded.open()
    embedded.clock.move(by_ms=+1)
    assert await texts(await embedded.open()) == ["x"]


async def test_a_damaged_page_fails_its_readers_and_stops_all_writing(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await store.start(a_conversation("B"))
    for number in range(50):
        await say(store, "x" * 1000 + str(number))
    await embedded.close()
    content = bytearray((embedded.path / FILE).read_bytes())
    first = first_leaf_of(embedded.path / FILE, "entries")
    content[(first - 1) * 4096 : first * 4096] = b"\xff" * 4096
    (embedded.path / FILE).write_bytes(content)
    store = await embedded.open()
    with pytest.raises(StoreUnavailable):
        await texts(store)
    with pytest.raises(StoreUnavailable) as failure:
        await store.start(a_conversation("C"))
    assert not failure.value.retry
    assert len(await store.members(ConversationId("B"))) == 1


async def test_a_damaged_index_is_found_when_the_store_is_opened(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await say(store, "x")
    await embedded.close()
    content = bytearray((embedded.path / FILE).read_bytes())
    index = first_leaf_of(embedded.path / FILE, "places")
    content[(index - 1) * 4096 : index * 4096] = b"\xff" * 4096
    (embedded.path / FILE).write_bytes(content)
    with pytest.raises(DataDirectoryError, match="damaged"):
        await embedded.open()


def change(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()


def first_leaf_of(path: Path, name: str) -> int:
    connection = apsw.Connection(str(path))
    query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY path LIMIT 1"
    page = connection.execute(query, (name,)).get
    connection.close()
    assert isinstance(page, int)
    return page
