"""What every store promises: the docstrings of `landline.ports.Store`, one by one."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.failure import FailedDelivery
from landline.core.log import (
    LAST_SEQUENCE,
    Accepted,
    Audience,
    ConversationId,
    Entry,
    Newcomer,
    NewEntry,
    Original,
    Page,
    SendKey,
    Transient,
)
from landline.errors import ConversationFull, DeadlinePassed, StoreUnavailable, TooManyMembers, UnknownConversation
from landline.ports import Store
from support.clock import NOON_MS
from support.stores import BOT, Home, a_conversation

A, B, NOWHERE = ConversationId("A"), ConversationId("B"), ConversationId("nowhere")
SOON = math.inf
LARGE = 1 << 20


def said(text: str, audience: Audience = Audience.EVERYONE) -> NewEntry:
    return NewEntry(f'{{"text":"{text}"}}'.encode(), audience)


async def say(store: Store, conversation: ConversationId, *texts: str) -> list[Accepted]:
    return [await store.append(conversation, said(text), SOON) for text in texts]


async def log(store: Store, conversation: ConversationId, position: int = 0) -> list[bytes]:
    page = await store.read_after(conversation, position, 1000, LARGE, for_stream=True)
    assert not page.more
    return bodies(page)


def bodies(page: Page | None) -> list[bytes]:
    assert page is not None
    return [record.body if isinstance(record, Entry) else record.activity for record in page.records]


# Conversations


async def test_a_started_conversation_is_there_as_it_was_started(store: Store) -> None:
    assert await store.start(a_conversation("A", "ann"))
    assert await store.conversation(A) == Conversation(A, BOT, Account("ann", "Ann"), "en-US", 0, None)


async def test_a_second_start_changes_nothing(store: Store) -> None:
    await store.start(a_conversation("A", "ann"))
    await say(store, A, "one")
    assert not await store.start(a_conversation("A", "bob"))
    found = await store.conversation(A)
    assert found is not None
    assert (found.user, found.head) == (Account("ann", "Ann"), 1)
    assert [member.account.id for member in await store.members(A)] == [BOT, "ann"]


@pytest.mark.item(60)
async def test_of_twenty_concurrent_starts_exactly_one_created_the_conversation(store: Store) -> None:
    """The store's part; the bot's conversationUpdate follows from the one answer that is True."""
    answers = await asyncio.gather(*(store.start(a_conversation("A", f"user-{i}")) for i in range(20)))
    assert sorted(answers) == [False] * 19 + [True]
    assert len(await store.members(A)) == 2


async def test_what_was_never_started_is_unknown(store: Store) -> None:
    await store.start(a_conversation("A"))
    assert await store.conversation(NOWHERE) is None
    assert await store.accepted_at(NOWHERE, 0) is None
    assert store.read_cached(NOWHERE, 0, 0, LARGE) is None
    for refused in (
        store.append(NOWHERE, said("x"), SOON),
        store.members(NOWHERE),
        store.join(NOWHERE, Account("ann")),
        store.mark_announced(NOWHERE, ["ann"]),
    ):
        with pytest.raises(UnknownConversation):
            await refused


async def test_the_conversation_shows_its_head_and_the_time_of_its_last_entry(store: Store) -> None:
    await store.start(a_conversation("A"))
    accepted = await say(store, A, "one", "two")
    found = await store.conversation(A)
    assert found is not None
    assert (found.head, found.last_ms) == (2, accepted[-1].time_ms)


# Appending


async def test_numbers_rise_by_one_in_each_conversation(store: Store) -> None:
    await store.start(a_conversation("A"))
    await store.start(a_conversation("B"))
    for expected in range(3):
        for conversation in (A, B):
            accepted = await store.append(conversation, said("x"), SOON)
            assert accepted.sequence == expected


@pytest.mark.item(124)
async def test_times_rise_by_at_least_a_millisecond_even_when_the_clock_steps_back(home: Home) -> None:
    """The store's part: ids and watermarks are made of these numbers."""
    store = await home.open()
    await store.start(a_conversation("A"))
    times = [accepted.time_ms for accepted in await say(store, A, "one", "two")]
    home.clock.move(by_ms=-3_600_000)
    times += [accepted.time_ms for accepted in await say(store, A, "three")]
    store = await home.restart()
    times += [accepted.time_ms for accepted in await say(store, A, "four")]
    home.clock.move(by_ms=7_200_000)
    times += [accepted.time_ms for accepted in await say(store, A, "five")]
    assert times == [NOON_MS, NOON_MS + 1, NOON_MS + 2, NOON_MS + 3, NOON_MS + 3_600_000]


