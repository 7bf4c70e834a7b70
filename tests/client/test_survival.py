"""The client through the faults that DirectLineJS is put through (`tests/directlinejs`): it ends up with the log."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from landline.client import BotFailed, Conversation, DirectLine, Options, State
from landline.client.sync import DirectLine as SyncDirectLine
from landline.conformance.directline import DirectLine as Direct
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.relay import Relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = Options(first_wait_s=0.02, longest_wait_s=0.2, heartbeat_s=1, send_timeout_s=30)
SOAK = bool(os.environ.get("LANDLINE_SOAK"))
DEADLINE_S = 30


async def echo(bot: ScriptedBot, activity: dict[str, Any]) -> None:
    if activity["type"] == "message":
        said = {"type": "message", "text": f"echo {activity.get('text')}"}
        await bot.send(activity["conversation"]["id"], said)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bot() -> AsyncIterator[ScriptedBot]:
    async with ScriptedBot(on_activity=echo) as bot:
        yield bot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory, bot: ScriptedBot) -> AsyncIterator[Landline]:
    data = tmp_path_factory.mktemp("client") / "data"
    async with Landline(data, bot=bot.endpoint, keepalive_s=1, dead_peer_s=2, drain_s=0) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def relay(landline: Landline) -> AsyncIterator[Relay]:
    async with Relay(landline.port) as relay:
        yield relay


@pytest_asyncio.fixture(loop_scope="module")
async def line(relay: Relay) -> AsyncIterator[DirectLine]:
    async with DirectLine(relay.url, SECRET, options=QUICK) as line:
        yield line


async def until_online(conversation: Conversation) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async for change in conversation.states():
            if change.state is State.ONLINE:
                return


async def assert_has_the_log(landline: Landline, conversation: Conversation) -> None:
    """What iterating gave is what Get Activities has, in order, once."""
    async with Direct(landline.directline, SECRET) as direct:
        log = await direct.all_activities(conversation.id)
    had = [await conversation.receive(DEADLINE_S) for _ in log]
    assert [each["id"] for each in had] == [each["id"] for each in log]
    with pytest.raises(TimeoutError):
        await conversation.receive(0.05)


async def wait_for_streams(relay: Relay, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while len(relay.streams) < count:
            await asyncio.sleep(0.01)


@pytest.mark.client_item(1)
async def test_a_reset_socket_loses_nothing(landline: Landline, relay: Relay, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await until_online(conversation)
    await conversation.send("before")
    relay.streams[-1].cut()
    await conversation.send("while away")
    await wait_for_streams(relay, 2)
    await conversation.send("after")
    await assert_has_the_log(landline, conversation)


@pytest.mark.client_item(1)
async def test_a_first_handshake_that_is_cut_loses_nothing(landline: Landline, relay: Relay, line: DirectLine) -> None:
    relay.on_connect = lambda link: link.cut() if link.is_stream and len(relay.streams) == 1 else None
    conversation = await line.start(user="ann")
    await conversation.send("hi")
    await assert_has_the_log(landline, conversation)
    assert len(relay.streams) >= 2


@pytest.mark.client_item(1)
async def test_a_frame_that_is_torn_loses_nothing(landline: Landline, relay: Relay, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await until_online(conversation)
    relay.streams[-1].cut_after(40)
    await conversation.send("torn in the middle " + "x" * 200)
    await assert_has_the_log(landline, conversation)


@pytest.mark.client_item(1)
async def test_a_wire_that_falls_silent_is_noticed(landline: Landline, relay: Relay, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await until_online(conversation)
    relay.streams[-1].silence()
    await conversation.send("into the dark")
    await wait_for_streams(relay, 2)
    await assert_has_the_log(landline, conversation)


@pytest.mark.client_item(1)
async def test_a_server_out_of_reach_is_found_again(landline: Landline, relay: Relay, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await until_online(conversation)
    relay.refuse()
    relay.cut()
    sending = asyncio.create_task(conversation.send("out of reach"))
    async with asyncio.timeout(DEADLINE_S):
        while conversation.state is not State.RECONNECTING:
            await asyncio.sleep(0.01)
    await relay.accept()
    await sending
    await assert_has_the_log(landline, conversation)


@pytest.mark.client_item(11)
async def test_a_send_whose_answer_is_lost_is_one_activity(landline: Landline, relay: Relay, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await until_online(conversation)
    (calls,) = [link for link in relay.links if link.open and not link.is_stream]
    calls.cut_after(1)
    assert await conversation.send("once")
    assert not calls.open
    await assert_has_the_log(landline, conversation)
    async with Direct(landline.directline, SECRET) as direct:
        log = await direct.all_activities(conversation.id)
    assert [each["text"] for each in log].count("once") == 1


@pytest.mark.client_item(1, 2, 4)
async def test_a_program_that_was_restarted_goes_on(landline: Landline, line: DirectLine) -> None:
    conversation = await line.start(user="ann")
    await conversation.send("first")
    assert [(await conversation.receive(DEADLINE_S))["text"] for _ in range(2)] == ["first", "echo first"]
    kept = conversation.id, conversation.watermark, conversation.token
    await conversation.close()
    async with DirectLine(landline.url, kept[2], options=QUICK) as again:
        resumed = await again.resume(kept[0], watermark=kept[1], user="ann")
        await resumed.send("second")
        assert [(await resumed.receive(DEADLINE_S))["text"] for _ in range(2)] == ["second", "echo second"]


async def test_an_upload_arrives(line: DirectLine, tmp_path: Path) -> None:
    file = tmp_path / "holiday.txt"
    file.write_bytes(b"sun")
    conversation = await line.start(user="ann")
    await conversation.upload(file, text="look")
    received = await conversation.receive(DEADLINE_S)
    assert received["text"] == "look"
    assert [each["name"] for each in received["attachments"]] == ["holiday.txt"]


@pytest.mark.client_item(1, 11)
async def test_many_conversations_through_random_cuts(landline: Landline, relay: Relay, line: DirectLine) -> None:
    count, cuts = (1000, 20) if SOAK else (20, 4)
    seed = int(os.environ.get("LANDLINE_SEED") or random.randrange(1 << 32))
    print(f"seed {seed}")
    dice = random.Random(seed)
    conversations = [await line.start(user=f"user-{n}") for n in range(count)]
    for cut in range(cuts):
        sends = [asyncio.create_task(each.send(f"word {cut}")) for each in conversations]
        await asyncio.sleep(dice.uniform(0, 0.1))  # a random moment: the traffic goes on meanwhile
        relay.cut()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        # A bot that had no time for a thousand turns at once took nothing away: the activity is in the log (C1).
        assert all(isinstance(each, str | BotFailed) for each in outcomes), outcomes
    for conversation in conversations:
        await assert_has_the_log(landline, conversation)
        assert conversation.state is not State.OVER


@pytest.mark.client_item(1)
@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
async def test_a_restarted_server_loses_nothing(landline: Landline, relay: Relay, line: DirectLine, kill: bool) -> None:
    conversation = await line.start(user="ann")
    await conversation.send("before")
    sending = asyncio.create_task(conversation.send("meanwhile"))
    await landline.restart(kill=kill)
    await sending
    await conversation.send("after")
    await assert_has_the_log(landline, conversation)


async def test_a_script_without_an_event_loop(landline: Landline) -> None:
    def script() -> list[str]:
        with SyncDirectLine(landline.url, SECRET, options=QUICK) as line:
            conversation = line.start(user="ann")
            conversation.send("hi")
            had = [conversation.receive(timeout_s=DEADLINE_S)["text"], next(iter(conversation))["text"]]
            with pytest.raises(TimeoutError):
                conversation.receive(timeout_s=0.01)
            return had

    assert await asyncio.to_thread(script) == ["hi", "echo hi"]
