"""Which connection a request to a bot takes, and where it goes: over real sockets, kept ones and new ones."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from landline.bots import connections as pool
from landline.bots.connections import Connections, NotAUrl
from landline.bots.wire import Broken, Connection
from support.landline import free_port
from support.posting import Taken, begin, post, some_connections
from support.raw_bot import HELLO, RawBot, RawConnection, certificate, on_each_loop, saying
from support.streams import until


@on_each_loop
async def test_a_second_answer_is_nobodys() -> None:
    """Least of all is it the answer to the next request."""
    other = b"HTTP/1.1 500 No\r\nContent-Length: 5\r\n\r\nwrong"
    async with RawBot(saying(HELLO + other)) as bot, some_connections() as connections:
        for number in (1, 2, 3):
            assert await post(connections, bot.endpoint) == (200, b"hello")
            assert bot.connections == number


class Held:
    """A bot that answers one request on each connection and hands its end to the test, which can then end it without
    a turn of the event loop."""

    def __init__(self) -> None:
        self.connections: list[RawConnection] = []
        self.requests: list[bytes] = []

    async def script(self, _: int, connection: RawConnection) -> None:
        self.connections.append(connection)
        self.requests.append(await connection.request())
        await connection.send(HELLO)
        await asyncio.Event().wait()


@on_each_loop
@pytest.mark.parametrize(("how", "turns"), [("close", 0), ("close", 5), ("reset", 0), ("reset", 5), ("speak", 5)])
async def test_a_kept_connection_that_ends_between_two_requests_loses_and_doubles_nothing(how: str, turns: int) -> None:
    """The kernel knows before the event loop does. A request that is written all the same would have to be given up."""
    held = Held()
    async with RawBot(held.script) as bot, some_connections() as connections:
        for number in range(1, 4):
            taken = Taken()
            assert await post(connections, bot.endpoint, b"%d" % number, taken=taken) == (200, b"hello")
            assert taken.times == 1
            match how:
                case "close":
                    held.connections[-1].hang_up()
                case "reset":
                    held.connections[-1].reset()
                case "speak":
                    held.connections[-1].say(b"HTTP/1.1 408 Too Late\r\nContent-Length: 0\r\n\r\n")
            for _ in range(turns):
                await asyncio.sleep(0)
        assert held.requests == [b"1", b"2", b"3"]
        assert bot.connections == 3


@on_each_loop
@pytest.mark.parametrize(("how", "times"), [("close", 1), ("reset", 0)])
async def test_a_connection_that_ends_in_the_moment_of_writing_is_broken_and_what_was_taken_is_known(
    how: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question to the kernel and the write the network goes on. What a closed end does with a request
    cannot be known; one that was reset before does not let it leave."""
    held = Held()
    async with RawBot(held.script) as bot, some_connections() as connections:
        await post(connections, bot.endpoint)
        monkeypatch.setattr(Connection, "is_good", lambda _: True)
        if how == "close":
            held.connections[0].hang_up()
        else:
            held.connections[0].reset()
        taken = Taken()
        with pytest.raises((Broken, OSError)):
            await post(connections, bot.endpoint, taken=taken)
        assert (taken.times, bot.connections) == (times, 1)


@on_each_loop
async def test_bots_that_close_idle_connections_whenever_they_like_get_everything_once() -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    received: list[bytes] = []

    async def script(_: int, connection: RawConnection) -> None:
        for _ in range(chance.randrange(4) + 1):
            received.append(await connection.request())
            await connection.send(HELLO)
            await turns(6)
        while not connection.is_idle():
            received.append(await connection.request())
            await connection.send(HELLO)

    async def turns(most: int) -> None:
        for _ in range(chance.randrange(most)):
            await asyncio.sleep(0)

    async def send(numbers: range) -> None:
        for number in numbers:
            assert await post(connections, bot.endpoint, b"%d" % number) == (200, b"hello")
            await turns(4)

    async with RawBot(script) as bot, some_connections() as connections:
        await asyncio.gather(*(send(range(start, start + 100)) for start in range(0, 400, 100)))
        assert sorted(map(int, received)) == list(range(400))
        assert bot.connections < 400


