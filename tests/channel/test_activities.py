"""Sending and reading; what bots may do; a store in trouble is a delay before it is an error."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from landline.channel.activities import PageBounds
from landline.core.activity import names_unseen
from landline.core.conversation import Conversation
from landline.core.log import Accepted, ConversationId, Entry, NewEntry, Transient
from landline.errors import (
    BadArgument,
    BadSyntax,
    BotRejected,
    DeadlinePassed,
    MissingProperty,
    OutcomeUnknown,
    StoreUnavailable,
    UnknownConversation,
)
from landline.stores.memory import MemoryStore
from support.channel import BOT, OTHER_BOT, Channel, TestClock
from support.scripted_transport import ScriptedTransport


async def shown(channel: Channel, conversation: Conversation) -> list[dict[str, Any]]:
    """What Get Activities shows, first page."""
    fresh = await channel.conversations.find(channel.secret, conversation.id)
    found = json.loads((await channel.activities.read(fresh, None)).activity_set)["activities"]
    assert isinstance(found, list)
    return found


def passed_by(channel: Channel, conversation: Conversation) -> list[dict[str, Any]]:
    """The transients that open streams were shown since the first one."""
    page = channel.store.read_cached(conversation.id, 0, 0, 1 << 20)
    assert page is not None
    return [json.loads(each.activity) for each in page.records if isinstance(each, Transient)]


# Sending


async def test_what_is_answered_is_what_is_shown_and_what_the_bot_gets(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    activity_id = await channel.send(conversation, "hello", channelData={"x": [1]})
    (echo,) = await shown(channel, conversation)
    at_bot = transport.posts[-1].activity
    assert activity_id == echo["id"] == at_bot["id"] == f"{conversation.id}|0000000"
    assert echo["timestamp"] == at_bot["timestamp"]
    assert echo["channelData"] == at_bot["channelData"] == {"x": [1]}
    assert "serviceUrl" not in echo
    assert at_bot["serviceUrl"] == BOT.service_url


async def test_a_send_that_the_bot_refuses_fails_and_stays(channel: Channel, transport: ScriptedTransport) -> None:
    conversation = await channel.start("u1")
    await transport.nth(0)
    transport.failure = BotRejected(500)
    with pytest.raises(BotRejected):
        await channel.send(conversation, "kept")
    assert await channel.texts(conversation) == ["kept"]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", BadSyntax),
        (b"[{}]", BadArgument),
        (b'{"from":{"id":"u"}}', MissingProperty),
        (b'{"type":"message"}', MissingProperty),
        (b'{"type":"message","from":{"id":"bot"}}', BadArgument),
    ],
)
async def test_what_is_refused_is_neither_stored_nor_sent_and_makes_nobody_a_member(
    channel: Channel, transport: ScriptedTransport, body: bytes, error: type[Exception]
) -> None:
    conversation = await channel.start()
    await transport.nth(0)
    with pytest.raises(error):
        await channel.activities.send(channel.secret, conversation, body, time.monotonic() + 5)
    assert await shown(channel, conversation) == []
    assert len(transport.posts) == len(await channel.store.members(conversation.id)) == 1


async def test_the_tokens_user_speaks_whoever_the_page_says_it_is(
    channel: Channel, transport: ScriptedTransport
) -> None:
    grant = channel.token("dl_a", "Ann")
    conversation = await channel.start(grant=grant)
    body = b'{"type":"message","from":{"id":"somebody"},"text":"hi"}'
    await channel.activities.send(grant, conversation, body, time.monotonic() + 5)
    (echo,) = await shown(channel, conversation)
    assert echo["from"] == {"id": "dl_a", "name": "Ann"}
    assert transport.joins == [[BOT.id, "dl_a"]]


async def test_typing_passes_by_takes_no_number_and_is_never_read(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    typing_id = await channel.send(conversation, "-", type="typing")
    message_id = await channel.send(conversation, "said")
    assert message_id == f"{conversation.id}|0000000"
    assert await channel.texts(conversation) == ["said"]
    assert [each["id"] for each in passed_by(channel, conversation)] == [typing_id]
    assert typing_id.startswith(f"{conversation.id}|tv")
    assert [post.type for post in transport.posts[1:]] == ["typing", "message"]


async def test_a_conversation_update_of_a_client_is_shown_to_nobody_but_the_bot(
    channel: Channel, transport: ScriptedTransport
) -> None:
    conversation = await channel.start("u1")
    update_id = await channel.send(conversation, "-", type="conversationUpdate")
    assert names_unseen(update_id, conversation.id)
    assert (await shown(channel, conversation), passed_by(channel, conversation)) == ([], [])
    assert transport.posts[-1].activity["id"] == update_id


# Reading


async def test_pages_add_up_to_the_log_and_end_with_an_empty_one(channel: Channel) -> None:
    channel = Channel(channel.store, channel.transport, pages=PageBounds(activities=7, bytes=1 << 20))
    conversation = await channel.start()
    for number in range(20):
        await channel.speak(conversation, str(number))
    assert await channel.texts(conversation) == [str(number) for number in range(20)]


async def test_the_watermark_of_an_empty_page_misses_nothing_later(channel: Channel) -> None:
    conversation = await channel.start()
    empty = json.loads((await channel.activities.read(conversation, None)).activity_set)
    assert empty == {"activities": [], "watermark": "0"}
    await channel.speak(conversation, "one")
    fresh = await channel.conversations.find(channel.secret, conversation.id)
    first = json.loads((await channel.activities.read(fresh, empty["watermark"])).activity_set)
    again = json.loads((await channel.activities.read(fresh, first["watermark"])).activity_set)
    assert again == {"activities": [], "watermark": first["watermark"]}
    await channel.speak(conversation, "two")
    fresh = await channel.conversations.find(channel.secret, conversation.id)
    later = json.loads((await channel.activities.read(fresh, again["watermark"])).activity_set)
    assert [each["text"] for each in later["activities"]] == ["two"]


async def test_a_page_steps_over_what_only_streams_show(channel: Channel) -> None:
    conversation = await channel.start()
    await channel.speak(conversation, "one")
    await channel.speak(conversation, "", type="typing", channelData={"streamType": "final"})
    fresh = await channel.conversations.find(channel.secret, conversation.id)
    page = json.loads((await channel.activities.read(fresh, None)).activity_set)
    assert [each["text"] for each in page["activities"]] == ["one"]
    assert page["watermark"].startswith("2-")
    (entry,) = (await channel.store.read_after(conversation.id, 1, 10, 1000, for_stream=True)).records
    assert isinstance(entry, Entry)


# What bots may do


async def test_a_bot_speaks_as_itself_in_the_conversation_of_the_path(channel: Channel) -> None:
    conversation = await channel.start("u1")
    body = b'{"type":"message","id":"mine","from":{"id":"u1"},"conversation":{"id":"elsewhere"}}'
    activity_id = await channel.bots.send(BOT, conversation, body, time.monotonic() + 5)
    (said,) = await shown(channel, conversation)
    assert said["id"] == activity_id == f"{conversation.id}|0000000"
    assert said["from"] == {"id": BOT.id, "name": BOT.name, "role": "bot"}
    assert said["conversation"] == {"id": conversation.id}


async def test_a_reply_names_what_it_replies_to_by_path_unless_nobody_can_see_that(channel: Channel) -> None:
    conversation = await channel.start("u1")
    known, named = f"{conversation.id}|0000000", f"{conversation.id}|0000001"
    body = b'{"type":"message","text":"x","replyToId":"%s"}' % known.encode()
    for reply_to in (None, named, "some-id", f"{conversation.id}|tu0123"):
        await channel.bots.send(BOT, conversation, body, time.monotonic() + 5, reply_to)
    assert [each.get("replyToId") for each in await shown(channel, conversation)] == [known, named, None, None]


@pytest.mark.parametrize("kind", ["trace", "conversationUpdate", "installationUpdate"])
async def test_what_clients_never_see_of_a_bot_has_an_id_and_is_dropped(channel: Channel, kind: str) -> None:
    conversation = await channel.start()
    assert names_unseen(await channel.speak(conversation, "x", type=kind), conversation.id)
    assert (await shown(channel, conversation), passed_by(channel, conversation)) == ([], [])


async def test_typing_of_a_bot_passes_by_under_an_id_of_its_own(channel: Channel) -> None:
    conversation = await channel.start()
    ids = [await channel.speak(conversation, text, type="typing") for text in ("H", "He", "Hel")]
    assert [(each["id"], each["text"]) for each in passed_by(channel, conversation)] == [
        (ids[0], "H"),
        (ids[1], "He"),
        (ids[2], "Hel"),
    ]
    assert len(set(ids)) == 3


async def test_a_bot_finds_its_own_conversations_only(channel: Channel) -> None:
    conversation = await channel.start()
    assert (await channel.bots.find(BOT, conversation.id)).id == conversation.id
    for bot, name in ((OTHER_BOT, conversation.id), (BOT, "no-such-conversation"), (BOT, "x/y"), (BOT, "")):
        with pytest.raises(UnknownConversation):
            await channel.bots.find(bot, name)


@pytest.mark.parametrize(("body", "error"), [(b"{", BadSyntax), (b"[]", BadArgument), (b"{}", MissingProperty)])
async def test_what_is_refused_of_a_bot_is_not_stored(channel: Channel, body: bytes, error: type[Exception]) -> None:
    conversation = await channel.start()
    with pytest.raises(error):
        await channel.bots.send(BOT, conversation, body, time.monotonic() + 5)
    assert await shown(channel, conversation) == []


# A store in trouble


class FullDisk(MemoryStore):
    """A store that takes nothing until `error` is None."""

    def __init__(self) -> None:
        super().__init__(TestClock())
        self.error: Exception | None = None
        self.offers = 0

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        self.offers += 1
        if self.error is not None:
            raise self.error
        return await super().append(conversation, entry, deadline)


@pytest.fixture
async def full() -> AsyncIterator[tuple[Channel, FullDisk]]:
    """A node whose disk can be filled."""
    store = FullDisk()
    channel = Channel(store, ScriptedTransport(), store_wait_s=0.4)
    yield channel, store
    await channel.delivery.close()


async def test_brief_trouble_of_the_store_is_a_delay_for_client_and_bot(full: tuple[Channel, FullDisk]) -> None:
    channel, store = full
    conversation = await channel.start("u1")
    store.error = StoreUnavailable()
    trouble = [
        channel.sending(conversation, "of the client"),
        asyncio.create_task(channel.speak(conversation, "bot's")),
    ]
    await asyncio.sleep(0.15)
    assert store.offers > 2
    store.error = None
    ids = await asyncio.gather(*trouble)
    assert [each["id"] for each in await shown(channel, conversation)] == sorted(ids)


async def test_a_bot_hears_of_lasting_trouble_after_store_wait_s_and_nothing_is_stored(
    full: tuple[Channel, FullDisk],
) -> None:
    channel, store = full
    conversation = await channel.start("u1")
    store.error = StoreUnavailable()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await channel.speak(conversation, "lost", within=10)
    assert 0.3 < time.monotonic() - began < 4
    assert await shown(channel, conversation) == []


async def test_a_client_hears_of_lasting_trouble_at_its_deadline_and_the_bot_of_nothing(
    full: tuple[Channel, FullDisk],
) -> None:
    channel, store = full
    assert isinstance(channel.transport, ScriptedTransport)
    conversation = await channel.start("u1")
    await channel.transport.nth(0)
    store.error = StoreUnavailable()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await channel.send(conversation, "lost", within=0.6)
    assert 0.4 < time.monotonic() - began < 4
    assert channel.transport.messages == []


@pytest.mark.parametrize(
    "error", [OutcomeUnknown(), DeadlinePassed(), StoreUnavailable(retry=False), UnknownConversation()]
)
async def test_what_may_be_stored_or_never_will_be_is_not_offered_again(
    full: tuple[Channel, FullDisk], error: Exception
) -> None:
    channel, store = full
    conversation = await channel.start("u1")
    store.error = error
    with pytest.raises(type(error)):
        await channel.send(conversation, "x")
    with pytest.raises(type(error)):
        await channel.speak(conversation, "x")
    assert store.offers == 2
