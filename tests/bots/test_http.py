"""Deliveries over real sockets: what reaches a bot, how often, and what the sender is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from landline import __version__
from landline.bots.http import HttpBotTransport
from landline.conformance.scripted_bot import Activity, ScriptedBot
from landline.core.bot import Bot
from landline.errors import (
    BotBroke,
    BotRejected,
    BotTimedOut,
    BotUnreachable,
    ConfigurationError,
    DeliveryError,
    NoBot,
)
from landline.ports import BotAnswer
from support.landline import free_port
from support.raw_bot import OK, RawBot, RawConnection, certificate, on_each_loop
from support.streams import until

KEY = "k" * 32
LARGE = 8 * 1024 * 1024
"""More than the kernel's buffers of a connection take, so that a bot that does not read stops us in the middle."""


def bot_at(endpoint: str | None, **changes: Any) -> Bot:
    options: dict[str, Any] = {
        "id": "bot-1",
        "name": "Bot",
        "service_url": f"http://127.0.0.1:3000/b/{KEY}/",
        "service_key": KEY,
        "reference_grammar_id": "00000000-0000-4000-8000-000000000000",
    }
    return Bot(endpoint=endpoint, **(options | changes))


def message(text: str, **more: Any) -> bytes:
    return json.dumps(
        {"type": "message", "id": "conv-1|1", "conversation": {"id": "conv-1"}, "text": text} | more
    ).encode()


class Outbox:
    """Delivers through one transport, counting `on_written` for every delivery: it must come exactly once."""

    def __init__(self, transport: HttpBotTransport) -> None:
        self.transport = transport
        self.written: list[str] = []
        self.said: list[bytes] = []

    async def deliver(self, bot: Bot, text: str = "hi", *, within: float = 10, **options: Any) -> BotAnswer:
        deadline = asyncio.get_running_loop().time() + within
        body = options.pop("body", None) or message(text)

        async def say(activity: bytes) -> None:
            self.said.append(activity)

        try:
            return await self.transport.deliver(
                bot, body, deadline, on_written=lambda: self.written.append(text), on_activity=say, **options
            )
        finally:
            assert self.written.count(text) == 1, "`on_written` is called exactly once in every outcome"

    def start(self, bot: Bot, text: str, **options: Any) -> asyncio.Task[BotAnswer]:
        return asyncio.create_task(self.deliver(bot, text, **options))


@contextlib.asynccontextmanager
async def an_outbox(ca_file: Path | None = None, connect_timeout_s: float = 5) -> AsyncIterator[Outbox]:
    transport = HttpBotTransport(connect_timeout_s=connect_timeout_s, ca_file=ca_file)
    try:
        yield Outbox(transport)
    finally:
        await transport.close()


@pytest.fixture
async def outbox() -> AsyncIterator[Outbox]:
    async with an_outbox() as made:
        yield made


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedBot]:
    async with ScriptedBot() as bot:
        yield bot


# What arrives


