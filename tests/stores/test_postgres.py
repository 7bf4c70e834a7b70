"""What only the store in PostgreSQL has to show: two nodes, lost connections, a server that dies, doorbells, roles."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from landline.core.log import Accepted, ConversationId, Entry, NewEntry, SendKey, Transient
from landline.errors import DataDirectoryError, OutcomeUnknown, StoreError
from landline.stores.postgres import PostgresStore, layout
from landline.stores.postgres.bounds import Bounds
from support import postgres
from support.clock import FakeClock
from support.relay import Relay
from support.stores import InPostgres, a_conversation

A = ConversationId("A")
SOON = math.inf
LARGE = 1 << 20
QUICK = Bounds(sweep_s=0.3, again_s=0.1, connect_s=2.0, silent_s=3.0)

pytestmark = pytest.mark.skipif(postgres.PROGRAMS is None, reason=postgres.MISSING)


def said(text: str, key: str | None = None) -> NewEntry:
    body = f'{{"text":"{text}"}}'.encode()
    return NewEntry(body, key=SendKey("ann", key, body) if key else None)


async def log(store: PostgresStore, conversation: ConversationId = A) -> list[bytes]:
    page = await store.read_after(conversation, 0, 10_000, 1 << 30, for_stream=True)
    return [record.body for record in page.records if isinstance(record, Entry)]


async def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    """Stores on one database, and the wires between."""
    home = InPostgres(tmp_path, QUICK)
    async with contextlib.AsyncExitStack() as stack:
        made = Nodes(home, stack)
        stack.push_async_callback(home.close)
        yield made


class Nodes:
    """Opens nodes that share a database."""

    def __init__(self, home: InPostgres, stack: contextlib.AsyncExitStack) -> None:
        self.home = home
        self._stack = stack

    async def node(self, bounds: Bounds = QUICK, port: int | None = None) -> PostgresStore:
        """One more node, which reaches the database at `port`."""
        url = self.home.cluster.url(self.home.database, port=port)
        store = PostgresStore(url, FakeClock(), bounds)
        await store.open()
        self._stack.push_async_callback(store.close)
        return store

    async def relay(self) -> Relay:
        """A wire to the database that can be cut."""
        return await self._stack.enter_async_context(Relay(self.home.cluster.port))


class Reader:
    """A stream's part: it looks at a log when it is told to, and goes on behind what it has."""

    def __init__(self, store: PostgresStore, conversation: ConversationId = A) -> None:
        self.seen: list[bytes] = []
        self.late_s: list[float] = []
        self._store = store
        self._conversation = conversation
        self._position = 0
        self._woken = asyncio.Event()
        store.listen(lambda moved: self._woken.set())

    async def read(self) -> None:
        """For ever."""
        while True:
            self._woken.clear()
            more = True
            while more:
                page = self._store.read_cached(self._conversation, self._position, 0, LARGE)
                if page is None:
                    page = await self._store.read_after(self._conversation, self._position, 100, LARGE, for_stream=True)
                self.seen += [record.body for record in page.records if isinstance(record, Entry)]
                self._position, more = page.position, page.more
            await self._woken.wait()


@contextlib.asynccontextmanager
async def reading(reader: Reader) -> AsyncIterator[None]:
    task = asyncio.create_task(reader.read())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


# Two nodes


