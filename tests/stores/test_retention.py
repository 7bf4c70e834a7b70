"""What every store promises about how long things are kept: `landline.ports.Upkeep`."""

from __future__ import annotations

import asyncio
import math

import pytest

from landline.core.conversation import Account, Conversation
from landline.core.log import Accepted, Audience, ConversationId, Entry, NewEntry, Page, SendKey
from landline.errors import UnknownActivity, UnknownConversation
from landline.ports import Store
from landline.stores.sqlite import FILE, SqliteStore
from landline.stores.sqlite.bounds import Bounds
from support.clock import NOON_MS
from support.stores import BOT, Home, InSqlite, a_conversation

A, B, C = (ConversationId(name) for name in "ABC")
SOON = math.inf
LARGE = 1 << 20
HOUR_MS = 3_600_000


def said(text: str) -> NewEntry:
    return NewEntry(f'{{"text":"{text}"}}'.encode())


async def say(store: Store, conversation: ConversationId, *texts: str) -> list[Accepted]:
    return [await store.append(conversation, said(text), SOON) for text in texts]


async def log(store: Store, conversation: ConversationId = A, position: int = 0) -> list[bytes]:
    page = await store.read_after(conversation, position, 10_000, LARGE, for_stream=True)
    return [record.body for record in page.records if isinstance(record, Entry)]


async def expire(store: Store, before_ms: int, keys_before_ms: int = 0) -> None:
    after: int | None = 0
    while after is not None:
        after = await store.expire(before_ms, keys_before_ms, after)


async def clear(store: Store, conversation: ConversationId) -> int:
    slices = 1
    while await store.clear(conversation):
        slices += 1
    return slices


# Use


async def test_conversations_are_idle_since_their_last_use(home: Home) -> None:
    """As far as that is written: a start is, at once; what is noted is with the next group."""
    store = await home.open()
    for name in ("A", "B", "C"):
        await store.start(a_conversation(name))
        home.clock.move(by_ms=HOUR_MS)
    store.touch(A, NOON_MS + 10 * HOUR_MS)
    store.touch(A, NOON_MS + 5 * HOUR_MS)
    store.touch(ConversationId("nowhere"), NOON_MS)
    store = await home.restart()
    assert await store.idle_conversations(NOON_MS + HOUR_MS, 10) == []
    assert await store.idle_conversations(NOON_MS + HOUR_MS + 1, 10) == [B]
    assert await store.idle_conversations(NOON_MS + 10 * HOUR_MS, 10) == [B, C]
    assert await store.idle_conversations(NOON_MS + 11 * HOUR_MS, 10) == [B, C, A]
    assert await store.idle_conversations(NOON_MS + 11 * HOUR_MS, 2) == [B, C]


async def test_what_was_used_or_appended_to_meanwhile_is_not_purged(store: Store) -> None:
    """Also where the use is only noted yet."""
    for name in ("A", "B", "C"):
        await store.start(a_conversation(name))
    (accepted,) = await say(store, A, "one")
    store.touch(B, NOON_MS + 1)
    assert not await store.purge(A, accepted.time_ms)
    assert not await store.purge(B, NOON_MS + 1)
    assert await store.purge(C, NOON_MS + 1)
    assert await store.purge(A, accepted.time_ms + 1)
    assert await store.purge(B, NOON_MS + 2)


# Purging


@pytest.mark.item(67)
async def test_a_purged_conversation_is_gone_for_everybody_and_never_starts_again(home: Home) -> None:
    """The store's part (D-24)."""
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    await say(store, A, "one")
    assert await store.purge(A)
    for _ in range(2):
        assert await store.conversation(A) is None
        assert await store.is_purged(A)
        assert await store.entry(A, 0) is None
        assert await store.accepted_at(A, 0) is None
        assert store.read_cached(A, 0, 0, LARGE) is None
        for refused in (
            store.read_after(A, 0, 10, LARGE, for_stream=True),
            store.append(A, said("x"), SOON),
            store.delete(A, 0, said("x"), SOON),
            store.members(A),
            store.join(A, Account("ann")),
        ):
            with pytest.raises(UnknownConversation):
                await refused
        assert not await store.start(a_conversation("A", "ann"))
        assert not await store.purge(A)
        store = await home.restart()
    assert not await store.is_purged(B)
    assert await store.idle_conversations(NOON_MS + HOUR_MS, 10) == []


async def test_an_append_that_meets_a_purge_is_before_it_or_refused(store: Store) -> None:
    await store.start(a_conversation("A"))
    answers = await asyncio.gather(
        store.append(A, said("before"), SOON),
        store.purge(A),
        store.append(A, said("after"), SOON),
        return_exceptions=True,
    )
    assert (type(answers[0]), answers[1], type(answers[2])) == (Accepted, True, UnknownConversation)
    assert store.read_cached(A, 0, 0, LARGE) is None


