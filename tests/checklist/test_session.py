"""`session/getsessionid`: who may know the browser's session, and which cookies and headers come with it (5.7)."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.directline import Answer, DirectLine
from support.landline import SECRET, Landline
from support.operator import Operator

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERE, ELSEWHERE = "https://www.example.org", "https://evil.example"
PATH = "/session/getsessionid"
NOT_TRUSTED = (403, "ServiceError")
_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def operator(landline: Landline) -> AsyncIterator[Operator]:
    async with Operator(landline) as operator:
        yield operator


@pytest_asyncio.fixture(loop_scope="module")
async def page(client: DirectLine) -> DirectLine:
    """A page whose token trusts its origin."""
    return client.using((await client.generate(trustedOrigins=[HERE])).token).at(HERE)


def cookie_of(answer: Answer) -> str:
    """The cookie that a browser would send from now on; fails unless there is one, with its attributes."""
    (morsel,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    assert (morsel.key, morsel["path"], morsel["max-age"]) == ("dl_session", "/v3/directline", "86400")
    assert (morsel["httponly"], morsel["secure"], morsel["samesite"]) == (True, True, "None")
    return morsel.value


async def ask(client: DirectLine, cookie: str | None = None) -> Answer:
    return await client.request("GET", PATH, headers={} if cookie is None else {"Cookie": f"a=b; dl_session={cookie}"})


@pytest.mark.item(177)
async def test_a_trusted_page_is_told_the_session_of_its_browser(page: DirectLine) -> None:
    first = await ask(page)
    assert first.status == 200
    assert list(first.json) == ["sessionId"]
    cookie = cookie_of(first)
    assert first.json["sessionId"] not in (None, "", cookie)
    second = await ask(page, cookie)
    assert second.json == first.json
    assert "Set-Cookie" not in second.headers
    other = await ask(page)
    assert other.json != first.json
    assert cookie_of(other) != cookie


@pytest.mark.item(177)
async def test_nobody_else_is(client: DirectLine, operator: Operator) -> None:
    listed = client.using((await client.generate(trustedOrigins=[HERE])).token)
    assert (await ask(listed.at(ELSEWHERE))).error == NOT_TRUSTED
    assert (await ask(listed)).error == NOT_TRUSTED
    unlisted = client.using((await client.generate()).token)
    refused = await ask(unlisted.at(HERE))
    assert refused.error == NOT_TRUSTED
    assert refused.json["error"]["message"] == "Trusted Origin list is empty."
    secret = await operator.add_site(f"session-{next(_numbers)}", trusted_origins=[ELSEWHERE])
    overruled = client.using((await client.using(secret).generate(trustedOrigins=[HERE])).token)
    assert (await ask(overruled.at(HERE))).error == NOT_TRUSTED
    assert (await ask(overruled.at(ELSEWHERE))).status == 200


async def test_enhanced_authentication_changes_nothing_here(client: DirectLine, operator: Operator) -> None:
    secret = await operator.add_site(f"session-{next(_numbers)}", trusted_origins=[HERE], enhanced_authentication=True)
    page = client.using((await client.using(secret).generate(user={"id": "dl_u"})).token)
    assert (await ask(page.at(HERE))).status == 200
    assert (await ask(page.at(ELSEWHERE))).error == NOT_TRUSTED


async def test_only_a_token_has_a_session(client: DirectLine) -> None:
    assert (await ask(client.using(None).at(HERE))).error == (401, "BadArgument")
    assert (await ask(client.using(SECRET).at(HERE))).error == (403, "BadArgument")
    assert (await page_method(client, "POST")).status == 405


async def page_method(client: DirectLine, method: str) -> Answer:
    return await client.request(method, PATH)


@pytest.mark.parametrize("made_up", ["", "short", "x" * 42 + "!", "x" * 44])
async def test_a_cookie_that_is_none_of_ours_is_replaced(page: DirectLine, made_up: str) -> None:
    assert cookie_of(await ask(page, made_up)) != made_up


@pytest.mark.item(14)
async def test_cookies_are_allowed_here_and_nowhere_else(client: DirectLine, page: DirectLine) -> None:
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answers = [
        await ask(page),
        await ask(page.using(None)),
        await ask(page.at(ELSEWHERE)),
        await page.request("OPTIONS", PATH, headers=preflight),
    ]
    for answer in answers:
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"
        assert answer.headers["Access-Control-Allow-Origin"] != "*"
    started = await page.start()
    elsewhere = [
        started,
        await page.refresh(),
        await page.activities(started.conversation_id),
        await page.reconnect(started.conversation_id),
        await page.send(started.conversation_id, {"type": "message", "from": {"id": "u"}}),
        await client.at(HERE).generate(),
        await page.request("OPTIONS", "/conversations", headers=preflight),
        await page.request("GET", "/nowhere"),
    ]
    assert [name for answer in elsewhere for name in answer.headers if "credentials" in name.lower()] == []
    without_origin = await page.using(None).request("GET", PATH, headers={})
    assert without_origin.status == 401


async def test_the_cookie_belongs_to_the_path_that_clients_see(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", public_url="https://chat.example.org/chat", drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        page = client.using((await client.generate(trustedOrigins=[HERE])).token).at(HERE)
        header = (await ask(page)).headers["Set-Cookie"]
        assert re.search(r"; Path=/chat/v3/directline(;|$)", header)
