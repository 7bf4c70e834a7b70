"""The index of places is behind the log. Nobody who reads can tell, whatever happens in between."""

from __future__ import annotations

import asyncio
import math
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from random import Random

import apsw
import pytest

from landline.core.log import ConversationId, Entry, NewEntry, Original
from landline.errors import StoreUnavailable
from landline.stores.directory import Directory
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.unindexed import Unindexed
from support.faulty_vfs import Disk, Gate, breaks
from support.stores import InSqlite, a_conversation

NAMES = [ConversationId(f"conversation-{number}") for number in range(8)]
PAGE_BYTES = 4096


async def started(store: SqliteStore, names: Sequence[ConversationId] = NAMES) -> None:
    for name in names:
        await store.start(a_conversation(name))


async def say(store: SqliteStore, name: ConversationId, number: int) -> None:
    await store.append(name, NewEntry(b'{"n":%d}' % number), math.inf)


async def log_of(store: SqliteStore, name: ConversationId) -> list[Entry]:
    page = await store.read_after(name, 0, 10_000, 1 << 20, for_stream=True)
    assert not page.more
    return [record for record in page.records if isinstance(record, Entry)]


async def test_a_group_of_many_conversations_does_not_touch_a_page_for_each(embedded: InSqlite) -> None:
    store = await embedded.open()
    names = [ConversationId(f"conversation-{number}") for number in range(64)]
    await started(store, names)
    log = embedded.path / f"{FILE}-wal"
    sizes = [log.stat().st_size]
    for number in range(2):
        await asyncio.gather(*(say(store, name, number) for name in names))
        sizes.append(log.stat().st_size)
    assert all(0 < after - before < 16 * PAGE_BYTES for before, after in pairwise(sizes))


@pytest.mark.parametrize("index_after", [1, 50, 10_000])
async def test_a_killed_process_loses_nothing_that_the_index_did_not_know_yet(
    index_after: int, embedded: InSqlite, tmp_path: Path
) -> None:
    embedded.bounds = Bounds(index_after=index_after)
    store = await embedded.open()
    await started(store)
    dice = Random(index_after)
    for life in range(3):
        for number in range(40):
            await say(store, dice.choice(NAMES), number)
        await store.append(NAMES[0], NewEntry(b'{"n":-1}', original=Original(0, 1)), math.inf)
        logs = [await log_of(store, name) for name in NAMES]
        path = tmp_path / f"as-killed-{life}"
        shutil.copytree(embedded.path, path)  # what is in the files at this moment, while nothing writes
        store = SqliteStore(Directory(path), embedded.clock, embedded.bounds)
        await store.open()
        assert [await log_of(store, name) for name in NAMES] == logs
        heads = [found.head for name in NAMES if (found := await store.conversation(name)) is not None]
        assert heads == [len(log) for log in logs]
        if life < 2:
            await store.close()
            store = await embedded.restart()
    await store.close()
    assert whole(path / FILE)


@pytest.mark.parametrize("seed", range(3))
async def test_who_reads_meanwhile_sees_every_log_without_a_gap_and_all_that_was_answered(
    seed: int, embedded: InSqlite
) -> None:
    """Both threads at once, with an index that is brought up to date all the time."""
    print(f"seed {seed}")
    dice = Random(seed)
    embedded.bounds = Bounds(index_after=dice.choice((2, 9, 30)))
    store = await embedded.open()
    await started(store)
    answered = dict.fromkeys(NAMES, 0)
    talking = True

    async def talk() -> None:
        nonlocal talking
        for number in range(150):
            group = [dice.choice(NAMES) for _ in range(dice.randrange(1, 12))]
            await asyncio.gather(*(say(store, name, number) for name in group))
            for name in group:
                answered[name] += 1
        talking = False

    async def read(name: ConversationId) -> int:
        looks = 0
        while talking:
            least, looks = answered[name], looks + 1
            log = await log_of(store, name)
            assert [entry.sequence for entry in log] == list(range(len(log)))
            assert len(log) >= least
            if least:
                assert await store.entry(name, least - 1) == log[least - 1]
        return looks

    _, *looks = await asyncio.gather(talk(), *(read(name) for name in NAMES[:3]))
    assert min(looks) > 20
    assert {name: len(await log_of(store, name)) for name in NAMES} == answered