@on_each_loop
async def test_a_request_apart_has_a_connection_of_its_own_and_says_that_it_is_the_last_one() -> None:
    heads: list[bytes] = []

    async def script(_: int, connection: RawConnection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await connection.request()
                heads.append(connection.head)
                await connection.send(HELLO)

    async with RawBot(script) as bot, some_connections() as connections:
        await post(connections, bot.endpoint)
        await post(connections, bot.endpoint, own_connection=True)
        await post(connections, bot.endpoint)
        assert bot.connections == 2
        assert [b"\r\nConnection: close" in head for head in heads] == [False, True, False]


async def test_an_idle_connection_is_closed_by_us_before_bots_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pool.KEEPALIVE_S < 2, "gunicorn's default"
    monkeypatch.setattr(pool, "KEEPALIVE_S", 0.1)
    ended = 0

    async def script(_: int, connection: RawConnection) -> None:
        nonlocal ended
        await connection.request()
        await connection.send(HELLO)
        await connection.gone()
        ended += 1

    async with RawBot(script) as bot, some_connections() as connections:
        await asyncio.gather(post(connections, bot.endpoint), post(connections, bot.endpoint))
        await until(lambda: ended == 2, "closes both")
        await post(connections, bot.endpoint)
        await until(lambda: ended == 3, "closes the next one, too")


async def test_a_connection_that_is_too_old_is_not_used_even_if_nobody_had_the_time_to_close_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with RawBot(saying(HELLO)) as bot, some_connections() as connections:
        await post(connections, bot.endpoint)
        monkeypatch.setattr(pool, "KEEPALIVE_S", 0.0)
        await post(connections, bot.endpoint)
        assert bot.connections == 2


@on_each_loop
async def test_an_answer_that_is_left_unread_leaves_nothing_to_the_next() -> None:
    async with RawBot(saying(HELLO[:-1])) as bot, some_connections() as connections:
        for number in (1, 2):
            (await begin(connections, bot.endpoint)).close()
            assert bot.connections == number


@on_each_loop
async def test_a_request_that_is_given_up_leaves_nothing_to_the_next() -> None:
    async def script(number: int, connection: RawConnection) -> None:
        await connection.request()
        asked.set()
        if number == 0:
            await connection.gone()
            gone.set()
        else:
            await connection.send(HELLO)

    asked, gone = asyncio.Event(), asyncio.Event()
    async with RawBot(script) as bot, some_connections() as connections:
        posting = asyncio.create_task(post(connections, bot.endpoint))
        await asked.wait()
        posting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await posting
        await gone.wait()
        assert await post(connections, bot.endpoint) == (200, b"hello")


@on_each_loop
@pytest.mark.parametrize("tls", [False, True])
async def test_whoever_gives_up_while_connecting_leaves_nothing_behind(tls: bool, tmp_path: Path) -> None:
    """At whatever moment: in one of them the event loop has the socket already and tells nobody that it closes it."""
    pem = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(HELLO)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context if tls else None) as bot:
        endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{bot.sockets[0].getsockname()[1]}/"
        connections = Connections(functools.partial(ssl.create_default_context, cafile=pem), 5)
        before = open_files()
        for turns in range(40):
            posting = asyncio.create_task(post(connections, endpoint))
            for _ in range(turns):
                await asyncio.sleep(0)
            posting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert await posting == (200, b"hello")
        await asyncio.wait_for(connections.close(), 5)
        await until(lambda: open_files() <= before, "closes its end of everything")


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


@on_each_loop
async def test_closing_breaks_what_is_under_way() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        asked.set()
        await connection.gone()

    asked = asyncio.Event()
    async with RawBot(script) as bot, some_connections() as connections:
        posting = asyncio.create_task(post(connections, bot.endpoint))
        await asked.wait()
        await connections.close()
        with pytest.raises(Broken):
            await posting


@on_each_loop
async def test_a_bot_that_closes_what_it_accepts_is_not_waited_for() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        pass

    async with RawBot(script) as bot, some_connections() as connections:
        for _ in range(20):
            with pytest.raises((Broken, OSError)):
                await post(connections, bot.endpoint)


# Where to


@on_each_loop
async def test_a_name_whose_first_address_does_not_answer_is_reached_by_its_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a machine whose IPv6 leads nowhere each bot has such a name."""
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        for _ in range(4):  # a full accept queue leaves further connections hanging
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        async with RawBot(saying(HELLO)) as bot, some_connections() as connections:
            addresses = [full.getsockname(), ("127.0.0.1", bot.port)]

            async def resolve(*_: object, **__: object) -> list[Any]:
                return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", each) for each in addresses]

            monkeypatch.setattr(pool, "_addresses", resolve)
            async with asyncio.timeout(3):
                assert await post(connections, "http://two.example/") == (200, b"hello")


@pytest.mark.parametrize(
    ("url", "target", "host"),
    [
        ("http://127.0.0.1:{}", b"/", b"127.0.0.1:{}"),
        ("http://localhost:{}/api/messages", b"/api/messages", b"localhost:{}"),
        ("http://LOCALHOST.:{}/a%20b/", b"/a%20b/", b"localhost.:{}"),
        ("http://127.0.0.1:{}/gr\u00fc\u00dfe?to=\u00e4 b&c", b"/gr%C3%BC%C3%9Fe?to=%C3%A4%20b&c", b"127.0.0.1:{}"),
    ],
)
async def test_a_url_is_asked_for_as_it_is_written(url: str, target: bytes, host: bytes) -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        heads.append(connection.head)
        await connection.send(HELLO)

    heads: list[bytes] = []
    async with RawBot(script) as bot, some_connections() as connections:
        await post(connections, url.format(bot.port))
        first, second, *_ = heads[0].split(b"\r\n")
        assert first == b"POST %s HTTP/1.1" % target
        assert second == b"Host: " + host.replace(b"{}", b"%d" % bot.port)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:3978",
        "ftp://127.0.0.1/",
        "http://",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:port/",
        "http://[::1/",
        "http://a..b/",
        "http://a b/",
        "http://a\x00b/",
        "http://" + "a" * 64 + "/",
    ],
)
async def test_what_is_no_url_is_not_tried(url: str) -> None:
    async with some_connections() as connections:
        with pytest.raises(NotAUrl):
            await post(connections, url)


async def test_nobody_there_is_refused() -> None:
    async with some_connections() as connections:
        with pytest.raises(ConnectionRefusedError):
            await post(connections, f"http://127.0.0.1:{free_port()}/")
