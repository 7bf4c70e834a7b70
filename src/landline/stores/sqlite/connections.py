"""The two connections to the file, a thread each: the snapshot that is read, and the transaction that is written.

Here are the statements that several subjects need: which number a conversation has, where its log stands, where an
entry is. What is done with that is in the file of the subject. Nothing here starts or ends a transaction by itself: the
engine does. What a `Writer` remembers of conversations is right because nobody else writes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apsw

from landline.core.log import LAST_SEQUENCE, SEQUENCE_BITS, Audience, ConversationId, Entry, Original
from landline.errors import UnknownConversation
from landline.stores.sqlite.bounds import Bounds
from landline.stores.sqlite.unindexed import Place, Unindexed

_INSERT = "INSERT INTO entries (arrival, place, time_ms, audience, body) VALUES (?, ?, ?, ?, ?)"

ERASE = f"UPDATE entries SET body = x'', audience = {Audience.NOBODY:d} WHERE"  # noqa: S608  # an integer of ours
"""What was said in an entry; the entry stays."""

# The last entry is one step from the right end of the conversation's range in the index.
STAND = """
    SELECT c.number, c.head, c.last_ms, e.place, e.time_ms, c.oldest, c.bot_id, c.user_id, c.user_name, c.locale
    FROM conversations AS c LEFT JOIN entries AS e ON e.arrival = (
        SELECT arrival FROM places WHERE place >= c.number << 28 AND place < (c.number + 1) << 28
        ORDER BY place DESC LIMIT 1
    )
    WHERE c.id = ? AND c.purged_ms IS NULL
"""
"""A conversation, for `Reader.stand_of`."""

COLUMNS = "SELECT e.place, e.time_ms, e.audience, e.original_place, e.original_ms, e.body"
"""Of an entry, for `entry_of`."""

_INDEXED = f"""
    {COLUMNS} FROM places AS p CROSS JOIN entries AS e ON e.arrival = p.arrival
    WHERE p.place >= ? AND p.place < ? ORDER BY p.place