async def test_a_purge_whose_caller_went_away_is_in_memory_too(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one")
    task = asyncio.create_task(store.purge(A))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await store.start(a_conversation("B"))  # behind it
    assert await store.conversation(A) is None
    assert store.read_cached(A, 0, 0, LARGE) is None


async def test_what_a_purged_conversation_said_is_cleared_whatever_comes_in_between(home: Home) -> None:
    store = await home.open()
    for name in ("A", "B"):
        await store.start(a_conversation(name))
        await say(store, ConversationId(name), *map(str, range(10)))
    await store.purge(A)
    store = await home.restart()
    assert await store.uncleared(10) == [A]
    await clear(store, A)
    await clear(store, A)
    await clear(store, B)
    assert await store.uncleared(10) == []
    assert len(await log(store, B)) == 10, "it was not purged"


async def test_a_tombstone_stands_until_it_is_buried_and_nothing_is_mixed_up_after_it(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    await say(store, A, "old")
    await store.purge(A)
    await store.drop_tombstones(NOON_MS + HOUR_MS)
    assert await store.is_purged(A), "it is not cleared yet"
    await clear(store, A)
    await store.drop_tombstones(NOON_MS)
    assert await store.is_purged(A), "it is not old enough"
    await store.drop_tombstones(NOON_MS + 1)
    assert not await store.is_purged(A)
    assert await store.start(a_conversation("B", "bob"))
    assert await store.start(a_conversation("A", "carl"))
    await say(store, B, "new")
    assert (await log(store, A), await log(store, B)) == ([], [said("new").body])
    assert [member.account.id for member in await store.members(A)] == [BOT, "carl"]


async def test_a_person_is_found_in_every_conversation_they_took_part_in(store: Store) -> None:
    for name, user in (("A", "ann"), ("B", None), ("C", "bob")):
        await store.start(a_conversation(name, user))
    await store.join(B, Account("ann"))
    assert sorted(await store.conversations_of_member("ann", 10)) == [A, B]
    assert len(await store.conversations_of_member("ann", 1)) == 1
    assert await store.conversations_of_member(BOT, 10) == []
    await store.purge(A)
    assert await store.conversations_of_member("ann", 10) == [B]


async def test_a_person_who_left_is_found_where_they_took_part_before(home: Home) -> None:
    store = await home.open()
    for name in ("A", "B"):
        await store.start(a_conversation(name, "ann"))
    await store.leave(A, "ann")
    await store.leave(A, "bob")
    store = await home.restart()
    assert sorted(await store.conversations_of_member("ann", 10)) == [A, B]
    assert await store.conversations_of_member("bob", 10) == [], "who never was a member"
    await store.join(A, Account("ann"))
    assert sorted(await store.conversations_of_member("ann", 10)) == [A, B], "each once"
    await store.leave(A, "ann")
    await store.purge(A)
    assert await store.conversations_of_member("ann", 10) == [B]


# Expiry


@pytest.mark.item(126)
async def test_a_log_goes_on_behind_what_has_expired(home: Home) -> None:
    """The store's part: what is left, and from where on the log is complete."""
    store = await home.open()
    await store.start(a_conversation("A"))
    await say(store, A, "one", "two")
    home.clock.move(by_ms=HOUR_MS)
    (three,) = await say(store, A, "three")
    await expire(store, NOON_MS + HOUR_MS)
    for _ in range(2):
        found = await store.conversation(A)
        assert found == Conversation(A, BOT, None, "en-US", 3, three.time_ms, oldest=2)
        assert await log(store) == [said("three").body]
        assert [await store.accepted_at(A, sequence) for sequence in range(3)] == [None, None, three.time_ms]
        assert await store.entry(A, 0) is None
        with pytest.raises(UnknownActivity):
            await store.delete(A, 0, said("x"), SOON)
        assert store.read_cached(A, 1, 0, LARGE) is None
        store = await home.restart()
    assert [each.sequence for each in await say(store, A, "four")] == [3]


async def test_a_log_of_which_everything_has_expired_reads_as_its_head(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    accepted = await say(store, A, "one", "two")
    await expire(store, NOON_MS + HOUR_MS)
    for _ in range(2):
        found = await store.conversation(A)
        assert found is not None
        assert (found.head, found.last_ms, found.oldest) == (2, accepted[-1].time_ms, 2)
        for position in (0, 1):
            page = await store.read_after(A, position, 10, LARGE, for_stream=False)
            assert page == Page([], 2, accepted[-1].time_ms, 0, more=False)
        assert await store.read_after(A, 2, 10, LARGE, for_stream=False) == Page([], 2, None, 0, more=False)
        store = await home.restart()
    home.clock.move(by_ms=-HOUR_MS)
    assert await say(store, A, "three") == [Accepted(2, accepted[-1].time_ms + 1)]


async def test_a_key_outlives_the_activity_for_as_long_as_it_is_asked_to(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    keyed = NewEntry(b'{"text":"the secret"}', key=SendKey("ann", "key", b"digest"))
    first = await store.append(A, keyed, SOON)
    await say(store, A, "two")
    await expire(store, NOON_MS + HOUR_MS, keys_before_ms=NOON_MS)
    store = await home.restart()
    assert await log(store) == []
    assert await store.append(A, keyed, SOON) == Accepted(first.sequence, first.time_ms, repeated=True)
    assert await store.entry(A, 0) is None


async def test_a_key_that_need_not_be_known_goes_with_the_activity(sqlite: SqliteStore, embedded: InSqlite) -> None:
    await sqlite.start(a_conversation("A"))
    for number in range(3):
        entry = NewEntry(b'{"text":"swordfish"}', key=SendKey("ann", str(number), b"digest"))
        await sqlite.append(A, entry, SOON)
    await expire(sqlite, NOON_MS + HOUR_MS, keys_before_ms=NOON_MS + 2)
    await embedded.restart()
    assert b"swordfish" not in (embedded.path / FILE).read_bytes(), "the content goes in any case"
    store = await embedded.restart()
    known = [
        (await store.append(A, NewEntry(b'{"text":"x"}', key=SendKey("ann", str(n), b"digest")), SOON)).repeated
        for n in range(3)
    ]
    assert known == [False, False, True]


# Slices


async def test_what_is_removed_is_removed_in_slices_between_which_others_write(sqlite: SqliteStore) -> None:
    for name in (A, B):
        await sqlite.start(a_conversation(name))
    await asyncio.gather(*(sqlite.append(A, said(str(n)), SOON) for n in range(3 * Bounds().slice_rows)))
    assert await sqlite.expire(NOON_MS + HOUR_MS, 0, 0) is not None
    assert len(await log(sqlite, A)) == 2 * Bounds().slice_rows
    await sqlite.purge(A)
    assert await sqlite.clear(A)
    await say(sqlite, B, "in between")
    assert await clear(sqlite, A) == 2


async def test_a_slice_of_large_activities_is_a_small_one(sqlite: SqliteStore) -> None:
    await sqlite.start(a_conversation("A"))
    for number in range(8):
        await sqlite.append(A, NewEntry(b'{"n":%d,"text":"%s"}' % (number, b"x" * (1 << 20))), SOON)
    await sqlite.expire(NOON_MS + HOUR_MS, 0, 0)
    found = await sqlite.conversation(A)
    assert found is not None
    assert found.oldest == 1


async def test_a_hundred_thousand_streams_that_close_at_once_hold_up_no_append(sqlite: SqliteStore) -> None:
    """What is noted of them is written a few hundred at a time."""
    await sqlite.start(a_conversation("A"))
    largest = 0
    note = sqlite._writer.note

    def noted(taken: list[object], used: dict[object, int]) -> None:
        nonlocal largest
        largest = max(largest, len(used))
        note(taken, used)  # type: ignore[arg-type]

    sqlite._writer.note = noted  # type: ignore[assignment, method-assign]
    for number in range(5000):
        sqlite.touch(ConversationId(f"conversation-{number}"), NOON_MS)
    for number in range(30):
        await asyncio.gather(*(sqlite.append(A, said(f"{number}"), SOON) for _ in range(20)))
    await sqlite.close()
    assert largest == 256


async def test_what_was_purged_is_not_left_in_the_file(sqlite: SqliteStore, embedded: InSqlite) -> None:
    await sqlite.start(a_conversation("A", "swordfish-user"))
    await say(sqlite, A, "swordfish", "swordfish" * 5000)
    await sqlite.purge(A)
    await clear(sqlite, A)
    await embedded.close()
    content = (embedded.path / FILE).read_bytes().lower()
    assert b"swordfish" not in content


async def test_what_expired_is_stepped_over_by_a_stream_that_reads_from_memory(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one")
    store.send_transient(A, b'{"type":"typing"}')
    await expire(store, NOON_MS + HOUR_MS)
    await say(store, A, "two")
    page = store.read_cached(A, 1, 0, LARGE)
    assert page is not None
    assert [each.body for each in page.records if isinstance(each, Entry)] == [said("two").body]
    assert store.read_cached(A, 0, 0, LARGE) is None
    assert (await store.read_after(A, 0, 10, LARGE, for_stream=True)).records == [
        Entry(1, NOON_MS + 1, said("two").body, Audience.EVERYONE)
    ]
