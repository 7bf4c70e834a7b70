"""What a command does not import, which is what it starts fast by (ADR 33). Lists of modules, and no stopwatch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.landline import Landline

SERVING = (
    "asyncio",
    "landline.server",
    "landline.channel",
    "landline.stores",
    "structlog",
    "starlette",
    "uvicorn",
    "apsw",
)
REMOTE = (
    "aiohttp",
    "yarl",
    "rich.console",
    "rich.pretty",
    "landline.conformance.remote",
    "landline.conformance.suite",
    "landline.demo.server",
)
CRYPTOGRAPHY = ("jwt", "cryptography")


def imported(stderr: str) -> set[str]:
    """The modules that `-X importtime` names."""
    return set(re.findall(r"^import time: +\d+ \| +\d+ \| *(\S+)$", stderr, re.MULTILINE))


def below(modules: set[str], names: tuple[str, ...]) -> set[str]:
    """Those of `modules` that are one of `names`, or within one."""
    return {each for each in modules if any(each == name or each.startswith(f"{name}.") for name in names)}


def modules_of(*words: str) -> set[str]:
    """What a command that ends by itself imports."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LANDLINE_")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "landline", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = imported(done.stderr)
    assert "landline.cli" in found, done.stderr
    return found


def test_to_say_its_version_it_imports_click_and_little_else() -> None:
    found = modules_of("--version")
    assert not below(found, (*SERVING, *REMOTE, *CRYPTOGRAPHY, "msgspec", "landline.config"))


@pytest.mark.parametrize(
    "words", [("--help",), ("serve", "--help"), ("conformance", "--help"), ("bot", "add", "--help")]
)
def test_to_show_help_nothing_is_imported_that_serves(words: tuple[str, ...]) -> None:
    allowed = {"landline.stores", "landline.stores.directory"}
    assert not below(modules_of(*words), (*SERVING, *REMOTE, *CRYPTOGRAPHY)) - allowed


async def test_a_command_beside_a_server_imports_none_of_it(tmp_path: Path) -> None:
    async with Landline(tmp_path / "data", drain_s=0) as landline:
        for words in (("site", "list"), ("bot", "list"), ("token",)):
            found = modules_of(*words, "--data", str(landline.data))
            assert "landline.commands.client" in found, "it has asked the server"
            allowed = {"landline.stores", "landline.stores.directory"}
            assert not below(found, (*SERVING, *REMOTE, *CRYPTOGRAPHY)) - allowed


async def test_a_server_imports_nothing_that_others_need(tmp_path: Path) -> None:
    server = Landline(tmp_path / "data", program=("-X", "importtime", "-m", "landline"), drain_s=0)
    async with server as landline:
        await landline.terminate()
        found = imported(landline.log)
    assert "landline.server.app" in found
    assert not below(found, (*REMOTE, "landline.demo", "landline.conformance", "landline.commands.office"))
