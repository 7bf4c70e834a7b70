"""Bots on the four real SDKs behind the real server: what their users would notice first (bot 8, "End to end").

Each test runs with every SDK that can do what it is about, and in both modes. Anonymous bots have no app id, and no
settings. Authenticated ones have the settings that `landline.bots.sdks` writes down, trust the authority that `landline
dev-cert` makes, check our tokens and get their own from us; no SDK is patched, and what one of them needs besides, it
says in its own words in its source.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization

from landline.bots.sdks import Identity, Sdk, rendered, settings_of
from landline.conformance.directline import Activity, Answer, DirectLine
from landline.conformance.uploads import PIXEL, activity_part, fetch, file_part, form, upload
from landline.server.certificates import HOSTS, Files, make_certificate
from support.bot_trust import APP_ID, APP_SECRETS, ENVIRONMENT, claims, forged, new_key, with_keys_of
from support.landline import SECRET, Landline, free_port
from support.operator import Operator
from support.real_bot import RealBot
from support.streams import Follower

SDKS = {
    "bb-py": Sdk.BOTBUILDER_PYTHON,
    "bb-js": Sdk.BOTBUILDER_JS,
    "ag-py": Sdk.AGENTS_PYTHON,
    "ag-js": Sdk.AGENTS_JS,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")

each_agent = pytest.mark.parametrize("sdk", ["ag-py", "ag-js"], indirect=True, scope="module")
"""The SDKs that stream answers themselves."""

authenticated_only = pytest.mark.parametrize("mode", ["authenticated"], indirect=True, scope="module")


@pytest.fixture(scope="module", params=["anonymous", "authenticated"])
def mode(request: pytest.FixtureRequest) -> str:
    """Whether the bot and the server show tokens to each other."""
    return str(request.param)


@pytest.fixture(scope="module", params=list(SDKS))
def sdk(request: pytest.FixtureRequest) -> str:
    """The SDK that the bot is built on."""
    return str(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for this machine, and its authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"), HOSTS, dt.datetime.now(dt.UTC))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(
    tmp_path_factory: pytest.TempPathFactory, files: Files, mode: str, sdk: str
) -> AsyncIterator[Landline]:
    """The server of all tests with one SDK in one mode, in front of a bot that is not there yet."""
    server = Landline(
        tmp_path_factory.mktemp(f"{sdk}-{mode}") / "data",
        bot=f"http://127.0.0.1:{free_port()}/api/messages",
        environment=ENVIRONMENT if mode == "authenticated" else {},
        tls=files if mode == "authenticated" else None,
        inner_http_error=True,
        drain_s=0,
        **({"bot_app_id": APP_ID, "bot_create_conversations": True} if mode == "authenticated" else {}),
    )
    async with server as landline:
        yield landline


def bot_for(landline: Landline, data: Path, sdk: str, secret: str = APP_SECRETS[0]) -> RealBot:
    """The bot that belongs to this server."""
    environment: dict[str, str] = {}
    if landline.tls is not None:
        identity = Identity(APP_ID, secret, landline.url, landline.url)
        ca = str(landline.tls.ca)
        environment = {"SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca, "NODE_EXTRA_CA_CERTS": ca}
        if sdk == "bb-py":
            environment["CHECK_BOT_CONFIG"] = rendered(SDKS[sdk], identity)
        else:
            environment |= settings_of(SDKS[sdk], identity)
    return RealBot(data, sdk, port=urlsplit(str(landline.settings["bot"])).port, environment=environment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_bot(tmp_path_factory: pytest.TempPathFactory, landline: Landline, sdk: str) -> AsyncIterator[RealBot]:
    """The bot of all these tests: starting one takes as long as most of them."""
    async with bot_for(landline, tmp_path_factory.mktemp("bot"), sdk) as bot:
        yield bot


@pytest_asyncio.fixture(loop_scope="module")
async def client(landline: Landline) -> AsyncIterator[DirectLine]:
    """A client with the secret."""
    async with DirectLine(landline.directline, SECRET, tls=landline.trust) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def opened(client: DirectLine, real_bot: RealBot) -> Answer:
    """A new conversation with a user."""
    return await client.start(user={"id": "user"})


async def has(follower: Follower, count: int) -> None:
    """Wait until so many activities have come."""
    await follower.until(lambda follower: len(follower.activities) >= count, f"has {count} activities")


async def tell(client: DirectLine, real_bot: RealBot, opened: Answer, said: str | Activity) -> None:
    """Send something to the bot, and see that its turn went well."""
    answer = await client.send(opened.conversation_id, said)
    assert answer.status == 200, (answer.body, real_bot.log)


# Turns


@pytest.mark.bot_item(95, 96)
async def test_a_real_bot_greets_and_answers(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await tell(client, real_bot, opened, "Grüße \U0001f600")
        answer = await stream.until_text("echo: Grüße \U0001f600")
        assert stream.texts == ["hello user", "Grüße \U0001f600", "echo: Grüße \U0001f600"]
        assert (answer["from"]["id"], answer["from"]["role"]) == ("bot", "bot")
        logged = await client.all_activities(opened.conversation_id)
        assert logged == stream.activities


@pytest.mark.bot_item(95, 96)
async def test_typing_of_a_real_bot_is_seen_live_and_never_again(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "typing")
        await stream.until_text("echo: typing")
        assert [each["type"] for each in stream.activities[-3:]] == ["message", "typing", "message"]
    logged = await client.all_activities(opened.conversation_id)
    assert [each["type"] for each in logged] == ["message"] * 3


@pytest.mark.bot_item(95, 96)
async def test_what_a_real_bot_sends_in_one_call_arrives_in_its_order(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "batch")
        await stream.until_text("batch 2")
        shown = [(each["type"], each.get("text")) for each in stream.activities[-3:]]
        assert shown == [("message", "batch 1"), ("typing", None), ("message", "batch 2")]


@pytest.mark.bot_item(95, 96)
async def test_a_card_and_an_inline_picture_of_a_real_bot_arrive_as_they_are(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "card")
        card, picture = (await stream.until_text("a card"))["attachments"]
    assert card["contentType"] == "application/vnd.microsoft.card.hero"
    assert card["content"]["title"] == "A card"
    assert picture["contentType"] == "image/png"
    assert picture["contentUrl"].startswith("data:image/png;base64,")


@pytest.mark.bot_item(95, 96)
async def test_a_real_bot_finds_out_who_takes_part(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "members")
        await stream.until_text("members: bot user")


@pytest.mark.bot_item(95, 96)
async def test_what_a_real_bot_changes_or_takes_back_is_changed_and_gone(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "update")
        after = await stream.until_text("after")
        before = await stream.until_text("before")
        assert (after["id"], after["timestamp"]) == (before["id"], before["timestamp"])
        await tell(client, real_bot, opened, "delete")
        await stream.until_text("deleted")
        gone = await stream.until_text("gone")
        assert [each["type"] for each in stream.activities if each["id"] == gone["id"]] == ["message", "messageDelete"]
    assert "gone" not in [each.get("text") for each in await client.all_activities(opened.conversation_id)]


@pytest.mark.bot_item(95, 96)
async def test_files_go_both_ways(landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        sent = form(activity_part({"type": "message"}), file_part("dot.png", PIXEL))
        answer = await upload(client, opened.conversation_id, sent, user_id="user")
        assert answer.status == 200, (answer.body, real_bot.log)
        await stream.until_text(f"got {len(PIXEL)} bytes of image/png")
        await tell(client, real_bot, opened, "attach")
        (attached,) = (await stream.until_text("attached"))["attachments"]
    fetched = await fetch(attached["contentUrl"], tls=landline.trust)
    assert (fetched.status, fetched.headers["Content-Type"]) == (200, "image/png")
    assert fetched.body.startswith(b"\x89PNG")


@pytest.mark.bot_item(5, 100)
async def test_a_real_bot_reaches_us_by_the_service_url_that_it_was_told_and_by_an_old_one_that_it_saved(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    conversation_id = opened.conversation_id
    async with client.stream(opened.stream_url) as stream:
        for command, sign in (("hi", "echo: hi"), ("update", "after"), ("attach", "attached")):
            await tell(client, real_bot, opened, command)
            said = await stream.until_text(sign)
        link = said["attachments"][0]["contentUrl"]
        assert link.startswith(f"{landline.url}/v3/attachments/")
        assert (await fetch(link, tls=landline.trust)).status == 200
        told = json.loads(real_bot.references_path.read_text())[conversation_id]["serviceUrl"]
        assert told.endswith("/")
        for service_url in (told, told.removesuffix("/")):
            await real_bot.speak(conversation_id, f"by {service_url}", service_url)
            await stream.until_text(f"by {service_url}")


@pytest.mark.bot_item(95, 96)
async def test_a_real_bot_hears_events_and_may_say_that_it_is_done(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, {"type": "event", "name": "clicked", "from": {"id": "user"}})
        await stream.until_text("event: clicked")
        await tell(client, real_bot, opened, "end")
        await stream.until(lambda s: s.activities[-1]["type"] == "endOfConversation", "sees the end")
        assert stream.activities[-1]["code"] == "completedSuccessfully"
        await tell(client, real_bot, opened, "go on")
        await stream.until_text("echo: go on")


@authenticated_only
@pytest.mark.bot_item(69, 70, 96)
async def test_a_real_bot_starts_a_conversation_that_the_user_can_join(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """Each SDK goes on from what we answer in a way of its own."""
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "create")
        await stream.until(lambda s: s.texts and s.texts[-1].startswith("created "), "hears where")
        begun = stream.texts[-1].removeprefix("created ")
    assert begun != opened.conversation_id
    joined = await client.reconnect(begun, "-")
    async with client.stream(joined.stream_url) as stream:
        await stream.until_text("I began this")
        await tell(client, real_bot, joined, "so you did")
        await stream.until_text("echo: so you did")


# Answers


@pytest.mark.bot_item(25, 26, 95, 96)
async def test_a_real_bot_answers_invokes(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async def invoke(name: str) -> Answer:
        said = {"type": "invoke", "name": name, "value": {"a": 1}, "from": {"id": "user"}}
        return await client.send(opened.conversation_id, said)

    for name in ("ping", "empty"):
        answer = await invoke(name)
        assert answer.status == 200, (answer.body, real_bot.log)
    refused, unknown = await invoke("refuse"), await invoke("no such thing")
    assert refused.error == unknown.error == (502, "BotRejectedActivity")
    assert refused.json["error"]["innerHttpError"] == {"statusCode": 418, "body": {"reason": "teapot"}}
    assert unknown.json["error"]["innerHttpError"] == {"statusCode": 501, "body": None}
    logged = await client.all_activities(opened.conversation_id)
    assert [each["type"] for each in logged if each["type"] != "message"] == ["invoke"] * 4


@pytest.mark.bot_item(28, 29, 30, 95, 96)
async def test_a_real_bot_that_cannot_call_out_replies_in_its_answer(
    landline: Landline, real_bot: RealBot, client: DirectLine, mode: str
) -> None:
    """Registered a second time, for that; and it does not call out."""
    async with Operator(landline) as operator:
        app_id = APP_ID if mode == "authenticated" else None
        await operator.add_bot("answering", real_bot.endpoint, delivery="expectReplies", app_id=app_id)
        client = client.using(await operator.add_site("site", "answering"))
    calls = landline.log.count('"route":"/b/')
    opened = await client.start(user={"id": "user"})
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await tell(client, real_bot, opened, "batch")
        await tell(client, real_bot, opened, "hi")
        await stream.until_text("echo: hi")
        texts = [each["text"] for each in stream.activities if each["type"] == "message"]
        assert texts == ["hello user", "batch", "batch 1", "batch 2", "hi", "echo: hi"]
    logged = await client.all_activities(opened.conversation_id)
    assert landline.log.count('"route":"/b/') == calls > 0
    assert [each["text"] for each in logged] == texts
    for each in logged:
        assert each["channelId"] == "directline"
        assert not [name for name in each if name.startswith("_")]


@pytest.mark.bot_item(99)
async def test_an_adapter_that_fails_on_an_invoke_is_a_failed_send_and_nothing_more(tmp_path: Path) -> None:
    """The adapter of the Bot Framework SDK for Python, as it was published."""
    async with (
        RealBot(tmp_path, "bb-py", environment={"STOCK_PROCESS": "1"}) as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, inner_http_error=True) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await client.start(user={"id": "user"})
        said = {"type": "invoke", "name": "ping", "value": {"a": 1}, "from": {"id": "user"}}
        answer = await client.send(opened.conversation_id, said)
        assert answer.error == (502, "BotRejectedActivity")
        assert answer.json["error"]["innerHttpError"]["statusCode"] == 500
        async with client.stream(opened.stream_url) as stream:
            await tell(client, bot, opened, "still there?")
            await stream.until_text("echo: still there?")


# Streamed answers


@each_agent
@pytest.mark.bot_item(72, 73, 74, 95, 96)
async def test_an_answer_that_grows_is_seen_growing_and_kept_whole(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await tell(client, real_bot, opened, "stream")
        *chunks, final = [each for each in stream.activities if each.get("entities")]
    assert [each["type"] for each in chunks] == ["typing"] * len(chunks)
    assert final["type"] == "message"
    assert final["text"] == "one two three"
    assert len(chunks) >= 3, "status and at least two chunks"
    for earlier, later in zip(chunks[1:], [*chunks[2:], final], strict=True):
        assert later["text"].startswith(earlier["text"])
    known = [_stream_information(each) for each in [*chunks, final]]
    assert [each["streamType"] for each in known] == ["informative", *["streaming"] * (len(chunks) - 1), "final"]
    numbers = [each["streamSequence"] for each in known if "streamSequence" in each]
    assert numbers == sorted(set(numbers))
    ids = {each["streamId"] for each in known if "streamId" in each}
    assert len(ids) == 1
    if real_bot.sdk == "ag-js":
        assert ids == {chunks[0]["id"]}, "the id that the first send was answered with"
    assert len({each["id"] for each in [*chunks, final]}) == len(chunks) + 1
    logged = await client.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == ["hello user", "stream", "one two three"]


@each_agent
@pytest.mark.bot_item(75, 95, 96)
async def test_a_client_that_comes_back_in_mid_stream_sees_its_end(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with Follower(client, opened) as follower:
        await has(follower, 1)
        telling = asyncio.create_task(client.send(opened.conversation_id, "stream"))
        await follower.until(lambda f: any(each["type"] == "typing" for each in f.activities), "sees a chunk")
        follower.streams[-1].cut()
        assert (await telling).status == 200, real_bot.log
        await follower.until(lambda f: f.activities[-1].get("text") == "one two three", "sees the end")
        final = follower.activities[-1]
        assert (final["type"], _stream_information(final)["streamType"]) == ("message", "final")
        assert follower.cuts == 1


def _stream_information(activity: Activity) -> dict[str, object]:
    (found,) = [each for each in activity["entities"] if each["type"] == "streaminfo"]
    return dict(found)


# Cuts


@pytest.mark.bot_item(95, 96, 97)
async def test_a_burst_of_200_arrives_in_order_while_the_client_is_cut_again_and_again(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    texts = [f"burst {number}" for number in range(1, 201)]
    async with Follower(client, opened) as follower:
        await has(follower, 1)
        bursting = asyncio.create_task(client.send(opened.conversation_id, "burst 200"))
        for heard in (40, 120):
            await has(follower, heard)
            follower.streams[-1].cut()
        assert (await bursting).status == 200, real_bot.log
        await follower.until(lambda f: f.activities[-1].get("text") == texts[-1], "has everything")
        assert follower.cuts == 2
        assert [each["text"] for each in follower.activities] == ["hello user", "burst 200", *texts]
    logged = await client.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == ["hello user", "burst 200", *texts]


@pytest.mark.bot_item(95, 96, 98)
async def test_every_message_that_a_real_bot_got_a_200_for_is_delivered_once_though_the_channel_was_killed_meanwhile(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """A send that got no answer may be in the log or not; never twice, whether its SDK repeats it or not."""
    async with Follower(client, opened) as follower:
        await has(follower, 1)
        bursting = asyncio.create_task(client.send(opened.conversation_id, "steady burst 100"))
        await has(follower, 40)
        await landline.restart(kill=True)
        await asyncio.gather(bursting, return_exceptions=True)
        await follower.until(lambda f: f.activities[-1].get("text") == "burst 100", "hears the last one")
        heard = [(each["text"], each["id"]) for each in follower.activities]
    sent = await real_bot.sent(opened.conversation_id)
    logged = [(each["text"], each["id"]) for each in await client.all_activities(opened.conversation_id)]
    assert len(sent) > 45, "sends were answered before the kill and after"
    assert [each for each in logged if each in set(sent)] == sent, real_bot.log
    assert len(dict(logged)) == len(logged), "nothing twice"
    assert heard == logged


@pytest.mark.bot_item(78, 95, 96)
async def test_a_real_bot_speaks_by_the_reference_it_kept_after_landline_was_killed_and_it_too(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """Its reference, its token and our keys are good on the other side."""
    async with Follower(client, opened) as follower:
        await has(follower, 1)
        await tell(client, real_bot, opened, "before")
        await has(follower, 3)
        await landline.restart(kill=True)
        await real_bot.speak(opened.conversation_id, "I remember you")
        await real_bot.restart(kill=True)
        spoken = await real_bot.speak(opened.conversation_id, "and I am new here, too")
        await follower.until(lambda f: spoken in f.ids, "hears the bot again")
        texts = [each["text"] for each in follower.activities]
    assert texts == ["hello user", "before", "echo: before", "I remember you", "and I am new here, too"]
    await tell(client, real_bot, opened, "after")
    logged = await client.all_activities(opened.conversation_id)
    assert [each["text"] for each in logged] == [*texts, "after", "echo: after"], "nobody is greeted twice"


@pytest.mark.item(208)
@pytest.mark.bot_item(77, 95, 96)
async def test_what_a_real_bot_says_of_its_own_accord_makes_no_client_wait(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """Two SDKs reply to a UUID that they made up; one to the last activity it knows. A client gets no `replyToId` that
    is none of its conversation's, for which Web Chat would wait five seconds."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        spoken = await real_bot.speak(opened.conversation_id, "of my own accord")
        activity = await stream.until_text("of my own accord")
        assert activity["id"] == spoken
        ours = f"{opened.conversation_id}|"
        assert activity.get("replyToId", ours).startswith(ours)


