"""What every store promises about activities that a bot changes or takes back: `Store.append` with an original, and
`Store.delete`."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import msgspec
import pytest

from landline.core.log import LAST_SEQUENCE, Accepted, Audience, ConversationId, Entry, NewEntry, Original, SendKey
from landline.errors import ConversationFull, DeadlinePassed, UnknownActivity, UnknownConversation
from landline.ports import Store
from landline.stores.sqlite import FILE, SqliteStore
from support.clock import NOON_MS
from support.stores import Home, InSqlite, a_conversation

A, B = ConversationId("A"), ConversationId("B")
SOON = math.inf
LARGE = 1 << 20
NOTICE = NewEntry(b'{"type":"messageDelete"}')


def said(text: str, original: Accepted | None = None) -> NewEntry:
    first = original and Original(original.sequence, original.time_ms)
    return NewEntry(f'{{"text":"{text}"}}'.encode(), original=first)


async def say(store: Store, *texts: str) -> list[Accepted]:
    return [await store.append(A, said(text), SOON) for text in texts]


async def log(store: Store, *, for_stream: bool = True, position: int = 0) -> list[Entry]:
    page = await store.read_after(A, position, 1000, LARGE, for_stream=for_stream)
    return [record for record in page.records if isinstance(record, Entry)]


async def test_a_delete_erases_the_activity_and_all_its_versions_and_says_so(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    one, two = await say(store, "one", "two")
    await store.append(A, said("ONE", one), SOON)
    await store.append(A, said("One", one), SOON)
    home.clock.move(by_ms=60_000)
    assert await store.delete(A, one.sequence, NOTICE, SOON) == Accepted(4, NOON_MS + 60_000)
    left = [
        Entry(1, two.time_ms, said("two").body),
        Entry(4, NOON_MS + 60_000, NOTICE.body, Audience.EVERYONE, Original(0, NOON_MS + 60_000)),
    ]
    for for_stream in (True, False):
        assert await log(store, for_stream=for_stream) == left
    store = await home.restart()
    for for_stream in (True, False):
        assert await log(store, for_stream=for_stream) == left
    assert [each.sequence for each in await say(store, "three")] == [5]


async def test_readers_step_over_what_was_deleted_and_their_watermarks_stay_good(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    one, _, three = await say(store, "one", "two", "three")
    for accepted in (one, three):
        await store.delete(A, accepted.sequence, NOTICE, SOON)
    store = await home.restart()
    page = await store.read_after(A, 0, 1, LARGE, for_stream=False)
    assert ([record.sequence for record in page.records if isinstance(record, Entry)], page.position) == ([1], 3)
    assert page.behind_ms == three.time_ms, "that of the last entry behind it, erased or not"
    times = [await store.accepted_at(A, sequence) for sequence in range(5)]
    assert times == [NOON_MS + n for n in range(5)]
    found = await store.conversation(A)
    assert found is not None
    assert (found.head, found.last_ms) == (5, NOON_MS + 4)


async def test_no_replay_from_memory_shows_what_was_changed_or_deleted(store: Store) -> None:
    await store.start(a_conversation("A"))
    one, two = await say(store, "one", "two")
    seen: list[list[bytes]] = []

    def moved(conversation: ConversationId) -> None:
        page = store.read_cached(A, 0, 0, LARGE)
        seen.append([] if page is None else [each.body for each in page.records if isinstance(each, Entry)])

    store.listen(moved)
    await store.append(A, said("ONE", one), SOON)
    await store.delete(A, two.sequence, NOTICE, SOON)
    assert all(said("two").body not in shown for shown in seen[1:])
    page = store.read_cached(A, 3, 0, LARGE)
    assert page is not None
    assert [each.body for each in page.records if isinstance(each, Entry)] == [NOTICE.body]


async def test_deleting_twice_changes_nothing_the_second_time(store: Store) -> None:
    await store.start(a_conversation("A"))
    (one,) = await say(store, "one")
    answers = await asyncio.gather(*(store.delete(A, one.sequence, NOTICE, SOON) for _ in range(5)))
    assert answers == [Accepted(1, NOON_MS + 1), None, None, None, None]
    assert len(await log(store)) == 1


async def test_what_was_deleted_cannot_be_changed(store: Store) -> None:
    """Decided in the transaction, so that a change which meets a delete is either before it or refused."""
    await store.start(a_conversation("A"))
    (one,) = await say(store, "one")
    answers = await asyncio.gather(
        store.append(A, said("before", one), SOON),
        store.delete(A, one.sequence, NOTICE, SOON),
        store.append(A, said("after", one), SOON),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Accepted, Accepted, UnknownActivity]
    assert [entry.body for entry in await log(store)] == [NOTICE.body]


async def test_only_an_activity_that_is_there_can_be_changed_or_deleted(store: Store) -> None:
    for name in ("A", "B"):
        await store.start(a_conversation(name))
    (one,) = await say(store, "one")
    version = await store.append(A, said("ONE", one), SOON)
    nowhere = ConversationId("nowhere")
    for conversation, sequence, error in (
        (A, 2, UnknownActivity),
        (A, -1, UnknownActivity),
        (A, LAST_SEQUENCE, UnknownActivity),
        (A, version.sequence, UnknownActivity),
        (B, 0, UnknownActivity),
        (nowhere, 0, UnknownConversation),
    ):
        with pytest.raises(error):
            await store.delete(conversation, sequence, NOTICE, SOON)
        with pytest.raises(error):
            await store.append(conversation, said("x", Accepted(sequence, NOON_MS)), SOON)
    assert len(await log(store)) == 2


async def test_a_delete_for_which_there_is_no_number_or_no_time_erases_nothing(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    store = await home.restart()
    await home.set_head(A, LAST_SEQUENCE - 1)
    (last,) = await say(store, "last")
    with pytest.raises(ConversationFull):
        await store.delete(A, last.sequence, NOTICE, SOON)
    with pytest.raises(DeadlinePassed):
        await store.delete(A, last.sequence, NOTICE, -1.0)
    assert [entry.body for entry in await log(store, position=LAST_SEQUENCE - 1)] == [said("last").body]


async def test_an_entry_is_shown_as_it_is_now(store: Store) -> None:
    await store.start(a_conversation("A"))
    one, _ = await say(store, "one", "two")
    version = await store.append(A, said("ONE", one), SOON)
    original = Original(one.sequence, one.time_ms)
    assert await store.entry(A, 0) == Entry(0, NOON_MS, said("one").body)
    assert await store.entry(A, 2) == Entry(2, version.time_ms, said("ONE").body, original=original)
    await store.delete(A, 0, NOTICE, SOON)
    assert await store.entry(A, 0) == Entry(0, NOON_MS, b"", Audience.NOBODY)
    for conversation, sequence in ((A, 4), (A, -1), (A, 1 << 40), (B, 0)):
        assert await store.entry(conversation, sequence) is None


async def expire(store: Store, before_ms: int, keys_before_ms: int = 0) -> None:
    after: int | None = 0
    while after is not None:
        after = await store.expire(before_ms, keys_before_ms, after)


async def test_an_activity_that_has_expired_is_changed_and_deleted_as_long_as_a_version_of_it_is_left(
    home: Home,
) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    one, two = await say(store, "one", "two")
    home.clock.move(by_ms=60_000)
    await store.append(A, said("ONE", one), SOON)
    await expire(store, NOON_MS + 60_000)
    store = await home.restart()
    original = Original(one.sequence, one.time_ms)
    assert await store.entry(A, 0) == Entry(2, NOON_MS + 60_000, said("ONE").body, original=original)
    assert await store.entry(A, 1) is None
    with pytest.raises(UnknownActivity):
        await store.delete(A, two.sequence, NOTICE, SOON)
    with pytest.raises(UnknownActivity):
        await store.delete(A, 2, NOTICE, SOON)
    await store.append(A, said("One", one), SOON)
    assert (await store.entry(A, 0)) == Entry(3, NOON_MS + 60_001, said("One").body, original=original)
    assert await store.delete(A, one.sequence, NOTICE, SOON) == Accepted(4, NOON_MS + 60_002)
    left = Entry(4, NOON_MS + 60_002, NOTICE.body, original=Original(0, NOON_MS + 60_002))
    assert await log(store) == [left]
    for _ in range(2):
        assert await store.delete(A, one.sequence, NOTICE, SOON) is None
        with pytest.raises(UnknownActivity):
            await store.append(A, said("once more", one), SOON)
        assert await store.entry(A, 0) == left
        assert await log(store) == [left]
        store = await home.restart()
    await expire(store, NOON_MS + 60_003)
    with pytest.raises(UnknownActivity):
        await store.delete(A, one.sequence, NOTICE, SOON)
    assert await store.entry(A, 0) is None


async def test_what_is_left_of_a_sent_key_is_no_version(store: Store) -> None:
    """It is erased already; the log has nothing to be changed or deleted."""
    await store.start(a_conversation("A"))
    (one,) = await say(store, "one")
    version = msgspec.structs.replace(said("ONE", one), key=SendKey("bot", "key", b"digest"))
    await store.append(A, version, SOON)
    await expire(store, NOON_MS + 60_000, keys_before_ms=NOON_MS)
    assert await store.entry(A, 0) is None
    for refused in (store.delete(A, 0, NOTICE, SOON), store.append(A, said("x", one), SOON)):
        with pytest.raises(UnknownActivity):
            await refused


async def test_what_was_deleted_is_not_left_in_the_file(embedded: InSqlite, sqlite: SqliteStore) -> None:
    """Also the middle of a body that fills many pages."""
    await sqlite.start(a_conversation("A"))
    secret = "The password is swordfish."
    (one, two) = await say(sqlite, secret, secret * 2000)
    await say(sqlite, "something else")
    version = await sqlite.append(A, said(secret, one), SOON)
    assert version.sequence == 3
    for accepted in (one, two):
        await sqlite.delete(A, accepted.sequence, NOTICE, SOON)
    await embedded.close()  # which moves the write-ahead log into the file
    for file in embedded.path.iterdir():
        assert b"swordfish" not in Path(file).read_bytes(), file.name
    assert b"something else" in (embedded.path / FILE).read_bytes()
