"""What this node knows at once, from its memory: the tail of live conversations.

The tail is a copy that may be behind, because other nodes write too. It learns of that from doorbells, or else from the
sweep; until then `recent` shows what was there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from landline import ports
from landline.core.conversation import Conversation
from landline.core.log import ConversationId, Page
from landline.errors import StoreUnavailable
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.doorbells import FORGET, RECORDS, Rung
from landline.stores.postgres.engine import Engine
from landline.stores.postgres.rows import COLUMNS, entry_of

_AT_ONCE = 256
"""Conversations that are caught up with in one statement."""

_AHEAD = 64
"""A conversation that moved further than this is not caught up with: its streams read the log."""

_SLICE = 1024
"""Live conversations that are looked at in one statement."""

_CATCH_UP = f"""
    SELECT u.id, {COLUMNS} FROM unnest($1::text[], $2::integer[]) AS u (id, head)
    JOIN landline.conversations AS c ON c.id = u.id AND c.purged_ms IS NULL
    CROSS JOIN LATERAL (
        SELECT * FROM landline.entries AS x
        WHERE x.bucket = c.bucket AND x.conversation = c.number AND x.sequence >= u.head
        ORDER BY x.sequence LIMIT {_AHEAD}
    ) AS e ORDER BY u.id, e.sequence
"""  # noqa: S608  # constants of ours

_STANDS = """
    SELECT id, head, oldest FROM landline.conversations WHERE id = ANY ($1::text[]) AND purged_ms IS NULL
"""

_log = structlog.get_logger(__name__)


class Live(Engine, ports.Live):
    """As `landline.ports.Live` says. No conversation and no time is known once the store is closed."""

    def cached_conversation(self, conversation: ConversationId) -> Conversation | None:
        return self._tail.conversation(conversation) if self._lane is not None else None

    def cached_time(self, conversation: ConversationId, sequence: int) -> int | None:
        return self._tail.accepted_at(conversation, sequence) if self._lane is not None else None

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        self._watch(conversation)
        return self._tail.recent(conversation, position, transient, max_bytes)

    def transient_counter(self) -> int:
        return self._tail.transients

    def send_transient(self, conversation: ConversationId, activity: bytes) -> None:
        if self._lane is not None:
            self._show(conversation, activity)
            self._doorbells.pass_on(conversation, activity)

    def _show(self, conversation: ConversationId, activity: bytes) -> None:
        if self._tail.pass_by(conversation, activity):
            self._moved(conversation)

    # What other nodes did.

    def _watch(self, conversation: ConversationId) -> None:
        """A stream looks at it: the sweep does, too."""
        self._watched[conversation] = self._clock.monotonic()

    def _heard(self, rung: Sequence[Rung]) -> None:
        for conversation, head in rung:
            if conversation == RECORDS:
                self._records_rung()
            elif head == FORGET:
                self._forget(conversation)
            else:
                self._is_at(conversation, head)

    def _records_rung(self) -> None:
        """Another node changed a record."""
        self._records_changed()

    def _forget(self, conversation: ConversationId) -> None:
        self._tail.forget(conversation)
        self._moved(conversation)

    def _is_at(self, conversation: ConversationId, head: int) -> bool:
        """The log stands at `head`; whether that is news."""
        known = self._tail.head(conversation)
        if known is not None and head <= known:
            return False
        if known is None:
            self._moved(conversation)  # a stream may read the log all the same
        elif head - known > _AHEAD:
            self._forget(conversation)
        else:
            self._behind[conversation] = head
            if self._catching_up is None:
                self._catching_up = asyncio.get_running_loop().create_task(self._catch_up())
        return True

    async def _catch_up(self) -> None:
        """Read what other nodes appended. What comes in meanwhile is one read."""
        try:
            while self._behind:
                behind = {name: self._behind[name] for name in list(self._behind)[:_AT_ONCE]}
                for name in behind:
                    del self._behind[name]
                await self._read_on(list(behind))
        except StoreUnavailable as error:
            _log.debug("what other nodes appended could not be read", error=repr(error))
            for name in [*behind, *self._behind]:
                self._forget(name)  # the streams try for themselves
            self._behind.clear()
        finally:
            self._catching_up = None

    async def _read_on(self, conversations: Sequence[ConversationId]) -> None:
        heads = {name: head for name in conversations if (head := self._tail.head(name)) is not None}
        forgotten = self._tail.forgotten

        async def read(connection: Connection) -> Sequence[Sequence[object]]:
            found: Sequence[Sequence[object]] = await connection.fetch(_CATCH_UP, list(heads), list(heads.values()))
            return found

        for row in await self.read(read):
            name = ConversationId(str(row[0]))
            # What was forgotten meanwhile may be gone for good, and is not to come back.
            if forgotten == self._tail.forgotten or self._tail.head(name) is not None:
                self._tail.append(name, entry_of(row[1:]))
        for name in conversations:
            self._moved(name)

    async def _look(self) -> None:
        since = self._clock.monotonic() - self._bounds.live_s
        for name in [name for name, at in self._watched.items() if at < since]:
            del self._watched[name]
        live = list(self._watched)
        for first in range(0, len(live), _SLICE):
            await self._look_at(live[first : first + _SLICE])

    async def _look_at(self, conversations: Sequence[ConversationId]) -> None:
        async def read(connection: Connection) -> Sequence[tuple[str, int, int]]:
            found: Sequence[tuple[str, int, int]] = await connection.fetch(_STANDS, conversations)
            return found

        gone = set(conversations)
        for name, head, oldest in await self.read(read):
            conversation = ConversationId(name)
            gone.discard(conversation)
            if oldest > (self._tail.oldest(conversation) or 0):
                self._tail.expire(conversation, oldest)
            if self._is_at(conversation, head):
                self.found_late += 1
        for conversation in gone:
            if self._tail.head(conversation) is not None or conversation in self._watched:
                self._watched.pop(conversation, None)
                self._forget(conversation)
