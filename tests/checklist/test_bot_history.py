"""What was said elsewhere before, as a bot adds it (bot 3.9; items 62 to 64)."""

from __future__ import annotations

from pathlib import Path

import pytest

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from support.landline import SECRET, Landline
from support.streams import started

pytestmark = pytest.mark.asyncio(loop_scope="module")


def said(number: int, **more: object) -> Activity:
    """An entry as the Bot Framework SDK for Python writes it: no timestamp, from, or conversation."""
    return {"type": "message", "id": f"past-{number}", "text": f"said {number}", **more}


async def add(bot: ScriptedBot, conversation_id: str, *past: object, request_id: str | None = None) -> Answer:
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities/history"
    headers = {} if request_id is None else {"x-ms-client-request-id": request_id}
    return await bot.request("POST", url, json={"activities": list(past)}, headers=headers)


async def texts(client: DirectLine, conversation_id: str) -> list[str]:
    return [each["text"] for each in await client.all_activities(conversation_id)]


@pytest.mark.bot_item(62, 63, 64)
async def test_a_history_is_stored_in_its_order_and_is_no_reply_to_an_activity_of_that_name(
    client: DirectLine, bot: ScriptedBot
) -> None:
    opened = await started(client, bot)
    past = [said(number) for number in range(40)]
    async with client.stream(opened.stream_url) as stream:
        answer = await add(bot, opened.conversation_id, *past)
        await stream.until_text("said 39")
    logged = await client.all_activities(opened.conversation_id)
    assert answer.status == 200
    assert list(answer.json) == ["id"]
    assert answer.json["id"] == logged[-1]["id"]
    assert [each["text"] for each in logged] == [each["text"] for each in past]
    assert stream.activities == logged
    for each in logged:
        assert "replyToId" not in each
        assert each["from"] == {"id": "bot", "name": "Bot", "role": "bot"}
        assert each["timestamp"].endswith("Z")


@pytest.mark.bot_item(63)
async def test_a_repeated_history_adds_only_what_is_new(client: DirectLine, bot: ScriptedBot) -> None:
    conversation_id = (await started(client, bot)).conversation_id
    first = await add(bot, conversation_id, said(0), said(1))
    assert (await add(bot, conversation_id, said(0, text="written otherwise"), said(1))).json == first.json
    await add(bot, conversation_id, said(1), said(2), said(2))
    assert await texts(client, conversation_id) == ["said 0", "said 1", "said 2"]


async def test_an_entry_without_an_id_is_another_one_each_time(client: DirectLine, bot: ScriptedBot) -> None:
    conversation_id = (await started(client, bot)).conversation_id
    for _ in range(2):
        await add(bot, conversation_id, said(0, id=None))
    assert await texts(client, conversation_id) == ["said 0"] * 2


@pytest.mark.bot_item(62, 63)
async def test_a_transcript_of_this_conversation_and_another_keeps_who_said_what(
    client: DirectLine, bot: ScriptedBot
) -> None:
    """What is here already is not added again; a user's line is not put into the bot's mouth, and not the bot's to
    change."""
    opened = await started(client, bot, user={"id": "ann", "name": "Ann"})
    conversation_id = opened.conversation_id
    here = (await client.send(conversation_id, "here")).json["id"]
    elsewhere = said(1, **{"from": {"id": 12, "name": "Bo", "role": "user"}, "replyToId": "elsewhere|0000001"})
    member, bots = said(2, **{"from": {"id": "ann"}}), said(3, **{"from": {"id": "some-bot", "role": "bot"}})
    answer = await add(bot, conversation_id, said(0, id=here), elsewhere, member, bots, said(4, id=here))
    assert (answer.status, answer.json) == (200, {"id": here})
    log = await client.all_activities(conversation_id)
    assert [each["text"] for each in log] == ["here", "said 1", "said 2", "said 3"]
    assert [each["from"] for each in log[1:]] == [
        {"id": "12", "name": "Bo", "role": "user"},
        {"id": "ann"},
        {"id": "bot", "name": "Bot", "role": "bot"},
    ]
    assert not any("replyToId" in each for each in log)
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities/{log[1]['id']}"
    assert (await bot.request("PUT", url, json=said(1, id=None))).status == 404


@pytest.mark.item(203, 209)
@pytest.mark.parametrize("odd", [{"from": {"id": 1.5, "role": "user"}}, {"from": {"role": "user"}}, {"text": {}}])
async def test_a_transcript_with_an_odd_line_adds_nothing(client: DirectLine, bot: ScriptedBot, odd: Activity) -> None:
    conversation_id = (await started(client, bot)).conversation_id
    assert (await add(bot, conversation_id, said(0), said(1, **odd))).status == 400
    assert await texts(client, conversation_id) == []


@pytest.mark.bot_item(63)
async def test_a_history_is_known_after_a_restart(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        await add(bot, conversation_id, said(0), said(1))
        await landline.restart(kill=True)
        await add(bot, conversation_id, said(0), said(1), said(2))
        assert await texts(client, conversation_id) == ["said 0", "said 1", "said 2"]


@pytest.mark.bot_item(43, 63)
async def test_a_call_that_is_repeated_adds_nothing_though_its_entries_have_no_ids(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """The one SDK that repeats a call does so with the same header (fact 2)."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        past = said(0, id=None), said(0, id=None), said(1), said(2, id=None)
        first = await add(bot, conversation_id, *past, request_id="one")
        assert (await add(bot, conversation_id, *past, request_id="one")).json == first.json
        await landline.restart(kill=True)
        again = await add(bot, conversation_id, *past, request_id="one")
        assert (again.status, again.json) == (200, first.json)
        assert await texts(client, conversation_id) == ["said 0", "said 0", "said 1", "said 2"]
        other = await add(bot, conversation_id, said(3, id=None), request_id="one")
        assert (other.status, other.json["error"]["code"]) == (409, "Conflict")
        assert "x-ms-client-request-id" in other.json["error"]["message"]
        await add(bot, conversation_id, *past, request_id="two")
        assert (await texts(client, conversation_id))[4:] == ["said 0", "said 0", "said 2"]


async def test_ids_of_a_history_count_in_their_conversation_only(client: DirectLine, bot: ScriptedBot) -> None:
    for _ in range(2):
        conversation_id = (await started(client, bot)).conversation_id
        await add(bot, conversation_id, said(0))
        assert await texts(client, conversation_id) == ["said 0"]


@pytest.mark.parametrize("past", [[], [{"text": "no type"}], [said(0), 7], [said(0), {"type": 7}]])
async def test_a_history_that_is_not_good_as_a_whole_adds_nothing(
    client: DirectLine, bot: ScriptedBot, past: list[object]
) -> None:
    conversation_id = (await started(client, bot)).conversation_id
    assert (await add(bot, conversation_id, *past)).status == 400
    assert await texts(client, conversation_id) == []