@pytest.mark.bot_item(77, 95, 96)
async def test_a_real_bot_speaks_after_its_turn(real_bot: RealBot, client: DirectLine, opened: Answer) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await tell(client, real_bot, opened, "later 0.3 seconds surprise")
        assert "surprise" not in stream.texts, "the turn is over"
        await stream.until_text("surprise")


@pytest.mark.bot_item(79, 95, 96)
async def test_what_a_real_bot_says_to_nobody_is_there_when_the_client_comes_back(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        watermark = stream.watermark
        stream.cut()
    for text in ("one", "two", "three"):
        await real_bot.speak(opened.conversation_id, text)
    async with client.stream((await client.reconnect(opened.conversation_id, watermark)).stream_url) as stream:
        await stream.until_text("three")
        assert stream.texts == ["one", "two", "three"]


async def test_a_real_bot_that_was_killed_and_started_again_goes_on(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """A message sent while it is away reaches it if it comes back in time."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        await real_bot.kill()
        sending = asyncio.create_task(client.send(opened.conversation_id, "are you there?"))
        await stream.until_text("are you there?")
        await real_bot.start()
        assert (await sending).status == 200, real_bot.log
        await stream.until_text("echo: are you there?")
        spoken = await real_bot.speak(opened.conversation_id, "I am back")
        await stream.until(lambda s: spoken in [each["id"] for each in s.activities], "hears the bot")


# Trust


@authenticated_only
async def test_a_bot_with_the_wrong_secret_hears_and_cannot_speak(
    tmp_path: Path, landline: Landline, real_bot: RealBot, client: DirectLine, sdk: str
) -> None:
    await real_bot.stop()
    try:
        async with bot_for(landline, tmp_path, sdk, "a-secret-that-nobody-has-given-out-1234"):
            opened = await client.start(user={"id": "user"})
            sent = await client.send(opened.conversation_id, "hello?")
            assert sent.error == (502, "BotRejectedActivity")
            texts = [each["text"] for each in await client.all_activities(opened.conversation_id)]
            assert texts == ["hello?"]
            await landline.until_logged('"route":"/{tenant}/oauth2/v2.0/token","status":401')
    finally:
        await real_bot.start()


@authenticated_only
async def test_the_bot_refuses_who_only_pretends_to_be_the_channel(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """With everything that an attacker can make, or has been shown. The same without a fault, signed with our own key,
    is taken: so it is the fault that is refused."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
    service_url = json.loads(real_bot.references_path.read_text())[opened.conversation_id]["serviceUrl"]
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=landline.trust)) as session:
        form = {"grant_type": "client_credentials", "client_id": APP_ID, "client_secret": APP_SECRETS[0]}
        async with session.post(f"{landline.url}/oauth2/v2.0/token", data=form) as answer:
            shown_to_us = (await answer.json())["access_token"]
        await landline.terminate()
        (key,) = await with_keys_of(landline.data)
        await landline.start()

        async def obey(token: str | None, text: str) -> int:
            activity = {
                "type": "message",
                "id": "1",
                "text": text,
                "channelId": "directline",
                "serviceUrl": service_url,
                "from": {"id": "user"},
                "recipient": {"id": "bot"},
                "conversation": {"id": opened.conversation_id},
            }
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with session.post(real_bot.endpoint, json=activity, headers=headers) as answer:
                return answer.status

        def said(**changes: object) -> dict[str, object]:
            good = {"iss": landline.url, "aud": APP_ID, "appid": None, "azp": None, "serviceurl": service_url}
            return claims(**good | changes)

        ours = {"alg": "RS256", "kid": key.kid}
        public = key.private.public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        stolen, now = key.private, int(time.time())
        forgeries = {
            "nothing": None,
            "another key": forged({"alg": "RS256", "kid": "another"}, said(), new_key()),
            "another key under our name": forged(ours, said(), new_key()),
            "expired": forged(ours, said(nbf=now - 7200, exp=now - 3600), stolen),
            "not valid yet": forged(ours, said(nbf=now + 3600, exp=now + 7200), stolen),
            "another audience": forged(ours, said(aud="99999999-0000-4000-8000-999999999999"), stolen),
            "another issuer": forged(ours, said(iss="https://elsewhere.example"), stolen),
            "alg none": forged({**ours, "alg": "none"}, said()),
            "HMAC with the public key": forged({**ours, "alg": "HS256"}, said(), pem),
            "what the bot shows to us": shown_to_us,
        }
        statuses = {what: await obey(token, what) for what, token in forgeries.items()}
        assert {what for what, status in statuses.items() if status < 400} == set()
        assert await obey(forged(ours, said(), stolen), "obey") < 300, real_bot.log
    assert (await client.send(opened.conversation_id, "who was that?")).status == 200
    heard = [each["text"] for each in await client.all_activities(opened.conversation_id)]
    assert heard == ["hello user", "echo: obey", "who was that?", "echo: who was that?"]


