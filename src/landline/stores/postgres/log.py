"""The conversation logs: each subject's statements, and how a read is put together from pages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

from landline import ports
from landline.core.conversation import Account, Conversation, NewConversation, as_member
from landline.core.log import Accepted, Audience, ConversationId, Entry, NewEntry, Original, Page, SendKey
from landline.errors import (
    Conflict,
    ConversationFull,
    LandlineError,
    TooManyMembers,
    UnknownActivity,
    UnknownConversation,
)
from landline.stores.postgres.connections import Connection
from landline.stores.postgres.lane import Write
from landline.stores.postgres.live import Live
from landline.stores.postgres.rows import COLUMNS, entry_of
from landline.stores.postgres.text import is_storable, to_bytes, to_text

_ACCEPTED, _REPEATED, _DELETED_BEFORE = 0, 1, 7
_REFUSALS: dict[int, type[LandlineError]] = {
    2: UnknownConversation,
    3: Conflict,
    4: UnknownActivity,
    5: TooManyMembers,
    6: ConversationFull,
}
"""What `landline.append` and `landline.erase` answer."""

_APPEND = """
    SELECT verdict, sequence, time_ms, taken
    FROM landline.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""

_APPENDED = """
    SELECT e.operation, e.sequence, e.time_ms FROM landline.conversations AS c
    JOIN landline.entries AS e ON e.bucket = c.bucket AND e.conversation = c.number
    WHERE c.id = ANY ($1) AND e.operation = ANY ($2)
"""

_CONVERSATION = """
    SELECT bot_id, user_id, user_name, locale, head, last_ms, oldest FROM landline.conversations
    WHERE id = $1 AND purged_ms IS NULL
"""

# What is stepped over counts nothing. A body that would be too much is not sent; the reader learns that there is more.
_PAGE = f"""
    SELECT c.head, c.last_ms, c.oldest, {COLUMNS} FROM landline.conversations AS c
    LEFT JOIN LATERAL (
        SELECT x.sequence, x.time_ms, x.audience, x.original, x.original_ms,
            CASE WHEN x.total <= $4 OR x.total = x.size THEN x.body END AS body
        FROM (
            SELECT y.*, sum(y.size) OVER (ORDER BY y.sequence) AS total FROM (
                SELECT z.*, CASE WHEN z.audience <= $5 THEN octet_length(z.body) ELSE 0 END AS size
                FROM landline.entries AS z
                WHERE z.bucket = c.bucket AND z.conversation = c.number AND z.sequence >= greatest($2, c.oldest)
                ORDER BY z.sequence LIMIT $3
            ) AS y
        ) AS x
    ) AS e ON true
    WHERE c.id = $1 AND c.purged_ms IS NULL ORDER BY e.sequence
"""  # noqa: S608  # constants of ours

_ENTRY = f"""
    SELECT {COLUMNS} FROM landline.conversations AS c
    JOIN landline.entries AS e ON e.bucket = c.bucket AND e.conversation = c.number AND e.sequence = $2
    WHERE c.id = $1 AND c.purged_ms IS NULL AND c.oldest <= $2
"""  # noqa: S608  # constants of ours

_LATEST_VERSION = f"""
    SELECT {COLUMNS} FROM landline.conversations AS c
    JOIN landline.entries AS e ON e.bucket = c.bucket AND e.conversation = c.number AND e.original = $2
    WHERE c.id = $1 AND c.purged_ms IS NULL AND c.oldest > $2 ORDER BY e.sequence DESC LIMIT 1
"""  # noqa: S608  # constants of ours

_ACCEPTED_AT = """
    SELECT CASE WHEN e.time_ms IS NULL AND c.head = $2 + 1 THEN c.last_ms ELSE e.time_ms END
    FROM landline.conversations AS c
    LEFT JOIN landline.entries AS e ON e.bucket = c.bucket AND e.conversation = c.number AND e.sequence = $2
    WHERE c.id = $1 AND c.purged_ms IS NULL AND c.oldest <= $2
"""

