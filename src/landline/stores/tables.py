"""The statements: conversations, entries and members as rows of one SQLite connection. No threads, no transactions.

Whoever holds a `Writer` begins, commits and rolls back; only one may exist. What it remembers of conversations is right
because nobody else writes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import msgspec

from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.failure import FailedDelivery
from landline.core.log import (
    LAST_SEQUENCE,
    SEQUENCE_BITS,
    Audience,
    ConversationId,
    Entry,
    NewEntry,
    Original,
    Page,
)
from landline.errors import ConversationFull, UnknownConversation

_STANDS = 32_768
"""Conversations whose stand the writer remembers; then it forgets all of them, and pays a look-up for each."""

_INSERT_ENTRY = """
    INSERT INTO entries (place, time_ms, audience, original_sequence, original_ms, body) VALUES (?, ?, ?, ?, ?, ?)
"""

# The last entry is one step from the right end of the conversation's range in the index.
_STAND = """
    SELECT c.number, c.head, c.last_ms, e.place, e.time_ms, c.bot_id, c.user_id, c.user_name, c.locale
    FROM conversations AS c LEFT JOIN entries AS e ON e.place = (
        SELECT max(place) FROM entries WHERE place >= c.number << 28 AND place < (c.number + 1) << 28
    )
    WHERE c.id = ?
"""

_ENTRIES = """
    SELECT place, time_ms, audience, original_sequence, original_ms, body
    FROM entries WHERE place >= ? AND place < ? ORDER BY place
"""

Row = tuple[Any, ...]


class Stand:
    """Where a log stands: the conversation's number, the next sequence number, the time of the last entry or -1."""

    __slots__ = ("head", "last_ms", "number")

    def __init__(self, number: int, head: int, last_ms: int) -> None:
        self.number = number
        self.head = head
        self.last_ms = last_ms


