"""What reaches a bot, how often, in which order, and what the client is told of it (bot 2; section 8, 1 to 32).

What a bot says in its answer is in `test_bot_answers.py` (25 to 31), uploads (13) are in `test_uploads.py`, tokens and
so the repetition after a 401 (20) in `test_bot_trust.py`.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web

from landline.conformance.directline import Activity, DirectLine
from landline.conformance.scripted_bot import Received, ScriptedBot
from support.landline import SECRET, Landline, free_port
from support.raw_bot import certificate
from support.streams import has_entries, say, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

BOT_TIMEOUT_S = 1.0
ALWAYS = ("type", "id", "timestamp", "channelId", "serviceUrl", "from", "recipient", "conversation")
KINDS = ("message", "event", "typing", "messageReaction", "endOfConversation", "x.custom")


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


def heard(bot: ScriptedBot, conversation_id: str) -> list[Received]:
    """The requests of one conversation."""
    return [each for each in bot.received if each.conversation_id == conversation_id]


async def delivered(client: DirectLine, bot: ScriptedBot, conversation_id: str, activity: Activity) -> Activity:
    """What the bot gets of `activity`."""
    answer = await client.send(conversation_id, {"from": {"id": "user"}, **activity})
    assert answer.status == 200, answer
    return (await bot.wait_for(lambda each: each.activity.get("id") == answer.json["id"])).activity


# One request


@pytest.mark.bot_item(1)
async def test_a_bot_gets_one_json_activity_per_post(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    await client.send(conversation_id, "hello")
    for each in heard(bot, conversation_id):
        assert (each.method, each.path) == ("POST", "/api/messages")
        assert each.headers.getall("Content-Type") == ["application/json; charset=utf-8"]
        assert each.activity, "one JSON object, and nothing else"


@pytest.mark.bot_item(2)
async def test_no_activity_lacks_a_member_that_sdks_cannot_do_without(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    for kind in (*KINDS, "invoke", "conversationUpdate"):
        await client.send(conversation_id, {"type": kind, "name": "x", "from": {"id": f"user of {kind}"}})
    seen = heard(bot, conversation_id)
    assert {each.type for each in seen} == {*KINDS, "invoke", "conversationUpdate"}
    for each in seen:
        assert all(each.activity.get(name) for name in ALWAYS), each.activity
        assert all(each.activity[name]["id"] for name in ("from", "recipient", "conversation")), each.activity
        assert each.activity["channelId"] == "directline"
        assert each.activity["recipient"] == {"id": "bot", "name": "Bot", "role": "bot"}
    ids = [each.activity["id"] for each in seen]
    assert len(set(ids)) == len(ids)


@pytest.mark.bot_item(3)
async def test_the_timestamp_is_ours_and_utc_and_the_local_one_is_the_clients(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    local = {"localTimestamp": "2026-01-05T11:00:00.000+01:00", "localTimezone": "Europe/Berlin"}
    said = {"type": "message", "text": "hi", "timestamp": "1999-01-01T00:00:00Z", **local}
    before = datetime.datetime.now(datetime.UTC)
    at_bot = await delivered(client, bot, conversation_id, said)
    assert at_bot["timestamp"].endswith("Z")
    stamped = datetime.datetime.fromisoformat(at_bot["timestamp"])
    assert abs((stamped - before).total_seconds()) < 10
    assert {name: at_bot[name] for name in local} == local


@pytest.mark.bot_item(4, 32)
@pytest.mark.parametrize("spelled", [str, str.lower, str.upper, str.title])
async def test_what_only_the_channel_may_say_cannot_be_said_by_a_client(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, spelled: object
) -> None:
    """Some SDKs read names without regard to case."""
    assert callable(spelled)
    forged = {
        spelled(name): "forged"
        for name in ("serviceUrl", "id", "callerId", "deliveryMode", "channelId", "recipient", "conversation")
    }
    at_bot = await delivered(client, bot, conversation_id, {"type": "message", "text": "hi", **forged})
    assert "forged" not in at_bot.values()
    assert not {"callerid", "deliverymode"} & {name.lower() for name in at_bot}
    plain = await delivered(client, bot, conversation_id, {"type": "message", "text": "hi"})
    assert "deliveryMode" not in plain


@pytest.mark.bot_item(5)
async def test_the_service_url_of_a_bot_is_the_same_in_every_conversation_and_after_a_restart(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Bots keep it for years, and some compare it to the letter."""
    seen: set[str] = set()
    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline:
        for kill in (False, True):
            async with DirectLine(landline.directline, SECRET) as client:
                for user in ("u1", "u2"):
                    opened = await started(client, bot, user={"id": user})
                    await client.send(opened.conversation_id, "hi")
                    seen.update(each.activity["serviceUrl"] for each in heard(bot, opened.conversation_id))
            await landline.restart(kill=kill)
        base = landline.url
    (service_url,) = seen
    assert service_url.startswith(f"{base}/b/")
    assert service_url.endswith("/")
    assert not service_url.endswith("//")


