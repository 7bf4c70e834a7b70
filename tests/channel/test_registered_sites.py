from __future__ import annotations

import pytest

from landline.channel.records import Configured
from landline.core.tokens import ski
from landline.errors import UnknownKey
from landline.stores.memory import MemoryStore
from support.channel import SECRET
from support.registered import CONFIGURED, WEB, Node


async def test_a_secret_of_the_settings_that_was_revoked_opens_nothing(store: MemoryStore, node: Node) -> None:
    assert node.opens(SECRET)
    assert node.registry.any_ski("default") == ski(SECRET)
    await node.registrations.sites.revoke_ski("default", ski(SECRET))
    assert not node.opens(SECRET)
    assert node.registry.any_ski("default") is None
    assert not (await Node(store).loaded()).opens(SECRET)


async def test_the_first_secret_is_made_once_and_only_where_there_is_none(store: MemoryStore, node: Node) -> None:
    shown: list[str] = []
    await node.registrations.sites.first_secret(shown.append)
    assert shown == []
    without = await Node(store, Configured(CONFIGURED.profiles, CONFIGURED.sites, {}, "default")).loaded()
    await without.registrations.sites.first_secret(shown.append)
    await without.registrations.sites.first_secret(shown.append)
    (secret,) = shown
    assert without.opens(secret)
    await without.registrations.sites.remove_secret("default", 1)
    await without.registrations.sites.first_secret(shown.append)
    assert shown == [secret], "an operator who wants none gets none"


async def test_former_secrets_are_remembered_within_a_bound(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landline.channel.registered_sites._FORMER", 3)
    await node.registrations.sites.add(WEB)
    made = [await node.registrations.sites.rotate("web", 1) for _ in range(6)]
    former = [each.ski for each in node.registrations.sites.get("web").keys.former]
    assert former == [each.ski for each in reversed(made[2:5])]


async def test_a_key_that_is_not_there_cannot_be_revoked_or_removed(node: Node) -> None:
    await node.registrations.sites.add(WEB)
    for refused in (
        node.registrations.sites.revoke("web", 1),
        node.registrations.sites.remove_secret("web", 2),
        node.registrations.sites.rotate("web", 0),
        node.registrations.bots.remove_service_key("bot", "nothing"),
    ):
        with pytest.raises(UnknownKey):
            await refused
