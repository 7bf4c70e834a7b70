"""What every store promises about sends that are repeated under their key: `Store.append` and `Store.mark_taken`."""

from __future__ import annotations

import asyncio
import math

import pytest

from landline.core.log import LAST_SEQUENCE, Accepted, ConversationId, Entry, NewEntry, SendKey
from landline.errors import Conflict, ConversationFull
from landline.ports import Store
from landline.stores.sqlite import SqliteStore
from support.clock import NOON_MS
from support.stores import Home, InSqlite, a_conversation

A, B = ConversationId("A"), ConversationId("B")
SOON = math.inf
LARGE = 1 << 20


def keyed(text: str, key: str = "key", sender: str = "ann", since_ms: int = 0) -> NewEntry:
    body = f'{{"text":"{text}"}}'.encode()
    return NewEntry(body, key=SendKey(sender, key, body, since_ms))


async def bodies(store: Store, conversation: ConversationId = A) -> list[bytes]:
    page = await store.read_after(conversation, 0, 1000, LARGE, for_stream=True)
    return [record.body for record in page.records if isinstance(record, Entry)]


async def test_a_known_key_is_answered_what_was_assigned_the_first_time(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    first = await store.append(A, keyed("one"), SOON)
    home.clock.move(by_ms=60_000)
    await store.append(A, NewEntry(b'{"a":1}'), SOON)
    assert first == Accepted(0, NOON_MS)
    assert await store.append(A, keyed("one"), SOON) == Accepted(0, NOON_MS, repeated=True)
    store = await home.restart()
    assert await store.append(A, keyed("one"), SOON) == Accepted(0, NOON_MS, repeated=True)
    assert await bodies(store) == [keyed("one").body, b'{"a":1}']


@pytest.mark.item(169)
async def test_a_key_that_comes_ten_times_at_once_is_one_append(store: Store) -> None:
    """The store's part: they share a commit group, beside appends without a key."""
    await store.start(a_conversation("A"))
    calls = [store.append(A, keyed("one") if n % 2 else NewEntry(b'{"n":%d}' % n), SOON) for n in range(20)]
    answers = await asyncio.gather(*calls)
    assert {answer.sequence for answer in answers[1::2]} == {1}
    assert [answer.repeated for answer in answers[1::2]] == [False] + [True] * 9
    assert len(await bodies(store)) == 11


async def test_a_repeat_wakes_nobody_and_is_shown_to_nobody(store: Store) -> None:
    await store.start(a_conversation("A"))
    await store.append(A, keyed("one"), SOON)
    woken: list[ConversationId] = []
    store.listen(woken.append)
    await store.append(A, keyed("one"), SOON)
    assert woken == []
    page = store.read_cached(A, 0, 0, LARGE)
    assert page is not None
    assert page.position == 1


@pytest.mark.item(167)
async def test_a_key_with_another_digest_is_a_conflict_that_hurts_nobody_beside_it(store: Store) -> None:
    """The store's part."""
    await store.start(a_conversation("A"))
    answers = await asyncio.gather(
        *(store.append(A, entry, SOON) for entry in (keyed("one"), keyed("two"), keyed("three", key="other"))),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Accepted, Conflict, Accepted]
    assert await bodies(store) == [keyed("one").body, keyed("three").body]


async def test_keys_belong_to_their_sender_and_their_conversation(store: Store) -> None:
    for name in ("A", "B"):
        await store.start(a_conversation(name))
    for conversation, sender, key in (
        (A, "ann", "k"),
        (A, "bob", "k"),
        (B, "ann", "k"),
        (A, "a", "nnk"),
        (A, "an", "nk"),
    ):
        assert not (await store.append(conversation, keyed("x", key, sender), SOON)).repeated
    assert (len(await bodies(store, A)), len(await bodies(store, B))) == (4, 1)


async def test_a_key_that_is_too_old_makes_a_new_send_which_is_then_the_known_one(store: Store) -> None:
    await store.start(a_conversation("A"))
    await store.append(A, keyed("one"), SOON)
    assert (await store.append(A, keyed("one", since_ms=NOON_MS), SOON)).repeated
    late = keyed("two", since_ms=NOON_MS + 1)
    assert await store.append(A, late, SOON) == Accepted(1, NOON_MS + 1)
    assert await store.append(A, late, SOON) == Accepted(1, NOON_MS + 1, repeated=True)


async def test_a_repeat_is_answered_in_a_conversation_that_is_full(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    store = await home.restart()
    await home.set_head(A, LAST_SEQUENCE - 1)
    first = await store.append(A, keyed("last"), SOON)
    assert (await store.append(A, keyed("last"), SOON)).sequence == first.sequence
    with pytest.raises(ConversationFull):
        await store.append(A, keyed("more", key="other"), SOON)


async def test_every_append_behind_it_knows_that_the_bot_took_it(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    for number in range(50):
        entry = keyed(str(number), key=str(number))
        first = await store.append(A, entry, SOON)
        assert not (await store.append(A, entry, SOON)).taken
        store.mark_taken(A, first.sequence)
        assert (await store.append(A, entry, SOON)).taken
    store.mark_taken(ConversationId("nowhere"), 0)
    store = await home.restart()
    assert (await store.append(A, keyed("49", key="49"), SOON)).taken


async def test_that_the_bot_took_it_costs_no_commit_of_its_own(sqlite: SqliteStore, embedded: InSqlite) -> None:
    """It goes with the next group, or after a while if there is none."""
    await sqlite.start(a_conversation("A"))
    await sqlite.append(A, keyed("one"), SOON)
    groups = 0
    serve = sqlite._serve_writes

    def counted(group: list[object]) -> None:
        nonlocal groups
        groups += 1
        serve(group)  # type: ignore[arg-type]

    assert sqlite._writes is not None
    sqlite._writes._serve = counted  # type: ignore[assignment]
    for number in range(100):
        sqlite.mark_taken(A, 0)
        await sqlite.append(A, NewEntry(b'{"n":%d}' % number), SOON)
    assert groups == 100
    sqlite.mark_taken(A, 0)
    async with asyncio.timeout(10):
        while groups == 100:
            await asyncio.sleep(0.01)
