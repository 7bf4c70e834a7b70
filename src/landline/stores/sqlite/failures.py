"""Deliveries that failed. The order of their rows is the order in which they were recorded."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from landline import ports
from landline.core.failure import FailedDelivery
from landline.core.log import ConversationId
from landline.stores.sqlite.connections import Reader, Writer
from landline.stores.sqlite.engine import Engine


class Failures(Engine, ports.Failures):
    """As `landline.ports.Failures` says."""

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        await self._write(lambda writer: _record(writer, failure, most))

    async def failures(self) -> Sequence[FailedDelivery]:
        def read(reader: Reader) -> Sequence[FailedDelivery]:
            rows = reader.connection.execute(
                "SELECT bot_id, conversation, sequence, at_ms, reason, status, attempts FROM failures ORDER BY arrival"
            )
            return [FailedDelivery(*row) for row in rows]

        return await self._read(read)

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        def settle(writer: Writer) -> None:
            writer.connection.execute(
                "DELETE FROM failures WHERE conversation = ? AND sequence = ?", (conversation, sequence)
            )

        await self._write(settle)


def _record(writer: Writer, failure: FailedDelivery, most: int) -> None:
    earlier = writer.connection.execute(
        "DELETE FROM failures WHERE conversation = ? AND sequence = ? RETURNING attempts",
        (failure.conversation, failure.sequence),
    ).get
    row = *msgspec.structs.astuple(failure)[:-1], failure.attempts + (earlier or 0)
    writer.connection.execute(
        """
        INSERT INTO failures (bot_id, conversation, sequence, at_ms, reason, status, attempts)
        VALUES (?, ?, ?, ?, ?, ?, ?)
        """,
        row,
    )
    writer.connection.execute(
        """
        DELETE FROM failures
        WHERE arrival <= (SELECT arrival FROM failures ORDER BY arrival DESC LIMIT 1 OFFSET ?)
        """,
        (most,),
    )
