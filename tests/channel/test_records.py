from __future__ import annotations

import asyncio

import pytest

from landline.core.tokens import ski
from landline.errors import OutcomeUnknown, StoreUnavailable
from landline.stores.memory import MemoryStore
from support.registered import WEB, Node


async def test_changes_on_two_nodes_do_not_undo_each_other(store: MemoryStore, node: Node) -> None:
    other = await Node(store).loaded()
    await node.registrations.sites.add(WEB)
    first = (await node.registrations.sites.rotate("web", 1)).secret
    second = (await other.registrations.sites.rotate("web", 2)).secret
    await node.registrations.load()
    assert node.opens(first)
    assert node.opens(second)


async def test_a_change_that_crossed_another_is_refused_and_changes_nothing(
    store: MemoryStore, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.registrations.sites.add(WEB)
    secret = (await node.registrations.sites.rotate("web", 1)).secret

    async def somebody_was_faster(name: str, old: bytes | None, new: bytes | None) -> bool:
        return False

    monkeypatch.setattr(store, "compare_and_set", somebody_was_faster)
    with pytest.raises(StoreUnavailable, match="at the same time"):
        await node.registrations.sites.revoke("web", 1)
    assert node.opens(secret)


async def test_a_revocation_goes_on_although_nobody_waits_for_it(node: Node) -> None:
    await node.registrations.sites.add(WEB)
    secret = (await node.registrations.sites.rotate("web", 1)).secret
    asking = asyncio.create_task(node.registrations.sites.revoke("web", 1))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(5):
        while node.opens(secret):
            await asyncio.sleep(0)


async def test_what_was_written_although_the_store_could_not_say_so_holds(
    store: MemoryStore, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.registrations.sites.add(WEB)
    secret = (await node.registrations.sites.rotate("web", 1)).secret
    replace = store.compare_and_set

    async def write_and_lose_the_answer(name: str, old: bytes | None, new: bytes | None) -> bool:
        await replace(name, old, new)
        raise OutcomeUnknown

    monkeypatch.setattr(store, "compare_and_set", write_and_lose_the_answer)
    with pytest.raises(OutcomeUnknown):
        await node.registrations.sites.revoke("web", 1)
    assert not node.opens(secret)
    assert not node.registry.admits("web", ski(secret))
