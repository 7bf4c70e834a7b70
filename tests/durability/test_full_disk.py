"""A disk that is really full: nothing is acknowledged that is not stored, reading goes on, and room is all it takes."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline
from support.small_disk import SmallDisk
from support.streams import Follower, no_file_beyond, say, started

LARGE = "x" * 40_000
"""No log has room for many of these in pages that it already owns."""

Full = Callable[[Landline], contextlib.AbstractContextManager[None]]


@pytest.fixture(params=["no space left", "file too large"])
def data_and_full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Full]]:
    """Where the data goes, and what makes its disk full for a while."""
    if request.param == "file too large":

        def limited(landline: Landline) -> contextlib.AbstractContextManager[None]:
            return no_file_beyond(landline.pid, max(file.stat().st_size for file in landline.data.iterdir()))

        yield tmp_path / "data", limited
        return
    with SmallDisk(tmp_path / "disk") as disk:

        @contextlib.contextmanager
        def filled(_: Landline) -> Iterator[None]:
            disk.fill()
            yield
            disk.make_room()

        yield disk.path, filled


async def asked(landline: Landline, path: str) -> tuple[int, str]:
    """Status and text of any path."""
    async with aiohttp.ClientSession() as session, session.get(f"{landline.url}{path}") as answer:
        return answer.status, await answer.text()


async def test_a_full_disk_acknowledges_nothing_reads_on_and_recovers_by_itself(
    data_and_full: tuple[Path, Full],
) -> None:
    data, full = data_and_full
    async with (
        ScriptedBot() as bot,
        Landline(data, bot=bot.endpoint, drain_s=0, bot_timeout_s=1, store_wait_s=0.3) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await started(client, bot, user={"id": "user"})
        conversation_id = opened.conversation_id
        pid = landline.pid
        async with Follower(client, opened) as follower:
            acknowledged = [(await client.send(conversation_id, "of the client")).json["id"]]
            acknowledged.append(await say(bot, conversation_id, "of the bot"))
            with full(landline):
                refusals = 0
                for number in range(40):
                    text = f"{number} {LARGE}"
                    if number % 2:
                        from_client = await client.send(conversation_id, text)
                        status, body, headers = from_client.status, from_client.json, from_client.headers
                    else:
                        from_bot = await bot.send(conversation_id, {"type": "message", "text": text})
                        status, body, headers = from_bot.status, from_bot.json, from_bot.headers
                    if status == 200:
                        acknowledged.append(body["id"])
                        continue
                    assert (status, body["error"]["code"]) == (503, "ServiceError")
                    assert int(headers["Retry-After"]) >= 1
                    refusals += 1
                    if refusals == 4:
                        break
                assert refusals == 4, "the disk was not full"
                # Reading, and coming back, need no room.
                log = await client.all_activities(conversation_id)
                assert [each["id"] for each in log] == acknowledged
                again = await client.reconnect(conversation_id, "")
                assert again.status == 200
                async with client.stream(again.stream_url) as stream:
                    await stream.until(lambda stream: len(stream.activities) == len(acknowledged), "has everything")
                refused = await client.start()
                assert refused.error == (503, "ServiceError")
            # As soon as there is room, without a restart.
            acknowledged.append((await client.send(conversation_id, "room again")).json["id"])
            acknowledged.append(await say(bot, conversation_id, "so it is"))
            assert (await client.start()).status == 201
            await follower.until(lambda follower: follower.ids == acknowledged, "has exactly what was acknowledged")
        assert landline.pid == pid
        await landline.restart(kill=True)
        assert [each["id"] for each in await client.all_activities(conversation_id)] == acknowledged
        assert "read-only" not in landline.log


async def test_ready_says_that_the_disk_is_full_and_that_there_is_room_again(data_and_full: tuple[Path, Full]) -> None:
    """Where nothing is sent to a server that is not ready, nobody but who asks can find out."""
    data, full = data_and_full
    async with (
        ScriptedBot() as bot,
        Landline(data, bot=bot.endpoint, drain_s=0, bot_timeout_s=1, store_wait_s=0.3) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        opened = await started(client, bot, user={"id": "user"})
        assert (await asked(landline, "/ready"))[0] == 200
        with full(landline):
            for _ in range(500):
                ready = await asked(landline, "/ready")
                if ready[0] != 200:
                    break
                await client.send(opened.conversation_id, "until nothing fits")
            assert ready[0] == 503
            assert re.search("Storage cannot be written: the disk (is full|fails)", ready[1])
            assert (await asked(landline, "/live"))[0] == 200
        assert await asked(landline, "/ready") == (200, '{"status":"ready"}')
        assert (await client.send(opened.conversation_id, "room again")).status == 200


async def test_a_log_on_the_same_full_disk_costs_the_log_and_nothing_else(tmp_path: Path) -> None:
    """Whatever the process prints goes to a file there, as with a careless operator."""
    with SmallDisk(tmp_path / "disk") as disk:
        async with (
            ScriptedBot() as bot,
            Landline(disk.path / "data", bot=bot.endpoint, drain_s=0, bot_timeout_s=1) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            assert landline.log_path.parent == disk.path
            opened = await started(client, bot, user={"id": "user"})
            await say(bot, opened.conversation_id, "before")
            disk.fill()
            answers = await asyncio.gather(*(client.send(opened.conversation_id, f"{n} {LARGE}") for n in range(20)))
            assert 503 in {answer.status for answer in answers}
            for _ in range(200):  # enough lines to need room
                assert (await client.activities(opened.conversation_id)).status == 200
            disk.make_room()
            assert (await client.send(opened.conversation_id, "after")).status == 200
