"""The demo with the visitor's own bot: what is said when it is not there, or is no bot."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from click.testing import CliRunner

from landline.cli import main
from landline.config import Settings
from landline.conformance.directline import DirectLine
from landline.demo.server import Demo, greeting
from landline.demo.settings import demo_settings
from landline.errors import ConfigurationError
from landline.server.certificates import make_certificate
from support.landline import SECRET, free_port
from support.misbehaving import Handler, Misbehaving, another_protocol, answering, hanging_up, silent

PATIENCE_S = 1.0
SOON_S = 8.0
"""At once, on a machine that has other things to do; far less than the 15 s after which a send is given up."""

PAGE = b"<!DOCTYPE html><html><body>It works!</body></html>"


@asynccontextmanager
async def trying(settings: Settings, endpoint: str, **more: object) -> AsyncIterator[Demo]:
    """A demo with the bot at `endpoint`."""
    demo = Demo(msgspec.structs.replace(settings, bot=endpoint, **more), patience_s=PATIENCE_S)
    await demo.start()
    try:
        yield demo
    finally:
        await demo.stop()


@asynccontextmanager
async def tried(settings: Settings, bot: Misbehaving, **more: object) -> AsyncIterator[Demo]:
    """A demo with that bot, at the usual path."""
    async with bot.listening() as place, trying(settings, f"http://{place}/api/messages", **more) as demo:
        yield demo


def client_of(demo: Demo) -> DirectLine:
    return DirectLine(f"{demo.url}/v3/directline", SECRET)


async def shown(demo: Demo, *, ask: bool = False) -> dict[str, Any]:
    """What the page is told of the bot."""
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{demo.url}/demo/bot", json={"ask": ask}, headers={"Origin": demo.url}) as answer,
    ):
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


async def until(demo: Demo, promise: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Look as the page does, until what it is told of the line fulfils `promise`."""
    async with asyncio.timeout(SOON_S):
        while not promise(standing := (await shown(demo))["standing"]):
            await asyncio.sleep(0.05)
    return standing