async def test_concurrent_appends_are_numbered_and_answered_in_the_order_of_the_calls(store: Store) -> None:
    conversations = [ConversationId(name) for name in "ABCDE"]
    for name in conversations:
        await store.start(a_conversation(name))
    answered: list[tuple[ConversationId, int]] = []

    async def one(number: int) -> None:
        conversation = conversations[number % 5]
        accepted = await store.append(conversation, said(str(number)), SOON)
        answered.append((conversation, accepted.sequence))

    await asyncio.gather(*(one(number) for number in range(200)))
    assert answered == [(conversations[number % 5], number // 5) for number in range(200)]
    assert await log(store, B) == [said(str(number)).body for number in range(1, 200, 5)]


async def test_an_append_right_behind_a_start_needs_no_answer_in_between(store: Store) -> None:
    created, accepted = await asyncio.gather(store.start(a_conversation("A")), store.append(A, said("one"), SOON))
    assert (created, accepted.sequence) == (True, 0)


async def test_one_unknown_conversation_does_not_hurt_those_beside_it(store: Store) -> None:
    await store.start(a_conversation("A"))
    answers = await asyncio.gather(
        store.append(A, said("one"), SOON),
        store.append(NOWHERE, said("lost"), SOON),
        store.append(A, said("two"), SOON),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Accepted, UnknownConversation, Accepted]
    assert await log(store, A) == [said("one").body, said("two").body]


async def test_a_body_comes_back_byte_for_byte(store: Store) -> None:
    await store.start(a_conversation("A"))
    odd = ['{"text":"ü \\u0000 😀","n":1e400}'.encode(), b'{"a":' + b" " * 70_000 + b"1}", b'{"a":1}']
    for body in odd:
        await store.append(A, NewEntry(body), SOON)
    assert await log(store, A) == odd


async def test_an_update_keeps_the_number_and_time_of_its_original(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    first, _ = await say(store, A, "one", "two")
    original = Original(first.sequence, first.time_ms)
    await store.append(A, NewEntry(b'{"text":"ONE"}', original=original), SOON)
    expected = [Entry(2, NOON_MS + 2, b'{"text":"ONE"}', Audience.EVERYONE, original)]
    page = store.read_cached(A, 2, 0, LARGE)
    assert page is not None
    assert page.records == expected
    store = await home.restart()
    page = await store.read_after(A, 2, 10, LARGE, for_stream=True)
    assert page.records == expected


async def test_a_deadline_that_has_passed_stores_nothing(store: Store) -> None:
    await store.start(a_conversation("A"))
    with pytest.raises(DeadlinePassed):
        await store.append(A, said("late"), -1.0)
    assert [accepted.sequence for accepted in await say(store, A, "in time")] == [0]
    assert await log(store, A) == [said("in time").body]


async def test_a_caller_that_goes_away_does_not_take_its_append_back(store: Store) -> None:
    await store.start(a_conversation("A"))
    task = asyncio.create_task(store.append(A, said("one"), SOON))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert [accepted.sequence for accepted in await say(store, A, "two")] == [1]
    assert await log(store, A) == [said("one").body, said("two").body]


@pytest.mark.item(193)
async def test_the_last_number_is_refused_and_touches_nobody_else(home: Home) -> None:
    """The store's part; the 400 is the edge's."""
    store = await home.open()
    await store.start(a_conversation("A"))
    await store.start(a_conversation("B"))
    store = await home.restart()
    await home.set_head(A, LAST_SEQUENCE - 1)
    answers = await asyncio.gather(
        *(store.append(conversation, said(conversation), SOON) for conversation in (A, A, B, A)),
        return_exceptions=True,
    )
    assert [answer.sequence if isinstance(answer, Accepted) else type(answer) for answer in answers] == [
        LAST_SEQUENCE - 1,
        ConversationFull,
        0,
        ConversationFull,
    ]
    store = await home.restart()
    with pytest.raises(ConversationFull):
        await store.append(A, said("more"), SOON)
    assert await log(store, A, LAST_SEQUENCE - 1) == [said("A").body]
    assert await log(store, B) == [said("B").body]


# Listening


async def test_streams_hear_of_an_entry_before_its_sender_is_answered_and_find_it(store: Store) -> None:
    await store.start(a_conversation("A"))
    happened: list[object] = []

    def moved(conversation: ConversationId) -> None:
        happened.append((conversation, bodies(store.read_cached(A, 0, 0, LARGE))))

    store.listen(moved)
    happened.append(await store.append(A, said("one"), SOON))
    assert happened == [(A, [said("one").body]), Accepted(0, NOON_MS)]


async def test_a_refused_append_wakes_nobody(store: Store) -> None:
    woken: list[ConversationId] = []
    store.listen(woken.append)
    with pytest.raises(UnknownConversation):
        await store.append(NOWHERE, said("x"), SOON)
    assert woken == []


# Reading


async def test_a_read_sees_what_was_acknowledged_before_it(store: Store) -> None:
    await store.start(a_conversation("A"))
    for number in range(50):
        await say(store, A, str(number))
        assert await log(store, A, number) == [said(str(number)).body]


async def test_a_page_ends_at_its_bounds_and_says_so(store: Store) -> None:
    await store.start(a_conversation("A"))
    accepted = await say(store, A, "11", "22", "33")
    size = len(said("11").body)
    page = await store.read_after(A, 0, 2, LARGE, for_stream=False)
    assert (bodies(page), page.position, page.behind_ms, page.more) == (
        [said("11").body, said("22").body],
        2,
        accepted[1].time_ms,
        True,
    )
    page = await store.read_after(A, 1, 100, 2 * size - 1, for_stream=False)
    assert (bodies(page), page.position, page.more) == ([said("22").body], 2, True)
    page = await store.read_after(A, 1, 2, 2 * size, for_stream=False)
    assert (bodies(page), page.position, page.more) == ([said("22").body, said("33").body], 3, False)


async def test_a_page_has_at_least_one_entry_however_small_its_bounds(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one", "two")
    page = await store.read_after(A, 0, 1, 1, for_stream=True)
    assert (bodies(page), page.position, page.more) == ([said("one").body], 1, True)


async def test_a_read_at_the_head_moves_nothing(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one")
    assert await store.read_after(A, 1, 10, LARGE, for_stream=True) == Page([], 1, None, 0, more=False)


async def test_an_empty_log_reads_as_nothing(store: Store) -> None:
    await store.start(a_conversation("A"))
    assert await store.read_after(A, 0, 10, LARGE, for_stream=False) == Page([], 0, None, 0, more=False)


@pytest.mark.item(153)
async def test_what_is_for_streams_only_is_stepped_over_by_other_readers(store: Store) -> None:
    """The store's part."""
    await store.start(a_conversation("A"))
    for text, audience in (("1", Audience.STREAMS), ("2", Audience.EVERYONE), ("3", Audience.STREAMS)):
        await store.append(A, said(text, audience), SOON)
    page = await store.read_after(A, 0, 10, LARGE, for_stream=False)
    assert (bodies(page), page.position, page.behind_ms, page.more) == ([said("2").body], 3, NOON_MS + 2, False)
    page = await store.read_after(A, 2, 10, LARGE, for_stream=False)
    assert (bodies(page), page.position, page.behind_ms) == ([], 3, NOON_MS + 2)
    page = await store.read_after(A, 0, 10, LARGE, for_stream=True)
    assert [record.audience for record in page.records if isinstance(record, Entry)] == [
        Audience.STREAMS,
        Audience.EVERYONE,
        Audience.STREAMS,
    ]


async def test_logs_do_not_run_into_each_other(store: Store) -> None:
    for name in (A, B):
        await store.start(a_conversation(name))
        await say(store, name, f"{name}1", f"{name}2")
    assert await log(store, A) == [said("A1").body, said("A2").body]
    assert await log(store, A, 2) == []
    assert await log(store, A, 1 << 40) == []
    assert await log(store, B, 1) == [said("B2").body]


async def test_acceptance_times_are_remembered_for_each_entry_and_no_other(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    await store.start(a_conversation("B"))
    accepted = await say(store, A, "one", "two")
    await say(store, B, "one", "two", "three")
    expected = [None, accepted[0].time_ms, accepted[1].time_ms, None, None]
    assert [await store.accepted_at(A, sequence) for sequence in (-1, 0, 1, 2, 1 << 40)] == expected
    store = await home.restart()
    assert [await store.accepted_at(A, sequence) for sequence in (-1, 0, 1, 2, 1 << 40)] == expected


# Transients


async def test_a_transient_is_shown_in_its_place_and_only_to_those_who_listen(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one")
    store.send_transient(A, b'{"type":"typing"}')
    await say(store, A, "two")
    page = store.read_cached(A, 0, 0, LARGE)
    assert page is not None
    assert page.records == [
        Entry(0, NOON_MS, said("one").body),
        Transient(1, 1, b'{"type":"typing"}'),
        Entry(1, NOON_MS + 1, said("two").body),
    ]
    assert (page.position, page.transient, page.more) == (2, 1, False)
    assert bodies(store.read_cached(A, 0, 1, LARGE)) == [said("one").body, said("two").body]
    assert bodies(store.read_cached(A, 2, 0, LARGE)) == []
    assert await log(store, A) == [said("one").body, said("two").body]


async def test_a_transient_wakes_the_streams_and_takes_no_number(store: Store) -> None:
    await store.start(a_conversation("A"))
    woken: list[ConversationId] = []
    store.listen(woken.append)
    store.send_transient(A, b"{}")
    assert (woken, store.transient_counter()) == ([A], 1)
    assert [accepted.sequence for accepted in await say(store, A, "one")] == [0]


async def test_a_transient_for_nobody_is_nothing(store: Store) -> None:
    store.send_transient(NOWHERE, b"{}")
    assert store.transient_counter() == 0


async def test_a_page_that_ends_between_transients_goes_on_with_the_next(store: Store) -> None:
    await store.start(a_conversation("A"))
    for text in (b'{"n":1}', b'{"n":2}', b'{"n":3}'):
        store.send_transient(A, text)
    await say(store, A, "one")
    seen, position, transient, more = [], 0, 0, True
    while more:
        page = store.read_cached(A, position, transient, 10)
        assert page is not None
        seen += bodies(page)
        position, transient, more = page.position, page.transient, page.more
    assert seen == [b'{"n":1}', b'{"n":2}', b'{"n":3}', said("one").body]
    assert (position, transient) == (1, 3)


async def test_a_reader_of_the_log_misses_no_transient_that_passes_while_it_reads(store: Store) -> None:
    await store.start(a_conversation("A"))
    await say(store, A, "one")
    store.send_transient(A, b'{"n":1}')
    read = asyncio.create_task(store.read_after(A, 0, 10, LARGE, for_stream=True))
    await asyncio.sleep(0)
    store.send_transient(A, b'{"n":2}')
    page = await read
    assert page.transient == 1
    assert bodies(store.read_cached(A, page.position, page.transient, LARGE)) == [b'{"n":2}']


# Members


async def test_members_stand_in_the_order_in_which_they_came_and_their_joins_are_due(store: Store) -> None:
    await store.start(a_conversation("A", "zoe"))
    await store.join(A, Account("mia", "Mia"))
    members = await store.join(A, Account("ann"))
    assert members == [
        Member(Account(BOT), is_bot=True, announced=False),
        Member(Account("zoe", "Zoe"), is_bot=False, announced=False),
        Member(Account("mia", "Mia"), is_bot=False, announced=False),
        Member(Account("ann"), is_bot=False, announced=False),
    ]
    assert await store.members(A) == members


async def test_who_is_a_member_does_not_join_again(store: Store) -> None:
    await store.start(a_conversation("A", "ann"))
    before = await store.members(A)
    assert await store.join(A, Account("ann", "Another Name")) == before
    assert await store.join(A, Account(BOT)) == before


async def test_a_user_with_the_bots_id_is_the_bot(store: Store) -> None:
    await store.start(a_conversation("A", BOT))
    assert await store.members(A) == [Member(Account(BOT), is_bot=True, announced=False)]


async def test_the_name_of_a_member_is_kept_up_to_a_length(store: Store) -> None:
    """All members are read whenever one more joins."""
    await store.start(NewConversation(A, "bot", Account("ann", "a" * 300), guest=Account("guest", "g" * 300)))
    await store.join(A, Account("ben", "b" * 300))
    names = {member.account.id: member.account.name for member in await store.members(A) if not member.is_bot}
    assert names == {"ann": "a" * 256, "guest": "g" * 256, "ben": "b" * 256}


async def test_no_more_members_join_and_none_of_them_speaks_than_there_may_be(store: Store) -> None:
    await store.start(a_conversation("A", "ann"))
    await store.join(A, Account("bob"), 3)
    with pytest.raises(TooManyMembers):
        await store.join(A, Account("eve"), 3)
    for keyed in (None, SendKey("eve", "key", b"digest", 0)):
        with pytest.raises(TooManyMembers):
            await store.append(A, NewEntry(b'{"text":"eve"}', key=keyed, newcomer=Newcomer("eve", 3)), SOON)
    await store.append(A, NewEntry(b'{"text":"bob"}', newcomer=Newcomer("bob", 3)), SOON)
    assert await log(store, A) == [b'{"text":"bob"}']
    assert len(await store.join(A, Account("bob"), 3)) == 3
    await store.leave(A, "ann")
    await store.append(A, NewEntry(b'{"text":"eve"}', newcomer=Newcomer("eve", 3)), SOON)
    assert [member.account.id for member in await store.join(A, Account("eve"), 3)] == [BOT, "bob", "eve"]


async def test_one_user_who_joins_twice_at_once_is_one_member(store: Store) -> None:
    await store.start(a_conversation("A"))
    await asyncio.gather(*(store.join(A, Account("ann")) for _ in range(5)))
    assert [member.account.id for member in await store.members(A)] == [BOT, "ann"]


@pytest.mark.item(188)
async def test_only_joins_that_were_announced_are_no_longer_due_after_a_restart(home: Home) -> None:
    """The store's part: the mark is durable, and so is its absence."""
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    await store.join(A, Account("bob"))
    await store.mark_announced(A, [BOT, "bob", "a stranger"])
    store = await home.restart()
    assert [(member.account.id, member.announced) for member in await store.members(A)] == [
        (BOT, True),
        ("ann", False),
        ("bob", True),
    ]


@pytest.mark.item(188)
async def test_a_guest_is_a_member_from_the_start_on_and_no_start_after_it_adds_one(home: Home) -> None:
    store = await home.open()
    for guest in ("ann", "bob"):
        await store.start(NewConversation(A, BOT, guest=Account(guest)))
    store = await home.restart()
    assert [(member.account.id, member.announced) for member in await store.members(A)] == [
        (BOT, False),
        ("ann", False),
    ]
    assert (await store.conversation(A)) == Conversation(A, BOT, None, None, 0, None)


async def test_a_join_is_claimed_while_it_is_due(home: Home) -> None:
    """A store that serves one process only leaves it to that one to claim nothing twice."""
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    until_ms = home.clock.now_ms() + 5_000
    assert set(await store.claim_joins(A, [BOT, "ann", "nobody"], until_ms)) == {BOT, "ann"}
    await store.release_joins(A, ["ann"])
    assert await store.claim_joins(A, ["ann"], until_ms) == ["ann"]
    await store.mark_announced(A, ["ann"])
    assert await store.claim_joins(A, ["ann"], until_ms) == []
    with pytest.raises(UnknownConversation):
        await store.claim_joins(NOWHERE, ["ann"], until_ms)


async def test_a_conversation_that_is_not_there_cannot_be_read(store: Store) -> None:
    await store.start(a_conversation("A"))
    assert (await store.read_after(A, 0, 1, 1, for_stream=True)).records == []
    await store.purge(A)
    for name in (A, NOWHERE):
        with pytest.raises(UnknownConversation):
            await store.read_after(name, 0, 1, 1, for_stream=True)


async def test_who_left_is_no_member_until_it_joins_again(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    await store.join(A, Account("bob"))
    await store.mark_announced(A, [BOT, "ann", "bob"])
    await store.leave(A, "ann")
    await store.leave(A, "ann")
    await store.leave(A, "nobody")
    store = await home.restart()
    assert [member.account.id for member in await store.members(A)] == [BOT, "bob"]
    await store.mark_announced(A, ["ann"])
    back = Account("ann", "Ann")
    assert (await store.join(A, back))[-1] == Member(back, is_bot=False, announced=False)
    store = await home.restart()
    assert (await store.members(A))[-1] == Member(back, is_bot=False, announced=False)


async def test_a_bot_cannot_leave(store: Store) -> None:
    await store.start(a_conversation("A"))
    await store.leave(A, BOT)
    assert [member.account.id for member in await store.members(A)] == [BOT]
    with pytest.raises(UnknownConversation):
        await store.leave(NOWHERE, "ann")


async def test_a_bots_conversations_are_listed_in_the_order_in_which_they_were_started(home: Home) -> None:
    store = await home.open()
    names = [f"c{number}" for number in (3, 1, 4, 1, 5, 9, 2, 6)]
    for name in names:
        await store.start(a_conversation(name))
    await store.start(msgspec.structs.replace(a_conversation("other"), bot_id="other-bot"))
    await store.start(a_conversation("last"))
    expected = [*dict.fromkeys(names), "last"]
    whole = await store.conversations_of_bot(BOT, 0, 100)
    assert [name for _, name in whole] == expected
    store = await home.restart()
    found: list[tuple[int, ConversationId]] = []
    while page := await store.conversations_of_bot(BOT, found[-1][0] if found else 0, 2):
        found += page
    assert found == list(whole)
    assert await store.conversations_of_bot("nobody", 0, 10) == []


# Deliveries that failed


def a_failure(sequence: int, **changes: Any) -> FailedDelivery:
    return msgspec.structs.replace(FailedDelivery(BOT, A, sequence, NOON_MS, "bot timed out"), **changes)


async def test_failures_are_kept_in_their_order_until_they_are_settled(home: Home) -> None:
    store = await home.open()
    first, second = a_failure(7, status=500), a_failure(3, conversation=B, bot_id="other")
    await store.record_failure(first, 10)
    await store.record_failure(second, 10)
    store = await home.restart()
    assert await store.failures() == [first, second]
    await store.settle_failure(A, 7)
    await store.settle_failure(A, 3)
    assert await store.failures() == [second]


async def test_a_failure_of_the_same_activity_takes_the_place_of_the_one_before_and_counts_it(store: Store) -> None:
    await store.record_failure(a_failure(1), 10)
    await store.record_failure(a_failure(2), 10)
    await store.record_failure(a_failure(1, reason="bot broke the connection"), 10)
    assert await store.failures() == [a_failure(2), a_failure(1, reason="bot broke the connection", attempts=2)]


async def test_only_so_many_failures_are_kept_and_the_newest_of_them(store: Store) -> None:
    for number in range(20):
        await store.record_failure(a_failure(number), 5)
    assert [failure.sequence for failure in await store.failures()] == [15, 16, 17, 18, 19]


# The deployment


async def test_of_concurrent_values_for_one_name_everybody_gets_the_first(home: Home) -> None:
    store = await home.open()
    answers = await asyncio.gather(*(store.put_if_absent("key", bytes([number])) for number in range(10)))
    assert set(answers) == {b"\0"}
    store = await home.restart()
    assert await store.get("key") == b"\0"
    assert await store.put_if_absent("key", b"another") == b"\0"
    assert await store.get("another name") is None


async def test_of_concurrent_replacements_of_one_value_exactly_one_takes_place(home: Home) -> None:
    store = await home.open()
    for old, new in ((None, b"first"), (b"first", b"second")):
        values = [new, *(bytes([number]) for number in range(9))]
        answers = await asyncio.gather(*(store.compare_and_set("key", old, value) for value in values))
        assert answers == [True, *[False] * 9]
    store = await home.restart()
    assert await store.get("key") == b"second"
    assert await store.put_if_absent("key", b"another") == b"second"


async def test_what_is_replaced_by_nothing_is_gone(home: Home) -> None:
    store = await home.open()
    assert await store.compare_and_set("key", None, None)
    await store.put_if_absent("key", b"value")
    assert not await store.compare_and_set("key", None, None)
    assert not await store.compare_and_set("key", b"another", None)
    assert await store.compare_and_set("key", b"value", None)
    store = await home.restart()
    assert await store.get("key") is None
    assert await store.put_if_absent("key", b"new") == b"new"


async def test_what_is_kept_is_found_by_the_beginning_of_its_name(store: Store) -> None:
    kept = {name: name.encode() for name in ("a", "a/", "a/1", "a/2%", "a/\U0001f600", "A/1", "a0", "b/1", "%/1", "")}
    for name, value in kept.items():
        await store.put_if_absent(name, value)
    for prefix in ("a/", "a/1", "a", "", "%", "c", "a/\U0001f600"):
        assert await store.list(prefix) == {name: value for name, value in kept.items() if name.startswith(prefix)}


# Opening and closing


async def test_everything_acknowledged_is_there_after_a_restart(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A", "ann"))
    accepted = await asyncio.gather(*(store.append(A, said(str(n)), SOON) for n in range(100)))
    store = await home.restart()
    assert await store.conversation(A) == Conversation(
        A, BOT, Account("ann", "Ann"), "en-US", 100, accepted[-1].time_ms
    )
    page = await store.read_after(A, 0, 1000, LARGE, for_stream=True)
    assert page.records == [Entry(a.sequence, a.time_ms, said(str(n)).body) for n, a in enumerate(accepted)]
    assert [each.sequence for each in await say(store, A, "next")] == [100]


async def test_closing_finishes_what_was_accepted(home: Home) -> None:
    store = await home.open()
    await store.start(a_conversation("A"))
    appends = [asyncio.create_task(store.append(A, said(str(n)), SOON)) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert [(await append).sequence for append in appends] == list(range(50))


async def test_a_closed_store_is_unavailable_and_can_be_closed_again(store: Store) -> None:
    await store.start(a_conversation("A"))
    await store.close()
    await store.close()
    for refused in (
        store.append(A, said("x"), SOON),
        store.conversation(A),
        store.start(a_conversation("B")),
        store.read_after(A, 0, 1, 1, for_stream=False),
        store.accepted_at(A, 0),
        store.members(A),
        store.join(A, Account("ann")),
        store.mark_announced(A, []),
        store.leave(A, "ann"),
        store.conversations_of_bot(BOT, 0, 1),
        store.record_failure(a_failure(1), 1),
        store.failures(),
        store.settle_failure(A, 1),
        store.put_if_absent("a", b""),
        store.get("a"),
        store.list("a"),
        store.compare_and_set("a", None, b""),
    ):
        with pytest.raises(StoreUnavailable) as failure:
            await refused
        assert not failure.value.retry
