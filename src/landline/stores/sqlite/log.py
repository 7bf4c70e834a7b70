"""The logs: conversations, and entries at the end of them.

What an append adds is written once for its whole group (`Writer.entries`), unless it depends on what is there. What is
read from the disk is also learnt by the tail, if nothing was forgotten meanwhile: whoever reads goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b

from landline import ports
from landline.core.conversation import Account, Conversation, NewConversation
from landline.core.log import (
    LAST_SEQUENCE,
    SEQUENCE_BITS,
    Accepted,
    Audience,
    ConversationId,
    Entry,
    NewEntry,
    Original,
    Page,
    SendKey,
)
from landline.errors import Conflict, ConversationFull, UnknownActivity, UnknownConversation
from landline.stores.sqlite.connections import COLUMNS, ERASE, STAND, Reader, Stand, Writer, entry_of
from landline.stores.sqlite.engine import Appending
from landline.stores.sqlite.live import Live
from landline.stores.sqlite.members import add_member, check_place

_INSERT = """
    INSERT INTO entries (arrival, place, time_ms, audience, original_place, original_ms, send_key, send_digest, body)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_LATEST_VERSION = f"""
    {COLUMNS} FROM entries AS e WHERE e.original_place = ? AND e.place >= ? ORDER BY e.arrival DESC LIMIT 1
"""


class _Append(Appending):
    __slots__ = ("new",)

    def __init__(self, conversation: ConversationId, new: NewEntry, deadline: float) -> None:
        super().__init__(conversation, deadline, len(new.body))
        self.new = new

    def run(self, writer: Writer) -> None:
        done = _append(writer, self.conversation, self.new)
        if type(done) is Entry:
            self.entry = done
            self.outcome = Accepted(done.sequence, done.time_ms)
        else:
            self.entry = None
            self.outcome = done  # type: ignore[assignment]  # what is no Entry is Accepted


class _Delete(_Append):
    """A delete, which appends as well."""

    __slots__ = ("sequence",)

    def __init__(self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float) -> None:
        super().__init__(conversation, notice, deadline)
        self.sequence = sequence

    def run(self, writer: Writer) -> None:
        self.entry = entry = _delete(writer, self.conversation, self.sequence, self.new)
        self.outcome = Accepted(entry.sequence, entry.time_ms) if entry is not None else None


class Log(Live, ports.Log):
    """As `landline.ports.Log` says."""

    async def start(self, conversation: NewConversation) -> bool:
        forgotten = self._tail.forgotten
        created = await self._write(lambda writer: _start(writer, conversation))
        if created:
            self._tail.meet(conversation.id, 0, None, forgotten, conversation)
        return created

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        known = self.cached_conversation(conversation)
        if known is not None:
            return known
        forgotten = self._tail.forgotten
        read = await self._read(lambda reader: _conversation(reader, conversation))
        if read is None:
            return None
        found, last = read
        started = NewConversation(found.id, found.bot_id, found.user, found.locale)
        self._tail.meet(conversation, found.head, found.last_ms, forgotten, started, found.oldest)
        self._tail.recall(conversation, last, forgotten)
        return found

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        job = _Append(conversation, entry, deadline)
        writing = self._writing()
        if self._notes.waiting:
            self._notes.write()
        writing.put(job)
        accepted = await job.answer
        assert accepted is not None
        return accepted

    async def delete(
        self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float
    ) -> Accepted | None:
        job = _Delete(conversation, sequence, notice, deadline)
        self._writing().put(job)
        return await job.answer

    def mark_taken(self, conversation: ConversationId, sequence: int) -> None:
        if self._writes is not None:
            self._notes.taken(conversation, sequence)

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        transient, forgotten = self._tail.transients, self._tail.forgotten
        page, stand = await self._read(
            lambda reader: _read_after(
                reader, conversation, position, max_activities, max_bytes, transient, for_stream=for_stream
            )
        )
        if stand is None:
            raise UnknownConversation
        if for_stream:
            # The next look of this stream needs no disk.
            self._tail.meet(conversation, stand.head, stand.last_ms, forgotten, oldest=stand.oldest)
        return page

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        known = self.cached_time(conversation, sequence)
        if known is not None:
            return known
        forgotten = self._tail.forgotten
        entries, stand = await self._read(lambda reader: _read_on(reader, conversation, sequence))
        if not entries or entries[0].sequence != sequence:
            return await self._read(lambda reader: _before_gap_ms(reader, conversation, sequence))
        if stand is not None:
            # Who asks goes on from there: what a client missed that comes back needs no disk then.
            self._tail.meet(conversation, stand.head, stand.last_ms, forgotten, oldest=stand.oldest)
            self._tail.recall(conversation, entries, forgotten)
        return entries[0].time_ms

    async def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        return await self._read(lambda reader: _entry(reader, conversation, sequence))

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        self._moved = moved


