"""The composition root: a server that starts completely or not at all, keeps its identity, and goes in good order."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.routing import Route
from structlog.testing import capture_logs

from landline.config import Settings
from landline.conformance.directline import Answer, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.errors import ConfigurationError, DataDirectoryError, StoreUnavailable
from landline.server.app import Server
from landline.server.exchange import Exchange, HttpRules, Resource
from support.landline import free_port

SECRET = "a-secret-from-the-environment"


def settings(tmp_path: Path, **given: Any) -> Settings:
    """The settings of a server in `tmp_path` on a free port, as an operator would have them who has none."""
    return Settings(**{"data": tmp_path / "data", "port": 0, **given})


class Screen:
    """A person who looks at the terminal; or nobody, if not `watched`."""

    def __init__(self, *, watched: bool = True) -> None:
        self.seen: list[str] = []
        self._watched = watched

    def __call__(self, secret: str) -> bool:
        if self._watched:
            self.seen.append(secret)
        return self._watched


class Running:
    """`async with Running(settings) as server:`"""

    def __init__(self, given: Settings, **more: Any) -> None:
        self.server = Server(given, **more)

    async def __aenter__(self) -> Server:
        await self.server.start()
        return self.server

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()


def client(server: Server, credential: str | None) -> DirectLine:
    """A client of `server`."""
    return DirectLine(f"{server.url}/v3/directline", credential)


async def status_with(server: Server, credential: str) -> int:
    """What a start with this credential is answered."""
    async with client(server, credential) as direct_line:
        return (await direct_line.start()).status


async def get(url: str) -> tuple[int, str]:
    """Status and text of any path."""
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as plug:
        return plug.connect_ex(("127.0.0.1", port)) != 0


# Starting


async def test_first_start_without_any_configuration_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Running(Settings(port=0)) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert (await get(f"{server.url}/live"))[0] == 200
        assert (await get(f"{server.url}/ready"))[0] == 200
        assert (await get(server.url))[0] == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["landline-data"]


async def test_health_is_told_without_a_body_to_who_asks_with_head(tmp_path: Path) -> None:
    """On one connection, where a body would be taken for the next answer."""
    async with Running(settings(tmp_path)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.listener.addresses[0][1])
        heads = []
        for path in ("/live", "/ready"):
            for method in ("HEAD", "GET"):
                writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                heads.append(re.sub(r"x-correlating-operationid: \w+|date: .*", "", head))
            assert heads[-1] == heads[-2]
            assert heads[-1].startswith("http/1.1 200")
            body = await reader.readexactly(len(f'{{"status":"{path[1:]}"}}'))
            assert body.decode() == f'{{"status":"{path[1:]}"}}'
        writer.close()


async def test_directory_is_private_from_its_first_moment(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        async with Running(settings(tmp_path)):
            pass
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    for path in (tmp_path / "data").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


async def test_port_that_is_taken_ends_the_start_before_the_directory_is_touched(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigurationError, match=rf"^port: cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            await Server(settings(tmp_path, port=port)).start()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid", "a..b", "x" * 80])
async def test_host_that_is_not_here_is_named(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^host: "):
        await Server(settings(tmp_path, host=host)).start()


async def test_second_server_on_the_same_directory_does_not_start_and_disturbs_nobody(tmp_path: Path) -> None:
    async with Running(settings(tmp_path, secret=SECRET)) as first:
        second = Server(settings(tmp_path))
        with pytest.raises(DataDirectoryError, match="in use"):
            await second.start()
        await second.stop()
        assert refuses(int(second_port(second)))
        assert await status_with(first, SECRET) == 201


def second_port(server: Server) -> int:
    """The port that a server which did not start may still hold; 1 if it never had one."""
    return server.listener.addresses[0][1] if hasattr(server, "listener") else 1


@pytest.mark.parametrize("content", [b"", b"no certificate", None], ids=["empty", "broken", "missing"])
async def test_start_that_fails_late_leaves_nothing_behind(tmp_path: Path, content: bytes | None) -> None:
    authorities = tmp_path / "authorities.pem"
    if content is not None:
        authorities.write_bytes(content)
    port = free_port()
    failing = Server(settings(tmp_path, port=port, bot_ca_file=authorities))
    with pytest.raises(ConfigurationError, match=r"^bot_ca_file: [^\n]+$"):
        await failing.start()
    assert refuses(port)
    async with Running(settings(tmp_path, port=port)):
        pass
    await failing.stop()


async def test_routes_of_others_are_served_and_hide_none_of_ours(tmp_path: Path) -> None:
    async def hello(exchange: Exchange) -> None:
        await exchange.json(200, b'"hello"')

    def more(server: Server) -> list[Route]:
        assert server.channel.tokens
        assert server.store
        rules = HttpRules(deadline_s=5, body_bytes=100)
        return [Route(path, Resource(path, rules, GET=hello)) for path in ("/demo", "/", "/live")]

    async with Running(settings(tmp_path), more=more) as server:
        assert await get(f"{server.url}/demo") == (200, '"hello"')
        assert await get(f"{server.url}/") == (200, '"hello"')
        assert await get(f"{server.url}/live") == (200, '{"status":"live"}')


# Secrets


async def test_first_secret_is_shown_once_and_never_again(tmp_path: Path) -> None:
    screen = Screen()
    async with Running(settings(tmp_path), show_secret=screen) as server:
        (secret,) = screen.seen
        assert len(secret) >= 43, "256 random bits"
        assert re.fullmatch(r"[A-Za-z0-9._-]+", secret)
        assert await status_with(server, secret) == 201
    async with Running(settings(tmp_path), show_secret=screen) as server:
        assert len(screen.seen) == 1
        assert await status_with(server, secret) == 201
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert not (tmp_path / "data" / "first-secret").exists()


async def test_where_nobody_watches_the_first_secret_goes_to_a_private_file_and_its_path_to_the_log(
    tmp_path: Path,
) -> None:
    path = tmp_path / "data" / "first-secret"
    with capture_logs() as logged:
        async with Running(settings(tmp_path)) as server:
            secret = path.read_text().strip()
            assert await status_with(server, secret) == 201
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [event for event in logged if event.get("path") == str(path)]
    assert secret not in repr(logged)
    path.unlink()
    async with Running(settings(tmp_path)) as server:
        assert not path.exists()
        assert await status_with(server, secret) == 201


async def test_secret_that_nobody_could_see_opens_nothing(tmp_path: Path) -> None:
    """Shown before kept: a crash between the two must not leave a secret that exists and that nobody knows."""

    def crash(secret: str) -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await Server(settings(tmp_path), show_secret=crash).start()
    screen = Screen()
    async with Running(settings(tmp_path), show_secret=screen) as server:
        assert await status_with(server, screen.seen[0]) == 201


async def test_who_could_look_in_or_replace_the_data_directory_is_told_of(tmp_path: Path) -> None:
    data = tmp_path / "shared" / "data"
    data.mkdir(parents=True, mode=0o700)
    with capture_logs() as logged:
        async with Running(settings(data.parent)):
            pass
        data.chmod(0o755)
        data.parent.chmod(0o777)
        async with Running(settings(data.parent)):
            pass
    told = [(each["event"], each["mend"]) for each in logged if "mend" in each]
    assert told == [
        ("other users may look into the data directory", f"chmod -R go= {data}"),
        ("other users may replace the data directory", f"chmod go-w {data.parent}"),
    ]


async def test_secret_from_the_environment_is_enough_and_is_not_kept(tmp_path: Path) -> None:
    screen = Screen()
    async with Running(settings(tmp_path, secret=SECRET), show_secret=screen) as server:
        assert await status_with(server, SECRET) == 201
        assert await status_with(server, SECRET + "x") == 403
    assert screen.seen == []
    assert not (tmp_path / "data" / "first-secret").exists()
    kept = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert SECRET.encode() not in kept


async def test_secret_from_the_environment_works_beside_the_first_one(tmp_path: Path) -> None:
    screen = Screen()
    async with Running(settings(tmp_path), show_secret=screen):
        pass
    async with Running(settings(tmp_path, secret=SECRET), show_secret=screen) as server:
        assert [await status_with(server, each) for each in (*screen.seen, SECRET)] == [201, 201]


@pytest.mark.item(36)
async def test_taking_the_secret_out_of_the_environment_is_a_rotation(tmp_path: Path) -> None:
    """Item 36, its first half, with the one key that can be rotated in this version: revoking comes with the admin API.

    The old secret opens nothing, a first one is made in its place, and who has a token notices nothing (4.5)."""
    async with Running(settings(tmp_path, secret=SECRET)) as server, client(server, SECRET) as backend:
        started = await backend.start()
    screen = Screen()
    async with Running(settings(tmp_path), show_secret=screen) as server:
        assert len(screen.seen) == 1
        assert await status_with(server, SECRET) == 403
        assert await status_with(server, screen.seen[0]) == 201
        async with client(server, started.token) as page:
            answers = [
                await page.activities(started.conversation_id),
                await page.refresh(),
                await page.reconnect(started.conversation_id),
            ]
    assert [answer.status for answer in answers] == [200, 200, 200]


# Who it is, also after a restart


async def bots_address(server: Server, bot: ScriptedBot, count: int) -> str:
    """The service URL that the bot is told in its next activity."""
    async with client(server, SECRET) as direct_line:
        await direct_line.start()
    await bot.wait_for(lambda each: len(bot.received) > count)
    return str(bot.received[-1].activity["serviceUrl"])


@pytest.mark.bot_item(5)
async def test_service_url_is_the_listeners_own_and_the_same_after_a_restart(tmp_path: Path) -> None:
    port = free_port()
    async with ScriptedBot() as bot:
        seen = []
        for count in range(2):
            given = settings(tmp_path, port=port, bot=bot.endpoint, secret=SECRET)
            async with Running(given) as server:
                seen.append(await bots_address(server, bot, count))
    assert seen[0] == seen[1]
    assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/b/[A-Za-z0-9_-]{{27,}}/", seen[0])


@pytest.mark.parametrize(
    ("given", "begin"),
    [
        ({"host": "0.0.0.0"}, r"http://localhost:\d+/b/"),
        ({"service_url": "https://internal:8443/conn/"}, "https://internal:8443/conn/b/"),
        ({"public_url": "https://chat.example"}, r"http://127\.0\.0\.1:\d+/b/"),
    ],
    ids=["all addresses", "configured", "never the public one"],
)
async def test_service_url_is_never_taken_from_a_request(tmp_path: Path, given: dict[str, Any], begin: str) -> None:
    async with ScriptedBot() as bot:
        chosen = settings(tmp_path, bot=bot.endpoint, secret=SECRET, **given)
        async with Running(chosen) as server:
            assert re.match(begin, await bots_address(server, bot, 0))


@pytest.mark.bot_item(54)
async def test_urls_with_prefixes_work_with_and_without_a_proxy_that_takes_them_away(tmp_path: Path) -> None:
    """Bot-side item 54 for the operations of this version: send and reply."""
    given = {"public_url": "https://chat.example/chat/", "service_url": "http://internal/conn"}
    chosen = settings(tmp_path, secret=SECRET, **given)
    async with Running(chosen) as server:
        for prefix in ("/chat", "/conn", ""):
            async with DirectLine(f"{server.url}{prefix}/v3/directline", SECRET) as direct_line:
                started = await direct_line.start()
                assert started.stream_url.startswith("wss://chat.example/chat/v3/directline/conversations/")
                here = re.sub(
                    r"^wss://chat.example/chat", server.url.replace("http", "ws") + prefix, started.stream_url
                )
                async with direct_line.stream(here) as stream:
                    key = server.registry.bot("bot").service_key
                    path = f"{server.url}{prefix}/b/{key}/v3/conversations/{started.conversation_id}/activities"
                    for more in ("", "/x"):
                        said = await say(path + more)
                        assert (await stream.next_activity())["id"] == said
                unknown = await direct_line.request("GET", "/nothing")
                assert unknown.error == (404, "BadArgument")


async def say(url: str) -> str:
    """Send a message to the connector; its id."""
    activity = {"type": "message", "text": "hello"}
    async with aiohttp.ClientSession() as session, session.post(url, json=activity) as answer:
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["id"])


@pytest.mark.item(192)
async def test_only_the_api_of_clients_answers_other_origins(tmp_path: Path) -> None:
    """Item 192 for what this version serves: the rest of its list comes with its endpoints."""
    origin = {"Origin": "https://www.example.org"}
    async with Running(settings(tmp_path)) as server, aiohttp.ClientSession(headers=origin) as session:
        for path in ("/", "/live", "/ready", "/nothing", "/b/key/v3/conversations/c/activities", "/b/key"):
            for method in ("GET", "POST", "OPTIONS"):
                async with session.request(method, server.url + path) as answer:
                    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
                    assert answer.headers["X-Correlating-OperationId"]
        for path in ("/v3/directline", "/v3/directline/", "/v3/directline/nothing", "/v3/directline/conversations"):
            for method in ("GET", "POST", "OPTIONS", "PUT"):
                async with session.request(method, server.url + path) as answer:
                    assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
                    assert answer.headers["Referrer-Policy"] == "no-referrer"
                    assert answer.headers["X-Correlating-OperationId"]


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        ((), True),
        (("*",), True),
        (("https://WWW.example.org:443/",), True),
        (("https://other.example", "https://www.example.org"), True),
        (("https://other.example",), False),
    ],
)
async def test_list_of_origins_is_compared_as_origins_are(
    tmp_path: Path, origins: tuple[str, ...], allowed: bool
) -> None:
    origin = "https://www.example.org"
    async with Running(settings(tmp_path, cors_origins=origins)) as server, aiohttp.ClientSession() as session:
        for path in ("/v3/directline/conversations", "/v3/directline/conversations/x/stream"):
            for more in ({}, {"Upgrade": "websocket", "Connection": "Upgrade"}):
                async with session.get(server.url + path, headers={"Origin": origin, **more}) as answer:
                    assert answer.status >= 400
                    assert answer.headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)


async def test_without_a_bot_everything_works_but_the_answer(tmp_path: Path) -> None:
    async with Running(settings(tmp_path, secret=SECRET)) as server, client(server, SECRET) as direct_line:
        started = await direct_line.start()
        assert started.status == 201
        async with direct_line.stream(started.stream_url) as stream:
            sent = await direct_line.send(started.conversation_id, "is anybody there?")
            assert sent.error == (502, "BotError")
            assert "no bot endpoint is configured" in sent.json["error"]["message"]
            await stream.until_text("is anybody there?")
        page = await direct_line.activities(started.conversation_id)
        assert [each["text"] for each in page.activities] == ["is anybody there?"]


# Stopping


async def test_stop_may_be_repeated_and_may_come_before_a_start(tmp_path: Path) -> None:
    server = Server(settings(tmp_path))
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    async with Running(settings(tmp_path)):
        pass


async def test_after_a_stop_nothing_of_the_server_is_left(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    files = open_files()
    async with (
        ScriptedBot() as bot,
        Running(settings(tmp_path, bot=bot.endpoint, secret=SECRET)) as server,
        client(server, SECRET) as direct_line,
    ):
        started = await direct_line.start()
        assert (await direct_line.send(started.conversation_id, "hello")).status == 200
    with pytest.raises(StoreUnavailable):
        await server.store.get("deployment-key")
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert open_files() <= files


def open_files() -> set[str]:
    """What this process has open, besides what is its own affair."""
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:
            continue
    return {name for name in found if not name.startswith(("/dev/", "pipe:", "anon_inode:"))}


async def test_what_was_accepted_before_a_stop_is_there_after_the_next_start(tmp_path: Path) -> None:
    async with Running(settings(tmp_path, secret=SECRET)) as server, client(server, SECRET) as direct_line:
        started = await direct_line.start()
        await direct_line.send(started.conversation_id, "before")
        page = await direct_line.activities(started.conversation_id)
    async with Running(settings(tmp_path, secret=SECRET)) as server, client(server, started.token) as direct_line:
        assert (await direct_line.activities(started.conversation_id)).activities == page.activities
        rest = await direct_line.activities(started.conversation_id, page.watermark)
        assert (rest.activities, rest.replay) == ([], "complete")


def requests(logged: list[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """The lines that stand for a request each."""
    return [event for event in logged if "operation" in event]


@pytest.mark.bot_item(94)
async def test_no_log_line_has_a_secret_and_every_answer_has_a_log_line(tmp_path: Path) -> None:
    """Bot-side item 94: secret, token, ticket, service key, texts, user ids; of bot tokens see test_bot_trust.py."""
    answers: list[Answer] = []
    with capture_logs() as logged:
        async with ScriptedBot() as bot:
            given = settings(tmp_path, bot=bot.endpoint, secret=SECRET, bot_timeout_s=1)
            async with Running(given) as server, client(server, SECRET) as direct_line:
                key = server.registry.bot("bot").service_key
                started = await direct_line.start(user={"id": "dl_private", "name": "Private Name"})
                answers += [started, await direct_line.generate(), await direct_line.reconnect(started.conversation_id)]
                token = direct_line.using(started.token)
                stream_path = started.stream_url.partition("/v3/directline")[2]
                answers.append(await token.send(started.conversation_id, "private text"))
                await bot.refuse()
                answers += [
                    await token.send(started.conversation_id, "private text"),
                    await token.activities(started.conversation_id),
                    await token.refresh(),
                    await token.request("GET", stream_path),
                    await token.handshake(started.stream_url + "x"),
                    await token.handshake(started.stream_url),
                    await token.request("PUT", stream_path),
                    await token.request("GET", f"/{SECRET}"),
                    await direct_line.using(started.token + "x").refresh(),
                ]
                await say(f"{server.url}/b/{key}/v3/conversations/{started.conversation_id}/activities")
                async with aiohttp.ClientSession() as session:
                    async with session.post(f"{server.url}/b/{key}/v3/conversations/nowhere99/activities") as answer:
                        assert answer.status == 404
                    async with session.post(f"{server.url}/b/{key}x/v3/conversations/c/activities") as answer:
                        assert answer.status == 404
    ids = [answer.headers["X-Correlating-OperationId"] for answer in answers]
    assert len(set(ids)) == len(ids)
    assert set(ids) <= {event["operation"] for event in requests(logged)}
    ticket = started.stream_url.partition("&t=")[2]
    said = repr(logged)
    for private in (SECRET, started.token, ticket, key, "private text", "dl_private", "Private Name"):
        assert private
        assert private not in said


async def test_stop_that_is_cut_short_lets_go_of_everything_all_the_same(tmp_path: Path) -> None:
    server = Server(settings(tmp_path, secret=SECRET, drain_s=600))
    await server.start()
    async with client(server, SECRET) as direct_line:
        started = [await direct_line.start() for _ in range(2)]
        async with (
            direct_line.stream(started[0].stream_url) as one,
            direct_line.stream(started[1].stream_url),
        ):
            stopping = asyncio.create_task(server.stop())
            await one.until_closed()
            stopping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stopping
    async with Running(settings(tmp_path)):
        pass
