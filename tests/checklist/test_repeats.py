"""Sends that are sent twice, by clients and by bots (spec 8.5, 14 J; bot 1, fact 2)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from landline.conformance.directline import Activity, Answer, DirectLine
from landline.conformance.scripted_bot import Answer as BotAnswer
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.streams import has_entries, log_of, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO: Activity = {"type": "message", "from": {"id": "ann"}, "text": "hello"}


async def send(client: DirectLine, conversation_id: str, activity: Activity, key: str) -> Answer:
    return await client.send(conversation_id, activity, headers={"Idempotency-Key": key})


def offered(bot: ScriptedBot, conversation_id: str) -> list[str]:
    """The ids under which the bot was offered messages of this conversation."""
    return [each["id"] for each in bot.heard(conversation_id) if each["type"] == "message"]


@pytest.mark.item(166)
async def test_a_repeat_is_answered_as_the_first_send_and_nobody_hears_of_it(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    answers = [await send(client, conversation_id, HELLO, "key-1") for _ in range(3)]
    assert {answer.status for answer in answers} == {200}
    ids = {answer.json["id"] for answer in answers}
    assert (
        [each["id"] for each in await client.all_activities(conversation_id)] == [*ids] == offered(bot, conversation_id)
    )


@pytest.mark.item(167)
async def test_a_key_that_was_used_for_something_else_is_a_conflict(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Also while the first send is under way."""
    bot.hang()
    first = asyncio.create_task(send(client, conversation_id, HELLO, "key"))
    await bot.wait_for(lambda each: each.conversation_id == conversation_id and each.type == "message")
    other = {**HELLO, "text": "something else"}
    assert (await send(client, conversation_id, other, "key")).error == (409, "Conflict")
    bot.release()
    assert (await first).status == 200
    assert (await send(client, conversation_id, other, "key")).error == (409, "Conflict")
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hello"]


async def test_keys_belong_to_their_sender_and_their_conversation(client: DirectLine, bot: ScriptedBot) -> None:
    first, second = [(await client.start()).conversation_id for _ in range(2)]
    for conversation_id, user in ((first, "ann"), (first, "bob"), (second, "ann")):
        assert (await send(client, conversation_id, {**HELLO, "from": {"id": user}}, "key")).status == 200
    assert len(await client.all_activities(first)) == 2
    assert len(await client.all_activities(second)) == 1


