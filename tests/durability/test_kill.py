"""`kill -9` under load, again and again on the same data: what was acknowledged is there, once, and in order.

Clients and bot talk at the same time in several conversations; every conversation has an open stream that comes back by
itself. A sender never repeats a text, so that whatever is in a log twice was doubled by the server.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.rounds import SEED, rounds
from support.streams import Follower, started

KILLS = rounds(6, 500)
CONVERSATIONS = 4
SENDERS = 2
"""How many clients, and how many turns of the bot, talk in each conversation at the same time."""
BETWEEN_KILLS = 60
"""At least so many activities are acknowledged before the next kill."""


class Sender:
    """Somebody who says one thing after the other, forever, and remembers what was acknowledged."""

    def __init__(self, name: str, post: Callable[[str], Awaitable[tuple[int, str]]]) -> None:
        self.name = name
        self.tried: set[str] = set()
        self.acknowledged: dict[str, str] = {}
        """Texts by the ids that they were answered with, in the order of the answers."""
        self._post = post

    async def talk(self) -> None:
        for number in range(1_000_000):
            text = f"{self.name} {number}"
            self.tried.add(text)
            try:
                status, activity_id = await self._post(text)
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.02)  # killed; whether it was stored nobody knows
                continue
            assert status == 200, (text, status, activity_id)
            assert activity_id not in self.acknowledged
            self.acknowledged[activity_id] = text


class Talk:
    """A conversation in which clients and bot talk at the same time, and one client listens."""

    def __init__(self, client: DirectLine, bot: ScriptedBot, conversation_id: str, follower: Follower) -> None:
        self.conversation_id = conversation_id
        self.follower = follower
        service_url = bot.service_url(conversation_id)

        async def from_client(text: str) -> tuple[int, str]:
            answer = await client.send(conversation_id, text)
            return answer.status, answer.json.get("id", "")

        async def from_bot(text: str) -> tuple[int, str]:
            answer = await bot.send(conversation_id, {"type": "message", "text": text}, service_url)
            return answer.status, answer.json.get("id", "")

        self.senders = [Sender(f"client {n}", from_client) for n in range(SENDERS)]
        self.senders += [Sender(f"bot {n}", from_bot) for n in range(SENDERS)]

    @property
    def acknowledged(self) -> int:
        return sum(len(sender.acknowledged) for sender in self.senders)

    async def check(self, client: DirectLine) -> int:
        """Hold the log and what the listener got against what was acknowledged; how long the log is."""
        log = await client.all_activities(self.conversation_id)
        ids = [each["id"] for each in log]
        assert ids == [f"{self.conversation_id}|{number:07d}" for number in range(len(ids))], "no gap, no disorder"
        texts = {each["id"]: each["text"] for each in log}
        assert not [text for text, count in Counter(texts.values()).items() if count > 1], "doubled"
        for sender in self.senders:
            lost = [each for each in sender.acknowledged.items() if texts.get(each[0]) != each[1]]
            assert not lost, f"acknowledged, but not in the log: {lost}"
            assert list(sender.acknowledged) == sorted(sender.acknowledged), "out of order"
        tried = set().union(*(sender.tried for sender in self.senders))
        assert set(texts.values()) <= tried, "nobody said that"
        await self.follower.until(lambda follower: follower.ids[-1:] == ids[-1:], "has the last activity")
        assert self.follower.activities == log, "the listener got something else than what is in the log"
        return len(log)


@pytest.mark.item(160)
async def test_kills_under_load_lose_double_and_reorder_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    async with AsyncExitStack() as open_:
        bot = await open_.enter_async_context(ScriptedBot())
        landline = await open_.enter_async_context(Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0))
        client = await open_.enter_async_context(DirectLine(landline.directline, SECRET))
        talks = []
        for _ in range(CONVERSATIONS):
            opened = await started(client, bot, user={"id": "user"})
            follower = await open_.enter_async_context(Follower(client, opened))
            talks.append(Talk(client, bot, opened.conversation_id, follower))
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(sender.talk()) for talk in talks for sender in talk.senders]
            for _ in range(KILLS):
                await progress(talks, BETWEEN_KILLS)
                await asyncio.sleep(rng.random() * 0.05)
                await landline.restart(kill=True)
            await progress(talks, BETWEEN_KILLS)
            for task in talking:
                task.cancel()
        lengths = [await talk.check(client) for talk in talks]
        assert min(lengths) > KILLS, "each conversation went on between the kills"
        assert all(talk.follower.cuts >= KILLS for talk in talks)
        offered = Counter(each.activity["id"] for each in bot.messages)
        assert max(offered.values()) == 1, "nothing is offered to the bot twice of the server's own accord (8.6)"


async def progress(talks: list[Talk], count: int, timeout: float = 20) -> None:
    """Wait until so many more activities are acknowledged, some in each conversation."""
    before = [talk.acknowledged for talk in talks]
    end = time.monotonic() + timeout
    while True:
        more = [talk.acknowledged - was for talk, was in zip(talks, before, strict=True)]
        if sum(more) >= count and min(more) > 0:
            return
        assert time.monotonic() < end, f"acknowledged within {timeout} s: {more}"
        await asyncio.sleep(0.005)


@pytest.mark.item(188)
@pytest.mark.parametrize("paid_by", ["a repeated start", "the next send"])
@pytest.mark.parametrize("bot_was", ["away", "in the middle of the turn"])
async def test_a_join_owed_when_the_server_was_killed_reaches_the_bot_after_it(
    tmp_path: Path, bot_was: str, paid_by: str
) -> None:
    async def greet(bot: ScriptedBot, activity: Activity) -> web.Response | None:
        if activity["type"] == "conversationUpdate":
            for member in activity["membersAdded"]:
                if member["id"] != activity["recipient"]["id"]:
                    await bot.send(activity["conversation"]["id"], {"type": "message", "text": f"hello {member['id']}"})
        return None

    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        ann = client.using((await client.generate(user={"id": "dl_ann"})).token)
        if bot_was == "away":
            await bot.refuse()
        else:
            bot.hang()
        opened = await ann.start()
        assert opened.status == 201
        if bot_was == "in the middle of the turn":
            await bot.wait_for(lambda each: each.type == "conversationUpdate")
        await landline.kill()
        bot.release()
        bot.on_activity = greet
        await bot.accept()
        await landline.start()
        async with Follower(ann, opened) as follower:
            if paid_by == "a repeated start":
                assert (await ann.start()).status == 200
            else:
                assert (await ann.send(opened.conversation_id, "is anybody there?")).status == 200
            await follower.until(
                lambda follower: "hello dl_ann" in [each.get("text") for each in follower.activities], "is greeted"
            )
        after = [each.activity for each in bot.received if each.conversation_id == opened.conversation_id]
        joins = [each for each in after if each["type"] == "conversationUpdate"]
        assert [member["id"] for member in joins[-1]["membersAdded"]] == ["bot", "dl_ann"]
        assert len(joins) == (1 if bot_was == "away" else 2), "twice only if it may have been told before the kill"
        if paid_by == "the next send":
            assert [each["type"] for each in after[-2:]] == ["conversationUpdate", "message"]
