"""Conversations that bots start: how long a call is known, and what becomes of one that broke off (bot-side 3.7)."""

from __future__ import annotations

import json
import time

import msgspec
import pytest

from landline.channel.bot_conversations import Begun, BotConversations
from landline.core.conversation import NewConversation
from landline.errors import UnknownConversation
from support.channel import BOT, Channel

STARTER = msgspec.structs.replace(BOT, app_id="app-1", create_conversations=True)
ASKED = {"members": [{"id": "ann"}, {"id": "bob"}], "activity": {"type": "message", "text": "first"}}
DAY_MS = 86_400_000
"""How long a call is known here."""


async def start(channel: Channel, request_id: str | None = "call", key: bytes = b"k" * 32) -> Begun:
    conversations = BotConversations(channel.store, channel.bots, channel.repeats, key, members=1000)
    return await conversations.start(STARTER, json.dumps(ASKED).encode(), time.monotonic() + 5, request_id)


async def said(channel: Channel, begun: Begun) -> list[str | None]:
    return await channel.texts(await channel.conversations.find(channel.secret, begun.conversation))


@pytest.mark.bot_item(43)
@pytest.mark.parametrize("into_ms", [0, 1, DAY_MS // 2, DAY_MS - 1])
async def test_a_call_is_known_for_its_time_wherever_in_a_span_it_came(channel: Channel, into_ms: int) -> None:
    """And forgotten then."""
    began_ms = (channel.clock.now_ms() // DAY_MS + 10) * DAY_MS + into_ms
    channel.clock.now_ms = lambda: began_ms  # type: ignore[method-assign]
    begun = await start(channel)
    channel.clock.now_ms = lambda: began_ms + DAY_MS  # type: ignore[method-assign]
    assert await start(channel) == begun
    assert await said(channel, begun) == ["first"]
    channel.clock.now_ms = lambda: began_ms + 2 * DAY_MS  # type: ignore[method-assign]
    other = await start(channel)
    assert other.conversation != begun.conversation
    assert await said(channel, other) == ["first"]


@pytest.mark.bot_item(43)
async def test_a_repeat_does_what_the_first_call_did_not_come_to(channel: Channel) -> None:
    """It died when the conversation was there, and nobody in it."""
    begun = await start(channel)
    await channel.store.purge(begun.conversation)
    while await channel.store.clear(begun.conversation):
        pass
    await channel.store.drop_tombstones(channel.clock.now_ms() + 1)
    assert await channel.store.start(NewConversation(begun.conversation, BOT.id))
    assert await start(channel) == begun
    assert [each.account.id for each in await channel.store.members(begun.conversation)] == ["bot", "ann", "bob"]
    assert await said(channel, begun) == ["first"]


async def test_a_repeat_does_not_bring_back_what_was_deleted(channel: Channel) -> None:
    begun = await start(channel)
    await channel.store.purge(begun.conversation)
    with pytest.raises(UnknownConversation):
        await start(channel)
    assert (await start(channel, "another call")).conversation != begun.conversation


async def test_an_id_that_follows_from_a_call_takes_the_deployments_key_to_know(channel: Channel) -> None:
    first = await start(channel, key=b"a" * 32)
    second = await start(channel, key=b"b" * 32)
    assert first.conversation != second.conversation


async def test_a_call_that_is_not_named_is_another_one_each_time(channel: Channel) -> None:
    assert len({(await start(channel, name)).conversation for name in (None, None, "", "")}) == 4
