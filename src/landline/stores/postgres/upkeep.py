"""How long conversations are kept. What is removed here leaves the tables at once and the disk with the next vacuum;
copies of the write-ahead log are the DBA's (docs/howto/postgresql.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from landline import ports
from landline.core.log import ConversationId
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.doorbells import FORGET
from landline.stores.postgres.engine import Engine
from landline.stores.postgres.lane import Write
from landline.stores.postgres.text import is_storable

_AGAIN = 1
"""Where the next slice begins: what is gone is not found again, so the place says nothing."""

_PURGE = """
    UPDATE landline.conversations
    SET purged_ms = $2, operation = $3, user_id = NULL, user_name = NULL, locale = NULL, oldest_ms = NULL
    WHERE number = $1
"""

_CLEAR = """
    WITH slice AS (
        SELECT sequence FROM (
            SELECT sequence, sum(octet_length(body)) OVER (ORDER BY sequence) - octet_length(body) AS before FROM (
                SELECT sequence, body FROM landline.entries WHERE bucket = $1 AND conversation = $2
                ORDER BY sequence LIMIT $3
            ) AS e
        ) AS s WHERE before <= $4
    ), gone AS (
        DELETE FROM landline.entries AS e USING slice
        WHERE e.bucket = $1 AND e.conversation = $2 AND e.sequence = slice.sequence
    )
    SELECT count(*) FROM slice
"""

_EXPIRED = """
    SELECT number, bucket, id, oldest FROM landline.conversations WHERE oldest_ms < $1 AND purged_ms IS NULL
    ORDER BY oldest_ms LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""


class _Purge(Write[bool]):
    """A purge: among the appends, so that one that was called before it is before it."""

    __slots__ = ("used_before_ms",)

    def __init__(self, conversation: ConversationId, used_before_ms: int | None, deadline: float) -> None:
        super().__init__(conversation, deadline)
        self.used_before_ms = used_before_ms

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[_Purge]) -> None:  # type: ignore[override]  # a group is of one class
        for job in group:
            async with connection.transaction():
                await connection.execute("SELECT landline.enter($1)", lane)
                job.outcome = await job._purge(connection, now_ms)

    async def _purge(self, connection: Connection, now_ms: int) -> bool:
        row = await connection.fetchrow(
            """
            SELECT number, greatest(used_ms, last_ms) AS used_ms FROM landline.conversations
            WHERE id = $1 AND purged_ms IS NULL FOR UPDATE
            """,
            self.conversation,
        )
        if row is None:
            return False
        number, used_ms = row
        if self.used_before_ms is not None and used_ms >= self.used_before_ms:
            await connection.execute(
                "UPDATE landline.conversations SET used_ms = $2 WHERE number = $1 AND used_ms < $2", number, used_ms
            )
            return False
        await connection.execute("DELETE FROM landline.members WHERE conversation = $1", number)
        await connection.execute("DELETE FROM landline.failures WHERE conversation = $1", self.conversation)
        await connection.execute(_PURGE, number, now_ms, self.operation)
        return True

    @classmethod
    async def look_for(cls, connection: Connection, group: Sequence[_Purge]) -> None:  # type: ignore[override]  # likewise
        for job in group:
            query = "SELECT 1 FROM landline.conversations WHERE id = $1 AND operation = $2 AND purged_ms IS NOT NULL"
            if await connection.fetchval(query, job.conversation, job.operation):
                job.outcome = True


