"""Programs and commands of the how-to pages, taken from there word for word."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from support.landline import SECRET, Landline, free_port
from support.own_page import WEB_CHAT
from support.real_bot import COMMANDS

DEADLINE_S = 20
DIRECT_LINE = "http://127.0.0.1:3000/v3/directline"
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
    program = exchanged(program, section)
    prepare, start = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (add,) = [line for line in prepare.splitlines() if line.startswith("landline bot add ")]
    return name, program, shlex.split(add), start


def exchanged(program: str, text: str) -> str:
    """The program with the lines exchanged that the text says, in blocks of code that begin with `instead of: `."""
    for first, rest in blocks(text, "python|js"):
        if first.startswith("instead of: "):
            before = first.removeprefix("instead of: ")
            assert f"\n{before}\n" in f"\n{program}", f"there is no line {before!r}"
            program = program.replace(f"{before}\n", rest)
    return program


def printed(page: str) -> dict[str, str]:
    """The files that a page prints, by the names in their first lines."""
    found = re.findall(
        r"^```(?:python|js|html)\n(?:# |// |<!-- )([\w.]+)(?: -->)?\n(.*?)^```$", text_of(page), re.M | re.S
    )
    return dict(found)


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


@contextlib.asynccontextmanager
async def followed(
    directory: Path, landline: Landline, bot_port: int, files: dict[str, str], direct_line: str
) -> AsyncIterator[str]:
    """The bot and the backend run in a directory with these files. Answers where the page is."""
    port = free_port()
    furnish(directory, "first-steps.md", ("bot.py", files["bot.py"]), bot_port)
    for name, text in files.items():
        if name != "bot.py":
            replaced = text.replace(DIRECT_LINE, direct_line if name == "chat.js" else landline.directline)
            (directory / name).write_text(replaced.replace("8080", str(port)))
    published = directory / "node_modules/botframework-webchat/dist"
    published.mkdir(parents=True)
    (published / "webchat.js").symlink_to(WEB_CHAT)
    async with (
        running("bot/bin/python bot.py", directory),
        running(f"LANDLINE_SECRET={SECRET} python3 backend.py", directory),
    ):
        for each in (bot_port, port):
            await until_it_listens(each)
        yield f"http://127.0.0.1:{port}"


async def until_it_listens(port: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