async def test_what_is_being_committed_is_not_seen_by_those_who_read(embedded: InSqlite) -> None:
    """It may still fail. Where a stream waits, and what a watermark is made of, comes from the disk here."""
    disk = Disk()
    embedded.connect, embedded.bounds = disk.connect, Bounds(tail_bytes=0)
    store = await embedded.open()
    await started(store, NAMES[:1])
    await say(store, NAMES[0], 0)
    disk.trouble = gate = Gate("sync")
    committing = asyncio.create_task(say(store, NAMES[0], 1))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    page = await store.read_after(NAMES[0], 0, 10, 1 << 20, for_stream=True)
    assert (len(page.records), page.position) == (1, 1)
    found = await store.conversation(NAMES[0])
    assert found is not None
    assert (found.head, found.last_ms) == (1, page.behind_ms)
    assert await store.accepted_at(NAMES[0], 1) is None
    gate.open()
    await committing
    assert len(await log_of(store, NAMES[0])) == 2


async def test_what_was_rolled_back_is_not_taken_for_recent(embedded: InSqlite) -> None:
    """The disk is full for a group of which the index would have been told."""
    embedded.bounds = Bounds(index_after=2)
    disk = Disk()
    embedded.connect = disk.connect
    names = NAMES[:2]
    store = await embedded.open()
    await started(store, names)
    await say(store, names[0], 0)
    disk.trouble = breaks("write", apsw.SQLITE_FULL)
    refused = await asyncio.gather(*(say(store, name, 1) for name in names), return_exceptions=True)
    assert [type(each) for each in refused] == [StoreUnavailable, StoreUnavailable]
    assert [len(await log_of(store, name)) for name in names] == [1, 0]
    disk.trouble = lambda action, file: None
    for number in (2, 3):
        await asyncio.gather(*(say(store, name, number) for name in names))
    logs = [await log_of(store, name) for name in names]
    bodies = [[entry.body for entry in log] for log in logs]
    assert bodies == [[b'{"n":0}', b'{"n":2}', b'{"n":3}'], [b'{"n":2}', b'{"n":3}']]
    store = await embedded.restart()
    assert [await log_of(store, name) for name in names] == logs
    await embedded.close()
    assert whole(embedded.path / FILE)


def test_a_reader_keeps_what_it_took_before_its_snapshot_began() -> None:
    recent = Unindexed({1: 10})
    taken = recent.arrivals
    recent.add(2, 11)
    assert recent.to_index() == [(1, 10), (2, 11)]
    recent.add(3, 12)
    recent.committed()
    assert taken == {1: 10, 2: 11, 3: 12}
    assert recent.arrivals == {3: 12}


def test_an_index_that_was_told_and_rolled_back_is_told_again() -> None:
    recent = Unindexed({})
    recent.add(2, 1)
    recent.committed()
    recent.add(1, 2)
    assert recent.to_index() == [(1, 2), (2, 1)]
    recent.rolled_back()
    assert recent.arrivals == {2: 1}
    assert recent.to_index() == [(2, 1)]
    assert recent.to_index() == []


def whole(path: Path) -> bool:
    """Whether the file is sound, and each entry is in the index exactly once."""
    connection = apsw.Connection(str(path))
    try:
        sound = connection.execute("PRAGMA integrity_check").get == "ok"
        entries = connection.execute("SELECT place, arrival FROM entries ORDER BY place").fetchall()
        return sound and entries == connection.execute("SELECT place, arrival FROM places ORDER BY place").fetchall()
    finally:
        connection.close()
