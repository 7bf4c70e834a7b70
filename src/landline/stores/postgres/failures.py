"""Deliveries that failed. The order of their rows is the order in which they were recorded."""

from __future__ import annotations

from collections.abc import Sequence

from landline import ports
from landline.core.failure import FailedDelivery
from landline.core.log import ConversationId
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.engine import Engine

_RECORD = """
    INSERT INTO landline.failures AS f (bot_id, conversation, sequence, at_ms, reason, status, attempts)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (conversation, sequence) DO UPDATE
    SET arrival = DEFAULT, bot_id = excluded.bot_id, at_ms = excluded.at_ms, reason = excluded.reason,
        status = excluded.status, attempts = f.attempts + excluded.attempts
"""

_KEEP_NEWEST = """
    DELETE FROM landline.failures
    WHERE arrival <= (SELECT arrival FROM landline.failures ORDER BY arrival DESC LIMIT 1 OFFSET $1)
"""


class Failures(Engine, ports.Failures):
    """As `landline.ports.Failures` says."""

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        async def record(connection: Connection) -> None:
            await connection.execute(
                _RECORD,
                failure.bot_id,
                failure.conversation,
                failure.sequence,
                failure.at_ms,
                failure.reason.replace("\0", ""),
                failure.status,
                failure.attempts,
            )
            await connection.execute(_KEEP_NEWEST, most)

        await self.change(record)

    async def failures(self) -> Sequence[FailedDelivery]:
        async def read(connection: Connection) -> Sequence[FailedDelivery]:
            rows = await connection.fetch(
                """
                SELECT bot_id, conversation, sequence, at_ms, reason, status, attempts FROM landline.failures
                ORDER BY arrival
                """
            )
            return [FailedDelivery(*row) for row in rows]

        return await self.read(read)

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        async def settle(connection: Connection) -> None:
            await connection.execute(
                "DELETE FROM landline.failures WHERE conversation = $1 AND sequence = $2", conversation, sequence
            )

        await self.change(settle)
