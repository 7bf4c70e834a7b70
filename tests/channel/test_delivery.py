"""What a delivery brings about besides the order and the joins, and how deliveries end."""

from __future__ import annotations

import asyncio
import json
import time

import msgspec
import pytest

from landline.core.log import Accepted, ConversationId, NewEntry
from landline.errors import BotTimedOut
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock, two_bots
from support.scripted_transport import ScriptedTransport


async def test_a_bot_that_never_answers_costs_its_sender_the_deadline_and_nobody_else_anything(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    hung = channel.sending(conversation, "hung", within=0.5)
    (await transport.nth(1)).write()
    transport.hold = False
    await channel.send(conversation, "next")
    assert not hung.done()
    with pytest.raises(BotTimedOut):
        await hung
    assert await channel.texts(conversation) == ["hung", "next"], "what the bot did not answer stays (D-46)"


async def test_the_echo_is_on_the_log_before_the_bot_hears_of_it(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.hold = True
    sending = channel.sending(conversation, "hello")
    post = await transport.nth(1)
    assert await channel.texts(conversation) == ["hello"]
    post.answer()
    assert await sending == post.activity["id"]


async def test_a_bot_calls_back_in_the_middle_of_its_turn(channel: Channel, transport: ScriptedTransport) -> None:
    """docs/architecture.md, promise 7: no lock is held while the bot works, not even while it works on a join."""
    transport.hold = True
    conversation = await channel.start("u1")
    join = await transport.nth(0)
    await asyncio.wait_for(channel.speak(conversation, "welcome"), 1)
    join.answer()
    sending = channel.sending(conversation, "hello")
    message = await transport.nth(1)
    await asyncio.wait_for(channel.speak(conversation, "echo: hello"), 1)
    message.answer()
    await sending
    assert await channel.texts(conversation) == ["welcome", "hello", "echo: hello"]


async def test_an_invoke_is_offered_once_only(channel: Channel, transport: ScriptedTransport) -> None:
    conversation = await channel.start("u1")
    await channel.send(conversation, "-", type="invoke", name="x")
    await channel.send(conversation, "-")
    assert [(post.type, post.retry) for post in transport.posts[1:]] == [("invoke", False), ("message", True)]


async def test_a_finish_waits_no_longer_than_it_may(channel: Channel, transport: ScriptedTransport) -> None:
    transport.hold = True
    await channel.start("u1")
    join = await transport.nth(0)
    join.write()
    began = time.monotonic()
    await channel.delivery.finish(began + 0.1)
    assert 0.1 <= time.monotonic() - began < 4
    assert not join.outcome.done(), "it only waits"


async def test_a_finish_gives_up_soon_on_a_bot_that_is_not_there(
    channel: Channel, transport: ScriptedTransport
) -> None:
    transport.hold = True
    conversation = await channel.start("u1", within=60)
    await transport.nth(0)
    await asyncio.wait_for(channel.delivery.finish(time.monotonic() + 60), 10)
    assert [member.announced for member in await channel.store.members(conversation.id)] == [False, False]


@pytest.mark.bot_item(28)
async def test_replies_are_stored_to_the_end_though_the_request_is_given_up() -> None:
    """The bot will not say them again."""

    class Slow(MemoryStore):
        async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
            if b'"reply' in entry.body:
                await asyncio.sleep(0.15)
            return await super().append(conversation, entry, deadline)

    transport = ScriptedTransport()
    bots = two_bots(bot=msgspec.structs.replace(BOT, delivery="expectReplies"))
    channel = Channel(Slow(TestClock()), transport, registry=bots)
    conversation = await channel.start("u1")
    await channel.send(conversation, "first")
    transport.hold = True
    sending = channel.sending(conversation, "hi", within=0.4)
    replies = [{"type": "message", "text": f"reply {number}"} for number in range(4)]
    (await transport.nth(2)).answer(200, json.dumps({"activities": replies}).encode())
    await sending
    assert len(await channel.texts(conversation)) < 6, "the sender did not wait for all of it"
    async with asyncio.timeout(5):
        while len(texts := await channel.texts(conversation)) < 6:
            await asyncio.sleep(0.01)
    assert texts == ["first", "hi", *(reply["text"] for reply in replies)]
    await channel.delivery.close()