@pytest.mark.parametrize(
    ("behave", "word", "helps"),
    [
        (answering("200 OK"), "connected", "takes"),
        (answering("202 Accepted", b"<p>ok", "Content-Type: text/html"), "connected", "takes"),
        (answering("200 OK", PAGE, "Content-Type: text/html; charset=utf-8"), "a web page", "usually /api/messages"),
        (answering("301 Moved Permanently", b"", "Location: /x"), "301", "a slash more or less"),
        (answering("400 Bad Request"), "400", "Its own log says why"),
        (answering("401 Unauthorized"), "401", "Has your bot an app id? Landline knows none"),
        (answering("403 Forbidden"), "403", "Has your bot an app id? Landline knows none"),
        (answering("404 Not Found"), "404", "The path is usually /api/messages"),
        (answering("405 Method Not Allowed"), "405", "no POST"),
        (answering("415 Unsupported Media Type"), "415", "no JSON"),
        (answering("500 Internal Server Error"), "500", "Its own log says why"),
        (answering("501 Unsupported method ('POST')"), "501", "no POST"),
        (answering("503 Service Unavailable"), "503", "not ready yet"),
        (answering("599 What"), "599", "Its own log says why"),
        (silent, "no answer", "held at a breakpoint"),
        (hanging_up, "hung up", "Does it speak https"),
        (another_protocol, "not HTTP", "the right port"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_at_the_bots_place_is_said_at_the_start_and_to_the_page(
    settings: Settings, capfd: pytest.CaptureFixture[str], behave: Handler, word: str, helps: str
) -> None:
    async with Misbehaving(behave).listening() as place, trying(settings, f"http://{place}/messages") as demo:
        assert demo.standing.word == word
        assert helps in demo.standing.help
        told = await shown(demo, ask=True)
        assert (told["own"], told["endpoint"]) == (True, f"http://{place}/messages")
        assert told["standing"]["word"] == word
        assert told["standing"]["state"] == ("connected" if word == "connected" else "trouble")
        assert helps in greeting(demo, None)
    assert ("does not take" in capfd.readouterr().out) == (word != "connected")


async def test_a_bot_that_is_not_there_is_said_to_be_so_and_found_when_it_comes(settings: Settings) -> None:
    port = free_port()
    began_s = time.monotonic()
    async with trying(settings, f"http://localhost:{port}/api/messages") as demo:
        assert time.monotonic() - began_s < SOON_S
        assert demo.standing.word == "refused"
        assert f"Is your bot running on {port}?" in demo.standing.help
        bot = Misbehaving(answering("200 OK"))
        async with bot.listening(port):
            await until(demo, lambda standing: standing["state"] == "connected")
        await until(demo, lambda standing: standing["word"] == "refused")


async def test_a_name_that_does_not_resolve_is_said_to_be_none(settings: Settings) -> None:
    async with trying(settings, "http://bot.invalid/api/messages") as demo:
        assert demo.standing.word == "no such name"
        assert "bot.invalid does not resolve" in demo.standing.help


@contextlib.contextmanager
def nobody_accepting() -> Iterator[int]:
    """A listener that never accepts, and whose backlog is used up; its port."""
    with contextlib.ExitStack() as closers:
        listener = closers.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = closers.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listener.getsockname())
        yield listener.getsockname()[1]


async def test_an_address_where_nobody_takes_connections_is_not_waited_for(settings: Settings) -> None:
    """Its backlog is full: what comes is neither taken nor refused."""
    with nobody_accepting() as port:
        async with trying(settings, f"http://127.0.0.1:{port}/api/messages") as demo:
            assert demo.standing.word == "no connection"


async def test_tls_that_fails_says_what_to_do(settings: Settings, tmp_path: Path) -> None:
    paths = make_certificate(tmp_path / "cert", ("localhost", "127.0.0.1"), dt.datetime.now(dt.UTC))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(paths.certificate, paths.key)
    async with Misbehaving(answering("200 OK"), tls).listening() as place:
        async with trying(settings, f"https://{place}/api/messages") as demo:
            assert demo.standing.word == "TLS failed"
            assert "--bot-ca-file" in demo.standing.help
        async with trying(settings, f"https://{place}/api/messages", bot_ca_file=paths.ca) as demo:
            assert demo.standing.word == "connected"
        async with trying(settings, f"http://{place}/api/messages") as demo:
            assert "https" in demo.standing.help
    plain = Misbehaving(answering("200 OK"))
    async with plain.listening() as place, trying(settings, f"https://{place}/api/messages") as demo:
        assert demo.standing.word == "TLS failed"
        assert "Does it speak http on port" in demo.standing.help


async def test_a_send_is_not_given_up_before_the_page_knows_that_the_bot_has_gone(settings: Settings) -> None:
    """The send itself is tried again for 15 s: the bot may only be starting anew."""
    port = free_port()
    bot = Misbehaving(answering("200 OK"))
    async with trying(settings, f"http://localhost:{port}/api/messages") as demo, client_of(demo) as client:
        async with bot.listening(port):
            opened = await client.start()
            await until(demo, lambda standing: standing["state"] == "connected")
        sending = asyncio.create_task(client.send(opened.conversation_id, "Are you there?"))
        await until(demo, lambda standing: standing["word"] == "refused")
        assert not sending.done()
        async with bot.listening(port):
            assert (await sending).status == 200
            await until(demo, lambda standing: standing["state"] == "connected")


async def test_what_a_bot_answers_to_a_message_is_told_to_the_page(settings: Settings) -> None:
    """It takes the question of the start, and fails over what a person says; the next question does not hide that."""
    bot = Misbehaving(answering("200 OK"))
    async with tried(settings, bot) as demo, client_of(demo) as client:
        opened = await client.start()
        bot.behave = answering("500 Internal Server Error")
        assert (await client.send(opened.conversation_id, "Fail")).status == 502
        assert (await shown(demo))["standing"]["word"] == "500"
        bot.behave = answering("200 OK")
        assert (await client.send(opened.conversation_id, "Do not fail")).status == 200
        assert (await shown(demo))["standing"]["state"] == "connected"


async def test_a_bot_that_is_told_something_and_does_not_answer_is_said_to_wait(settings: Settings) -> None:
    bot = Misbehaving(answering("200 OK"))
    async with tried(settings, bot, bot_timeout_s=6) as demo, client_of(demo) as client:
        opened = await client.start()
        await until(demo, lambda standing: standing["state"] == "connected")
        bot.behave = silent
        sending = asyncio.create_task(client.send(opened.conversation_id, "Think"))
        standing = await until(demo, lambda standing: standing["state"] == "waiting")
        assert standing["word"] == "no answer"
        assert not sending.done()
        assert (await sending).status == 502


async def test_looking_for_a_bot_says_nothing_to_it(settings: Settings) -> None:
    """One question at the start, whatever number of times the page looks."""
    heard: list[bytes] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(65_536)
        if head:
            heard.append(head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()

    bot = Misbehaving(behave)
    async with bot.listening() as place, trying(settings, f"http://{place}/api/messages") as demo:
        before = bot.connections
        async with asyncio.timeout(SOON_S):
            while bot.connections < before + 2:
                await shown(demo)
                await asyncio.sleep(0.05)
        (question,) = heard
        body = msgspec.json.decode(question.partition(b"\r\n\r\n")[2])
        assert (body["type"], body["membersAdded"]) == ("conversationUpdate", [])


async def test_a_bot_that_answers_everything_finds_somebody_to_answer(settings: Settings) -> None:
    """The question's conversation is one of the server's: a bot without SDK may answer whatever it hears."""
    statuses: list[int] = []

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = msgspec.json.decode((await reader.read(65_536)).partition(b"\r\n\r\n")[2])
        url = f"{heard['serviceUrl'].rstrip('/')}/v3/conversations/{heard['conversation']['id']}/activities"
        async with aiohttp.ClientSession() as http:
            said = {"type": "message", "text": "What?", "from": heard["recipient"]}
            async with http.post(url, json=said) as answer:
                statuses.append(answer.status)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with Misbehaving(behave).listening() as place, trying(settings, f"http://{place}/api/messages") as demo:
        assert demo.standing.state == "connected"
        assert statuses == [200]


async def test_a_key_in_the_query_of_the_endpoint_is_shown_to_nobody(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "c2VjcmV0LWtleQ"
    bot = Misbehaving(answering("404 Not Found"))
    async with bot.listening() as place, trying(settings, f"http://{place}/api?code={key}") as demo:
        said = f"{await shown(demo, ask=True)}{greeting(demo, None)}"
    logged = capfd.readouterr()
    assert key not in said + logged.out + logged.err


async def test_an_app_id_changes_what_is_said_of_a_401(settings: Settings) -> None:
    async with Misbehaving(answering("401 Unauthorized")).listening() as place:
        endpoint = f"http://{place}/api/messages"
        async with trying(settings, endpoint, bot_app_id="my-app", bot_app_secret=("s" * 24,)) as demo:
            assert "the app id my-app" in demo.standing.help


# The settings


def test_each_bot_has_a_directory_of_its_own() -> None:
    own, typed = demo_settings({"port": "0"}, {}, "3978")
    assert own.bot == "http://localhost:3978/api/messages"
    assert typed is not None
    assert own.data == Path("landline-data/try/localhost-3978-api-messages")
    secretive, _ = demo_settings({}, {}, "http://localhost:3978/?code=c2VjcmV0LWtleQ")
    assert "c2Vj" not in str(secretive.data)
    assert demo_settings({"bot": "3978"}, {})[0] == demo_settings({}, {}, "3978")[0]
    assert demo_settings({}, {"LANDLINE_BOT": own.bot or ""})[0].data == own.data
    assert demo_settings({"data": "there"}, {}, "3978")[0].data == Path("there")
    assert demo_settings({}, {})[0].data == Path("landline-data/demo")


def test_two_bots_are_one_too_many() -> None:
    with pytest.raises(ConfigurationError, match="twice"):
        demo_settings({"bot": "1"}, {}, "2")


# The command


@asynccontextmanager
async def running(tmp_path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`landline` with these arguments, in a directory of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "landline", *arguments),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


async def test_try_says_where_the_page_is_what_was_added_and_how_the_bot_was_found(tmp_path: Path) -> None:
    port = free_port()
    async with running(tmp_path, "try", str(port), "--port", "0") as process:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            said = (await process.stdout.readuntil(b"Ctrl-C")).decode()
    assert "Landline's demo is at http://127.0.0.1:" in said
    assert f"at http://localhost:{port}/api/messages (the path /api/messages and http:// was added)" in said
    assert f"refused: Nobody listens on localhost, port {port}. Is your bot running on {port}?" in said
    assert (tmp_path / "landline-data" / "try" / f"localhost-{port}-api-messages").is_dir()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("try", "ftp://localhost"), "landline: bot: 'ftp://localhost' is no URL of a bot: "),
        (("demo", "--bot", "http://a b"), "landline: bot: 'http://a b' is no URL of a bot: "),
        (("try", "3978", "--bot", "3979"), "landline: bot: the bot's URL is there twice"),
        (("try", "3978", "--host", "0.0.0.0"), "landline: host: the demo listens on this machine only"),
    ],
)
def test_what_is_no_url_ends_the_command_with_2_and_a_sentence(arguments: Sequence[str], sentence: str) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert ended.exit_code == 2
    assert sentence in ended.stderr
