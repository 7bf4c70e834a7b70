"""A bot on the real Bot Framework SDK for Python behind the real server: what its users would notice first.

Anonymous, and one SDK of four (bot-side section 8, "End to end"); updates, deletes, attachments and members come later.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.directline import Answer, DirectLine
from support.landline import SECRET, Landline
from support.real_bot import RealBot
from support.streams import Follower

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_bot(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealBot]:
    """The bot of all tests here: starting one takes as long as most of them."""
    async with RealBot(tmp_path_factory.mktemp("bot")) as bot:
        yield bot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory, real_bot: RealBot) -> AsyncIterator[Landline]:
    """The server in front of it."""
    data = tmp_path_factory.mktemp("server") / "data"
    async with Landline(data, bot=real_bot.endpoint, drain_s=0) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def client(landline: Landline) -> AsyncIterator[DirectLine]:
    """A client with the secret."""
    async with DirectLine(landline.directline, SECRET) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def opened(client: DirectLine) -> Answer:
    """A new conversation with a user."""
    return await client.start(user={"id": "user"})


async def has(follower: Follower, count: int) -> None:
    """Wait until so many activities have come."""
    await follower.until(lambda follower: len(follower.activities) >= count, f"has {count} activities")


async def test_a_real_bot_greets_and_answers(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        sent = await client.send(opened.conversation_id, "Grüße \U0001f600")
        assert sent.status == 200, real_bot.log
        answer = await stream.until_text("echo: Grüße \U0001f600")
        assert stream.texts == ["hello user", "Grüße \U0001f600", "echo: Grüße \U0001f600"]
        assert (answer["from"]["id"], answer["from"]["role"]) == ("bot", "bot")
        logged = await client.all_activities(opened.conversation_id)
        assert logged == stream.activities


async def test_typing_of_a_real_bot_is_seen_live_and_never_again(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        assert (await client.send(opened.conversation_id, "typing")).status == 200, real_bot.log
        await stream.until_text("echo: typing")
        assert [each["type"] for each in stream.activities[-3:]] == ["message", "typing", "message"]
    logged = await client.all_activities(opened.conversation_id)
    assert [each["type"] for each in logged] == ["message"] * 3


@pytest.mark.bot_item(97)
async def test_a_burst_of_200_arrives_in_order_while_the_client_is_cut_again_and_again(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """On one SDK of the four."""
    texts = [f"burst {number}" for number in range(1, 201)]
    async with Follower(client, opened) as follower:
        await has(follower, 1)
        bursting = asyncio.create_task(client.send(opened.conversation_id, "burst 200"))
        for heard in range(20, 200, 20):
            await has(follower, heard)
            follower.streams[-1].cut()
        assert (await bursting).status == 200, real_bot.log
        await follower.until(lambda f: f.activities[-1].get("text") == texts[-1], "has everything")
        assert follower.cuts >= 5
        assert [each["text"] for each in follower.activities] == ["hello user", "burst 200", *texts]
    logged = await client.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == ["hello user", "burst 200", *texts]


async def test_a_real_bot_speaks_after_its_turn(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        assert (await client.send(opened.conversation_id, "later 0.5 seconds surprise")).status == 200, real_bot.log
        assert "surprise" not in stream.texts, "the turn is over"
        await stream.until_text("surprise")


@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "kill -9"])
async def test_a_real_bot_speaks_by_the_reference_it_kept_after_landline_was_restarted(
    tmp_path: Path, real_bot: RealBot, kill: bool
) -> None:
    async with (
        Landline(tmp_path / "data", bot=real_bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await client.start(user={"id": "user"})
        async with Follower(client, opened) as follower:
            await has(follower, 1)
            assert (await client.send(opened.conversation_id, "before")).status == 200
            await has(follower, 3)
            await landline.restart(kill=kill)
            spoken = await real_bot.speak(opened.conversation_id, "I remember you")
            await follower.until(lambda f: spoken in f.ids, "hears the bot again")
            texts = [each["text"] for each in follower.activities]
        assert texts == ["hello user", "before", "echo: before", "I remember you"]
        assert (await client.send(opened.conversation_id, "after")).status == 200
        logged = await client.all_activities(opened.conversation_id)
        assert [each["text"] for each in logged] == [*texts, "after", "echo: after"], "nobody is greeted twice"


async def test_what_a_real_bot_says_to_nobody_is_there_when_the_client_comes_back(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        watermark = stream.watermark
        stream.cut()
    for text in ("one", "two", "three"):
        await real_bot.speak(opened.conversation_id, text)
    async with client.stream((await client.reconnect(opened.conversation_id, watermark)).stream_url) as stream:
        await stream.until_text("three")
        assert stream.texts == ["one", "two", "three"]


async def test_a_real_bot_that_was_killed_and_started_again_goes_on(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """A message sent while it is away reaches it if it comes back in time."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await real_bot.kill()
        sending = asyncio.create_task(client.send(opened.conversation_id, "are you there?"))
        await stream.until_text("are you there?")
        await real_bot.start()
        assert (await sending).status == 200, real_bot.log
        await stream.until_text("echo: are you there?")
        spoken = await real_bot.speak(opened.conversation_id, "I am back")
        await stream.until(lambda s: spoken in [each["id"] for each in s.activities], "hears the bot")
