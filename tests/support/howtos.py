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
