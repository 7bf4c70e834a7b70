"""Sending an activity (spec 5.5, 6.1, 8.1, 8.6): what becomes of it, who sees it when, and what a bot's
failure costs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio

from landline.config import Settings
from landline.conformance.directline import Activity, DirectLine, dumps
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.streams import hang_up, has_entries, log_of, no_file_beyond, numbers, say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT = 262_144
"""The largest body of an activity (spec 10)."""
BOT_TIMEOUT_S = 1.0

RICH = {
    "type": "message",
    "from": {"id": "user", "name": "Ann", "x-nickname": "A"},
    "text": "hello",
    "textFormat": "plain",
    "locale": "de-DE",
    "localTimestamp": "2026-01-05T11:00:00.000+01:00",
    "localTimezone": "Europe/Berlin",
    "attachments": [{"contentType": "text/plain", "content": "x", "name": "x.txt"}],
    "entities": [{"type": "ClientCapabilities", "requiresBotState": True, "unknown": {"deep": [1, None]}}],
    "suggestedActions": {"actions": [{"type": "imBack", "title": "yes", "value": "yes"}]},
    "value": {"a": None, "b": [], "c": "\u2028"},
    "channelData": {"clientActivityID": "c1", "emoji": "\U0001f600", "deep": {"list": [1, "2", {}]}},
    "x-unknown": {"kept": True},
    "importance": None,
}
OURS = ("id", "timestamp", "channelId", "conversation", "from")


@pytest_asyncio.fixture(loop_scope="module")
async def ann(client: DirectLine) -> AsyncIterator[DirectLine]:
    """A client whose token is bound to the user `ann`."""
    yield client.using((await client.generate(user={"id": "ann", "name": "Ann"})).token)


@pytest_asyncio.fixture(loop_scope="module")
async def anybody(client: DirectLine) -> AsyncIterator[DirectLine]:
    """A client whose token is bound to nobody."""
    yield client.using((await client.generate()).token)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server in front of the same bot that waits no longer than `BOT_TIMEOUT_S` for it."""
    data = tmp_path_factory.mktemp("impatient") / "data"
    async with Landline(data, bot=lasting_bot.endpoint, drain_s=0, bot_timeout_s=BOT_TIMEOUT_S) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def hurried(impatient: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client of `impatient`, with the secret."""
    async with DirectLine(impatient.directline, SECRET) as client:
        yield client


async def only_echo(client: DirectLine, conversation_id: str) -> Activity:
    """What clients see of the one activity that was sent: the same on a stream as in Get Activities."""
    (activity,) = await client.all_activities(conversation_id)
    async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
        assert await stream.next_activity() == activity
    return activity


class TestTheAnswer:
    @pytest.mark.item(73, 74)
    async def test_names_the_activity_by_the_first_number_of_the_conversation(
        self, client: DirectLine, conversation_id: str
    ) -> None:
        """What clients never see, the join of the start and of the sender, has taken no number."""
        answer = await client.send(conversation_id, "hello")
        assert (answer.status, answer.json) == (200, {"id": f"{conversation_id}|0000000"})
        assert (await client.send(conversation_id, "again")).json == {"id": f"{conversation_id}|0000001"}

    async def test_typing_takes_no_number(self, client: DirectLine, conversation_id: str) -> None:
        typing = await client.send(conversation_id, {"type": "typing", "from": {"id": "user"}})
        assert re.fullmatch(re.escape(conversation_id) + r"\|t[A-Za-z0-9]+", typing.json["id"])
        assert (await client.send(conversation_id, "hello")).json == {"id": f"{conversation_id}|0000000"}

    @pytest.mark.item(96)
    async def test_is_the_same_whatever_the_bot_says_in_its_202(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        bot.answer(202, {"type": "message", "text": "not for the client", "id": "x"})
        answer = await client.send(conversation_id, "hello")
        assert (answer.status, answer.json) == (200, {"id": f"{conversation_id}|0000000"})
        assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hello"]


class TestTheEcho:
    @pytest.mark.item(75)
    async def test_has_our_values_where_the_client_set_what_is_not_its_to_set(
        self, client: DirectLine, conversation_id: str
    ) -> None:
        foreign = {
            "id": "mine",
            "timestamp": "1999-01-01T00:00:00Z",
            "conversation": {"id": "elsewhere", "isGroup": True},
            "channelId": "webchat",
            "serviceUrl": "http://evil.example/",
            "callerId": "urn:evil",
            "recipient": {"id": "somebody"},
        }
        answer = await client.send(conversation_id, {"type": "message", "from": {"id": "user"}, **foreign})
        echo = await only_echo(client, conversation_id)
        assert echo["id"] == answer.json["id"]
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,}Z", echo["timestamp"])
        assert echo["conversation"] == {"id": conversation_id}
        assert echo["channelId"] == "directline"
        assert not echo.keys() & {"serviceUrl", "callerId", "recipient"}

    @pytest.mark.item(75)
    @pytest.mark.parametrize(
        "name", ["ID", "Timestamp", "ServiceUrl", "Recipient", "From", "Conversation", "ChannelId"]
    )
    async def test_has_them_however_the_client_spells_the_name(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, name: str
    ) -> None:
        """A bot on .NET reads names without regard to case: a `From` beside our `from` would speak as somebody else."""
        await client.send(conversation_id, {"type": "message", "from": {"id": "user"}, name: {"id": "mallory"}})
        assert name not in await only_echo(client, conversation_id)
        assert name not in bot.heard(conversation_id)[-1]

    @pytest.mark.item(76)
    async def test_keeps_everything_else_as_it_was_written(self, client: DirectLine, conversation_id: str) -> None:
        answer = await client.send(conversation_id, RICH)
        echo = await only_echo(client, conversation_id)
        assert echo["id"] == answer.json["id"]
        assert {name: echo[name] for name in RICH if name not in OURS} == {
            name: value for name, value in RICH.items() if name not in OURS
        }
        assert echo["from"] == RICH["from"]
        assert echo.keys() == RICH.keys() | set(OURS)

    @pytest.mark.item(76, 77)
    async def test_keeps_numbers_and_escapes_byte_for_byte(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """A number that no float holds, a trailing zero, an escape that need not be one: all of it is the sender's."""
        value = rb'{"big":12345678901234567890123,"money":1.50,"e":1E+2,"escaped":"\u00e9\/","twice":{"a":1,"a":2}}'
        body = b'{"type":"event","from":{"id":"user"},"channelData":' + value + b"}"
        answer = await client.request(
            "POST",
            f"/conversations/{conversation_id}/activities",
            data=body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status == 200, answer
        assert value in (await client.activities(conversation_id)).body
        assert value in next(each.body for each in reversed(bot.received) if each.conversation_id == conversation_id)

    @pytest.mark.item(77)
    async def test_is_what_the_bot_gets_under_the_same_id(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        answer = await client.send(conversation_id, RICH)
        (copy,) = (each for each in bot.heard(conversation_id) if each["type"] == "message")
        assert copy["id"] == answer.json["id"]
        for name in ("channelData", "entities", "value", "x-unknown", "localTimestamp"):
            assert copy[name] == RICH[name], name

    @pytest.mark.item(78)
    async def test_shows_neither_service_url_nor_recipient(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """The bot's copy has both; the key in the service URL would let any client speak as the bot."""
        await client.send(conversation_id, "hello")
        echo = await only_echo(client, conversation_id)
        copy = bot.heard(conversation_id)[-1]
        assert not echo.keys() & {"serviceUrl", "recipient"}
        assert copy.keys() >= {"serviceUrl", "recipient"}
        assert copy["serviceUrl"] not in json.dumps(echo)

    @pytest.mark.item(84)
    async def test_does_not_pass_a_client_off_as_the_bot(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await client.send(conversation_id, {"type": "message", "from": {"id": "user", "role": "bot"}})
        assert (await only_echo(client, conversation_id))["from"].get("role") != "bot"
        assert bot.heard(conversation_id)[-1]["from"]["role"] == "user"


class TestTheSender:
    @pytest.mark.item(79)
    async def test_is_the_token_s_user_whoever_the_client_says_it_is(self, ann: DirectLine, bot: ScriptedBot) -> None:
        conversation_id = (await started(ann, bot)).conversation_id
        answer = await ann.send(conversation_id, {"type": "message", "from": {"id": "bob", "name": "Bob"}})
        assert answer.status == 200
        assert (await only_echo(ann, conversation_id))["from"] == {"id": "ann", "name": "Ann"}
        assert bot.heard(conversation_id)[-1]["from"] == {"id": "ann", "name": "Ann", "role": "user"}

    @pytest.mark.item(80)
    async def test_is_filled_in_from_the_token(self, ann: DirectLine, bot: ScriptedBot) -> None:
        conversation_id = (await started(ann, bot)).conversation_id
        assert (await ann.send(conversation_id, {"type": "message", "text": "hello"})).status == 200
        assert (await only_echo(ann, conversation_id))["from"]["id"] == "ann"

    @pytest.mark.item(81)
    @pytest.mark.parametrize("nobody", [{}, {"from": None}, {"from": {}}, {"from": {"id": ""}}, {"from": {"id": None}}])
    async def test_is_missing(
        self, client: DirectLine, anybody: DirectLine, bot: ScriptedBot, nobody: Activity
    ) -> None:
        conversation_id = (await started(anybody, bot)).conversation_id
        for who in (client, anybody):
            answer = await who.send(conversation_id, {"type": "message", **nobody})
            assert answer.error == (400, "MissingProperty"), who.credential
        assert await client.all_activities(conversation_id) == []

    @pytest.mark.item(82, 83)
    @pytest.mark.parametrize(
        "sender", ["user", ["user"], 7, {"id": 7.5}, {"id": True}, {"id": ["user"]}, {"id": "bot"}]
    )
    async def test_is_of_a_wrong_type_or_the_bot(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, sender: object
    ) -> None:
        heard = len(bot.heard(conversation_id))
        answer = await client.send(conversation_id, {"type": "message", "from": sender})
        assert answer.error == (400, "BadArgument")
        assert await client.all_activities(conversation_id) == []
        assert len(bot.heard(conversation_id)) == heard

    @pytest.mark.item(98)
    async def test_claims_a_dl_id_only_by_its_token_or_with_the_secret(
        self, client: DirectLine, anybody: DirectLine, bot: ScriptedBot
    ) -> None:
        conversation_id = (await started(anybody, bot)).conversation_id
        claimed = {"type": "message", "from": {"id": "dl_x"}}
        assert (await anybody.send(conversation_id, claimed)).error == (400, "BadArgument")
        assert (await client.send(conversation_id, claimed)).status == 200
        assert (await only_echo(client, conversation_id))["from"]["id"] == "dl_x"


class TestWhatIsNoActivity:
    @pytest.mark.item(85)
    @pytest.mark.parametrize("activity", [{"text": "x"}, {"type": ""}, {"type": None}])
    async def test_has_no_type(self, client: DirectLine, conversation_id: str, activity: Activity) -> None:
        answer = await client.send(conversation_id, {"from": {"id": "user"}, **activity})
        assert answer.error == (400, "MissingProperty")
        assert await client.all_activities(conversation_id) == []

    @pytest.mark.item(86)
    @pytest.mark.parametrize(
        "body", [[{"type": "message", "from": {"id": "user"}}], "message", 7, {"type": 7, "from": {"id": "user"}}]
    )
    async def test_is_no_object_or_its_type_no_string(
        self, client: DirectLine, conversation_id: str, body: object
    ) -> None:
        answer = await client.request("POST", f"/conversations/{conversation_id}/activities", json=body)
        assert answer.error == (400, "BadArgument")
        assert await client.all_activities(conversation_id) == []

    @pytest.mark.item(88)
    async def test_is_a_contact_relation_update(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        answer = await client.send(conversation_id, {"type": "contactRelationUpdate", "from": {"id": "user"}})
        assert answer.error == (400, "BadArgument")
        assert [each["type"] for each in bot.heard(conversation_id)] == ["conversationUpdate"]

    @pytest.mark.item(90)
    async def test_is_one_byte_too_large(self, client: DirectLine, conversation_id: str) -> None:
        path = f"/conversations/{conversation_id}/activities"
        headers = {"Content-Type": "application/json"}
        exact = body_of(LIMIT)
        assert (await client.request("POST", path, data=exact, headers=headers)).status == 200
        refused = await client.request("POST", path, data=exact + b" ", headers=headers)
        assert refused.error == (413, "MessageSizeTooBig")
        undeclared = await client.request("POST", path, data=in_pieces(exact + b" "), headers=headers)
        assert undeclared.error == (413, "MessageSizeTooBig")
        assert len(await client.all_activities(conversation_id)) == 1


class TestTypes:
    @pytest.mark.item(87)
    async def test_an_unknown_one_goes_everywhere(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        answer = await client.send(conversation_id, {"type": "x.custom", "from": {"id": "user"}, "x": 1})
        assert answer.status == 200
        echo = await only_echo(client, conversation_id)
        assert (echo["type"], echo["x"]) == ("x.custom", 1)
        assert bot.heard(conversation_id)[-1]["type"] == "x.custom"

    @pytest.mark.item(89)
    async def test_a_conversation_update_reaches_the_bot_and_no_client(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        update = {"type": "conversationUpdate", "from": {"id": "user"}, "topicName": "mine"}
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
            answer = await client.send(conversation_id, update)
            assert answer.status == 200
            assert "|t" in answer.json["id"]
            assert bot.heard(conversation_id)[-1]["topicName"] == "mine"
            await client.send(conversation_id, "after it")
            await stream.until_text("after it")
            assert stream.texts == ["after it"]
        assert [each["type"] for each in await client.all_activities(conversation_id)] == ["message"]


class TestOrder:
    """8.1.3, 8.1.4 and D-32: recorded, echoed, then offered to the bot, in one order."""

    async def test_the_echo_is_there_before_the_bot_is_called(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """The bot looks in the middle of its turn, as soon as it hears of the message."""
        seen: list[list[Activity]] = []

        async def look(bot: ScriptedBot, activity: Activity) -> None:
            if activity["type"] == "message":
                seen.append(await client.all_activities(conversation_id))

        bot.on_activity = look
        answer = await client.send(conversation_id, "hello")
        assert [[each["id"] for each in log] for log in seen] == [[answer.json["id"]]]

    async def test_the_echo_does_not_wait_for_the_bot(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await client.send(conversation_id, "join first")
        bot.hang()
        async with client.stream((await client.reconnect(conversation_id)).stream_url) as stream:
            sending = asyncio.create_task(client.send(conversation_id, "hello"))
            echo = await stream.until_text("hello")
            assert not sending.done()
            bot.release()
            assert (await sending).json == {"id": echo["id"]}

    async def test_turns_overlap_and_begin_in_the_order_of_the_log(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """Every request has a connection of its own, so that the bot reads them in the order of their writing."""
        bot.answer(headers={"Connection": "close"})
        await client.send(conversation_id, "join first")
        bot.hang()
        sending = [asyncio.create_task(client.send(conversation_id, f"n {n}")) for n in range(30)]
        await bot.wait_for(lambda _: len(bot.heard(conversation_id)) == 33)
        assert not any(each.done() for each in sending)
        bot.release()
        assert {answer.status for answer in await asyncio.gather(*sending)} == {200}
        log = [each["id"] for each in await client.all_activities(conversation_id)]
        assert [each["id"] for each in bot.heard(conversation_id) if each["type"] == "message"] == log

    async def test_a_bot_that_comes_up_late_hears_everything_in_order(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """What is repeated until the bot listens holds the line for what was sent after it. As above, every request has
        a connection of its own: on two of them a bot may well read first what was written last."""
        bot.answer(headers={"Connection": "close"})
        await client.send(conversation_id, "join first")
        await bot.refuse()
        sending = []
        for n in range(5):
            sending.append(asyncio.create_task(client.send(conversation_id, f"n {n}")))
            await has_entries(client, conversation_id, n + 2)
        await bot.accept()
        assert {answer.status for answer in await asyncio.gather(*sending)} == {200}
        texts = [each["text"] for each in bot.heard(conversation_id) if each["type"] == "message"]
        assert texts == ["join first", "n 0", "n 1", "n 2", "n 3", "n 4"]

    async def test_a_join_is_answered_before_what_its_member_said(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        answered: list[str] = []

        async def slow_on_joins(bot: ScriptedBot, activity: Activity) -> None:
            if activity["type"] == "conversationUpdate":
                await asyncio.sleep(0.3)
            answered.append(activity.get("text") or activity["membersAdded"][0]["id"])

        bot.on_activity = slow_on_joins
        sending = [client.send(conversation_id, text) for text in ("one", "two")]
        assert {answer.status for answer in await asyncio.gather(*sending)} == {200}
        assert answered[0] == "user"
        assert sorted(answered[1:]) == ["one", "two"]

    async def test_a_slow_turn_delays_no_other_conversation(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        other = (await started(client, bot)).conversation_id
        moving = asyncio.Event()

        async def slow(bot: ScriptedBot, activity: Activity) -> None:
            if activity.get("text") == "slow":
                await moving.wait()

        bot.on_activity = slow
        sending = asyncio.create_task(client.send(conversation_id, "slow"))
        await bot.wait_for_text("slow")
        assert (await client.send(other, "quick")).status == 200
        assert not sending.done()
        moving.set()
        assert (await sending).status == 200


class TestABotThatFails:
    @pytest.mark.item(91)
    @pytest.mark.parametrize("status", [500, 401, 404, 302])
    async def test_rejecting_is_502_and_the_activity_stays(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
    ) -> None:
        await client.send(conversation_id, "join first")
        bot.answer(status, "a stack trace", headers={"Location": bot.endpoint})
        answer = await client.send(conversation_id, "hello")
        assert answer.error == (502, "BotRejectedActivity")
        assert b"stack trace" not in answer.body
        assert await texts_of(client, conversation_id) == ["join first", "hello"]
        assert [each.text for each in bot.messages if each.conversation_id == conversation_id] == [
            "join first",
            "hello",
        ]

    @pytest.mark.item(92, 94)
    async def test_refusing_connections_is_502_and_the_activity_stays(
        self, hurried: DirectLine, bot: ScriptedBot
    ) -> None:
        conversation_id = (await started(hurried, bot)).conversation_id
        await bot.refuse()
        await self._fails(hurried, conversation_id)
        await bot.accept()
        assert (await hurried.send(conversation_id, "and on")).status == 200
        texts = [each.get("text") for each in bot.heard(conversation_id) if each["type"] == "message"]
        assert texts == ["and on"], "what was answered 502 is not offered again"

    @pytest.mark.item(93, 94, 95)
    async def test_hanging_is_502_in_time_and_its_late_reply_is_delivered(
        self, hurried: DirectLine, bot: ScriptedBot
    ) -> None:
        conversation_id = (await started(hurried, bot)).conversation_id
        moving = asyncio.Event()

        async def slow(bot: ScriptedBot, activity: Activity) -> None:
            if activity["type"] == "message":
                await moving.wait()
                await say(bot, conversation_id, "sorry, I am late", replyToId=activity["id"])

        bot.on_activity = slow
        began = time.monotonic()
        sent = await self._fails(hurried, conversation_id)
        assert BOT_TIMEOUT_S * 0.9 <= time.monotonic() - began < 18
        async with hurried.stream((await hurried.reconnect(conversation_id)).stream_url) as stream:
            moving.set()
            reply = await stream.until_text("sorry, I am late")
        assert reply["replyToId"] == sent
        assert [each["id"] for each in await hurried.all_activities(conversation_id)] == [sent, reply["id"]]

    @pytest.mark.item(93)
    async def test_the_time_that_the_head_took_is_not_given_to_the_bot(
        self, impatient: Landline, hurried: DirectLine, bot: ScriptedBot
    ) -> None:
        """8.6: the deadline counts from the first byte of the request."""
        conversation_id = (await started(hurried, bot)).conversation_id
        bot.hang()
        body = b'{"type":"message","from":{"id":"u1"}}'
        head = (
            f"POST /v3/directline/conversations/{conversation_id}/activities HTTP/1.1\r\nHost: here\r\n"
            f"Authorization: Bearer {SECRET}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", impatient.port)
        with contextlib.closing(writer):
            began = time.monotonic()
            writer.write(head[:40].encode())
            await asyncio.sleep(BOT_TIMEOUT_S * 0.8)  # the client's time, which is what this is about
            writer.write(head[40:].encode() + body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 502 ")
            assert BOT_TIMEOUT_S * 0.9 <= time.monotonic() - began < BOT_TIMEOUT_S * 1.7

    @pytest.mark.item(92)
    async def test_breaking_the_connection_is_502_and_not_repeated(
        self, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        await client.send(conversation_id, "join first")
        bot.break_connections()
        assert (await client.send(conversation_id, "hello")).error == (502, "BotError")
        heard = [each.text for each in bot.messages if each.conversation_id == conversation_id]
        assert heard == ["join first", "hello"]

    @pytest.mark.item(93)
    async def test_the_time_it_has_is_15_s_unless_set_and_never_above_18_s(self, tmp_path: Path) -> None:
        """DirectLineJS gives up after 20 s. The same deadline at work is shown with a shorter one above."""
        assert Settings().bot_timeout_s == 15
        with pytest.raises(AssertionError, match="bot_timeout_s"):
            await Landline(tmp_path / "never-made", bot_timeout_s=18.1).start()

    @staticmethod
    async def _fails(client: DirectLine, conversation_id: str) -> str:
        """Send while the bot cannot answer: 502, one echo on the stream, one entry. The activity's id."""
        async with client.stream((await client.reconnect(conversation_id, "")).stream_url) as stream:
            assert (await client.send(conversation_id, "hello")).error == (502, "BotError")
            echo = await stream.until_text("hello")
            log = await client.all_activities(conversation_id)
            assert stream.activities == log == [echo]
        return str(echo["id"])


class TestAClientThatLeaves:
    @pytest.mark.item(97)
    @pytest.mark.parametrize("how", ["reset", "closed"])
    async def test_while_the_bot_works_has_sent_all_the_same(
        self, landline: Landline, client: DirectLine, bot: ScriptedBot, conversation_id: str, how: str
    ) -> None:
        await client.send(conversation_id, "join first")
        bot.hang()
        _, writer = await asyncio.open_connection("127.0.0.1", landline.port)
        writer.write(raw_send(conversation_id, "gone"))
        await bot.wait_for(lambda each: each.conversation_id == conversation_id and each.text == "gone")
        hang_up(writer, reset=how == "reset")
        bot.release()
        reply = await say(bot, conversation_id, "still here")
        log = await client.all_activities(conversation_id)
        assert [each["text"] for each in log] == ["join first", "gone", "still here"]
        assert log[-1]["id"] == reply

    @pytest.mark.item(97)
    async def test_before_the_bot_was_called_has_sent_all_the_same(
        self, landline: Landline, client: DirectLine, bot: ScriptedBot, conversation_id: str
    ) -> None:
        """The sender's join holds the line when it leaves: its message is recorded, and offered afterwards."""
        bot.hang()
        _, writer = await asyncio.open_connection("127.0.0.1", landline.port)
        writer.write(raw_send(conversation_id, "gone"))
        await has_entries(client, conversation_id, 1)
        hang_up(writer, reset=True)
        bot.release()
        await bot.wait_for(lambda each: each.conversation_id == conversation_id and each.text == "gone")

    @pytest.mark.item(97)
    @pytest.mark.parametrize("how", ["reset", "closed"])
    async def test_at_once_has_sent_all_the_same(
        self, landline: Landline, client: DirectLine, bot: ScriptedBot, conversation_id: str, how: str
    ) -> None:
        """As a page does that sends its last word while it is being closed."""
        for n in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", landline.port)
            writer.write(raw_send(conversation_id, f"n {n}"))
            hang_up(writer, reset=how == "reset")
        await has_entries(client, conversation_id, 20)
        await bot.wait_for(lambda _: sum(each["type"] == "message" for each in bot.heard(conversation_id)) == 20)


class TestAStoreThatCannotWrite:
    LARGE: ClassVar = {"type": "message", "from": {"id": "user"}, "text": "x" * 250_000}

    @pytest.mark.item(101)
    async def test_answers_503_and_calls_no_bot_and_recovers(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """A real error of the operating system: no file may grow beyond a limit that the body exceeds."""
        async with (
            Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, bot_timeout_s=BOT_TIMEOUT_S) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            conversation_id = (await started(client, bot)).conversation_id
            await client.send(conversation_id, "before")
            with no_file_beyond(landline.pid, len(landline.log) + 65_536):
                await self._fails(client, bot, conversation_id)
            await self._has_recovered(landline, client, conversation_id)

    @pytest.mark.item(101)
    async def test_waits_for_room_until_the_deadline(self, tmp_path: Path, bot: ScriptedBot) -> None:
        """A file system of 4 MiB, full. Room that is made in time turns the trouble into a delay, for bots as well."""
        with small_disk(tmp_path / "disk") as disk:
            async with (
                Landline(disk / "data", bot=bot.endpoint, drain_s=0, bot_timeout_s=BOT_TIMEOUT_S) as landline,
                DirectLine(landline.directline, SECRET) as client,
            ):
                conversation_id = (await started(client, bot)).conversation_id
                await client.send(conversation_id, "before")
                fill(disk)
                began = time.monotonic()
                await self._fails(client, bot, conversation_id)
                assert BOT_TIMEOUT_S * 0.9 < time.monotonic() - began < BOT_TIMEOUT_S + 3
                waiting = [
                    asyncio.create_task(client.send(conversation_id, self.LARGE)),
                    asyncio.create_task(say(bot, conversation_id, "x" * 250_000)),
                ]
                assert not (await asyncio.wait(waiting, timeout=BOT_TIMEOUT_S / 2))[0], "both wait"
                make_room(disk)
                assert (await waiting[0]).status == 200
                await waiting[1]
                assert len(await client.all_activities(conversation_id)) == 3
                await landline.restart(kill=True)
                assert len(await client.all_activities(conversation_id)) == 3

    async def _fails(self, client: DirectLine, bot: ScriptedBot, conversation_id: str) -> None:
        heard = len(bot.heard(conversation_id))
        answer = await client.send(conversation_id, self.LARGE)
        assert answer.error == (503, "ServiceError")
        assert int(answer.headers["Retry-After"]) >= 1
        assert await texts_of(client, conversation_id) == ["before"], "reading goes on"
        assert len(bot.heard(conversation_id)) == heard

    async def _has_recovered(self, landline: Landline, client: DirectLine, conversation_id: str) -> None:
        assert (await client.send(conversation_id, self.LARGE)).status == 200
        log = await client.all_activities(conversation_id)
        assert numbers(conversation_id, [each["id"] for each in log]) == [0, 1]
        await landline.restart(kill=True)
        assert await log_of(landline, conversation_id) == log


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own. Skips the test where nobody may mount one."""
    path.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    if mount is None or unmount is None:
        pytest.skip("no mount here")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "none", path], capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield path
    finally:
        subprocess.run([unmount, "-l", path], check=True)


def fill(disk: Path) -> None:
    """Leave not a block of it."""
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(bytes(4096)):
            pass


def make_room(disk: Path) -> None:
    """Take away what `fill` put there."""
    (disk / "ballast").unlink()


def body_of(size: int) -> bytes:
    """An activity of exactly that many bytes."""
    around = len(dumps({"type": "message", "from": {"id": "user"}, "text": ""}))
    return dumps({"type": "message", "from": {"id": "user"}, "text": "x" * (size - around)})


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    """The body without a declared length."""
    for begin in range(0, len(body), 65_536):
        yield body[begin : begin + 65_536]


async def texts_of(client: DirectLine, conversation_id: str) -> list[str]:
    """The texts in the log."""
    return [each["text"] for each in await client.all_activities(conversation_id)]


def raw_send(conversation_id: str, text: str) -> bytes:
    """A whole request: what a page writes before it is closed."""
    body = dumps({"type": "message", "from": {"id": "user"}, "text": text})
    return (
        f"POST /v3/directline/conversations/{conversation_id}/activities HTTP/1.1\r\nHost: here\r\n"
        f"Authorization: Bearer {SECRET}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