_LAST = (1 << 31) - 1
"""The largest number that PostgreSQL's `integer` holds; no log has one as large."""


class _Append(Write[Accepted]):
    """An append."""

    __slots__ = ("new",)

    most = 1024

    def __init__(self, conversation: ConversationId, new: NewEntry, deadline: float) -> None:
        super().__init__(conversation, deadline, len(new.body))
        self.new = new
        if new.key is not None:
            self.claim = (conversation, new.key.sender, new.key.key)
        self.comes_first = new.original is not None

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[_Append]) -> None:  # type: ignore[override]  # a group is of one class
        rows = await connection.fetch(_APPEND, lane, now_ms, *_columns(group))
        for job, row in zip(group, rows, strict=True):
            job.outcome = _outcome(*row)

    @classmethod
    async def look_for(cls, connection: Connection, group: Sequence[_Append]) -> None:  # type: ignore[override]  # likewise
        jobs = {job.operation: job for job in group}
        rows = await connection.fetch(_APPENDED, [job.conversation for job in group], list(jobs))
        for operation, sequence, time_ms in rows:
            jobs[operation].outcome = Accepted(sequence, time_ms)

    def entry(self) -> Entry | None:
        """What was added, or None."""
        done = self.outcome
        if type(done) is not Accepted or done.repeated:
            return None
        return Entry(done.sequence, done.time_ms, self.new.body, self.new.audience, self.new.original)


def _columns(group: Sequence[_Append]) -> Sequence[Sequence[Any]]:
    """The arguments of `landline.append` that are arrays. Those that nobody needs are empty."""
    columns: list[Sequence[Any]] = [
        [job.conversation for job in group],
        [job.operation for job in group],
        [job.new.audience for job in group],
        [job.new.body for job in group],
    ]
    news = [job.new for job in group]
    if any(new.original is not None for new in news):
        originals = [new.original for new in news]
        columns.append([original and original.sequence for original in originals])
        columns.append([original and original.time_ms for original in originals])
    else:
        columns += [(), ()]
    if any(new.key is not None for new in news):
        keys = [new.key for new in news]
        columns.append([key and _key(key) for key in keys])
        columns.append([key and key.digest for key in keys])
        columns.append([key and key.since_ms for key in keys])
    else:
        columns += [(), (), ()]
    if any(new.newcomer is not None for new in news):
        newcomers = [new.newcomer for new in news]
        columns.append([newcomer and to_bytes(newcomer.account_id) for newcomer in newcomers])
        columns.append([newcomer and newcomer.most_members for newcomer in newcomers])
    else:
        columns += [(), ()]
    return columns


def _key(key: SendKey) -> bytes:
    named = f"{len(key.sender)}|{key.sender}|{key.key}".encode("utf-8", "surrogatepass")
    return blake2b(named, digest_size=16).digest()


def _outcome(verdict: int, sequence: int, time_ms: int, taken: bool) -> Accepted | LandlineError:
    if verdict == _ACCEPTED:
        return Accepted(sequence, time_ms)
    if verdict == _REPEATED:
        return Accepted(sequence, time_ms, repeated=True, taken=taken)
    return _REFUSALS[verdict]()


class _Delete(Write[Accepted | None]):
    """A delete, which appends as well."""

    __slots__ = ("new", "sequence")

    def __init__(self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float) -> None:
        super().__init__(conversation, deadline, len(notice.body))
        self.sequence = sequence
        self.new = notice

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[_Delete]) -> None:  # type: ignore[override]  # a group is of one class
        for job in group:
            row = await connection.fetchrow(
                "SELECT verdict, sequence, time_ms, taken FROM landline.erase($1, $2, $3, $4, $5, $6, $7)",
                lane,
                now_ms,
                job.conversation,
                job.sequence,
                job.operation,
                job.new.audience,
                job.new.body,
            )
            job.outcome = None if row["verdict"] == _DELETED_BEFORE else _outcome(*row)

    @classmethod
    async def look_for(cls, connection: Connection, group: Sequence[_Delete]) -> None:  # type: ignore[override]  # likewise
        for job in group:
            row = await connection.fetchrow(_APPENDED, [job.conversation], [job.operation])
            if row is not None:
                job.outcome = Accepted(row["sequence"], row["time_ms"])

    def entry(self) -> Entry | None:
        """What was added, or None."""
        done = self.outcome
        if type(done) is not Accepted:
            return None
        # It shows the id of what is gone, and its own time.
        original = Original(self.sequence, done.time_ms)
        return Entry(done.sequence, done.time_ms, self.new.body, self.new.audience, original)