@authenticated_only
async def test_a_bot_that_is_started_anew_knows_the_key_that_came_in_place_of_one_that_leaked(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """What the operator is told to do: SDKs keep the keys that they know, and their tokens, whatever is refused."""
    await tell(client, real_bot, opened, "before")
    async with Operator(landline) as operator:
        (leaked,) = (await operator.done("GET", "/signing-keys"))["signing_keys"]
        await operator.done("DELETE", f"/signing-keys/{leaked['kid']}")
    assert (await client.send(opened.conversation_id, "at once")).status == 502
    await real_bot.restart()
    await tell(client, real_bot, opened, "after")
    await real_bot.speak(opened.conversation_id, "and of my own accord")
    texts = [each["text"] for each in await client.all_activities(opened.conversation_id)]
    assert texts[-4:] == ["at once", "after", "echo: after", "and of my own accord"]


# Sign-in


@authenticated_only
async def test_a_sign_in_card_arrives_as_it_is_and_nobody_is_signed_in(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """SDKs ask for the user's token at the address that they are told in the same settings: ours, and no host of
    Microsoft's. Our answer has no body: BB-js takes any for a token."""
    async with client.stream(opened.stream_url) as stream:
        await tell(client, real_bot, opened, "signin")
        (card,) = (await stream.until_text("sign in"))["attachments"]
        await stream.until_text("token: none")
    assert card["contentType"] == "application/vnd.microsoft.card.oauth"
    assert card["content"]["connectionName"] == "github"
    (button,) = card["content"]["buttons"]
    assert (button["type"], button["value"]) == ("signin", "https://issuer.example/authorize")
    await landline.until_logged('"route":"/api/usertoken/GetToken","status":404')
    hosts = set(re.findall(r"^looks up (.*)$", real_bot.log, re.MULTILINE))
    assert hosts <= {"127.0.0.1", "localhost"}, hosts
    if real_bot.sdk != "ag-js":
        assert hosts, "the bot's log names the hosts that it looks up"
