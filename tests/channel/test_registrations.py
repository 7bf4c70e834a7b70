from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from landline.channel.records import Configured
from landline.core.bot import SHORT_LIFE, Profile, Site
from landline.errors import ReadOnly
from landline.stores.memory import MemoryStore
from support.registered import CONFIGURED, WEB, Node


async def test_another_node_learns_of_everything_when_it_looks(store: MemoryStore, node: Node) -> None:
    other = await Node(store).loaded()
    await node.registrations.bots.add(Profile(id="second", endpoint="http://x/"))
    await node.registrations.sites.add(Site("web", "second"))
    secret = (await node.registrations.sites.rotate("web", 1)).secret
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
        await node.registrations.bots.add(Profile(id="brief", token_ttl_s=1))
        await node.registrations.sites.add(Site("web", "brief", token_ttl_s=60))
        await node.registrations.sites.change("web", lambda old: msgspec.structs.replace(old, enabled=False))
        for life_s in (None, 300, 61, 61):
            await node.registrations.sites.change("web", lives(life_s))
        await node.registrations.bots.change("brief", lambda old: msgspec.structs.replace(old, token_ttl_s=2))
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


async def test_a_secret_is_not_kept(store: MemoryStore, node: Node) -> None:
    await node.registrations.sites.add(WEB)
    made = [await node.registrations.sites.rotate("web", key) for key in (1, 2, 1)] + [
        await node.registrations.sites.revoke("web", 2)
    ]
    known = (node.registrations, node.registrations.bots, node.registrations.sites, node.registry)
    kept = repr(await store.list("")) + "".join(repr(vars(each)) for each in known)
    assert not any(each.secret in kept for each in made)


async def test_what_the_settings_name_wins_over_what_is_stored(store: MemoryStore, node: Node) -> None:
    await node.registrations.bots.add(Profile(id="second", name="Stored"))
    await node.registrations.sites.add(Site("web", "second", token_ttl_s=60))
    configured = Configured(
        (*CONFIGURED.profiles, Profile(id="second", name="Named")),
        (*CONFIGURED.sites, Site("web", "second")),
        {},
        "default",
    )
    named = await Node(store, configured).loaded()
    assert named.registry.bot("second").name == "Named"
    assert named.registrations.sites.get("web").site.token_ttl_s is None
    for refused in (named.registrations.remove_bot("second"), named.registrations.sites.remove("web")):
        with pytest.raises(ReadOnly):
            await refused
