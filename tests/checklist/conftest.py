"""One real server and one scripted bot for all tests of a file: each conversation is new, so nobody needs to clean up.

A test file says `pytestmark = pytest.mark.asyncio(loop_scope="module")`, since its bot lives on one event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from landline.conformance.directline import DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting_bot() -> AsyncIterator[ScriptedBot]:
    """The bot behind `bot`."""
    async with ScriptedBot() as bot:
        yield bot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def landline(tmp_path_factory: pytest.TempPathFactory, lasting_bot: ScriptedBot) -> AsyncIterator[Landline]:
    """A server with the settings of an operator who has none."""
    data = tmp_path_factory.mktemp("checklist") / "data"
    async with Landline(data, bot=lasting_bot.endpoint, drain_s=0) as landline:
        yield landline


@pytest_asyncio.fixture(loop_scope="module")
async def bot(lasting_bot: ScriptedBot) -> AsyncIterator[ScriptedBot]:
    """The bot of `landline`, well behaved at the beginning of each test. It remembers what other tests did."""
    yield lasting_bot
    await lasting_bot.behave()


@pytest_asyncio.fixture(loop_scope="module")
async def client(landline: Landline, bot: ScriptedBot) -> AsyncIterator[DirectLine]:
    """A client with the secret; `client.using(token)` is one with a token."""
    async with DirectLine(landline.directline, SECRET) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def conversation_id(client: DirectLine, bot: ScriptedBot) -> str:
    """A conversation that was started with the secret and that the bot has heard of."""
    started = (await client.start()).conversation_id
    await bot.wait_for(lambda each: each.conversation_id == started)
    return started
