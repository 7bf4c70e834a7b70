"""The bots in the how-to pages are run as they stand there, but for the port: without an app id, and with one."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from landline.server.certificates import HOSTS, make_certificate
from support.landline import SECRET, Landline, free_port
from support.operator import Operator
from support.real_bot import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = {
    "first-steps.md": "bb-py",
    "bot-framework-python.md": "bb-py",
    "bot-framework-javascript.md": "bb-js",
    "agents-python.md": "ag-py",
    "agents-javascript.md": "ag-js",
}


def text_of(page: str) -> str:
    return (ROOT / "docs" / "howto" / page).read_text("utf-8")


def blocks(text: str, languages: str) -> list[tuple[str, str]]:
    """First line and rest of each block of code that begins with a comment."""
    return re.findall(rf"^```(?:{languages})\n(?:#|//) ([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def source(page: str) -> tuple[str, str]:
    """Name and text of the program on a page: the block that begins with a comment that is a file name."""
    (found,) = [(name, text) for name, text in blocks(text_of(page), "python|js") if re.fullmatch(r"bot\.\w+", name)]
    return found


def with_an_app_id(page: str) -> tuple[str, str, list[str], str]:
    """The same program with the lines exchanged that the page says; the command that registers it, whose last word is
    the file that its output goes to; and what starts it."""
    name, program = source(page)
    section = text_of(page).partition("\n## With an app id\n")[2].partition("\n## ")[0]
    for first, rest in blocks(section, "python|js"):
        before = first.removeprefix("instead of: ")
        assert f"\n{before}\n" in program, f"{page}: there is no line {before!r}"
        program = program.replace(f"{before}\n", rest)
    prepare, start = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (add,) = [line for line in prepare.splitlines() if line.startswith("landline bot add ")]
    return name, program, shlex.split(add), start


@contextlib.asynccontextmanager
async def running(command: str, directory: Path) -> AsyncIterator[None]:
    """What is typed in a shell there."""
    environment = {"PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_shell(
        command, cwd=directory, env=environment, start_new_session=True, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        await process.wait()


def furnish(directory: Path, page: str, program: tuple[str, str], port: int) -> None:
    """Put the program there, with the packages that the page has installed before."""
    name, text = program
    assert text.count("3978") == 1
    (directory / name).write_text(text.replace("3978", str(port)))
    if name.endswith("mjs"):
        (directory / "node_modules").symlink_to(ROOT / "tests" / "bots" / "js" / "node_modules")
    else:
        (directory / "bot").symlink_to(Path(COMMANDS[PAGES[page]][0]).parents[1])


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
