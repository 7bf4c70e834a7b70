"""Two nodes on one perfect store: what a node does may not rest on its being the only one (spec 11)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from structlog.testing import capture_logs

from landline.channel.records import Configured
from landline.stores.memory import MemoryStore
from support.channel import TestClock
from support.registered import CONFIGURED, Node

WITHOUT_SECRET = Configured(CONFIGURED.profiles, CONFIGURED.sites, {}, "default")


class DiedError(Exception):
    """The node ended in the middle of this."""


class Interrupted(MemoryStore):
    """A store that has whoever reads all records next wait for what another node is doing."""

    first: asyncio.Task[None] | None = None

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        first, self.first = self.first, None
        if first is not None:
            await first
        return await super().list(prefix)


@pytest.fixture
async def nodes(store: MemoryStore) -> tuple[Node, Node]:
    """Two nodes that have never had a secret."""
    return await Node(store, WITHOUT_SECRET).loaded(), await Node(store, WITHOUT_SECRET).loaded()


async def test_two_nodes_that_start_for_the_first_time_show_one_secret_which_opens_both(
    nodes: tuple[Node, Node],
) -> None:
    shown: list[str] = []
    await asyncio.gather(*(node.registrations.sites.first_secret(shown.append) for node in nodes))
    (secret,) = shown
    for node in nodes:
        await node.registrations.load()
        assert node.opens(secret)


async def test_a_first_secret_that_its_node_did_not_live_to_keep_is_made_anew_by_one_node(
    store: MemoryStore, nodes: tuple[Node, Node]
) -> None:
    def die(secret: str) -> None:
        raise DiedError

    with pytest.raises(DiedError):
        await (await Node(store, WITHOUT_SECRET).loaded()).registrations.sites.first_secret(die)
    shown: list[str] = []
    await asyncio.gather(*(node.registrations.sites.first_secret(shown.append, claim_s=0.01) for node in nodes))
    for node in nodes:
        await node.registrations.load()
        assert [node.opens(secret) for secret in shown] == [True]


async def test_a_node_that_was_slow_to_keep_its_first_secret_does_not_replace_that_of_the_other() -> None:
    store = Interrupted(TestClock())
    await store.open()
    slow, other = await Node(store, WITHOUT_SECRET).loaded(), await Node(store, WITHOUT_SECRET).loaded()
    late: list[str] = []
    kept: list[str] = []

    def show(secret: str) -> None:
        late.append(secret)
        store.first = asyncio.create_task(other.registrations.sites.first_secret(kept.append, claim_s=0))

    with capture_logs() as logged:
        await slow.registrations.sites.first_secret(show)
    assert [each["log_level"] for each in logged] == ["warning"]
    assert [slow.opens(secret) for secret in (*late, *kept)] == [False, True]
