"""What the page is served, and the two things that it alone may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import jwt
import pytest
from starlette.routing import BaseRoute

from landline.bots.http import HttpBotTransport
from landline.config import Settings
from landline.conformance.directline import Answer, DirectLine
from landline.demo.page import Behind, Page
from landline.demo.server import Demo
from landline.demo.watch import Watch
from landline.server.app import Server
from support.landline import SECRET


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


class Origin:
    """The page as a browser would send its requests, from whatever origin."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def ask(self, path: str, headers: dict[str, str] | None = None, **body: object) -> Answer:
        """POST `body` to the server; the origin is the server's own unless `headers` say otherwise."""
        headers = {"Origin": self.url, **(headers or {})}
        async with self._http.post(self.url + path, json=body, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read())


@pytest.fixture
def page(http: aiohttp.ClientSession, demo: Demo) -> Origin:
    return Origin(http, demo.url)


async def started(client: DirectLine, page: Origin) -> tuple[DirectLine, Answer]:
    """A conversation as the page starts it."""
    token = (await page.ask("/demo/token")).token
    client = client.using(token)
    return client, await client.start()


@pytest.fixture
async def client(demo: Demo) -> AsyncIterator[DirectLine]:
    async with DirectLine(f"{demo.url}/v3/directline") as client:
        yield client


async def test_the_token_opens_one_new_conversation_of_a_user_made_up_by_the_server(
    page: Origin, client: DirectLine
) -> None:
    answer = await page.ask("/demo/token")
    assert answer.status == 200
    assert answer.json["known"] is False
    assert answer.json["userId"].startswith("dl_")
    claims = jwt.decode(answer.token, options={"verify_signature": False})
    assert claims["user"] == answer.json["userId"]
    opened = await client.using(answer.token).start()
    assert (opened.status, opened.conversation_id) == (201, answer.conversation_id)
    other = await page.ask("/demo/token")
    assert other.conversation_id != answer.conversation_id
    assert other.json["userId"] != answer.json["userId"]


async def test_a_page_that_comes_back_gets_a_token_for_its_old_conversation(page: Origin, client: DirectLine) -> None:
    _, opened = await started(client, page)
    again = await page.ask("/demo/token", conversationId=opened.conversation_id)
    assert (again.conversation_id, again.json["known"]) == (opened.conversation_id, True)
    found = await client.using(again.token).reconnect(opened.conversation_id, "")
    assert found.status == 200
    claims = jwt.decode(again.token, options={"verify_signature": False})
    assert claims["user"] == again.json["userId"]


@pytest.mark.parametrize("unknown", ["", "no id", "A" * 22])
async def test_a_conversation_that_is_gone_becomes_a_new_one(page: Origin, unknown: str) -> None:
    answer = await page.ask("/demo/token", conversationId=unknown)
    assert (answer.status, answer.json["known"]) == (200, False)
    assert answer.conversation_id != unknown


@pytest.mark.parametrize("path", ["/demo/token", "/demo/cut", "/demo/bot"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://{host}"},
        # A name that somebody made to resolve to this machine: same origin, as far as the browser knows.
        {"Origin": "http://rebound.example:{port}", "Host": "rebound.example:{port}"},
        {"Origin": "http://127.0.0.1:1", "Host": "127.0.0.1:1"},
    ],
    ids=["other-origin", "null-origin", "no-origin", "other-scheme", "rebound-name", "other-port"],
)
async def test_only_the_page_of_this_listener_is_answered(page: Origin, path: str, headers: dict[str, str]) -> None:
    host = page.url.removeprefix("http://")
    filled = {name: value.format(host=host, port=host.split(":")[1]) for name, value in headers.items()}
    answer = await page.ask(path, filled, conversationId="A" * 22)
    assert answer.error == (403, "BadArgument")
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_localhost_is_a_name_of_the_listener(page: Origin) -> None:
    host = page.url.removeprefix("http://").replace("127.0.0.1", "localhost")
    answer = await page.ask("/demo/token", {"Origin": f"http://{host}", "Host": host})
    assert answer.status == 200