class Reader:
    """What can be read over one connection. Raises `apsw.Error` besides what is said."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection

    def recall(self, name: str) -> bytes | None:
        """As `Store.recall`."""
        kept: bytes | None = self.connection.execute("SELECT value FROM kept WHERE name = ?", (name,)).get
        return kept

    def conversation(self, conversation: ConversationId) -> Conversation | None:
        """As `Store.conversation`."""
        row = self.connection.execute(_STAND, (conversation,)).fetchone()
        if row is None:
            return None
        stand = _stand(row)
        bot_id, user_id, user_name, locale = row[5:]
        user = None if user_id is None else Account(user_id, user_name)
        return Conversation(
            conversation, bot_id, user, locale, stand.head, stand.last_ms if stand.last_ms >= 0 else None
        )

    def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """As `Store.accepted_at`."""
        number = self.number(conversation)
        if number is None or not 0 <= sequence <= LAST_SEQUENCE:
            return None
        place = number << SEQUENCE_BITS | sequence
        time_ms: int | None = self.connection.execute("SELECT time_ms FROM entries WHERE place = ?", (place,)).get
        return time_ms

    def read_after(
        self,
        conversation: ConversationId,
        position: int,
        max_activities: int,
        max_bytes: int,
        transient: int,
        *,
        for_stream: bool,
    ) -> tuple[Page, Stand | None]:
        """As `Store.read_after`, and where the log stood then."""
        stand = self.stand(conversation)
        if stand is None or position >= stand.head:
            return Page([], position, None, transient, more=False), stand
        first = stand.number << SEQUENCE_BITS
        rows = self.connection.execute(_ENTRIES, (first + position, first + stand.head))
        records: list[Entry] = []
        behind_ms, size = None, 0
        for place, time_ms, audience, original_sequence, original_ms, body in rows:
            if for_stream or audience != Audience.STREAMS:
                size += len(body)
                if records and (len(records) == max_activities or size > max_bytes):
                    return Page(records, position, behind_ms, transient, more=True), stand
                original = None if original_sequence is None else Original(original_sequence, original_ms)
                records.append(Entry(place - first, time_ms, body, Audience(audience), original))
            position, behind_ms = place - first + 1, time_ms
        return Page(records, position, behind_ms, transient, more=False), stand

    def members(self, conversation: ConversationId) -> Sequence[Member]:
        """As `Store.members`."""
        return self._members(self._known(conversation))

    def started_by(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        """As `Store.started_by`."""
        rows: Iterable[Row] = self.connection.execute(
            "SELECT number, id FROM conversations WHERE bot_id = ? AND number > ? ORDER BY number LIMIT ?",
            (bot_id, after, most),
        )
        return [(number, ConversationId(name)) for number, name in rows]

    def failures(self) -> Sequence[FailedDelivery]:
        """As `Store.failures`."""
        rows = self.connection.execute(
            "SELECT bot_id, conversation, sequence, at_ms, reason, status, attempts FROM failures ORDER BY arrival"
        )
        return [FailedDelivery(*row) for row in rows]

    def number(self, conversation: ConversationId) -> int | None:
        """The number of a conversation, or None where none was started."""
        number: int | None = self.connection.execute(
            "SELECT number FROM conversations WHERE id = ?", (conversation,)
        ).get
        return number

    def stand(self, conversation: ConversationId) -> Stand | None:
        """Where the log of a conversation stands, or None where none was started."""
        row = self.connection.execute(_STAND, (conversation,)).fetchone()
        return None if row is None else _stand(row)

    def roll_back(self) -> None:
        """End a transaction that failed, if that has not ended it."""
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error):  # it is over all the same, and why was said before
                self.connection.execute("ROLLBACK")

    def _known(self, conversation: ConversationId) -> int:
        number = self.number(conversation)
        if number is None:
            raise UnknownConversation
        return number

    def _members(self, number: int) -> Sequence[Member]:
        rows = self.connection.execute(
            "SELECT account_id, name, is_bot, announced FROM members WHERE conversation = ? ORDER BY rank", (number,)
        )
        return [
            Member(Account(account_id, name), is_bot=bool(is_bot), announced=bool(announced))
            for account_id, name, is_bot, announced in rows
        ]


class Writer(Reader):
    """What can be written, between `begin` and `commit` or `roll_back`."""

    def __init__(self, connection: apsw.Connection) -> None:
        super().__init__(connection)
        self._stands: dict[ConversationId, Stand] = {}
        self._entries: list[Row] = []
        self._now_ms = 0

    def begin(self, now_ms: int) -> None:
        """Begin a transaction at this time."""
        self._now_ms = now_ms
        self.connection.execute("BEGIN IMMEDIATE")

    def write(self) -> None:
        """Write what was appended. Still part of the transaction."""
        if self._entries:
            self.connection.executemany(_INSERT_ENTRY, self._entries)
            self._entries.clear()

    def commit(self) -> None:
        """Make everything since `begin` durable; after `write`."""
        self.connection.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo everything since `begin`."""
        self._entries.clear()
        self._stands.clear()
        super().roll_back()

    def append(self, conversation: ConversationId, entry: NewEntry) -> Entry:
        """As `Store.append`; written with `write`."""
        stand = self._stands.get(conversation) or self._look_up(conversation)
        sequence, time_ms = stand.head, self._now_ms
        if sequence >= LAST_SEQUENCE:
            raise ConversationFull
        if time_ms <= stand.last_ms:
            time_ms = stand.last_ms + 1
        stand.head = sequence + 1
        stand.last_ms = time_ms
        place, original = stand.number << SEQUENCE_BITS | sequence, entry.original
        if original is None:
            self._entries.append((place, time_ms, entry.audience, None, None, entry.body))
        else:
            self._entries.append((place, time_ms, entry.audience, original.sequence, original.time_ms, entry.body))
        return Entry(sequence, time_ms, entry.body, entry.audience, original)

    def start(self, new: NewConversation) -> bool:
        """As `Store.start`."""
        user = new.user
        number = self.connection.execute(
            """
            INSERT INTO conversations (id, bot_id, user_id, user_name, locale) VALUES (?, ?, ?, ?, ?)
            ON CONFLICT (id) DO NOTHING RETURNING number
            """,
            (new.id, new.bot_id, user.id if user else None, user.name if user else None, new.locale),
        ).get
        if number is None:
            return False
        self._add_member(number, Account(new.bot_id), is_bot=True)
        if user is not None:
            self._add_member(number, user, is_bot=False)
        return True

    def join(self, conversation: ConversationId, account: Account) -> Sequence[Member]:
        """As `Store.join`."""
        number = self._known(conversation)
        self._add_member(number, account, is_bot=False)
        return self._members(number)

    def announced(self, conversation: ConversationId, account_ids: Iterable[str]) -> None:
        """As `Store.announced`."""
        number = self._known(conversation)
        self.connection.executemany(
            "UPDATE members SET announced = 1 WHERE conversation = ? AND account_id = ? AND NOT announced",
            [(number, account_id) for account_id in account_ids],
        )

    def leave(self, conversation: ConversationId, account_id: str) -> None:
        """As `Store.leave`."""
        self.connection.execute(
            "DELETE FROM members WHERE conversation = ? AND account_id = ? AND NOT is_bot",
            (self._known(conversation), account_id),
        )

    def record_failure(self, failure: FailedDelivery, most: int) -> None:
        """As `Store.record_failure`."""
        earlier = self.connection.execute(
            "DELETE FROM failures WHERE conversation = ? AND sequence = ? RETURNING attempts",
            (failure.conversation, failure.sequence),
        ).get
        row = *msgspec.structs.astuple(failure)[:-1], failure.attempts + (earlier or 0)
        self.connection.execute(
            """
            INSERT INTO failures (bot_id, conversation, sequence, at_ms, reason, status, attempts)
            VALUES (?, ?, ?, ?, ?, ?, ?)
            """,
            row,
        )
        self.connection.execute(
            """
            DELETE FROM failures
            WHERE arrival <= (SELECT arrival FROM failures ORDER BY arrival DESC LIMIT 1 OFFSET ?)
            """,
            (most,),
        )

    def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        """As `Store.settle_failure`."""
        self.connection.execute(
            "DELETE FROM failures WHERE conversation = ? AND sequence = ?", (conversation, sequence)
        )

    def remember(self, name: str, value: bytes) -> bytes:
        """As `Store.remember`."""
        self.connection.execute(
            "INSERT INTO kept (name, value) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", (name, value)
        )
        kept = self.recall(name)
        assert kept is not None
        return kept

    def _add_member(self, number: int, account: Account, *, is_bot: bool) -> None:
        self.connection.execute(
            """
            INSERT INTO members (conversation, account_id, name, is_bot, rank)
            VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(rank), 0) + 1 FROM members WHERE conversation = ?1))
            ON CONFLICT (conversation, account_id) DO NOTHING
            """,
            (number, account.id, account.name, is_bot),
        )

    def _look_up(self, conversation: ConversationId) -> Stand:
        stand = self.stand(conversation)
        if stand is None:
            raise UnknownConversation
        if len(self._stands) >= _STANDS:
            self.write()  # or a stand that is looked up again would not count what is not written yet
            self._stands.clear()
        self._stands[conversation] = stand
        return stand


def _stand(row: Row) -> Stand:
    number, head, last_ms, place, time_ms = row[:5]
    stand = Stand(number, head, -1 if last_ms is None else last_ms)
    if place is not None:
        stand.head = max(head, (place & LAST_SEQUENCE) + 1)
        stand.last_ms = max(stand.last_ms, time_ms)
    return stand
