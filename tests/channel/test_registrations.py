from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from landline.channel.registrations import Configured, Registrations
from landline.channel.registry import Registry
from landline.channel.streams import OpenStreams
from landline.core.bot import SHORT_LIFE, Profile, Site
from landline.core.tokens import digest, ski
from landline.errors import Forbidden, OutcomeUnknown, ReadOnly, StoreUnavailable, UnknownKey
from landline.stores.memory import MemoryStore
from support.channel import SECRET, TestClock

CONFIGURED = Configured((Profile(id="bot"),), (Site("default", "bot"),), {digest(SECRET): "default"}, "default")
WEB = Site("web", "bot")


@dataclass
class Node:
    """What is registered, as one process knows it."""

    store: MemoryStore
    configured: Configured = CONFIGURED

    def __post_init__(self) -> None:
        self.registry = Registry()
        self.registrations = Registrations(
            self.store, self.registry, OpenStreams(), TestClock(), self.configured, "http://here/b"
        )

    async def loaded(self) -> Node:
        await self.registrations.load()
        return self

    def opens(self, secret: str) -> bool:
        """Whether a secret is good."""
        try:
            return self.registry.site_of_secret(secret) is not None
        except Forbidden:
            return False


@pytest.fixture
async def store() -> AsyncIterator[MemoryStore]:
    store = MemoryStore(TestClock())
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def node(store: MemoryStore) -> Node:
    return await Node(store).loaded()


async def test_another_node_learns_of_everything_when_it_looks(store: MemoryStore, node: Node) -> None:
    other = await Node(store).loaded()
    await node.registrations.add_bot(Profile(id="second", endpoint="http://x/"))
    await node.registrations.add_site(Site("web", "second"))
    secret = (await node.registrations.rotate("web", 1)).secret
    assert not other.opens(secret)
    await other.registrations.load()
    assert other.opens(secret)
    assert other.registry.bot("second") == node.registry.bot("second")
    assert node.registry.bot_of_key(node.registry.bot("second").service_key) == other.registry.bot("second")


async def test_a_life_of_tokens_too_short_for_clients_is_warned_of_when_it_is_set_and_at_a_start(
    store: MemoryStore,
) -> None:
    """D-19, of what the settings name and of what is added and changed while the server runs."""
    configured = Configured((Profile(id="bot", token_ttl_s=299),), (Site("default", "bot", token_ttl_s=300),), {})
    node = await Node(store, configured).loaded()

    def lives(site: int | None) -> Callable[[Site], Site]:
        return lambda old: msgspec.structs.replace(old, token_ttl_s=site)

    with capture_logs() as logged:
        node.registrations.warn_of_short_lives()
        await node.registrations.add_bot(Profile(id="brief", token_ttl_s=1))
        await node.registrations.add_site(Site("web", "brief", token_ttl_s=60))
        await node.registrations.change_site("web", lambda old: msgspec.structs.replace(old, enabled=False))
        for life_s in (None, 300, 61, 61):
            await node.registrations.change_site("web", lives(life_s))
        await node.registrations.change_bot("brief", lambda old: msgspec.structs.replace(old, token_ttl_s=2))
    expected: list[tuple[str, str, int]] = [("bot", "bot", 299), ("bot", "brief", 1), ("site", "web", 60)]
    expected += [("site", "web", 61), ("bot", "brief", 2)]
    assert warned(logged) == expected

    again = await Node(store, configured).loaded()
    with capture_logs() as logged:
        again.registrations.warn_of_short_lives()
    assert sorted(warned(logged)) == [("bot", "bot", 299), ("bot", "brief", 2), ("site", "web", 61)]


def warned(logged: list[MutableMapping[str, Any]]) -> list[tuple[str, str, int]]:
    """Of whose short lives the log was told."""
    found = [(whose, each[whose], each["token_ttl_s"]) for each in logged for whose in ("bot", "site") if whose in each]
    assert {(each["log_level"], each["event"]) for each in logged} == {("warning", SHORT_LIFE)}
    return found


async def test_changes_on_two_nodes_do_not_undo_each_other(store: MemoryStore, node: Node) -> None:
    other = await Node(store).loaded()
    await node.registrations.add_site(WEB)
    first = (await node.registrations.rotate("web", 1)).secret
    second = (await other.registrations.rotate("web", 2)).secret
    await node.registrations.load()
    assert node.opens(first)
    assert node.opens(second)


