"""Durable appends in PostgreSQL: the store, the bare statement under it, and a plain file, in one run.

`python -m benchmarks.postgres DIRECTORY URL [rounds] [seconds]` with a URL of an empty database whose server is on the
same disk as DIRECTORY. Prints rates a second, the median of the rounds, and the ratios that decisions are made of.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from benchmarks.appends import BODY, GroupedFile, rate
from benchmarks.work import SystemClock
from landline.core.conversation import NewConversation
from landline.core.log import ConversationId, NewEntry
from landline.stores.postgres import PostgresStore

WRITERS = (1, 64, 1000)

_BARE = """
    WITH asked AS (
        SELECT u.* FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS u (id, body, rank)
    ), locked AS (
        SELECT c.number, c.bucket, c.id, c.head, c.last_ms FROM landline.conversations AS c
        WHERE c.id = ANY ($1) ORDER BY c.number FOR NO KEY UPDATE
    ), numbered AS (
        SELECT a.body, a.rank, l.bucket, l.number, l.head + row_number() OVER w - 1 AS sequence,
            greatest($3::bigint, l.last_ms + 1) + row_number() OVER w - 1 AS time_ms
        FROM asked AS a JOIN locked AS l USING (id) WINDOW w AS (PARTITION BY l.number ORDER BY a.rank)
    ), added AS (
        INSERT INTO landline.entries (bucket, conversation, sequence, audience, time_ms, operation, body)
        SELECT bucket, number, sequence, 0, time_ms, 0, body FROM numbered
    ), moved AS (
        UPDATE landline.conversations AS c SET head = m.head, last_ms = m.last_ms
        FROM (SELECT number, max(sequence) + 1 AS head, max(time_ms) AS last_ms FROM numbered GROUP BY number) AS m
        WHERE c.number = m.number
    )
    SELECT sequence, time_ms FROM numbered ORDER BY rank
"""


class Bare:
    """The least that appends in PostgreSQL: whatever queued while the last statement ran is the next one."""

    def __init__(self, connection: Any, names: list[ConversationId]) -> None:
        self._connection = connection
        self._names = names
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def append(self, writer: int) -> None:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((writer, answer))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
        await answer

    async def _work(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            names = [self._names[writer] for writer, _ in group]
            await self._connection.fetch(_BARE, names, [BODY] * len(group), int(time.time() * 1000))
            for _, answer in group:
                answer.set_result(None)
        self._task = None


async def main(directory: Path, url: str, rounds: int, seconds: float) -> None:
    store = PostgresStore(url, SystemClock())
    await store.open()
    names = [ConversationId(f"{time.time_ns()}-of-writer-{number}") for number in range(max(WRITERS))]
    await asyncio.gather(*(store.start(NewConversation(name, "bot")) for name in names))
    bare = Bare(await asyncpg.connect(url), names)
    file = GroupedFile(directory / "appends.log")

    async def append(writer: int) -> None:
        await store.append(names[writer], NewEntry(BODY), time.monotonic() + 15)

    ways = {"store": append, "bare": bare.append, "file": file.append}
    found: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for writers in WRITERS:
            for name, way in ways.items():
                await rate(way, writers, seconds / 5)
                done = await rate(way, writers, seconds)
                found.setdefault((name, writers), []).append(done.per_s)
                cpu.setdefault((name, writers), []).append(done.cpu_us)
    for writers in WRITERS:
        row = {name: statistics.median(found[name, writers]) for name in ways}
        used = statistics.median(cpu["store", writers])
        print(
            f"{writers:5} writers: store {row['store']:7.0f}/s ({used:.0f} us of CPU each), bare {row['bare']:7.0f}/s, "
            f"file {row['file']:7.0f}/s; store/bare {row['store'] / row['bare']:.2f}, "
            f"store/file {row['store'] / row['file']:.2f}"
        )
    print(f"64 writers against one: {statistics.median(found['store', 64]) / statistics.median(found['store', 1]):.1f}")
    file.close()
    await store.close()


if __name__ == "__main__":
    uvloop.run(
        main(
            Path(sys.argv[1]),
            sys.argv[2],
            int(sys.argv[3]) if len(sys.argv) > 3 else 5,
            float(sys.argv[4]) if len(sys.argv) > 4 else 1.0,
        )
    )
