"""How long things are kept, over the wire (spec 9).

What an operator may do is a use case here, `Channel.retention`, unless it is about a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.config import Settings
from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.uploads import activity_part, file_part, form, upload
from landline.server.app import Server
from support.landline import SECRET, Landline
from support.operator import Operator
from support.streams import say, started, until


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, bot: ScriptedBot) -> AsyncIterator[tuple[Server, DirectLine]]:
    """A server in this process, whose operator is the test."""
    server = Server(Settings(port=0, data=tmp_path / "data", secret=SECRET, bot=bot.endpoint, drain_s=0))
    await server.start()
    try:
        async with DirectLine(f"{server.url}/v3/directline", SECRET) as client:
            yield server, client
    finally:
        await server.stop()


@pytest.mark.item(163)
async def test_a_deleted_conversation_is_gone_at_once_for_streams_and_everybody_else(tmp_path: Path) -> None:
    async with ScriptedBot() as bot, serving(tmp_path, bot) as (server, client):
        ann = client.using((await client.generate(user={"id": "dl_ann"})).token)
        opened = await started(ann, bot)
        conversation_id = opened.conversation_id
        await say(bot, conversation_id, "hello")
        async with ann.stream(opened.stream_url) as stream:
            await stream.until_text("hello")
            await server.channel.retention.delete(conversation_id)
            assert await stream.until_closed() == (4404, "conversation-gone")
        unknown = (404, "BadArgument")
        for asking in (ann, client):
            assert (await asking.reconnect(conversation_id, "0")).error == unknown
            assert (await asking.activities(conversation_id)).error == unknown
            activity = {"type": "message", "from": {"id": "dl_ann"}, "text": "?"}
            assert (await asking.send(conversation_id, activity)).error == unknown
        assert (await client.handshake(opened.stream_url)).error == unknown
        answer = await bot.send(conversation_id, {"type": "message", "text": "anybody?"})
        assert (answer.status, answer.json["error"]["code"]) == unknown


@pytest.mark.item(67)
async def test_a_token_of_a_purged_conversation_neither_starts_nor_refreshes_it_also_after_a_restart(
    tmp_path: Path,
) -> None:
    async with ScriptedBot() as bot:
        async with serving(tmp_path, bot) as (server, client):
            ann = client.using((await client.generate(user={"id": "dl_ann"})).token)
            conversation_id = (await started(ann, bot)).conversation_id
            await server.channel.retention.delete(conversation_id)
            assert (await ann.start()).error == (404, "BadArgument")
            for kind, body in (("application/json", b"{"), ("application/json", b'{"user":1}'), ("text/xml", b"<a/>")):
                answer = await ann.request("POST", "/conversations", data=body, headers={"Content-Type": kind})
                assert answer.error == (404, "BadArgument"), "before what is sent is looked at (3.4)"
            assert (await ann.refresh()).error == (404, "BadArgument")
        async with serving(tmp_path, bot) as (_, client):
            ann = client.using(ann.credential)
            assert (await ann.start()).error == (404, "BadArgument")
            assert (await ann.refresh()).error == (404, "BadArgument")


async def test_a_conversation_that_nobody_uses_is_purged_and_one_with_a_stream_is_not(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, conversation_idle_ttl_s=0.4) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        used = await started(client, bot)
        async with client.stream(used.stream_url) as stream:
            idle = [(await client.start()).conversation_id for _ in range(3)]
            # Asking for them would be a use.
            await until(lambda: purged(landline) == len(idle), "the idle ones are purged")
            await say(bot, used.conversation_id, "still there")
            await stream.until_text("still there")
        for conversation_id in idle:
            assert (await client.activities(conversation_id)).error == (404, "BadArgument")
        await until(lambda: purged(landline) == len(idle) + 1, "what is no longer used goes, too")


def purged(landline: Landline) -> int:
    """How many conversations the log says were purged."""
    lines = (json.loads(line) for line in landline.log.splitlines() if "conversations purged" in line)
    return sum(line["conversations"] for line in lines)


@pytest.mark.item(126)
async def test_a_watermark_older_than_what_is_kept_is_answered_with_the_rest_and_the_word_truncated(
    tmp_path: Path,
) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, activity_ttl_s=2) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        await say(bot, conversation_id, "one")
        behind_one = (await client.activities(conversation_id)).watermark
        await say(bot, conversation_id, "two")
        behind_two = (await client.activities(conversation_id)).watermark
        async with asyncio.timeout(20):
            while (page := await client.activities(conversation_id)).activities:
                await asyncio.sleep(0.2)
        assert page.replay == "truncated"
        assert page.watermark == behind_two, "where the log goes on"
        await say(bot, conversation_id, "three")
        for watermark, replay in ((behind_one, "truncated"), ("0", "truncated"), (behind_two, "complete")):
            page = await client.activities(conversation_id, watermark)
            assert (page.replay, [each["text"] for each in page.activities]) == (replay, ["three"])
            opened = await client.reconnect(conversation_id, watermark)
            assert opened.replay == replay
            async with client.stream(opened.stream_url) as stream:
                await stream.until_text("three")
                assert len(stream.activities) == 1
        assert page.activities[0]["id"] == f"{conversation_id}|0000002", "numbers go on"


MARK = b"swordfish"
"""Stands in whatever is to be gone: texts, names, ids, files."""


@pytest.mark.parametrize("how", ["deleted", "forgotten"])
async def test_what_an_operator_deleted_is_gone_from_the_disk_of_a_server_that_goes_on(
    tmp_path: Path, how: str
) -> None:
    """Nobody writes any more, and nothing is restarted: what was erased does not wait for that."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
        Operator(landline) as operator,
    ):
        zoe = {"id": "swordfish-zoe", "name": "Swordfish Zoe"}
        conversation_id = (await started(client, bot, user=zoe)).conversation_id
        said = {"type": "message", "from": zoe, "text": "the swordfish"}
        assert (await client.send(conversation_id, said)).status == 200
        body = form(activity_part(said), file_part("a.png", b"swordfish" * 1000))
        assert (await upload(client, conversation_id, body, user_id=zoe["id"])).status == 200
        await say(bot, conversation_id, "the swordfish" * 2000)
        assert places_of(MARK, landline.data)
        if how == "deleted":
            await operator.done("DELETE", f"/conversations/{conversation_id}")
        else:
            assert await operator.done("POST", "/forget", {"user": zoe["id"]}) == {"conversations": 1}
        await until(lambda: not places_of(MARK, landline.data), "nothing of it is on the disk")


async def test_what_a_bot_took_back_is_gone_from_the_disk_of_a_server_that_goes_on(tmp_path: Path) -> None:
    """D-35: erased, with all its versions."""
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await started(client, bot)).conversation_id
        activity_id = await say(bot, conversation_id, "the swordfish")
        url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities/{activity_id}"
        changed = {"type": "message", "text": "the swordfish, changed"}
        assert (await bot.request("PUT", url, json=changed)).status == 200
        assert places_of(MARK, landline.data)
        assert (await bot.request("DELETE", url)).status == 200
        await until(lambda: not places_of(MARK, landline.data), "nothing of it is on the disk")


async def test_what_expired_is_gone_from_the_disk_of_a_server_that_goes_on(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, drain_s=0, activity_ttl_s=1, idempotency_ttl_s=1) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        await say(bot, (await started(client, bot)).conversation_id, "the swordfish")
        assert places_of(MARK, landline.data)
        await until(lambda: not places_of(MARK, landline.data), "nothing of it is on the disk")


def places_of(mark: bytes, directory: Path) -> set[str]:
    """The files in which it stands."""
    found = set()
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # it may go while we look
            if mark in path.read_bytes().lower():
                found.add(path.name)
    return found
