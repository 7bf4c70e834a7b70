"""The page about testing a bot, word for word but for the port: with the bots on the other pages, on all four SDKs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from landline.testing import Landline
from support.howtos import PAGES, furnish, printed, running, source, until_it_listens
from support.landline import free_port

PAGE = printed("test-your-bot.md")


async def passes(directory: Path, port: int, *names: str) -> str:
    """Run pytest there, as the page says, on these files of the page. Answers what it printed."""
    for name in names:
        (directory / name).write_text(PAGE[name].replace("3978", str(port)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LANDLINE_", "PYTEST_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pytest", "--asyncio-mode=auto", "-p", "no:schemathesis", "-W", "error", "-q",
        "-o", "asyncio_default_fixture_loop_scope=function",
        cwd=directory, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed_, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, printed_.decode()
    return printed_.decode()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "first-steps.md"])
async def test_the_test_on_the_page_passes_with_the_bot_of_each_sdk(
    page: str, landline: Landline, tmp_path: Path
) -> None:
    port, (name, _) = free_port(), source(page)
    furnish(tmp_path, page, source(page), port)
    async with running(f"node {name}" if name.endswith("mjs") else f"bot/bin/python {name}", tmp_path):
        await until_it_listens(port)
        page_test: dict[str, Any] = {}
        exec(PAGE["test_greeting.py"].replace("3978", str(port)), page_test)  # a pytest for each SDK would take longer
        await page_test["test_it_greets"](landline)


async def test_the_page_starts_the_bot_of_the_first_steps_itself(tmp_path: Path) -> None:
    port = free_port()
    furnish(tmp_path, "first-steps.md", source("first-steps.md"), port)
    names = ("conftest.py", "test_bot.py", "test_client.py", "test_with_unittest.py")
    assert "3 passed" in await passes(tmp_path, port, *names)
