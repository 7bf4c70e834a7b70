"""`kill -9` under clients and bots that repeat whatever was not answered, and a bot that takes back what it said.

Each repeats under its key until it has its 200. In the end everything was said once, and nothing that was taken back
comes to light again.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.rounds import SEED, rounds
from support.streams import log_of, started, until

KILLS = rounds(4, 500)
BETWEEN_KILLS = 40


class Talk:
    """What was said in a conversation: the texts, by the ids that were answered for them."""

    def __init__(self, client: DirectLine, bot: ScriptedBot, conversation_id: str) -> None:
        self.said: dict[str, str] = {}
        self.taken_back: set[str] = set()
        self.repeats = 0
        self._client = client
        self._bot = bot
        self._conversation_id = conversation_id
        self._url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"

    async def client(self, name: str) -> None:
        """A user."""
        for number in itertools.count():
            await self._insist(f"{name}-{number}", self._send)

    async def bot(self, name: str, rng: random.Random) -> None:
        """A bot whose SDK repeats its calls, and that takes back every fourth thing it said."""
        for number in itertools.count():
            activity_id = await self._insist(f"{name}-{number}", self._call)
            if rng.random() < 0.25:
                await self._until_answered(partial(self._delete, activity_id))
                self.taken_back.add(activity_id)

    async def _insist(self, text: str, say: Callable[[str], Awaitable[str | None]]) -> str:
        activity_id = await self._until_answered(partial(say, text))
        assert activity_id not in self.said, f"{text!r} and {self.said[activity_id]!r} under one id"
        self.said[activity_id] = text
        return activity_id

    async def _until_answered(self, call: Callable[[], Awaitable[str | None]]) -> str:
        while True:
            try:
                if (activity_id := await call()) is not None:
                    return activity_id
            except (aiohttp.ClientError, ConnectionError):
                await asyncio.sleep(0.02)  # killed; whether it was stored nobody knows
            self.repeats += 1

    async def _send(self, text: str) -> str | None:
        activity = {"type": "message", "from": {"id": "user"}, "text": text}
        answer = await self._client.send(self._conversation_id, activity, headers={"Idempotency-Key": text})
        assert answer.status == 200, (text, answer)
        return str(answer.json["id"])

    async def _call(self, text: str) -> str | None:
        activity, headers = {"type": "message", "text": text}, {"x-ms-client-request-id": text}
        answer = await self._bot.request("POST", self._url, json=activity, headers=headers)
        assert answer.status == 200, (text, answer)
        return str(answer.json["id"])

    async def _delete(self, activity_id: str) -> str | None:
        answer = await self._bot.request("DELETE", f"{self._url}/{activity_id}")
        assert answer.status == 200, answer
        return activity_id


@pytest.mark.item(168)
@pytest.mark.bot_item(43, 58)
async def test_what_is_repeated_until_it_is_answered_is_said_once_and_what_is_deleted_stays_deleted(
    tmp_path: Path,
) -> None:
    rng = random.Random(SEED)
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot, user={"id": "user"})).conversation_id
        talk = Talk(client, bot, conversation_id)
        async with asyncio.TaskGroup() as group:
            talking = [group.create_task(talk.client(f"client-{n}")) for n in range(3)]
            talking += [group.create_task(talk.bot(f"bot-{n}", rng)) for n in range(3)]
            for _ in range(KILLS):
                enough = len(talk.said) + BETWEEN_KILLS
                await until(lambda enough=enough: len(talk.said) >= enough, "more was said", 30)  # type: ignore[misc]
                await asyncio.sleep(rng.random() * 0.05)
                await landline.restart(kill=True)
            for task in talking:
                task.cancel()
        assert talk.repeats > 0, "some calls were cut"
        await check(talk, await log_of(landline, conversation_id), bot)


async def check(talk: Talk, log: list[dict[str, object]], bot: ScriptedBot) -> None:
    shown = {str(each["id"]): each.get("text") for each in log if each["type"] == "message"}
    texts = [text for text in shown.values() if text is not None]
    assert len(set(texts)) == len(texts), "doubled"
    for activity_id, text in talk.said.items():
        assert shown.get(activity_id) == text or (activity_id in deleted(log) and activity_id not in shown), text
    assert talk.taken_back <= deleted(log)
    assert talk.taken_back.isdisjoint(shown), "it came to light again"
    offered: dict[str, set[str]] = {}
    for each in bot.messages:
        offered.setdefault(str(each.text), set()).add(each.activity["id"])
    assert all(len(ids) == 1 for ids in offered.values()), "the bot was offered one send under two ids"


def deleted(log: list[dict[str, object]]) -> set[str]:
    """The ids of which the log says that they were deleted."""
    ids = [str(each["id"]) for each in log if each["type"] == "messageDelete"]
    assert len(set(ids)) == len(ids), "deleted twice"
    return set(ids)
