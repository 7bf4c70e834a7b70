"""The deployment's signing keys over its life: the first start, other nodes, rotations, a store in trouble."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import jwt
import pytest

from landline.channel.keys import SigningKeys
from landline.core.keys import SigningKey
from landline.errors import StoreUnavailable, UnknownKey
from landline.stores.memory import MemoryStore
from support.clock import FakeClock

HOUR_MS = 3_600_000
LEAD_S = 25 * 3600


class Clock(FakeClock):
    """A clock whose other hand moves, too."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def pass_hours(self, hours: float) -> None:
        self.move(int(hours * HOUR_MS))
        self.seconds += hours * 3600


class Store(MemoryStore):
    """A store that can be in trouble, and that counts how often it is asked."""

    broken = False
    asked = 0

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        self.asked += 1
        if self.broken:
            raise StoreUnavailable
        return await super().list(prefix)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(clock: Clock) -> Store:
    store = Store(clock)
    await store.open()
    return store


def node(store: Store, clock: Clock) -> SigningKeys:
    """The keys as one node, or the process after a restart, sees them."""
    return SigningKeys(store, clock, lead_s=LEAD_S)


def kids(keys: list[SigningKey]) -> list[str]:
    return [key.kid for key in keys]


async def signed_by(keys: SigningKeys) -> str:
    return str(jwt.get_unverified_header(await keys.sign({"a": 1}))["kid"])


@pytest.mark.bot_item(85)
async def test_nodes_that_start_at_the_same_moment_have_the_same_key(store: Store, clock: Clock) -> None:
    nodes = [node(store, clock) for _ in range(3)]
    shown = await asyncio.gather(*(each.shown() for each in nodes), nodes[0].shown())
    assert len({key.kid for keys in shown for key in keys}) == 1
    assert {await signed_by(each) for each in (*nodes, node(store, clock))} == set(kids(shown[0]))


@pytest.mark.bot_item(86)
async def test_a_new_key_is_shown_25_hours_before_it_signs_and_the_old_one_25_hours_after(
    store: Store, clock: Clock
) -> None:
    keys = node(store, clock)
    (old,) = await keys.shown()
    new = await keys.rotate()
    assert kids(await keys.shown()) == [old.kid, new.kid], "at once"
    clock.pass_hours(24.99)
    assert await signed_by(keys) == old.kid
    clock.pass_hours(0.02)
    assert await signed_by(keys) == new.kid
    clock.pass_hours(24.98)
    assert kids(await keys.shown()) == [old.kid, new.kid]
    assert await keys.find(old.kid) is not None
    clock.pass_hours(0.02)
    assert kids(await keys.shown()) == [new.kid]
    assert await keys.find(old.kid) is None
    assert await signed_by(node(store, clock)) == new.kid, "after a restart"


async def test_a_rotation_during_a_rotation_makes_no_third_key(store: Store, clock: Clock) -> None:
    keys, other = node(store, clock), node(store, clock)
    new = await keys.rotate()
    assert (await keys.rotate()).kid == new.kid
    assert (await other.rotate()).kid == new.kid, "nor on another node"
    clock.pass_hours(26)
    first, second = await asyncio.gather(keys.rotate(), other.rotate())
    assert first.kid == second.kid != new.kid
    assert len((await node(store, clock).ring()).keys) == 3


async def test_a_node_hears_of_a_rotation_elsewhere_without_asking_all_the_time(store: Store, clock: Clock) -> None:
    keys, other = node(store, clock), node(store, clock)
    (old,) = await keys.shown()
    new = await other.rotate()
    asked = store.asked
    for _ in range(100):
        await keys.sign({"a": 1})
    assert store.asked == asked
    clock.pass_hours(0.1)
    assert kids(await keys.shown()) == [old.kid, new.kid]


async def test_trouble_of_the_store_stops_nobody_who_knows_a_key(store: Store, clock: Clock) -> None:
    keys = node(store, clock)
    store.broken = True
    with pytest.raises(StoreUnavailable):
        await keys.shown()
    store.broken = False
    (key,) = await keys.shown()
    store.broken = True
    clock.pass_hours(1)
    assert await signed_by(keys) == key.kid
    with pytest.raises(StoreUnavailable):
        await keys.rotate()


async def test_a_key_that_is_withdrawn_is_gone_at_once_and_another_signs(store: Store, clock: Clock) -> None:
    """On this node, on another one soon, after a restart; and nothing is left of it that could be stolen."""
    keys, other = node(store, clock), node(store, clock)
    (leaked,) = await keys.shown()
    assert kids(await other.shown()) == [leaked.kid]
    await keys.withdraw(leaked.kid)
    (new,) = await keys.shown()
    assert new.kid != leaked.kid
    assert await signed_by(keys) == await keys.signer() == new.kid
    assert new.signs_from_ms <= clock.now_ms()
    assert await keys.find(leaked.kid) is None
    assert kids(await node(store, clock).shown()) == [new.kid], "after a restart"
    clock.pass_hours(0.1)
    assert kids(await other.shown()) == [new.kid]
    private = leaked.to_keep()
    assert private not in (await store.list("")).values()
    with pytest.raises(UnknownKey):
        await keys.withdraw(leaked.kid)


async def test_the_next_key_signs_at_once_where_the_one_before_is_withdrawn(store: Store, clock: Clock) -> None:
    keys = node(store, clock)
    (leaked,) = await keys.shown()
    next_ = await keys.rotate()
    await keys.withdraw(leaked.kid)
    (shown,) = await keys.shown()
    assert (shown.kid, shown.signs_from_ms) == (next_.kid, clock.now_ms())
    assert await signed_by(keys) == next_.kid
    assert (await keys.rotate()).kid != next_.kid, "it waits no longer"


async def test_the_key_before_signs_again_only_while_bots_know_it(store: Store, clock: Clock) -> None:
    keys = node(store, clock)
    (first,) = await keys.shown()
    second = await keys.rotate()
    clock.pass_hours(26)
    assert await signed_by(keys) == second.kid
    await keys.withdraw(second.kid)
    assert await signed_by(keys) == first.kid
    third = await keys.rotate()
    clock.pass_hours(60)
    assert kids(await keys.shown()) == [third.kid]
    await keys.withdraw(third.kid)
    assert await signed_by(keys) not in (first.kid, second.kid, third.kid)


async def test_a_key_that_waits_can_be_withdrawn_and_nothing_else_changes(store: Store, clock: Clock) -> None:
    keys = node(store, clock)
    (old,) = await keys.shown()
    waiting = await keys.rotate()
    await keys.withdraw(waiting.kid)
    assert kids(await keys.shown()) == [old.kid]
    assert await signed_by(keys) == old.kid
    assert (await keys.rotate()).kid != waiting.kid


async def test_a_key_is_withdrawn_once_by_whoever_is_first(store: Store, clock: Clock) -> None:
    nodes = [node(store, clock), node(store, clock)]
    (leaked,) = await nodes[0].shown()
    ended = await asyncio.gather(*(each.withdraw(leaked.kid) for each in nodes), return_exceptions=True)
    assert sum(each is None for each in ended) >= 1, ended
    clock.pass_hours(0.1)
    assert len({await signed_by(each) for each in nodes} - {leaked.kid}) == 1
    assert leaked.kid not in kids(await nodes[1].shown())


async def test_a_key_that_cannot_be_erased_is_not_withdrawn(store: Store, clock: Clock) -> None:
    keys = node(store, clock)
    (key,) = await keys.shown()
    store.broken = True
    with pytest.raises(StoreUnavailable):
        await keys.withdraw(key.kid)
    store.broken = False
    assert await signed_by(keys) == key.kid
