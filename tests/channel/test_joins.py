"""Whom a bot is told of, and when: also where the store is in trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from itertools import chain

import msgspec
import pytest

from landline.core.conversation import Account, Member
from landline.core.failure import FailedDelivery
from landline.core.log import ConversationId
from landline.errors import BotRejected, BotTimedOut, BotUnreachable, LandlineError, NoBot, TooManyMembers
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock, two_bots
from support.deliveries import LINGER_S, StuckStore, all_announced, until, until_idle
from support.scripted_transport import ScriptedTransport


async def test_a_start_announces_bot_and_user_in_one_update_before_the_first_message(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1", locale="de-DE")
    await channel.send(conversation, "hello")
    assert [post.type for post in transport.posts] == ["conversationUpdate", "message"]
    assert transport.joins == [[BOT.id, "u1"]]
    assert transport.posts[0].activity["locale"] == "de-DE"


async def test_a_later_user_is_announced_before_its_first_activity_and_never_again(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start()
    for user in ("u1", "u2", "u1", "u2"):
        await channel.send(conversation, f"from {user}", user)
    assert transport.joins == [[BOT.id], ["u1"], ["u2"]]
    assert [post.type for post in transport.posts] == [
        "conversationUpdate",
        "conversationUpdate",
        "message",
        "conversationUpdate",
        "message",
        "message",
        "message",
    ]


async def test_who_is_one_member_too_many_says_nothing_and_is_told(transport: ScriptedTransport) -> None:
    channel = Channel(MemoryStore(TestClock()), transport, members=3)
    conversation = await channel.start()
    said = [channel.send(conversation, "hi", f"u{number}") for number in range(2)]
    await asyncio.gather(*said)
    for kind in ("message", "typing", "invoke"):
        with pytest.raises(TooManyMembers):
            await channel.send(conversation, "me too", "u2", type=kind)
    await channel.send(conversation, "hi again", "u1")
    assert sorted(await channel.texts(conversation)) == ["hi", "hi", "hi again"]
    assert sorted(chain.from_iterable(transport.joins)) == [BOT.id, "u0", "u1"]
    await channel.delivery.close()


async def test_users_who_write_at_the_same_time_are_each_announced_once(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start()
    await asyncio.gather(*(channel.send(conversation, "hi", f"u{number % 5}") for number in range(25)))
    assert sorted(chain.from_iterable(transport.joins)) == [BOT.id, *(f"u{number}" for number in range(5))]
    seen: set[str] = set()
    for post in transport.posts:
        seen.update(post.joined)
        assert post.type == "conversationUpdate" or post.activity["from"]["id"] in seen, "a stranger spoke"


async def test_twenty_starts_at_once_announce_once(channel: Channel, transport: ScriptedTransport) -> None:
    grant = channel.token("dl_a")
    opened = await asyncio.gather(*(channel.open(grant=grant) for _ in range(20)))
    await channel.send(opened[0].conversation, "hi", "dl_a")
    assert sum(each.created for each in opened) == 1
    assert transport.joins == [[BOT.id, "dl_a"]]


async def test_an_activity_waits_for_the_answer_to_a_join(channel: Channel, transport: ScriptedTransport) -> None:
    transport.hold = True
    conversation = await channel.start("u1")
    join = await transport.nth(0)
    sending = channel.sending(conversation, "hello")
    join.write()
    await asyncio.sleep(LINGER_S)
    assert transport.messages == []
    join.answer()
    (await transport.nth(1)).answer()
    await sending


async def test_an_activity_waits_for_a_join_no_longer_than_join_wait_s() -> None:
    channel = Channel(MemoryStore(TestClock()), transport := ScriptedTransport(), join_wait_s=0.3)
    transport.hold = True
    conversation = await channel.start("u1", within=10)
    join = await transport.nth(0)
    sending = channel.sending(conversation, "hello", within=10)
    await asyncio.sleep(0.1)
    join.write()
    written = time.monotonic()
    message = await transport.nth(1)
    assert 0.25 < time.monotonic() - written < 4
    message.answer()
    await sending
    assert not join.outcome.done(), "the join's own turn goes on"
    await all_announced(channel, conversation.id)
    await channel.delivery.close()


@pytest.mark.parametrize("failure", [BotRejected(500), BotTimedOut()])
async def test_a_join_that_the_bot_fails_on_counts_as_announced_and_fails_nobody(
    channel: Channel, transport: ScriptedTransport, failure: BotRejected | BotTimedOut
) -> None:
    transport.hold = True
    conversation = await channel.start("u1")
    join = await transport.nth(0)
    sending = channel.sending(conversation, "hello")
    join.write()
    join.fail(failure)
    (await transport.nth(1)).answer()
    await sending
    await all_announced(channel, conversation.id)
    assert len(transport.joins) == 1


async def test_a_join_that_was_never_written_stays_due_and_is_announced_by_the_next_send(
    channel: Channel, transport: ScriptedTransport
) -> None:
    transport.failure = BotUnreachable()
    conversation = await channel.start("u1")
    await transport.nth(0)
    with pytest.raises(BotUnreachable):
        await channel.send(conversation, "into the void")
    assert transport.messages == [], "what comes behind a join that could not be written cannot be written either"
    transport.failure = None
    await channel.send(conversation, "hello")
    assert transport.joins[-1] == [BOT.id, "u1"]
    assert transport.messages == ["hello"]
    assert await channel.texts(conversation) == ["into the void", "hello"]


async def test_a_join_that_was_never_written_is_announced_by_a_repeated_start(
    channel: Channel, transport: ScriptedTransport
) -> None:
    transport.failure = BotUnreachable()
    grant = channel.token("dl_a")
    conversation = await channel.start(grant=grant)
    await transport.nth(0)
    await until(lambda: not channel.delivery._lines, "the announcement has ended")
    transport.failure = None
    await channel.start(grant=grant)
    assert (await transport.nth(1)).joined == [BOT.id, "dl_a"]
    await all_announced(channel, conversation.id)


async def test_a_join_owed_by_a_process_that_died_is_paid_by_the_next_one() -> None:
    """The mark is in the store, not in the process."""
    store = MemoryStore(TestClock())
    dying = Channel(store, first := ScriptedTransport())
    first.hold = True
    conversation = await dying.start("u1")
    await first.nth(0)
    await dying.delivery.close()
    living = Channel(store, second := ScriptedTransport())
    await living.send(conversation, "hello")
    assert second.joins == [[BOT.id, "u1"]]
    await all_announced(living, conversation.id)
    again = Channel(store, third := ScriptedTransport())
    await again.send(conversation, "hello again")
    assert third.joins == []
    for channel in (living, again):
        await channel.delivery.close()


async def test_a_clients_own_conversation_update_is_forwarded_behind_its_senders_join(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start()
    update_id = await channel.send(conversation, "-", "u1", type="conversationUpdate")
    assert [post.joined for post in transport.posts] == [[BOT.id], ["u1"], []]
    assert transport.posts[2].activity["id"] == update_id
    assert update_id.startswith(f"{conversation.id}|tu")


async def test_a_store_that_hangs_on_a_join_cannot_hold_a_request_beyond_its_deadline(stuck: Channel) -> None:
    assert isinstance(stuck.store, StuckStore)
    conversation = await stuck.start()
    await all_announced(stuck, conversation.id)
    stuck.store.moves.clear()
    began = time.monotonic()
    with pytest.raises(BotUnreachable):
        await stuck.send(conversation, "hello", within=0.3)
    assert 0.25 < time.monotonic() - began < 4
    stuck.store.moves.set()
    await stuck.send(conversation, "hello again")
    assert isinstance(stuck.transport, ScriptedTransport)
    assert stuck.transport.messages == ["hello again"]


async def test_a_store_that_hangs_on_the_members_cannot_hold_the_line_beyond_the_starts_deadline(
    stuck: Channel,
) -> None:
    assert isinstance(stuck.store, StuckStore)
    assert isinstance(stuck.transport, ScriptedTransport)
    stuck.store.moves.clear()
    conversation = await stuck.start("u1", within=0.2)
    behind = stuck.delivery.enter(conversation.id)
    await behind.turn(time.monotonic() + 4)
    behind.leave()
    stuck.store.moves.set()
    await stuck.send(conversation, "hello")
    assert stuck.transport.joins == [[BOT.id, "u1"]]


async def test_a_store_that_hangs_on_the_mark_delays_nobody(stuck: Channel) -> None:
    assert isinstance(stuck.store, StuckStore)
    assert isinstance(stuck.transport, ScriptedTransport)
    stuck.transport.hold = True
    conversation = await stuck.start("u1")
    join = await stuck.transport.nth(0)
    stuck.store.moves.clear()
    join.answer()
    stuck.transport.hold = False
    await asyncio.wait_for(stuck.send(conversation, "hello"), 1)
    stuck.store.moves.set()
    await all_announced(stuck, conversation.id)


async def test_a_store_that_fails_on_a_join_fails_the_delivery_and_not_the_activity(stuck: Channel) -> None:
    assert isinstance(stuck.store, StuckStore)
    conversation = await stuck.start()
    stuck.store.fails = True
    with pytest.raises(BotUnreachable):
        await stuck.send(conversation, "kept", within=0.3)
    stuck.store.fails = False
    assert await stuck.texts(conversation) == ["kept"]


async def test_a_store_that_fails_briefly_on_a_join_delays_the_delivery(stuck: Channel) -> None:
    assert isinstance(stuck.store, StuckStore)
    conversation = await stuck.start()
    stuck.store.fails = True
    sending = stuck.sending(conversation, "hello")
    await asyncio.sleep(LINGER_S)
    stuck.store.fails = False
    await sending
    assert isinstance(stuck.transport, ScriptedTransport)
    assert stuck.transport.joins == [[BOT.id], ["u1"]]


async def test_an_announcement_that_could_not_be_marked_is_not_made_again_by_the_same_process(stuck: Channel) -> None:
    """A join reaches the bot twice only after a crash (D-38), not whenever a new user comes in after a full disk."""
    assert isinstance(stuck.store, StuckStore)
    assert isinstance(stuck.transport, ScriptedTransport)
    stuck.store.marks_fail = True
    conversation = await stuck.start("u1")
    await stuck.send(conversation, "hello")
    stuck.store.marks_fail = False
    await stuck.send(conversation, "hello", "u2")
    assert stuck.transport.joins == [[BOT.id, "u1"], ["u2"]]
    await all_announced(stuck, conversation.id)


class CountingStore(MemoryStore):
    """Counts what would be durable writes beside the log."""

    def __init__(self) -> None:
        super().__init__(TestClock())
        self.writes: list[str] = []

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        self.writes.append(f"join {account.id}")
        return await super().join(conversation, account, most)

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        self.writes.append("failure")
        await super().record_failure(failure, most)


@pytest.fixture
async def botless() -> AsyncIterator[Channel]:
    """A server without a bot."""
    registered = two_bots(bot=msgspec.structs.replace(BOT, endpoint=None))
    channel = Channel(CountingStore(), ScriptedTransport(), registry=registered)
    yield channel
    await channel.delivery.close()


async def test_a_send_to_a_server_without_bot_is_kept_and_owes_no_join(botless: Channel) -> None:
    conversation = await botless.start("u1")
    with pytest.raises(NoBot):
        await botless.send(conversation, "kept")
    assert isinstance(botless.transport, ScriptedTransport)
    assert (botless.transport.posts, await botless.texts(conversation)) == ([], ["kept"])
    assert await botless.redelivery.failed() == []


async def test_a_send_to_a_server_without_bot_writes_nothing_but_the_activity(botless: Channel) -> None:
    """Who has spoken takes part, which is stored once; that nobody took it is stored never."""
    store = botless.store
    assert isinstance(store, CountingStore)
    conversation = await botless.start()
    for user in ("u1", "u2", "u1", "u2", "u1"):
        with pytest.raises(NoBot):
            await botless.send(conversation, "kept", user)
        await until_idle(botless)
    assert store.writes == ["join u1", "join u2"]
    assert {member.account.id for member in await store.members(conversation.id)} >= {"u1", "u2"}


async def test_a_member_that_has_left_and_speaks_again_without_a_bot_takes_part_again(botless: Channel) -> None:
    conversation = await botless.start()
    for _ in range(2):
        with pytest.raises(NoBot):
            await botless.send(conversation, "kept", "u1")
        await until_idle(botless)
        assert "u1" in {member.account.id for member in await botless.store.members(conversation.id)}
        await botless.store.leave(conversation.id, "u1")
        botless.delivery.joins.forget(conversation.id, "u1")


async def test_a_close_ends_what_waits_for_a_join_that_never_began(channel: Channel) -> None:
    """A join that is cancelled before its first step never says that it was written."""
    conversation = await channel.start()
    await all_announced(channel, conversation.id)
    sending = channel.sending(conversation, "hello", within=60)
    while not channel.delivery._tasks._tasks:
        await asyncio.sleep(0)
    await channel.delivery.close()
    with pytest.raises(LandlineError):
        await asyncio.wait_for(sending, 2)


async def test_a_close_leaves_the_joins_due_that_were_not_announced(
    channel: Channel, transport: ScriptedTransport
) -> None:
    transport.hold = True
    conversation = await channel.start("u1")
    await transport.nth(0)
    await channel.delivery.close()
    assert [member.announced for member in await channel.store.members(conversation.id)] == [False, False]


async def test_a_finish_waits_for_a_join_and_for_the_mark_that_follows_it(stuck: Channel) -> None:
    assert isinstance(stuck.store, StuckStore)
    assert isinstance(stuck.transport, ScriptedTransport)
    stuck.transport.hold = True
    conversation = await stuck.start("u1")
    join = await stuck.transport.nth(0)
    finishing = asyncio.create_task(stuck.delivery.finish(time.monotonic() + 5))
    stuck.store.moves.clear()
    join.answer()
    await asyncio.sleep(LINGER_S)
    assert not finishing.done(), "the mark is still to be written"
    stuck.store.moves.set()
    await finishing
    assert all(member.announced for member in await stuck.store.members(conversation.id))


async def test_a_serial_bot_is_not_disturbed_in_a_slow_greeting() -> None:
    transport = ScriptedTransport()
    bots = two_bots(bot=msgspec.structs.replace(BOT, turns="serial"))
    channel = Channel(MemoryStore(TestClock()), transport, registry=bots, join_wait_s=0.05)
    transport.hold = True
    conversation = await channel.start("u1")
    sending = channel.sending(conversation, "hi")
    join = await transport.nth(0)
    join.write()
    await asyncio.sleep(LINGER_S)
    assert transport.messages == []
    join.answer()
    (await transport.nth(1)).answer()
    await sending
    await channel.delivery.close()
