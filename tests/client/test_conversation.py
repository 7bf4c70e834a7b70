"""The client against a server that has nothing but Direct Line 3.0, and sends several activities a frame."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from landline.client import (
    Closed,
    Conversation,
    DirectLine,
    Options,
    OutcomeUnknown,
    Refused,
    Replay,
    State,
    TokenRejected,
    Unreachable,
)
from landline.core.session import Patience, Session, Wait
from support.minimal_directline import SECRET, MinimalDirectLine

QUICK = Options(first_wait_s=0.02, longest_wait_s=0.1, send_timeout_s=10, poll_s=0.02)
DEADLINE_S = 20


@contextlib.asynccontextmanager
async def talking(
    server: MinimalDirectLine, options: Options = QUICK, **more: Any
) -> AsyncIterator[tuple[DirectLine, Conversation]]:
    async with DirectLine(server.url, SECRET, options=options, **more) as line:
        yield line, await line.start(user="ann")


@pytest.fixture
async def server() -> AsyncIterator[MinimalDirectLine]:
    async with MinimalDirectLine() as server:
        yield server


async def texts(conversation: Conversation, count: int) -> list[str]:
    return [(await conversation.receive(DEADLINE_S))["text"] for _ in range(count)]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


async def until_state(conversation: Conversation, state: State) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async for change in conversation.states():
            if change.state is state:
                return


@pytest.mark.client_item(1)
async def test_each_activity_is_given_once_in_order_over_cuts(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        for n in range(10):
            await conversation.send(f"word {n}")
            if n % 3 == 2:
                await server.cut()
        expected = [text for n in range(10) for text in (f"word {n}", f"echo word {n}")]
        assert await texts(conversation, 20) == expected
        assert server.talks[conversation.id].log[0]["from"] == {"id": "ann"}


@pytest.mark.client_item(2)
async def test_the_watermark_is_behind_what_was_taken_not_behind_what_arrived(server: MinimalDirectLine) -> None:
    async with talking(server) as (line, conversation):
        talk = server.talks[conversation.id]
        for n in range(6):
            talk.log.append({"type": "message", "id": str(n), "text": f"word {n}"})
        talk.append({"type": "message", "text": "last"})
        assert await texts(conversation, 4) == ["word 0", "word 1", "word 2", "word 3"]
        assert conversation.watermark == "3", "the set of 3 to 5 is not taken whole"
        resumed = await line.resume(conversation.id, watermark=conversation.watermark, token=conversation.token)
        assert await texts(resumed, 4) == ["word 3", "word 4", "word 5", "last"]


@pytest.mark.client_item(3)
async def test_updates_and_deletes_come_through_and_repeats_do_not(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        talk = server.talks[conversation.id]
        first = {"type": "message", "id": "7", "text": "first"}
        talk.log += [first, first, first | {"text": "changed"}, {"type": "messageDelete", "id": "7"}]
        talk.append({"type": "message", "text": "end"})
        had = [await conversation.receive(DEADLINE_S) for _ in range(4)]
        assert [each.get("text", each["type"]) for each in had] == ["first", "changed", "messageDelete", "end"]


@pytest.mark.client_item(4)
async def test_a_conversation_resumed_without_a_watermark_begins_at_its_beginning(server: MinimalDirectLine) -> None:
    async with talking(server) as (line, conversation):
        await conversation.send("hi")
        resumed = await line.resume(conversation.id)
        assert await texts(resumed, 2) == ["hi", "echo hi"]
        with pytest.raises(Refused) as refused:
            await line.resume("unknown")
        assert refused.value.status == 404


@pytest.mark.client_item(5)
async def test_retry_after_is_honoured(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        await until_state(conversation, State.ONLINE)
        server.refuse.append(web.Response(status=503, headers={"Retry-After": "1"}))
        server.requests.clear()
        began = asyncio.get_running_loop().time()
        await server.cut()
        await until(lambda: len([each for each in server.requests if each.startswith("GET")]) >= 2)
        assert asyncio.get_running_loop().time() - began >= 1
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]


@pytest.mark.client_item(5)
def test_waits_double_up_to_the_longest_and_chance_takes_any_part_of_them() -> None:
    def waits(jitter: float) -> list[float]:
        session = Session(Patience(first_s=1.0, longest_s=15.0, least=0.0))
        session.started("ws://a", 60.0, 0.0)
        session.opened()
        decisions = [session.lost(jitter)]
        for _ in range(6):
            session.waited()
            decisions.append(session.refused(jitter, 503))
        return [decision.seconds for decision in decisions if isinstance(decision, Wait)]

    assert waits(1.0) == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
    assert waits(0.25) == [each / 4 for each in waits(1.0)]
    assert waits(0.0) == [0.0] * 7


@pytest.mark.client_item(5)
@pytest.mark.parametrize("waits", [(1.0, 61.0), (0.0, 1.0), (2.0, 1.0)])
def test_waits_that_break_the_promise_are_refused(waits: tuple[float, float]) -> None:
    first_wait_s, longest_wait_s = waits
    with pytest.raises(ValueError, match="does not hold"):
        Options(first_wait_s=first_wait_s, longest_wait_s=longest_wait_s)


@pytest.mark.client_item(6)
async def test_the_token_is_refreshed_before_it_expires(server: MinimalDirectLine) -> None:
    server.token_s = 0.4
    async with talking(server) as (_, conversation):
        first = conversation.token
        await until(lambda: "POST refresh" in server.requests and conversation.token != first)


@pytest.mark.client_item(7)
async def test_a_callback_is_asked_for_a_new_token(server: MinimalDirectLine) -> None:
    asked: list[str] = []

    async def new_token(conversation_id: str) -> str:
        asked.append(conversation_id)
        server.valid.add("from-the-backend")
        return "from-the-backend"

    async with talking(server, new_token=new_token) as (_, conversation):
        await until_state(conversation, State.ONLINE)
        server.valid.clear()
        await server.cut()
        await until_state(conversation, State.WAITING_FOR_TOKEN) if not asked else None
        await until(lambda: asked)
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]
        assert set(asked) == {conversation.id}


@pytest.mark.client_item(7)
async def test_without_a_valid_credential_the_iteration_says_so(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        await until_state(conversation, State.ONLINE)
        server.valid.clear()
        await server.cut()
        with pytest.raises(TokenRejected):
            await conversation.receive(DEADLINE_S)
        assert conversation.state is State.OVER


@pytest.mark.client_item(8)
@pytest.mark.parametrize("replay", [Replay.TRUNCATED, Replay.FROM_START])
async def test_a_replay_that_is_not_complete_is_said(server: MinimalDirectLine, replay: Replay) -> None:
    async with talking(server) as (_, conversation):
        await until_state(conversation, State.ONLINE)
        again = server._opened(conversation.id, "0")
        server.refuse.append(web.json_response(again, headers={"X-DirectLine-Replay": replay.value}))
        changes = conversation.states()
        await anext(changes)
        await server.cut()
        async with asyncio.timeout(DEADLINE_S):
            async for change in changes:
                if change.replay is not None:
                    assert (change.state, change.replay) == (State.ONLINE, replay)
                    break


@pytest.mark.client_item(9)
async def test_where_no_stream_gets_through_it_is_polled() -> None:
    async with MinimalDirectLine(streams=False) as server, talking(server) as (_, conversation):
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]
        await conversation.send("again")
        assert await texts(conversation, 2) == ["again", "echo again"]
        assert conversation.state is State.ONLINE


@pytest.mark.client_item(9)
async def test_a_stream_is_tried_again_after_a_while_of_polling() -> None:
    options = Options(first_wait_s=0.01, longest_wait_s=0.02, poll_s=0.01, stream_again_s=0.1)
    async with MinimalDirectLine(streams=False) as server, talking(server, options) as (_, conversation):
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]
        server.streams = True
        await until(lambda: server.talks[conversation.id].sockets)
        await conversation.send("again")
        assert await texts(conversation, 2) == ["again", "echo again"]


@pytest.mark.client_item(10)
async def test_a_program_that_does_not_read_holds_a_bounded_buffer(server: MinimalDirectLine) -> None:
    options = Options(first_wait_s=0.02, longest_wait_s=0.1, buffered=8)
    async with talking(server, options) as (line, conversation):
        other = await line.start(user="bob")
        talk = server.talks[conversation.id]
        for n in range(500):
            talk.append({"type": "message", "text": f"word {n}"})
        await other.send("hi")
        assert await texts(other, 2) == ["hi", "echo hi"]
        await until(lambda: len(conversation._buffer) == 8)
        assert await texts(conversation, 500) == [f"word {n}" for n in range(500)]


@pytest.mark.client_item(1, 10)
async def test_a_stream_that_is_gone_when_its_ping_is_read_is_a_lost_stream(server: MinimalDirectLine) -> None:
    """The program was not reading, the server pinged and left: the Pong has nowhere to go."""
    server.a_frame = 1
    options = Options(first_wait_s=0.02, longest_wait_s=0.1, buffered=1)
    async with talking(server, options) as (_, conversation):
        talk = server.talks[conversation.id]
        for n in range(3):
            talk.append({"type": "message", "text": f"word {n}"})
        await until(lambda: len(conversation._buffer) == 1)
        (stream,) = talk.sockets
        await stream.ping()
        assert stream._req is not None
        assert stream._req.transport is not None
        stream._req.transport.close()
        client = conversation._socket
        assert client is not None
        await until(lambda: client.get_extra_info("socket") is None or client._conn.transport.is_closing())
        assert await texts(conversation, 3) == ["word 0", "word 1", "word 2"]
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]


@pytest.mark.client_item(12)
async def test_an_unknown_outcome_is_said_and_nothing_is_sent_twice(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        server.lose_answers = 1
        with pytest.raises(OutcomeUnknown):
            await conversation.send("once")
        assert [each["text"] for each in server.talks[conversation.id].log] == ["once"]


@pytest.mark.client_item(13)
async def test_leaving_ends_iterations_and_leaves_nothing_open(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        await until_state(conversation, State.ONLINE)
        reading = asyncio.create_task(anext(conversation, "ended"))
        await asyncio.sleep(0)
        await conversation.close()
        assert await reading == "ended"
        await conversation.close()
        await until(lambda: not server.talks[conversation.id].sockets)
        with pytest.raises(Closed):
            await conversation.send("too late")


@pytest.mark.client_item(13)
async def test_a_conversation_that_is_gone_ends_iterations_and_its_tasks(server: MinimalDirectLine) -> None:
    async with talking(server) as (line, conversation):
        await until_state(conversation, State.ONLINE)
        talk = server.talks.pop(conversation.id)
        for stream in list(talk.sockets):
            await stream.close(code=1011)
        async with asyncio.timeout(DEADLINE_S):
            assert [activity async for activity in conversation] == []
        assert conversation.state is State.OVER
        assert not line._conversations
        await until(lambda: all(task.done() for task in conversation._tasks))


@pytest.mark.client_item(14)
async def test_a_cancelled_reader_takes_nothing(server: MinimalDirectLine) -> None:
    async with talking(server) as (_, conversation):
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await conversation.receive(0.001)
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]


@pytest.mark.client_item(9)
async def test_a_server_without_tokens_streams_and_reconnects_is_polled_on() -> None:
    async with MinimalDirectLine(tokens=False) as server, talking(server) as (_, conversation):
        await conversation.send("hi")
        assert await texts(conversation, 2) == ["hi", "echo hi"]
        server.break_polls = 2
        await until(lambda: not server.break_polls)
        await conversation.send("again")
        assert await texts(conversation, 2) == ["again", "echo again"]


async def test_nobody_there_and_a_wrong_secret_are_said(server: MinimalDirectLine) -> None:
    async with DirectLine(server.url, "wrong", options=QUICK) as line:
        with pytest.raises(TokenRejected):
            await line.start()
    brief = Options(first_wait_s=0.01, longest_wait_s=0.01, send_timeout_s=0.05)
    async with DirectLine("http://127.0.0.1:1", SECRET, options=brief) as line:
        with pytest.raises(Unreachable):
            await line.start()
    with pytest.raises(ValueError, match="not the address"):
        DirectLine("localhost:3000", SECRET)