async def test_two_nodes_number_one_log_without_a_gap(nodes: Nodes) -> None:
    one, two = await nodes.node(), await nodes.node()
    names = [f"c{number}" for number in range(5)]
    for name in names:
        await one.start(a_conversation(name))
    answers = await asyncio.gather(
        *(store.append(ConversationId(names[n % 5]), said(f"{n}"), SOON) for n in range(300) for store in (one, two))
    )
    for index, name in enumerate(names):
        numbers = sorted(answer.sequence for n, answer in enumerate(answers) if (n // 2) % 5 == index)
        assert numbers == list(range(120))
        assert len(await log(two, ConversationId(name))) == 120


async def test_one_key_from_two_nodes_is_one_entry(nodes: Nodes) -> None:
    one, two = await nodes.node(), await nodes.node()
    await one.start(a_conversation("A"))
    for number in range(20):
        key = f"key-{number}"
        answers = await asyncio.gather(*(store.append(A, said(key, key), SOON) for store in (one, two, one, two)))
        assert {answer.sequence for answer in answers} == {number}
        assert sum(answer.repeated for answer in answers) == 3


async def test_what_one_node_appends_a_stream_of_another_is_shown(nodes: Nodes) -> None:
    one, two = await nodes.node(), await nodes.node()
    await one.start(a_conversation("A"))
    reader = Reader(two)
    async with reading(reader):
        for number in range(50):
            await one.append(A, said(f"{number}"), SOON)
            await two.append(A, said(f"own {number}"), SOON)
        await until(lambda: len(reader.seen) == 100)
    assert reader.seen == await log(one)


async def test_what_was_deleted_or_purged_on_one_node_is_not_shown_by_another(nodes: Nodes) -> None:
    one, two = await nodes.node(), await nodes.node()
    await one.start(a_conversation("A"))
    first = await one.append(A, said("secret"), SOON)
    await two.read_after(A, 0, 10, LARGE, for_stream=True)
    await two.append(A, said("two"), SOON)
    await one.delete(A, first.sequence, said("notice"), SOON)
    assert said("secret").body not in await log(two)
    moved: list[ConversationId] = []
    two.listen(moved.append)
    await one.purge(A)
    await until(lambda: A in moved and two.read_cached(A, 3, 0, LARGE) is None)


# Doorbells


@pytest.mark.parametrize("lost", [0.1, 1.0])
async def test_lost_doorbells_cost_time_and_no_activity(nodes: Nodes, lost: float) -> None:
    one, two = await nodes.node(), await nodes.node()
    await one.start(a_conversation("A"))
    chance = random.Random(lost)
    heard = two._heard
    two._doorbells._hand_on = lambda rung: None if chance.random() < lost else heard(rung)
    reader = Reader(two)
    async with reading(reader):
        await until(lambda: two.read_cached(A, 0, 0, LARGE) is not None)
        for number in range(30):
            await one.append(A, said(f"{number}"), SOON)
            await asyncio.sleep(0.01)
        begun = time.monotonic()
        await until(lambda: len(reader.seen) == 30)
        assert time.monotonic() - begun < 20 * QUICK.sweep_s
    assert reader.seen == await log(one)


async def test_a_node_rings_at_most_two_hundred_times_a_second(nodes: Nodes) -> None:
    one = await nodes.node()
    for number in range(20):
        await one.start(a_conversation(f"c{number}"))
    rung, begun = one._doorbells.sent, time.monotonic()
    for _ in range(20):
        await asyncio.gather(*(one.append(ConversationId(f"c{n % 20}"), said("x"), SOON) for n in range(100)))
    await until(lambda: not one._doorbells._waiting)
    assert one._doorbells.sent - rung <= 200 * (time.monotonic() - begun) + 2


async def test_a_listener_that_was_cut_off_asks_what_it_missed(nodes: Nodes) -> None:
    relay = await nodes.relay()
    one, two = await nodes.node(), await nodes.node(msgspec.structs.replace(QUICK, sweep_s=60.0), relay.port)
    await one.start(a_conversation("A"))
    reader = Reader(two)
    async with reading(reader):
        for number in range(10):
            await one.append(A, said(f"{number}"), SOON)
            relay.cut()
            await until(lambda: len(reader.seen) == number + 1)  # noqa: B023
    assert reader.seen == await log(one)


async def test_a_transient_is_shown_on_another_node_if_it_is_not_too_long(nodes: Nodes) -> None:
    one, two = await nodes.node(), await nodes.node()
    await one.start(a_conversation("A"))
    await one.append(A, said("one"), SOON)
    await two.read_after(A, 0, 10, LARGE, for_stream=True)
    await until(lambda: two.read_cached(A, 1, 0, LARGE) is not None)
    typing = '{"type":"typing","text":"ü\\n"}'.encode() + b"\xff"
    one.send_transient(A, b"x" * 10_000)
    one.send_transient(A, typing)
    await until(lambda: two.transient_counter() == 1)
    page = two.read_cached(A, 1, 0, LARGE)
    assert page is not None
    assert page.records == [Transient(1, 1, typing)]


# Lost connections


async def test_an_append_whose_connection_is_lost_is_stored_once(nodes: Nodes) -> None:
    """Wherever it is lost: before the statement came, while it ran, or before the answer was read."""
    relay = await nodes.relay()
    store = await nodes.node(port=relay.port)
    await store.start(a_conversation("A"))
    accepted: list[bytes] = []
    chance = random.Random(7)

    async def write(writer: int) -> None:
        for number in range(60):
            entry = said(f"{writer}-{number}")
            answer = await store.append(A, entry, SOON)
            assert isinstance(answer, Accepted)
            accepted.append(entry.body)

    async def cut() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0.005, 0.05))
            for link in relay.links:
                if link.open and chance.random() < 0.5:
                    link.cut()

    cutting = asyncio.create_task(cut())
    try:
        async with asyncio.timeout(60):
            await asyncio.gather(*(write(writer) for writer in range(4)))
    finally:
        cutting.cancel()
        await asyncio.wait([cutting])
    assert sorted(await log(store)) == sorted(accepted), "none is missing, none is there twice"


