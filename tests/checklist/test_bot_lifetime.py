"""Bots that speak without being asked, and what stays between them and us (bot 4.3, 4.4, 3; section 8, 77 to 94).

Everything about bots with an app id (82 to 92, and of 93 what concerns them) is in `test_bot_trust.py`.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiohttp import web

from landline.conformance.directline import Activity, DirectLine, parameter
from landline.conformance.scripted_bot import Answer, ScriptedBot
from support.landline import SECRET, Landline
from support.streams import Follower, say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGE = {"type": "message", "text": "hi"}
CODE = "code-of-a-function-0123456789"


def error_of(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json["error"]["code"]


# Proactive


@pytest.mark.bot_item(77)
async def test_a_bot_speaks_without_being_asked(bot: ScriptedBot, client: DirectLine) -> None:
    opened = await started(client, bot)
    async with client.stream(opened.stream_url) as stream:
        await client.send(opened.conversation_id, "hello")
        assert all(each.answered for each in bot.received if each.conversation_id == opened.conversation_id)
        await say(bot, opened.conversation_id, "by the way")
        await stream.until_text("by the way")


@pytest.mark.bot_item(78)
@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "kill -9"])
async def test_a_bot_speaks_without_being_asked_after_a_restart(tmp_path: Path, bot: ScriptedBot, kill: bool) -> None:
    """The service URL it has kept is good, and the client is there by itself."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await started(client, bot)
        kept = bot.service_url(opened.conversation_id)
        async with Follower(client, opened) as follower:
            await say(bot, opened.conversation_id, "before")
            await follower.until(lambda f: f.activities, "heard the bot")
            await landline.restart(kill=kill)
            answer = await bot.send(opened.conversation_id, {**MESSAGE, "text": "after"}, kept)
            assert answer.status == 200, answer
            await follower.until(lambda f: answer.json["id"] in f.ids, "heard the bot again")
            assert [each["text"] for each in follower.activities] == ["before", "after"]


@pytest.mark.bot_item(79)
async def test_what_a_bot_says_to_nobody_is_there_when_the_client_comes_back(
    bot: ScriptedBot, client: DirectLine
) -> None:
    opened = await started(client, bot)
    async with client.stream(opened.stream_url) as stream:
        await say(bot, opened.conversation_id, "before")
        await stream.until_text("before")
        watermark = stream.watermark
        stream.cut()
    for text in ("one", "two", "three"):
        await say(bot, opened.conversation_id, text)
    async with client.stream((await client.reconnect(opened.conversation_id, watermark)).stream_url) as stream:
        await stream.until_text("three")
        assert stream.texts == ["one", "two", "three"]


@pytest.mark.bot_item(80)
@pytest.mark.parametrize("who", ["client", "bot"])
async def test_a_goodbye_after_the_end_arrives(bot: ScriptedBot, client: DirectLine, who: str) -> None:
    opened = await started(client, bot)
    end = {"type": "endOfConversation", "from": {"id": "user"}, "code": "completedSuccessfully"}
    async with client.stream(opened.stream_url) as stream:
        if who == "client":
            assert (await client.send(opened.conversation_id, end)).status == 200
        else:
            assert (await bot.send(opened.conversation_id, end)).status == 200
        assert (await bot.send(opened.conversation_id, {**MESSAGE, "text": "goodbye"})).status == 200
        assert (await bot.reply(opened.conversation_id, "x", {**MESSAGE, "text": "take care"})).status == 200
        await stream.until_text("take care")
        assert stream.open
        assert [each["type"] for each in stream.activities] == ["endOfConversation", "message", "message"]
    assert len(await client.all_activities(opened.conversation_id)) == 3


# Between the bot and us


@pytest.mark.bot_item(81)
async def test_a_bot_without_app_id_is_sent_no_credential(
    bot: ScriptedBot, client: DirectLine, conversation_id: str
) -> None:
    """Above all not the client's."""
    token = (await client.generate(user={"id": "dl_ann"})).token
    ann = client.using(token)
    opened = await started(ann, bot)
    await ann.send(opened.conversation_id, "hi")
    await client.send(conversation_id, "hi")
    assert bot.received
    for each in bot.received:
        assert "Authorization" not in each.headers
        assert not any(SECRET in value or token in value for value in each.headers.values())
        assert SECRET.encode() not in each.body
        assert token.encode() not in each.body


@pytest.mark.bot_item(93)
@pytest.mark.parametrize("what", ["no key", "another key", "a longer key", "half a key", "no prefix", "the key twice"])
async def test_without_the_bots_key_the_connector_is_not_there(
    bot: ScriptedBot, client: DirectLine, conversation_id: str, what: str
) -> None:
    """The part about anonymous bots; a server has one bot so far. Every chat user knows the conversation's id."""
    service_url = bot.service_url(conversation_id)
    base, _, key = service_url.rpartition("/b/")
    wrong = {
        "no key": f"{base}/b",
        "another key": f"{base}/b/{key[::-1]}",
        "a longer key": f"{base}/b/{key}x",
        "half a key": f"{base}/b/{key[: len(key) // 2]}",
        "no prefix": base,
        "the key twice": f"{base}/b/{key}/b/{key}",
    }[what]
    for headers in ({}, {"Authorization": f"Bearer {SECRET}"}, {"Authorization": "Bearer "}):
        for path in ("activities", "activities/some-id"):
            url = f"{wrong}/v3/conversations/{conversation_id}/{path}"
            answer = await bot.request("POST", url, json=MESSAGE, headers=headers)
            assert error_of(answer) == (404, "BadArgument"), (url, headers)
    assert await client.all_activities(conversation_id) == []
    allowed = await bot.request(
        "POST",
        f"{service_url}/v3/conversations/{conversation_id}/activities",
        json=MESSAGE,
        headers={"Authorization": "Bearer "},
    )
    assert allowed.status == 200, "an empty credential is none"


