"""What an application says, and what of it goes over the connection: one write, no surprise in the head, an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs
from uvicorn.protocols.http.flow_control import FlowControl

from landline.wire.request import Request, status_line
from support.edges import request, response, serving
from support.wires import Response

Headers = Sequence[tuple[bytes, bytes]]


class Ear(asyncio.Transport):
    """A transport that notes each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def start(status: int = 200, headers: Headers = ()) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(piece: bytes = b"", *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


def length(size: int) -> tuple[bytes, bytes]:
    return b"content-length", b"%d" % size


def saying(*messages: dict[str, Any]) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that says this, whatever it is asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def cycle_on(ear: Ear, *, method: str = "GET", answered: Callable[[], None] = lambda: None, **more: bool) -> Request:
    flags = {"keep_alive": True, "expects_continue": False, **more}
    cycle = Request(method, ear, FlowControl(ear), [(b"date", b"today")], answered, **flags)
    cycle.scope = {"type": "http", "method": method}
    return cycle


async def run(cycle: Request, app: ASGIApp) -> None:
    """Let `app` answer, and wait for the end of it."""
    running: set[asyncio.Task[Any]] = set()
    cycle.start(app, asyncio.get_running_loop(), running)
    await asyncio.wait_for(asyncio.gather(*running), 5)
    assert running == set()


async def writes(*messages: dict[str, Any], method: str = "GET", **more: bool) -> list[bytes]:
    """What an application that says this makes a connection write."""
    ear = Ear()
    await run(cycle_on(ear, method=method, **more), saying(*messages))
    return ear.writes


async def answered(*messages: dict[str, Any], method: str = "GET") -> Response:
    """What a client gets of an application that says this."""
    async with serving(saying(*messages)) as served:
        return await served.ask(method, "/")


async def test_an_answer_leaves_in_one_write() -> None:
    said = await writes(start(201, [(b"X-One", b"1"), length(4)]), body(b"okay"))
    assert said == [b"HTTP/1.1 201 Created\r\ndate: today\r\nx-one: 1\r\ncontent-length: 4\r\n\r\nokay"]


async def test_an_answer_in_pieces_leaves_piece_by_piece() -> None:
    said = await writes(start(200, [length(4)]), body(b"ok", more=True), body(b"ay"))
    assert [each.rpartition(b"\r\n")[2] for each in said] == [b"ok", b"ay"]


async def test_an_answer_of_unknown_length_is_chunked() -> None:
    said = await writes(start(), body(b"x" * 18, more=True), body(b"", more=True), body(b"y"))
    head, *pieces = said
    assert b"transfer-encoding: chunked" in head
    assert head.endswith(b"\r\n\r\n12\r\n" + b"x" * 18 + b"\r\n")
    assert b"".join(pieces) == b"1\r\ny\r\n0\r\n\r\n"


async def test_an_answer_to_head_has_no_body_and_tells_its_length() -> None:
    (said,) = await writes(start(200, [length(4)]), body(b"okay"), method="HEAD")
    assert said.endswith(b"content-length: 4\r\n\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_announces_none(status: int) -> None:
    (said,) = await writes(start(status), body())
    assert b"transfer-encoding" not in said
    assert said.endswith(b"date: today\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb"])
@pytest.mark.parametrize("place", ["name", "value"])
async def test_a_header_with_a_line_break_becomes_no_second_header(value: bytes, place: str) -> None:
    header = (value, b"x") if place == "name" else (b"x-echo", value)
    with capture_logs() as log:
        answer = await answered(start(200, [header, length(4)]), body(b"okay"))
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert "set-cookie" not in answer.headers
    assert [each["event"] for each in log] == ["a request broke"]


@pytest.mark.parametrize("said", [b"long!", b"no"])
async def test_an_answer_of_another_length_than_it_says_does_not_pass_for_one(said: bytes) -> None:
    """Whatever stood behind it on the connection would be taken for a part of it, or a part of it for what follows."""
    with capture_logs():
        answer = await answered(start(200, [length(4)]), body(said))
    assert answer.status == 500


async def test_an_answer_that_ends_too_early_ends_the_connection() -> None:
    async with serving(saying(start(200, [length(4)]), body(b"ok", more=True))) as served:
        with capture_logs() as log:
            got = await served.exchange(request("GET", "/"))
    assert got.endswith(b"\r\n\r\nok")
    assert [each["event"] for each in log] == ["a request was not answered"]


@pytest.mark.parametrize("messages", [(), (start(200, [length(4)]),)])
async def test_an_application_that_says_nothing_is_a_500(messages: Sequence[dict[str, Any]]) -> None:
    with capture_logs() as log:
        answer = await answered(*messages)
    assert (answer.status, answer.headers["connection"]) == (500, "close")
    assert [each["event"] for each in log] == ["a request was not answered"]


@pytest.mark.parametrize("begun", [False, True])
async def test_an_application_that_breaks_is_a_500_as_long_as_nothing_was_said(begun: bool) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        if begun:
            await send(start(200, [length(4)]))
        raise RuntimeError("it broke")

    async with serving(breaks) as served:
        with capture_logs() as log:
            answer = await served.ask("GET", "/")
    assert (answer.status, answer.body) == (500, b"Internal Server Error")
    assert [each["event"] for each in log] == ["a request broke"]


@pytest.mark.parametrize("said", [(body(),), (start(), start()), (start(), body(), body()), (start(), {"type": "x"})])
async def test_what_is_said_out_of_order_is_not_sent(said: Sequence[dict[str, Any]]) -> None:
    ear = Ear()
    with capture_logs() as log:
        await run(cycle_on(ear), saying(*said))
    assert [each["event"] for each in log] == ["a request broke"]
    assert b"".join(ear.writes).count(b"HTTP/1.1") == 1


async def test_a_connection_that_is_to_close_says_so_once() -> None:
    for headers, kept in (((), False), ([(b"Connection", b"Close")], True), ([(b"connection", b"close")], False)):
        ear = Ear()
        cycle = cycle_on(ear, keep_alive=kept)
        await run(cycle, saying(start(204, headers), body()))
        (said,) = ear.writes
        assert said.lower().count(b"connection: close") == 1
        assert not cycle.keep_alive


async def test_a_body_that_waits_for_a_word_is_given_it_when_somebody_reads() -> None:
    async def reads(scope: Scope, receive: Receive, send: Send) -> None:
        got = await receive()
        await send(start(200, [length(4)]))
        await send(body(got["body"]))

    async with serving(reads) as served:
        reader, writer = await served.connect()
        head, _, said = request("POST", "/", "Expect: 100-Continue", "Connection: close", body=b"okay").partition(
            b"\r\n\r\n"
        )
        writer.write(head + b"\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(said)
            assert response(await reader.read()).body == b"okay"
        writer.close()


async def test_a_body_that_nobody_reads_is_not_asked_for() -> None:
    assert await writes(start(413, [length(0)]), body(), expects_continue=True) == [
        b"HTTP/1.1 413 Request Entity Too Large\r\ndate: today\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    ]


async def test_every_piece_of_a_body_is_fetched_once_and_in_order() -> None:
    cycle = cycle_on(Ear(), method="POST")
    cycle.arrived(b"one ")
    cycle.arrived(b"two ")
    cycle.arrived(b"three")
    assert await cycle.receive() == {"type": "http.request", "body": b"one two three", "more_body": True}
    cycle.arrived(b" four")
    cycle.arrived_whole()
    assert await cycle.receive() == {"type": "http.request", "body": b" four", "more_body": False}


async def test_who_waits_for_more_is_told_when_the_client_is_gone() -> None:
    cycle = cycle_on(Ear(), method="POST")
    waiting = asyncio.ensure_future(cycle.receive())
    await asyncio.sleep(0)
    assert not waiting.done()
    cycle.disconnect()
    assert await waiting == {"type": "http.disconnect"}
    assert await cycle.receive() == {"type": "http.disconnect"}


async def test_an_answer_to_nobody_is_dropped() -> None:
    ear = Ear()
    cycle = cycle_on(ear)
    cycle.disconnect()
    await run(cycle, saying(start(200, [length(4)]), body(b"okay")))
    assert ear.writes == []


async def test_the_client_of_a_running_request_is_missed_although_others_wait_behind_it() -> None:
    told = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    async with serving(waits) as served:
        _, writer = await served.connect()
        writer.write(request("GET", "/") + request("GET", "/"))
        await writer.drain()
        writer.transport.abort()
        await asyncio.wait_for(told.wait(), 5)


async def test_the_end_is_reported_once() -> None:
    ends: list[bool] = []
    ear = Ear()
    with capture_logs():
        await run(cycle_on(ear, answered=lambda: ends.append(True)), saying(start(204), body(), body()))
    assert ends == [True]


async def test_a_request_that_is_cancelled_is_cut_off_without_a_word_and_forgotten() -> None:
    """A stop that runs out of patience cancels what is still under way. That is no failure of ours."""
    running: set[asyncio.Task[Any]] = set()
    ear = Ear()

    async def hangs(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.Event().wait()

    cycle_on(ear).start(hangs, asyncio.get_running_loop(), running)
    (task,) = running
    await asyncio.sleep(0)
    task.cancel()
    with capture_logs() as logs:
        await asyncio.wait_for(task, 5)
    assert (ear.writes, ear.aborted, logs) == ([], True, [])
    assert running == set()


def test_a_status_without_a_phrase_is_still_a_status_line() -> None:
    assert (status_line(200), status_line(599)) == (b"HTTP/1.1 200 OK", b"HTTP/1.1 599 ")


LINES = b"x-one: 1\r\ncontent-length: 4\r\n"
SAID = b"HTTP/1.1 200 OK\r\ndate: today\r\n" + LINES


@pytest.mark.parametrize(
    ("method", "kept", "rest"),
    [
        ("GET", True, b"\r\nokay"),
        ("HEAD", True, b"\r\n"),
        ("POST", False, b"connection: close\r\n\r\nokay"),
    ],
)
async def test_a_whole_answer_is_the_same_without_asgi(method: str, kept: bool, rest: bytes) -> None:
    ends: list[bool] = []
    ear = Ear()
    cycle = cycle_on(ear, method=method, keep_alive=kept, answered=lambda: ends.append(True))
    await cycle.answer(200, LINES, b"okay")
    assert ear.writes == [SAID + rest]
    assert (cycle.keep_alive, ends, cycle.complete, cycle.silent) == (kept, [True], True, False)
    assert await cycle.receive() == {"type": "http.disconnect"}


async def test_a_whole_answer_waits_while_the_client_takes_nothing() -> None:
    ear = Ear()
    flow = FlowControl(ear)
    cycle = Request("GET", ear, flow, [], lambda: None, keep_alive=True, expects_continue=False)
    flow.pause_writing()
    answering = asyncio.ensure_future(cycle.answer(200, LINES, b"okay"))
    await asyncio.sleep(0)
    assert ear.writes == []
    flow.resume_writing()
    await asyncio.wait_for(answering, 5)
    assert len(ear.writes) == 1


async def test_a_whole_answer_is_not_given_to_nobody_and_not_twice() -> None:
    ear = Ear()
    gone = cycle_on(ear)
    gone.disconnect()
    await gone.answer(200, LINES, b"okay")
    assert ear.writes == []
    cycle = cycle_on(ear)
    await cycle.answer(200, LINES, b"okay")
    with pytest.raises(RuntimeError):
        await cycle.answer(200, LINES, b"okay")
    assert len(ear.writes) == 1


async def test_a_body_that_is_there_is_fetched_once_and_what_comes_behind_it_is_still_told() -> None:
    cycle = cycle_on(Ear(), method="POST")
    cycle.arrived(b"one, ")
    assert cycle.whole_body() is None
    cycle.arrived(b"two")
    cycle.arrived_whole()
    assert cycle.whole_body() == b"one, two"
    assert cycle.whole_body() is None
    cycle.disconnect()
    assert await cycle.receive() == {"type": "http.disconnect"}


async def test_a_client_that_waits_for_our_word_gets_it_although_the_body_is_there() -> None:
    ear = Ear()
    cycle = cycle_on(ear, method="POST", expects_continue=True)
    cycle.arrived_whole()
    assert cycle.whole_body() is None
    await cycle.receive()
    assert ear.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_a_body_whose_sender_has_gone_is_nobodys() -> None:
    cycle = cycle_on(Ear(), method="POST")
    cycle.arrived(b"all")
    cycle.arrived_whole()
    cycle.disconnect()
    assert cycle.whole_body() is None