async def test_a_commit_whose_answer_is_lost_is_found_and_not_repeated(nodes: Nodes) -> None:
    relay = await nodes.relay()
    store = await nodes.node(port=relay.port)
    await store.start(a_conversation("A"))
    await store.append(A, said("one"), SOON)
    for link in relay.links:
        link.deaf = True
    appending = asyncio.create_task(store.append(A, said("two"), SOON))
    sql = "SELECT count(*) FROM landline.entries"
    await until(lambda: nodes.home.cluster.sql(sql, nodes.home.database) == "2")
    relay.cut()
    assert (await appending).sequence == 1
    assert await log(store) == [said("one").body, said("two").body]


async def test_a_database_that_says_nothing_is_given_up(nodes: Nodes) -> None:
    relay = await nodes.relay()
    store = await nodes.node(msgspec.structs.replace(QUICK, silent_s=0.5), relay.port)
    await store.start(a_conversation("A"))
    for link in relay.links:
        link.silence()
    begun = time.monotonic()
    assert (await store.append(A, said("one"), SOON)).sequence == 0
    assert time.monotonic() - begun < 10
    assert await log(store) == [said("one").body]


async def test_what_waits_for_a_database_that_is_away_is_refused_at_its_deadline(nodes: Nodes) -> None:
    relay = await nodes.relay()
    store = await nodes.node(port=relay.port)
    await store.start(a_conversation("A"))
    relay.refuse()
    relay.cut()
    with pytest.raises(StoreError):
        await store.append(A, said("lost"), store._clock.monotonic() + 0.3)
    await relay.accept()
    assert (await store.append(A, said("one"), SOON)).sequence in (0, 1)
    assert (await log(store))[-1] == said("one").body
    await store.check()


async def test_a_server_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    cluster = postgres.Cluster()
    try:
        store = PostgresStore(cluster.url(cluster.database()), FakeClock(), QUICK)
        await store.open()
        await store.start(a_conversation("A"))
        accepted: list[bytes] = []
        unknown: list[bytes] = []

        async def write(writer: int) -> None:
            for number in range(100_000):
                entry = said(f"{writer}-{number}")
                try:
                    await store.append(A, entry, SOON)
                    accepted.append(entry.body)
                except OutcomeUnknown:
                    unknown.append(entry.body)

        writing = [asyncio.create_task(write(writer)) for writer in range(8)]
        for _ in range(3):
            have = len(accepted)
            await until(lambda: len(accepted) > have + 50)  # noqa: B023
            await asyncio.to_thread(cluster.kill)
            await asyncio.to_thread(cluster.start)
        have = len(accepted)
        await until(lambda: len(accepted) > have + 50)
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
        await asyncio.sleep(0)
        stored = await log(store)
        assert set(accepted) <= set(stored)
        assert len(set(stored)) == len(stored)
        await store.close()
    finally:
        cluster.remove()


