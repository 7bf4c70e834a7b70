"""The stores against the model: the same calls from one seed, the same answers, whatever was forgotten between.

Restarts, a tail that holds next to nothing, an index that is behind, and a writer that forgets where its logs stand
come at random times.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from landline.core.conversation import Account
from landline.core.failure import FailedDelivery
from landline.core.log import Audience, ConversationId, Entry, NewEntry, Original, SendKey
from landline.errors import LandlineError
from landline.ports import Store
from landline.stores.postgres import PostgresStore
from landline.stores.postgres.bounds import Bounds as PostgresBounds
from landline.stores.sqlite.bounds import Bounds
from support.clock import NOON_MS, FakeClock
from support.rounds import SEED, rounds
from support.stores import BOT, Home, InMemory, InPostgres, InSqlite, a_conversation

NAMES = [ConversationId(name) for name in ("A", "B", "C", "D", "never-started")]
LARGE = 1 << 20

ONWARD_MS = (0, 0, 1, 300, 5000)
"""In PostgreSQL each log expires by itself: with a clock that steps back, an activity may go there that the model keeps
because a younger one came to another log before it."""

Call = Callable[[Store], Awaitable[Any]]


class Script:
    """Draws calls that make sense for a few conversations, and some that do not."""

    def __init__(self, dice: Random, clock: FakeClock) -> None:
        self._dice = dice
        self._clock = clock
        self._before_ms = 0
        self._said = 0

    def call(self) -> Call:
        dice = self._dice
        name = dice.choice(NAMES)
        kinds = (self.append, self.append, self.append, self.read, self.read, self.start, self.members, self.others)
        if dice.random() < 0.15:
            kinds = (self.delete, self.delete, self.took, self.end)
        return dice.choice(kinds)(name)

    def append(self, name: ConversationId) -> Call:
        dice = self._dice
        self._said += 1
        body = b'{"n":%d,"text":"%s"}' % (self._said, b"x" * int(dice.paretovariate(0.7) * 10 % 10_000))
        original = Original(dice.randrange(5), dice.randrange(1000)) if dice.random() < 0.1 else None
        key = None
        if dice.random() < 0.2:
            since_ms = dice.choice((0, 0, NOON_MS + dice.randrange(100_000)))
            key = SendKey(dice.choice(("ann", "bob")), dice.choice("12"), dice.choice((b"a", b"b")), since_ms)
        entry = NewEntry(body, Audience(dice.random() < 0.2), original, key)
        deadline = -1.0 if dice.random() < 0.05 else math.inf
        return lambda store: store.append(name, entry, deadline)

    def read(self, name: ConversationId) -> Call:
        dice = self._dice
        position, count, size = dice.randrange(30), dice.choice((1, 3, 100)), dice.choice((1, 200, LARGE))
        for_stream = dice.random() < 0.5

        async def read(store: Store) -> Any:
            page = await store.read_after(name, position, count, size, for_stream=for_stream)
            return page.records, page.position, page.behind_ms, page.more

        return read

    def start(self, name: ConversationId) -> Call:
        user = self._dice.choice((None, "ann", "bob", "bot"))
        return lambda store: store.start(a_conversation("D" if name == "never-started" else name, user))

    def members(self, name: ConversationId) -> Call:
        account = Account(f"user-{self._dice.randrange(4)}", self._dice.choice((None, "Name")))
        return self._dice.choice(
            (
                lambda store: store.members(name),
                lambda store: store.join(name, account),
                lambda store: store.mark_announced(name, [account.id, "bot"]),
                lambda store: store.leave(name, account.id),
            )
        )

    def delete(self, name: ConversationId) -> Call:
        sequence = self._dice.randrange(30)
        return lambda store: store.delete(name, sequence, NewEntry(b'{"type":"messageDelete"}'), math.inf)

    def took(self, name: ConversationId) -> Call:
        sequence = self._dice.randrange(30)

        async def took(store: Store) -> None:
            store.mark_taken(name, sequence)

        return took

    def end(self, name: ConversationId) -> Call:
        """Retention: it has its way with a conversation, or with what is old in all of them."""
        before_ms = self._before_ms = max(self._before_ms, self._clock.now_ms() - self._dice.randrange(30_000))

        async def expire(store: Store) -> None:
            after: int | None = 0
            while after is not None:
                after = await store.expire(before_ms, 0, after)

        async def clear(store: Store) -> None:
            while await store.clear(name):
                pass

        async def bury(store: Store) -> None:
            while await store.drop_tombstones(before_ms):
                pass

        return self._dice.choice(
            (lambda store: store.purge(name), lambda store: store.purge(name, before_ms), expire, expire, clear, bury)
        )

    def others(self, name: ConversationId) -> Call:
        sequence = self._dice.randrange(30)
        failure = FailedDelivery(BOT, name, sequence, 0, "because", None)
        old, new = self._dice.choice((None, b"0", b"1")), self._dice.choice((None, b"0", b"1"))
        return self._dice.choice(
            (
                lambda store: names_of(store.conversations_of_bot(BOT, 0, 1 + sequence % 5)),
                lambda store: store.record_failure(failure, 5),
                lambda store: store.failures(),
                lambda store: store.settle_failure(name, sequence),
                lambda store: store.entry(name, sequence),
                lambda store: store.is_purged(name),
                lambda store: in_any_order(store.uncleared(10)),
                lambda store: in_any_order(store.conversations_of_member(f"user-{sequence % 4}", 10)),
                lambda store: store.conversation(name),
                lambda store: store.accepted_at(name, sequence),
                lambda store: store.put_if_absent(name, b"%d" % (sequence % 2)),
                lambda store: store.get(name),
                lambda store: store.compare_and_set(name, old, new),
                lambda store: store.list(name[:1]),
            )
        )


class Untaken(Script):
    """A script in which a bot takes nothing. It may say so of what is only said later, and then that is a matter of
    taste: nobody does."""

    took = Script.read  # type: ignore[assignment]


async def in_any_order(names: Awaitable[Sequence[ConversationId]]) -> list[ConversationId]:
    return sorted(await names)


async def names_of(started: Awaitable[Sequence[tuple[int, ConversationId]]]) -> list[ConversationId]:
    """A number may be given again when a conversation is forgotten altogether, and then it may not."""
    return [name for _, name in await started]


async def answer(call: Call, store: Store) -> Any:
    try:
        return await call(store)
    except LandlineError as error:
        return type(error)


async def same_from_memory(model: Store, store: Store, dice: Random) -> None:
    """What a stream is shown without a look at the disk is what the log says; or it is told to look there."""
    name, position = dice.choice(NAMES), dice.randrange(30)
    assert store.cached_conversation(name) in (None, await model.conversation(name))
    assert store.cached_time(name, position) in (None, await model.accepted_at(name, position))
    shown = store.read_cached(name, position, store.transient_counter(), LARGE)
    if shown is not None:
        expected = await model.read_after(name, position, 10_000, LARGE, for_stream=True)
        assert [record for record in shown.records if isinstance(record, Entry)] == expected.records
        assert (shown.position, shown.behind_ms) == (expected.position, expected.behind_ms)


@pytest.mark.parametrize("seed", range(SEED, SEED + rounds(4, 1_000)))
async def test_the_embedded_store_answers_as_the_model_does(seed: int, tmp_path: Path) -> None:
    dice = Random(seed)
    bounds = Bounds(
        stands=dice.choice((1, 2, 1000)),
        slice_rows=dice.choice((1, 3, 256)),
        slice_bytes=dice.choice((1, 1 << 20)),
        index_after=dice.choice((1, 5, 512)),
        last=dice.choice((0, 3, 16)),
        ahead=dice.choice((1, 5, 64)),
        ahead_bytes=dice.choice((1, 200, 1 << 20)),
        tail_bytes=dice.choice((0, 2000, 20_000, 1 << 20)),
        checkpoint_pages=dice.choice((4, 64)),
    )
    await same_answers(InSqlite(tmp_path, bounds), InMemory(tmp_path), dice)


@pytest.mark.parametrize("seed", range(SEED, SEED + rounds(4, 300)))
async def test_the_store_in_postgresql_answers_as_the_model_does(seed: int, tmp_path: Path) -> None:
    dice = Random(seed)
    bounds = PostgresBounds(
        slice_rows=dice.choice((1, 3, 256)),
        slice_bytes=dice.choice((1, 1 << 20)),
        page_rows=dice.choice((1, 2, 7, 256)),
        group_bytes=dice.choice((1, 2000, 8 << 20)),
        tail_bytes=dice.choice((0, 2000, 20_000, 1 << 20)),
    )
    await same_answers(InPostgres(tmp_path, bounds), InMemory(tmp_path), dice, ONWARD_MS, rounds(150, 400), Untaken)


@pytest.mark.parametrize("seed", range(SEED, SEED + rounds(2, 300)))
async def test_two_nodes_answer_as_one_model_does(seed: int, tmp_path: Path) -> None:
    """But for their memory, which may be behind."""
    dice = Random(seed)
    here, there = InPostgres(tmp_path), InMemory(tmp_path)
    here.clock = there.clock
    nodes, model = [await here.open()], await there.open()
    nodes.append(PostgresStore(here.cluster.url(here.database), there.clock))
    await nodes[1].open()
    script = Untaken(dice, there.clock)
    for _ in range(rounds(150, 400)):
        call, store = script.call(), dice.choice(nodes)
        expected = await answer(call, model)
        assert await answer(call, store) == expected
        there.clock.move(dice.choice(ONWARD_MS))
    await nodes[1].close()
    await here.close()


async def same_answers(
    here: Home,
    there: InMemory,
    dice: Random,
    steps_ms: Sequence[int] = (0, 0, 1, 5000, -3000),
    calls_drawn: int = 400,
    kind: type[Script] = Script,
) -> None:
    """Draw calls, and compare. The clock moves by `steps_ms`."""
    here.clock = there.clock
    store, model = await here.open(), await there.open()
    script = kind(dice, there.clock)
    for _ in range(calls_drawn):
        calls = [script.call() for _ in range(dice.choice((1, 1, 1, 8)))]
        if len(calls) > 1:
            # Reads beside writes may see them or not: only what is written has one right answer.
            calls = [script.append(dice.choice(NAMES)) for _ in calls]
        expected = [await answer(call, model) for call in calls]
        assert await asyncio.gather(*(answer(call, store) for call in calls)) == expected
        await same_from_memory(model, store, dice)
        there.clock.move(dice.choice(steps_ms))
        if dice.random() < 0.05:
            store = await here.restart()
    await here.close()
