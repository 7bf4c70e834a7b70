"""The bots in the how-to pages are run as they stand there, but for the port: without an app id, and with one."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from landline.server.certificates import HOSTS, make_certificate
from support.howtos import PAGES, furnish, running, source, with_an_app_id
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
        (tmp_path / file).write_text(await printed(landline, *words))
        async with (
            running(start, tmp_path),
            Operator(landline) as operator,
            DirectLine(landline.directline, await operator.add_site("echo-site", "echo"), tls=landline.trust) as client,
        ):
            await converse(client, greets=True)


async def printed(landline: Landline, *words: str) -> str:
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
