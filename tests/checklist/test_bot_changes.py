"""A bot that changes or takes back what it said, and what clients see of it (D-35; bot 3.3, 3.4).

What the browser makes of it is shown by the tests with a real Web Chat.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from yarl import URL

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from landline.core.session import Deliver, Session
from support.landline import SECRET, Landline
from support.streams import log_of, numbers, say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")


def url_of(bot: ScriptedBot, conversation_id: str, activity_id: str) -> URL:
    base = bot.service_url(conversation_id)
    return URL(f"{base}/v3/conversations/{conversation_id}/activities/{activity_id}", encoded=True)


async def put(bot: ScriptedBot, conversation_id: str, activity_id: str, activity: Activity, **more: str) -> Answer:
    url = str(url_of(bot, conversation_id, activity_id))
    return await bot.request("PUT", url, json=activity, headers=more)


async def change(bot: ScriptedBot, conversation_id: str, activity_id: str, text: str) -> None:
    answer = await put(bot, conversation_id, activity_id, {"type": "message", "id": activity_id, "text": text})
    assert (answer.status, answer.json) == (200, {"id": activity_id}), answer


async def take_back(bot: ScriptedBot, conversation_id: str, activity_id: str) -> Answer:
    return await bot.request("DELETE", str(url_of(bot, conversation_id, activity_id)))


def error_of(answer: Answer) -> tuple[int, str]:
    assert answer.headers["Content-Type"].split(";")[0] == "application/json", answer
    return answer.status, answer.json["error"]["code"]


@pytest.mark.item(183)
@pytest.mark.bot_item(55)
async def test_an_update_is_a_later_entry_with_the_same_id_and_timestamp(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """What Web Chat shows of it is its own test."""
    first = await say(bot, conversation_id, "one")
    await say(bot, conversation_id, "two")
    async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
        await stream.until_text("two")
        await change(bot, conversation_id, first, "ONE")
        shown = await stream.until_text("ONE")
        original = stream.activities[0]
        assert (shown["id"], shown["timestamp"]) == (first, original["timestamp"])
        assert shown["from"] == original["from"]
        assert [each["id"] for each in stream.activities] == [first, stream.activities[1]["id"], first]
        marks = [int(each["watermark"].split("-")[0]) for each in stream.sets]
        assert marks == sorted(marks) == [1, 2, 3]
        behind_two = stream.sets[1]["watermark"]
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["one", "two", "ONE"]
    page = await client.activities(conversation_id, behind_two)
    assert (page.replay, page.activities) == ("complete", [shown])


@pytest.mark.item(190)
async def test_our_client_is_shown_an_update_and_no_repetition_of_it(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """Our client's part, by its session; Web Chat's is its own test."""
    first = await say(bot, conversation_id, "one")
    for text in ("ONE", "ONE", "one"):
        await change(bot, conversation_id, first, text)
    session = Session()
    session.started("ws://here", 3600, 0.0)
    session.opened()
    shown: list[str] = []
    for _ in range(2):  # the second stream replays all of it
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
            await stream.until(lambda stream: len(stream.activities) == 4, "has all versions")
            for frame in stream.frames:
                assert isinstance(frame, str)
                if isinstance(decision := session.frame(frame.encode()), Deliver):
                    shown += [json.loads(each)["text"] for each in decision.activities]
    assert shown == ["one", "ONE", "one"]


@pytest.mark.bot_item(56)
async def test_only_what_the_bot_said_itself_can_be_changed(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    theirs = (await client.send(conversation_id, "mine")).json["id"]
    mine = await say(bot, conversation_id, "mine")
    typing = (await bot.send(conversation_id, {"type": "typing"})).json["id"]
    await change(bot, conversation_id, mine, "changed")
    version = f"{conversation_id}|{numbers(conversation_id, [mine])[0] + 1:07d}"
    other = await started(client, bot)
    elsewhere = await say(bot, other.conversation_id, "elsewhere")
    spelled_otherwise = mine.replace("|0", "|00")
    unknown = [theirs, typing, version, elsewhere, spelled_otherwise, f"{conversation_id}|9999999", "x", "history2"]
    for activity_id in unknown:
        for kind in ("message", "typing", "trace"):
            answer = await put(bot, conversation_id, quote(activity_id), {"type": kind, "text": "no"})
            assert error_of(answer) == (404, "BadArgument"), (activity_id, kind)
        assert error_of(await take_back(bot, conversation_id, quote(activity_id))) == (404, "BadArgument"), activity_id
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["mine", "mine", "changed"]
    assert [each["text"] for each in await client.all_activities(other.conversation_id)] == ["elsewhere"]


@pytest.mark.bot_item(56)
async def test_an_update_that_contradicts_itself_is_refused(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    mine = await say(bot, conversation_id, "mine")
    for activity, code in (
        ({"type": "message", "id": "another"}, "BadArgument"),
        ({"type": "message", "id": 7}, "BadArgument"),
        ({"id": mine}, "MissingProperty"),
        ({"type": "typing", "id": mine}, "BadArgument"),
        ({"type": "trace", "id": mine}, "BadArgument"),
    ):
        assert error_of(await put(bot, conversation_id, mine, activity)) == (400, code), activity
    assert (await put(bot, conversation_id, mine, {"type": "message", "id": None, "text": "good"})).status == 200
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["mine", "good"]


@pytest.mark.item(184)
@pytest.mark.bot_item(57, 58)
async def test_a_delete_takes_the_content_from_every_replay_and_tells_streams(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """What Web Chat shows of it is its own test."""
    first = await say(bot, conversation_id, "the secret")
    await say(bot, conversation_id, "two")
    await change(bot, conversation_id, first, "the secret, again")
    async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
        await stream.until_text("the secret, again")
        early = stream.sets[0]["watermark"]
        answer = await take_back(bot, conversation_id, first)
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) == 0
        await stream.until(lambda stream: stream.activities[-1]["type"] == "messageDelete", "is told")
        told = stream.activities[-1]
    assert told == {
        "type": "messageDelete",
        "id": first,
        "timestamp": told["timestamp"],
        "channelId": "directline",
        "conversation": {"id": conversation_id},
        "from": {"id": "bot", "name": "Bot", "role": "bot"},
    }
    assert told["timestamp"] > stream.activities[1]["timestamp"]
    for watermark in (None, "", early):
        page = await client.activities(conversation_id, watermark)
        assert (page.replay, [each.get("text") for each in page.activities]) == ("complete", ["two", None])
        assert b"secret" not in page.body
    for watermark in ("", early):
        async with client.stream((await client.reconnect(conversation_id, watermark)).stream_url) as stream:
            await stream.until(lambda stream: len(stream.activities) == 2, "has what is left")
            assert [each["type"] for each in stream.activities] == ["message", "messageDelete"]
    assert (await take_back(bot, conversation_id, first)).status == 200
    assert error_of(await put(bot, conversation_id, first, {"type": "message", "text": "x"})) == (404, "BadArgument")
    assert len(await client.all_activities(conversation_id)) == 2, "deleting twice says nothing more"


@pytest.mark.bot_item(47)
async def test_an_encoded_bar_names_the_same_activity(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    known = await say(bot, conversation_id, "known")
    for spelled in (known, known.replace("|", "%7C"), known.replace("|", "%7c"), quote(known, safe="")):
        answer = await put(bot, conversation_id, spelled, {"type": "message", "id": known, "text": spelled})
        assert (answer.status, answer.json) == (200, {"id": known})
    assert (await take_back(bot, conversation_id, known.replace("|", "%7C"))).status == 200
    assert [each["type"] for each in await client.all_activities(conversation_id)] == ["messageDelete"]


@pytest.mark.bot_item(43)
async def test_a_repeated_update_stores_nothing_new(bot: ScriptedBot, client: DirectLine, conversation_id: str) -> None:
    mine = await say(bot, conversation_id, "mine")
    request = {"x-ms-client-request-id": "update-1"}
    for _ in range(2):
        answer = await put(bot, conversation_id, mine, {"type": "message", "text": "changed"}, **request)
        assert (answer.status, answer.json) == (200, {"id": mine})
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["mine", "changed"]


@pytest.mark.item(183, 184)
async def test_what_has_expired_is_changed_and_taken_back_while_a_version_of_it_is_shown(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """D-35 with `activity_ttl_s`: a delete erases the activity and all its updates, also those that are left."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, activity_ttl_s=2) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        first = await say(bot, conversation_id, "0 %")
        timestamp = (await client.activities(conversation_id)).activities[0]["timestamp"]
        count = 0
        async with asyncio.timeout(30):
            while "0 %" in [each["text"] for each in await client.all_activities(conversation_id)]:
                count += 1
                await change(bot, conversation_id, first, f"{count} %")
                await asyncio.sleep(0.1)
        await change(bot, conversation_id, first, "done")
        shown = await client.all_activities(conversation_id)
        assert shown[-1]["text"] == "done"
        assert {(each["id"], each["timestamp"]) for each in shown} == {(first, timestamp)}
        for _ in range(2):
            assert (await take_back(bot, conversation_id, first)).status == 200
            (told,) = await client.all_activities(conversation_id)
            assert (told["type"], told["id"]) == ("messageDelete", first)
        answer = await put(bot, conversation_id, first, {"type": "message", "text": "x"})
        assert error_of(answer) == (404, "BadArgument")


@pytest.mark.bot_item(58)
async def test_what_was_deleted_stays_deleted_across_a_kill(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        kept, gone = [await say(bot, conversation_id, text) for text in ("kept", "gone")]
        await change(bot, conversation_id, gone, "gone, changed")
        assert (await take_back(bot, conversation_id, gone)).status == 200
        await landline.restart(kill=True)
        shown = await log_of(landline, conversation_id)
        assert [(each["id"], each["type"]) for each in shown] == [(kept, "message"), (gone, "messageDelete")]
        assert (await take_back(bot, conversation_id, gone)).status == 200
        await change(bot, conversation_id, kept, "kept, changed")
        assert len(await log_of(landline, conversation_id)) == 3
