"""The bots in the how-to pages are run as they stand there, but for the port: without an app id, and with one."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from landline.server.certificates import HOSTS, make_certificate
from support.howtos import (
    DIRECT_LINE,
    PAGES,
    furnish,
    printed,
    running,
    source,
    text_of,
    until_it_listens,
    with_an_app_id,
)
from support.landline import SECRET, Landline, free_port
from support.operator import Operator


@pytest.mark.parametrize("page", PAGES)
async def test_the_bot_on_the_page_answers(page: str, tmp_path: Path) -> None:
    port, (name, _) = free_port(), source(page)
    furnish(tmp_path, page, source(page), port)
    async with (
        running(f"node {name}" if name.endswith("mjs") else f"bot/bin/python {name}", tmp_path),
        Landline(tmp_path / "data", bot=f"http://127.0.0.1:{port}/api/messages", drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        await converse(client, greets=page != "first-steps.md")


@pytest.mark.bot_item(96)
@pytest.mark.parametrize("page", [page for page in PAGES if page != "first-steps.md"])
async def test_the_bot_on_the_page_answers_with_an_app_id(page: str, tmp_path: Path) -> None:
    """With the certificate, the settings and the lines of code that the page says, and no others."""
    port = free_port()
    name, program, add, start = with_an_app_id(page)
    furnish(tmp_path, page, (name, program), port)
    tls = make_certificate(tmp_path / "landline-cert", HOSTS, dt.datetime.now(dt.UTC))
    async with Landline(tmp_path / "data", tls=tls, drain_s=0) as landline:
        _, *words, arrow, file = [word.replace("3978", str(port)) for word in add]
        assert arrow == ">"
        (tmp_path / file).write_text(await output_of(landline, *words))
        async with (
            running(start, tmp_path),
            Operator(landline) as operator,
            DirectLine(landline.directline, await operator.add_site("echo-site", "echo"), tls=landline.trust) as client,
        ):
            await converse(client, greets=True)


async def output_of(landline: Landline, *words: str) -> str:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "landline", *words, "--data", str(landline.data), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def converse(client: DirectLine, *, greets: bool) -> None:
    opened = await client.start(user={"id": "ann"})
    async with client.stream(opened.stream_url) as stream:
        # A bot that is still starting is found when it listens.
        assert (await client.send(opened.conversation_id, "hi")).status == 200
        await stream.until_text("You said: hi")
        if greets:
            await stream.until_text("Hello!")


async def test_the_bot_without_an_sdk_answers_and_greets(tmp_path: Path) -> None:
    port = free_port()
    program = printed("bot-without-sdk.md")["bot.py"]
    assert program.count("3978") == 1
    (tmp_path / "bot.py").write_text(program.replace("3978", str(port)))
    async with (
        running("python3 bot.py", tmp_path),
        Landline(tmp_path / "data", bot=f"http://127.0.0.1:{port}/api/messages", drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        await converse(client, greets=True)


async def test_a_bot_that_answers_first_and_works_then_keeps_nobody_waiting(slow_bot: Landline) -> None:
    """Its work takes four seconds here, which is more than `bot_timeout_s`."""
    async with DirectLine(slow_bot.directline, SECRET) as client:
        opened = await client.start(user={"id": "ann"})
        async with client.stream(opened.stream_url) as stream:
            assert (await client.send(opened.conversation_id, "dig")).status == 200
            await stream.until_text("I am on it.")
            assert "Done: dig" not in stream.texts
            await stream.until_text("Done: dig")


@pytest.fixture
async def slow_bot(tmp_path: Path) -> AsyncIterator[Landline]:
    port, program = free_port(), printed("long-turns.md")["bot.py"]
    assert "sleep(60)" in program
    furnish(tmp_path, "first-steps.md", ("bot.py", program.replace("sleep(60)", "sleep(4)")), port)
    settings = {"bot": f"http://127.0.0.1:{port}/api/messages", "bot_timeout_s": 3, "drain_s": 0}
    async with running("bot/bin/python bot.py", tmp_path):
        await until_it_listens(port)  # not a part of the three seconds
        async with Landline(tmp_path / "data", **settings) as landline:
            yield landline


async def test_the_program_on_the_page_prints_a_conversation_with_what_the_bot_has_put_there(tmp_path: Path) -> None:
    async with (
        ScriptedBot() as bot,
        Landline(tmp_path / "data", bot=bot.endpoint, page_activities=2, drain_s=0) as landline,
        DirectLine(landline.directline, SECRET) as client,
    ):
        conversation_id = (await client.start(user={"id": "user"})).conversation_id
        assert (await client.send(conversation_id, "hi")).status == 200
        url = f"{bot.service_url(conversation_id)}/v3/conversations/{conversation_id}/activities/history"
        for _ in range(2):  # the same call again adds nothing
            assert (await bot.request("POST", url, json=lines_on_the_page())).status in (200, 201)
        program = printed("history.md")["history.py"]
        assert DIRECT_LINE in program
        (tmp_path / "history.py").write_text(program.replace(DIRECT_LINE, landline.directline))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            tmp_path / "history.py",
            conversation_id,
            env={"LANDLINE_SECRET": SECRET},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert process.returncode == 0
    spoken = [line.split(" ", 1)[1] for line in out.decode().splitlines()]
    assert spoken == ["user hi", "ann Is my parcel on its way?", "bot It left this morning."]


def lines_on_the_page() -> object:
    """The body of a bot's call that docs/howto/history.md prints."""
    (body,) = re.findall(r"^```json\n(.*?)^```$", text_of("history.md"), re.MULTILINE | re.DOTALL)
    return json.loads(body)
