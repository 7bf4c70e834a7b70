"""The bots in the how-to pages are run as they stand there, but for the port."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from landline.conformance.directline import DirectLine
from support.landline import SECRET, Landline, free_port
from support.real_bot import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = {
    "first-steps.md": "bb-py",
    "bot-framework-python.md": "bb-py",
    "bot-framework-javascript.md": "bb-js",
    "agents-python.md": "ag-py",
    "agents-javascript.md": "ag-js",
}


def source(page: str) -> tuple[str, str]:
    """Name and text of the program on a page: the block that begins with a comment that is a file name."""
    text = (ROOT / "docs" / "howto" / page).read_text("utf-8")
    (found,) = re.findall(r"^```(?:python|js)\n(?:#|//) (bot\.\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("page", PAGES)
async def test_the_bot_on_the_page_answers(page: str, tmp_path: Path) -> None:
    name, text = source(page)
    assert text.count("3978") == 1
    port = free_port()
    program = tmp_path / name
    program.write_text(text.replace("3978", str(port)))
    if name.endswith("mjs"):
        (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "bots" / "js" / "node_modules")
    process = await asyncio.create_subprocess_exec(
        COMMANDS[PAGES[page]][0], str(program), env={"PATH": os.environ["PATH"]}
    )
    try:
        async with (
            Landline(tmp_path / "data", bot=f"http://127.0.0.1:{port}/api/messages", drain_s=0) as landline,
            DirectLine(landline.directline, SECRET) as client,
        ):
            opened = await client.start(user={"id": "ann"})
            async with client.stream(opened.stream_url) as stream:
                # A bot that is still starting is found when it listens.
                assert (await client.send(opened.conversation_id, "hi")).status == 200
                await stream.until_text("You said: hi")
                if page != "first-steps.md":
                    await stream.until_text("Hello!")
    finally:
        process.terminate()
        await process.wait()
