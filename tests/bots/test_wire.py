"""One connection to a bot, over real sockets: whatever a bot sends, what comes of it is certain, bounded, said once."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from landline.bots.wire import Broken
from support.posting import Taken, begin, post, some_connections, whole
from support.raw_bot import HELLO, OK, RawBot, RawConnection, certificate, on_each_loop, saying
from support.streams import until

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
