from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.blobs.files import FileBlobs
from landline.channel.retention import LastUse, Retention, RetentionPolicy
from landline.channel.streams import OpenStreams
from landline.core.attachments import Attachment
from landline.core.conversation import Conversation
from landline.core.log import ConversationId
from landline.core.stream import CONVERSATION_GONE, Close
from landline.core.tokens import TokenParameters
from landline.errors import DeliveryError, StoreUnavailable, UnknownConversation
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock
from support.scripted_transport import ScriptedTransport

HOUR_S, DAY_S = 3600, 86_400
POLICY = RetentionPolicy(idle_s=14 * DAY_S, activity_s=None, keys_s=DAY_S, tombstone_s=29 * DAY_S)


class OpenStream:
    """A stream as the registry sees it."""

    site, ski = "s", "k"

    def __init__(self, conversation: ConversationId) -> None:
        self.conversation = conversation
        self.closed: list[Close] = []

    def wake(self) -> None: ...

    def abort(self) -> None: ...

    def close(self, why: Close) -> None:
        self.closed.append(why)


class Node:
    """A channel that forgets, on a clock that can be set forward."""

    def __init__(self, blobs: FileBlobs, policy: RetentionPolicy = POLICY) -> None:
        self.clock = TestClock()
        self.transport = ScriptedTransport()
        self.store = MemoryStore(self.clock)
        self.channel = Channel(self.store, self.transport, clock=self.clock)
        self.streams = OpenStreams()
        self.streams.tell(self.channel.last_use.left)
        self.blobs = blobs
        self.retention = Retention(self.store, blobs, self.streams, self.clock, policy)

    def wait(self, seconds: float) -> None:
        self.clock.offset_ms += int(seconds * 1000)

    async def exists(self, conversation: Conversation) -> bool:
        """Without using it."""
        return await self.store.conversation(conversation.id) is not None

    async def refused(self, conversation: Conversation) -> bool:
        """Whether it is unknown to who asks with the secret."""
        try:
            await self.channel.conversations.find(self.channel.secret, conversation.id)
        except UnknownConversation:
            return True
        return False


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FileBlobs]:
    """Files on a real disk."""
    blobs = FileBlobs(tmp_path / "blobs")
    await blobs.open()
    yield blobs
    await blobs.close()


@pytest.fixture
async def node(blobs: FileBlobs) -> AsyncIterator[Node]:
    """A node with the settings of an operator who has none."""
    node = Node(blobs)
    yield node
    await node.channel.delivery.close()


# Use


async def test_use_is_noted_at_most_once_an_hour_and_when_the_last_stream_is_over(node: Node) -> None:
    noted: list[int] = []
    node.store.touch = lambda conversation, at_ms: noted.append(at_ms)  # type: ignore[method-assign]
    last_use, conversation = LastUse(node.store, node.clock, HOUR_S), ConversationId("some-conversation")
    began = node.clock.now_ms()
    for _ in range(61):
        last_use.note(conversation)
        node.wait(60)
    assert [round((at_ms - began) / 60_000) for at_ms in noted] == [0, 60]
    last_use.left(conversation)
    last_use.note(conversation)
    assert [round((at_ms - began) / 60_000) for at_ms in noted] == [0, 60, 61]


@pytest.mark.parametrize("use", ["find", "start again", "refresh", "stream", "bot", "append"])
async def test_whatever_is_a_use_keeps_the_conversation(node: Node, use: str) -> None:
    channel = node.channel
    grant = channel.token("dl_ann")
    opened = await channel.open(grant=grant)
    conversation = opened.conversation
    node.wait(13 * DAY_S)
    match use:
        case "find":
            await channel.conversations.find(channel.secret, conversation.id)
        case "start again":
            await channel.conversations.start(grant, TokenParameters(), time.monotonic() + 5)
        case "refresh":
            await channel.conversations.refresh(grant)
        case "stream":
            ticket = (await channel.conversations.reconnect(channel.secret, conversation, None)).ticket
            await channel.admit(conversation.id, ticket, None)
        case "bot":
            await channel.bots.find(channel.registry.bot("bot"), conversation.id)
        case "append":
            await channel.speak(conversation, "hello")
    node.wait(13 * DAY_S)
    await node.retention.sweep()
    assert await node.exists(conversation)
    node.wait(1 * DAY_S + 2 * HOUR_S)
    await node.retention.sweep()
    assert not await node.exists(conversation)


