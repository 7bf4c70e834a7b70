"""A bot that is sick, in every way that bots are, beside one that is well: what the client is told, what the operator
sees, and that nobody else feels it."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from aiohttp import web

from landline.conformance.directline import Activity, Answer, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.server.certificates import make_certificate
from support.bot_trust import Ear
from support.landline import Landline
from support.operator import Operator

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT_S = 2.0
JOIN_WAIT_S = 0.2
"""Far less than the timeout: a message that waits behind a join for all of its own time never reaches the bot."""
SLOTS = 4
"""Requests to the sick bot at a time: fewer than ask for it, so that some wait inside as well."""
PATIENTS = 8
"""Conversations with it that send all the time, each again so long after its last answer."""
PAUSE_S = 0.2
ROUNDS, SENDS, TRIES = 4, 25, 5
BESIDE = 1.5
"""How much longer a send to the well bot may take while the other one is sick, at the median."""


class Sick(NamedTuple):
    """A bot, and what becomes of a send to it."""

    endpoint: str
    code: str
    reason: str
    replies: tuple[str, ...] = ()
    """What it says before it fails."""
    ear: Ear | None = None
    """Where nobody may come."""


# The diseases


@contextlib.asynccontextmanager
async def hangs(_: Path) -> AsyncIterator[Sick]:
    async with ScriptedBot() as bot:
        bot.hang()
        yield Sick(bot.endpoint, "BotError", "timed out")


@contextlib.asynccontextmanager
async def is_dead(_: Path) -> AsyncIterator[Sick]:
    async with ScriptedBot() as bot:
        await bot.refuse()
        yield Sick(bot.endpoint, "BotError", "could not be reached")


@contextlib.asynccontextmanager
async def dies_in_the_turn(_: Path) -> AsyncIterator[Sick]:
    async with ScriptedBot() as bot:
        bot.break_connections()
        yield Sick(bot.endpoint, "BotError", "broke the connection")


@contextlib.asynccontextmanager
async def answers_garbage(_: Path) -> AsyncIterator[Sick]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\xffHELO smtp.example\r\n" * 10)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield Sick(_endpoint(server), "BotError", "broke the connection")


@contextlib.asynccontextmanager
async def fails_when_it_has_answered(_: Path) -> AsyncIterator[Sick]:
    async def answer_first(bot: ScriptedBot, activity: Activity) -> web.Response | None:
        if activity["type"] == "message":
            await bot.send(activity["conversation"]["id"], {"type": "message", "text": "said and done"})
        return None

    async with ScriptedBot(on_activity=answer_first) as bot:
        bot.answer(500, "Traceback")
        yield Sick(bot.endpoint, "BotRejectedActivity", "returned an error", replies=("said and done",))


@contextlib.asynccontextmanager
async def redirects(_: Path) -> AsyncIterator[Sick]:
    async with ScriptedBot() as bot, Ear() as ear:
        bot.answer(307, headers={"Location": f"{ear.url}/api/messages"})
        yield Sick(bot.endpoint, "BotRejectedActivity", "returned an error", ear=ear)


@contextlib.asynccontextmanager
async def has_a_wrong_certificate(directory: Path) -> AsyncIterator[Sick]:
    files = make_certificate(directory / "tls", ("bot.example",), dt.datetime.now(dt.UTC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        yield Sick(_endpoint(server, "https"), "BotError", "certificate is not trusted")


def _endpoint(server: asyncio.Server, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/messages"


DISEASES = (
    hangs,
    is_dead,
    dies_in_the_turn,
    answers_garbage,
    fails_when_it_has_answered,
    redirects,
    has_a_wrong_certificate,
)


# A server with two bots


class Ward(NamedTuple):
    """The server, and clients of both bots."""

    landline: Landline
    well: DirectLine
    sick: DirectLine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ward(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ward]:
    data = tmp_path_factory.mktemp("ward") / "data"
    async with (
        ScriptedBot() as bot,
        Landline(data, bot_timeout_s=TIMEOUT_S, join_wait_s=JOIN_WAIT_S, drain_s=0) as landline,
        Operator(landline) as operator,
        DirectLine(landline.directline) as nobody,
    ):
        await operator.add_bot("well", bot.endpoint)
        await operator.add_bot("sick", concurrency=SLOTS)
        clients = [nobody.using(await operator.add_site(f"site-{name}", name)) for name in ("well", "sick")]
        yield Ward(landline, *clients)


@pytest_asyncio.fixture(loop_scope="module", params=DISEASES, ids=lambda disease: disease.__name__)
async def sick(request: pytest.FixtureRequest, tmp_path: Path, ward: Ward) -> AsyncIterator[Sick]:
    disease: Callable[[Path], contextlib.AbstractAsyncContextManager[Sick]] = request.param
    async with disease(tmp_path) as sick, Operator(ward.landline) as operator:
        await operator.done("PATCH", "/bots/sick", {"endpoint": sick.endpoint})
        yield sick


def log_lines(landline: Landline, conversation_id: str) -> list[dict[str, Any]]:
    """What the operator sees of deliveries in a conversation."""
    lines = [json.loads(line) for line in landline.log.splitlines() if conversation_id in line]
    return [line for line in lines if line["event"] == "bot did not take an activity"]


@pytest.mark.bot_item(16, 21, 22, 23, 24)
async def test_the_client_is_told_and_the_operator_sees_one_line(ward: Ward, sick: Sick) -> None:
    """One for each activity: a bot that cannot be reached gets no further than to hear of the user. What the user said
    stays, with what the bot said before it failed, and can be offered again."""
    conversation_id = (await ward.sick.start(user={"id": "user"})).conversation_id
    answer = await ward.sick.send(conversation_id, "are you well?")
    assert answer.error == (502, sick.code)
    assert sick.reason in answer.json["error"]["message"]
    logged = await ward.sick.all_activities(conversation_id)
    assert [each["text"] for each in logged] == ["are you well?", *sick.replies]
    lines = log_lines(ward.landline, conversation_id)
    assert 1 <= len(lines) == len({line["activity"] for line in lines})
    for line in lines:
        assert (line["bot"], line["level"]) == ("sick", "warning")
        assert sick.reason in line["reason"]
    async with Operator(ward.landline) as operator:
        failures = (await operator.done("GET", "/failures"))["failures"]
    assert [sick.reason in each["reason"] for each in failures if each["activity"] == logged[0]["id"]] == [True]
    assert sick.ear is None or sick.ear.heard == 0


@pytest.mark.bot_item(12)
async def test_a_bot_that_is_well_does_not_feel_it(ward: Ward, sick: Sick) -> None:
    """Its sends are timed with and without, in turns, and compared at the median. A noisy machine is asked again."""
    conversation_id = (await ward.well.start(user={"id": "user"})).conversation_id
    patients = [(await ward.sick.start(user={"id": "user"})).conversation_id for _ in range(PATIENTS)]
    seen = []
    for _ in range(TRIES):
        alone, beside = [], []
        for _ in range(ROUNDS):
            alone += await times(ward.well, conversation_id)
            async with suffering(ward.sick, patients) as answers:
                beside += await times(ward.well, conversation_id)
            assert {answer.error for answer in answers} == {(502, sick.code)}
        seen.append(statistics.median(beside) / statistics.median(alone))
        if seen[-1] <= BESIDE:
            return
    pytest.fail(f"so much longer at the median: {seen}")


async def times(client: DirectLine, conversation_id: str) -> list[float]:
    """How long sends take, in seconds."""
    taken = []
    for number in range(SENDS):
        begun = time.perf_counter()
        assert (await client.send(conversation_id, str(number))).status == 200
        taken.append(time.perf_counter() - begun)
    return taken


@contextlib.asynccontextmanager
async def suffering(client: DirectLine, conversations: list[str]) -> AsyncIterator[list[Answer]]:
    """Sends in all of these while the block lasts, at least one in each; the answers, when it is over."""
    answers: list[Answer] = []
    over = asyncio.Event()

    async def send(conversation_id: str) -> None:
        while not over.is_set():
            answers.append(await client.send(conversation_id, "and now?"))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), PAUSE_S)

    sending = [asyncio.create_task(send(each)) for each in conversations]
    await asyncio.sleep(0)  # all of them have begun
    yield answers
    over.set()
    await asyncio.gather(*sending)


@pytest.mark.bot_item(16)
async def test_a_bot_can_be_given_less_time_than_others(ward: Ward) -> None:
    """Nobody waits for the whole of the request's time where the operator knows better."""
    async with ScriptedBot() as hurried, ScriptedBot() as slow, Operator(ward.landline) as operator:
        hurried.hang()
        slow.answer(delay=TIMEOUT_S * 0.6)
        ended = []

        async def ask(name: str, endpoint: str, **more: object) -> None:
            await operator.add_bot(name, endpoint, **more)
            client = ward.well.using(await operator.add_site(f"site-{name}", name))
            conversation_id = (await client.start(user={"id": "user"})).conversation_id
            await asked.wait()
            ended.append((name, (await client.send(conversation_id, "quick!")).status))

        asked = asyncio.Event()
        asking = [
            asyncio.create_task(ask("hurried", hurried.endpoint, timeout_s=TIMEOUT_S * 0.2)),
            asyncio.create_task(ask("slow", slow.endpoint)),
        ]
        await hurried.wait_for(lambda each: each.type == "conversationUpdate")
        await slow.wait_for(lambda each: each.answered is not None)
        asked.set()
        await asyncio.gather(*asking)
        assert ended == [("hurried", 502), ("slow", 200)]