async def test_nodes_go_on_by_themselves_when_the_synchronous_standby_takes_over() -> None:
    primary = postgres.Cluster()
    standby = postgres.Cluster(copy_of=primary)
    try:
        primary.wait_for_standby()
        database = primary.database()
        url = f"postgresql://owner@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{database}"
        stores = [PostgresStore(url, FakeClock(), QUICK) for _ in range(2)]
        for store in stores:
            await store.open()
        await stores[0].start(a_conversation("A"))
        accepted: list[bytes] = []

        async def write(writer: int) -> None:
            for number in range(100_000):
                entry = said(f"{writer}-{number}")
                with contextlib.suppress(StoreError):
                    await stores[writer % 2].append(A, entry, SOON)
                    accepted.append(entry.body)

        writing = [asyncio.create_task(write(writer)) for writer in range(8)]
        await until(lambda: len(accepted) > 50)
        await asyncio.to_thread(primary.kill)
        before = len(accepted)
        await asyncio.to_thread(standby.promote)
        promoted = time.monotonic()
        await until(lambda: len(accepted) > before + 50)
        assert time.monotonic() - promoted < 10
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
        for store in stores:
            stored = await log(store)
            assert set(accepted) <= set(stored)
            assert len(set(stored)) == len(stored)
            await store.close()
    finally:
        standby.remove()
        primary.remove()


# Roles and settings