class _Start(Write[bool]):
    """A start."""

    __slots__ = ("new",)

    most = 256

    def __init__(self, new: NewConversation, deadline: float) -> None:
        super().__init__(new.id, deadline)
        self.new = new

    @classmethod
    async def write(cls, connection: Connection, lane: int, now_ms: int, group: Sequence[_Start]) -> None:  # type: ignore[override]  # a group is of one class
        news = [job.new for job in group]
        nobody = Account("")
        users, guests = [new.user or nobody for new in news], [new.guest or nobody for new in news]
        rows = await connection.fetch(
            "SELECT created FROM landline.start($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
            lane,
            now_ms,
            [new.id for new in news],
            [job.operation for job in group],
            [new.bot_id for new in news],
            [new.user and to_bytes(new.user.id) for new in news],
            [to_bytes(user.name) for user in users],
            [to_bytes(new.locale) for new in news],
            [to_bytes(as_member(user).name) for user in users],
            [new.guest and to_bytes(new.guest.id) for new in news],
            [to_bytes(as_member(guest).name) for guest in guests],
        )
        for job, row in zip(group, rows, strict=True):
            job.outcome = row["created"]

    @classmethod
    async def look_for(cls, connection: Connection, group: Sequence[_Start]) -> None:  # type: ignore[override]  # likewise
        rows = await connection.fetch(
            "SELECT operation FROM landline.conversations WHERE id = ANY ($1)", [job.conversation for job in group]
        )
        found = {row["operation"] for row in rows}
        for job in group:
            if job.operation in found:
                job.outcome = True


class Log(Live, ports.Log):
    """As `landline.ports.Log` says."""

    def _learn(self, job: Write[object]) -> bool:
        if isinstance(job, _Append | _Delete):
            entry = job.entry()
            if entry is None:
                return False
            self._tail.append(job.conversation, entry)
            self._doorbells.ring(job.conversation, entry.sequence + 1)
            return True
        if isinstance(job, _Start) and job.outcome is True:
            self._tail.meet(job.conversation, 0, None, self._tail.forgotten, job.new)
        return super()._learn(job)

    async def start(self, conversation: NewConversation) -> bool:
        return await self._put(_Start(conversation, self._clock.monotonic() + self._bounds.patience_s))

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        if not is_storable(conversation):
            return None
        forgotten = self._tail.forgotten

        async def read(connection: Connection) -> Any:
            return await connection.fetchrow(_CONVERSATION, conversation)

        row = await self.read(read)
        if row is None:
            return None
        bot_id, user_id, user_name, locale, head, last_ms, oldest = row
        user = None if user_id is None else Account(to_text(user_id), to_text(user_name))
        started = NewConversation(conversation, sys.intern(bot_id), user, to_text(locale))
        self._tail.meet(conversation, head, last_ms, forgotten, started, oldest)
        self._is_at(conversation, head)
        return Conversation(conversation, started.bot_id, user, started.locale, head, last_ms, oldest)

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        self._writing()
        if not is_storable(conversation):
            raise UnknownConversation
        accepted = await self._put(_Append(conversation, entry, deadline))
        if accepted.repeated and not accepted.taken and self._notes.took(conversation, accepted.sequence):
            return Accepted(accepted.sequence, accepted.time_ms, repeated=True, taken=True)
        return accepted

    async def delete(
        self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float
    ) -> Accepted | None:
        self._writing()
        if not is_storable(conversation):
            raise UnknownConversation
        return await self._put(_Delete(conversation, min(sequence, _LAST), notice, deadline))

    def mark_taken(self, conversation: ConversationId, sequence: int) -> None:
        if self._lane is not None and is_storable(conversation):
            self._notes.taken(conversation, sequence)

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        transient = self._tail.transients
        if not is_storable(conversation):
            raise UnknownConversation
        if for_stream:
            self._watch(conversation)
        audience = Audience.STREAMS if for_stream else Audience.EVERYONE
        reading = _Reading(position, max_activities, max_bytes, audience, self._bounds.page_rows)
        forgotten = self._tail.forgotten
        while not reading.is_over:

            async def read(connection: Connection) -> Sequence[Any]:
                rows: Sequence[Any] = await connection.fetch(_PAGE, conversation, *reading.arguments())
                return rows

            reading.add(await self.read(read))
        if reading.head is None:
            raise UnknownConversation
        if for_stream:
            # The next look of this stream needs no database.
            self._tail.meet(conversation, reading.head, reading.last_ms, forgotten, oldest=reading.oldest)
            self._is_at(conversation, reading.head)
        return reading.page(transient)

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        if not is_storable(conversation) or not 0 <= sequence < _LAST:
            return None

        async def read(connection: Connection) -> int | None:
            found: int | None = await connection.fetchval(_ACCEPTED_AT, conversation, sequence)
            return found

        return await self.read(read)

    async def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        if not is_storable(conversation) or not 0 <= sequence <= _LAST:
            return None

        async def read(connection: Connection) -> Any:
            found = await connection.fetchrow(_ENTRY, conversation, sequence)
            return found or await connection.fetchrow(_LATEST_VERSION, conversation, sequence)

        row = await self.read(read)
        return None if row is None else entry_of(row)

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        self._moved = moved