async def test_a_conversation_is_not_purged_before_it_was_idle_for_so_long(node: Node) -> None:
    """Its last use may be up to an hour later than is noted."""
    conversation = await node.channel.start()
    node.wait(HOUR_S - 60)
    await node.channel.conversations.find(node.channel.secret, conversation.id)  # too soon to be noted
    node.wait(14 * DAY_S - 1)
    await node.retention.sweep()
    assert await node.exists(conversation)
    node.wait(HOUR_S)
    await node.retention.sweep()
    assert not await node.exists(conversation)


async def test_an_open_stream_is_a_use_however_long_it_says_nothing(node: Node) -> None:
    conversation = await node.channel.start()
    stream = OpenStream(conversation.id)
    node.streams.add(stream)
    for _ in range(5):
        node.wait(10 * DAY_S)
        await node.retention.sweep()
        assert await node.exists(conversation)
    assert stream.closed == []
    node.streams.remove(stream)
    node.wait(14 * DAY_S - HOUR_S)
    await node.retention.sweep()
    assert await node.exists(conversation), "it was used until the stream was over"
    node.wait(3 * HOUR_S)
    await node.retention.sweep()
    assert not await node.exists(conversation)


async def test_conversations_are_kept_for_ever_if_the_operator_says_so(blobs: FileBlobs) -> None:
    node = Node(blobs, RetentionPolicy(idle_s=None, activity_s=None, keys_s=DAY_S, tombstone_s=29 * DAY_S))
    conversation = await node.channel.start()
    node.wait(10_000 * DAY_S)
    await node.retention.sweep()
    assert await node.exists(conversation)
    await node.channel.delivery.close()


async def test_a_thousand_idle_conversations_go_in_one_sweep(node: Node) -> None:
    conversations = [await node.channel.start() for _ in range(1000)]
    in_use = conversations[500]
    node.streams.add(OpenStream(in_use.id))
    node.wait(15 * DAY_S)
    await node.retention.sweep()
    assert [each for each in conversations if await node.exists(each)] == [in_use]


# What is gone


@pytest.mark.item(67)
async def test_a_token_of_a_purged_conversation_neither_starts_nor_refreshes_it(node: Node) -> None:
    """The use cases; the 404 is the edge's."""
    channel = node.channel
    grant = channel.token("dl_ann")
    await channel.conversations.refresh(grant)
    conversation = (await channel.open(grant=grant)).conversation
    await node.retention.delete(conversation.id)
    for again in (
        channel.conversations.start(grant, TokenParameters(), time.monotonic() + 5),
        channel.conversations.refresh(grant),
    ):
        with pytest.raises(UnknownConversation):
            await again
    never_started = channel.token("dl_bob")
    assert (await channel.conversations.refresh(never_started)).conversation


async def test_a_tombstone_outlives_every_token(node: Node) -> None:
    grant = node.channel.token("dl_ann")
    conversation = (await node.channel.open(grant=grant)).conversation
    await node.retention.delete(conversation.id)
    node.wait(28 * DAY_S)
    await node.retention.sweep()
    assert await node.store.is_purged(conversation.id)
    node.wait(2 * DAY_S)
    await node.retention.sweep()
    assert not await node.store.is_purged(conversation.id)


@pytest.mark.item(163)
async def test_deleting_a_conversation_closes_its_streams_with_4404(node: Node) -> None:
    """The use case; who may ask for it is the edge's."""
    conversation, other = await node.channel.start(), await node.channel.start()
    here, there = [OpenStream(conversation.id) for _ in range(3)], OpenStream(other.id)
    for stream in (*here, there):
        node.streams.add(stream)
    await node.retention.delete(conversation.id)
    assert [stream.closed for stream in here] == [[CONVERSATION_GONE]] * 3
    assert there.closed == []
    assert await node.refused(conversation)
    assert not await node.refused(other)


@pytest.mark.item(163)
async def test_a_stream_that_was_let_in_before_the_delete_and_opens_after_it_is_closed(node: Node) -> None:
    conversation = await node.channel.start()
    ticket = (await node.channel.conversations.reconnect(node.channel.secret, conversation, None)).ticket
    await node.channel.admit(conversation.id, ticket, None)
    await node.retention.delete(conversation.id)
    late = OpenStream(conversation.id)
    node.streams.add(late)
    assert late.closed == [CONVERSATION_GONE]
    assert len(node.streams) == 0


@pytest.mark.parametrize("name", ["never-started-at-all", "no id", ""])
async def test_what_does_not_exist_cannot_be_deleted(node: Node, name: str) -> None:
    with pytest.raises(UnknownConversation):
        await node.retention.delete(name)


