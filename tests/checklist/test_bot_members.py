"""Who takes part, as bots ask for it, and conversations that bots start (bot 3.5, 3.7, 3.8; 59 to 61, 69 to 71).

The bot of the server has no app id, so what only bots with one may do is shown with the connector itself, served with
what checks tokens and without the rest of the server.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio
from starlette.routing import Router

from landline.blobs.files import FileBlobs
from landline.bots.issuers import HttpIssuers
from landline.channel.attachments import Attachments, UploadBounds
from landline.channel.bot_conversations import BotConversations
from landline.channel.bot_tokens import BotTokens
from landline.channel.keys import SigningKeys
from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import Answer, ScriptedBot
from landline.core.tokens import digest
from landline.server.connector import Connector
from landline.server.exchange import HttpRules
from landline.stores.memory import MemoryStore
from support.channel import BOT, Channel, TestClock, two_bots
from support.edges import Served, serving
from support.scripted_transport import ScriptedTransport
from support.streams import started
from support.wires import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")

APP_SECRET = "secret-of-app-1-0123456789"
OURS = {"id": "bot", "name": "Bot", "role": "bot"}


@pytest_asyncio.fixture(loop_scope="module")
async def crowd(client: DirectLine, bot: ScriptedBot) -> str:
    """A conversation of the bot, ann, and four others with odd ids."""
    opened = await started(client, bot, user={"id": "ann", "name": "Ann"})
    for user in ("b/o?b", "c d", "é|#", "dl_%25"):
        said = {"type": "message", "text": "hi", "from": {"id": user}}
        assert (await client.send(opened.conversation_id, said)).status == 200
    return opened.conversation_id


async def ask(bot: ScriptedBot, conversation_id: str, path: str, method: str = "GET") -> Answer:
    return await bot.request(method, f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}{path}")


# Members


@pytest.mark.bot_item(59)
async def test_members_are_the_bot_and_the_users_in_the_order_in_which_they_came(bot: ScriptedBot, crowd: str) -> None:
    expected = [OURS, {"id": "ann", "name": "Ann", "role": "user"}] + [
        {"id": user, "role": "user"} for user in ("b/o?b", "c d", "é|#", "dl_%25")
    ]
    for path in ("/members", f"/activities/{crowd}|0000000/members"):
        answer = await ask(bot, crowd, path)
        assert answer.status == 200
        assert answer.json == expected
    for member in expected:
        one = await ask(bot, crowd, f"/members/{quote(member['id'], safe='')}")
        assert (one.status, one.json) == (200, member)


@pytest.mark.bot_item(59)
async def test_who_takes_no_part_is_unknown(bot: ScriptedBot, crowd: str) -> None:
    answer = await ask(bot, crowd, "/members/nobody")
    assert (answer.status, answer.json["error"]["code"]) == (404, "BadArgument")


@pytest.mark.bot_item(60)
@pytest.mark.parametrize("query", ["", "?pageSize=6", "?pageSize=500&continuationToken="])
async def test_a_last_page_of_members_has_no_continuation(bot: ScriptedBot, crowd: str, query: str) -> None:
    answer = await ask(bot, crowd, f"/pagedmembers{query}")
    assert answer.status == 200
    assert list(answer.json) == ["members"]
    assert len(answer.json["members"]) == 6


@pytest.mark.bot_item(61)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
async def test_pages_of_members_together_are_all_members_once(bot: ScriptedBot, crowd: str, size: int) -> None:
    found, query = [], f"?pageSize={size}"
    while True:
        answer = await ask(bot, crowd, f"/pagedmembers{query}")
        assert answer.status == 200
        page = answer.json["members"]
        found += page
        if "continuationToken" not in answer.json:
            break
        assert len(page) == size
        query = f"?pageSize={size}&continuationToken={quote(answer.json['continuationToken'])}"
    assert found == (await ask(bot, crowd, "/members")).json


@pytest.mark.parametrize(
    "query", ["?pageSize=0", "?pageSize=-1", "?pageSize=x", "?continuationToken=%F0", "?continuationToken=bm9ib2R5"]
)
async def test_a_page_that_cannot_be_is_refused(bot: ScriptedBot, crowd: str, query: str) -> None:
    answer = await ask(bot, crowd, f"/pagedmembers{query}")
    assert (answer.status, answer.json["error"]["code"]) == (400, "BadArgument")


async def test_who_was_removed_is_gone_and_joins_again_by_speaking(
    client: DirectLine, bot: ScriptedBot, crowd: str
) -> None:
    for _ in range(2):
        answer = await ask(bot, crowd, "/members/ann", "DELETE")
        assert (answer.status, answer.json) == (200, None)
    assert (await ask(bot, crowd, "/members/ann")).status == 404
    heard = len(bot.received)
    said = {"type": "message", "text": "back", "from": {"id": "ann"}}
    assert (await client.send(crowd, said)).status == 200
    joined = [each.activity["membersAdded"] for each in bot.received[heard:] if each.type == "conversationUpdate"]
    assert joined == [[{"id": "ann"}]]
    assert (await ask(bot, crowd, "/members/ann")).status == 200


async def test_a_bot_cannot_remove_itself(bot: ScriptedBot, crowd: str) -> None:
    assert (await ask(bot, crowd, "/members/bot", "DELETE")).status == 400
    assert (await ask(bot, crowd, "/members/bot")).json == OURS


@pytest.mark.parametrize("path", ["/members", "/members/bot", "/pagedmembers", "/activities/x/members"])
async def test_members_of_another_bots_conversation_are_unknown(bot: ScriptedBot, crowd: str, path: str) -> None:
    nowhere = await bot.request("GET", f"{bot.service_url(crowd)}/v3/conversations/nowhere-at-all{path}")
    assert nowhere.status == 404
    stranger = bot.service_url(crowd).rpartition("/")[0] + "/not-a-key"
    assert (await bot.request("GET", f"{stranger}/v3/conversations/{crowd}{path}")).status == 404


# Conversations that bots start


@pytest.mark.bot_item(71)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_anonymous_bot_may_neither_start_nor_list_conversations(
    bot: ScriptedBot, crowd: str, method: str
) -> None:
    body = {"members": [{"id": "ann"}]} if method == "POST" else None
    answer = await bot.request(method, f"{bot.service_url(crowd)}/v3/conversations", json=body)
    assert (answer.status, answer.json["error"]["code"]) == (403, "BadArgument")


class Caller(NamedTuple):
    """A bot that shows its token, if it has one."""

    served: Served
    token: str | None

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        headers = () if self.token is None else (f"Authorization: Bearer {self.token}",)
        return await self.served.ask(method, path, *headers, body=body)


@asynccontextmanager
async def a_connector(path: Path, **changes: object) -> AsyncIterator[tuple[Channel, Caller]]:
    """The connector of a bot with an app id that may start conversations, unless `changes` say otherwise."""
    trusted = {"app_id": "app-1", "app_secrets": (digest(APP_SECRET),), "create_conversations": True}
    clock = TestClock()
    bots = two_bots(bot=msgspec.structs.replace(BOT, **(trusted | changes)))
    channel = Channel(MemoryStore(clock), ScriptedTransport(), clock, registry=bots)
    blobs = FileBlobs(path)
    await blobs.open()
    bounds = UploadBounds(20, 262_144, None)
    files = Attachments(blobs, channel.store, channel.activities, clock, bounds, store_wait_s=5)
    rules = HttpRules(deadline_s=10, body_bytes=1 << 20, cross_origin=False)
    conversations = BotConversations(channel.store, channel.bots, channel.repeats, b"k" * 32, members=1000)
    issuers, keys = HttpIssuers(3600), SigningKeys(channel.store, clock, lead_s=90_000)
    tokens = BotTokens(bots, keys, issuers, clock, issuer="https://landline.example", life_s=3600)
    app_id = bots.bot("bot").app_id
    token = None if app_id is None else (await tokens.grant(app_id, APP_SECRET, None)).token
    connector = Connector(bots, tokens, channel.bots, conversations, channel.members, files, rules)
    async with serving(Router(connector.routes())) as served:
        yield channel, Caller(served, token)
    await issuers.close()
    await channel.delivery.close()
    await blobs.close()


async def post(served: Caller, path: str, body: object) -> tuple[int, dict[str, object]]:
    answer = await served.ask("POST", f"/b/key-1{path}", body=json.dumps(body).encode())
    return answer.status, json.loads(answer.body)


@pytest.mark.bot_item(69, 70)
@pytest.mark.parametrize("name", ["bot", "agent"])
async def test_a_bot_with_an_app_id_starts_a_conversation_and_speaks_there(tmp_path: Path, name: str) -> None:
    """Behind the connector alone; tests/checklist/test_bot_trust.py has the same over the whole way."""
    async with a_connector(tmp_path) as (channel, served):
        status, created = await post(
            served,
            "/v3/conversations",
            {
                "isGroup": False,
                name: {"id": "somebody-else"},
                "members": [{"id": "ann", "name": "Ann"}, {"id": "bot"}],
                "activity": {"type": "message", "text": "first", "from": {"id": "ann"}},
                "topicName": "ignored",
            },
        )
        assert status == 201, created
        assert set(created) == {"id", "activityId", "serviceUrl"}
        assert created["serviceUrl"] == BOT.service_url
        sends = f"/v3/conversations/{created['id']}/activities"
        assert (await post(served, sends, {"type": "message", "text": "second"}))[0] == 200
        for reply_to in (created["activityId"], created["id"]):
            assert (await post(served, f"{sends}/{reply_to}", {"type": "message", "text": "more"}))[0] == 200
        conversation = await channel.conversations.find(channel.secret, str(created["id"]))
        assert await channel.texts(conversation) == ["first", "second", "more", "more"]
        assert conversation.user is not None
        assert conversation.user.id == "ann"


@pytest.mark.bot_item(69)
async def test_a_conversation_without_first_words_is_empty(tmp_path: Path) -> None:
    async with a_connector(tmp_path) as (channel, served):
        status, created = await post(served, "/v3/conversations", {"members": [{"id": "ann"}, {"id": "bob"}]})
        assert status == 201
        assert set(created) == {"id", "serviceUrl"}
        conversation = await channel.conversations.find(channel.secret, str(created["id"]))
        assert (conversation.head, conversation.user) == (0, None)
        assert [m.account.id for m in await channel.store.members(conversation.id)] == ["bot", "ann", "bob"]


async def test_the_bot_hears_of_the_user_when_that_one_has_come(tmp_path: Path) -> None:
    async with a_connector(tmp_path) as (channel, served):
        _, created = await post(served, "/v3/conversations", {"members": [{"id": "ann"}]})
        transport = channel.transport
        assert isinstance(transport, ScriptedTransport)
        assert transport.joins == []
        conversation = await channel.conversations.find(channel.secret, str(created["id"]))
        await channel.send(conversation, "here I am", "ann")
        assert transport.joins == [["bot", "ann"]]


@pytest.mark.bot_item(69)
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "BadArgument"),
        ({"members": []}, "BadArgument"),
        ({"members": [{"id": "bot"}]}, "BadArgument"),
        ({"members": {}}, "BadArgument"),
        ({"members": ["ann"]}, "BadArgument"),
        ({"members": [{"name": "Ann"}]}, "MissingProperty"),
        ({"members": [{"id": 7.5}]}, "BadArgument"),
        ({"members": [{"id": "ann", "name": "A" * 257}]}, "BadArgument"),
        ({"members": [{"id": f"user-{number}"} for number in range(101)]}, "BadArgument"),
        ({"members": [{"id": "ann"}], "activity": {"text": "no type"}}, "MissingProperty"),
        ({"members": [{"id": "ann"}], "activity": "text"}, "BadArgument"),
        ([], "BadArgument"),
    ],
)
async def test_a_conversation_that_cannot_be_is_not_started(tmp_path: Path, body: object, code: str) -> None:
    async with a_connector(tmp_path) as (channel, served):
        status, answer = await post(served, "/v3/conversations", body)
        assert status == 400
        assert answer["error"]["code"] == code  # type: ignore[index]
        assert await channel.store.conversations_of_bot("bot", 0, 10) == []


@pytest.mark.bot_item(71)
async def test_a_bot_lists_its_own_conversations_page_by_page(tmp_path: Path) -> None:
    async with a_connector(tmp_path) as (channel, served):
        names = [(await channel.start(f"user-{number}")).id for number in range(120)]
        other = channel.tokens.grant("secret-of-another-bots-site-012345678")
        await channel.start(grant=other)
        found, query = [], ""
        while True:
            answer = await served.ask("GET", f"/b/key-1/v3/conversations{query}")
            assert answer.status == 200
            page = json.loads(answer.body)
            found += page["conversations"]
            if "continuationToken" not in page:
                break
            query = f"?continuationToken={page['continuationToken']}"
        assert [each["id"] for each in found] == names
        assert [member["id"] for member in found[7]["members"]] == ["bot", "user-7"]
        assert (await served.ask("GET", "/b/key-1/v3/conversations?continuationToken=x")).status == 400


@pytest.mark.bot_item(71)
@pytest.mark.parametrize("changes", [{"app_id": None}, {"create_conversations": False}])
async def test_a_bot_needs_an_app_id_and_the_setting(tmp_path: Path, changes: dict[str, object]) -> None:
    async with a_connector(tmp_path, **changes) as (_, served):
        assert (await post(served, "/v3/conversations", {"members": [{"id": "ann"}]}))[0] == 403
        assert (await served.ask("GET", "/b/key-1/v3/conversations")).status == 403
