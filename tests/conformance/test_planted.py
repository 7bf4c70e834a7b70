"""The conformance suite notices what is wrong: each planted mistake makes the check fail that it is meant for."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from conformance.planted import PLANTS, Plant
from landline.config import Settings
from landline.conformance.run import Outcome, run_one
from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import Running, Subject
from landline.conformance.suite import CHECKS, GROUPS
from landline.server.app import Server
from support.landline import SECRET
from support.operator import Operator

BY_NUMBER = {check.number: check for check in CHECKS}


class Inside:
    """A server in this process, where mistakes can be planted."""

    def __init__(self, server: Server) -> None:
        self.url = server.url
        self.directline = f"{server.url}/v3/directline"
        self.data = server.settings.data
        self.trust = None  # no TLS
        self._server = server

    async def restart(self, *, kill: bool = False) -> None:
        raise NotImplementedError("no plant needs it")

    async def terminate(self) -> int:
        raise NotImplementedError("no plant needs it")

    async def start(self) -> None:
        raise NotImplementedError("no plant needs it")


class ServersInside:
    """`conformance.Control`, with servers in this process."""

    def __init__(self, home: Path, settings: Mapping[str, Any], closers: AsyncExitStack) -> None:
        self._home = home
        self._settings = settings
        self._closers = closers

    async def server(self, settings: dict[str, object]) -> Inside:
        data = self._home / str(len(list(self._home.iterdir())))
        given = {"secret": SECRET, "drain_s": 0, **self._settings, **settings}
        server = Server(Settings(data=data, port=0, **given))
        await server.start()
        self._closers.push_async_callback(server.stop)
        return Inside(server)

    def operator(self, running: Running) -> Operator:
        return Operator(running)  # type: ignore[arg-type]  # it has all that an operator looks at


@contextlib.asynccontextmanager
async def subject(home: Path, settings: Mapping[str, Any] = {}) -> AsyncIterator[Subject]:  # only read
    async with AsyncExitStack() as closers:
        bot = await closers.enter_async_context(ScriptedBot())
        servers = ServersInside(home, {"bot": bot.endpoint, **settings}, closers)
        running = await servers.server({})
        found = Subject(running.directline, SECRET, maybe_bot=bot, control=servers, running=running)
        yield await closers.enter_async_context(found.open())


async def test_without_a_mistake_all_of_these_checks_pass(tmp_path: Path) -> None:
    async with subject(tmp_path) as sound:
        for plant in PLANTS:
            result = await run_one(BY_NUMBER[plant.number], sound)
            assert result.outcome is Outcome.PASSED, f"{plant.number}: {result.reason}"


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.number}-{plant.mistake.replace(' ', '-')}")
async def test_mistake_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    plant.sow(monkeypatch)
    async with subject(tmp_path, plant.settings) as flawed:
        result = await run_one(BY_NUMBER[plant.number], flawed)
    assert result.outcome is Outcome.FAILED, f"nobody noticed: {plant.mistake}"
    print(f"{plant.number} noticed: {result.reason}")


def test_there_are_enough_mistakes_and_some_in_every_group() -> None:
    planted = Counter(BY_NUMBER[plant.number].group for plant in PLANTS)
    assert sum(planted.values()) >= 25
    assert planted.keys() == {group.letter for group in GROUPS}
    assert min(planted.values()) >= 2
