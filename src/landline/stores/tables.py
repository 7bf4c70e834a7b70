"""The statements: conversations, entries and members as rows of one SQLite connection. No threads, no transactions.

Whoever holds a `Writer` begins, commits and rolls back; only one may exist. What it remembers of conversations is right
because nobody else writes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import apsw
import msgspec

from landline.core.conversation import Account, Conversation, Member, NewConversation, as_member
from landline.core.failure import FailedDelivery
from landline.core.log import (
    LAST_SEQUENCE,
    SEQUENCE_BITS,
    Accepted,
    Audience,
    ConversationId,
    Entry,
    Newcomer,
    NewEntry,
    Original,
    Page,
    SendKey,
)
from landline.errors import Conflict, ConversationFull, TooManyMembers, UnknownActivity, UnknownConversation
from landline.stores.recent import Place, Recent

_STANDS = 32_768
"""Conversations whose stand the writer remembers; then it forgets all of them, and pays a look-up for each."""

SLICE = 256
SLICE_BYTES = 1 << 20
"""What is removed at a time: a few milliseconds, so that no append waits long behind it. At least one row."""

_INDEX_AFTER = 512
"""So many entries are put into the index of places at once. More would save little; fewer hold up the group less."""

_LAST = 16
"""What is read along with a conversation: whoever asks for it first is nearly always a client that comes back."""

_AHEAD = 64
_AHEAD_BYTES = 32 << 10
"""What is read along with an entry: as much as a stream holds at a time. Who missed more reads page by page anyway."""

_INSERT_PLAIN = "INSERT INTO entries (arrival, place, time_ms, audience, body) VALUES (?, ?, ?, ?, ?)"

_INSERT = """
    INSERT INTO entries (arrival, place, time_ms, audience, original_place, original_ms, send_key, send_digest, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_ERASE = f"UPDATE entries SET body = x'', audience = {Audience.NOBODY:d} WHERE"  # noqa: S608  # an integer of ours

# The last entry is one step from the right end of the conversation's range in the index.
_STAND = """
    SELECT c.number, c.head, c.last_ms, e.place, e.time_ms, c.oldest, c.bot_id, c.user_id, c.user_name, c.locale
    FROM conversations AS c LEFT JOIN entries AS e ON e.arrival = (
        SELECT arrival FROM places WHERE place >= c.number << 28 AND place < (c.number + 1) << 28
        ORDER BY place DESC LIMIT 1
    )
    WHERE c.id = ? AND c.purged_ms IS NULL
"""

_COLUMNS = "SELECT e.place, e.time_ms, e.audience, e.original_place, e.original_ms, e.body"

_INDEXED = f"""
    {_COLUMNS} FROM places AS p CROSS JOIN entries AS e ON e.arrival = p.arrival
    WHERE p.place >= ? AND p.place < ? ORDER BY p.place
"""

_ENTRY = f"{_COLUMNS} FROM entries AS e WHERE e.arrival = ?"

_LATEST_VERSION = f"""
    {_COLUMNS} FROM entries AS e WHERE e.original_place = ? AND e.place >= ? ORDER BY e.arrival DESC LIMIT 1
"""

Row = tuple[Any, ...]


class Stand:
    """Where a log stands: the conversation's number, the next sequence number, the time of the last entry or -1, and
    the first number that retention has left."""

    __slots__ = ("head", "last_ms", "number", "oldest")

    def __init__(self, number: int, head: int, last_ms: int, oldest: int) -> None:
        self.number = number
        self.head = head
        self.last_ms = last_ms
        self.oldest = oldest


class Reader:
    """What can be read over one connection, between `begin_reading` and `end_reading`. Raises `apsw.Error` besides what
    is said."""

    def __init__(self, connection: apsw.Connection, recent: Recent) -> None:
        self.connection = connection
        self._recent = recent
        self._arrivals: Mapping[Place, int] = {}
        """What may be missing in the index of places."""
        self._last = 0
        """What arrived later is not part of the snapshot."""

    def begin_reading(self) -> None:
        """Begin a snapshot: what is read shows one moment."""
        self._arrivals = self._recent.arrivals or {}
        self.connection.execute("BEGIN")
        if self._arrivals:
            self._last = self.connection.execute("SELECT max(arrival) FROM entries").get or 0

    def end_reading(self) -> None:
        """End the snapshot."""
        self.connection.execute("COMMIT")

    def recall(self, name: str) -> bytes | None:
        """As `Store.recall`."""
        kept: bytes | None = self.connection.execute("SELECT value FROM kept WHERE name = ?", (name,)).get
        return kept

    def kept(self, prefix: str) -> dict[str, bytes]:
        """As `Store.kept`."""
        rows = self.connection.execute(
            "SELECT name, value FROM kept WHERE name >= ?1 AND substr(name, 1, length(?1)) = ?1", (prefix,)
        )
        return {str(name): bytes(value) for name, value in rows.fetchall()}  # type: ignore[arg-type]  # both by schema

    def conversation(self, conversation: ConversationId) -> tuple[Conversation, Sequence[Entry]] | None:
        """As `Store.conversation`, and the last of what was said in it."""
        row = self.connection.execute(_STAND, (conversation,)).fetchone()
        if row is None:
            return None
        stand = self._stand(row)
        bot_id, user_id, user_name, locale = row[6:]
        bot_id = sys.intern(bot_id)  # one for all conversations of a bot that are in memory
        user = None if user_id is None else Account(user_id, user_name)
        last_ms = stand.last_ms if stand.last_ms >= 0 else None
        found = Conversation(conversation, bot_id, user, locale, stand.head, last_ms, stand.oldest)
        return found, self._up_to_head(stand, max(stand.oldest, stand.head - _LAST))

    def read_on(self, conversation: ConversationId, sequence: int) -> tuple[Sequence[Entry], Stand | None]:
        """The entry with this number and what follows it up to the head, if that is little; else that entry alone, or
        nothing where there is none. And where the log stood then."""
        stand = self.stand(conversation)
        if stand is None or not stand.oldest <= sequence < stand.head:
            return (), stand
        entries = self._up_to_head(stand, sequence) if stand.head - sequence <= _AHEAD else ()
        if not entries:
            place = stand.number << SEQUENCE_BITS | sequence
            entries = [_entry(row) for row in self._rows(place, place + 1)]
        return entries, stand

    def before_gap_ms(self, conversation: ConversationId, sequence: int) -> int | None:
        """When the last entry before the gap was accepted that a declared restore left up to this number, or None where
        there is no such gap: the row has it, as for a log that lost its last entries (8.1.6)."""
        last_ms: int | None = self.connection.execute(
            "SELECT last_ms FROM conversations WHERE id = ? AND head = ? AND oldest <= ? AND purged_ms IS NULL",
            (conversation, sequence + 1, sequence),
        ).get
        return last_ms

    def _up_to_head(self, stand: Stand, sequence: int) -> Sequence[Entry]:
        """The entries from this number on; none where they are large."""
        first = stand.number << SEQUENCE_BITS
        entries, size = [], 0
        for row in self._rows(first + sequence, first + stand.head):
            entries.append(_entry(row))
            size += len(row[5])
            if size > _AHEAD_BYTES:
                return ()
        return entries

    def _recent_time_ms(self, place: Place) -> int | None:
        """When a recent entry was accepted, or None where there is none."""
        arrival = self._recent_arrival(place)
        if arrival is None:
            return None
        time_ms: int | None = self.connection.execute("SELECT time_ms FROM entries WHERE arrival = ?", (arrival,)).get
        return time_ms

    def _recent_arrival(self, place: Place) -> int | None:
        """Under which number an entry arrived that may be missing in the index, or None where there is none."""
        arrival = self._arrivals.get(place)
        return arrival if arrival is not None and arrival <= self._last else None

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
        rows = self._rows(first + max(position, stand.oldest), first + stand.head)
        records: list[Entry] = []
        behind_ms, size = None, 0
        for row in rows:
            place, time_ms, audience, _, _, body = row
            if audience == Audience.EVERYONE or (for_stream and audience == Audience.STREAMS):
                size += len(body)
                if records and (len(records) == max_activities or size > max_bytes):
                    return Page(records, position, behind_ms, transient, more=True), stand
                records.append(_entry(row))
            position, behind_ms = place - first + 1, time_ms
        if position < stand.oldest:
            # Everything has expired, so the head comes next; the row knows what its watermark is made of.
            position, behind_ms = stand.head, stand.last_ms
        return Page(records, position, behind_ms, transient, more=False), stand

    def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        """As `Store.entry`."""
        stand = self.stand(conversation)
        if stand is None or not 0 <= sequence < stand.head:
            return None
        if sequence < stand.oldest:
            return self._latest_version(stand, sequence)
        place = stand.number << SEQUENCE_BITS | sequence
        row = next(self._rows(place, place + 1), None)
        return None if row is None else _entry(row)

    def _latest_version(self, stand: Stand, sequence: int) -> Entry | None:
        """What is left of an activity that has expired."""
        first = stand.number << SEQUENCE_BITS
        row = self.connection.execute(_LATEST_VERSION, (first | sequence, first | stand.oldest)).fetchone()
        return None if row is None else _entry(row)

    def _rows(self, place: Place, end: Place) -> Iterator[Row]:
        """The entries from `place` on, as far as before `end`: those in the index first, then recent ones."""
        for row in self.connection.execute(_INDEXED, (place, end)):
            yield row
            place = row[0] + 1
        recent = end
        while recent > place and self._recent_arrival(recent - 1) is not None:
            recent -= 1
        for missing in range(recent, end):
            yield from self.connection.execute(_ENTRY, (self._recent_arrival(missing),))

    def members(self, conversation: ConversationId) -> Sequence[Member]:
        """As `Store.members`."""
        return self._members(self._known(conversation))

    def started_by(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        """As `Store.started_by`."""
        rows: Iterable[Row] = self.connection.execute(
            """
            SELECT number, id FROM conversations WHERE bot_id = ? AND number > ? AND purged_ms IS NULL
            ORDER BY number LIMIT ?
            """,
            (bot_id, after, most),
        )
        return [(number, ConversationId(name)) for number, name in rows]

    def failures(self) -> Sequence[FailedDelivery]:
        """As `Store.failures`."""
        rows = self.connection.execute(
            "SELECT bot_id, conversation, sequence, at_ms, reason, status, attempts FROM failures ORDER BY arrival"
        )
        return [FailedDelivery(*row) for row in rows]

    def idle(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        """As `Store.idle`."""
        return self._ids(
            "SELECT id FROM conversations WHERE purged_ms IS NULL AND used_ms < ? ORDER BY used_ms LIMIT ?",
            (before_ms, most),
        )

    def of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        """As `Store.of_member`."""
        return self._ids(
            """
            SELECT c.id FROM members AS m JOIN conversations AS c ON c.number = m.conversation
            WHERE m.account_id = ? AND NOT m.is_bot LIMIT ?
            """,
            (account_id, most),
        )

    def is_purged(self, conversation: ConversationId) -> bool:
        """As `Store.is_purged`."""
        return self._tombstone(conversation) is not None

    def purged(self, most: int) -> Sequence[ConversationId]:
        """As `Store.purged`."""
        return self._ids(
            "SELECT id FROM conversations WHERE purged_ms IS NOT NULL AND cleared = 0 ORDER BY purged_ms LIMIT ?",
            (most,),
        )

    def _ids(self, query: str, bindings: Row) -> Sequence[ConversationId]:
        return [ConversationId(row[0]) for row in self.connection.execute(query, bindings)]

    def _tombstone(self, conversation: ConversationId) -> int | None:
        number: int | None = self.connection.execute(
            "SELECT number FROM conversations WHERE id = ? AND purged_ms IS NOT NULL", (conversation,)
        ).get
        return number

    def number(self, conversation: ConversationId) -> int | None:
        """The number of a conversation, or None where none was started."""
        number: int | None = self.connection.execute(
            "SELECT number FROM conversations WHERE id = ? AND purged_ms IS NULL", (conversation,)
        ).get
        return number

    def stand(self, conversation: ConversationId) -> Stand | None:
        """Where the log of a conversation stands, or None where none was started."""
        row = self.connection.execute(_STAND, (conversation,)).fetchone()
        return None if row is None else self._stand(row)

    def _stand(self, row: Row) -> Stand:
        """Of a row of `_STAND`, and of what is recent."""
        number, head, last_ms, place, time_ms, oldest = row[:6]
        stand = Stand(number, head, -1 if last_ms is None else last_ms, oldest)
        if place is not None:
            stand.head = max(head, (place & LAST_SEQUENCE) + 1)
            stand.last_ms = max(stand.last_ms, time_ms)
        indexed, first = stand.head, number << SEQUENCE_BITS
        while self._recent_arrival(first + stand.head) is not None:
            stand.head += 1
        if stand.head > indexed:
            stand.last_ms = self._recent_time_ms(first + stand.head - 1) or stand.last_ms
        return stand

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
            """
            SELECT account_id, name, is_bot, announced FROM members WHERE conversation = ? AND NOT has_left
            ORDER BY rank
            """,
            (number,),
        )
        return [
            Member(Account(account_id, name), is_bot=bool(is_bot), announced=bool(announced))
            for account_id, name, is_bot, announced in rows
        ]


class Writer(Reader):
    """What can be written, between `begin` and `commit` or `roll_back`."""

    def __init__(self, connection: apsw.Connection, recent: Recent) -> None:
        super().__init__(connection, recent)
        self._last = sys.maxsize
        self._arrived: int = connection.execute("SELECT max(arrival) FROM entries").get or 0
        self._stands: dict[ConversationId, Stand] = {}
        self._entries: list[Row] = []
        self._now_ms = 0
        self.erasures = 0
        """Counts what was erased or replaced: so often the write-ahead log may have got what is not to be found."""

    def begin(self, now_ms: int) -> None:
        """Begin a transaction at this time."""
        self._now_ms = now_ms
        self._arrivals = self._recent.arrivals
        self.connection.execute("BEGIN IMMEDIATE")

    def write(self) -> None:
        """Write what was appended; all of it into the index, too, if that is due. Still part of the transaction."""
        self._write_entries()
        if len(self._arrivals) >= _INDEX_AFTER:
            self.index()

    def _write_entries(self) -> None:
        if self._entries:
            self.connection.executemany(_INSERT_PLAIN, self._entries)
            self._entries.clear()

    def index(self) -> None:
        """Put everything that is recent into the index of places."""
        self.connection.executemany("INSERT INTO places (place, arrival) VALUES (?, ?)", self._recent.to_index())

    def commit(self) -> None:
        """Make everything since `begin` durable; after `write`."""
        self.connection.execute("COMMIT")
        self._recent.committed()

    def roll_back(self) -> None:
        """Undo everything since `begin`."""
        self._entries.clear()
        self._stands.clear()
        self._recent.rolled_back()
        super().roll_back()

    def rewrite(self) -> None:
        """Write what is there already."""
        self.connection.pragma("user_version", self.connection.pragma("user_version"))

    def append(self, conversation: ConversationId, new: NewEntry) -> Entry | Accepted:
        """As `Store.append`, the entry; written with `write`. Of a repeat, what was assigned the first time."""
        stand = self._stands.get(conversation) or self._look_up(conversation)
        if new.key is not None or new.original is not None:
            return self._append_with_care(stand, new)
        if new.newcomer is not None:
            self._check_place(stand, new.newcomer)
        sequence, time_ms = self._next(stand)
        place = stand.number << SEQUENCE_BITS | sequence
        self._entries.append((self._arrive(place), place, time_ms, new.audience, new.body))
        return Entry(sequence, time_ms, new.body, new.audience)

    def _arrive(self, place: Place) -> int:
        """Assign the number under which an entry arrives. None is assigned twice, not even after `roll_back`: readers
        tell by it what their snapshot has."""
        self._arrived += 1
        self._recent.add(place, self._arrived)
        return self._arrived

    def _next(self, stand: Stand) -> tuple[int, int]:
        """Assign a number and a time."""
        sequence, time_ms = stand.head, self._now_ms
        if sequence >= LAST_SEQUENCE:
            raise ConversationFull
        if time_ms <= stand.last_ms:
            time_ms = stand.last_ms + 1
        stand.head = sequence + 1
        stand.last_ms = time_ms
        return sequence, time_ms

    def _append_with_care(self, stand: Stand, new: NewEntry) -> Entry | Accepted:
        """An append that depends on what is there: a key may be known, and an original has to be."""
        self._write_entries()  # what is there includes the group so far
        if new.key is not None and (earlier := self._earlier(stand.number, new.key)) is not None:
            return earlier
        if new.original is not None and self._is_deleted(stand, new.original.sequence):
            raise UnknownActivity
        if new.newcomer is not None:
            self._check_place(stand, new.newcomer)
        sequence, time_ms = self._next(stand)
        if new.key is not None:
            # A send that was too old gives its key away.
            name = _key(stand.number, new.key)
            self.connection.execute("UPDATE entries SET send_key = NULL WHERE send_key = ?", (name,))
        return self._insert(stand, Entry(sequence, time_ms, new.body, new.audience, new.original), new.key)

    def _check_place(self, stand: Stand, newcomer: Newcomer) -> None:
        """Whoever speaks joins: where there is no place, nothing is said."""
        members, among_them = self.connection.execute(
            "SELECT count(*), coalesce(sum(account_id = ?2), 0) FROM members WHERE conversation = ?1 AND NOT has_left",
            (stand.number, newcomer.account_id),
        ).get
        if members >= newcomer.most_members and not among_them:
            raise TooManyMembers

    def _insert(self, stand: Stand, entry: Entry, key: SendKey | None = None) -> Entry:
        first, original = stand.number << SEQUENCE_BITS, entry.original
        self.connection.execute(
            _INSERT,
            (
                self._arrive(first | entry.sequence),
                first | entry.sequence,
                entry.time_ms,
                entry.audience,
                None if original is None else first | original.sequence,
                None if original is None else original.time_ms,
                None if key is None else _key(stand.number, key),
                None if key is None else key.digest,
                entry.body,
            ),
        )
        return entry

    def _earlier(self, number: int, key: SendKey) -> Accepted | None:
        """What the first send with this key was assigned, unless it is too old."""
        row = self.connection.execute(
            "SELECT place, time_ms, send_digest, taken FROM entries WHERE send_key = ? AND time_ms >= ?",
            (_key(number, key), key.since_ms),
        ).fetchone()
        if row is None:
            return None
        place, time_ms, digest, taken = row
        if digest != key.digest:
            raise Conflict
        return Accepted(place & LAST_SEQUENCE, time_ms, repeated=True, taken=bool(taken))

    def _is_deleted(self, stand: Stand, sequence: int) -> bool:
        """Whether the activity with this number was deleted. Raises `UnknownActivity` if there is none."""
        if 0 <= sequence < stand.oldest:
            version = self._latest_version(stand, sequence)
            if version is None:
                raise UnknownActivity
            return version.is_deleted
        arrival = self._arrival(stand.number << SEQUENCE_BITS | sequence)
        row = self.connection.execute(
            "SELECT audience, original_place FROM entries WHERE arrival = ?", (arrival,)
        ).fetchone()
        if row is None or row[1] is not None:
            raise UnknownActivity
        return bool(row[0] == Audience.NOBODY)

    def _arrival(self, place: Place) -> int | None:
        """Under which number the entry at `place` arrived, or None where there is none."""
        arrival = self._recent_arrival(place)
        if arrival is None:
            arrival = self.connection.execute("SELECT arrival FROM places WHERE place = ?", (place,)).get
        return arrival

    def delete(self, conversation: ConversationId, sequence: int, notice: NewEntry) -> Entry | None:
        """As `Store.delete`, the entry that says so."""
        stand = self._stands.get(conversation) or self._look_up(conversation)
        self._write_entries()
        if self._is_deleted(stand, sequence):
            return None
        number, time_ms = self._next(stand)
        place = stand.number << SEQUENCE_BITS | sequence
        self.erasures += 1
        self.connection.execute(f"{_ERASE} arrival = ?", (self._arrival(place),))
        self.connection.execute(f"{_ERASE} original_place = ?", (place,))
        # It shows the id of what is gone, and its own time.
        return self._insert(stand, Entry(number, time_ms, notice.body, notice.audience, Original(sequence, time_ms)))

    def note(self, taken: Iterable[tuple[ConversationId, int]], used: Mapping[ConversationId, int]) -> None:
        """As `Store.taken` and `Store.used`, many at a time."""
        self._write_entries()
        numbers = ((self.number(conversation), sequence) for conversation, sequence in taken)
        places = [number << SEQUENCE_BITS | sequence for number, sequence in numbers if number is not None]
        self.connection.executemany(
            "UPDATE entries SET taken = 1 WHERE arrival = ?",
            [(self._arrival(place),) for place in places],
        )
        self.connection.executemany(
            "UPDATE conversations SET used_ms = max(used_ms, ?) WHERE id = ?",
            [(used_ms, conversation) for conversation, used_ms in used.items()],
        )

    def purge(self, conversation: ConversationId, used_before_ms: int | None) -> bool:
        """As `Store.purge`."""
        self._write_entries()
        stand = self.stand(conversation)
        if stand is None:
            return False
        if used_before_ms is not None:
            self.note((), {conversation: stand.last_ms})
            query = "SELECT used_ms FROM conversations WHERE number = ?"
            if self.connection.execute(query, (stand.number,)).get >= used_before_ms:
                return False
        self.erasures += 1
        self.connection.execute("DELETE FROM members WHERE conversation = ?", (stand.number,))
        self.connection.execute("DELETE FROM failures WHERE conversation = ?", (conversation,))
        self.connection.execute(
            """
            UPDATE conversations SET purged_ms = ?, user_id = NULL, user_name = NULL, locale = NULL WHERE number = ?
            """,
            (self._now_ms, stand.number),
        )
        self._stands.pop(conversation, None)
        return True

    def clear(self, conversation: ConversationId) -> bool:
        """As `Store.clear`."""
        number = self._tombstone(conversation)
        if number is None:
            return False
        self.index()
        rows = self.connection.execute(
            """
            SELECT p.place, p.arrival, length(e.body) FROM places AS p CROSS JOIN entries AS e ON e.arrival = p.arrival
            WHERE p.place >= ? AND p.place < ? ORDER BY p.place LIMIT ?
            """,
            (number << SEQUENCE_BITS, (number + 1) << SEQUENCE_BITS, SLICE),
        )
        gone, size = [], 0
        for place, arrival, length in rows:
            gone.append((place, arrival))
            size += length
            if size > SLICE_BYTES:
                break
        if not gone:
            self.connection.execute("UPDATE conversations SET cleared = 1 WHERE number = ?", (number,))
            return False
        self._remove(gone)
        return True

    def _remove(self, gone: Iterable[tuple[Place, int]]) -> None:
        """Remove entries that are in the index of places, by place and arrival."""
        self.erasures += 1
        self.connection.executemany("DELETE FROM places WHERE place = ?", [(place,) for place, _ in gone])
        self.connection.executemany("DELETE FROM entries WHERE arrival = ?", [(arrival,) for _, arrival in gone])

    def bury(self, before_ms: int) -> bool:
        """As `Store.bury`."""
        self.connection.execute(
            """
            DELETE FROM conversations WHERE number IN (
                SELECT number FROM conversations WHERE purged_ms IS NOT NULL AND cleared = 1 AND purged_ms < ? LIMIT ?
            )
            """,
            (before_ms, SLICE),
        )
        return self.connection.changes() == SLICE

    def expire(
        self, before_ms: int, keys_before_ms: int, after: int
    ) -> tuple[Mapping[ConversationId, int], int | None]:
        """As `Store.expire`, and the oldest number left of each conversation that lost something."""
        self._write_entries()
        self.index()
        rows = self.connection.execute(
            """
            SELECT arrival, place, time_ms, send_key IS NOT NULL, length(body) FROM entries
            WHERE arrival > ? ORDER BY arrival LIMIT ?
            """,
            (after, SLICE),
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
            if size > SLICE_BYTES:
                break
        if heads:
            self._remove(gone)
        self.connection.executemany(f"{_ERASE} arrival = ?", erased)
        return dict([self._expired(number, *head) for number, head in heads.items()]), go_on

    def _expired(self, number: int, head: int, last_ms: int) -> tuple[ConversationId, int]:
        """Everything below `head` has gone, at the latest with the time `last_ms`."""
        row = self.connection.execute(
            """
            UPDATE conversations
            SET oldest = max(oldest, ?1), head = max(head, ?1), last_ms = max(coalesce(last_ms, -1), ?2)
            WHERE number = ?3 RETURNING id, oldest
            """,
            (head, last_ms, number),
        ).fetchone()
        assert row is not None  # a tombstone stays until its entries are gone
        conversation, oldest = row
        if conversation in self._stands:
            self._stands[conversation].oldest = oldest
        return conversation, oldest

    def start(self, new: NewConversation) -> bool:
        """As `Store.start`."""
        user = new.user
        number = self.connection.execute(
            """
            INSERT INTO conversations (id, bot_id, user_id, user_name, locale, used_ms) VALUES (?, ?, ?, ?, ?, ?)
            ON CONFLICT (id) DO NOTHING RETURNING number
            """,
            (new.id, new.bot_id, user.id if user else None, user.name if user else None, new.locale, self._now_ms),
        ).get
        if number is None:
            return False
        self._add_member(number, Account(new.bot_id), is_bot=True)
        for account in (user, new.guest):
            if account is not None:
                self._add_member(number, account, is_bot=False)
        return True

    def join(self, conversation: ConversationId, account: Account, most: int | None) -> Sequence[Member]:
        """As `Store.join`."""
        number = self._known(conversation)
        members = self._members(number)
        if any(member.account.id == account.id for member in members):
            return members
        if most is not None and len(members) >= most:
            raise TooManyMembers
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
            "UPDATE members SET has_left = 1 WHERE conversation = ? AND account_id = ? AND NOT is_bot",
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

    def replace(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        """As `Store.replace`."""
        if self.recall(name) != old:
            return False
        self.erasures += 1
        if new is None:
            self.connection.execute("DELETE FROM kept WHERE name = ?", (name,))
        else:
            self.connection.execute("INSERT OR REPLACE INTO kept (name, value) VALUES (?, ?)", (name, new))
        return True

    def _add_member(self, number: int, account: Account, *, is_bot: bool) -> None:
        self.connection.execute(
            """
            INSERT INTO members (conversation, account_id, name, is_bot, rank)
            VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(rank), 0) + 1 FROM members WHERE conversation = ?1))
            ON CONFLICT (conversation, account_id) DO UPDATE
            SET name = excluded.name, announced = 0, rank = excluded.rank, has_left = 0 WHERE has_left
            """,
            (number, account.id, as_member(account).name, is_bot),
        )

    def _look_up(self, conversation: ConversationId) -> Stand:
        stand = self.stand(conversation)
        if stand is None:
            raise UnknownConversation
        if len(self._stands) >= _STANDS:
            self._write_entries()  # or a stand that is looked up again would not count what is not written yet
            self._stands.clear()
        self._stands[conversation] = stand
        return stand


def _entry(row: Row) -> Entry:
    """Of a row of `_ENTRIES`."""
    place, time_ms, audience, original_place, original_ms, body = row
    original = None if original_place is None else Original(original_place & LAST_SEQUENCE, original_ms)
    return Entry(place & LAST_SEQUENCE, time_ms, body, Audience(audience), original)


def _key(number: int, key: SendKey) -> bytes:
    """Keys of one conversation stand together in the index, as its entries do."""
    named = f"{len(key.sender)}|{key.sender}|{key.key}".encode("utf-8", "surrogatepass")
    return number.to_bytes(5, "big") + blake2b(named, digest_size=16).digest()