class Upkeep(Engine, ports.Upkeep):
    """As `landline.ports.Upkeep` says."""

    def _learn(self, job: Write[object]) -> bool:
        if isinstance(job, _Purge) and job.outcome:
            self._tail.forget(job.conversation)
            self._doorbells.ring(job.conversation, FORGET)
        return super()._learn(job)

    def touch(self, conversation: ConversationId, at_ms: int) -> None:
        if self._lane is not None and is_storable(conversation):
            self._notes.used(conversation, at_ms)

    async def idle_conversations(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        return await self._ids(
            """
            SELECT id FROM landline.conversations WHERE purged_ms IS NULL AND used_ms < $1 ORDER BY used_ms LIMIT $2
            """,
            before_ms,
            most,
        )

    async def purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        self._writing()
        if not is_storable(conversation):
            return False
        if used_before_ms is not None and self._notes.use_of(conversation) >= used_before_ms:
            return False
        return await self._put(_Purge(conversation, used_before_ms, self._clock.monotonic() + self._bounds.patience_s))

    async def is_purged(self, conversation: ConversationId) -> bool:
        if not is_storable(conversation):
            return False

        async def read(connection: Connection) -> bool:
            query = "SELECT 1 FROM landline.conversations WHERE id = $1 AND purged_ms IS NOT NULL"
            return await connection.fetchval(query, conversation) is not None

        return await self.read(read)

    async def uncleared(self, most: int) -> Sequence[ConversationId]:
        return await self._ids(
            """
            SELECT id FROM landline.conversations WHERE purged_ms IS NOT NULL AND NOT cleared
            ORDER BY purged_ms LIMIT $1
            """,
            most,
        )

    async def _ids(self, query: str, *arguments: Any) -> Sequence[ConversationId]:
        async def read(connection: Connection) -> Sequence[ConversationId]:
            return [ConversationId(row[0]) for row in await connection.fetch(query, *arguments)]

        return await self.read(read)

    async def clear(self, conversation: ConversationId) -> bool:
        if not is_storable(conversation):
            return False
        return await self.change(lambda connection: self._clear(connection, conversation))

    async def _clear(self, connection: Connection, conversation: ConversationId) -> bool:
        row = await connection.fetchrow(
            """
            SELECT bucket, number FROM landline.conversations WHERE id = $1 AND purged_ms IS NOT NULL FOR NO KEY UPDATE
            """,
            conversation,
        )
        if row is None:
            return False
        bounds = self._bounds
        if await connection.fetchval(_CLEAR, *row, bounds.slice_rows, bounds.slice_bytes):
            return True
        await connection.execute("DELETE FROM landline.sends WHERE bucket = $1 AND conversation = $2", *row)
        await connection.execute("UPDATE landline.conversations SET cleared = true WHERE number = $1", row[1])
        return False

    async def drop_tombstones(self, before_ms: int) -> bool:
        async def bury(connection: Connection) -> bool:
            gone = await connection.fetch(
                """
                DELETE FROM landline.conversations WHERE number IN (
                    SELECT number FROM landline.conversations WHERE purged_ms < $1 AND cleared LIMIT $2
                ) RETURNING number
                """,
                before_ms,
                self._bounds.slice_rows,
            )
            return len(gone) == self._bounds.slice_rows

        return await self.change(bury)

    async def expire(self, before_ms: int, keys_before_ms: int, after: int) -> int | None:
        oldest: dict[ConversationId, int] = {}

        async def expire(connection: Connection) -> int | None:
            oldest.clear()
            rows, size = 0, 0
            while rows < self._bounds.slice_rows and size <= self._bounds.slice_bytes:
                found = await connection.fetchrow(_EXPIRED, before_ms)
                if found is None:
                    return None
                number, bucket, name, first = found
                more, bytes_gone, left = await self._expire(connection, (bucket, number), first, before_ms, rows, size)
                await connection.execute(
                    """
                    DELETE FROM landline.sends
                    WHERE conversation << 28 | sequence >= $1::bigint << 28
                        AND conversation << 28 | sequence < $1::bigint << 28 | $2 AND time_ms < $3
                    """,
                    number,
                    left,
                    keys_before_ms,
                )
                oldest[ConversationId(name)] = left
                rows, size = rows + more, size + bytes_gone
            return _AGAIN

        go_on = await self.change(expire)
        self._expired(oldest)
        return go_on

    async def _expire(
        self, connection: Connection, log: tuple[int, int], oldest: int, before_ms: int, rows: int, size: int
    ) -> tuple[int, int, int]:
        """Remove what is old of one log, as far as the slice goes: how many, their bytes, and the oldest left."""
        found = await connection.fetch(
            """
            SELECT sequence, time_ms, octet_length(body) FROM landline.entries
            WHERE bucket = $1 AND conversation = $2 AND sequence >= $3 ORDER BY sequence LIMIT $4
            """,
            *log,
            oldest,
            self._bounds.slice_rows - rows + 1,
        )
        count, gone = 0, 0
        next_ms: int | None = None
        for sequence, time_ms, length in found:
            full = count == self._bounds.slice_rows - rows or (rows + count and size + gone > self._bounds.slice_bytes)
            if time_ms >= before_ms or full:
                next_ms = time_ms
                break
            oldest, count, gone = sequence + 1, count + 1, gone + length
        await connection.execute(
            "DELETE FROM landline.entries WHERE bucket = $1 AND conversation = $2 AND sequence < $3", *log, oldest
        )
        await connection.execute(
            "UPDATE landline.conversations SET oldest = $2, oldest_ms = $3 WHERE number = $1", log[1], oldest, next_ms
        )
        return count, gone, oldest

    def _expired(self, oldest: Mapping[ConversationId, int]) -> None:
        for conversation, number in oldest.items():
            self._tail.expire(conversation, number)
            self._doorbells.ring(conversation, FORGET)