@pytest.mark.item(192)
async def test_no_other_origin_may_read_what_the_page_reads(page: Origin, http: aiohttp.ClientSession) -> None:
    """The demo's part of that statement; the connector's and the later paths' are shown with them."""
    for path in ("/demo/token", "/demo/cut", "/demo/bot"):
        asked = {"Origin": "http://elsewhere.example", "Access-Control-Request-Method": "POST"}
        async with http.options(page.url + path, headers=asked) as response:
            assert response.status == 405
            assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_a_cut_ends_all_streams_of_the_conversation_without_a_close_frame_and_no_other(
    page: Origin, client: DirectLine
) -> None:
    mine, opened = await started(client, page)
    _, foreign = await started(client, page)
    again = await mine.reconnect(opened.conversation_id, "")
    async with (
        client.stream(opened.stream_url) as one,
        client.stream(again.stream_url) as two,
        client.stream(foreign.stream_url) as other,
    ):
        answer = await page.ask("/demo/cut", conversationId=opened.conversation_id)
        assert (answer.status, answer.json) == (200, {"cut": 2})
        assert await one.until_closed() == (1006, "")
        assert await two.until_closed() == (1006, "")
        assert other.open
    assert (await page.ask("/demo/cut", conversationId=opened.conversation_id)).json == {"cut": 0}


@pytest.mark.parametrize("body", [{}, {"conversationId": "no id"}, {"conversationId": 7}])
async def test_a_cut_of_nothing_is_refused(page: Origin, body: dict[str, object]) -> None:
    assert (await page.ask("/demo/cut", **body)).error == (400, "BadArgument")


async def test_the_secret_stays_in_the_process(
    settings: Settings, http: aiohttp.ClientSession, capfd: pytest.CaptureFixture[str]
) -> None:
    demo = Demo(settings)
    await demo.start()
    said = await Origin(http, demo.url).ask("/demo/token")
    async with http.get(demo.url) as response:
        index = await response.text()
    await demo.stop()
    logged = capfd.readouterr()
    for text in (said.body.decode(), index, logged.out, logged.err):
        assert SECRET not in text


def nobody() -> Behind:
    """A bot that is never asked for."""
    return Behind("http://bot.invalid/", False, Watch(HttpBotTransport(connect_timeout_s=1), patience_s=1))


async def test_the_page_is_told_of_the_bot_of_the_demo(page: Origin) -> None:
    answer = await page.ask("/demo/bot")
    assert answer.json["own"] is False
    assert answer.json["standing"]["state"] == "connected"


async def test_without_the_bundle_the_server_works_and_the_page_says_what_is_missing(
    settings: Settings, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    static = tmp_path / "static"

    def routes(server: Server) -> Sequence[BaseRoute]:
        return Page(
            server.channel.tokens, server.store, server.streams, SECRET, nobody(), deadline_s=15, static=static
        ).routes()

    server = Server(settings, more=routes)
    await server.start()
    try:
        async with http.get(server.url) as response:
            assert response.status == 503
            assert response.content_type == "text/html"
            text = await response.text()
            for command in ("cd web", "npm ci", "npm run build"):
                assert command in text
        async with DirectLine(f"{server.url}/v3/directline", SECRET) as client:
            assert (await client.start()).status == 201
        # Building it is enough; nothing has to be restarted.
        (static / "assets").mkdir(parents=True)
        (static / "index.html").write_text("<!doctype html>built")
        (static / "assets" / "one.js").write_text("one")
        async with http.get(server.url) as response:
            assert (response.status, await response.text()) == (200, "<!doctype html>built")
        async with http.get(f"{server.url}/assets/one.js") as response:
            assert (response.status, await response.text()) == (200, "one")
        async with http.get(f"{server.url}/assets/two.js") as response:
            assert response.status == 404
    finally:
        await server.stop()
