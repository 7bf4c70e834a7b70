"""The admin API of a real server: who is let in, what is understood, and that nothing secret comes out of it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.core.bot import Profile, Site
from support.landline import SECRET, Landline
from support.operator import Operator, credential_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

BAD, MISSING, SYNTAX = (400, "BadArgument"), (400, "MissingProperty"), (400, "BadSyntax")
CALLS = [
    ("GET", "/bots"),
    ("POST", "/bots"),
    ("GET", "/bots/bot"),
    ("PATCH", "/bots/bot"),
    ("DELETE", "/bots/bot"),
    ("POST", "/bots/bot/service-keys"),
    ("DELETE", "/bots/bot/service-keys/x"),
    ("GET", "/sites"),
    ("POST", "/sites"),
    ("GET", "/sites/default"),
    ("PATCH", "/sites/default"),
    ("DELETE", "/sites/default"),
    ("DELETE", "/sites/default/secrets/1"),
    ("POST", "/sites/default/secrets/1/rotate"),
    ("POST", "/sites/default/secrets/1/revoke"),
    ("POST", "/sites/default/revocations"),
    ("POST", "/sites/default/tokens"),
    ("GET", "/authority"),
    ("GET", "/conversations/unknown-conversation"),
    ("GET", "/failures"),
    ("POST", "/failures/unknown/redeliver"),
    ("DELETE", "/conversations/unknown-conversation"),
    ("POST", "/forget"),
]
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Landline]:
    async with Landline(tmp_path_factory.mktemp("admin") / "data", drain_s=0) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def operator(landline: Landline) -> AsyncIterator[Operator]:
    async with Operator(landline) as operator:
        yield operator


@pytest_asyncio.fixture(loop_scope="module")
async def site(operator: Operator) -> str:
    site_id = f"site-{next(_numbers)}"
    await operator.add_site(site_id)
    return site_id


@pytest.mark.parametrize(("method", "path"), CALLS)
async def test_nobody_is_let_in_without_the_credential(landline: Landline, method: str, path: str) -> None:
    async with Operator(landline, "") as nobody:
        assert (await nobody.call(method, path, "{")).error == (401, "BadArgument")
    for wrong in (SECRET, credential_of(landline.data)[:-1], credential_of(landline.data) + "x", "\xe9"):
        async with Operator(landline, wrong) as stranger:
            assert (await stranger.call(method, path, "{")).error == (403, "BadArgument")


async def test_a_refusal_looks_the_same_whatever_is_there(landline: Landline) -> None:
    async with Operator(landline, "wrong") as stranger:
        answers = [await stranger.call("GET", path) for path in ("/sites/default", "/sites/nowhere", "/bots/nobody")]
        assert len({answer.body for answer in answers}) == 1


@pytest.mark.item(192)
async def test_no_page_of_another_origin_gets_anywhere(operator: Operator) -> None:
    """`Operator` fails for any answer with a CORS header."""
    page = {"Origin": "https://www.example.org", "Access-Control-Request-Method": "POST"}
    assert (await operator.call("OPTIONS", "/sites", **page)).status == 405
    assert (await operator.call("GET", "/sites", **page)).status == 200


async def test_paths_and_methods_that_are_none_are_said_to_be(operator: Operator) -> None:
    assert (await operator.call("GET", "/nothing")).status == 404
    refused = await operator.call("PUT", "/sites/default")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, PATCH, DELETE")


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/bots", "{", SYNTAX),
        ("/bots", "[]", BAD),
        ("/bots", {}, MISSING),
        ("/bots", {"id": ""}, BAD),
        ("/bots", {"id": 1}, BAD),
        ("/bots", {"id": "x" * 257}, BAD),
        ("/bots", {"id": "x", "endpoint": "ftp://x"}, BAD),
        ("/bots", {"id": "x", "endpoint": "http://user:password@x/"}, BAD),
        ("/bots", {"id": "x", "concurrency": 0}, BAD),
        ("/bots", {"id": "x", "service_key": "y"}, BAD),
        ("/bots", '{"id":"\\ud800"}', BAD),
        ("/sites", {"id": "x"}, MISSING),
        ("/sites", {"id": "x/y", "bot_id": "bot"}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "token_ttl_s": 0}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "token_ttl_s": "1"}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "trusted_origins": "https://a.b"}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "trusted_origins": ["a.b"]}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "trusted_origins": [f"https://a{n}.b" for n in range(257)]}, BAD),
        ("/sites", {"id": "x", "bot_id": "bot", "trusted_origins": ["https://a." + "b" * 3500]}, BAD),
        ("/sites/default/tokens", {"user": {"id": "u", "name": "n" * 257}}, BAD),
        ("/sites", {"id": "x", "bot_id": "nobody"}, (404, "BadArgument")),
        ("/sites", {"id": "default", "bot_id": "bot"}, (409, "Conflict")),
        ("/bots", {"id": "bot"}, (409, "Conflict")),
        ("/sites/default/revocations", {}, MISSING),
        ("/sites/default/revocations", {"ski": "short"}, BAD),
        ("/sites/default/tokens", {"user": {"id": 1.5}}, BAD),
        ("/sites/nowhere/tokens", {}, (404, "BadArgument")),
        ("/sites/nowhere/secrets/1/rotate", None, (404, "BadArgument")),
        ("/sites/default/secrets/3/rotate", None, (404, "BadArgument")),
        ("/bots/nobody/service-keys", None, (404, "BadArgument")),
    ],
)
async def test_what_cannot_be_understood_changes_nothing(
    operator: Operator, path: str, body: object, error: tuple[int, str]
) -> None:
    before = [await operator.done("GET", "/bots"), await operator.done("GET", "/sites")]
    assert (await operator.call("POST", path, body)).error == error
    assert [await operator.done("GET", "/bots"), await operator.done("GET", "/sites")] == before


ODD: list[Any] = [
    None,
    True,
    -1,
    1.5,
    1e308,
    10**400,
    2**64,
    "",
    "x" * 5000,
    "\0",
    "a\r\nb",
    "../..",
    "\U0001f600",
    "http://[",
    "http://[::1",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:x/",
    "http://bot..example/",
    f"http://{'a' * 64}.example/",
    "http://bot$.example/",
    [],
    {},
    [None],
    ["x"],
    ["="],
    ["a=https://["],
    ["a=https://a.example:99999/keys"],
    ["a=https://a.example/1", "a=https://a.example/2"],
    [f"{number}=https://a.example/" for number in range(33)],
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def narrow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Operator]:
    """The operator of a server whose bots may be on some hosts only, with one bot and one site to change."""
    async with (
        Landline(
            tmp_path_factory.mktemp("narrow") / "data", bot_allowed_hosts="127.0.0.1,localhost", drain_s=0
        ) as landline,
        Operator(landline) as operator,
    ):
        await operator.add_bot("odd", "http://127.0.0.1:1/")
        await operator.add_site("odd", "odd")
        yield operator


async def test_whatever_is_said_of_a_bot_or_a_site_is_taken_or_refused_in_words(narrow: Operator) -> None:
    async def said(method: str, path: str, body: object) -> None:
        answer = await narrow.call(method, path, body)
        assert answer.status in (200, 201, 400, 409), (path, body, answer)
        assert b"regex" not in answer.body, answer

    for value in ODD:
        for name in Profile.__struct_fields__:
            await said("PATCH", "/bots/odd", {name: value})
        for name in Site.__struct_fields__:
            await said("PATCH", "/sites/odd", {name: value})
        for path, body in (
            ("/sites/odd/revocations", {"ski": value}),
            ("/forget", {"user": value}),
            ("/sites/odd/tokens", {"user": value}),
            ("/sites/odd/tokens", {"user": {"id": "u", "name": value}}),
            ("/sites/odd/tokens", {"trustedOrigins": value}),
            ("/bots", value),
            ("/sites", value),
        ):
            await said("POST", path, body)


async def test_whatever_stands_in_a_path_or_a_query_is_found_or_not(narrow: Operator) -> None:
    for odd in (
        "%00",
        "%FF",
        "%2F",
        "%2E%2E",
        "%ED%A0%80",
        "x" * 2000,
        "a%0D%0Ab",
        "-1",
        "9" * 30,
        "abcdefgh%7C" + "9" * 30,
    ):
        for method, path in (
            ("GET", f"/bots/{odd}"),
            ("PATCH", f"/bots/{odd}"),
            ("DELETE", f"/bots/odd/service-keys/{odd}"),
            ("POST", f"/bots/odd/app-secrets/{odd}/rotate"),
            ("GET", f"/sites/{odd}"),
            ("GET", f"/sites?bot={odd}"),
            ("DELETE", f"/sites/odd/secrets/{odd}"),
            ("POST", f"/sites/odd/secrets/{odd}/rotate"),
            ("GET", f"/conversations/{odd}"),
            ("DELETE", f"/conversations/{odd}"),
            ("POST", f"/failures/{odd}/redeliver"),
            ("DELETE", f"/signing-keys/{odd}"),
        ):
            answer = await narrow.call(method, path, {})
            assert answer.status in (400, 404), (method, path, answer)


async def test_a_malformed_endpoint_is_refused_before_it_is_asked_where_it_lies(narrow: Operator) -> None:
    for endpoint in ("http://[", "http://[::1/", "http://127.0.0.1:99999/"):
        for method, path, body in (("POST", "/bots", {"id": "new"}), ("PATCH", "/bots/odd", {})):
            refused = await narrow.call(method, path, body | {"endpoint": endpoint})
            assert refused.error == BAD
            assert "'endpoint' is no URL that can be connected to" in refused.json["error"]["message"]
    refused = await narrow.call("PATCH", "/bots/odd", {"endpoint": "http://elsewhere.example/"})
    assert "bot_allowed_hosts" in refused.json["error"]["message"]


async def test_a_change_names_what_it_changes_and_null_is_the_default(operator: Operator, site: str) -> None:
    path = f"/sites/{site}"
    await operator.done("PATCH", path, {"token_ttl_s": 60, "trusted_origins": ["https://a.b/"]})
    changed = await operator.done("PATCH", path, {"sends_per_s": 2})
    assert (changed["token_ttl_s"], changed["sends_per_s"], changed["trusted_origins"]) == (60, 2, ["https://a.b"])
    changed = await operator.done("PATCH", path, {"token_ttl_s": None})
    assert (changed["token_ttl_s"], changed["sends_per_s"]) == (None, 2)
    for body in ({"id": "other"}, {"bot_id": "other"}, {"secrets": []}, {"bot_id": None}):
        assert (await operator.call("PATCH", path, body)).status == 400


async def test_changes_of_one_site_at_the_same_time_all_take_place(operator: Operator, site: str) -> None:
    names = ("token_ttl_s", "sends_per_s", "polls_per_s", "starts_per_s")
    changes = [operator.done("PATCH", f"/sites/{site}", {name: 7}) for name in names]
    rotations = [operator.rotate(site, key) for key in (1, 2, 1, 2)]
    await asyncio.gather(*changes, *rotations)
    now = await operator.done("GET", f"/sites/{site}")
    assert [now[name] for name in names] == [7, 7, 7, 7]
    assert len(now["former"]) == 3


async def test_a_name_with_any_character_is_a_name(operator: Operator) -> None:
    name = "a/b %?\u00e9\U0001f600"
    await operator.done("POST", "/bots", {"id": name})
    path = "/bots/a%2Fb%20%25%3F%C3%A9%F0%9F%98%80"
    assert (await operator.done("GET", path))["id"] == name
    await operator.done("DELETE", path)
    assert (await operator.call("GET", path)).status == 404


async def test_answers_tell_no_secret_but_the_new_one(landline: Landline, operator: Operator, site: str) -> None:
    async with ScriptedBot() as bot, DirectLine(landline.directline) as client:
        await operator.add_bot("telling", bot.endpoint)
        secret = await operator.add_site("telling", "telling")
        second = await operator.rotate("telling", 2)
        started = await client.using(secret).start()
        await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
        key = bot.service_url(started.conversation_id).rpartition("/")[2]
        answers = [
            await operator.call(method, path)
            for method, path in (
                ("GET", "/bots"),
                ("GET", "/bots/telling"),
                ("POST", "/bots/telling/service-keys"),
                ("GET", "/sites"),
                ("GET", "/sites/telling"),
                ("DELETE", "/sites/telling/secrets/2"),
                ("GET", f"/conversations/{started.conversation_id}"),
            )
        ]
    shown = b"".join(answer.body for answer in answers).decode() + landline.log
    assert len(key) >= 27
    for each in (secret, second, key, SECRET, credential_of(landline.data)):
        assert each not in shown


async def test_a_conversation_can_be_looked_up(landline: Landline, operator: Operator) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        started = await client.start(user={"id": "u1", "name": "Ann"})
        path = f"/conversations/{started.conversation_id}"
        found = await operator.done("GET", path)
        assert found["members"] == [
            {"id": "bot", "name": None, "bot": True},
            {"id": "u1", "name": "Ann", "bot": False},
        ]
        assert (found["bot_id"], found["activities"], found["last_activity"]) == ("bot", 0, None)
        await client.send(started.conversation_id, "what nobody else may read")
        found = await operator.done("GET", path)
        assert found["activities"] == 1
        assert found["last_activity"].endswith("Z")
        assert "nobody else" not in json.dumps(found)
    for unknown in ("unknown-conversation", "x", "%2e%2e"):
        assert (await operator.call("GET", f"/conversations/{unknown}")).error == (404, "BadArgument")


async def test_the_one_site_of_the_settings_can_be_switched_and_nothing_else(
    landline: Landline, operator: Operator
) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        assert (await operator.call("PATCH", "/sites/default", {"token_ttl_s": 9})).error == (409, "Conflict")
        assert (await operator.call("DELETE", "/sites/default")).error == (409, "Conflict")
        await operator.done("PATCH", "/sites/default", {"enabled": False})
        assert (await client.start()).status == 403
        await landline.restart()
        assert (await client.start()).status == 403
        await operator.done("PATCH", "/sites/default", {"enabled": True})
        assert (await client.start()).status == 201


async def test_rates_of_a_site_are_its_own(landline: Landline, operator: Operator) -> None:
    async with DirectLine(landline.directline) as client:
        slow = client.using(await operator.add_site("slow", sends_per_s=1))
        started = await slow.start(user={"id": "u1"})
        statuses = [(await slow.send(started.conversation_id, f"{n}")).status for n in range(3)]
        assert statuses == [502, 502, 429]


async def test_what_a_bot_did_not_take_is_offered_again_when_somebody_asks_for_it(operator: Operator) -> None:
    """It is the same activity; nothing of what it said is shown to operators."""

    async def failures() -> list[dict[str, object]]:
        known = (await operator.done("GET", "/failures"))["failures"]
        return [each for each in known if each["bot_id"] == "failing"]

    async with ScriptedBot() as bot, DirectLine(operator.landline.directline) as nobody:
        await operator.add_bot("failing", bot.endpoint)
        client = nobody.using(await operator.add_site(f"site-{next(_numbers)}", "failing"))
        conversation_id = (await client.start(user={"id": "ann"})).conversation_id
        await bot.wait_for(lambda each: each.conversation_id == conversation_id)
        bot.answer(500, {"printed": "t0p secret"})
        assert (await client.send(conversation_id, "do it")).error == (502, "BotRejectedActivity")
        (failure,) = await failures()
        assert failure["activity"] == f"{conversation_id}|0000000"
        assert (failure["bot_id"], failure["conversation"]) == ("failing", conversation_id)
        assert (failure["status"], failure["attempts"]) == (500, 1)
        assert not {"do it", "t0p secret"} & set(map(str, failure.values()))
        path = f"/failures/{conversation_id}%7C0000000/redeliver"
        assert (await operator.call("POST", path)).error == (502, "BotRejectedActivity")
        (failure,) = await failures()
        assert failure["attempts"] == 2
        bot.answer()
        assert (await operator.call("POST", path)).status == 204
        assert await failures() == []
        offered = [each.activity for each in bot.messages]
        assert [each["text"] for each in offered] == ["do it"] * 3
        assert offered[0] == offered[1] == offered[2]
        assert (await operator.call("POST", path)).error == (404, "BadArgument")
        await operator.call("DELETE", "/bots/failing")


@pytest.mark.item(163)
async def test_a_deleted_conversation_is_gone_for_everybody(landline: Landline, operator: Operator) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        started = await client.start(user={"id": "dl_gone"})
        conversation_id = started.conversation_id
        async with client.stream(started.stream_url) as stream:
            assert (await operator.call("DELETE", f"/conversations/{conversation_id}")).status == 204
            assert await stream.until_closed() == (4404, "conversation-gone")
        assert (await client.reconnect(conversation_id)).error == (404, "BadArgument")
        assert (await operator.call("DELETE", f"/conversations/{conversation_id}")).status == 404


async def test_a_person_is_forgotten_with_every_conversation_they_took_part_in(
    landline: Landline, operator: Operator
) -> None:
    async with DirectLine(landline.directline, SECRET) as client:
        theirs = [(await client.start(user={"id": "dl_forgotten"})).conversation_id for _ in range(3)]
        kept = (await client.start(user={"id": "dl_kept"})).conversation_id
        answer = await operator.call("POST", "/forget", {"user": "dl_forgotten"})
        assert (answer.status, answer.json) == (200, {"conversations": 3})
        assert [(await client.reconnect(each)).status for each in theirs] == [404] * 3
        assert (await client.reconnect(kept)).status == 200


async def test_a_person_whom_the_bot_removed_is_forgotten_as_well(landline: Landline, operator: Operator) -> None:
    """Section 9: all conversations with that member, and what they said there with it."""
    async with ScriptedBot() as bot, DirectLine(landline.directline) as nobody:
        await operator.add_bot("removing", bot.endpoint)
        client = nobody.using(await operator.add_site(f"site-{next(_numbers)}", "removing"))
        conversation_id = (await client.start()).conversation_id
        said = {"type": "message", "text": "I was here", "from": {"id": "zoe"}}
        assert (await client.send(conversation_id, said)).status == 200
        url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/members/zoe"
        assert (await bot.request("DELETE", url)).status == 200
        members = (await operator.done("GET", f"/conversations/{conversation_id}"))["members"]
        assert "zoe" not in [member["id"] for member in members]
        assert await operator.done("POST", "/forget", {"user": "zoe"}) == {"conversations": 1}
        assert (await client.reconnect(conversation_id)).status == 404
        await operator.call("DELETE", "/bots/removing")