"""

_ENTRY = f"{COLUMNS} FROM entries AS e WHERE e.arrival = ?"

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

    def __init__(self, connection: apsw.Connection, recent: Unindexed, bounds: Bounds) -> None:
        self.connection = connection
        self.bounds = bounds
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

    def roll_back(self) -> None:
        """End a transaction that failed, if that has not ended it."""
        if self.connection.in_transaction:
            with contextlib.suppress(apsw.Error):  # it is over all the same, and why was said before
                self.connection.execute("ROLLBACK")

    def number(self, conversation: ConversationId) -> int | None:
        """The number of a conversation, or None where none was started."""
        number: int | None = self.connection.execute(
            "SELECT number FROM conversations WHERE id = ? AND purged_ms IS NULL", (conversation,)
        ).get
        return number

    def known(self, conversation: ConversationId) -> int:
        """The number of a conversation. Raises `UnknownConversation`."""
        number = self.number(conversation)
        if number is None:
            raise UnknownConversation
        return number

    def ids(self, query: str, bindings: Row) -> Sequence[ConversationId]:
        """The conversations that a query finds."""
        return [ConversationId(row[0]) for row in self.connection.execute(query, bindings)]

    def stand(self, conversation: ConversationId) -> Stand | None:
        """Where the log of a conversation stands, or None where none was started."""
        row = self.connection.execute(STAND, (conversation,)).fetchone()
        return None if row is None else self.stand_of(row)

    def stand_of(self, row: Row) -> Stand:
        """Of a row of `STAND`, and of what is recent."""
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

    def rows(self, place: Place, end: Place) -> Iterator[Row]:
        """The entries from `place` on, as far as before `end`: those in the index first, then recent ones."""
        for row in self.connection.execute(_INDEXED, (place, end)):
            yield row
            place = row[0] + 1
        recent = end
        while recent > place and self._recent_arrival(recent - 1) is not None:
            recent -= 1
        for missing in range(recent, end):
            yield from self.connection.execute(_ENTRY, (self._recent_arrival(missing),))


class Writer(Reader):
    """What can be written, between `begin` and `commit` or `roll_back`. Only one may exist."""

    def __init__(self, connection: apsw.Connection, recent: Unindexed, bounds: Bounds) -> None:
        super().__init__(connection, recent, bounds)
        self._last = sys.maxsize
        self._arrived: int = connection.execute("SELECT max(arrival) FROM entries").get or 0
        self.stands: dict[ConversationId, Stand] = {}
        """Where logs stand with what this transaction has added so far; as `look_up` found them."""
        self.entries: list[Row] = []
        """What was appended and is not written yet: arrival, place, time, audience, body."""
        self.now_ms = 0
        """When this transaction began."""
        self.erasures = 0
        """Counts what was erased or replaced: so often the write-ahead log may have got what is not to be found."""

    def begin(self, now_ms: int) -> None:
        """Begin a transaction at this time."""
        self.now_ms = now_ms
        self._arrivals = self._recent.arrivals
        self.connection.execute("BEGIN IMMEDIATE")

    def write(self) -> None:
        """Write what was appended; all of it into the index, too, if that is due. Still part of the transaction."""
        self.write_entries()
        if len(self._arrivals) >= self.bounds.index_after:
            self.index()

    def write_entries(self) -> None:
        """Write what was appended: whoever looks for it finds it in the file."""
        if self.entries:
            self.connection.executemany(_INSERT, self.entries)
            self.entries.clear()

    def index(self) -> None:
        """Put everything that is recent into the index of places."""
        self.connection.executemany("INSERT INTO places (place, arrival) VALUES (?, ?)", self._recent.to_index())

    def commit(self) -> None:
        """Make everything since `begin` durable; after `write`."""
        self.connection.execute("COMMIT")
        self._recent.committed()

    def roll_back(self) -> None:
        """Undo everything since `begin`."""
        self.entries.clear()
        self.stands.clear()
        self._recent.rolled_back()
        super().roll_back()

    def rewrite(self) -> None:
        """Write what is there already."""
        self.connection.pragma("user_version", self.connection.pragma("user_version"))

    def look_up(self, conversation: ConversationId) -> Stand:
        """Where the log of a conversation stands, to be remembered. Raises `UnknownConversation`."""
        stand = self.stand(conversation)
        if stand is None:
            raise UnknownConversation
        if len(self.stands) >= self.bounds.stands:
            self.write_entries()  # or a stand that is looked up again would not count what is not written yet
            self.stands.clear()
        self.stands[conversation] = stand
        return stand

    def arrive(self, place: Place) -> int:
        """Assign the number under which an entry arrives. None is assigned twice, not even after `roll_back`: readers
        tell by it what their snapshot has."""
        self._arrived += 1
        self._recent.add(place, self._arrived)
        return self._arrived

    def arrival(self, place: Place) -> int | None:
        """Under which number the entry at `place` arrived, or None where there is none."""
        arrival = self._recent_arrival(place)
        if arrival is None:
            arrival = self.connection.execute("SELECT arrival FROM places WHERE place = ?", (place,)).get
        return arrival

    def note(self, taken: Iterable[tuple[ConversationId, int]], used: Mapping[ConversationId, int]) -> None:
        """Write what the bot took, and when conversations were used (see `notes`)."""
        self.write_entries()
        numbers = ((self.number(conversation), sequence) for conversation, sequence in taken)
        places = [number << SEQUENCE_BITS | sequence for number, sequence in numbers if number is not None]
        self.connection.executemany(
            "UPDATE entries SET taken = 1 WHERE arrival = ?",
            [(self.arrival(place),) for place in places],
        )
        self.connection.executemany(
            "UPDATE conversations SET used_ms = max(used_ms, ?) WHERE id = ?",
            [(used_ms, conversation) for conversation, used_ms in used.items()],
        )


def entry_of(row: Row) -> Entry:
    """Of a row of `COLUMNS`."""
    place, time_ms, audience, original_place, original_ms, body = row
    original = None if original_place is None else Original(original_place & LAST_SEQUENCE, original_ms)
    return Entry(place & LAST_SEQUENCE, time_ms, body, Audience(audience), original)
