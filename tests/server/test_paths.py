"""One resource per path, however the path is written: encoded, with a slash at its end, behind a prefix (D-1, D-3)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from landline.server.exchange import Exchange, HttpRules, Resource
from landline.server.paths import Paths
from support.edges import Served, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANNERS = HttpRules(deadline_s=5, body_bytes=1000)
ACTIVITIES = "/v3/directline/conversations/{conversation}/activities"
REPLY = "/b/{key}/v3/conversations/{conversation}/activities/{activity}"
TEMPLATES = ("/", "/live", "/v3/directline/conversations", ACTIVITIES, REPLY)


def resource(template: str) -> Resource:
    """A resource that says which one it is, and with which variables."""

    async def tell(exchange: Exchange) -> None:
        variables = {name: exchange.path(name) for name in exchange.scope["path_params"]}
        await exchange.json(200, json.dumps([template, variables]).encode())

    return Resource(template, MANNERS, GET=tell)


def paths(*bases: str | None) -> Paths:
    """The paths of `TEMPLATES`, with these public addresses."""
    return Paths([Route(template, resource(template)) for template in TEMPLATES], Resource("unknown", MANNERS), bases)


class Stage:
    """A server for the whole file that serves whatever paths are put on it."""

    paths: Paths
    served: Served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.paths(scope, receive, send)


stage = Stage()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def raised() -> AsyncIterator[None]:
    """The stage is up."""
    async with serving(stage) as stage.served:
        yield


async def found(path: str, *bases: str | None) -> Any:
    """The template that `path` leads to and its variables, or the status of the answer."""
    stage.paths = paths(*bases)
    answer = await stage.served.ask("GET", path)
    assert not 300 <= answer.status < 400, "clients drop their Authorization on a redirect (D-3)"
    return json.loads(answer.body) if answer.status == 200 else answer.status


CONVERSATION = [ACTIVITIES, {"conversation": "abc-DEF_123"}]


@pytest.mark.parametrize(
    "path",
    [
        "/v3/directline/conversations/abc-DEF_123/activities",
        "/v3/directline/conversations/abc-DEF_123/activities/",
        "/v3/directline/conversations/abc-DEF_123/activities?watermark=1",
        "/v3/directline/conversations/abc-DEF_123/activities/?watermark=1",
        "/v3/directline/conversations/abc%2DDEF%5f123/activities",
        "/v3/directline/conversations/%61bc-DEF_123/activities/",
        "/v3/%64irectline/conversations/abc-DEF_123/activities",
        "/v3/directline/conversations/abc-DEF_123/activities//",
        "//v3/directline/conversations/abc-DEF_123/activities",
        "/v3/directline//conversations/abc-DEF_123/activities",
        "///v3//directline///conversations//abc-DEF_123//activities//?watermark=1",
        "//v3/%64irectline//conversations/abc%2DDEF_123/activities",
    ],
)
async def test_every_spelling_of_a_path_leads_to_the_same_resource(path: str) -> None:
    assert await found(path) == CONVERSATION


@pytest.mark.parametrize(
    "path",
    [
        "//live",
        "/live//",
        "//b/k/v3/conversations/c/activities/1",
        "/b//k/v3/conversations/c/activities/1",
        "/%62/k/v3/conversations/c/activities/1",
        "/b%2Fk/v3/conversations/c/activities/1",
        "/l%69ve",
        "/%2Flive",
        "/%2Fv3/directline/conversations",
        "/v3/directline/%2Fconversations",
        "//v3/directlinex/conversations",
        "/V3/directline/conversations",
        "/v3/directline/conversations%2Fabc-DEF_123%2Factivities",
        "/v3/directline/conversations/abc-DEF_123/activities%2F",
        "/v3/directline/conversations/%2F/activities/x",
        "/v3/directline",
        "/unknown",
        "/livefoo",
        "/live/more",
        "/v3/directline/../../live",
        "/v3/directline/conversations/./x/activities",
        "/%2e%2e/live",
        "/%",
        "/%00",
        "/%FF",
    ],
)
async def test_what_is_no_spelling_of_a_path_leads_nowhere(path: str) -> None:
    assert await found(path) == 404


@pytest.mark.bot_item(47)
@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("abc%7C0000001", "abc|0000001"),
        ("abc|0000001", "abc|0000001"),
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("a%25b", "a%b"),
        ("a%b", "a%b"),
        ("a%2525", "a%25"),
        ("%C3%A4", "ä"),
        ("%FF", "�"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%7B%7D", "{}"),
        ("a%3Fb%23c", "a?b#c"),
        ("history", "history"),
    ],
)
async def test_segment_is_decoded_exactly_once(written: str, meant: str) -> None:
    expected = [REPLY, {"key": "k", "conversation": "c", "activity": meant}]
    assert await found(f"/b/k/v3/conversations/c/activities/{written}") == expected
    assert await found(f"/b/%6B/v3/conversations/c/activities/{written}/") == expected


@pytest.mark.bot_item(100)
@pytest.mark.parametrize(
    "path",
    [
        "/b/k//v3/conversations/c/activities/1",
        "/b/k/v3//conversations///c/activities//1",
        "/b/k//v3/conversations/c/activities/1//",
        "/b/%6B//v3/conversations/c/activities/%31",
    ],
)
async def test_behind_the_key_of_a_bot_any_run_of_slashes_is_one(path: str) -> None:
    for prefix, bases in (("", ()), ("/chat", ("https://x/chat",)), ("/b", ("https://x/b",))):
        expected = [REPLY, {"key": "k", "conversation": "c", "activity": "1"}]
        assert await found(prefix + path, *bases) == expected


async def test_a_prefix_may_have_runs_of_slashes_only_in_front_of_the_direct_line_api() -> None:
    base = "https://x/chat"
    for path in ("//chat/v3/directline", "/chat//v3/directline", "/chat/v3//directline", "//chat///v3/directline/"):
        assert await found(f"{path}/conversations", base) == ["/v3/directline/conversations", {}]
    for path in ("//chat/live", "/chat//live", "//chat/b/k/v3/conversations/c/activities/1", "/chat/%6Cive"):
        assert await found(path, base) == 404
    assert await found("/ch%61t/live", base) == ["/live", {}]


async def test_root_is_the_root() -> None:
    assert await found("/") == ["/", {}]
    assert await found("/?x=1") == ["/", {}]


# Prefixes


@pytest.mark.parametrize(
    "base", ["https://chat.example/chat", "https://chat.example/chat/", "http://x:1/a/b/c", "http://x/%63hat%20room"]
)
async def test_prefix_of_the_public_url_may_be_there_or_be_taken_away_by_a_proxy(base: str) -> None:
    prefix = "/" + base.split("/", 3)[3].rstrip("/")
    for path in (
        "/v3/directline/conversations/abc-DEF_123/activities",
        "/v3/directline/conversations/abc%2DDEF_123/activities/",
    ):
        assert await found(path, base) == CONVERSATION
        assert await found(prefix + path, base) == CONVERSATION
    assert await found(prefix + "/live", base) == ["/live", {}]
    assert await found(prefix + "/", base) == await found(prefix, base) == ["/", {}]
    assert await found(prefix + "/unknown", base) == 404
    assert await found(prefix + prefix + "/live", base) == 404


async def test_prefix_is_one_only_where_a_segment_ends() -> None:
    assert await found("/chatter/live", "https://chat.example/chat") == 404
    assert await found("/chatlive", "https://chat.example/chat") == 404


async def test_public_and_service_url_may_have_different_prefixes() -> None:
    bases = ("https://chat.example/public", "http://internal:3000/for/bots", None, "https://chat.example")
    assert await found("/public/v3/directline/conversations/abc-DEF_123/activities", *bases) == CONVERSATION
    assert await found("/for/bots/live", *bases) == ["/live", {}]
    assert await found("/live", *bases) == ["/live", {}]
    assert await found("/for/live", *bases) == 404


@pytest.mark.parametrize("bases", [("http://x/a", "http://x/a/b"), ("http://x/a/b", "http://x/a")])
async def test_of_two_prefixes_one_may_lie_within_the_other(bases: tuple[str, str]) -> None:
    reply = [REPLY, {"key": "k", "conversation": "c", "activity": "1"}]
    for prefix in ("", "/a", "/a/b"):
        assert await found(f"{prefix}/b/k/v3/conversations/c/activities/1", *bases) == reply
        assert await found(f"{prefix}/live", *bases) == ["/live", {}]


@pytest.mark.parametrize("prefix", ["/v3", "/b", "/v3/directline"])
async def test_prefix_that_looks_like_a_path_of_ours_hides_none(prefix: str) -> None:
    base = f"https://chat.example{prefix}"
    for outer in ("", prefix):
        assert await found(f"{outer}/live", base) == ["/live", {}]
        assert await found(f"{outer}/v3/directline/conversations", base) == ["/v3/directline/conversations", {}]
        assert await found(f"{outer}/v3/directline/conversations/abc-DEF_123/activities", base) == CONVERSATION
        found_reply = await found(f"{outer}/b/k/v3/conversations/c/activities/1", base)
        assert found_reply == [REPLY, {"key": "k", "conversation": "c", "activity": "1"}]


async def test_paths_of_upgrades_are_read_in_the_same_way() -> None:
    """They come decoded, and there is no router behind them."""
    for path in ("/v3/directline/conversations/x/stream", "/chat/v3/directline/conversations/x/stream/"):
        assert paths("https://x/chat").within(path) == "/v3/directline/conversations/x/stream"


async def test_a_path_leads_to_the_same_place_every_time_and_no_other_path_does() -> None:
    """What a path leads to is remembered; so it must depend on nothing else."""
    stage.paths = paths()
    said = []
    for _ in range(2):
        for name in ("one", "two", "%6Fne", "x" * 300):
            answer = await stage.served.ask("GET", f"/v3/directline/conversations/{name}/activities")
            said.append(json.loads(answer.body)[1]["conversation"])
        assert (await stage.served.ask("GET", "/v3/directline/conversations/one")).status == 404
    assert said == ["one", "two", "one", "x" * 300] * 2
