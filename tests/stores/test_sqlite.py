"""What is particular to the embedded store: groups, the tail in front of it, and the files it leaves behind.

What every store promises is in `test_contract`, trouble with the disk in `test_disk_faults` and `test_power_cut`.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import apsw
import pytest

from landline.core.log import ConversationId, NewEntry
from landline.errors import StoreUnavailable
from landline.stores.directory import Directory
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from support.clock import NOON_MS, FakeClock
from support.faulty_vfs import Disk
from support.stores import InSqlite, a_conversation

A = ConversationId("A")
ENTRY = NewEntry(b'{"text":"hello"}')
LARGE = 1 << 20


async def test_those_who_write_at_the_same_time_share_one_sync(embedded: InSqlite) -> None:
    disk = Disk()
    embedded.connect = disk.connect
    store = await embedded.open()
    names = [ConversationId(str(number)) for number in range(64)]
    before = disk.syncs()
    await asyncio.gather(*(store.start(a_conversation(name)) for name in names))
    assert disk.syncs() == before + 1
    for _ in range(5):
        await asyncio.gather(*(store.append(name, ENTRY, math.inf) for name in names))
    assert disk.syncs() == before + 6


async def test_every_append_on_its_own_is_synced_before_it_is_answered(embedded: InSqlite) -> None:
    disk = Disk()
    embedded.connect = disk.connect
    store = await embedded.open()
    await store.start(a_conversation(A))
    for _ in range(5):
        before = disk.syncs()
        await store.append(A, ENTRY, math.inf)
        assert disk.syncs() > before


async def test_a_group_wakes_the_streams_of_a_conversation_once(sqlite: SqliteStore) -> None:
    await sqlite.start(a_conversation(A))
    woken: list[ConversationId] = []
    sqlite.listen(woken.append)
    await asyncio.gather(*(sqlite.append(A, ENTRY, math.inf) for _ in range(10)))
    assert woken == [A]


async def test_a_stream_that_breaks_when_woken_does_not_hide_what_was_stored(sqlite: SqliteStore) -> None:
    """The tail knows the whole group before anybody is woken: who looks next finds all of it."""
    await sqlite.start(a_conversation(A))
    await sqlite.start(a_conversation("B"))
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)

    def broken(conversation: ConversationId) -> None:
        raise RuntimeError

    sqlite.listen(broken)
    await asyncio.gather(*(sqlite.append(ConversationId(name), ENTRY, math.inf) for name in "ABAB"))
    for name in "AB":
        page = sqlite.read_cached(ConversationId(name), 0, 0, LARGE)
        assert page is not None
        assert len(page.records) == 2


async def test_a_started_conversation_needs_no_disk_to_be_read(embedded: InSqlite) -> None:
    disk = Disk()
    embedded.connect = disk.connect
    store = await embedded.open()
    await store.start(a_conversation(A, "ann"))
    accepted = await store.append(A, ENTRY, math.inf)
    disk.trouble = no_reads
    found = await store.conversation(A)
    assert found is not None
    assert (found.head, found.last_ms) == (1, accepted.time_ms)
    assert await store.accepted_at(A, 0) == accepted.time_ms
    assert (store.cached_conversation(A), store.cached_time(A, 0)) == (found, accepted.time_ms)
    assert store.read_cached(A, 0, 0, LARGE) is not None
    disk.trouble = lambda action, file: None


async def test_what_memory_does_not_know_is_not_made_up(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await store.append(A, ENTRY, math.inf)
    store = await embedded.restart()
    assert (store.cached_conversation(A), store.cached_time(A, 0)) == (None, None)
    assert await store.conversation(A) is not None
    assert store.cached_conversation(A) is not None
    await store.close()
    assert store.cached_conversation(A) is None


async def test_a_stream_that_has_read_up_to_the_head_needs_no_disk_from_then_on(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await store.append(A, ENTRY, math.inf)
    store = await embedded.restart()
    assert store.read_cached(A, 0, 0, LARGE) is None
    page = await store.read_after(A, 0, 10, LARGE, for_stream=True)
    assert store.read_cached(A, page.position, 0, LARGE) is not None
    store.send_transient(A, b"{}")
    assert store.transient_counter() == 1


async def test_a_client_that_comes_back_after_a_restart_needs_no_disk_for_what_it_missed(embedded: InSqlite) -> None:
    """Its reconnect asks for the time of the last entry that it has seen."""
    disk = Disk()
    embedded.connect = disk.connect
    store = await embedded.open()
    await store.start(a_conversation(A))
    for _ in range(12):
        await store.append(A, ENTRY, math.inf)
    store = await embedded.restart()
    missed = await store.read_after(A, 2, 100, LARGE, for_stream=True)
    store = await embedded.restart()
    await store.conversation(A)
    assert await store.accepted_at(A, 1) == NOON_MS + 1
    disk.trouble = no_reads
    assert store.cached_time(A, 1) == NOON_MS + 1
    assert store.read_cached(A, 2, 0, LARGE) == missed
    disk.trouble = lambda action, file: None


async def test_who_missed_a_lot_does_not_fill_the_memory_with_it(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await store.start(a_conversation("B"))
    for _ in range(100):
        await store.append(A, ENTRY, math.inf)
    for _ in range(3):
        await store.append(ConversationId("B"), NewEntry(b'{"text":"%s"}' % (b"x" * 20_000)), math.inf)
    store = await embedded.restart()
    assert await store.accepted_at(A, 1) == NOON_MS + 1
    assert store.read_cached(A, 2, 0, LARGE) is None
    assert await store.accepted_at(ConversationId("B"), 0) == NOON_MS
    assert store.read_cached(ConversationId("B"), 1, 0, LARGE) is None


async def test_a_tail_without_room_changes_no_answer(embedded: InSqlite) -> None:
    embedded.bounds = Bounds(tail_bytes=0)
    store = await embedded.open()
    await store.start(a_conversation(A))
    for number in range(5):
        assert (await store.append(A, ENTRY, math.inf)).sequence == number
        assert store.read_cached(A, 0, 0, LARGE) is None
        found = await store.conversation(A)
        assert found is not None
        assert found.head == number + 1
        assert await store.accepted_at(A, number) == NOON_MS + number


async def test_the_write_ahead_log_starts_over_even_while_somebody_always_reads(embedded: InSqlite) -> None:
    """Left to itself it waits for a moment without readers, and grows until there is one."""
    embedded.bounds = Bounds(checkpoint_pages=16)
    store = await embedded.open()
    await store.start(a_conversation(A))
    await asyncio.gather(*(store.append(A, ENTRY, math.inf) for _ in range(3000)))
    over = False

    async def read() -> None:
        while not over:
            await store.read_after(A, 0, 10_000, LARGE, for_stream=False)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    for _ in range(200):
        await store.append(A, ENTRY, math.inf)
    over = True
    await asyncio.gather(*readers)
    pages = (embedded.path / f"{FILE}-wal").stat().st_size // 4120
    print(f"{pages} pages")
    assert pages < 2 * 8 * 16


async def test_nobody_else_on_the_machine_can_read_the_files(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    assert embedded.path.stat().st_mode & 0o777 == 0o700
    files = sorted(embedded.path.iterdir())
    assert {path.name for path in files} == {FILE, f"{FILE}-wal", f"{FILE}-shm", "lock"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_a_clean_stop_leaves_one_whole_file(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(A))
    await store.append(A, ENTRY, math.inf)
    await store.close()
    assert {path.name for path in embedded.path.iterdir()} == {FILE, "lock"}


async def test_a_store_that_is_not_open_is_unavailable(tmp_path: Path) -> None:
    store = SqliteStore(Directory(tmp_path / "data"), FakeClock())
    with pytest.raises(StoreUnavailable):
        await store.append(A, ENTRY, math.inf)
    with pytest.raises(StoreUnavailable):
        await store.conversation(A)
    with pytest.raises(StoreUnavailable):
        await store.check()
    await store.close()


async def test_opening_reads_no_more_of_a_large_store_than_of_a_small_one(tmp_path: Path) -> None:
    """A million idle conversations cost a start nothing: neither time nor memory."""
    small, large = await reads_to_open(tmp_path / "small", 1), await reads_to_open(tmp_path / "large", 50_000)
    print(f"{small} and {large} reads")
    assert large <= small + 10  # the trees are a few levels deeper


async def reads_to_open(path: Path, conversations: int) -> int:
    directory = Directory(path)
    store = SqliteStore(directory, FakeClock())
    await store.open()
    await store.close()
    fill(path / FILE, conversations)
    disk, count = Disk(), 0

    def counted(action: str, file: str) -> None:
        nonlocal count
        count += action == "read"

    disk.trouble = counted
    store = SqliteStore(directory, FakeClock(), connect=disk.connect)
    await store.open()
    reads = count
    found = await store.conversation(ConversationId(f"conversation-{conversations}"))
    assert found is not None
    assert found.head == 2
    await store.close()
    return reads


def fill(path: Path, conversations: int) -> None:
    """Conversations with two entries each, without waiting for them."""
    connection = apsw.Connection(str(path))
    connection.execute(
        """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
        INSERT INTO conversations (number, id, bot_id, used_ms) SELECT i, 'conversation-' || i, 'bot', 0 FROM n
        """,
        (conversations,),
    )
    connection.execute(
        """
        INSERT INTO entries (place, time_ms, audience, body)
        SELECT number << 28 | s, ? + s, 0, CAST('{"a":1}' AS BLOB)
        FROM conversations, (SELECT 0 AS s UNION SELECT 1)
        """,
        (NOON_MS,),
    )
    connection.execute("INSERT INTO places SELECT place, arrival FROM entries")
    connection.close()


def no_reads(action: str, file: str) -> None:
    assert action != "read", f"{file} was read"
