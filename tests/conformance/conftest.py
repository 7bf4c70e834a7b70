"""Our server as the subject of the conformance suite, with everything that a check can need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from landline.conformance.scripted_bot import ScriptedBot
from landline.conformance.subject import Subject
from support.landline import SECRET, Landline


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
            server = Landline(data, bot=self._bot.endpoint, drain_s=0, **settings)
            self._running[name] = await self._closers.enter_async_context(server)
        return self._running[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """A server with the settings of an operator who has none."""
    async with AsyncExitStack() as closers:
        bot = await closers.enter_async_context(ScriptedBot())
        servers = Servers(tmp_path_factory.mktemp("conformance"), bot, closers)
        running = await servers.server({})
        subject = Subject(running.directline, SECRET, maybe_bot=bot, control=servers, running=running)
        yield await closers.enter_async_context(subject.open())
