"""HTTP towards bots, over real sockets: whatever a bot sends, what comes of it is certain, bounded, and said once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from landline.bots import wire
from landline.bots.wire import Answer, Broken, Connections, NotAUrl
from support.landline import free_port
from support.raw_bot import OK, RawBot, RawConnection, certificate, on_each_loop
from support.streams import until

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.asynccontextmanager
async def some_connections(trusted: Path | None = None, connect_timeout_s: float = 5) -> AsyncIterator[Connections]:
    made = Connections(ssl.create_default_context(cafile=trusted), connect_timeout_s)
    try:
        yield made
    finally:
        await made.close()


class Taken:
    """Counts how often a request was said to be taken."""

    times = 0

    def __call__(self) -> None:
        self.times += 1


async def begin(
    connections: Connections, url: str, body: bytes = b"{}", *, taken: Callable[[], None] | None = None, **how: Any
) -> Answer:
    options = {"authorization": None, "apart": False} | how
    return await connections.post(url, body, taken=taken or Taken(), **options)


async def whole(answer: Answer) -> bytes:
    body = b""
    while part := await answer.read():
        body += part
    return body


async def post(connections: Connections, url: str, body: bytes = b"{}", **how: Any) -> tuple[int, bytes]:
    """The whole answer: status and body."""
    with await begin(connections, url, body, **how) as answer:
        return answer.status, await whole(answer)


Script = Callable[[int, RawConnection], Awaitable[None]]


def saying(*pieces: bytes, close: bool = False) -> Script:
    """Answer each request with these pieces, of which each arrives alone; `close` the connection behind them."""

    async def script(_: int, connection: RawConnection) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while True:
                await connection.request()
                for piece in pieces:
                    await connection.send(piece)
                    # Both ends are on one loop: it has looked for what is readable before this goes on.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                if close:
                    return

    return script


# Answers of every kind, and what they come to: status, body, and whether the connection is used again.

CHUNKS = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2 \r\nlo\r\n0\r\nETag: x\r\n\r\n"
PACKED = gzip.compress(b"hello")
ANSWERS = {
    "of known length": (HELLO, 200, b"hello", True),
    "empty": (OK, 200, b"", True),
    "in chunks, with an extension and trailers": (CHUNKS, 201, b"hello", True),
    "204 with a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b"", True),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"", True),
    "after two of 1xx": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\nContent-Length: 9\r\n\r\n" + HELLO,
        200,
        b"hello",
        True,
    ),
    "without a reason": (b"HTTP/1.1 500\r\nContent-Length: 5\r\n\r\nhello", 500, b"hello", True),
    "with bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello", True),
    "that offers an upgrade": (
        b"HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "that closes": (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", False),
    "of HTTP/1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        200,
        b"hello",
        True,
    ),
    "compressed, unasked": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(PACKED), PACKED),
        200,
        b"hello",
        True,
    ),
}


@on_each_loop
@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_is_understood_whole_and_in_single_bytes(kind: str) -> None:
    raw, status, body, kept = ANSWERS[kind]
    for pieces in ((raw,), [raw[at : at + 1] for at in range(len(raw))]):
        async with RawBot(saying(*pieces)) as bot, some_connections() as connections:
            for _ in range(2):
                assert await post(connections, bot.endpoint) == (status, body)
            assert bot.connections == (1 if kept else 2)


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_is_understood_wherever_it_is_cut(kind: str) -> None:
    raw, status, body, _ = ANSWERS[kind]
    async with some_connections() as connections:
        for at in range(1, len(raw)):
            async with RawBot(saying(raw[:at], raw[at:])) as bot:
                assert await post(connections, bot.endpoint) == (status, body), f"cut at {at}"


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_that_ends_too_early_is_broken_wherever_it_ends(kind: str) -> None:
    raw, _, _, _ = ANSWERS[kind]
    async with some_connections() as connections:
        for at in range(len(raw)):
            async with RawBot(saying(raw[:at], close=True)) as bot:
                with pytest.raises((Broken, OSError)):
                    await post(connections, bot.endpoint)
                assert bot.connections == 1, "what was sent is not repeated"


@on_each_loop
async def test_an_answer_of_unknown_length_ends_with_its_connection() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nhello"
    async with RawBot(saying(raw[:-2], raw[-2:], close=True)) as bot, some_connections() as connections:
        for number in (1, 2):
            assert await post(connections, bot.endpoint) == (200, b"hello")
            assert bot.connections == number


async def test_an_answer_of_unknown_length_whose_connection_is_reset_is_broken() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhel")
        await read.wait()
        connection.reset()

    read = asyncio.Event()
    async with RawBot(script) as bot, some_connections() as connections:
        with await begin(connections, bot.endpoint) as answer:
            assert await answer.read() == b"hel"
            read.set()
            with pytest.raises(ConnectionResetError):
                await answer.read()


async def test_what_has_arrived_before_a_break_is_read_first() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"
    async with RawBot(saying(raw, close=True)) as bot, some_connections() as connections:
        with await begin(connections, bot.endpoint) as answer:
            assert await answer.read() == b"hello"
            with pytest.raises(Broken):
                await answer.read()


async def test_trailers_change_nothing() -> None:
    raw = b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nRetry-After: 9\r\nX: 1\r\n\r\n"
    async with RawBot(saying(raw)) as bot, some_connections() as connections:
        with await begin(connections, bot.endpoint) as answer:
            assert await whole(answer) == b""
            assert (answer.header(b"retry-after"), answer.header(b"x")) == ("1", None)


# No HTTP


@on_each_loop
@pytest.mark.parametrize(
    "raw",
    [
        b"220 smtp.example.org ESMTP\r\n",
        b"\x16\x03\x01\x00\x05hello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + HELLO,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
async def test_what_is_no_answer_breaks_and_is_not_waited_for(raw: bytes) -> None:
    async with RawBot(saying(raw)) as bot, some_connections() as connections:
        with pytest.raises(Broken):
            await post(connections, bot.endpoint)
        assert bot.connections == 1


@on_each_loop
@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x" * 1000),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n" * 100),
    ],
    ids=["a header", "headers", "1xx answers", "a chunk extension", "trailers"],
)
async def test_what_is_never_a_body_is_given_up(begins: bytes, goes_on: bytes) -> None:
    sent = 0

    async def script(_: int, connection: RawConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(begins)
        with contextlib.suppress(ConnectionError):
            while True:
                await connection.send(goes_on)
                sent += len(goes_on)
                await asyncio.sleep(0)

    async with RawBot(script) as bot, some_connections() as connections:
        with pytest.raises(Broken, match="too large"):
            await post(connections, bot.endpoint)
        assert sent < 10_000_000, "it was given up while it came, not by some deadline"


# Bodies without end


@on_each_loop
async def test_a_body_that_nobody_reads_is_not_taken_from_the_network() -> None:
    """A bot may say more than is wanted of it: that fills its own memory, not ours."""
    sent = 0

    async def script(_: int, connection: RawConnection) -> None:
        nonlocal sent
        await connection.request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await connection.send(b"x" * 100_000)
                sent += 100_000

    async with RawBot(script) as bot, some_connections() as connections:
        with await begin(connections, bot.endpoint) as answer:
            await until(lambda: answer.held_bytes > 65_536, "holds some of it")
            for _ in range(200):  # in each of which the bot could send more
                await asyncio.sleep(0)
            held = answer.held_bytes
            assert held < 1_000_000
            read = len(await answer.read())
            assert read == held
            while read < 40_000_000:
                read += len(await answer.read())
        assert sent < 60_000_000


@pytest.mark.parametrize("compressed", [gzip.compress, zlib.compress])
async def test_a_compressed_body_comes_in_pieces_however_large_it_is(compressed: Callable[[bytes], bytes]) -> None:
    packed = compressed(b"x" * 50_000_000)
    coding = b"GZip" if compressed is gzip.compress else b"deflate"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: %d\r\n\r\n" % (coding, len(packed))
    async with RawBot(saying(head + packed)) as bot, some_connections() as connections:
        with await begin(connections, bot.endpoint) as answer:
            size = 0
            while part := await answer.read():
                assert len(part) <= 65_536
                size += len(part)
            assert size == 50_000_000


async def test_a_compressed_body_without_its_end_is_broken() -> None:
    packed = gzip.compress(random.Random(1).randbytes(1000))[:-9]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with RawBot(saying(head + packed)) as bot, some_connections() as connections:
        with pytest.raises(Broken):
            await post(connections, bot.endpoint)


# Which connection


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
@pytest.mark.parametrize("turns", [0, 5])
@pytest.mark.parametrize("how", ["close", "reset", "speak"])
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
        monkeypatch.setattr(wire.Connection, "is_quiet", lambda _: True)
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
        await post(connections, bot.endpoint, apart=True)
        await post(connections, bot.endpoint)
        assert bot.connections == 2
        assert [b"\r\nConnection: close" in head for head in heads] == [False, True, False]


async def test_an_idle_connection_is_closed_by_us_before_bots_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wire.KEEPALIVE_S < 2, "gunicorn's default"
    monkeypatch.setattr(wire, "KEEPALIVE_S", 0.1)
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
        monkeypatch.setattr(wire, "KEEPALIVE_S", 0.0)
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


# When a request was taken


@on_each_loop
async def test_an_early_answer_counts_and_the_rest_of_the_request_is_not_sent() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        await connection.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await answered.wait()
        try:
            await connection.request()
        except (EOFError, ConnectionError):
            broke_off.set()

    answered, broke_off = asyncio.Event(), asyncio.Event()
    async with RawBot(script, receive_buffer=4096) as bot, some_connections() as connections:
        taken = Taken()
        assert await post(connections, bot.endpoint, bytes(8_000_000), taken=taken) == (413, b"")
        assert taken.times == 0
        answered.set()
        await broke_off.wait()


@on_each_loop
async def test_a_request_that_breaks_under_the_write_was_not_taken() -> None:
    async def script(_: int, connection: RawConnection) -> None:
        await connection.begin()
        connection.reset()

    async with RawBot(script, receive_buffer=4096) as bot, some_connections() as connections:
        taken = Taken()
        with pytest.raises((Broken, OSError)):
            await post(connections, bot.endpoint, bytes(8_000_000), taken=taken)
        assert taken.times == 0


# TLS


@contextlib.asynccontextmanager
async def tls_bot(
    pem: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[str]:
    """A bot that speaks TLS and decides by itself what to read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(run(reader, writer)))

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError, OSError):
            await serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context, limit=4096)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@on_each_loop
