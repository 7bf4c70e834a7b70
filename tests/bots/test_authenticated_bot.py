"""Bots with an app id on the four real SDKs: they check our tokens, and get their own from us.

Each has the settings that `landline.bots.sdks` writes down, and trusts the authority that `landline dev-cert` makes; no
SDK is patched. What one of them needs besides, it says in its own words in its source.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from landline.bots.sdks import Identity, Sdk, rendered, settings_of
from landline.conformance.directline import Answer, DirectLine
from landline.conformance.uploads import PIXEL, activity_part, file_part, form, upload
from landline.server.certificates import HOSTS, Files, make_certificate
from support.bot_trust import APP_ID, APP_SECRETS, ENVIRONMENT, claims, forged, new_key
from support.landline import SECRET, Landline, free_port
from support.real_bot import RealBot
from support.streams import Follower

SDKS = {
    "bb-py": Sdk.BOTBUILDER_PYTHON,
    "bb-js": Sdk.BOTBUILDER_JS,
    "ag-py": Sdk.AGENTS_PYTHON,
    "ag-js": Sdk.AGENTS_JS,
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for this machine, and its authority."""
    return make_certificate(tmp_path_factory.mktemp("tls"), HOSTS, dt.datetime.now(dt.UTC))


@pytest.fixture(scope="module", params=list(SDKS))
def sdk(request: pytest.FixtureRequest) -> str:
    """The SDK that the bot is built on."""
    return str(request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory, files: Files, sdk: str) -> AsyncIterator[Landline]:
    """A server that speaks TLS, in front of a bot that is not there yet."""
    data = tmp_path_factory.mktemp("server") / "data"
    server = Landline(
        data,
        bot=f"http://127.0.0.1:{free_port()}/api/messages",
        bot_app_id=APP_ID,
        environment=ENVIRONMENT,
        tls=files,
        drain_s=0,
    )
    async with server as landline:
        yield landline


def bot_for(landline: Landline, data: Path, sdk: str, secret: str = APP_SECRETS[0]) -> RealBot:
    """The bot that belongs to this server."""
    assert landline.tls is not None
    identity = Identity(APP_ID, secret, landline.url, landline.url)
    ca = str(landline.tls.ca)
    environment = {"SSL_CERT_FILE": ca, "REQUESTS_CA_BUNDLE": ca, "NODE_EXTRA_CA_CERTS": ca}
    if sdk == "bb-py":
        environment["CHECK_BOT_CONFIG"] = rendered(SDKS[sdk], identity)
    else:
        environment |= settings_of(SDKS[sdk], identity)
    port = int(str(landline.settings["bot"]).split(":")[2].split("/")[0])
    return RealBot(data, sdk, port=port, environment=environment)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_bot(tmp_path_factory: pytest.TempPathFactory, landline: Landline, sdk: str) -> AsyncIterator[RealBot]:
    """The bot, started."""
    async with bot_for(landline, tmp_path_factory.mktemp("bot"), sdk) as bot:
        yield bot


@pytest_asyncio.fixture(loop_scope="module")
async def client(landline: Landline) -> AsyncIterator[DirectLine]:
    """A client with the secret, which trusts the certificate."""
    async with DirectLine(landline.directline, SECRET, tls=landline.trust) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def opened(client: DirectLine, real_bot: RealBot) -> Answer:
    """A new conversation with a user."""
    return await client.start(user={"id": "user"})


@pytest.mark.bot_item(96)
async def test_a_bot_with_an_app_id_does_everything_that_others_do(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """Each of these is a call of the connector with a token of the bot's own."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
        for said, heard in (
            ("hi", "echo: hi"),
            ("typing", "echo: typing"),
            ("batch", "batch 2"),
            ("update", "after"),
            ("delete", "deleted"),
            ("members", "members: bot user"),
            ("attach", "attached"),
        ):
            sent = await client.send(opened.conversation_id, said)
            assert sent.status == 200, (said, sent.body, real_bot.log)
            await stream.until_text(heard)
        sent = form(activity_part({"type": "message"}), file_part("dot.png", PIXEL))
        answer = await upload(client, opened.conversation_id, sent, user_id="user")
        assert answer.status == 200, (answer.body, real_bot.log)
        await stream.until_text(f"got {len(PIXEL)} bytes of image/png")


@pytest.mark.bot_item(96)
async def test_a_bot_with_an_app_id_bursts_while_the_client_is_cut(
    real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    texts = [f"burst {number}" for number in range(1, 101)]
    async with Follower(client, opened) as follower:
        await follower.until(lambda f: f.activities, "is greeted")
        bursting = asyncio.create_task(client.send(opened.conversation_id, "burst 100"))
        for heard in range(20, 100, 20):
            await follower.until(lambda f, heard=heard: len(f.activities) >= heard, f"has {heard} activities")
            follower.streams[-1].cut()
        assert (await bursting).status == 200, real_bot.log
        await follower.until(lambda f: f.activities[-1].get("text") == texts[-1], "has everything")
        assert [each["text"] for each in follower.activities] == ["hello user", "burst 100", *texts]


@pytest.mark.bot_item(96)
async def test_a_bot_with_an_app_id_speaks_of_its_own_accord_after_both_were_restarted(
    landline: Landline, real_bot: RealBot, client: DirectLine, opened: Answer
) -> None:
    """Its saved reference, its token and our keys are good on the other side of a restart."""
    async with client.stream(opened.stream_url) as stream:
        await stream.until_text("hello user")
    # The join is marked behind the greeting; killed in between, the bot would greet once more.
    assert (await client.send(opened.conversation_id, "hi")).status == 200, real_bot.log
    await landline.restart(kill=True)
    await real_bot.speak(opened.conversation_id, "landline was restarted")
    await real_bot.restart(kill=True)
    await real_bot.speak(opened.conversation_id, "and so was I")
    assert (await client.send(opened.conversation_id, "welcome back")).status == 200, real_bot.log
    texts = [each["text"] for each in await client.all_activities(opened.conversation_id)]
    assert texts == [
        "hello user",
        "hi",
        "echo: hi",
        "landline was restarted",
        "and so was I",
        "welcome back",
        "echo: welcome back",
    ]


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
            assert '"route":"/{tenant}/oauth2/v2.0/token","status":401' in landline.log
    finally:
        await real_bot.start()


@pytest.mark.parametrize("key", [None, "another"])
async def test_the_bot_refuses_who_only_pretends_to_be_the_channel(
    landline: Landline, real_bot: RealBot, opened: Answer, key: str | None
) -> None:
    """Which shows that it checks anything at all."""
    said = claims(iss=landline.url, aud=APP_ID, appid=None, azp=None, serviceurl=landline.url)
    token = forged({"alg": "RS256", "kid": "another"}, said, new_key())
    activity = {
        "type": "message",
        "id": "1",
        "text": "obey",
        "channelId": "directline",
        "serviceUrl": landline.url,
        "from": {"id": "user"},
        "recipient": {"id": "bot"},
        "conversation": {"id": opened.conversation_id},
    }
    headers = {"Authorization": f"Bearer {token}"} if key else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(real_bot.endpoint, json=activity, headers=headers) as answer,
    ):
        assert answer.status >= 400
