"""Limits: who asks too often waits, and is refused only where waiting would be worse (spec 10)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.config import Settings
from landline.conformance.directline import Answer, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import PIXEL, upload
from support.landline import SECRET, Landline
from support.operator import Operator

DEFAULTS = {name: getattr(Settings(), name) for name in ("sends_per_s", "polls_per_s", "starts_per_s")}
MESSAGE = {"type": "message", "text": "hello", "from": {"id": "user"}}


@pytest.fixture
async def landline(tmp_path: Path) -> AsyncIterator[Landline]:
    """A server with the default limits."""
    async with ScriptedBot() as bot, Landline(tmp_path / "data", bot=bot.endpoint, **DEFAULTS) as landline:
        yield landline


def statuses(answers: list[Answer]) -> set[int]:
    return {answer.status for answer in answers}


@pytest.mark.item(127, 178)
async def test_a_burst_of_forty_polls_is_answered_late_and_never_refused(landline: Landline) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        conversation = (await client.start()).conversation_id
        began = time.monotonic()
        answered: list[float] = []

        async def poll() -> Answer:
            answer = await client.activities(conversation)
            answered.append(time.monotonic() - began)
            return answer

        answers = await asyncio.gather(*(poll() for _ in range(40)))
    assert statuses(answers) == {200}
    # Twenty at once, the others five a second: the last one has its turn after four seconds.
    assert sorted(answered)[39] >= 3.9


@pytest.mark.item(127)
async def test_polling_at_a_fifth_of_the_limit_is_never_delayed_or_refused(tmp_path: Path) -> None:
    """Once a second for a minute at the default limit of five; here fifty times as fast."""
    async with (
        Landline(tmp_path / "data", polls_per_s=250) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation = (await client.start()).conversation_id
        for _ in range(60):
            assert (await client.activities(conversation)).status == 200
            await asyncio.sleep(1 / 50)


@pytest.mark.item(178)
async def test_polls_beyond_every_wait_are_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", **DEFAULTS, poll_wait_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation = (await client.start()).conversation_id
        answers = [await client.activities(conversation) for _ in range(20)]
        assert statuses(answers) == {200}
        refused = [
            answer for answer in [await client.activities(conversation) for _ in range(20)] if answer.status != 200
        ]
        assert refused
        for answer in refused:
            assert answer.error == (429, "RateLimited")
            assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.item(12, 178)
async def test_sends_over_the_limit_are_refused_and_neither_stored_nor_forwarded(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, sends_per_s=0.1) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation = (await client.start()).conversation_id
        assert (await client.send(conversation, MESSAGE)).status == 200
        refused = await client.send(conversation, MESSAGE, headers={"Origin": "http://shop.example"})
        assert refused.error == (429, "RateLimited")
        assert int(refused.headers["Retry-After"]) >= 1
        assert refused.headers["Access-Control-Allow-Origin"] == "http://shop.example"
        assert len(await client.all_activities(conversation)) == len(bot.messages) == 1


@pytest.mark.item(195)
async def test_three_hundred_starts_in_one_second_all_succeed(landline: Landline) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        answers = await asyncio.gather(*(client.start() for _ in range(300)))
    assert statuses(answers) == {201}
    assert len({answer.conversation_id for answer in answers}) == 300


async def test_a_stranger_uses_up_nobodys_turns(tmp_path: Path) -> None:
    """The credential is checked before anything is counted (3.4)."""
    async with (
        Landline(tmp_path / "data", sends_per_s=0.1, polls_per_s=5, poll_wait_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        DirectLine(landline.directline, "somebody-elses-secret-0123456789") as stranger,
    ):
        conversation = (await client.start()).conversation_id
        for _ in range(50):
            assert (await stranger.activities(conversation)).status == 403
        assert (await client.activities(conversation)).status == 200


@pytest.mark.item(33)
async def test_another_bots_secret_uses_up_no_turns_of_a_conversation(tmp_path: Path) -> None:
    """Whether a conversation is there is known only after the turn was taken (3.4)."""
    async with (
        Landline(tmp_path / "data", sends_per_s=0.1, polls_per_s=0.1, poll_wait_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        Operator(landline) as operator,
    ):
        await operator.done("POST", "/bots", {"id": "other"})
        foreign = client.using(await operator.add_site("elsewhere", "other"))
        conversation = (await client.start()).conversation_id
        for _ in range(5):
            calls = (
                foreign.send(conversation, MESSAGE),
                upload(foreign, conversation, PIXEL, {"Content-Type": "image/png"}),
                foreign.activities(conversation),
            )
            assert {(await call).status for call in calls} <= {404, 429}
        assert (await client.send(conversation, MESSAGE)).error == (502, "BotError"), "there is no bot"
        assert (await client.activities(conversation)).status == 200


async def test_a_credential_of_the_wrong_kind_uses_up_no_turns(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", starts_per_s=0.1, start_wait_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        for _ in range(50):
            assert (await client.refresh()).error == (403, "BadArgument")
        started = await client.start()
        assert started.status == 201
        for _ in range(50):
            assert (await client.using(started.token).generate()).error == (403, "BadArgument")
        assert (await client.start()).error == (429, "RateLimited"), "there was one turn only"