@pytest.mark.bot_item(6)
async def test_the_user_speaks_to_the_bot_and_not_the_other_way_round(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    said = {"type": "message", "text": "hi", "from": {"id": "u1", "name": "Ann", "role": "bot"}}
    at_bot = await delivered(client, bot, conversation_id, said)
    assert at_bot["from"] == {"id": "u1", "name": "Ann", "role": "user"}
    assert at_bot["recipient"]["role"] == "bot"
    for each in heard(bot, conversation_id):
        assert (each.activity["from"]["role"], each.activity["recipient"]["role"]) == ("user", "bot")


@pytest.mark.bot_item(7)
async def test_what_is_not_ours_to_set_arrives_as_it_was_written(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    theirs = {
        "text": "Grüße \U0001f600",
        "channelData": {"clientActivityID": "c1", "deep": {"list": [1.50, None, "2", {}]}, "big": 2**53 + 1},
        "entities": [{"type": "streaminfo", "unknown": {"x": [None]}}],
        "value": {"a": None, "b": []},
        "x-unknown": {"kept": True},
        "importance": None,
    }
    at_bot = await delivered(client, bot, conversation_id, {"type": "message", **theirs})
    assert {name: at_bot.get(name, "absent") for name in theirs} == theirs


# Joins, and the order of things


@pytest.mark.bot_item(8)
async def test_a_start_announces_each_member_once(client: DirectLine, bot: ScriptedBot) -> None:
    ann = client.using((await client.generate(user={"id": "dl_ann", "name": "Ann"})).token)
    opened = await started(ann, bot)
    for _ in range(3):
        assert (await ann.start()).status == 200
        assert (await ann.send(opened.conversation_id, "hi")).status == 200
    joins = [each.activity for each in heard(bot, opened.conversation_id) if each.type == "conversationUpdate"]
    assert [[member["id"] for member in join["membersAdded"]] for join in joins] == [["bot", "dl_ann"]]


@pytest.mark.bot_item(9)
async def test_a_bot_knows_who_is_there_before_they_speak(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Also when several speak at once."""
    sends = (client.send(conversation_id, _by(f"u{number % 4}")) for number in range(12))
    assert [answer.status for answer in await asyncio.gather(*sends)] == [200] * 12
    known: list[str] = []
    for each in heard(bot, conversation_id):
        if each.type == "conversationUpdate":
            known += [member["id"] for member in each.activity["membersAdded"]]
        else:
            assert each.activity["from"]["id"] in known, "somebody spoke who had not been announced"
    assert sorted(known) == ["bot", "u0", "u1", "u2", "u3"]


def _by(user: str, text: str = "hi") -> Activity:
    return {"type": "message", "from": {"id": user}, "text": text}


@pytest.mark.bot_item(10)
@pytest.mark.parametrize("kind", KINDS)
async def test_every_type_of_a_client_reaches_the_bot(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, kind: str
) -> None:
    assert (await delivered(client, bot, conversation_id, {"type": kind, "name": "n"}))["type"] == kind


@pytest.mark.bot_item(11)
async def test_messages_are_started_towards_the_bot_in_the_order_in_which_they_were_accepted(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    """Turns overlap: none of these is answered before the last one has begun. Serial: `test_bot_answers.py`."""
    await client.send(conversation_id, "first of all")
    bot.hang()
    texts = [str(number) for number in range(8)]
    sends = []
    for number, text in enumerate(texts):
        sends.append(asyncio.create_task(client.send(conversation_id, text)))
        await has_entries(client, conversation_id, number + 2)
    await bot.wait_for(lambda each: each.conversation_id == conversation_id and each.text == texts[-1])
    assert not any(send.done() for send in sends)
    bot.release()
    await asyncio.gather(*sends)
    assert [each.text for each in heard(bot, conversation_id) if each.text in texts] == texts


@pytest.mark.bot_item(11)
async def test_messages_posted_at_the_same_time_are_started_in_the_order_of_the_log(tmp_path: Path) -> None:
    """A bot takes connections in the order in which they were made, whichever of them it then reads first."""
    async with (
        OneByOne() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await client.start(user={"id": "user"})).conversation_id
        sends = (client.send(conversation_id, str(number)) for number in range(100))
        assert {answer.status for answer in await asyncio.gather(*sends)} == {200}
        logged = [each["id"] for each in await client.all_activities(conversation_id)]
    begun = [activity for _, activity in sorted(bot.taken.items())]
    assert begun[0]["type"] == "conversationUpdate"
    assert [each["id"] for each in begun[1:]] == logged


@pytest.mark.bot_item(12)
async def test_a_slow_turn_delays_no_other_conversation(client: DirectLine, bot: ScriptedBot) -> None:
    slow, quick = await started(client, bot), await started(client, bot)
    turn_over = asyncio.Event()

    async def think(_: ScriptedBot, activity: Activity) -> web.Response | None:
        if activity.get("text") == "think":
            await turn_over.wait()
        return None

    bot.on_activity = think
    thinking = asyncio.create_task(client.send(slow.conversation_id, "think"))
    await bot.wait_for_text("think")
    for number in range(5):
        assert (await asyncio.wait_for(client.send(quick.conversation_id, str(number)), 5)).status == 200
    assert not thinking.done()
    turn_over.set()
    assert (await thinking).status == 200


# What a bot may answer


@pytest.mark.bot_item(14)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_of_a_bot_is_a_delivery(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    bot.answer(status)
    assert (await client.send(conversation_id, "hi")).status == 200


@pytest.mark.bot_item(15)
@pytest.mark.parametrize("body", [b'{"activities":[{"type":"message","text":"no"}]}', b"{", b"<html>", b"x" * 100_000])
async def test_what_a_bot_answers_a_message_with_is_nobodys_business(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, body: bytes
) -> None:
    bot.answer(200, body)
    answer = await client.send(conversation_id, "hi")
    assert (answer.status, list(answer.json)) == (200, ["id"])
    assert [each["text"] for each in await client.all_activities(conversation_id)] == ["hi"]


@pytest.mark.bot_item(16, 17, 18, 23)
async def test_a_bot_that_answers_too_late_costs_the_client_a_502_and_nothing_else(
    hurried: DirectLine, bot: ScriptedBot
) -> None:
    """The message stays, is not sent again, and what the bot says after all arrives."""
    opened = await started(hurried, bot)
    assert (await hurried.send(opened.conversation_id, "hello")).status == 200
    async with hurried.stream(opened.stream_url) as stream:
        bot.hang()
        began = time.monotonic()
        assert (await hurried.send(opened.conversation_id, "are you there?")).error == (502, "BotError")
        assert BOT_TIMEOUT_S * 0.9 < time.monotonic() - began < BOT_TIMEOUT_S + 4
        asked = await stream.until_text("are you there?")
        await say(bot, opened.conversation_id, "now I am")
        await stream.until_text("now I am")
        bot.release()
        assert (await hurried.send(opened.conversation_id, "next")).status == 200
    logged = await hurried.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == ["hello", "are you there?", "now I am", "next"]
    received = [each.activity for each in heard(bot, opened.conversation_id) if each.type == "message"]
    assert [each["text"] for each in received] == ["hello", "are you there?", "next"]
    assert logged[1]["id"] == asked["id"] == received[1]["id"]


@pytest.mark.bot_item(19)
async def test_a_bot_that_comes_up_in_time_gets_the_activity_exactly_once(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    await bot.refuse()
    sending = asyncio.create_task(client.send(conversation_id, "knock"))
    await has_entries(client, conversation_id, 1)
    assert not sending.done(), "refused is not the end"
    await bot.accept()
    assert (await sending).status == 200
    assert [each.text for each in heard(bot, conversation_id) if each.type == "message"] == ["knock"]


@pytest.mark.bot_item(19)
async def test_activities_behind_one_that_waits_for_a_refusing_bot_keep_their_order(
    client: DirectLine, bot: ScriptedBot, conversation_id: str
) -> None:
    await client.send(conversation_id, "before")
    await bot.refuse()
    sends = []
    for number in range(5):
        sends.append(asyncio.create_task(client.send(conversation_id, str(number))))
        await has_entries(client, conversation_id, number + 2)
    await bot.accept()
    assert [answer.status for answer in await asyncio.gather(*sends)] == [200] * 5
    texts = [each.text for each in heard(bot, conversation_id) if each.type == "message"]
    assert texts == ["before", "0", "1", "2", "3", "4"]


@pytest.mark.bot_item(21, 23)
@pytest.mark.parametrize("status", [400, 404, 405, 413, 415, 500, 502])
async def test_a_bots_refusal_is_not_repeated_and_the_activity_stays(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    bot.answer(status, {"error": "no"})
    assert (await client.send(conversation_id, "hi")).error == (502, "BotRejectedActivity")
    bot.answer()
    await client.send(conversation_id, "next")
    received = [each.activity for each in heard(bot, conversation_id) if each.type == "message"]
    assert [each["text"] for each in received] == ["hi", "next"]
    assert [each["id"] for each in await client.all_activities(conversation_id)] == [each["id"] for each in received]


@pytest.mark.bot_item(22)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_of_a_bot_leads_nowhere(
    client: DirectLine, bot: ScriptedBot, conversation_id: str, status: int
) -> None:
    """Of tokens the same is shown in test_bot_trust.py; the activity must not go astray either."""
    async with ScriptedBot() as elsewhere:
        bot.answer(status, headers={"Location": elsewhere.endpoint})
        assert (await client.send(conversation_id, "secret plans")).error == (502, "BotRejectedActivity")
        assert elsewhere.received == []


@pytest.mark.bot_item(24)
async def test_a_bot_behind_an_untrusted_certificate_is_reported_as_that(tmp_path: Path) -> None:
    """`http://` bots are what all other tests have."""
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    reached = []

    async def handle(request: web.BaseRequest) -> web.Response:
        reached.append(await request.read())
        return web.Response()

    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    try:
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        endpoint = f"https://127.0.0.1:{port}/api/messages"
        async with (
            Landline(tmp_path / "trusts-nobody", bot=endpoint, drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            answer = await client.send((await client.start()).conversation_id, "hi")
            assert answer.error == (502, "BotError")
            assert "certificate is not trusted" in answer.json["error"]["message"]
            assert reached == []
        async with (
            Landline(tmp_path / "trusts", bot=endpoint, drain_s=0, bot_ca_file=pem) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            assert (await client.send((await client.start()).conversation_id, "hi")).status == 200
            assert reached
    finally:
        await runner.cleanup()


class OneByOne:
    """A bot that numbers its connections as it takes them, gets one request of each and answers a moment later."""

    def __init__(self) -> None:
        self.taken: dict[int, Activity] = {}
        """What came on which connection."""
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listening.setblocking(False)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/api/messages"

    async def __aenter__(self) -> OneByOne:
        self._tasks.append(asyncio.create_task(self._accept()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._listening.close()

    async def _accept(self) -> None:
        for number in itertools.count():
            connection, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            self._tasks.append(asyncio.create_task(self._serve(number, connection)))

    async def _serve(self, number: int, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        self.taken[number] = json.loads(await reader.readexactly(length))
        await asyncio.sleep(0.02)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()
