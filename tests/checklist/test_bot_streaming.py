"""Answers that a bot streams over the connector, as the Agents SDKs do it (bot 2.7; section 8, 72 to 76)."""

from __future__ import annotations

import pytest

from landline.conformance.directline import Activity, ClientStream, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.streams import say

pytestmark = pytest.mark.asyncio(loop_scope="module")

STORY = "Once upon a time there was a line that could be cut anywhere."
WORDS = STORY.split()


def chunk(text: str, **stream: object) -> Activity:
    """An interim chunk: all the text so far."""
    return {"type": "typing", "text": text, "entities": [{"type": "streaminfo", "streamType": "streaming", **stream}]}


def final(**stream: object) -> Activity:
    """The message that a stream ends with."""
    return {"type": "message", "text": STORY, "entities": [{"type": "streaminfo", "streamType": "final", **stream}]}


async def replied(bot: ScriptedBot, conversation_id: str, activity: Activity) -> str:
    """Reply as the SDKs do; the id."""
    answer = await bot.reply(conversation_id, "the-question", activity)
    assert answer.status == 200, answer
    return str(answer.json["id"])


async def tell(bot: ScriptedBot, conversation_id: str, words: int = len(WORDS)) -> tuple[str, list[Activity]]:
    """A status text and that many chunks, as AG-js sends them; the stream's id, and what was sent."""
    status: Activity = {
        "type": "typing",
        "text": "Thinking…",
        "entities": [{"type": "streaminfo", "streamType": "informative", "streamSequence": 1}],
    }
    stream_id = await replied(bot, conversation_id, status)
    sent = [status]
    for number in range(words):
        sent.append(chunk(" ".join(WORDS[: number + 1]), streamId=stream_id, streamSequence=number + 2))
        await replied(bot, conversation_id, sent[-1])
    return stream_id, sent


def of(stream: ClientStream, *names: str) -> list[tuple[object, ...]]:
    """These members of all activities that came."""
    return [tuple(each.get(name) for name in names) for each in stream.activities]


@pytest.mark.bot_item(72, 73)
async def test_chunks_arrive_in_order_under_ids_of_their_own_and_unchanged(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
        stream_id, sent = await tell(bot, conversation_id)
        sent.append(final(streamId=stream_id, streamSequence=len(sent) + 2))
        end = await replied(bot, conversation_id, sent[-1])
        await stream.until(lambda s: s.activities and s.activities[-1]["id"] == end, "ends")
        members = ("type", "text", "entities")
        assert of(stream, *members) == [tuple(each[name] for name in members) for each in sent]
        ids = [each["id"] for each in stream.activities]
        assert ids[0] == stream_id
        assert len(set(ids)) == len(ids)
        watermarks = [each["watermark"] for each in stream.sets]
        assert len(set(watermarks)) == 2, "chunks take no number (D-33, D-39)"


@pytest.mark.bot_item(74)
async def test_a_final_message_without_sequence_and_gaps_in_it_are_as_good(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """AG-py makes up the stream's id itself and numbers no end; AG-js leaves a number out."""
    own = "0b6cdd9a-6a0a-4b29-8a0c-3f1d7c1c9d5e"
    async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
        for number in (1, 2, 4, 7):
            await replied(bot, conversation_id, chunk(STORY[:number], streamId=own, streamSequence=number))
        await replied(bot, conversation_id, final(streamId=own))
        await stream.until_text(STORY)
        assert [text for (text,) in of(stream, "text")] == [STORY[:1], STORY[:2], STORY[:4], STORY[:7], STORY]
        information = stream.activities[-1]["entities"]
    assert information == [{"type": "streaminfo", "streamType": "final", "streamId": own}]
    assert [each["text"] for each in await client.all_activities(conversation_id)] == [STORY]


@pytest.mark.bot_item(75)
async def test_a_client_that_comes_back_in_mid_stream_sees_how_it_ends(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    opened = await client.reconnect(conversation_id)
    async with client.stream(opened.stream_url) as stream:
        stream_id, sent = await tell(bot, conversation_id, words=3)
        await stream.until_text(sent[-1]["text"])
        watermark = stream.watermark
        stream.cut()
    await replied(bot, conversation_id, chunk("nobody hears this", streamId=stream_id, streamSequence=9))
    await replied(bot, conversation_id, final(streamId=stream_id, streamSequence=10))
    async with client.stream((await client.reconnect(conversation_id, watermark)).stream_url) as stream:
        await stream.until_text(STORY)
        assert stream.texts == [STORY], "no chunk is replayed"


@pytest.mark.bot_item(75)
@pytest.mark.parametrize(
    "information",
    [
        {"entities": [{"type": "streaminfo", "streamType": "final", "streamId": "x"}]},
        {"channelData": {"streamType": "final", "streamId": "x"}},
    ],
)
async def test_a_stream_that_is_withdrawn_ends_for_a_client_that_comes_back_too(
    bot: ScriptedBot, client: DirectLine, conversation_id: str, information: Activity
) -> None:
    """A `typing` without content concludes a livestream as well (D-33)."""
    async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
        _, sent = await tell(bot, conversation_id, words=2)
        await stream.until_text(sent[-1]["text"])
        watermark = stream.watermark
    end = await replied(bot, conversation_id, {"type": "typing", **information})
    await say(bot, conversation_id, "never mind")
    async with client.stream((await client.reconnect(conversation_id, watermark)).stream_url) as stream:
        await stream.until_text("never mind")
        assert of(stream, "id", "type")[0] == (end, "typing")
        assert len(stream.activities) == 2
    assert [each.get("text") for each in await client.all_activities(conversation_id)] == ["never mind"]


@pytest.mark.bot_item(76)
async def test_stream_information_in_channel_data_alone_is_passed_on(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """BB-js strips what it does not know from entities, so its bots put it there."""
    async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
        data: Activity = {"streamType": "streaming", "streamSequence": 1}
        bare = {"entities": [{"type": "streaminfo"}]}
        stream_id = await replied(bot, conversation_id, {"type": "typing", "text": "a", "channelData": data, **bare})
        last = {"streamType": "final", "streamId": stream_id, "streamSequence": 2}
        await replied(bot, conversation_id, {"type": "message", "text": "ab", "channelData": last, **bare})
        await stream.until_text("ab")
        assert of(stream, "channelData", "entities") == [(data, bare["entities"]), (last, bare["entities"])]