@pytest.mark.bot_item(1)
async def test_the_bot_gets_one_json_activity_with_the_headers_of_the_specification(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    body = message("grüße", channelData={"b": [1, 2.50], "a": None})
    await outbox.deliver(bot_at(scripted.endpoint), body=body)
    [received] = scripted.received
    assert received.method == "POST"
    assert received.body == body
    assert received.headers.getall("Content-Type") == ["application/json; charset=utf-8"]
    assert received.headers["User-Agent"] == f"landline/{__version__}"
    assert set(received.headers) == {"Host", "Content-Type", "Content-Length", "User-Agent"}


async def test_an_endpoint_is_asked_with_its_query_as_it_was_written(outbox: Outbox, scripted: ScriptedBot) -> None:
    await outbox.deliver(bot_at(f"HTTP{scripted.endpoint[4:]}?code=a%2Fb==&name=x/y"))
    assert scripted.received[0].path == "/api/messages?code=a%2Fb==&name=x/y"


async def test_cookies_of_a_bot_are_not_kept(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(headers={"Set-Cookie": "a=b"})
    await outbox.deliver(bot_at(scripted.endpoint), "1")
    await outbox.deliver(bot_at(scripted.endpoint), "2")
    assert "Cookie" not in scripted.received[1].headers


# Delivered


@pytest.mark.bot_item(14)
@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_every_2xx_counts_as_delivered(outbox: Outbox, scripted: ScriptedBot, status: int) -> None:
    scripted.answer(status)
    answer = await outbox.deliver(bot_at(scripted.endpoint))
    assert answer.status == status
    assert len(scripted.received) == 1


@pytest.mark.bot_item(15)
@pytest.mark.parametrize("body", [b"", b'{"ok":true}', b"<html>", b"\xff\x00", b"x" * 5_000_000])
async def test_whatever_body_a_2xx_has_the_message_is_delivered(
    outbox: Outbox, scripted: ScriptedBot, body: bytes
) -> None:
    scripted.answer(200, body)
    assert (await outbox.deliver(bot_at(scripted.endpoint))).status == 200


@pytest.mark.bot_item(15)
async def test_a_2xx_whose_body_breaks_off_is_delivered(outbox: Outbox) -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    async with RawBot(script) as bot:
        assert (await outbox.deliver(bot_at(bot.endpoint))).status == 200
        assert bot.connections == 1


async def test_a_2xx_whose_body_never_ends_is_delivered_at_the_deadline(outbox: Outbox) -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        await connection.gone()

    async with RawBot(script) as bot:
        assert (await outbox.deliver(bot_at(bot.endpoint), within=0.5)).status == 200


async def test_an_invoke_answer_comes_back_whole(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(200, {"pong": 1})
    answer = await outbox.deliver(bot_at(scripted.endpoint), retry=False)
    assert json.loads(answer.body) == {"pong": 1}
    assert answer.content_type.startswith("application/json")


async def test_an_invoke_answer_that_is_compressed_though_nobody_asked_is_read(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    scripted.answer(200, gzip.compress(b'{"pong":1}'), headers={"Content-Encoding": "gzip"})
    assert (await outbox.deliver(bot_at(scripted.endpoint), retry=False)).body == b'{"pong":1}'


async def test_an_invoke_answer_that_breaks_off_is_no_answer(outbox: Outbox) -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    async with RawBot(script) as bot:
        with pytest.raises(BotBroke):
            await outbox.deliver(bot_at(bot.endpoint), retry=False)
        assert bot.connections == 1


async def test_the_bot_can_call_back_before_it_answers(outbox: Outbox, scripted: ScriptedBot) -> None:
    async def call_back(bot: ScriptedBot, _: Activity) -> web.Response | None:
        # Whoever waited for the answer before letting the next activity go would never see this.
        assert outbox.written == ["hi"]
        return None

    scripted.on_activity = call_back
    await outbox.deliver(bot_at(scripted.endpoint))


# Rejected


@pytest.mark.bot_item(21)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 415, 429, 500, 502, 503])
async def test_an_error_answer_is_not_repeated(outbox: Outbox, scripted: ScriptedBot, status: int) -> None:
    scripted.answer(status, "no")
    with pytest.raises(BotRejected) as caught:
        await outbox.deliver(bot_at(scripted.endpoint))
    assert (caught.value.status, caught.value.body) == (status, b"no")
    assert len(scripted.received) == 1


@pytest.mark.bot_item(22)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(outbox: Outbox, scripted: ScriptedBot, status: int) -> None:
    async with ScriptedBot() as elsewhere:
        scripted.answer(status, headers={"Location": elsewhere.endpoint})
        with pytest.raises(BotRejected) as caught:
            await outbox.deliver(bot_at(scripted.endpoint))
        assert caught.value.status == status
        assert elsewhere.received == []
    assert len(scripted.received) == 1


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_that_fits_is_honoured_once(outbox: Outbox, scripted: ScriptedBot, status: int) -> None:
    scripted.answer(status, headers={"Retry-After": "1"})
    delivering = outbox.start(bot_at(scripted.endpoint), "again")
    first = await scripted.wait_for_text("again")
    await scripted.wait_for(lambda each: each.answered is not None)
    scripted.answer(200)
    assert (await delivering).status == 200
    assert len(scripted.received) == 2
    assert scripted.received[1].begun - first.begun >= 1


async def test_retry_after_is_honoured_no_more_than_once(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(503, headers={"Retry-After": "0"})
    with pytest.raises(BotRejected):
        await outbox.deliver(bot_at(scripted.endpoint))
    assert len(scripted.received) == 2


@pytest.mark.parametrize("retry_after", ["60", "-1", "1.5", "soon", "²", "Fri, 31 Dec 1999 23:59:59 GMT", "9" * 400])
async def test_retry_after_that_does_not_fit_is_not_waited_for(
    outbox: Outbox, scripted: ScriptedBot, retry_after: str
) -> None:
    scripted.answer(429, headers={"Retry-After": retry_after})
    with pytest.raises(BotRejected):
        await outbox.deliver(bot_at(scripted.endpoint))
    assert len(scripted.received) == 1


async def test_an_invoke_is_not_repeated_even_if_the_bot_asks_for_it(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(503, headers={"Retry-After": "0"})
    with pytest.raises(BotRejected):
        await outbox.deliver(bot_at(scripted.endpoint), retry=False)
    assert len(scripted.received) == 1


async def test_a_bot_that_goes_away_after_429_was_reached(outbox: Outbox, scripted: ScriptedBot) -> None:
    """BotUnreachable would leave a join due that the bot has seen."""
    scripted.answer(429, headers={"Retry-After": "1"})
    delivering = outbox.start(bot_at(scripted.endpoint), "again", within=2)
    await scripted.wait_for(lambda each: each.answered is not None)
    await scripted.refuse()
    with pytest.raises(BotRejected):
        await delivering


async def test_an_error_body_is_kept_to_4_kib(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(500, b"x" * 1_000_000)
    with pytest.raises(BotRejected) as caught:
        await outbox.deliver(bot_at(scripted.endpoint))
    assert caught.value.body == b"x" * 4096


# Not answered


@pytest.mark.bot_item(18)
async def test_a_post_that_timed_out_after_it_was_sent_is_not_repeated(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.hang()
    delivering = outbox.start(bot_at(scripted.endpoint), "slow", within=0.5)
    await scripted.wait_for_text("slow")
    with pytest.raises(BotTimedOut):
        await delivering
    scripted.release()
    await outbox.deliver(bot_at(scripted.endpoint), "next")
    assert [each.text for each in scripted.received] == ["slow", "next"]


async def test_a_post_whose_connection_breaks_after_it_was_sent_is_not_repeated(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    scripted.break_connections()
    with pytest.raises(BotBroke):
        await outbox.deliver(bot_at(scripted.endpoint))
    assert len(scripted.received) == 1


async def test_a_kept_connection_that_breaks_under_a_post_leaves_the_outcome_unknown(outbox: Outbox) -> None:
    requests: list[bytes] = []

    async def script(_: int, connection: RawConnection) -> None:
        requests.append(await connection.request())
        await connection.send(OK)
        requests.append(await connection.request())
        connection.reset()

    async with RawBot(script) as bot:
        await outbox.deliver(bot_at(bot.endpoint), "1")
        with pytest.raises(BotBroke):
            await outbox.deliver(bot_at(bot.endpoint), "2")
        assert len(requests) == 2
        assert bot.connections == 1


async def test_a_kept_connection_that_the_bot_has_closed_costs_nothing(outbox: Outbox, scripted: ScriptedBot) -> None:
    await outbox.deliver(bot_at(scripted.endpoint), "1")
    await scripted.refuse()
    await scripted.accept()
    await outbox.deliver(bot_at(scripted.endpoint), "2")
    assert [each.text for each in scripted.received] == ["1", "2"]
    assert scripted.received[0].peer != scripted.received[1].peer


async def test_connections_are_reused(outbox: Outbox, scripted: ScriptedBot) -> None:
    for number in range(5):
        await outbox.deliver(bot_at(scripted.endpoint), str(number))
    assert len({each.peer for each in scripted.received}) == 1


async def test_what_is_not_http_is_a_broken_answer(outbox: Outbox) -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"220 smtp.example.org ESMTP\r\n")
        await connection.gone()

    async with RawBot(script) as bot:
        with pytest.raises(BotBroke):
            await outbox.deliver(bot_at(bot.endpoint))
        assert bot.connections == 1


# Not reached


@pytest.mark.bot_item(19)
async def test_a_bot_that_comes_up_within_the_budget_gets_the_activity_exactly_once(outbox: Outbox) -> None:
    port = free_port()
    async with ScriptedBot(port) as scripted:
        await scripted.refuse()
        delivering = outbox.start(bot_at(scripted.endpoint), "patient")
        while not await refused(port):
            pass
        assert outbox.written == []
        await scripted.accept()
        assert (await delivering).status == 200
        await outbox.deliver(bot_at(scripted.endpoint), "next")
        assert [each.text for each in scripted.received] == ["patient", "next"]


async def refused(port: int) -> bool:
    """Whether a connection is refused now; by then one of the transport, begun before, was refused too."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_bot_that_stays_away_is_unreachable_by_the_deadline(outbox: Outbox) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(BotUnreachable) as caught:
        await outbox.deliver(bot_at(f"http://127.0.0.1:{free_port()}/api/messages"), within=1)
    assert caught.value.message == "Failed to send activity: bot could not be reached: connection refused"
    assert loop.time() - began > 0.7, "it was tried for most of the budget"


async def test_a_deadline_in_the_past_sends_nothing(outbox: Outbox, scripted: ScriptedBot) -> None:
    with pytest.raises(BotUnreachable):
        await outbox.deliver(bot_at(scripted.endpoint), "late", within=-1)
    await outbox.deliver(bot_at(scripted.endpoint), "in time")
    assert [each.text for each in scripted.received] == ["in time"]


async def test_connecting_has_a_limit_of_its_own(scripted: ScriptedBot) -> None:
    # A full accept queue leaves connections hanging in their handshake.
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        async with an_outbox(connect_timeout_s=0.1) as outbox:
            with pytest.raises(BotUnreachable, match="no connection in time"):
                await outbox.deliver(bot_at(f"http://127.0.0.1:{full.getsockname()[1]}/"), within=1)


async def test_a_bot_without_endpoint_is_no_bot(outbox: Outbox) -> None:
    with pytest.raises(NoBot):
        await outbox.deliver(bot_at(None))


async def test_an_endpoint_that_is_no_url_fails_at_once(outbox: Outbox) -> None:
    with pytest.raises(BotUnreachable, match="not an http or https URL"):
        await outbox.deliver(bot_at("http://127.0.0.1:99999/"), within=60)


# The moment of writing


@on_each_loop
async def test_written_means_that_the_system_has_taken_the_last_byte() -> None:
    read_on = asyncio.Event()
    begun = asyncio.Event()

    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        begun.set()
        await read_on.wait()
        await connection.request()
        await connection.send(OK)

    async with RawBot(script) as bot, an_outbox() as outbox:
        delivering = outbox.start(bot_at(bot.endpoint), "large", body=message("x" * LARGE))
        await begun.wait()
        assert outbox.written == []
        read_on.set()
        assert (await delivering).status == 200
        assert bot.connections == 1


@on_each_loop
async def test_what_waits_in_our_own_buffer_is_not_written() -> None:
    """60 kB are below the default high-water mark of a transport: "handed over" would not mean "sent"."""

    async def connected(addr_infos: Any, **_: Any) -> socket.socket:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        narrow.setblocking(False)
        await asyncio.get_running_loop().sock_connect(narrow, addr_infos[0][4])
        return narrow

    read_on = asyncio.Event()
    begun = asyncio.Event()

    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        begun.set()
        await read_on.wait()
        await connection.request()
        await connection.send(OK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aiohappyeyeballs.start_connection", connected)
        async with RawBot(script, receive_buffer=4096) as bot, an_outbox() as outbox:
            delivering = outbox.start(bot_at(bot.endpoint), "buffered", body=message("x" * 60_000))
            await begun.wait()
            assert outbox.written == []
            read_on.set()
            assert (await delivering).status == 200


@on_each_loop
async def test_a_half_written_request_is_tried_again() -> None:
    complete: list[int] = []

    async def script(number: int, connection: RawConnection) -> None:
        if number == 0:
            await connection.begin()
            connection.reset()
            return
        complete.append(len(await connection.request()))
        await connection.send(OK)

    body = message("x" * LARGE)
    async with RawBot(script) as bot, an_outbox() as outbox:
        assert (await outbox.deliver(bot_at(bot.endpoint), body=body)).status == 200
        assert complete == [len(body)]
        assert bot.connections == 2


@on_each_loop
async def test_a_request_that_never_left_completely_is_unreachable_not_timed_out() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        await asyncio.Event().wait()

    async with RawBot(script) as bot, an_outbox() as outbox:
        with pytest.raises(BotUnreachable):
            await outbox.deliver(bot_at(bot.endpoint), body=message("x" * LARGE), within=0.5)


@on_each_loop
async def test_an_answer_before_the_whole_request_was_read_counts() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.Event().wait()

    async with RawBot(script) as bot, an_outbox() as outbox:
        with pytest.raises(BotRejected) as caught:
            await outbox.deliver(bot_at(bot.endpoint), body=message("x" * LARGE))
        assert caught.value.status == 413
        assert bot.connections == 1


# Many at once


async def test_requests_to_one_bot_are_bounded_and_others_are_not_held_up(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    scripted.hang()
    bot = bot_at(scripted.endpoint, concurrency=2)
    busy = [outbox.start(bot, str(number)) for number in range(6)]
    await scripted.wait_for_text("1")
    async with ScriptedBot() as other:
        await outbox.deliver(bot_at(other.endpoint, id="bot-2", concurrency=2), "other")
    assert len(scripted.received) == 2
    assert sorted(outbox.written) == ["0", "1", "other"]
    scripted.release()
    await asyncio.gather(*busy)
    assert [each.text for each in scripted.received] == [str(number) for number in range(6)]


async def test_waiting_for_a_busy_bot_ends_at_the_deadline_unwritten(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.hang()
    bot = bot_at(scripted.endpoint, concurrency=1)
    busy = outbox.start(bot, "busy")
    await scripted.wait_for_text("busy")
    with pytest.raises(BotUnreachable, match="too many requests"):
        await outbox.deliver(bot, "waiting", within=0.2)
    scripted.release()
    await busy
    assert [each.text for each in scripted.received] == ["busy"]


async def test_a_delivery_that_is_given_up_frees_its_slot(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.hang()
    bot = bot_at(scripted.endpoint, concurrency=1)
    cancelled = outbox.start(bot, "cancelled")
    await scripted.wait_for_text("cancelled")
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    scripted.release()
    await outbox.deliver(bot, "next")


# TLS


@contextlib.asynccontextmanager
async def https_bot(pem: Path) -> AsyncIterator[tuple[str, list[bytes]]]:
    bodies: list[bytes] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    runner = web.ServerRunner(web.Server(handle, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield f"https://127.0.0.1:{site.port}/api/messages", bodies
    finally:
        await runner.cleanup()


@pytest.mark.bot_item(24)
async def test_an_untrusted_certificate_fails_at_once_with_a_clear_message(outbox: Outbox, tmp_path: Path) -> None:
    async with https_bot(certificate(tmp_path)) as (endpoint, bodies):
        with structlog.testing.capture_logs() as logged, pytest.raises(BotUnreachable) as caught:
            await asyncio.wait_for(outbox.deliver(bot_at(endpoint), within=60), 10)
    assert caught.value.message.endswith("its certificate is not trusted")
    assert "self-signed" in logged[0]["detail"].replace(" ", "-")
    assert bodies == []


@pytest.mark.bot_item(24)
async def test_a_certificate_of_the_given_authority_is_trusted(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    async with https_bot(pem) as (endpoint, bodies), an_outbox(ca_file=pem) as outbox:
        assert (await outbox.deliver(bot_at(endpoint))).status == 200
        assert bodies == [message("hi")]


@pytest.mark.bot_item(24)
async def test_a_large_activity_goes_over_tls(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    body = message("x" * 900_000)
    async with https_bot(pem) as (endpoint, bodies), an_outbox(ca_file=pem) as outbox:
        assert (await outbox.deliver(bot_at(endpoint), body=body)).status == 200
        assert bodies == [body]


@pytest.mark.parametrize("content", [None, b"no certificate"])
async def test_a_ca_file_that_is_not_usable_is_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="bot_ca_file"):
        HttpBotTransport(connect_timeout_s=5, ca_file=path)


# The log


async def test_a_rejection_is_one_line_that_names_the_conversation_and_hides_the_key(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    bot = bot_at(scripted.endpoint)
    scripted.answer(500, f"401 from {bot.service_url}v3 and " + "y" * 4000 + bot.service_url)
    with structlog.testing.capture_logs() as logged, pytest.raises(BotRejected) as caught:
        await outbox.deliver(bot)
    [line] = logged
    assert (line["log_level"], line["bot"], line["status"]) == ("warning", "bot-1", 500)
    assert (line["conversation"], line["activity"]) == ("conv-1", "conv-1|1")
    assert line["body"].startswith("401 from http://127.0.0.1:3000/b/***/v3")
    assert "kkk" not in str(line) + str(caught.value.body)


@pytest.mark.bot_item(94)
async def test_a_rejection_that_prints_the_query_of_the_endpoint_hides_it(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    scripted.answer(
        404, "no function at /api/messages?v=2&code=key%2Bof-it; neither key%2Bof-it nor key+of-it is known"
    )
    with structlog.testing.capture_logs() as logged, pytest.raises(BotRejected):
        await outbox.deliver(bot_at(f"{scripted.endpoint}?v=2&code=key%2Bof-it"))
    assert logged[0]["body"] == "no function at /api/messages?***; neither *** nor *** is known"


@pytest.mark.bot_item(94)
async def test_an_invokes_answer_in_an_event_stream_hides_what_an_answer_would(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    bot = bot_at(scripted.endpoint)

    async def refusal() -> AsyncIterator[bytes]:
        told = json.dumps({"status": 500, "body": {"cannot reach": bot.service_url}})
        yield f"event: invokeResponse\r\ndata: {told}\r\n\r\n".encode()

    scripted.speak(refusal)
    with structlog.testing.capture_logs() as logged, pytest.raises(BotRejected) as caught:
        await outbox.deliver(bot, "hi", retry=False)
    assert "cannot reach" in logged[0]["body"]
    assert KEY not in str(logged) + str(caught.value.body)


async def test_an_activity_that_cannot_be_read_does_not_hide_the_failure(outbox: Outbox, scripted: ScriptedBot) -> None:
    scripted.answer(400)
    with structlog.testing.capture_logs() as logged, pytest.raises(BotRejected):
        await outbox.deliver(bot_at(scripted.endpoint), body=b'{"conversation":7,"text":"\xff"}')
    assert len(logged) == 1


# The end


async def test_closing_ends_what_is_under_way(scripted: ScriptedBot) -> None:
    async with an_outbox() as outbox:
        scripted.hang()
        bot = bot_at(scripted.endpoint, concurrency=1)
        started = [outbox.start(bot, "written"), outbox.start(bot, "waiting for a slot")]
        started.append(outbox.start(bot_at(f"http://127.0.0.1:{free_port()}/", id="bot-2"), "refused"))
        await scripted.wait_for_text("written")
        await outbox.transport.close()
        outcomes = await asyncio.gather(*started, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [BotBroke, BotUnreachable, BotUnreachable]
        with pytest.raises(DeliveryError):
            await outbox.deliver(bot, "too late")
    scripted.release()
    assert [each.text for each in scripted.received] == ["written"]


# Event streams


def an_event(text: str) -> bytes:
    return f'event: activity\r\ndata: {{"text":"{text}"}}\r\n\r\n'.encode()


class Speech:
    """What a bot says in an event stream, one event each time it is let go on."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts
        self._go_on = asyncio.Semaphore(0)

    def go_on(self, times: int = 1) -> None:
        for _ in range(times):
            self._go_on.release()

    async def frames(self) -> AsyncIterator[bytes]:
        for text in self._texts:
            await self._go_on.acquire()
            yield an_event(text)


def said(outbox: Outbox) -> list[str]:
    return [json.loads(activity)["text"] for activity in outbox.said]


@pytest.mark.bot_item(31)
async def test_what_a_bot_streams_is_passed_on_event_by_event(outbox: Outbox, scripted: ScriptedBot) -> None:
    speech = Speech("one", "two")
    scripted.speak(speech.frames)
    delivery = outbox.start(bot_at(scripted.endpoint), "hi")
    for count in (1, 2):
        speech.go_on()
        await until(lambda count=count: len(outbox.said) == count, f"hears {count}")
    assert said(outbox) == ["one", "two"]
    assert (await delivery).status == 200


async def test_what_a_bot_says_after_the_deadline_is_heard_and_its_slot_is_taken_meanwhile(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    speech = Speech("early", "late")
    speech.go_on()
    scripted.speak(speech.frames)
    bot = bot_at(scripted.endpoint, concurrency=1)
    assert (await outbox.deliver(bot, "hi", within=0.5)).status == 200
    assert said(outbox) == ["early"]
    scripted.answer()
    with pytest.raises(BotUnreachable):
        await outbox.deliver(bot, "next", within=0.3)
    waiting = outbox.start(bot, "in the end")
    speech.go_on()
    assert (await waiting).status == 200
    assert said(outbox) == ["early", "late"]


async def test_an_invoke_whose_answer_does_not_come_in_time_has_an_unknown_outcome(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    speech = Speech("by the way")
    speech.go_on()
    scripted.speak(speech.frames)
    assert (await outbox.deliver(bot_at(scripted.endpoint), "no answer in it", retry=False)).body == b""
    endless = Speech("never")
    scripted.speak(endless.frames)
    with pytest.raises(BotTimedOut):
        await outbox.deliver(bot_at(scripted.endpoint), "hi", retry=False, within=0.3)
    endless.go_on()


async def test_silence_ends_what_a_bot_says(
    outbox: Outbox, scripted: ScriptedBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("landline.bots.http._SILENCE_S", 0.1)
    speech = Speech("one", "never")
    speech.go_on()
    scripted.speak(speech.frames)
    assert (await outbox.deliver(bot_at(scripted.endpoint))).status == 200
    assert said(outbox) == ["one"]
    speech.go_on()


async def test_an_event_that_does_not_end_is_given_up_and_the_message_was_taken(
    outbox: Outbox, scripted: ScriptedBot
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield an_event("one") + b"event: activity\r\ndata: "
        for _ in range(80):
            yield b"x" * 65536

    scripted.speak(endless)
    assert (await outbox.deliver(bot_at(scripted.endpoint))).status == 200
    assert said(outbox) == ["one"]


async def test_closing_ends_what_is_still_being_said(scripted: ScriptedBot) -> None:
    speech = Speech("early", "late", "later", "last")
    speech.go_on()
    scripted.speak(speech.frames)
    async with an_outbox() as outbox:
        assert (await outbox.deliver(bot_at(scripted.endpoint), "hi", within=0.3)).status == 200
        still_open = outbox.start(bot_at(scripted.endpoint), "next")
        await scripted.wait_for_text("next")
    await asyncio.wait((still_open,))
    speech.go_on(8)
    assert said(outbox) == ["early"]
