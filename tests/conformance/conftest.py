"""Our server as the subject of the conformance suite, with everything that a check can need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import Running, Subject
from support.landline import SECRET, Landline
from support.operator import Operator

RATES = {"sends_per_s": 20, "polls_per_s": 5, "starts_per_s": 100}
"""The defaults, which other tests are spared."""


class Servers:
    """Real processes, one for each set of settings, started when the first check wants it (`conformance.Control`)."""

    def __init__(self, home: Path, bot: ScriptedBot, closers: AsyncExitStack) -> None:
        self._home = home
        self._bot = bot
        self._closers = closers
        self._running: dict[str, Landline] = {}

    async def server(self, settings: dict[str, object]) -> Landline:
        """Ended servers are started again by whoever ended them."""
        name = repr(sorted(settings.items()))
        if name not in self._running:
            data = self._home / f"data-{len(self._running)}"
            server = Landline(data, bot=self._bot.endpoint, **{"drain_s": 0, **RATES, **settings})
            self._running[name] = await self._closers.enter_async_context(server)
        return self._running[name]

    def operator(self, running: Running) -> Operator:
        assert isinstance(running, Landline)
        return Operator(running)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """A server with the settings of an operator who has none."""
    async with AsyncExitStack() as closers:
        bot = await closers.enter_async_context(ScriptedBot())
        servers = Servers(tmp_path_factory.mktemp("conformance"), bot, closers)
        running = await servers.server({})
        async with servers.operator(running) as operator:
            await operator.add_bot("other", bot.endpoint)
            second, foreign = await operator.rotate("default", 2), await operator.add_site("other", "other")
        subject = Subject(running.directline, SECRET, second, foreign, bot, servers, running=running)
        yield await closers.enter_async_context(subject.open())
