"""`landline conformance` as somebody runs it against a server that is not theirs to start."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio

from support.landline import SECRET, Landline, free_port

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Ran(NamedTuple):
    """What a run of the command left."""

    code: int
    output: str


async def conformance(url: str, *arguments: str, secret: str = SECRET) -> Ran:
    """Run it. Wide, so that nothing is folded."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "landline", "conformance", "--url", url, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LANDLINE_SECRET": secret, "COLUMNS": "400"},
    )
    output, _ = await process.communicate()
    return Ran(process.returncode or 0, output.decode())


@pytest.fixture(scope="module")
def bot_port() -> int:
    """Where the suite's bot will listen."""
    return free_port()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory, bot_port: int) -> AsyncIterator[Landline]:
    """A server whose bot is not there yet, and whose tokens do not live as long as they should."""
    bot = f"http://127.0.0.1:{bot_port}/api/messages"
    async with Landline(tmp_path_factory.mktemp("command") / "data", bot=bot, token_ttl_s=1800, drain_s=0) as landline:
        yield landline


async def test_what_holds_ends_with_0_and_what_was_not_run_has_not_passed(server: Landline, tmp_path: Path) -> None:
    """44 needs a bot, 145 needs time, 28 needs the server's owner."""
    file = tmp_path / "results.json"
    ran = await conformance(server.url, "--only", "4,43-44,28,145", "--json", str(file))
    assert ran.code == 0, ran.output
    results = json.loads(file.read_text())
    assert results["url"] == server.directline
    assert results["summary"] == {"passed": 2, "failed": 0, "not run": 3}
    outcomes = {each["number"]: (each["outcome"], each["reason"]) for each in results["checks"]}
    assert outcomes == {
        4: ("passed", ""),
        43: ("passed", ""),
        44: ("not run", "needs: bot"),
        28: ("not run", "needs: control"),
        145: ("not run", "slow: run it with --slow"),
    }
    assert "2 passed, 0 failed, 3 not run" in ran.output


async def test_what_does_not_hold_is_said_and_ends_with_1(server: Landline) -> None:
    ran = await conformance(f"{server.directline}/", "--only", "42,43")
    assert ran.code == 1
    assert "expires_in: 1800 instead of 3600" in ran.output
    assert "1 passed, 1 failed, 0 not run" in ran.output


async def test_the_suite_s_own_bot_is_called_by_the_server(server: Landline, bot_port: int) -> None:
    ran = await conformance(server.url, "--only", "44,62,77,149", "--bot-port", str(bot_port))
    assert ran.code == 0, ran.output
    assert "4 passed, 0 failed, 0 not run" in ran.output


async def test_a_bot_that_is_not_called_is_said_before_everything_fails(server: Landline) -> None:
    port = free_port()
    ran = await conformance(server.url, "--only", "44", "--bot-port", str(port))
    assert ran.code == 2
    assert f"the server does not call the bot at http://127.0.0.1:{port}/api/messages" in ran.output


@pytest.mark.parametrize(
    ("arguments", "secret", "words"),
    [
        (("--only", "44"), "not-the-secret-of-this-server", "does not start a conversation: 403"),
        (("--only", "Q"), SECRET, "Q is neither a group nor a number"),
    ],
)
async def test_what_cannot_be_checked_at_all_ends_with_2(
    server: Landline, arguments: tuple[str, ...], secret: str, words: str
) -> None:
    ran = await conformance(server.url, *arguments, secret=secret)
    assert ran.code == 2
    assert words in ran.output
    assert "Traceback" not in ran.output


async def test_a_server_that_is_not_there_ends_with_2() -> None:
    ran = await conformance(f"http://127.0.0.1:{free_port()}")
    assert ran.code == 2
    assert "Traceback" not in ran.output