async def test_the_service_needs_no_more_than_usage_and_dml(nodes: Nodes) -> None:
    cluster, database = nodes.home.cluster, nodes.home.cluster.database()
    cluster.sql("DO $$ BEGIN CREATE ROLE service LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    store = PostgresStore(cluster.url(database, "service"), FakeClock(), QUICK)
    with pytest.raises(DataDirectoryError, match="landline store sql"):
        await store.open()
    cluster.sql(layout.statements(), database)
    cluster.sql(
        "GRANT USAGE ON SCHEMA landline TO service;"
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA landline TO service",
        database,
    )
    await store.open()
    await store.start(a_conversation("A", "ann"))
    first = await store.append(A, said("one", "key"), SOON)
    assert (await store.append(A, said("one", "key"), SOON)).repeated
    await store.delete(A, first.sequence, said("notice"), SOON)
    await store.purge(A)
    await store.clear(A)
    await store.put_if_absent("name", b"value")
    await store.close()


async def test_nodes_that_start_at_once_make_one_layout(nodes: Nodes) -> None:
    cluster = nodes.home.cluster
    url = cluster.url(cluster.database())
    stores = [PostgresStore(url, FakeClock(), QUICK) for _ in range(3)]
    await asyncio.gather(*(store.open() for store in stores))
    assert await stores[0].start(a_conversation("A"))
    assert not await stores[1].start(a_conversation("A"))
    for store in stores:
        await store.close()


async def test_a_layout_of_a_newer_version_is_refused(nodes: Nodes) -> None:
    cluster = nodes.home.cluster
    database = cluster.database()
    cluster.sql(layout.statements(), database)
    cluster.sql("UPDATE landline.layout SET version = 99", database)
    with pytest.raises(DataDirectoryError, match="newer version"):
        await PostgresStore(cluster.url(database), FakeClock(), QUICK).open()


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
async def test_a_database_that_would_lose_what_was_acknowledged_is_refused(setting: str, nodes: Nodes) -> None:
    cluster = nodes.home.cluster
    url = cluster.url(cluster.database())
    cluster.sql(f"ALTER SYSTEM SET {setting} = off")
    try:
        cluster.sql("SELECT pg_reload_conf()")
        await until(lambda: cluster.sql(f"SHOW {setting}") == "off")
        with pytest.raises(DataDirectoryError, match=setting):
            await PostgresStore(url, FakeClock(), QUICK).open()
    finally:
        cluster.sql(f"ALTER SYSTEM RESET {setting}")
        cluster.sql("SELECT pg_reload_conf()")


async def test_a_default_that_is_weakened_later_weakens_no_append(nodes: Nodes) -> None:
    store = await nodes.node()
    cluster, database = nodes.home.cluster, nodes.home.database
    await store.start(a_conversation("A"))
    cluster.sql(f"ALTER DATABASE {database} SET synchronous_commit = off")
    try:
        store._appends._link.drop()
        await store.append(A, said("one"), SOON)
        seen = await store._appends._link.run(lambda c: c.fetchval("SHOW synchronous_commit"))
        assert seen == "on"
    finally:
        cluster.sql(f"ALTER DATABASE {database} RESET synchronous_commit")


async def test_a_database_that_is_not_there_is_said_at_the_start() -> None:
    with pytest.raises(DataDirectoryError, match="cannot be used"):
        await PostgresStore("postgresql://nobody@127.0.0.1:1/none", FakeClock(), QUICK).open()


async def test_five_connections_are_enough(nodes: Nodes) -> None:
    store = await nodes.node()
    await store.start(a_conversation("A"))
    await asyncio.gather(*(store.append(A, said("x"), SOON) for _ in range(100)), *(log(store) for _ in range(20)))
    sql = f"SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'landline/{store._node}%'"
    assert int(nodes.home.cluster.sql(sql)) <= 5


# A pooler


@pytest.mark.skipif(postgres.POOLER is None, reason="pgbouncer is not installed")
async def test_behind_a_pooler_nodes_ask_where_they_cannot_listen(nodes: Nodes) -> None:
    with postgres.pooler(nodes.home.cluster) as port:
        one, two = await nodes.node(port=port), await nodes.node(port=port)
        assert two._doorbells.is_polling
        await one.start(a_conversation("A"))
        reader = Reader(two)
        async with reading(reader):
            for number in range(20):
                await asyncio.gather(*(store.append(A, said(f"{number}", f"{number}"), SOON) for store in (one, two)))
                await one.append(A, said(f"and {number}"), SOON)
            await until(lambda: len(reader.seen) == 40)
        assert reader.seen == await log(one)
        await asyncio.gather(one.close(), two.close())


@pytest.mark.skipif(postgres.POOLER is None, reason="pgbouncer is not installed")
async def test_behind_a_pooler_doorbells_are_heard_over_a_way_of_their_own(nodes: Nodes) -> None:
    one = await nodes.node()
    with postgres.pooler(nodes.home.cluster) as port:
        cluster, database = nodes.home.cluster, nodes.home.database
        bounds = msgspec.structs.replace(QUICK, sweep_s=60.0)
        two = PostgresStore(cluster.url(database, port=port), FakeClock(), bounds, listen_dsn=cluster.url(database))
        await two.open()
        assert not two._doorbells.is_polling
        await one.start(a_conversation("A"))
        reader = Reader(two)
        async with reading(reader):
            await until(lambda: two._doorbells.received > 0 or two.read_cached(A, 0, 0, LARGE) is not None)
            for number in range(10):
                await one.append(A, said(f"{number}"), SOON)
            await until(lambda: len(reader.seen) == 10)
        await two.close()


async def test_a_statement_that_comes_after_its_lane_was_given_up_is_refused(nodes: Nodes) -> None:
    """It may have stood in a socket while the next connection was asking what is there."""
    store = await nodes.node()
    await store.start(a_conversation("A"))
    old = store._appends._lane
    nodes.home.cluster.sql(f"DELETE FROM landline.lanes WHERE lane = {old}", nodes.home.database)
    assert (await store.append(A, said("one"), SOON)).sequence == 0
    assert store._appends._lane != old
    assert await log(store) == [said("one").body]
