"""How long conversations are kept. What removes entries brings the index of places up to date first, and removes them
from both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from landline import ports
from landline.core.log import LAST_SEQUENCE, SEQUENCE_BITS, ConversationId
from landline.stores.sqlite.connections import ERASE, Reader, Row, Writer
from landline.stores.sqlite.engine import Engine
from landline.stores.sqlite.unindexed import Place


class Upkeep(Engine, ports.Upkeep):
    """As `landline.ports.Upkeep` says."""

    def touch(self, conversation: ConversationId, at_ms: int) -> None:
        if self._writes is not None:
            self._notes.used(conversation, at_ms)

    async def idle_conversations(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        query = "SELECT id FROM conversations WHERE purged_ms IS NULL AND used_ms < ? ORDER BY used_ms LIMIT ?"
        return await self._read(lambda reader: reader.ids(query, (before_ms, most)))

    async def purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        if used_before_ms is not None and self._notes.use_of(conversation) >= used_before_ms:
            return False

        def settled(ended: bool) -> None:
            if ended:
                self._tail.forget(conversation)

        return await self._write(lambda writer: _purge(writer, conversation, used_before_ms), settled)

    async def is_purged(self, conversation: ConversationId) -> bool:
        return await self._read(lambda reader: _tombstone(reader, conversation) is not None)

    async def uncleared(self, most: int) -> Sequence[ConversationId]:
        query = "SELECT id FROM conversations WHERE purged_ms IS NOT NULL AND cleared = 0 ORDER BY purged_ms LIMIT ?"
        return await self._read(lambda reader: reader.ids(query, (most,)))

    async def clear(self, conversation: ConversationId) -> bool:
        return await self._write(lambda writer: _clear(writer, conversation))

    async def drop_tombstones(self, before_ms: int) -> bool:
        def bury(writer: Writer) -> bool:
            most = writer.bounds.slice_rows
            writer.connection.execute(
                """
                DELETE FROM conversations WHERE number IN (
                    SELECT number FROM conversations WHERE purged_ms IS NOT NULL AND cleared = 1 AND purged_ms < ?
                    LIMIT ?
                )
                """,
                (before_ms, most),
            )
            return writer.connection.changes() == most

        return await self._write(bury)

    async def expire(self, before_ms: int, keys_before_ms: int, after: int) -> int | None:
        def settled(outcome: tuple[Mapping[ConversationId, int], int | None]) -> None:
            for conversation, oldest in outcome[0].items():
                self._tail.expire(conversation, oldest)

        _, go_on = await self._write(lambda writer: _expire(writer, before_ms, keys_before_ms, after), settled)
        return go_on


def _tombstone(reader: Reader, conversation: ConversationId) -> int | None:
    """The number of a purged conversation."""
    number: int | None = reader.connection.execute(
        "SELECT number FROM conversations WHERE id = ? AND purged_ms IS NOT NULL", (conversation,)
    ).get
    return number


def _purge(writer: Writer, conversation: ConversationId, used_before_ms: int | None) -> bool:
    writer.write_entries()
    stand = writer.stand(conversation)
    if stand is None:
        return False
    if used_before_ms is not None:
        writer.note((), {conversation: stand.last_ms})
        query = "SELECT used_ms FROM conversations WHERE number = ?"
        if writer.connection.execute(query, (stand.number,)).get >= used_before_ms:
            return False
    writer.erasures += 1
    writer.connection.execute("DELETE FROM members WHERE conversation = ?", (stand.number,))
    writer.connection.execute("DELETE FROM failures WHERE conversation = ?", (conversation,))
    writer.connection.execute(
        """
        UPDATE conversations SET purged_ms = ?, user_id = NULL, user_name = NULL, locale = NULL WHERE number = ?
        """,
        (writer.now_ms, stand.number),
    )
    writer.stands.pop(conversation, None)
    return True


def _clear(writer: Writer, conversation: ConversationId) -> bool:
    number = _tombstone(writer, conversation)
    if number is None:
        return False
    writer.index()
    rows = writer.connection.execute(
        """
        SELECT p.place, p.arrival, length(e.body) FROM places AS p CROSS JOIN entries AS e ON e.arrival = p.arrival
        WHERE p.place >= ? AND p.place < ? ORDER BY p.place LIMIT ?
        """,
        (number << SEQUENCE_BITS, (number + 1) << SEQUENCE_BITS, writer.bounds.slice_rows),
    )
    gone, size = [], 0
    for place, arrival, length in rows:
        gone.append((place, arrival))
        size += length
        if size > writer.bounds.slice_bytes:
            break
    if not gone:
        writer.connection.execute("UPDATE conversations SET cleared = 1 WHERE number = ?", (number,))
        return False
    _remove(writer, gone)
    return True


def _expire(
    writer: Writer, before_ms: int, keys_before_ms: int, after: int
) -> tuple[Mapping[ConversationId, int], int | None]:
    """The oldest number left of each conversation that lost something, and where the next slice begins."""
    writer.write_entries()
    writer.index()
    rows = writer.connection.execute(
        """
        SELECT arrival, place, time_ms, send_key IS NOT NULL, length(body) FROM entries
        WHERE arrival > ? ORDER BY arrival LIMIT ?
        """,
        (after, writer.bounds.slice_rows),
    )
    gone: list[tuple[Place, int]] = []
    erased: list[Row] = []
    heads: dict[int, tuple[int, int]] = {}
    size, go_on = 0, None
    for arrival, place, time_ms, keyed, length in rows:
        if time_ms >= before_ms:
            go_on = None
            break
        if keyed and time_ms >= keys_before_ms:
            erased.append((arrival,))
        else:
            gone.append((place, arrival))
        heads[place >> SEQUENCE_BITS] = ((place & LAST_SEQUENCE) + 1, time_ms)
        go_on = arrival
        size += length
        if size > writer.bounds.slice_bytes:
            break
    if heads:
        _remove(writer, gone)
    writer.connection.executemany(f"{ERASE} arrival = ?", erased)
    return dict([_expired(writer, number, *head) for number, head in heads.items()]), go_on


def _expired(writer: Writer, number: int, head: int, last_ms: int) -> tuple[ConversationId, int]:
    """Everything below `head` has gone, at the latest with the time `last_ms`."""
    row = writer.connection.execute(
        """
        UPDATE conversations
        SET oldest = max(oldest, ?1), head = max(head, ?1), last_ms = max(coalesce(last_ms, -1), ?2)
        WHERE number = ?3 RETURNING id, oldest
        """,
        (head, last_ms, number),
    ).fetchone()
    assert row is not None  # a tombstone stays until its entries are gone
    conversation, oldest = row
    if conversation in writer.stands:
        writer.stands[conversation].oldest = oldest
    return conversation, oldest


def _remove(writer: Writer, gone: Iterable[tuple[Place, int]]) -> None:
    """Remove entries that are in the index of places, by place and arrival."""
    writer.erasures += 1
    writer.connection.executemany("DELETE FROM places WHERE place = ?", [(place,) for place, _ in gone])
    writer.connection.executemany("DELETE FROM entries WHERE arrival = ?", [(arrival,) for _, arrival in gone])
