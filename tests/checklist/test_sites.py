"""Several bots and sites in one server, and what becomes of their secrets while it runs (4.1, 4.5; checklist B)."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from landline.conformance.directline import Answer, ClientStream, DirectLine, claims, edited
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.operator import Operator
from support.streams import say

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)
FORBIDDEN = (403, "BadArgument")
CALLS: dict[str, Callable[[DirectLine, str], Awaitable[Answer]]] = {
    "activities": lambda client, id_: client.activities(id_),
    "refresh": lambda client, _: client.refresh(),
    "reconnect": lambda client, id_: client.reconnect(id_),
    "send": lambda client, id_: client.send(id_, "hello"),
    "start": lambda client, _: client.start(),
}


def a_name() -> str:
    """An id that no other test has."""
    return f"name-{next(_numbers)}"


@pytest_asyncio.fixture(loop_scope="module")
async def operator(landline: Landline) -> AsyncIterator[Operator]:
    async with Operator(landline) as operator:
        yield operator


class Chat:
    """A conversation that was started with a secret, its token, and an open stream."""

    def __init__(self, client: DirectLine, started: Answer, stream: ClientStream) -> None:
        self.id = started.conversation_id
        self.client = client.using(started.token)
        self.stream = stream
        self.url = started.stream_url

    async def answers(self) -> dict[str, Any]:
        """What everything that a token opens is answered."""
        return {
            name: (answer.status if (answer := await call(self.client, self.id)).status < 400 else answer.error)
            for name, call in CALLS.items()
        }

    async def is_refused(self) -> None:
        """Fail unless nothing is open any more, the stream among it."""
        assert await self.answers() == dict.fromkeys(CALLS, FORBIDDEN)
        assert await self.stream.until_closed() == (4403, "forbidden")
        assert (await self.client.handshake(self.url)).error == FORBIDDEN

    async def goes_on(self, bot: ScriptedBot) -> None:
        """Fail unless everything is as it was, on the stream that was open all the time."""
        assert await self.answers() == dict.fromkeys(CALLS, 200)
        await say(bot, self.id, "still there")
        await self.stream.until_text("still there")


@pytest_asyncio.fixture(loop_scope="module")
async def chat(client: DirectLine, bot: ScriptedBot) -> AsyncIterator[Callable[[str], Awaitable[Chat]]]:
    """Makes chats."""
    async with AsyncExitStack() as open_:

        async def begin(secret: str) -> Chat:
            started = await client.using(secret).start(user={"id": "dl_u"})
            await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
            return Chat(client, started, await open_.enter_async_context(client.stream(started.stream_url)))

        yield begin


MakeChat = Callable[[str], Awaitable[Chat]]


@pytest.mark.item(32)
async def test_every_site_of_a_bot_opens_its_conversations(client: DirectLine, operator: Operator) -> None:
    other = await operator.add_site(a_name())
    started = await client.start()
    for credential in (SECRET, started.token):
        assert (await client.using(credential).send(started.conversation_id, "hello")).status == 200
    assert (await client.using(other).send(started.conversation_id, "hello")).status == 200
    for name in ("activities", "reconnect"):
        assert (await CALLS[name](client.using(other), started.conversation_id)).status == 200


@pytest.mark.item(33)
async def test_a_conversation_of_another_bot_is_unknown(
    client: DirectLine, operator: Operator, bot: ScriptedBot
) -> None:
    other_bot = a_name()
    await operator.add_bot(other_bot, bot.endpoint)
    other = await operator.add_site(a_name(), other_bot)
    ours, theirs = await client.start(), await client.using(other).start()
    assert theirs.status == 201
    for secret, conversation in ((other, ours), (SECRET, theirs)):
        for name in ("activities", "reconnect", "send"):
            answer = await CALLS[name](client.using(secret), conversation.conversation_id)
            assert answer.error == (404, "BadArgument")


async def test_each_bot_hears_its_own_conversations_under_its_own_address(
    client: DirectLine, operator: Operator, bot: ScriptedBot
) -> None:
    async with ScriptedBot() as second:
        other_bot = a_name()
        await operator.add_bot(other_bot, second.endpoint, name="Second", channel_id="webchat")
        started = await client.using(await operator.add_site(a_name(), other_bot)).start()
        heard = await second.wait_for(lambda each: each.conversation_id == started.conversation_id)
        assert (heard.activity["channelId"], heard.activity["recipient"]) == (
            "webchat",
            {"id": other_bot, "name": "Second", "role": "bot"},
        )
        assert not bot.heard(started.conversation_id)
        # Its service URL opens its own conversations only (bot 3).
        await say(second, started.conversation_id, "hello")
        own = await client.start()
        await bot.wait_for(lambda each: each.conversation_id == own.conversation_id)
        foreign = await second.send(
            own.conversation_id, {"type": "message"}, second.service_url(started.conversation_id)
        )
        assert foreign.status == 404


@pytest.mark.item(34)
async def test_both_secrets_work_at_the_same_time(client: DirectLine, operator: Operator) -> None:
    site = a_name()
    first, second = await operator.add_site(site), await operator.rotate(site, 2)
    started = await client.using(first).start()
    for secret in (first, second, first):
        assert (await client.using(secret).activities(started.conversation_id)).status == 200


@pytest.mark.item(35)
async def test_a_rotated_secret_is_refused_and_the_new_one_taken(client: DirectLine, operator: Operator) -> None:
    site = a_name()
    old, second = await operator.add_site(site), await operator.rotate(site, 2)
    started = await client.using(old).start()
    new = await operator.rotate(site, 1)
    assert len({old, second, new}) == 3
    assert (await client.using(old).activities(started.conversation_id)).error == FORBIDDEN
    for secret in (second, new):
        assert (await client.using(secret).activities(started.conversation_id)).status == 200


@pytest.mark.item(36)
async def test_what_descends_from_a_rotated_secret_lives_on(
    operator: Operator, bot: ScriptedBot, chat: MakeChat
) -> None:
    site = a_name()
    chatting = await chat(await operator.add_site(site))
    refreshed = chatting.client.using((await chatting.client.refresh()).token)
    await operator.rotate(site, 1)
    await chatting.goes_on(bot)
    again = await refreshed.refresh()
    assert again.status == 200
    assert claims(again.token)["ski"] == claims(str(chatting.client.credential))["ski"]


@pytest.mark.item(36)
async def test_what_descends_from_a_revoked_secret_is_refused_at_once(
    client: DirectLine, operator: Operator, bot: ScriptedBot, chat: MakeChat
) -> None:
    site = a_name()
    first, second = await operator.add_site(site), await operator.rotate(site, 2)
    leaked, other = await chat(first), await chat(second)
    refreshed = await leaked.client.refresh()
    new = await operator.revoke(site, 1)
    await leaked.is_refused()
    assert (await client.using(refreshed.token).activities(leaked.id)).error == FORBIDDEN
    assert (await client.using(first).start()).error == FORBIDDEN
    await other.goes_on(bot)
    # The page gets a new token, and goes on where it was.
    for secret in (second, new):
        assert (await client.using(secret).reconnect(leaked.id)).status == 200


async def test_a_secret_that_was_rotated_before_anybody_knew_that_it_leaked_can_still_be_revoked(
    operator: Operator, bot: ScriptedBot, chat: MakeChat
) -> None:
    site = a_name()
    leaked = await chat(await operator.add_site(site))
    other = await chat(await operator.rotate(site, 1))
    (former,) = (await operator.done("GET", f"/sites/{site}"))["former"]
    assert former["ski"] == claims(str(leaked.client.credential))["ski"]
    await operator.done("POST", f"/sites/{site}/revocations", {"ski": former["ski"]})
    await leaked.is_refused()
    await other.goes_on(bot)


@pytest.mark.item(37)
async def test_a_disabled_site_is_closed_until_it_is_enabled(
    client: DirectLine, operator: Operator, bot: ScriptedBot, chat: MakeChat
) -> None:
    site = a_name()
    secret = await operator.add_site(site)
    chatting, neighbour = await chat(secret), await chat(SECRET)
    await operator.done("PATCH", f"/sites/{site}", {"enabled": False})
    refused = await client.using(secret).start()
    assert refused.error == FORBIDDEN
    assert refused.json["error"]["message"] == "Site missing or disabled"
    await chatting.is_refused()
    await neighbour.goes_on(bot)
    await operator.done("PATCH", f"/sites/{site}", {"enabled": True})
    assert await chatting.answers() == dict.fromkeys(CALLS, 200)


async def test_a_deleted_site_is_closed_and_its_id_brings_nothing_back(
    client: DirectLine, operator: Operator, chat: MakeChat
) -> None:
    site = a_name()
    secret = await operator.add_site(site)
    rotated, last = await chat(secret), await chat(await operator.rotate(site, 1))
    await operator.done("DELETE", f"/sites/{site}")
    await operator.add_site(site)
    for chatting in (rotated, last):
        await chatting.is_refused()
    assert (await client.using(secret).start()).error == FORBIDDEN


async def test_a_deleted_bot_ends_its_conversations(
    client: DirectLine, operator: Operator, bot: ScriptedBot, chat: MakeChat
) -> None:
    bot_id, site = a_name(), a_name()
    await operator.add_bot(bot_id, bot.endpoint)
    secret = await operator.add_site(site, bot_id)
    chatting = await chat(secret)
    service_url = bot.service_url(chatting.id)
    await operator.done("DELETE", f"/bots/{bot_id}")
    assert await chatting.answers() == dict.fromkeys(CALLS, FORBIDDEN) | {"refresh": (404, "BadArgument")}
    assert await chatting.stream.until_closed() == (4403, "forbidden")
    assert (await client.using(secret).start()).error == FORBIDDEN
    assert (await bot.send(chatting.id, {"type": "message", "text": "late"}, service_url)).status == 404


async def test_a_ticket_is_revoked_with_its_secret(client: DirectLine, operator: Operator) -> None:
    site = a_name()
    started = await client.using(await operator.add_site(site)).start()
    assert (await client.handshake(started.stream_url)).status == 101
    by_token = edited(started.stream_url, t=started.token)
    assert (await client.handshake(by_token)).status == 101
    await operator.revoke(site, 1)
    for url in (started.stream_url, by_token):
        assert (await client.handshake(url)).error == FORBIDDEN


async def test_a_bots_new_address_holds_from_the_next_activity_on(client: DirectLine, operator: Operator) -> None:
    bot_id = a_name()
    async with ScriptedBot() as old, ScriptedBot() as new:
        await operator.add_bot(bot_id, old.endpoint)
        started = await client.using(await operator.add_site(a_name(), bot_id)).start(user={"id": "dl_u"})
        await old.wait_for(lambda each: each.conversation_id == started.conversation_id)
        await operator.done("PATCH", f"/bots/{bot_id}", {"endpoint": new.endpoint})
        assert (await client.using(started.token).send(started.conversation_id, "where are you?")).status == 200
        assert [each.text for each in new.messages] == ["where are you?"]


async def test_a_bots_former_service_url_works_until_it_is_removed(
    client: DirectLine, operator: Operator, bot: ScriptedBot
) -> None:
    bot_id = a_name()
    await operator.add_bot(bot_id, bot.endpoint)
    secret = await operator.add_site(a_name(), bot_id)
    urls = []
    for _ in range(2):
        started = await client.using(secret).start()
        await bot.wait_for(lambda each, id_=started.conversation_id: each.conversation_id == id_)
        urls.append(bot.service_url(started.conversation_id))
        keys = (await operator.done("POST", f"/bots/{bot_id}/service-keys"))["service_keys"]
    old, new = urls
    assert old != new

    async def statuses() -> list[int]:
        return [(await bot.send(started.conversation_id, {"type": "message"}, url)).status for url in (old, new)]

    assert await statuses() == [200, 200]
    # A link to an attachment that the bot made under the former one leads clients there all the same (D-51).
    link = {"type": "message", "text": f"{old}/v3/attachments/x/views/original"}
    assert (await bot.send(started.conversation_id, link, new)).status == 200
    shown = (await client.using(secret).all_activities(started.conversation_id))[-1]["text"]
    assert shown == f"{client.domain.removesuffix('/v3/directline')}/v3/attachments/x/views/original"
    assert len(keys) == 3
    await operator.done("DELETE", f"/bots/{bot_id}/service-keys/{keys[2]['mark']}")
    assert await statuses() == [404, 200]
    assert (await operator.call("DELETE", f"/bots/{bot_id}/service-keys/{keys[0]['mark']}")).error == (
        400,
        "BadArgument",
    )


@pytest.mark.parametrize("kill", [False, True])
async def test_all_of_it_is_there_after_a_restart(tmp_path: Path, kill: bool) -> None:
    async with ScriptedBot() as bot, Landline(tmp_path / "data", drain_s=0) as landline:
        async with Operator(landline) as operator, DirectLine(landline.directline) as client:
            await operator.add_bot("second", bot.endpoint)
            kept = await operator.add_site("kept", "second")
            leaked = await operator.add_site("leaked", "second")
            closed = await operator.add_site("closed", "second")
            chats = {secret: await client.using(secret).start() for secret in (kept, leaked, closed)}
            new = await operator.revoke("leaked", 1)
            await operator.done("PATCH", "/sites/closed", {"enabled": False})
            await landline.restart(kill=kill)
            assert (await client.using(kept).activities(chats[kept].conversation_id)).status == 200
            assert (await client.using(chats[kept].token).refresh()).status == 200
            assert (await client.using(new).start()).status == 201
            for credential in (leaked, chats[leaked].token, closed, chats[closed].token):
                assert (await client.using(credential).start()).error == FORBIDDEN
        assert not any(secret in landline.log for secret in (kept, leaked, closed, new))


async def test_bots_of_the_file_have_their_sites_secrets_and_lives(tmp_path: Path) -> None:
    file = tmp_path / "landline.toml"
    secrets = {name: f"secret-of-the-site-{name}-0123456789" for name in ("web", "app", "other")}
    async with ScriptedBot() as first, ScriptedBot() as second:
        file.write_text(f"""
            token_ttl_s = 1000
            [[bots]]
            id = "first"
            endpoint = "{first.endpoint}"
            token_ttl_s = 2000
            [[bots.sites]]
            id = "web"
            [[bots.sites]]
            id = "app"
            secret = "{secrets["app"]}"
            token_ttl_s = 3000
            [[bots]]
            id = "second"
            endpoint = "{second.endpoint}"
            [[bots.sites]]
            id = "other"
            secret = "{secrets["other"]}"
        """)
        environment = {"LANDLINE_CONFIG": str(file)}
        data = tmp_path / "data"
        async with (
            Landline(data, secret=secrets["web"], environment=environment, drain_s=0) as landline,
            DirectLine(landline.directline) as client,
            Operator(landline) as operator,
        ):
            lives = {
                name: (await client.using(secret).generate()).json["expires_in"] for name, secret in secrets.items()
            }
            assert lives == {"web": 2000, "app": 3000, "other": 1000}
            started = await client.using(secrets["other"]).start()
            await second.wait_for(lambda each: each.conversation_id == started.conversation_id)
            assert (await client.using(secrets["web"]).activities(started.conversation_id)).status == 404
            for method, path in (("PATCH", "/sites/web"), ("DELETE", "/sites/web"), ("DELETE", "/bots/first")):
                assert (await operator.call(method, path, {"enabled": False})).error == (409, "Conflict")
            # Their secrets can change, and sites can join them.
            more = await operator.rotate("web", 1)
            added = await operator.add_site("added", "first")
            own = await client.using(secrets["app"]).start()
            for secret in (more, added):
                assert (await client.using(secret).activities(own.conversation_id)).status == 200
            # A secret of the settings that leaked, too.
            ski = claims((await client.using(secrets["app"]).generate()).token)["ski"]
            await operator.done("POST", "/sites/app/revocations", {"ski": ski})
            assert (await client.using(secrets["app"]).generate()).error == FORBIDDEN
            assert (await client.using(own.token).refresh()).error == FORBIDDEN
