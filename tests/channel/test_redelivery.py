"""What a bot did not take is on record, and an operator can offer it again; nobody else does."""

from __future__ import annotations

import asyncio
import time

import pytest

from landline.core import log
from landline.core.failure import FailedDelivery
from landline.core.log import NewEntry
from landline.errors import BotRejected, BotTimedOut, BotUnreachable, DeliveryError, UnknownActivity
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock
from support.scripted_transport import ScriptedTransport


def soon() -> float:
    return time.monotonic() + 5


async def failed(channel: Channel, transport: ScriptedTransport, error: DeliveryError, **more: object) -> str:
    """Send a message that the bot does not take; answer its id."""
    conversation = await channel.start("u1")
    await channel.send(conversation, "before")
    transport.failure = error
    with pytest.raises(type(error)):
        await channel.send(conversation, "lost", **more)
    transport.failure = None
    return f"{conversation.id}|0000001"


@pytest.mark.parametrize(
    ("error", "status"), [(BotUnreachable(), None), (BotTimedOut(), None), (BotRejected(500, b"secret"), 500)]
)
async def test_what_a_bot_did_not_take_is_on_record_when_the_sender_hears_of_it(
    channel: Channel, transport: ScriptedTransport, error: DeliveryError, status: int | None
) -> None:
    activity_id = await failed(channel, transport, error)
    (failure,) = await channel.redelivery.failed()
    assert failure == FailedDelivery(BOT.id, failure.conversation, 1, failure.at_ms, error.message, status)
    assert activity_id.startswith(failure.conversation)
    assert abs(failure.at_ms - channel.clock.now_ms()) < 10_000


async def test_what_is_offered_again_is_the_same_activity_and_then_it_is_settled(
    channel: Channel, transport: ScriptedTransport
) -> None:
    activity_id = await failed(channel, transport, BotUnreachable(), channelData={"a": [1]}, localTimezone="UTC")
    first = transport.posts[-1].activity
    await channel.redelivery.offer(activity_id, soon())
    again = transport.posts[-1].activity
    assert (again["id"], again["text"]) == (activity_id, "lost")
    assert again == first
    assert await channel.redelivery.failed() == []
    with pytest.raises(UnknownActivity):
        await channel.redelivery.offer(activity_id, soon())


@pytest.mark.item(168)
async def test_a_repeat_of_what_was_taken_when_offered_again_is_not_offered(
    channel: Channel, transport: ScriptedTransport
) -> None:
    """The bot accepted what had been answered 502; the same key says so, and the bot hears nothing (8.5)."""
    conversation = await channel.start("u1")
    body = b'{"type":"message","from":{"id":"u1"},"text":"once"}'

    async def send() -> str:
        return await channel.activities.send(channel.secret, conversation, body, soon(), "key")

    transport.failure = BotRejected(500)
    with pytest.raises(BotRejected):
        await send()
    (failure,) = await channel.redelivery.failed()
    activity_id = log.activity_id(conversation.id, failure.sequence)
    with pytest.raises(BotRejected):
        await channel.redelivery.offer(activity_id, soon())
    transport.failure = None
    await channel.redelivery.offer(activity_id, soon())
    assert await send() == activity_id
    assert transport.messages == ["once"] * 3
    assert await channel.texts(conversation) == ["once"]


async def test_what_the_bot_took_when_its_sender_repeated_it_is_on_record_no_more(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    body = b'{"type":"message","from":{"id":"u1"},"text":"once"}'
    transport.failure = BotRejected(500)
    for _ in range(2):
        with pytest.raises(BotRejected):
            await channel.activities.send(channel.secret, conversation, body, soon(), "key")
    assert len(await channel.redelivery.failed()) == 1
    transport.failure = None
    await channel.activities.send(channel.secret, conversation, body, soon(), "key")
    async with asyncio.timeout(5):
        while await channel.redelivery.failed():
            await asyncio.sleep(0)


async def test_what_fails_again_stays_on_record(channel: Channel, transport: ScriptedTransport) -> None:
    activity_id = await failed(channel, transport, BotUnreachable())
    transport.failure = BotRejected(503)
    with pytest.raises(BotRejected):
        await channel.redelivery.offer(activity_id, soon())
    (failure,) = await channel.redelivery.failed()
    assert (failure.status, failure.attempts) == (503, 2)


async def test_an_invoke_and_what_is_in_no_log_are_not_on_record(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    transport.failure = BotTimedOut()
    for kind in ("invoke", "typing", "conversationUpdate"):
        with pytest.raises(BotTimedOut):
            await channel.send(conversation, "x", type=kind)
    assert await channel.redelivery.failed() == []


async def test_what_is_in_the_log_no_more_is_not_offered_and_taken_off_the_record(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    await channel.store.append(conversation.id, NewEntry(b'{"type":"message"}'), soon())
    for sequence in (5, 6):
        await channel.store.record_failure(FailedDelivery(BOT.id, conversation.id, sequence, 0, "x"), 10)
    with pytest.raises(UnknownActivity):
        await channel.redelivery.offer(f"{conversation.id}|0000005", soon())
    assert [failure.sequence for failure in await channel.redelivery.failed()] == [6]
    assert not [post for post in transport.posts if post.type == "message"]


async def test_a_store_that_cannot_record_it_changes_nothing_for_the_sender(transport: ScriptedTransport) -> None:
    class Deaf(MemoryStore):
        async def record_failure(self, failure: FailedDelivery, most: int) -> None:
            raise BotTimedOut  # any LandlineError that nobody expects here

    channel = Channel(Deaf(TestClock()), transport)
    conversation = await channel.start("u1")
    transport.failure = BotUnreachable()
    with pytest.raises(BotUnreachable):
        await channel.send(conversation, "lost")
    await channel.delivery.close()


async def test_failures_outlast_a_restart(channel: Channel, transport: ScriptedTransport) -> None:
    activity_id = await failed(channel, transport, BotUnreachable())
    restarted = Channel(channel.store, transport)
    await restarted.redelivery.offer(activity_id, soon())
    assert transport.messages == ["before", "lost", "lost"]
    await restarted.delivery.close()
