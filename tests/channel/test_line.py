"""The order in which a bot hears of a conversation, and that nothing but order ever makes anybody wait."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from landline.core.log import ConversationId
from landline.errors import BotTimedOut, BotUnreachable
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock, two_bots
from support.deliveries import LINGER_S, until
from support.scripted_transport import ScriptedTransport


async def test_the_next_request_begins_when_the_one_before_is_written_not_when_it_is_answered(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    sends = [channel.sending(conversation, text) for text in ("one", "two", "three")]
    one = await transport.nth(1)
    await asyncio.sleep(LINGER_S)
    assert transport.messages == ["one"], "nobody begins before the one ahead is written"
    one.write()
    two = await transport.nth(2)
    await asyncio.sleep(LINGER_S)
    assert transport.messages == ["one", "two"]
    two.write()
    three = await transport.nth(3)
    for post in (three, two, one):
        post.answer()
    ids = await asyncio.gather(*sends)
    assert transport.messages == ["one", "two", "three"]
    assert ids == sorted(ids), "places stand in log order"


async def test_turns_of_one_bot_overlap_and_each_sender_waits_for_its_own_answer(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    slow = channel.sending(conversation, "slow")
    (await transport.nth(1)).write()
    quick = channel.sending(conversation, "quick")
    (await transport.nth(2)).answer()
    await quick
    assert not slow.done()
    transport.posts[1].answer()
    await slow


async def test_a_request_that_is_given_up_lets_the_next_one_begin(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    first = channel.sending(conversation, "first", within=0.2)
    second = channel.sending(conversation, "second")
    with pytest.raises(BotUnreachable):
        await first
    (await transport.nth(2)).answer()
    await second
    assert transport.messages == ["first", "second"]


async def test_who_gives_up_in_the_line_does_not_let_the_next_one_overtake_those_ahead(
    channel: Channel, transport: ScriptedTransport
) -> None:
    """The deadline of the middle one passes while the first is still trying to reach the bot: "that before n has been
    written completely or given up" holds for the third all the same."""
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    first = channel.sending(conversation, "first")
    unwritten = await transport.nth(1)
    impatient = channel.sending(conversation, "impatient", within=0.1)
    third = channel.sending(conversation, "third")
    with pytest.raises(BotUnreachable):
        await impatient
    await asyncio.sleep(LINGER_S)
    assert transport.messages == ["first"]
    unwritten.answer()
    (await transport.nth(2)).answer()
    await asyncio.gather(first, third)
    assert transport.messages == ["first", "third"]


async def test_a_sender_that_hangs_up_in_the_line_holds_nobody_back(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    first = channel.sending(conversation, "first")
    unwritten = await transport.nth(1)
    gone = channel.sending(conversation, "gone")
    third = channel.sending(conversation, "third")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(LINGER_S)
    assert transport.messages == ["first"]
    unwritten.answer()
    (await transport.nth(2)).answer()
    await asyncio.gather(first, third)
    assert await channel.texts(conversation) == ["first", "gone", "third"]


async def test_a_cancelled_delivery_leaves_its_place(channel: Channel, transport: ScriptedTransport) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    gone = channel.sending(conversation, "gone")
    await transport.nth(1)
    gone.cancel()
    second = channel.sending(conversation, "second")
    (await transport.nth(2)).answer()
    await second


async def test_leaving_a_place_twice_is_leaving_once(channel: Channel) -> None:
    line = ConversationId("line-1234")
    first, second, third = (channel.delivery.enter(line) for _ in range(3))
    first.leave()
    first.leave()
    await asyncio.wait_for(second.turn(time.monotonic() + 1), 1)
    with pytest.raises(BotUnreachable):
        await third.turn(time.monotonic() + 0.05)


async def test_an_empty_line_is_forgotten(channel: Channel) -> None:
    line = ConversationId("line-1234")
    for _ in range(3):
        places = [channel.delivery.enter(line) for _ in range(3)]
        for place in (places[1], places[0], places[2]):
            place.leave()
        await until(lambda: not channel.delivery._lines, "the line is kept for nobody")


async def test_a_hung_bot_in_one_conversation_delays_no_other(channel: Channel, transport: ScriptedTransport) -> None:
    hung, lively = await channel.start("u1"), await channel.start("u2")
    await transport.nth(1)
    transport.hold = True
    waiting = channel.sending(hung, "hung")
    await transport.nth(2)
    transport.hold = False
    await channel.send(lively, "lively", "u2")
    assert not waiting.done()
    transport.posts[2].answer()
    await waiting


async def test_places_stand_in_log_order_whatever_the_order_of_the_senders(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    await asyncio.gather(*(channel.send(conversation, str(number)) for number in range(50)))
    assert transport.messages == await channel.texts(conversation)


async def test_a_deadline_that_passes_in_the_line_is_the_senders_own(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    first = channel.sending(conversation, "first")
    await transport.nth(1)
    began = time.monotonic()
    with pytest.raises(BotUnreachable):
        await channel.send(conversation, "second", within=0.2)
    assert time.monotonic() - began < 4
    transport.posts[1].answer()
    await first


@pytest.mark.bot_item(11)
async def test_a_serial_bot_hears_the_next_activity_when_it_has_answered_the_one_before() -> None:
    transport = ScriptedTransport()
    bots = two_bots(bot=msgspec.structs.replace(BOT, turns="serial"))
    channel = Channel(MemoryStore(TestClock()), transport, registry=bots)
    conversation = await channel.start("u1")
    await channel.send(conversation, "first")
    transport.hold = True
    sends = [channel.sending(conversation, text) for text in ("a", "b")]
    first = await transport.nth(2)
    first.write()
    await asyncio.sleep(LINGER_S)
    assert transport.messages == ["first", "a"]
    first.answer()
    (await transport.nth(3)).answer()
    await asyncio.gather(*sends)
    assert transport.messages == ["first", "a", "b"]
    await channel.delivery.close()


async def test_a_serial_bot_that_fails_a_turn_hears_the_next_one() -> None:
    transport = ScriptedTransport()
    bots = two_bots(bot=msgspec.structs.replace(BOT, turns="serial"))
    channel = Channel(MemoryStore(TestClock()), transport, registry=bots)
    conversation = await channel.start("u1")
    await channel.send(conversation, "first")
    transport.hold = True
    slow, following = channel.sending(conversation, "slow", within=0.2), channel.sending(conversation, "next")
    (await transport.nth(2)).write()
    with pytest.raises(BotTimedOut):
        await slow
    (await transport.nth(3)).answer()
    await following
    await channel.delivery.close()
