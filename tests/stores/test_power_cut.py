"""The power is cut at many points of what the store writes. Nothing it had acknowledged may be missing.

What a cut may leave behind is decided by `support.faulty_vfs`; what is found is opened by a store on the real disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import apsw
import msgspec
import pytest

from landline.core.conversation import Account
from landline.core.log import Accepted, Audience, ConversationId, Entry, NewEntry, Original, SendKey
from landline.errors import DataDirectoryError, UnknownActivity, UnknownConversation
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.layout import Connect
from support.clock import FakeClock
from support.faulty_vfs import Disk, Event, Noted, after_power_cut, as_synced, as_written, lay_out
from support.rounds import SEED, rounds
from support.stores import a_conversation

LIVES = range(SEED, SEED + rounds(3, 300))
CUTS_PER_LIFE = 30
NOTICE = NewEntry(b'{"type":"messageDelete"}')
CONVERSATIONS = [ConversationId(f"conversation-{number}") for number in range(6)]


class Started(msgspec.Struct):
    conversation: ConversationId


class Said(msgspec.Struct):
    conversation: ConversationId
    accepted: Accepted
    body: bytes


class Sent(msgspec.Struct):
    """Under a key. What was acknowledged is known by it."""

    conversation: ConversationId
    accepted: Accepted
    entry: NewEntry


class Deleting(msgspec.Struct):
    """From here on it may be gone."""

    conversation: ConversationId
    sequence: int


class Deleted(msgspec.Struct):
    """From here on it is gone, and the log says so."""

    conversation: ConversationId
    sequence: int
    accepted: Accepted


class Purging(msgspec.Struct):
    """From here on the whole conversation may be gone."""

    conversation: ConversationId


class Purged(msgspec.Struct):
    """From here on it is gone for ever."""

    conversation: ConversationId


class Joined(msgspec.Struct):
    conversation: ConversationId
    account_id: str


class Remembered(msgspec.Struct):
    name: str
    value: bytes


async def live(disk: Disk, path: Path, connect: Connect, dice: Random) -> None:
    """Two runs of a server on one disk, with everything the store acknowledges noted on it. Checkpoints come early, so
    that they, and write-ahead logs that start over, are cut as well."""
    for run in range(2):
        bounds = Bounds(checkpoint_pages=dice.choice((8, 30, 100)))
        store = SqliteStore(Directory(path), FakeClock(), bounds, connect=connect)
        await store.open()
        talks = (talk(disk, store, name, Random(f"{name}/{run}/{dice.random()}")) for name in CONVERSATIONS)
        await asyncio.gather(*talks, short_life(disk, store, ConversationId(f"short-{run}"), dice.randrange(1, 600)))
        await store.close()


async def short_life(disk: Disk, store: SqliteStore, conversation: ConversationId, said: int) -> None:
    """A conversation that is purged, and cleared while others talk."""
    await store.start(a_conversation(conversation, "ann"))
    await asyncio.gather(*(store.append(conversation, NewEntry(b'{"a":1}'), math.inf) for _ in range(said)))
    disk.note(Purging(conversation))
    await store.purge(conversation)
    disk.note(Purged(conversation))
    while await store.clear(conversation):
        pass


async def talk(disk: Disk, store: SqliteStore, conversation: ConversationId, dice: Random) -> None:
    if await store.start(a_conversation(conversation, "ann")):
        disk.note(Started(conversation))
    for number in range(dice.randrange(15)):
        if dice.random() < 0.1:
            await store.join(conversation, Account(f"user-{number}"))
            disk.note(Joined(conversation, f"user-{number}"))
        if dice.random() < 0.1:
            name = f"{conversation}/{number}"
            disk.note(Remembered(name, await store.put_if_absent(name, b"kept")))
        body = b'{"n":%d,"text":"%s"}' % (number, b"x" * int(dice.paretovariate(0.7) * 20 % 20_000))
        key = SendKey("ann", f"{number}/{dice.random()}", body[:9]) if dice.random() < 0.15 else None
        entry = NewEntry(body, key=key)
        accepted = await store.append(conversation, entry, math.inf)
        disk.note(Said(conversation, accepted, body))
        if key is not None:
            disk.note(Sent(conversation, accepted, entry))
        if dice.random() < 0.1:
            await delete(disk, store, conversation, dice.randrange(accepted.sequence + 1))


async def delete(disk: Disk, store: SqliteStore, conversation: ConversationId, sequence: int) -> None:
    disk.note(Deleting(conversation, sequence))
    with suppress(UnknownActivity):  # it says of another one that it was deleted
        accepted = await store.delete(conversation, sequence, NOTICE, math.inf)
        if accepted is not None:
            disk.note(Deleted(conversation, sequence, accepted))


async def open_again(files: dict[str, bytes], path: Path) -> SqliteStore:
    lay_out(files, path)
    store = SqliteStore(Directory(path), FakeClock())
    await store.open()
    return store


async def missing(store: SqliteStore, notes: list[Any]) -> list[Any]:
    """Which of these acknowledged things the store does not have."""
    logs: dict[ConversationId, dict[int, Entry]] = {}
    short = {note.conversation for note in notes if isinstance(note, Purging | Purged)}
    for conversation in {note.conversation for note in notes if not isinstance(note, Remembered)} - short:
        found = await store.conversation(conversation)
        entries = [await store.entry(conversation, sequence) for sequence in range(found.head if found else 0)]
        assert None not in entries, "a gap in the log"
        logs[conversation] = {entry.sequence: entry for entry in entries if entry is not None}
        if found is None:
            continue
        page = await store.read_after(conversation, 0, 10_000, 1 << 30, for_stream=True)
        assert page.records == [entry for entry in entries if entry and entry.audience is not Audience.NOBODY]
    deleting = {(note.conversation, note.sequence) for note in notes if isinstance(note, Deleting)}
    return [
        note
        for note in notes
        if not (kept(logs, deleting, note) if isinstance(note, Said | Deleted) else await has(store, note))
    ]


def kept(
    logs: dict[ConversationId, dict[int, Entry]], deleting: set[tuple[ConversationId, int]], note: Said | Deleted
) -> bool:
    """Whether the log has the entry; erased, if somebody was about to delete it, and surely if somebody has."""
    log, accepted = logs[note.conversation], note.accepted
    found = log.get(accepted.sequence)
    if isinstance(note, Deleted):
        original = Original(note.sequence, accepted.time_ms)
        told = Entry(accepted.sequence, accepted.time_ms, NOTICE.body, original=original)
        return found == told and log[note.sequence].audience is Audience.NOBODY
    if found == Entry(accepted.sequence, accepted.time_ms, b"", Audience.NOBODY):
        return (note.conversation, accepted.sequence) in deleting
    return found == Entry(accepted.sequence, accepted.time_ms, note.body)


async def has(store: SqliteStore, note: Any) -> bool:
    if isinstance(note, Remembered):
        return await store.get(note.name) == note.value
    if isinstance(note, Purging | Purged):
        return await ended(store, note)
    if await store.conversation(note.conversation) is None:
        return False
    if isinstance(note, Sent):
        again = await store.append(note.conversation, note.entry, math.inf)
        return again == Accepted(note.accepted.sequence, note.accepted.time_ms, repeated=True)
    if isinstance(note, Joined):
        return note.account_id in {member.account.id for member in await store.members(note.conversation)}
    return True


async def ended(store: SqliteStore, note: Purging | Purged) -> bool:
    """Whether a conversation is there whole, or gone for ever; then its clearing can go on."""
    is_purged = await store.is_purged(note.conversation)
    if not is_purged:
        found = await store.conversation(note.conversation)
        if found is None:
            return False
        page = await store.read_after(note.conversation, 0, 10_000, 1 << 30, for_stream=True)
        return isinstance(note, Purging) and len(page.records) == found.head
    while await store.clear(note.conversation):
        pass
    restarted = await store.start(a_conversation(note.conversation, "ann"))
    uncleared = await store.uncleared(10)
    return not restarted and note.conversation not in uncleared and await store.conversation(note.conversation) is None


async def lost_at(cut: int, history: list[Event], dice: Random, path: Path) -> list[Any]:
    """What is missing after a cut behind the first `cut` events."""
    notes = [event.note for event in history[:cut] if isinstance(event, Noted)]
    try:
        store = await open_again(after_power_cut(history[:cut], dice), path)
    except DataDirectoryError as error:
        return [error]
    try:
        lost = await missing(store, notes)
        # It goes on as if nothing had been.
        conversation = ConversationId("afterwards")
        await store.start(a_conversation(conversation))
        assert (await store.append(conversation, NewEntry(b'{"a":1}'), math.inf)).sequence == 0
    finally:
        await store.close()
    assert intact(path)
    return lost


def intact(path: Path) -> bool:
    connection = apsw.Connection(str(path / "landline.db"))
    try:
        return bool(connection.execute("PRAGMA integrity_check").get == "ok")
    finally:
        connection.close()


@pytest.mark.parametrize("life", LIVES)
async def test_no_power_cut_loses_anything_acknowledged(life: int, tmp_path: Path) -> None:
    dice = Random(life)
    disk = Disk()
    await live(disk, tmp_path / "life", disk.connect, dice)
    for number in range(CUTS_PER_LIFE):
        cut = dice.randrange(len(disk.history) + 1)
        lost = await lost_at(cut, disk.history, dice, tmp_path / f"cut-{number}")
        assert lost == [], f"lost at event {cut} of seed {life}"


async def test_the_same_cuts_find_a_store_that_does_not_sync_its_commits(tmp_path: Path) -> None:
    """The control: if this lost nothing, the test above could not fail."""
    losses = 0
    for seed in range(3):
        dice = Random(seed)
        disk = Disk()
        await live(disk, tmp_path / f"life-{seed}", disk.connect_carelessly, dice)
        for number in range(CUTS_PER_LIFE):
            cut = dice.randrange(len(disk.history) + 1)
            losses += bool(await lost_at(cut, disk.history, dice, tmp_path / f"cut-{seed}-{number}"))
    print(f"{losses} of {3 * CUTS_PER_LIFE} cuts lost something")
    assert losses > 10


async def test_what_a_killed_process_left_unsynced_is_durable_before_it_is_shown(tmp_path: Path) -> None:
    """kill -9 between a write and its sync; the next process shows what was written; then the power is cut."""
    unsynced = 0
    for seed in range(3):
        dice = Random(seed)
        disk = Disk()
        await live(disk, tmp_path / f"life-{seed}", disk.connect, dice)
        for number in range(10):
            killed = disk.history[: dice.randrange(len(disk.history) + 1)]
            path = tmp_path / f"killed-{seed}-{number}"
            lay_out(as_written(killed), path)
            unsynced += as_written(killed) != as_synced(killed)
            after = Disk(list(killed))
            store = SqliteStore(Directory(path), FakeClock(), connect=after.connect)
            await store.open()
            shown = await everything(store)
            seen_at = len(after.history)
            await store.close()
            lay_out(as_synced(after.history[:seen_at]), tmp_path / f"cut-{seed}-{number}")
            found = SqliteStore(Directory(tmp_path / f"cut-{seed}-{number}"), FakeClock())
            await found.open()
            assert await everything(found) == shown
            await found.close()
    assert unsynced > 10


async def everything(store: SqliteStore) -> list[Any]:
    read: list[Any] = []
    for conversation in CONVERSATIONS:
        with contextlib.suppress(UnknownConversation):
            page = await store.read_after(conversation, 0, 10_000, 1 << 30, for_stream=True)
            read.append((await store.conversation(conversation), page.records))
    return read