@pytest.mark.item(113)
async def test_files_go_with_their_conversation(node: Node) -> None:
    """With `upload_ttl_s` they go earlier; that is shown where it is a setting."""
    kept, gone = [await node.channel.start() for _ in range(2)]
    ids = []
    for conversation in (kept, gone):
        draft = node.blobs.draft(conversation.id)
        await draft.write(b"content")
        await node.blobs.keep([(draft, Attachment(conversation.id, "a", "text/plain", node.clock.now_ms()))])
        ids.append(draft.id)
    await node.retention.delete(gone.id)
    assert await node.blobs.find(ids[1]) is None
    blob = await node.blobs.find(ids[0])
    assert blob is not None
    await blob.close()


async def test_what_could_not_be_erased_is_erased_by_a_later_sweep(node: Node) -> None:
    conversation = await node.channel.start()
    forget, failing = node.blobs.forget, True

    async def fail(name: ConversationId) -> None:
        if failing:
            raise StoreUnavailable
        await forget(name)

    node.blobs.forget = fail  # type: ignore[method-assign]
    await node.retention.delete(conversation.id)
    assert await node.refused(conversation), "it is gone all the same"
    await node.retention.sweep()
    assert await node.store.uncleared(10) == [conversation.id]
    failing = False
    await node.retention.sweep()
    assert await node.store.uncleared(10) == []


# People


async def test_forgetting_a_person_deletes_every_conversation_they_took_part_in(node: Node) -> None:
    channel = node.channel
    started = await channel.start("ann")
    spoke = await channel.start("bob")
    await channel.send(spoke, "hello", "ann")
    other = await channel.start("bob")
    stream = OpenStream(spoke.id)
    node.streams.add(stream)
    assert await node.retention.forget("ann") == 2
    assert [await node.refused(each) for each in (started, spoke, other)] == [True, True, False]
    assert stream.closed == [CONVERSATION_GONE]
    assert await node.retention.forget("ann") == 0
    assert await node.retention.forget("bot") == 0, "a bot is no person"


async def test_who_was_removed_by_the_bot_is_forgotten_too(node: Node) -> None:
    """What they said before is still there."""
    conversation = await node.channel.start("bob")
    await node.channel.send(conversation, "hello", "ann")
    await node.channel.members.remove(BOT, conversation, "ann", time.monotonic() + 5)
    assert await node.retention.forget("ann") == 1
    assert await node.refused(conversation)


async def test_who_spoke_while_the_bot_was_away_is_forgotten_too(node: Node) -> None:
    """The bot was never told of them, but the log has what they said."""
    conversation = await node.channel.start("bob")
    node.transport.failure = DeliveryError()
    with pytest.raises(DeliveryError):
        await node.channel.send(conversation, "hello", "ann")
    async with asyncio.timeout(5):
        while await node.retention.forget("ann") == 0:
            await asyncio.sleep(0)
    assert await node.refused(conversation)


# Activities


@pytest.mark.item(126)
async def test_who_comes_back_after_its_activities_have_expired_is_told_so(blobs: FileBlobs) -> None:
    """The use cases; the header is the edge's."""
    node = Node(blobs, RetentionPolicy(idle_s=14 * DAY_S, activity_s=DAY_S, keys_s=DAY_S, tombstone_s=29 * DAY_S))
    channel = node.channel
    conversation = await channel.start()
    await channel.speak(conversation, "old")
    first = await channel.activities.read(await channel.conversations.find(channel.secret, conversation.id), None)
    await channel.speak(conversation, "old, too")
    node.wait(DAY_S + 1)
    await channel.speak(conversation, "new")
    await node.retention.sweep()
    assert await channel.texts(conversation) == ["new"]
    behind_first = first.activity_set.decode().rpartition('"watermark":"')[2].rstrip('"}')
    found = await channel.conversations.find(channel.secret, conversation.id)
    assert (await channel.activities.read(found, behind_first)).replay.value == "truncated"
    await channel.delivery.close()


async def test_the_sweep_goes_on_by_itself(blobs: FileBlobs) -> None:
    node = Node(blobs, RetentionPolicy(idle_s=0.08, activity_s=None, keys_s=DAY_S, tombstone_s=29 * DAY_S))
    sweeping = asyncio.create_task(node.retention.keep_sweeping())
    conversation = await node.channel.start()
    async with asyncio.timeout(10):
        while await node.exists(conversation):
            await asyncio.sleep(0.01)
    sweeping.cancel()
    await asyncio.wait((sweeping,))
    await node.channel.delivery.close()