@pytest.mark.item(168)
async def test_what_failed_is_offered_to_the_bot_again_under_its_id(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """The 502; what a kill -9 leaves behind is below."""
    bot.answer(500)
    for _ in range(2):
        assert (await send(client, conversation_id, HELLO, "key")).error == (502, "BotRejectedActivity")
    bot.answer()
    answer = await send(client, conversation_id, HELLO, "key")
    assert answer.status == 200
    assert [each["id"] for each in await client.all_activities(conversation_id)] == [answer.json["id"]]
    assert offered(bot, conversation_id) == [answer.json["id"]] * 3
    copies = [each for each in bot.heard(conversation_id) if each["type"] == "message"]
    assert copies[0] == copies[1] == copies[2]
    assert (await send(client, conversation_id, HELLO, "key")).status == 200
    assert len(offered(bot, conversation_id)) == 3, "it is known now that the bot took it"


@pytest.mark.item(168)
async def test_a_kill_between_the_append_and_the_bots_answer_leaves_one_activity_that_is_offered_again(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        bot.hang()
        first = asyncio.create_task(send(client, conversation_id, HELLO, "key"))
        await bot.wait_for(lambda each: each.conversation_id == conversation_id and each.type == "message")
        await landline.kill()
        await asyncio.wait([first])
        assert first.exception() is not None, "nobody told the client"
        bot.release()
        await landline.start()
        answer = await send(client, conversation_id, HELLO, "key")
        assert answer.status == 200
        assert [each["id"] for each in await log_of(landline, conversation_id)] == [answer.json["id"]]
        assert offered(bot, conversation_id) == [answer.json["id"]] * 2


async def test_that_the_bot_took_it_is_known_after_a_stop(tmp_path: Path, bot: ScriptedBot) -> None:
    """The outcome is written later, but before the store closes."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        first = await send(client, conversation_id, HELLO, "key")
        await landline.restart()
        again = await send(client, conversation_id, HELLO, "key")
        assert (again.status, again.json) == (200, first.json)
        assert offered(bot, conversation_id) == [first.json["id"]]


@pytest.mark.item(169)
async def test_ten_repeats_at_once_are_one_send_with_one_answer(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    bot.answer(delay=0.3)
    answers = await asyncio.gather(*(send(client, conversation_id, HELLO, "key") for _ in range(10)))
    assert {(answer.status, answer.json["id"]) for answer in answers} == {(200, f"{conversation_id}|0000000")}
    assert len(await client.all_activities(conversation_id)) == 1
    assert len(offered(bot, conversation_id)) == 1


@pytest.mark.item(169)
async def test_ten_repeats_at_once_fail_together(client: DirectLine, bot: ScriptedBot, conversation_id: str) -> None:
    bot.answer(500, delay=0.3)
    answers = await asyncio.gather(*(send(client, conversation_id, HELLO, "key") for _ in range(10)))
    assert {answer.error for answer in answers} == {(502, "BotRejectedActivity")}
    assert len(await client.all_activities(conversation_id)) == 1
    assert len(offered(bot, conversation_id)) == 1


@pytest.mark.item(170)
async def test_equal_sends_without_a_key_are_two_activities(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    twin = {
        **HELLO,
        "channelData": {"clientActivityID": "same"},
        "localTimestamp": "2026-01-05T11:00:00.000+01:00",
    }
    ids = [(await client.send(conversation_id, twin)).json["id"] for _ in range(2)]
    assert [each["id"] for each in await client.all_activities(conversation_id)] == ids
    assert len(set(ids)) == 2


async def test_an_invoke_cannot_have_a_key(client: DirectLine, bot: ScriptedBot, conversation_id: str) -> None:
    """Its stored copy may have no `value`, so that a repeat would be another invoke (8.5)."""
    invoke = {**HELLO, "type": "invoke", "name": "signin/verifyState", "value": {"state": "1"}}
    assert (await send(client, conversation_id, invoke, "key")).error == (400, "BadArgument")
    assert await client.all_activities(conversation_id) == []


@pytest.mark.parametrize("key", ["", "with space", "x" * 129, "\u00fc"])
async def test_a_key_of_another_form_is_refused(client: DirectLine, conversation_id: str, key: str) -> None:
    assert (await send(client, conversation_id, HELLO, key)).error == (400, "BadArgument")
    assert await client.all_activities(conversation_id) == []


async def test_a_key_is_known_for_idempotency_ttl_s(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, idempotency_ttl_s=0.5) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        first = await send(client, conversation_id, HELLO, "key")
        async with asyncio.timeout(10):
            while (await send(client, conversation_id, HELLO, "key")).json["id"] == first.json["id"]:
                await asyncio.sleep(0.05)
        assert len(await client.all_activities(conversation_id)) == 2


# Uploads


def form(boundary: str, text: str = "see") -> tuple[bytes, str]:
    """A file and an activity, as a browser writes them; it makes up a boundary each time."""
    parts = (
        ('name="file"; filename="a.txt"', "text/plain", "the file"),
        ('name="activity"', "application/vnd.microsoft.activity", f'{{"type":"message","text":"{text}"}}'),
    )
    lines = [
        f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\nContent-Type: {kind}\r\n\r\n{content}\r\n"
        for name, kind, content in parts
    ]
    return "".join([*lines, f"--{boundary}--\r\n"]).encode(), f"multipart/form-data; boundary={boundary}"


async def upload(client: DirectLine, conversation_id: str, boundary: str, text: str = "see") -> Answer:
    body, content_type = form(boundary, text)
    return await client.request(
        "POST",
        f"/conversations/{conversation_id}/upload?userId=ann",
        data=body,
        headers={"Content-Type": content_type, "Idempotency-Key": "upload"},
    )


@pytest.mark.item(166, 167, 168)
async def test_an_upload_that_is_repeated_is_one_activity_with_one_set_of_files(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Uploads obey the same rules, by header (8.5)."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        files = tmp_path / "data" / "blobs"

        def count() -> int:
            return sum(path.is_file() and b"the file" in path.read_bytes() for path in files.rglob("*"))

        bot.answer(500)
        assert (await upload(client, conversation_id, "one")).error == (502, "BotRejectedActivity")
        bot.answer()
        answer = await upload(client, conversation_id, "two")
        assert answer.status == 200
        assert offered(bot, conversation_id) == [answer.json["id"]] * 2
        before = count()
        await landline.restart()
        assert (await upload(client, conversation_id, "three")).json == answer.json
        assert (await upload(client, conversation_id, "four", "something else")).error == (409, "Conflict")
        assert len(offered(bot, conversation_id)) == 2
        assert count() == before > 0, "what nobody was shown is not kept"
        (activity,) = await client.all_activities(conversation_id)
        assert activity["id"] == answer.json["id"]
        for copy in (activity, bot.heard(conversation_id)[-1]):
            link = copy["attachments"][0]["contentUrl"]
            fetched = await bot.request("GET", link)
            assert fetched.status == 200


# The bot's repeats


async def call(
    bot: ScriptedBot, conversation_id: str, text: str, request_id: str, reply_to: str | None = None
) -> BotAnswer:
    url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities"
    return await bot.request(
        "POST",
        f"{url}/{reply_to}" if reply_to else url,
        json={"type": "message", "text": text},
        headers={"x-ms-client-request-id": request_id},
    )


@pytest.mark.bot_item(43)
@pytest.mark.parametrize("reply_to", [None, "some-id"])
async def test_a_bots_repeated_call_is_answered_with_the_first_id_across_a_kill(
    tmp_path: Path, bot: ScriptedBot, reply_to: str | None
) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        first = await call(bot, conversation_id, "hi", "request-1", reply_to)
        assert (await call(bot, conversation_id, "hi", "request-1", reply_to)).json == first.json
        await landline.restart(kill=True)
        again = await call(bot, conversation_id, "hi", "request-1", reply_to)
        assert (again.status, again.json) == (200, first.json)
        other = await call(bot, conversation_id, "hi", "request-2", reply_to)
        assert [each["id"] for each in await log_of(landline, conversation_id)] == [first.json["id"], other.json["id"]]


@pytest.mark.bot_item(43)
async def test_a_call_whose_answer_was_lost_in_a_kill_is_stored_once(tmp_path: Path, bot: ScriptedBot) -> None:
    """The case that doubled messages: the first try is on disk, its answer never left."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        for number in range(5):
            first = asyncio.create_task(call(bot, conversation_id, "hi", f"request-{number}"))
            await has_entries(client, conversation_id, number + 1)
            await landline.restart(kill=True)
            await asyncio.wait([first])
            assert (await call(bot, conversation_id, "hi", f"request-{number}")).status == 200
            assert len(await log_of(landline, conversation_id)) == number + 1


@pytest.mark.bot_item(43)
async def test_a_request_id_that_was_used_for_something_else_is_a_conflict(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """The rules of `Idempotency-Key` hold (bot 1, fact 2)."""
    assert (await call(bot, conversation_id, "hi", "request")).status == 200
    for answer in (
        await call(bot, conversation_id, "other", "request"),
        await call(bot, conversation_id, "hi", "request", reply_to="some-id"),
    ):
        assert (answer.status, answer.json["error"]["code"]) == (409, "Conflict")
        assert answer.json["error"]["message"] == "The x-ms-client-request-id was used for something else"
    assert len(await client.all_activities(conversation_id)) == 1
