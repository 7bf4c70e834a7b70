"""`/stream/multimodal`: the alias of a stream through which the client also sends (spec 7.6, D-41)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline


@pytest.fixture
async def bot() -> AsyncIterator[ScriptedBot]:
    async with ScriptedBot() as bot:
        yield bot


@pytest.fixture
async def landline(tmp_path: Path, bot: ScriptedBot) -> AsyncIterator[Landline]:
    async with Landline(tmp_path / "data", bot=bot.endpoint, keepalive_s=1) as landline:
        yield landline


def spoken(text: str, **members: object) -> str:
    return json.dumps({"type": "message", "text": text, "from": {"id": "user"}, **members})


def multimodal(stream_url: str) -> str:
    return stream_url.replace("/stream?", "/stream/multimodal?")


@pytest.mark.item(162)
async def test_a_frame_is_a_send_and_the_stream_replays_as_any_other(landline: Landline, bot: ScriptedBot) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        started = await client.start()
        async with client.stream(multimodal(started.stream_url)) as stream:
            await stream.say(spoken("one"))
            await stream.say(" \n")
            await stream.say(spoken("two", channelData={"n": 1}))
            await stream.until(lambda stream: len(stream.activities) == 2, "has two activities")
            assert [each["text"] for each in stream.activities] == ["one", "two"]
            assert all(each["activities"] for each in stream.sets)
        await bot.wait_for_text("two")
        assert [each.text for each in bot.messages] == ["one", "two"]
        assert bot.messages[1].activity["channelData"] == {"n": 1}
        again = await client.reconnect(started.conversation_id, watermark="")
        async with client.stream(multimodal(again.stream_url)) as stream:
            await stream.until(lambda stream: len(stream.activities) == 2, "has two activities")
        assert [each["text"] for each in await client.all_activities(started.conversation_id)] == ["one", "two"]


async def test_what_is_no_activity_is_dropped_and_the_stream_goes_on(landline: Landline, bot: ScriptedBot) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        started = await client.start()
        async with client.stream(multimodal(started.stream_url)) as stream:
            for nonsense in ("{", "[1]", '{"type":"message"}', spoken("as dl", **{"from": {"id": "dl_x"}})):
                await stream.say(nonsense)
            await stream.say(spoken("good"))
            await stream.until(lambda stream: bool(stream.activities), "has an activity")
            assert [each["text"] for each in stream.activities] == ["good"]
    await bot.wait_for_text("good")
    assert [each.text for each in bot.messages] == ["good"]
    assert landline.log.count("an activity on a stream was dropped") == 4


@pytest.mark.parametrize(("sender", "heard"), [("dl_ann", True), ("ann", False), ("dl_bob", False)])
async def test_only_the_user_of_the_ticket_may_speak(
    landline: Landline, bot: ScriptedBot, sender: str, heard: bool
) -> None:
    async with DirectLine(landline.directline, SECRET) as backend:
        token = (await backend.generate(user={"id": "dl_ann"})).token
    async with DirectLine(landline.directline, token) as client:
        started = await client.start()
        async with client.stream(multimodal(started.stream_url)) as stream:
            await stream.say(spoken("claimed", **{"from": {"id": sender}}))
            await stream.say(spoken("true", **{"from": {"id": "dl_ann"}}))
            await stream.until(
                lambda stream: "true" in [each["text"] for each in stream.activities], "hears the true one"
            )
            assert [each["text"] for each in stream.activities] == (["claimed"] if heard else []) + ["true"]
            assert {each["from"]["id"] for each in stream.activities} == {"dl_ann"}


async def test_a_failing_bot_costs_the_stream_nothing(landline: Landline, bot: ScriptedBot) -> None:
    bot.answer(500)
    async with DirectLine(landline.directline, SECRET) as client:
        started = await client.start()
        async with client.stream(multimodal(started.stream_url)) as stream:
            await stream.say(spoken("refused"))
            await bot.wait_for_text("refused")
            bot.answer(200)
            await stream.say(spoken("taken"))
            await stream.until(lambda stream: len(stream.activities) == 2, "has two activities")
            assert stream.close_code is None
