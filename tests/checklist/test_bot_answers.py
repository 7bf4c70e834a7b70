"""What a bot says in its HTTP answer: to an invoke, and instead of calling back (bot 2.5, 2.6; items 25 to 32)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from landline.conformance.directline import Activity, Answer, DirectLine
from landline.conformance.scripted_bot import Received, ScriptedBot
from support.landline import SECRET, Landline

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOT_TIMEOUT_S = 1.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expecting(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server whose bot cannot call out, that takes one turn at a time, and shows what bots answer to failures."""
    data = tmp_path_factory.mktemp("expecting") / "data"
    settings = {"bot_delivery": "expectReplies", "bot_turns": "serial", "inner_http_error": True}
    async with Landline(data, bot=lasting_bot.endpoint, drain_s=0, **settings) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def asking(expecting: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of `expecting`, with the secret."""
    async with DirectLine(expecting.directline, SECRET) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def streaming(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server that asks for streams, and whose requests end after `BOT_TIMEOUT_S`."""
    data = tmp_path_factory.mktemp("streaming") / "data"
    settings = {"bot_delivery": "stream", "bot_timeout_s": BOT_TIMEOUT_S}
    async with Landline(data, bot=lasting_bot.endpoint, drain_s=0, **settings) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def hearing(streaming: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of `streaming`, with the secret."""
    async with DirectLine(streaming.directline, SECRET) as client:
        yield client


def invoke(name: str = "ping", **more: object) -> Activity:
    return {"type": "invoke", "name": name, "from": {"id": "user"}, **more}


def replies(*said: Activity) -> dict[str, object]:
    return {"activities": list(said)}


def frame(activity: Activity, end: str = "\r\n", event: str = "activity") -> bytes:
    return f"event: {event}{end}data: {json.dumps(activity)}{end}{end}".encode()


async def greeted(client: DirectLine, bot: ScriptedBot) -> Answer:
    """A new conversation in which the join of `user` is over: what the bot answers from now on answers no join."""
    opened = await client.start(user={"id": "user"})
    await bot.wait_for(lambda each: each.conversation_id == opened.conversation_id and each.answered is not None)
    return opened


def turns(bot: ScriptedBot, conversation_id: str) -> list[Received]:
    """What the bot got in this conversation, besides joins."""
    return [e for e in bot.received if e.conversation_id == conversation_id and e.type != "conversationUpdate"]


# Invoke


@pytest.mark.item(99)
@pytest.mark.bot_item(25, 27)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_an_invoke_that_the_bot_takes_is_taken_and_its_answer_stays_between_bot_and_channel(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    bot.answer(status, {"activities": [{"type": "message", "text": "not a reply"}]} if status != 204 else b"")
    answer = await client.send(conversation_id, invoke(value={"a": 1}))
    assert answer.status == 200, answer
    (logged,) = await client.all_activities(conversation_id)
    assert (logged["id"], logged["type"], logged["value"]) == (answer.json["id"], "invoke", {"a": 1})
    assert len(turns(bot, conversation_id)) == 1


@pytest.mark.item(99)
@pytest.mark.bot_item(25, 27)
@pytest.mark.parametrize("status", [400, 401, 404, 412, 418, 429, 500, 501, 503])
async def test_an_invoke_that_the_bot_refuses_is_a_502_and_is_not_repeated(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    bot.answer(status, {"reason": "no"}, headers={"Retry-After": "0"})
    answer = await client.send(conversation_id, invoke())
    assert answer.error == (502, "BotRejectedActivity")
    assert "innerHttpError" not in answer.json["error"]
    assert len(turns(bot, conversation_id)) == 1
    assert [each["type"] for each in await client.all_activities(conversation_id)] == ["invoke"]


@pytest.mark.bot_item(25)
@pytest.mark.parametrize(
    ("body", "shown"), [({"reason": "teapot"}, {"reason": "teapot"}), (b"null", None), (b"", None), (b"<p>", "<p>")]
)
async def test_what_the_bot_answered_to_a_refused_invoke_is_shown_where_that_is_switched_on(
    asking: DirectLine, bot: ScriptedBot, body: Activity | bytes, shown: object
) -> None:
    conversation_id = (await greeted(asking, bot)).conversation_id
    bot.answer(418, body)
    answer = await asking.send(conversation_id, invoke())
    assert answer.error == (502, "BotRejectedActivity")
    assert answer.json["error"]["innerHttpError"] == {"statusCode": 418, "body": shown}


@pytest.mark.bot_item(26)
@pytest.mark.parametrize("body", [b"", b"null", b'{"pong":1}', b"not json"])
async def test_an_invoke_may_be_answered_with_anything_or_nothing(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, body: bytes
) -> None:
    bot.answer(200, body)
    assert (await client.send(conversation_id, invoke())).status == 200


@pytest.mark.bot_item(27)
async def test_an_invoke_whose_connection_breaks_is_not_repeated(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    bot.break_connections()
    assert (await client.send(conversation_id, invoke())).error == (502, "BotError")
    assert len(turns(bot, conversation_id)) == 1


@pytest.mark.item(100)
@pytest.mark.parametrize("name", ["signin/tokenExchange", "signin/verifyState", "SignIn/Other"])
async def test_a_credential_in_an_invoke_reaches_the_bot_and_nobody_else(
    client: DirectLine, bot: ScriptedBot, name: str
) -> None:
    opened = await greeted(client, bot)
    async with client.stream(opened.stream_url) as stream:
        answer = await client.send(opened.conversation_id, invoke(name, value={"token": "t0ken"}))
        assert answer.status == 200
        seen = await stream.next_activity()
    (at_bot,) = turns(bot, opened.conversation_id)
    assert at_bot.activity["value"] == {"token": "t0ken"}
    (logged,) = await client.all_activities(opened.conversation_id)
    assert seen == logged
    assert (logged["id"], logged["name"]) == (answer.json["id"], name)
    assert "t0ken" not in json.dumps(logged)


# Delivery modes


@pytest.mark.item(174)
@pytest.mark.bot_item(32)
async def test_a_client_cannot_choose_how_the_bot_replies(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    answer = await client.send(
        conversation_id, {"type": "message", "from": {"id": "user"}, "text": "hi", "deliveryMode": "stream"}
    )
    assert answer.status == 200
    (at_bot,) = turns(bot, conversation_id)
    assert "deliveryMode" not in at_bot.activity
    (logged,) = await client.all_activities(conversation_id)
    assert logged["deliveryMode"] == "stream"


async def test_the_bot_is_told_how_to_reply_except_to_an_invoke(asking: DirectLine, bot: ScriptedBot) -> None:
    conversation_id = (await greeted(asking, bot)).conversation_id
    for each in (
        {"type": "message", "from": {"id": "user"}, "text": "hi", "deliveryMode": "normal"},
        {"type": "event", "from": {"id": "user"}, "name": "n"},
        invoke(deliveryMode="expectReplies"),
    ):
        assert (await asking.send(conversation_id, each)).status == 200
    told = [(e.type, e.activity.get("deliveryMode")) for e in bot.received if e.conversation_id == conversation_id]
    assert told == [
        ("conversationUpdate", "expectReplies"),
        ("message", "expectReplies"),
        ("event", "expectReplies"),
        ("invoke", None),
    ]


@pytest.mark.bot_item(28)
async def test_expected_replies_are_stored_in_their_order_before_the_sender_is_answered(
    asking: DirectLine, bot: ScriptedBot
) -> None:
    opened = await greeted(asking, bot)
    texts = [f"reply {number}" for number in range(50)]
    bot.answer(200, replies(*({"type": "message", "id": "same", "text": text} for text in texts)))
    async with asking.stream(opened.stream_url) as stream:
        assert (await asking.send(opened.conversation_id, "hi")).status == 200
        logged = await asking.all_activities(opened.conversation_id)
        await stream.until_text(texts[-1])
    assert [each["text"] for each in logged[1:]] == texts
    assert stream.activities == logged
    assert len({each["id"] for each in logged}) == len(logged)
    assert {(each["from"]["id"], each["from"]["role"]) for each in logged[1:]} == {("bot", "bot")}


@pytest.mark.bot_item(29, 30)
async def test_what_sdks_leave_in_synchronous_replies_is_tolerated(asking: DirectLine, bot: ScriptedBot) -> None:
    """`id:null` as AG-py has it, `_channelId` as AG-js has it, traces, and what is no activity at all."""
    conversation_id = (await greeted(asking, bot)).conversation_id
    said: list[object] = [
        {"type": "message", "id": None, "text": "one", "channelId": None},
        {"type": "trace", "text": "hidden", "name": "state"},
        {"type": "message", "_channelId": "directline", "_private": {"a": 1}, "text": "two", "x_y": 3},
        {"text": "no type"},
        7,
        {"type": "typing"},
        {"type": "x.custom", "text": "three", "channelData": {"_kept": True}},
    ]
    bot.answer(200, {"activities": said})
    assert (await asking.send(conversation_id, "hi")).status == 200
    _, one, two, three = await asking.all_activities(conversation_id)
    assert (one["text"], two["text"], three["text"]) == ("one", "two", "three")
    assert not [name for name in two if name.startswith("_")]
    assert (two["x_y"], three["channelData"]) == (3, {"_kept": True})
    assert {each["channelId"] for each in (one, two, three)} == {"directline"}


async def test_a_greeting_comes_with_the_answer_to_the_join(asking: DirectLine, bot: ScriptedBot) -> None:
    bot.answer(200, replies({"type": "message", "text": "welcome", "replyToId": "x|tu1"}))
    opened = await asking.start(user={"id": "user"})
    async with asking.stream(opened.stream_url) as stream:
        await stream.until_text("welcome")


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"[]", b"OK", b'{"activities":null}', b'{"activities":{}}'])
async def test_an_answer_without_replies_is_an_answer(asking: DirectLine, bot: ScriptedBot, body: bytes) -> None:
    conversation_id = (await greeted(asking, bot)).conversation_id
    bot.answer(200, body)
    assert (await asking.send(conversation_id, "hi")).status == 200
    assert [each["text"] for each in await asking.all_activities(conversation_id)] == ["hi"]


async def test_replies_that_did_not_come_whole_are_not_passed_off_as_an_answer(
    asking: DirectLine, bot: ScriptedBot
) -> None:
    conversation_id = (await greeted(asking, bot)).conversation_id

    async def half() -> AsyncIterator[bytes]:
        yield b'{"activities":[{"type":"message","text":"whole"},'
        raise ConnectionError

    bot.speak(half, content_type="application/json")
    assert (await asking.send(conversation_id, "hi")).error == (502, "BotError")
    assert [each["text"] for each in await asking.all_activities(conversation_id)] == ["hi"]


@pytest.mark.bot_item(15)
async def test_activities_in_an_answer_that_nobody_asked_for_are_not_replies(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    bot.answer(200, replies({"type": "message", "text": "unasked"}))
    assert (await client.send(conversation_id, "hi")).status == 200
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hi"]


# Event streams


@pytest.mark.bot_item(31)
@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=["CRLF", "LF"])
async def test_what_a_bot_streams_is_delivered_frame_by_frame_whatever_was_asked(
    client: DirectLine, bot: ScriptedBot, end: str
) -> None:
    opened = await greeted(client, bot)
    async with client.stream(opened.stream_url) as stream:

        async def frames() -> AsyncIterator[bytes]:
            yield frame({"type": "typing", "text": "o"}, end)
            await stream.until_text("o")
            whole = frame({"type": "message", "text": "one", "_channelId": "x", "id": None}, end)
            yield whole[:20]
            yield whole[20:]
            await stream.until_text("one")
            yield frame({"type": "trace", "text": "hidden"}, end) + frame({"type": "message", "text": "two"}, end)

        bot.speak(frames, content_type="text/event-stream; charset=utf-8")
        assert (await client.send(opened.conversation_id, "hi")).status == 200
        await stream.until_text("two")
        assert stream.texts == ["hi", "o", "one", "two"]
    logged = await client.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == ["hi", "one", "two"]
    assert "_channelId" not in logged[1]


async def test_a_bot_that_speaks_longer_than_a_request_lasts_is_heard_to_the_end(
    hearing: DirectLine, bot: ScriptedBot
) -> None:
    """The sender is answered at the deadline, and turns of other conversations find their slots."""
    opened = await greeted(hearing, bot)
    answered = asyncio.Event()

    async def frames() -> AsyncIterator[bytes]:
        yield frame({"type": "message", "text": "early"})
        await answered.wait()
        yield frame({"type": "message", "text": "late"})

    bot.speak(frames)
    async with hearing.stream(opened.stream_url) as stream:
        assert (await hearing.send(opened.conversation_id, "hi")).status == 200
        assert stream.texts == ["hi", "early"]
        answered.set()
        await stream.until_text("late")


async def test_a_stream_that_breaks_off_keeps_what_was_said(hearing: DirectLine, bot: ScriptedBot) -> None:
    conversation_id = (await greeted(hearing, bot)).conversation_id

    async def frames() -> AsyncIterator[bytes]:
        yield frame({"type": "message", "text": "whole"})
        yield b'event: activity\r\ndata: {"type":"message","te'
        raise ConnectionError

    bot.speak(frames)
    assert (await hearing.send(conversation_id, "hi")).status == 200
    assert [each["text"] for each in await hearing.all_activities(conversation_id)] == ["hi", "whole"]


@pytest.mark.bot_item(25, 26, 31)
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"status": 200, "body": {"pong": 1}}, 200),
        ({"status": 200}, 200),
        ({"status": 200, "body": None}, 200),
        ({"status": 418, "body": {"reason": "teapot"}}, 502),
        ({"status": "odd"}, 502),
    ],
)
async def test_an_invoke_may_be_answered_inside_a_stream(
    hearing: DirectLine, bot: ScriptedBot, answer: Activity, expected: int
) -> None:
    conversation_id = (await greeted(hearing, bot)).conversation_id

    async def frames() -> AsyncIterator[bytes]:
        yield frame({"type": "message", "text": "by the way"})
        yield frame(answer, event="invokeResponse")

    bot.speak(frames)
    assert (await hearing.send(conversation_id, invoke())).status == expected
    logged = await hearing.all_activities(conversation_id)
    assert [each["type"] for each in logged] == ["invoke", "message"]


# One turn at a time


@pytest.mark.bot_item(11)
async def test_a_serial_bot_is_never_asked_twice_at_a_time_in_one_conversation(
    asking: DirectLine, bot: ScriptedBot
) -> None:
    conversation_id, other = [(await greeted(asking, bot)).conversation_id for _ in range(2)]
    await asking.send(conversation_id, "first of all")
    under_way: list[str] = []
    overlapped = []
    go_on = asyncio.Event()

    async def think(_: ScriptedBot, activity: Activity) -> web.Response | None:
        if activity["conversation"]["id"] != conversation_id or activity["type"] != "message":
            return None
        under_way.append(activity["text"])
        overlapped.append(len(under_way))
        if activity["text"] == "0":
            await go_on.wait()
        await asyncio.sleep(0)
        under_way.remove(activity["text"])
        return None

    bot.on_activity = think
    sends = []
    for number in range(6):
        sends.append(asyncio.create_task(asking.send(conversation_id, str(number))))
        await asyncio.sleep(0)
    assert (await asking.send(other, "elsewhere")).status == 200, "other conversations do not wait"
    await bot.wait_for_text("0")
    assert [each.text for each in turns(bot, conversation_id)][1:] == ["0"]
    go_on.set()
    assert {answer.status for answer in await asyncio.gather(*sends)} == {200}
    logged = [each["text"] for each in await asking.all_activities(conversation_id)]
    assert [each.text for each in turns(bot, conversation_id)] == logged
    assert overlapped == [1] * 6
