"""How a server goes away, and comes back: section 11 of the specification, against real processes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from landline.conformance.directline import Answer, ClientStream, DirectLine
from landline.conformance.scripted_bot import Received, ScriptedBot
from landline.wire.connection import STOP_GRACE_S
from support.edges import request, response
from support.landline import SECRET, Landline
from support.wires import Response

DEADLINE_S = 20
AUTHORIZED = f"Authorization: Bearer {SECRET}"


class Kept:
    """One connection that is kept alive, as pages and bots keep theirs."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, method: str, path: str, *headers: str, body: bytes = b"") -> Response:
        """One request and its answer."""
        self._writer.write(request(method, path, *headers, body=body))
        return await self.answer()

    async def answer(self) -> Response:
        """The answer to a request that is under way."""
        async with asyncio.timeout(DEADLINE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0")
            return response(head + await self._reader.readexactly(int(length.partition(b":")[2])))

    async def ended(self) -> bool:
        """Whether the other side hangs up, with nothing more to say."""
        async with asyncio.timeout(DEADLINE_S):
            return await self._reader.read() == b""


@contextlib.asynccontextmanager
async def kept(landline: Landline) -> AsyncIterator[Kept]:
    """A connection that has been used once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", landline.port)
    with contextlib.closing(writer):
        connection = Kept(reader, writer)
        assert (await connection.ask("GET", "/ready")).status == 200
        yield connection


async def refused(landline: Landline) -> None:
    """Wait until new connections are refused."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", landline.port)
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.005)


def stop(landline: Landline) -> Awaitable[int]:
    """SIGTERM; what is answered is the exit code, in time."""
    return asyncio.create_task(landline.terminate(DEADLINE_S))


@contextlib.asynccontextmanager
async def open_stream(client: DirectLine) -> AsyncIterator[ClientStream]:
    """A stream of a new conversation."""
    started = await client.start()
    async with client.stream(started.stream_url) as stream:
        yield stream


async def greeted(client: DirectLine, bot: ScriptedBot) -> Answer:
    """A conversation of whose only user the bot has heard: what is sent next waits for no join."""
    started = await client.start(user={"id": "user"})
    await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
    return started


@pytest.fixture
async def bot() -> AsyncIterator[ScriptedBot]:
    """A bot that answers."""
    async with ScriptedBot() as bot:
        yield bot


# Going