async def test_connections_are_kept_over_tls(tmp_path: Path) -> None:
    peers = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            peers.add(writer.get_extra_info("peername"))
            await reader.readuntil(b"{}")
            writer.write(HELLO)

    pem = certificate(tmp_path)
    async with tls_bot(pem, serve) as url, some_connections(pem) as connections:
        for _ in range(5):
            assert await post(connections, url) == (200, b"hello")
    assert len(peers) == 1


@on_each_loop
async def test_an_answer_of_unknown_length_ends_with_its_connection_over_tls(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        writer.close()
        await writer.wait_closed()

    pem = certificate(tmp_path)
    async with tls_bot(pem, serve) as url, some_connections(pem) as connections:
        assert await post(connections, url) == (200, b"hello")


@on_each_loop
async def test_what_waits_encrypted_in_our_own_buffer_is_not_taken(tmp_path: Path) -> None:
    read_on, begun = asyncio.Event(), asyncio.Event()
    body = bytes(16_000_000)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(await reader.readuntil(b"\r\n\r\n")) * 0
        begun.set()
        await read_on.wait()
        while size < len(body):
            size += len(await reader.read(1 << 20))
        writer.write(HELLO)
        await asyncio.Event().wait()

    pem = certificate(tmp_path)
    async with tls_bot(pem, serve) as url, some_connections(pem) as connections:
        taken = Taken()
        posting = asyncio.create_task(post(connections, url, body, taken=taken))
        await begun.wait()
        assert taken.times == 0
        read_on.set()
        assert await posting == (200, b"hello")
        assert taken.times == 1


@on_each_loop
async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))

    heard: list[bytes] = []
    pem = certificate(tmp_path)
    async with tls_bot(pem, serve) as url, some_connections(pem) as connections:
        with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
            await post(connections, url.replace("127.0.0.1", "localhost"))
    assert not any(heard)


@on_each_loop
async def test_tls_that_is_none_fails_and_tls_that_never_begins_ends_in_time() -> None:
    async def plain(_: int, connection: RawConnection) -> None:
        await connection.begin()
        await connection.send(b"HTTP/1.1 400 This is HTTP\r\n\r\n")
        await connection.gone()

    async def silent(_: int, connection: RawConnection) -> None:
        await connection.gone()

    async with some_connections(connect_timeout_s=0.3) as connections:
        async with RawBot(plain) as bot:
            with pytest.raises(ssl.SSLError):
                await post(connections, bot.endpoint.replace("http:", "https:"))
        async with RawBot(silent) as bot:
            with pytest.raises(TimeoutError):
                await post(connections, bot.endpoint.replace("http:", "https:"))


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

            monkeypatch.setattr(wire, "_addresses", resolve)
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