# Reading.


def _conversation(reader: Reader, conversation: ConversationId) -> tuple[Conversation, Sequence[Entry]] | None:
    """The conversation, and the last of what was said in it."""
    row = reader.connection.execute(STAND, (conversation,)).fetchone()
    if row is None:
        return None
    stand = reader.stand_of(row)
    bot_id, user_id, user_name, locale = row[6:]
    bot_id = sys.intern(bot_id)  # one for all conversations of a bot that are in memory
    user = None if user_id is None else Account(user_id, user_name)
    last_ms = stand.last_ms if stand.last_ms >= 0 else None
    found = Conversation(conversation, bot_id, user, locale, stand.head, last_ms, stand.oldest)
    return found, _up_to_head(reader, stand, max(stand.oldest, stand.head - reader.bounds.last))


def _up_to_head(reader: Reader, stand: Stand, sequence: int) -> Sequence[Entry]:
    """The entries from this number on; none where they are large."""
    first = stand.number << SEQUENCE_BITS
    entries, size = [], 0
    for row in reader.rows(first + sequence, first + stand.head):
        entries.append(entry_of(row))
        size += len(row[5])
        if size > reader.bounds.ahead_bytes:
            return ()
    return entries


def _read_after(
    reader: Reader,
    conversation: ConversationId,
    position: int,
    max_activities: int,
    max_bytes: int,
    transient: int,
    *,
    for_stream: bool,
) -> tuple[Page, Stand | None]:
    """The page, and where the log stood then."""
    stand = reader.stand(conversation)
    if stand is None or position >= stand.head:
        return Page([], position, None, transient, more=False), stand
    first = stand.number << SEQUENCE_BITS
    rows = reader.rows(first + max(position, stand.oldest), first + stand.head)
    records: list[Entry] = []
    behind_ms, size = None, 0
    for row in rows:
        place, time_ms, audience, _, _, body = row
        if audience == Audience.EVERYONE or (for_stream and audience == Audience.STREAMS):
            size += len(body)
            if records and (len(records) == max_activities or size > max_bytes):
                return Page(records, position, behind_ms, transient, more=True), stand
            records.append(entry_of(row))
        position, behind_ms = place - first + 1, time_ms
    if position < stand.oldest:
        # Everything has expired, so the head comes next; the row knows what its watermark is made of.
        position, behind_ms = stand.head, stand.last_ms
    return Page(records, position, behind_ms, transient, more=False), stand


def _read_on(reader: Reader, conversation: ConversationId, sequence: int) -> tuple[Sequence[Entry], Stand | None]:
    """The entry with this number and what follows it up to the head, if that is little; else that entry alone, or
    nothing where there is none. And where the log stood then."""
    stand = reader.stand(conversation)
    if stand is None or not stand.oldest <= sequence < stand.head:
        return (), stand
    entries = _up_to_head(reader, stand, sequence) if stand.head - sequence <= reader.bounds.ahead else ()
    if not entries:
        place = stand.number << SEQUENCE_BITS | sequence
        entries = [entry_of(row) for row in reader.rows(place, place + 1)]
    return entries, stand


def _before_gap_ms(reader: Reader, conversation: ConversationId, sequence: int) -> int | None:
    """When the last entry before the gap was accepted that a declared restore left up to this number, or None where
    there is no such gap: the row has it, as for a log that lost its last entries (spec 8.1.6)."""
    last_ms: int | None = reader.connection.execute(
        "SELECT last_ms FROM conversations WHERE id = ? AND head = ? AND oldest <= ? AND purged_ms IS NULL",
        (conversation, sequence + 1, sequence),
    ).get
    return last_ms


def _entry(reader: Reader, conversation: ConversationId, sequence: int) -> Entry | None:
    stand = reader.stand(conversation)
    if stand is None or not 0 <= sequence < stand.head:
        return None
    if sequence < stand.oldest:
        return _latest_version(reader, stand, sequence)
    place = stand.number << SEQUENCE_BITS | sequence
    row = next(reader.rows(place, place + 1), None)
    return None if row is None else entry_of(row)


def _latest_version(reader: Reader, stand: Stand, sequence: int) -> Entry | None:
    """What is left of an activity that has expired."""
    first = stand.number << SEQUENCE_BITS
    row = reader.connection.execute(_LATEST_VERSION, (first | sequence, first | stand.oldest)).fetchone()
    return None if row is None else entry_of(row)


# Writing.


def _start(writer: Writer, new: NewConversation) -> bool:
    user = new.user
    number = writer.connection.execute(
        """
        INSERT INTO conversations (id, bot_id, user_id, user_name, locale, used_ms) VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO NOTHING RETURNING number
        """,
        (new.id, new.bot_id, user.id if user else None, user.name if user else None, new.locale, writer.now_ms),
    ).get
    if number is None:
        return False
    add_member(writer, number, Account(new.bot_id), is_bot=True)
    for account in (user, new.guest):
        if account is not None:
            add_member(writer, number, account, is_bot=False)
    return True


