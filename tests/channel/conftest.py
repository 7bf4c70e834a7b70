from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from landline.stores.memory import MemoryStore
from support.channel import Channel, TestClock
from support.deliveries import StuckStore
from support.registered import Node
from support.scripted_transport import ScriptedTransport


@pytest.fixture
async def channel() -> AsyncIterator[Channel]:
    """One node whose bot answers everything at once, until a test takes its deliveries into its own hands."""
    channel = Channel(MemoryStore(TestClock()), ScriptedTransport())
    await channel.store.open()
    yield channel
    await channel.delivery.close()
    await channel.store.close()


@pytest.fixture
def transport(channel: Channel) -> ScriptedTransport:
    """What the bot of `channel` gets."""
    assert isinstance(channel.transport, ScriptedTransport)
    return channel.transport


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    """A store that is open."""
    store = MemoryStore(TestClock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def node(store: MemoryStore) -> Node:
    """One process that has learned what is registered in `store`."""
    return await Node(store).loaded()


@pytest.fixture
async def stuck() -> AsyncIterator[Channel]:
    """A node on a `StuckStore`."""
    channel = Channel(StuckStore(), ScriptedTransport())
    yield channel
    await channel.delivery.close()
