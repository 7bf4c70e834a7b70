"""What was erased is gone from the files as well, soon, and nobody who writes waits for it.

That it is gone from a server that runs, whoever erased it, is in `checklist/test_retention`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import apsw
import pytest

from landline.core.log import ConversationId, NewEntry, SendKey
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.scrub import Scrubbing
from support.clock import NOON_MS
from support.faulty_vfs import Disk, breaks
from support.stores import InSqlite, a_conversation

A, B = ConversationId("A"), ConversationId("B")
NOTICE = NewEntry(b'{"type":"messageDelete"}')
SECRET = b"swordfish"


class FakeLoop:
    """A loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.armed: list[FakeLoop.Handle] = []

    class Handle:
        def __init__(self, loop: FakeLoop, when: float, callback: Callable[[], None]) -> None:
            self.loop, self.when, self.callback = loop, when, callback

        def cancel(self) -> None:
            self.loop.armed.remove(self)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Handle:
        self.armed.append(self.Handle(self, when, callback))
        return self.armed[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [handle for handle in self.armed if handle.when <= end]:
            handle = min(due, key=lambda each: each.when)
            self.armed.remove(handle)
            self.now = handle.when
            handle.callback()
        self.now = end


# When


class Timer:
    """A `Scrubbing` and when it wanted to scrub, in seconds from the start."""

    def __init__(self) -> None:
        self.loop = FakeLoop()
        began = self.loop.now
        self.scrubbed: list[float] = []
        self.scrubbing = Scrubbing(
            self.loop,  # type: ignore[arg-type]
            lambda: self.scrubbed.append(self.loop.now - began),
            Bounds(),
        )


def test_what_is_erased_is_scrubbed_within_seconds_and_once() -> None:
    timer = Timer()
    timer.scrubbing.erased()
    timer.loop.advance(60)
    assert timer.scrubbed == [2]
    timer.scrubbing.erased()
    timer.loop.advance(60)
    assert timer.scrubbed == [2, 62]


def test_what_is_erased_in_slices_is_scrubbed_once_behind_the_last() -> None:
    timer = Timer()
    for _ in range(100):
        timer.scrubbing.erased()
        timer.loop.advance(0.1)
    timer.loop.advance(60)
    assert timer.scrubbed == [pytest.approx(11.9)]


def test_what_is_erased_all_the_time_is_scrubbed_now_and_then() -> None:
    timer = Timer()
    for _ in range(1200):
        timer.scrubbing.erased()
        timer.loop.advance(0.1)
    assert len(timer.scrubbed) == 3
    assert timer.scrubbed[0] == pytest.approx(30)


def test_a_scrub_that_failed_is_tried_again_until_the_store_is_closed() -> None:
    timer = Timer()
    timer.scrubbing.erased()
    timer.loop.advance(2)
    for _ in range(3):
        timer.scrubbing.failed()
        timer.scrubbing.failed()
        timer.loop.advance(60)
    assert timer.scrubbed == [2, 7, 67, 127]
    timer.scrubbing.failed()
    timer.scrubbing.close()
    timer.scrubbing.close()
    timer.loop.advance(60)
    assert len(timer.scrubbed) == 4


# How


@pytest.fixture
def at_once(embedded: InSqlite) -> None:
    """Nobody waits for the moment."""
    embedded.bounds = Bounds(scrub_after_s=0.05, scrub_again_s=0.2)


async def erase(store: SqliteStore) -> None:
    """Something that was said is erased."""
    await store.start(a_conversation(A))
    said = await store.append(A, NewEntry(b'{"text":"%b"}' % SECRET), math.inf)
    await store.delete(A, said.sequence, NOTICE, math.inf)


def found_in(directory: Path) -> set[str]:
    """The files that it is still in."""
    return {path.name for path in directory.iterdir() if SECRET in path.read_bytes()}


async def until_gone(directory: Path) -> None:
    async with asyncio.timeout(10):
        while found_in(directory):
            await asyncio.sleep(0.02)


def somebody_else(directory: Path) -> apsw.Connection:
    """Another process that looks into the file, a backup perhaps, and is in the middle of it."""
    connection = apsw.Connection(str(directory / FILE), flags=apsw.SQLITE_OPEN_READONLY)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM entries").get  # noqa: B018
    return connection


async def test_what_is_erased_is_gone_from_the_files_while_nobody_writes(embedded: InSqlite) -> None:
    store = await embedded.open()
    await erase(store)
    assert found_in(embedded.path) == {f"{FILE}-wal"}
    await until_gone(embedded.path)
    assert (embedded.path / f"{FILE}-wal").stat().st_size == 0


@pytest.mark.usefixtures("at_once")
async def test_nobody_who_writes_waits_for_somebody_else_who_reads(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(B))
    other = somebody_else(embedded.path)
    await erase(store)
    slowest, end = 0.0, time.monotonic() + 1
    while time.monotonic() < end:
        began = time.monotonic()
        await store.append(B, NewEntry(b"{}"), math.inf)
        slowest = max(slowest, time.monotonic() - began)
        await asyncio.sleep(0.01)
    print(f"the slowest append took {slowest * 1000:.0f} ms")
    assert slowest < 2, "SQLite would wait for five seconds"
    assert found_in(embedded.path) == {f"{FILE}-wal"}
    await store.check()
    other.close()
    await until_gone(embedded.path)


@pytest.mark.usefixtures("at_once")
async def test_it_is_gone_although_somebody_always_reads(embedded: InSqlite) -> None:
    store = await embedded.open()
    await store.start(a_conversation(B))
    await asyncio.gather(*(store.append(B, NewEntry(b'{"n":1}'), math.inf) for _ in range(3000)))
    over = False

    async def read() -> None:
        while not over:
            await store.read_after(B, 0, 10_000, 1 << 20, for_stream=False)

    readers = [asyncio.create_task(read()) for _ in range(4)]
    await erase(store)
    await until_gone(embedded.path)
    over = True
    await asyncio.gather(*readers)


@pytest.mark.usefixtures("at_once")
async def test_a_disk_that_was_full_for_it_gets_another_try(embedded: InSqlite) -> None:
    disk = Disk()
    embedded.connect = disk.connect
    store = await embedded.open()
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()
    full = breaks("write", apsw.SQLITE_FULL, FILE)

    def trouble(action: str, file: str) -> None:
        if action == "write" and file == FILE:
            loop.call_soon_threadsafe(tried.set)
        full(action, file)

    disk.trouble = trouble
    await erase(store)
    await asyncio.wait_for(tried.wait(), 10)
    assert found_in(embedded.path) == {f"{FILE}-wal"}
    disk.trouble = lambda action, file: None
    await until_gone(embedded.path)
    assert (await store.append(A, NewEntry(b"{}"), math.inf)).sequence == 2


async def delete(store: SqliteStore) -> None:
    await store.delete(A, 0, NOTICE, math.inf)


async def purge(store: SqliteStore) -> None:
    await store.purge(A)
    while await store.clear(A):
        pass


async def expire(store: SqliteStore) -> None:
    assert await store.expire(NOON_MS + 1, NOON_MS + 1, 0)


async def expire_but_its_key(store: SqliteStore) -> None:
    assert await store.expire(NOON_MS + 1, NOON_MS, 0)


async def replace(store: SqliteStore) -> None:
    assert await store.compare_and_set("name", SECRET, None)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("erase", [delete, purge, expire, expire_but_its_key, replace])
async def test_whatever_erases_is_followed_by_a_scrub(
    sqlite: SqliteStore, embedded: InSqlite, erase: Callable[[SqliteStore], Awaitable[None]]
) -> None:
    if erase is replace:
        await sqlite.put_if_absent("name", SECRET)
    else:
        await sqlite.start(a_conversation(A, f"{SECRET.decode()}-user" if erase is purge else None))
        said = NewEntry(b'{"text":"%b"}' % SECRET, key=SendKey("ann", "1", b"digest"))
        await sqlite.append(A, said, math.inf)
    assert found_in(embedded.path) == {f"{FILE}-wal"}
    await erase(sqlite)
    await until_gone(embedded.path)