async def test_a_change_that_crossed_another_is_refused_and_changes_nothing(
    store: MemoryStore, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await node.registrations.add_site(WEB)
    secret = (await node.registrations.rotate("web", 1)).secret

    async def somebody_was_faster(name: str, old: bytes | None, new: bytes | None) -> bool:
        return False

    monkeypatch.setattr(store, "replace", somebody_was_faster)
    with pytest.raises(StoreUnavailable, match="at the same time"):
        await node.registrations.revoke("web", 1)
    assert node.opens(secret)


async def test_a_revocation_goes_on_although_nobody_waits_for_it(node: Node) -> None:
    await node.registrations.add_site(WEB)
    secret = (await node.registrations.rotate("web", 1)).secret
    asking = asyncio.create_task(node.registrations.revoke("web", 1))
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
    await node.registrations.add_site(WEB)
    secret = (await node.registrations.rotate("web", 1)).secret
    replace = store.replace

    async def write_and_lose_the_answer(name: str, old: bytes | None, new: bytes | None) -> bool:
        await replace(name, old, new)
        raise OutcomeUnknown

    monkeypatch.setattr(store, "replace", write_and_lose_the_answer)
    with pytest.raises(OutcomeUnknown):
        await node.registrations.revoke("web", 1)
    assert not node.opens(secret)
    assert not node.registry.admits("web", ski(secret))


async def test_a_secret_is_not_kept(store: MemoryStore, node: Node) -> None:
    await node.registrations.add_site(WEB)
    made = [await node.registrations.rotate("web", key) for key in (1, 2, 1)] + [
        await node.registrations.revoke("web", 2)
    ]
    kept = repr(await store.kept("")) + repr(vars(node.registrations)) + repr(vars(node.registry))
    assert not any(each.secret in kept for each in made)


async def test_what_the_settings_name_wins_over_what_is_stored(store: MemoryStore, node: Node) -> None:
    await node.registrations.add_bot(Profile(id="second", name="Stored"))
    await node.registrations.add_site(Site("web", "second", token_ttl_s=60))
    configured = Configured(
        (*CONFIGURED.profiles, Profile(id="second", name="Named")),
        (*CONFIGURED.sites, Site("web", "second")),
        {},
        "default",
    )
    named = await Node(store, configured).loaded()
    assert named.registry.bot("second").name == "Named"
    assert named.registrations.site("web").site.token_ttl_s is None
    for refused in (named.registrations.remove_bot("second"), named.registrations.remove_site("web")):
        with pytest.raises(ReadOnly):
            await refused


async def test_a_secret_of_the_settings_that_was_revoked_opens_nothing(store: MemoryStore, node: Node) -> None:
    assert node.opens(SECRET)
    assert node.registry.vouching("default") == ski(SECRET)
    await node.registrations.revoke_ski("default", ski(SECRET))
    assert not node.opens(SECRET)
    assert node.registry.vouching("default") is None
    assert not (await Node(store).loaded()).opens(SECRET)


async def test_the_first_secret_is_made_once_and_only_where_there_is_none(store: MemoryStore, node: Node) -> None:
    shown: list[str] = []
    await node.registrations.first_secret(shown.append)
    assert shown == []
    without = await Node(store, Configured(CONFIGURED.profiles, CONFIGURED.sites, {}, "default")).loaded()
    await without.registrations.first_secret(shown.append)
    await without.registrations.first_secret(shown.append)
    (secret,) = shown
    assert without.opens(secret)
    await without.registrations.remove_secret("default", 1)
    await without.registrations.first_secret(shown.append)
    assert shown == [secret], "an operator who wants none gets none"


async def test_former_secrets_are_remembered_within_a_bound(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landline.channel.registrations._FORMER", 3)
    await node.registrations.add_site(WEB)
    made = [await node.registrations.rotate("web", 1) for _ in range(6)]
    former = [each.ski for each in node.registrations.site("web").keys.former]
    assert former == [each.ski for each in reversed(made[2:5])]


async def test_a_key_that_is_not_there_cannot_be_revoked_or_removed(node: Node) -> None:
    await node.registrations.add_site(WEB)
    for refused in (
        node.registrations.revoke("web", 1),
        node.registrations.remove_secret("web", 2),
        node.registrations.rotate("web", 0),
        node.registrations.remove_service_key("bot", "nothing"),
    ):
        with pytest.raises(UnknownKey):
            await refused
