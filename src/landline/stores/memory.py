"""The model: conversation logs as plain lists. What every other store is compared with; it ends with the process.

It keeps everything, answers at once, and is never unavailable while it is open. Nothing here is clever, so that nothing
here has to be trusted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.failure import FailedDelivery
from landline.core.log import LAST_SEQUENCE, Accepted, Audience, ConversationId, Entry, NewEntry, Page, Transient
from landline.errors import ConversationFull, DeadlinePassed, StoreUnavailable, UnknownConversation
from landline.ports import Clock

_TRANSIENTS = 64
"""Transients kept per conversation: who is slower than that has missed some (D-49)."""


class _Log:
    """One conversation. Entries stand at their numbers less `base`, which is 0 unless a test set the head."""

    def __init__(self, started: NewConversation) -> None:
        self.started = started
        self.base = 0
        self.last_ms: int | None = None
        self.entries: list[Entry] = []
        self.passed: deque[Transient] = deque(maxlen=_TRANSIENTS)
        self.members: dict[str, Member] = {}
        for account, is_bot in ((Account(started.bot_id), True), (started.user, False)):
            if account is not None:
                self.members.setdefault(account.id, Member(account, is_bot=is_bot, announced=False))

    @property
    def head(self) -> int:
        return self.base + len(self.entries)

    def after(self, position: int) -> list[Entry]:
        return self.entries[max(0, position - self.base) :]


class MemoryStore:
    """A `landline.ports.Store` without a disk: durable means that it is in a list."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self._kept: dict[str, bytes] = {}
        self._logs: dict[ConversationId, _Log] = {}
        self._failures: dict[tuple[ConversationId, int], FailedDelivery] = {}
        self._transients = 0
        self._moved: Callable[[ConversationId], None] = lambda conversation: None

    async def open(self) -> None:
        """As `Store.open`; there is nothing that could be wrong."""

    async def close(self) -> None:
        """As `Store.close`."""
        self._closed = True

    async def remember(self, name: str, value: bytes) -> bytes:
        """As `Store.remember`."""
        self._check_open()
        return self._kept.setdefault(name, value)

    async def recall(self, name: str) -> bytes | None:
        """As `Store.recall`."""
        self._check_open()
        return self._kept.get(name)

    async def start(self, conversation: NewConversation) -> bool:
        """As `Store.start`."""
        self._check_open()
        if conversation.id in self._logs:
            return False
        self._logs[conversation.id] = _Log(conversation)
        return True

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        """As `Store.conversation`."""
        self._check_open()
        log = self._logs.get(conversation)
        if log is None:
            return None
        new = log.started
        return Conversation(new.id, new.bot_id, new.user, new.locale, log.head, log.last_ms)

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        """As `Store.append`."""
        self._check_open()
        if deadline <= self._clock.monotonic():
            raise DeadlinePassed
        log = self._log(conversation)
        if log.head >= LAST_SEQUENCE:
            raise ConversationFull
        time_ms = self._clock.now_ms()
        if log.last_ms is not None:
            time_ms = max(time_ms, log.last_ms + 1)
        accepted = Accepted(log.head, time_ms)
        log.entries.append(Entry(accepted.sequence, time_ms, entry.body, entry.audience, entry.original))
        log.last_ms = time_ms
        self._moved(conversation)
        return accepted

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        """As `Store.read_after`."""
        self._check_open()
        log = self._logs.get(conversation)
        records: list[Entry] = []
        behind_ms, size = None, 0
        for entry in log.after(position) if log else []:
            if for_stream or entry.audience is not Audience.STREAMS:
                size += len(entry.body)
                if records and (len(records) == max_activities or size > max_bytes):
                    return Page(records, position, behind_ms, self._transients, more=True)
                records.append(entry)
            position, behind_ms = entry.sequence + 1, entry.time_ms
        return Page(records, position, behind_ms, self._transients, more=False)

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """As `Store.accepted_at`."""
        self._check_open()
        log = self._logs.get(conversation)
        if log is None or not log.base <= sequence < log.head:
            return None
        return log.entries[sequence - log.base].time_ms

    def recent(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        """As `Store.recent`."""
        log = self._logs.get(conversation)
        if log is None or not log.base <= position <= log.head:
            return None
        passing = deque(each for each in log.passed if each.counter > transient and each.behind >= position)
        records: list[Entry | Transient] = []
        behind_ms, size = None, 0
        for record in _merged(log.after(position), passing):
            size += len(record.body if isinstance(record, Entry) else record.activity)
            if records and size > max_bytes:
                return Page(records, position, behind_ms, transient, more=True)
            records.append(record)
            if isinstance(record, Entry):
                position, behind_ms = record.sequence + 1, record.time_ms
            else:
                transient = record.counter
        return Page(records, position, behind_ms, max(transient, self._transients), more=False)

    def transients(self) -> int:
        """As `Store.transients`."""
        return self._transients

    def pass_by(self, conversation: ConversationId, activity: bytes) -> None:
        """As `Store.pass_by`."""
        log = self._logs.get(conversation)
        if log is not None:
            self._transients += 1
            log.passed.append(Transient(self._transients, log.head, activity))
            self._moved(conversation)

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        """As `Store.listen`."""
        self._moved = moved

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        """As `Store.members`."""
        self._check_open()
        return list(self._log(conversation).members.values())

    async def join(self, conversation: ConversationId, account: Account) -> Sequence[Member]:
        """As `Store.join`."""
        self._check_open()
        members = self._log(conversation).members
        members.setdefault(account.id, Member(account, is_bot=False, announced=False))
        return list(members.values())

    async def announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """As `Store.announced`."""
        self._check_open()
        members = self._log(conversation).members
        for account_id in account_ids:
            if account_id in members:
                known = members[account_id]
                members[account_id] = Member(known.account, is_bot=known.is_bot, announced=True)

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        """As `Store.leave`."""
        self._check_open()
        members = self._log(conversation).members
        if account_id in members and not members[account_id].is_bot:
            del members[account_id]

    async def started_by(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        """As `Store.started_by`."""
        self._check_open()
        numbered = enumerate(self._logs.items(), 1)
        theirs = [(number, name) for number, (name, log) in numbered if log.started.bot_id == bot_id]
        return [(number, name) for number, name in theirs if number > after][:most]

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        """As `Store.record_failure`."""
        self._check_open()
        earlier = self._failures.pop((failure.conversation, failure.sequence), None)
        attempts = failure.attempts + (earlier.attempts if earlier else 0)
        self._failures[failure.conversation, failure.sequence] = msgspec.structs.replace(failure, attempts=attempts)
        while len(self._failures) > most:
            del self._failures[next(iter(self._failures))]

    async def failures(self) -> Sequence[FailedDelivery]:
        """As `Store.failures`."""
        self._check_open()
        return list(self._failures.values())

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        """As `Store.settle_failure`."""
        self._check_open()
        self._failures.pop((conversation, sequence), None)

    def set_head(self, conversation: ConversationId, head: int) -> None:
        """Let an empty log begin at `head`. For tests: nobody can wait for 2^28 appends."""
        self._log(conversation).base = head

    def _log(self, conversation: ConversationId) -> _Log:
        log = self._logs.get(conversation)
        if log is None:
            raise UnknownConversation
        return log

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("Storage is closed; nothing was stored", retry=False)


def _merged(entries: list[Entry], passing: deque[Transient]) -> list[Entry | Transient]:
    """Each transient right before the entry that was the next when it passed."""
    merged: list[Entry | Transient] = []
    for entry in entries:
        while passing and passing[0].behind <= entry.sequence:
            merged.append(passing.popleft())
        merged.append(entry)
    return [*merged, *passing]