class _Reading:
    """A page that is being put together, a statement at a time."""

    def __init__(self, position: int, max_activities: int, max_bytes: int, audience: Audience, page_rows: int) -> None:
        self._asked = self._position = position
        self._max_activities = max_activities
        self._max_bytes = max_bytes
        self._audience = audience
        self._page_rows = page_rows
        self._records: list[Entry] = []
        self._behind_ms: int | None = None
        self._size = 0
        self._more = False
        self.is_over = False
        self.head: int | None = None
        """Where the log stands; None where there is none."""
        self.last_ms: int | None = None
        self.oldest = 0

    def arguments(self) -> Sequence[int]:
        """Those of the next statement, behind the conversation."""
        rows = min(self._page_rows, self._max_activities - len(self._records) + 1)
        return min(self._position, _LAST), rows, self._max_bytes - self._size, self._audience

    def add(self, rows: Sequence[Any]) -> None:
        """What the statement found."""
        asked = self.arguments()[1]
        if not rows:
            self.is_over = True
            return
        self.head, self.last_ms, self.oldest = rows[0][:3]
        for row in rows:
            if row[3] is not None and not self._take(row[3:]):
                return
        if len(rows) < asked or rows[-1][3] is None:
            self.is_over = True

    def _take(self, row: Sequence[Any]) -> bool:
        """Add an entry, unless the page ends before it."""
        sequence, time_ms, audience, _, _, body = row
        if audience <= self._audience:
            if self._records and self._is_full(body):
                self._more = self.is_over = True
                return False
            self._size += len(body)
            self._records.append(entry_of(row))
        self._position, self._behind_ms = sequence + 1, time_ms
        return True

    def _is_full(self, body: bytes | None) -> bool:
        """Whether there is no room for one more with this body; None is one that was too much already."""
        if body is None or len(self._records) == self._max_activities:
            return True
        return self._size + len(body) > self._max_bytes

    def page(self, transient: int) -> Page:
        """All of it."""
        if not self._more and self._position < self.oldest and self.head is not None:
            # Everything has expired, so the head comes next.
            self._position, self._behind_ms = self.head, self.last_ms
        return Page(self._records, self._position, self._behind_ms, transient, more=self._more)