def _append(writer: Writer, conversation: ConversationId, new: NewEntry) -> Entry | Accepted:
    """The entry; of a repeat, what was assigned the first time."""
    stand = writer.stands.get(conversation) or writer.look_up(conversation)
    if new.key is not None or new.original is not None:
        return _append_with_care(writer, stand, new)
    if new.newcomer is not None:
        check_place(writer, stand.number, new.newcomer)
    sequence, time_ms = _next(writer, stand)
    place = stand.number << SEQUENCE_BITS | sequence
    writer.entries.append((writer.arrive(place), place, time_ms, new.audience, new.body))
    return Entry(sequence, time_ms, new.body, new.audience)


def _append_with_care(writer: Writer, stand: Stand, new: NewEntry) -> Entry | Accepted:
    """An append that depends on what is there: a key may be known, and an original has to be."""
    writer.write_entries()  # what is there includes the group so far
    if new.key is not None and (earlier := _earlier(writer, stand.number, new.key)) is not None:
        return earlier
    if new.original is not None and _is_deleted(writer, stand, new.original.sequence):
        raise UnknownActivity
    if new.newcomer is not None:
        check_place(writer, stand.number, new.newcomer)
    sequence, time_ms = _next(writer, stand)
    if new.key is not None:
        # A send that was too old gives its key away.
        name = _key(stand.number, new.key)
        writer.connection.execute("UPDATE entries SET send_key = NULL WHERE send_key = ?", (name,))
    return _insert(writer, stand, Entry(sequence, time_ms, new.body, new.audience, new.original), new.key)


def _next(writer: Writer, stand: Stand) -> tuple[int, int]:
    """Assign a number and a time."""
    sequence, time_ms = stand.head, writer.now_ms
    if sequence >= LAST_SEQUENCE:
        raise ConversationFull
    if time_ms <= stand.last_ms:
        time_ms = stand.last_ms + 1
    stand.head = sequence + 1
    stand.last_ms = time_ms
    return sequence, time_ms


def _insert(writer: Writer, stand: Stand, entry: Entry, key: SendKey | None = None) -> Entry:
    first, original = stand.number << SEQUENCE_BITS, entry.original
    writer.connection.execute(
        _INSERT,
        (
            writer.arrive(first | entry.sequence),
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


def _earlier(writer: Writer, number: int, key: SendKey) -> Accepted | None:
    """What the first send with this key was assigned, unless it is too old."""
    row = writer.connection.execute(
        "SELECT place, time_ms, send_digest, taken FROM entries WHERE send_key = ? AND time_ms >= ?",
        (_key(number, key), key.since_ms),
    ).fetchone()
    if row is None:
        return None
    place, time_ms, digest, taken = row
    if digest != key.digest:
        raise Conflict
    return Accepted(place & LAST_SEQUENCE, time_ms, repeated=True, taken=bool(taken))


def _key(number: int, key: SendKey) -> bytes:
    """Keys of one conversation stand together in the index, as its entries do."""
    named = f"{len(key.sender)}|{key.sender}|{key.key}".encode("utf-8", "surrogatepass")
    return number.to_bytes(5, "big") + blake2b(named, digest_size=16).digest()


def _is_deleted(writer: Writer, stand: Stand, sequence: int) -> bool:
    """Whether the activity with this number was deleted. Raises `UnknownActivity` if there is none."""
    if 0 <= sequence < stand.oldest:
        version = _latest_version(writer, stand, sequence)
        if version is None:
            raise UnknownActivity
        return version.is_deleted
    arrival = writer.arrival(stand.number << SEQUENCE_BITS | sequence)
    row = writer.connection.execute(
        "SELECT audience, original_place FROM entries WHERE arrival = ?", (arrival,)
    ).fetchone()
    if row is None or row[1] is not None:
        raise UnknownActivity
    return bool(row[0] == Audience.NOBODY)


def _delete(writer: Writer, conversation: ConversationId, sequence: int, notice: NewEntry) -> Entry | None:
    """The entry that says so; None where it was deleted before."""
    stand = writer.stands.get(conversation) or writer.look_up(conversation)
    writer.write_entries()
    if _is_deleted(writer, stand, sequence):
        return None
    number, time_ms = _next(writer, stand)
    place = stand.number << SEQUENCE_BITS | sequence
    writer.erasures += 1
    writer.connection.execute(f"{ERASE} arrival = ?", (writer.arrival(place),))
    writer.connection.execute(f"{ERASE} original_place = ?", (place,))
    # It shows the id of what is gone, and its own time.
    original = Original(sequence, time_ms)
    return _insert(writer, stand, Entry(number, time_ms, notice.body, notice.audience, original))