async def test_sigterm_refuses_newcomers_and_serves_those_who_are_there(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=2) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client),
        open_stream(client),
        kept(landline) as connection,
    ):
        started = await client.start()
        leaving = stop(landline)
        await refused(landline)

        ready = await connection.ask("GET", "/ready")
        assert (ready.status, ready.error["code"]) == (503, "ServiceError")
        assert (await connection.ask("GET", "/live")).status == 200

        # Nothing else is answered 503 because of a drain (section 11).
        assert (await connection.ask("POST", "/v3/directline/conversations", AUTHORIZED)).status == 201
        path = f"/v3/directline/conversations/{started.conversation_id}"
        body = json.dumps({"type": "message", "from": {"id": "u"}, "text": "late"}).encode()
        sent = await connection.ask("POST", f"{path}/activities", AUTHORIZED, body=body)
        assert sent.status == 200, sent
        assert await bot.wait_for_text("late")
        again = await connection.ask("GET", path, AUTHORIZED)
        assert again.status == 200

        stream_path = "/v3" + json.loads(again.body)["streamUrl"].partition("/v3")[2]
        upgrade = (
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        handshake = await connection.ask("GET", stream_path, *upgrade)
        assert (handshake.status, handshake.error["code"]) == (503, "ServiceError")
        assert int(handshake.headers["retry-after"]) >= 1
        assert await leaving == 0


async def test_handshake_without_a_good_ticket_is_told_so_during_a_drain_too(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", drain_s=1) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client),
        open_stream(client),
        kept(landline) as connection,
    ):
        leaving = stop(landline)
        await refused(landline)
        path = "/v3/directline/conversations/nowhere-99/stream?t=x"
        answer = await connection.ask("GET", path, "Upgrade: websocket", "Connection: Upgrade")
        assert answer.status == 403
        assert await leaving == 0


@pytest.mark.item(159)
async def test_streams_are_closed_with_1001_one_after_the_other_and_nothing_is_missing_afterwards(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    drain_s, count = 1.5, 12
    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=drain_s) as landline:
        async with DirectLine(landline.directline, SECRET) as client, contextlib.AsyncExitStack() as streams:
            opened = [await streams.enter_async_context(open_stream(client)) for _ in range(count)]
            ids = []
            for number in range(3):
                started = await client.start()
                ids.append(started.conversation_id)
                opened.append(await streams.enter_async_context(client.stream(started.stream_url)))
                assert (await client.send(started.conversation_id, f"message {number}")).status == 200
                await opened[-1].until_text(f"message {number}")

            async def end(stream: ClientStream) -> tuple[int, str, float]:
                code, reason = await stream.until_closed(DEADLINE_S)
                return code, reason, time.monotonic()

            began = time.monotonic()
            leaving = stop(landline)
            ends = await asyncio.gather(*(end(stream) for stream in opened))
            assert await leaving == 0
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as client:
            for number, (conversation_id, stream) in enumerate(zip(ids, opened[count:], strict=True)):
                assert await client.all_activities(conversation_id, stream.watermark) == []
                (kept_activity,) = await client.all_activities(conversation_id)
                assert kept_activity["text"] == f"message {number}"
    assert {(code, reason) for code, reason, _ in ends} == {(1001, "going-away")}
    times = sorted(at - began for *_, at in ends)
    # Evenly: at each quarter of the time, about a quarter of them; half the time aside for a busy machine.
    assert times[0] < drain_s / 2
    assert times[-1] > drain_s / 2
    assert max(later - sooner for sooner, later in itertools.pairwise(times)) < drain_s / 2


async def test_without_a_drain_time_all_streams_close_at_once(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client) as one,
        open_stream(client) as two,
    ):
        leaving = stop(landline)
        assert await one.until_closed() == await two.until_closed() == (1001, "going-away")
        assert await leaving == 0


async def test_request_under_way_gets_its_answer_although_the_server_is_leaving(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        kept(landline) as idle,
    ):
        started = await greeted(client, bot)
        bot.hang()
        sending = asyncio.create_task(client.send(started.conversation_id, "patience"))
        await bot.wait_for_text("patience")
        leaving = stop(landline)
        await refused(landline)
        assert (await idle.ask("GET", "/live")).status == 200
        assert not sending.done()
        bot.answer()
        bot.release()
        assert (await sending).status == 200
        assert await idle.ended()
        assert await leaving == 0