@pytest.mark.bot_item(93)
async def test_a_key_is_160_random_bits_and_no_client_ever_sees_it(tmp_path: Path, bot: ScriptedBot) -> None:
    keys = set()
    for name in ("one", "other"):
        async with (
            Landline(tmp_path / name, bot=bot.endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await started(client, bot)
            conversation_id = opened.conversation_id
            key = bot.service_url(conversation_id).rpartition("/b/")[2]
            keys.add(key)
            async with client.stream(opened.stream_url) as stream:
                answers = [
                    opened,
                    await client.send(conversation_id, {**MESSAGE, "from": {"id": "u"}, "serviceUrl": "x"}),
                    await client.reconnect(conversation_id),
                ]
                await bot.send(conversation_id, {**MESSAGE, "serviceUrl": bot.service_url(conversation_id)})
                await stream.until(lambda stream: len(stream.activities) == 2)
                answers.append(await client.activities(conversation_id))
                seen = [answer.body.decode() + str(answer.headers) for answer in answers] + [str(stream.frames)]
            assert not any(key in text for text in seen)
    assert len(keys) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{27,}", key) for key in keys), "27 characters of base64 are 162 bits"


@pytest.mark.bot_item(94)
async def test_no_credential_of_any_kind_is_ever_logged(tmp_path: Path) -> None:
    """At the most talkative level, in good times and in bad: bots that refuse, break, or print what they were sent."""
    known: set[str] = {SECRET, CODE}
    async with (
        ScriptedBot() as bot,
        Landline(
            tmp_path / "data", bot=f"{bot.endpoint}?code={CODE}&v=2", drain_s=0, bot_timeout_s=2, log_level="debug"
        ) as landline,
    ):
        async with DirectLine(landline.directline, SECRET) as client:
            generated = await client.generate(user={"id": "dl_ann"})
            ann = client.using(generated.token)
            opened = await started(ann, bot)
            conversation_id = opened.conversation_id
            again = await ann.reconnect(conversation_id)
            refreshed = await ann.refresh()
            known |= {answer.token for answer in (generated, opened, again, refreshed)}
            known |= {parameter(answer.stream_url, "t") or "" for answer in (opened, again)}
            known.add(bot.service_url(conversation_id).rpartition("/b/")[2])
            async with client.stream(opened.stream_url) as stream:
                await say(bot, conversation_id, "hi")
                await stream.until_text("hi")
            # A bot that prints what it was sent, one that breaks off, one that is not there.
            bot.on_activity = _print_all
            assert (await ann.send(conversation_id, "refused")).status == 502
            bot.on_activity = None
            bot.break_connections()
            assert (await ann.send(conversation_id, "broken")).status == 502
            await bot.refuse()
            assert (await ann.send(conversation_id, "nobody there")).status == 502
            await bot.accept()
            bot.answer()
            # Credentials where they do not belong, and paths that lead nowhere.
            for path in (f"/conversations/{conversation_id}/stream?t={opened.token}", f"/x/{opened.token}?t={SECRET}"):
                await client.using(None).request("GET", path)
            await client.handshake(opened.stream_url.replace(conversation_id, "another-conversation"))
            await client.handshake(f"{opened.stream_url}&watermark={again.token}")
            url = f"{bot.service_url(conversation_id)}/v3/nothing/{SECRET}?secret={SECRET}"
            await bot.request("GET", url, headers={"Authorization": f"Bearer {opened.token}"})
            bearer = f"Authorization: Bearer {SECRET}"
            await _raw(landline, f"GET /v3/directline/{SECRET} HTTP/1.1\r\n{bearer}\r\nHost x\r\n\r\n")
            await _raw(landline, f"{SECRET} {opened.token}\r\n\r\n")
        await landline.restart()
    assert "" not in known
    assert len(known) == 9, "a secret, four tokens, two tickets, a service key, the code in the bot's endpoint"
    log = landline.log
    assert "nobody there" not in log, "nor is what people say"
    assert log.count("\n") > 20
    found = [each[:6] for each in known if each in log or each[:-4] in log]
    assert not found, f"beginnings of what was logged: {found}"


async def _print_all(bot: ScriptedBot, activity: Activity) -> web.Response:
    said = {"error": "cannot handle", "path": bot.received[-1].path, "code": CODE, "activity": activity}
    return web.json_response(said, status=500)


async def _raw(landline: Landline, request: str) -> None:
    """Send bytes that are no good request, and read what comes until the server hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
    writer.write(request.encode())
    async with asyncio.timeout(5):
        assert b" 400 " in await reader.read()
    writer.close()