async def test_bot_whose_turn_is_under_way_replies_over_the_connection_that_it_has(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """With no stream open there is nothing to drain, and the client's POST is answered 200: the reply must be there."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        kept(landline) as idle,
    ):
        started = await greeted(client, bot)
        # A pool of one, as a bot's HTTP client has: the connection is open before the stop.
        await bot.send(started.conversation_id, {"type": "message", "text": "wait"})
        bot.hang()
        sending = asyncio.create_task(client.send(started.conversation_id, "how much?"))
        await bot.wait_for_text("how much?")
        leaving = stop(landline)
        await refused(landline)
        with pytest.raises(TimeoutError):  # longer than what is on its way is waited for anyway
            await asyncio.wait_for(idle.ended(), 2 * STOP_GRACE_S)
        said = await bot.send(started.conversation_id, {"type": "message", "text": "nine"})
        bot.answer()
        bot.release()
        assert (said.status, (await sending).status) == (200, 200)
        assert await leaving == 0
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as again:
            texts = [each["text"] for each in await again.all_activities(started.conversation_id)]
            assert texts == ["wait", "how much?", "nine"]


async def test_request_under_way_has_no_more_than_its_own_deadline(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, bot_timeout_s=1.5) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = await greeted(client, bot)
        bot.hang()
        sending = asyncio.create_task(client.send(started.conversation_id, "in vain"))
        await bot.wait_for_text("in vain")
        leaving = stop(landline)
        assert (await sending).error == (502, "BotError")
        assert await leaving == 0
        bot.release()
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as again:
            assert [each["text"] for each in await again.all_activities(started.conversation_id)] == ["in vain"]


async def test_bot_that_speaks_on_an_open_connection_is_heard_to_the_last(tmp_path: Path, bot: ScriptedBot) -> None:
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=1) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client),
        open_stream(client) as stream,
        kept(landline) as connection,
    ):
        started = await greeted(client, bot)
        path = "/b/" + bot.service_url(started.conversation_id).partition("/b/")[2]
        leaving = stop(landline)
        await refused(landline)
        said = await connection.ask(
            "POST",
            f"{path}/v3/conversations/{started.conversation_id}/activities",
            body=b'{"type":"message","text":"goodbye"}',
        )
        assert said.status == 200
        await stream.until_closed()
        assert await leaving == 0
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as again:
            assert [each["text"] for each in await again.all_activities(started.conversation_id)] == ["goodbye"]


def joins(bot: ScriptedBot) -> list[Received]:
    """What the bot was told of members."""
    return [each for each in bot.received if each.type == "conversationUpdate"]


async def test_bot_that_is_being_told_of_a_join_is_waited_for_and_not_told_again(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """Twice only after a crash (6.4)."""
    bot.answer(delay=1)
    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline:
        async with DirectLine(landline.directline, SECRET) as client:
            started = await client.start(user={"id": "user"})
            join = await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
            assert await stop(landline) == 0
        assert join.answered is not None, "it was cut off"
        bot.answer()
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as client:
            assert (await client.send(started.conversation_id, "hello")).status == 200
    assert joins(bot) == [join]


async def test_bot_that_hangs_on_a_join_holds_up_a_stop_for_join_wait_s_and_is_not_told_again(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    """The bot has the join, whatever became of it."""
    bot.hang()
    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, join_wait_s=1) as landline:
        async with DirectLine(landline.directline, SECRET) as client:
            started = await client.start(user={"id": "user"})
            join = await bot.wait_for(lambda each: each.conversation_id == started.conversation_id)
            began = time.monotonic()
            assert await stop(landline) == 0
            assert time.monotonic() - began < 5, "the join has 15 s, a stop has not"
        bot.release()
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as client:
            assert (await client.send(started.conversation_id, "hello")).status == 200
    assert joins(bot) == [join]


async def test_join_that_a_stop_came_before_is_made_by_the_next_process(tmp_path: Path, bot: ScriptedBot) -> None:
    """A bot that is down does not hold up a stop for as long as one that thinks."""
    await bot.refuse()
    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, join_wait_s=15) as landline:
        async with DirectLine(landline.directline, SECRET) as client:
            started = await client.start(user={"id": "user"})
            began = time.monotonic()
            assert await stop(landline) == 0
            assert time.monotonic() - began < 5
        await bot.accept()
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as client:
            assert (await client.send(started.conversation_id, "hello")).status == 200
    assert len(joins(bot)) == 1


async def test_bot_that_greets_while_the_server_leaves_is_heard_on_a_connection_that_is_open(
    tmp_path: Path, bot: ScriptedBot
) -> None:
    leave = asyncio.Event()

    async def greet(bot: ScriptedBot, activity: dict[str, Any]) -> None:
        await leave.wait()
        said = await bot.send(activity["conversation"]["id"], {"type": "message", "text": "welcome"})
        assert said.status == 200

    async with Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline:
        async with DirectLine(landline.directline, SECRET) as client:
            first = await greeted(client, bot)
            assert (await bot.send(first.conversation_id, {"type": "message", "text": "open"})).status == 200
            bot.on_activity = greet
            started = await greeted(client, bot)
            leaving = stop(landline)
            await refused(landline)
            leave.set()
            assert await leaving == 0
        bot.on_activity = None
        await landline.start()
        async with DirectLine(landline.directline, SECRET) as client:
            assert [each["text"] for each in await client.all_activities(started.conversation_id)] == ["welcome"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_changes_nothing(tmp_path: Path, second: signal.Signals) -> None:
    async with (
        Landline(tmp_path / "data", drain_s=0.6) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client) as one,
        open_stream(client) as two,
    ):
        pid = landline.pid
        leaving = stop(landline)
        await refused(landline)
        os.kill(pid, second)
        assert await one.until_closed() == await two.until_closed() == (1001, "going-away")
        assert await leaving == 0
    assert "Traceback" not in landline.log


async def test_file_that_is_taken_or_sent_too_slowly_is_cut_off_and_no_failure_of_ours(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", drain_s=0, bot_timeout_s=0.3) as landline,
        DirectLine(landline.directline, SECRET) as client,
        kept(landline) as connection,
    ):
        started = await client.start()
        upload = f"/v3/directline/conversations/{started.conversation_id}/upload?userId=u"
        kind = "Content-Type: image/png"
        await connection.ask("POST", upload, AUTHORIZED, kind, body=bytes(16 << 20))
        (sent,) = await client.all_activities(started.conversation_id)
        file = "/v3" + sent["attachments"][0]["contentUrl"].partition("/v3")[2]

        downloading, download = await asyncio.open_connection("127.0.0.1", landline.port, limit=1024)
        download.write(request("GET", file))
        assert (await downloading.readline()).split()[1] == b"200"
        uploading, trickling = await asyncio.open_connection("127.0.0.1", landline.port)
        trickling.write(request("POST", upload, AUTHORIZED, kind, "Content-Length: 1000"))
        leaving = stop(landline)
        while not leaving.done():  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                trickling.write(b"x")
                await trickling.drain()
            await asyncio.sleep(0.1)
        assert await leaving == 0
        with contextlib.suppress(ConnectionError):
            assert await uploading.read() == b""
        download.transport.abort()
        trickling.transport.abort()
    said = [json.loads(line) for line in landline.log.splitlines()]
    assert {line["level"] for line in said} <= {"info", "warning"}
    assert [line["requests"] for line in said if line["event"] == "the stop cut connections off"] == [2]


async def test_client_that_answers_no_close_frame_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    async with (
        Landline(tmp_path / "data", drain_s=0, close_timeout_s=30) as landline,
        DirectLine(landline.directline, SECRET) as client,
        open_stream(client) as stream,
    ):
        stream.stop_reading()
        assert await stop(landline) == 0


# Coming back


async def second_start(data: Path) -> tuple[int | None, str]:
    """Exit code and standard error of another server on the same directory."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LANDLINE_")}
    arguments = ("-m", "landline", "serve", "--data", str(data), "--port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(DEADLINE_S):
        _, stderr = await process.communicate()
    return process.returncode, stderr.decode()


async def test_directory_of_a_running_server_is_nobody_elses(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with Landline(data) as landline, DirectLine(landline.directline, SECRET) as client:
        code, said = await second_start(data)
        assert (code, said) == (3, f"landline: {data} is in use by another process\n")
        assert (await client.start()).status == 201


async def test_directory_stays_locked_until_the_last_request_is_answered(tmp_path: Path, bot: ScriptedBot) -> None:
    """A successor that opened the log before its predecessor has let go of it would be a second writer."""
    data = tmp_path / "data"
    async with (
        Landline(data, bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = await greeted(client, bot)
        bot.hang()
        sending = asyncio.create_task(client.send(started.conversation_id, "patience"))
        await bot.wait_for_text("patience")
        leaving = stop(landline)
        await refused(landline)
        assert (await second_start(data))[0] == 3
        bot.answer()
        bot.release()
        assert (await sending).status == 200
        assert await leaving == 0


async def test_after_kill_9_the_next_start_works_at_once_and_knows_everything(tmp_path: Path, bot: ScriptedBot) -> None:
    """`at once`: no lock to be waited for, no port in TIME_WAIT, no repair by hand."""
    async with (
        Landline(tmp_path / "data", bot=bot.endpoint) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        started = await client.start()
        async with client.stream(started.stream_url) as stream:
            sent = await client.send(started.conversation_id, "before")
            await stream.until_text("before")
            await landline.restart(kill=True)
            assert (await stream.until_closed())[0] == 1006
        again = client.using(started.token)
        (found,) = await again.all_activities(started.conversation_id)
        assert (found["id"], found["text"]) == (sent.json["id"], "before")
        reopened = await again.reconnect(started.conversation_id, stream.watermark)
        assert (reopened.status, reopened.replay) == (200, "complete")
        async with client.stream(reopened.stream_url) as stream:
            await client.send(started.conversation_id, "after")
            assert (await stream.next_activity())["text"] == "after"
