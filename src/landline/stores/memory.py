"""The model: conversation logs as plain lists. What every other store is compared with; it ends with the process.

It keeps everything, answers at once, and is never unavailable while it is open. Nothing here is clever, so that nothing
here has to be trusted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from landline.core.conversation import Account, Conversation, Member, NewConversation, as_member
from landline.core.failure import FailedDelivery
from landline.core.log import (
    LAST_SEQUENCE,
    Accepted,
    Audience,
    ConversationId,
    Entry,
    NewEntry,
    Original,
    Page,
    SendKey,
    Transient,
)
from landline.errors import (
    Conflict,
    ConversationFull,
    DeadlinePassed,
    StoreUnavailable,
    TooManyMembers,
    UnknownActivity,
    UnknownConversation,
)
from landline.ports import Clock, Store

_TRANSIENTS = 64
"""Transients kept per conversation: who is slower than that has missed some (D-49)."""


class _Sent(NamedTuple):
    """The first send with a key."""

    digest: bytes
    accepted: Accepted


class _Log:
    """One conversation. Entries stand at their numbers less `base`: 0 until some expire, or a test sets the head."""

    def __init__(self, started: NewConversation, number: int, used_ms: int) -> None:
        self.started = started
        self.number = number
        self.used_ms = used_ms
        self.base = 0
        self.oldest = 0
        self.sent: dict[tuple[str, str], _Sent] = {}
        self.last_ms: int | None = None
        self.entries: list[Entry] = []
        self.passed: deque[Transient] = deque(maxlen=_TRANSIENTS)
        self.members: dict[str, Member] = {}
        self.left: set[str] = set()
        self.claims: dict[str, int] = {}
        """Until when somebody is telling the bot of a join."""
        for account, is_bot in ((Account(started.bot_id), True), (started.user, False), (started.guest, False)):
            if account is not None:
                self.members.setdefault(account.id, Member(as_member(account), is_bot=is_bot, announced=False))

    @property
    def head(self) -> int:
        return self.base + len(self.entries)

    def after(self, position: int) -> list[Entry]:
        return self.entries[max(0, position - self.base) :]

    def entry(self, sequence: int) -> Entry | None:
        return self.entries[sequence - self.base] if self.base <= sequence < self.head else None

    def left_of(self, sequence: int) -> Entry | None:
        """The entry with this number, or its latest version if it has expired."""
        versions = [entry for entry in self.entries if entry.original and entry.original.sequence == sequence]
        return versions[-1] if sequence < self.oldest and versions else self.entry(sequence)

    def original(self, sequence: int) -> Entry:
        """The same of an activity which is not a later version of another."""
        found = self.left_of(sequence)
        if found is None or (found.sequence == sequence and found.original is not None):
            raise UnknownActivity
        return found

    def next(self, now_ms: int) -> Accepted:
        if self.head >= LAST_SEQUENCE:
            raise ConversationFull
        return Accepted(self.head, now_ms if self.last_ms is None else max(now_ms, self.last_ms + 1))

    def erase(self, sequence: int) -> None:
        """The activity with this number and all its later versions."""
        for index, entry in enumerate(self.entries):
            if sequence == (entry.original or entry).sequence:
                self.entries[index] = Entry(entry.sequence, entry.time_ms, b"", Audience.NOBODY, entry.original)

    def earlier(self, key: SendKey) -> Accepted | None:
        """What the first send with this key was assigned."""
        sent = self.sent.get((key.sender, key.key))
        if sent is None or sent.accepted.time_ms < key.since_ms:
            return None
        if sent.digest != key.digest:
            raise Conflict
        return Accepted(sent.accepted.sequence, sent.accepted.time_ms, repeated=True, taken=sent.accepted.taken)

    def taken(self, sequence: int) -> None:
        for key, sent in self.sent.items():
            if sent.accepted.sequence == sequence:
                self.sent[key] = _Sent(sent.digest, Accepted(sequence, sent.accepted.time_ms, taken=True))

    def expire(self) -> None:
        """The first entry is gone."""
        del self.entries[0]
        self.base += 1
        self.oldest = self.base


class MemoryStore(Store):
    """A `landline.ports.Store` without a disk: durable means that it is in a list."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self._kept: dict[str, bytes] = {}
        self._logs: dict[ConversationId, _Log] = {}
        self._started = 0
        self._failures: dict[tuple[ConversationId, int], FailedDelivery] = {}
        self._arrived: deque[tuple[_Log, int]] = deque()
        self._tombstones: dict[ConversationId, int] = {}
        self._uncleared: dict[ConversationId, None] = {}
        self._transients = 0
        self._moved: Callable[[ConversationId], None] = lambda conversation: None

    async def open(self) -> None:
        """There is nothing that could be wrong."""

    async def close(self) -> None:
        self._closed = True

    async def check(self) -> None:
        self._check_open()

    async def put_if_absent(self, name: str, value: bytes) -> bytes:
        self._check_open()
        return self._kept.setdefault(name, value)

    async def get(self, name: str) -> bytes | None:
        self._check_open()
        return self._kept.get(name)

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        self._check_open()
        return {name: value for name, value in self._kept.items() if name.startswith(prefix)}

    def watch(self, changed: Callable[[], None]) -> None:
        """There is no other node."""

    async def compare_and_set(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        self._check_open()
        if self._kept.get(name) != old:
            return False
        if new is None:
            self._kept.pop(name, None)
        else:
            self._kept[name] = new
        return True

    async def start(self, conversation: NewConversation) -> bool:
        self._check_open()
        if conversation.id in self._logs or conversation.id in self._tombstones:
            return False
        self._started += 1
        self._logs[conversation.id] = _Log(conversation, self._started, self._clock.now_ms())
        return True

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        self._check_open()
        return self.cached_conversation(conversation)

    def cached_conversation(self, conversation: ConversationId) -> Conversation | None:
        log = self._logs.get(conversation)
        if log is None:
            return None
        new = log.started
        return Conversation(new.id, new.bot_id, new.user, new.locale, log.head, log.last_ms, log.oldest)

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        log = self._writable(conversation, deadline)
        if entry.key is not None and (earlier := log.earlier(entry.key)) is not None:
            return earlier
        if entry.original is not None and log.original(entry.original.sequence).is_deleted:
            raise UnknownActivity
        if entry.newcomer is not None:
            members, newcomer = log.members, entry.newcomer
            if len(members) >= newcomer.most_members and newcomer.account_id not in members:
                raise TooManyMembers
        accepted = self._add(log, log.next(self._clock.now_ms()), entry, entry.original)
        if entry.key is not None:
            log.sent[entry.key.sender, entry.key.key] = _Sent(entry.key.digest, accepted)
        self._moved(conversation)
        return accepted

    async def delete(
        self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float
    ) -> Accepted | None:
        log = self._writable(conversation, deadline)
        if log.original(sequence).is_deleted:
            return None
        accepted = log.next(self._clock.now_ms())
        log.erase(sequence)
        self._add(log, accepted, notice, Original(sequence, accepted.time_ms))
        self._moved(conversation)
        return accepted

    def mark_taken(self, conversation: ConversationId, sequence: int) -> None:
        if conversation in self._logs:
            self._logs[conversation].taken(sequence)

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        self._check_open()
        log = self._logs.get(conversation)
        if log is None:
            raise UnknownConversation
        records: list[Entry] = []
        behind_ms, size = None, 0
        for entry in log.after(position):
            if entry.audience is Audience.EVERYONE or (for_stream and entry.audience is Audience.STREAMS):
                size += len(entry.body)
                if records and (len(records) == max_activities or size > max_bytes):
                    return Page(records, position, behind_ms, self._transients, more=True)
                records.append(entry)
            position, behind_ms = entry.sequence + 1, entry.time_ms
        if position < log.oldest:
            position, behind_ms = log.head, log.last_ms
        return Page(records, position, behind_ms, self._transients, more=False)

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        self._check_open()
        return self.cached_time(conversation, sequence)

    def cached_time(self, conversation: ConversationId, sequence: int) -> int | None:
        log = self._logs.get(conversation)
        entry = log.entry(sequence) if log else None
        return entry.time_ms if entry else None

    async def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        self._check_open()
        log = self._logs.get(conversation)
        return log.left_of(sequence) if log else None

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
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
            if not isinstance(record, Entry) or record.audience is not Audience.NOBODY:
                records.append(record)
            if isinstance(record, Entry):
                position, behind_ms = record.sequence + 1, record.time_ms
            else:
                transient = record.counter
        return Page(records, position, behind_ms, max(transient, self._transients), more=False)

    def transient_counter(self) -> int:
        return self._transients

    def send_transient(self, conversation: ConversationId, activity: bytes) -> None:
        log = self._logs.get(conversation)
        if log is not None:
            self._transients += 1
            log.passed.append(Transient(self._transients, log.head, activity))
            self._moved(conversation)

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        self._moved = moved

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        self._check_open()
        return list(self._log(conversation).members.values())

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        self._check_open()
        members = self._log(conversation).members
        if account.id not in members and most is not None and len(members) >= most:
            raise TooManyMembers
        members.setdefault(account.id, Member(as_member(account), is_bot=False, announced=False))
        return list(members.values())

    async def claim_joins(
        self, conversation: ConversationId, account_ids: Sequence[str], until_ms: int
    ) -> Sequence[str]:
        self._check_open()
        log, now_ms = self._log(conversation), self._clock.now_ms()
        due = {account_id for account_id, member in log.members.items() if not member.announced}
        mine = [each for each in account_ids if each in due and log.claims.get(each, 0) <= now_ms]
        log.claims.update(dict.fromkeys(mine, until_ms))
        return mine

    async def release_joins(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        self._check_open()
        for account_id in account_ids:
            self._log(conversation).claims.pop(account_id, None)

    async def mark_announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        self._check_open()
        members = self._log(conversation).members
        for account_id in account_ids:
            if account_id in members:
                known = members[account_id]
                members[account_id] = Member(known.account, is_bot=known.is_bot, announced=True)

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        self._check_open()
        members = self._log(conversation).members
        if account_id in members and not members[account_id].is_bot:
            del members[account_id]
            self._log(conversation).left.add(account_id)
            self._log(conversation).claims.pop(account_id, None)

    async def conversations_of_bot(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        self._check_open()
        theirs = [(log.number, name) for name, log in self._logs.items() if log.started.bot_id == bot_id]
        return [(number, name) for number, name in theirs if number > after][:most]

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        self._check_open()
        earlier = self._failures.pop((failure.conversation, failure.sequence), None)
        attempts = failure.attempts + (earlier.attempts if earlier else 0)
        self._failures[failure.conversation, failure.sequence] = msgspec.structs.replace(failure, attempts=attempts)
        while len(self._failures) > most:
            del self._failures[next(iter(self._failures))]

    async def failures(self) -> Sequence[FailedDelivery]:
        self._check_open()
        return list(self._failures.values())

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        self._check_open()
        self._failures.pop((conversation, sequence), None)

    # How long conversations are kept.

    def touch(self, conversation: ConversationId, at_ms: int) -> None:
        if conversation in self._logs:
            self._logs[conversation].used_ms = max(at_ms, self._logs[conversation].used_ms)

    async def idle_conversations(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        self._check_open()
        unused = [(log.used_ms, conversation) for conversation, log in self._logs.items() if log.used_ms < before_ms]
        return [conversation for _, conversation in sorted(unused)[:most]]

    async def conversations_of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        self._check_open()
        found = [
            conversation
            for conversation, log in self._logs.items()
            if account_id in log.left or (account_id in log.members and not log.members[account_id].is_bot)
        ]
        return found[:most]

    async def purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        self._check_open()
        log = self._logs.get(conversation)
        if log is None:
            return False
        log.used_ms = max(log.used_ms, log.last_ms or 0)
        if used_before_ms is not None and log.used_ms >= used_before_ms:
            return False
        del self._logs[conversation]
        self._failures = {place: failure for place, failure in self._failures.items() if place[0] != conversation}
        self._tombstones[conversation] = self._clock.now_ms()
        self._uncleared[conversation] = None
        return True

    async def is_purged(self, conversation: ConversationId) -> bool:
        self._check_open()
        return conversation in self._tombstones

    async def uncleared(self, most: int) -> Sequence[ConversationId]:
        self._check_open()
        return list(self._uncleared)[:most]

    async def clear(self, conversation: ConversationId) -> bool:
        self._check_open()
        self._uncleared.pop(conversation, None)
        return False

    async def drop_tombstones(self, before_ms: int) -> bool:
        self._check_open()
        for conversation, purged_ms in list(self._tombstones.items()):
            if purged_ms < before_ms and conversation not in self._uncleared:
                del self._tombstones[conversation]
        return False

    async def expire(self, before_ms: int, keys_before_ms: int, after: int) -> int | None:
        """Keys stay known for good."""
        self._check_open()
        while self._arrived and self._arrived[0][1] < before_ms:
            self._arrived.popleft()[0].expire()
        return None

    def set_head(self, conversation: ConversationId, head: int) -> None:
        """Let an empty log begin at `head`. For tests: nobody can wait for 2^28 appends."""
        self._log(conversation).base = head

    def _log(self, conversation: ConversationId) -> _Log:
        log = self._logs.get(conversation)
        if log is None:
            raise UnknownConversation
        return log

    def _add(self, log: _Log, accepted: Accepted, new: NewEntry, original: Original | None) -> Accepted:
        log.entries.append(Entry(accepted.sequence, accepted.time_ms, new.body, new.audience, original))
        log.last_ms = accepted.time_ms
        self._arrived.append((log, accepted.time_ms))
        return accepted

    def _writable(self, conversation: ConversationId, deadline: float) -> _Log:
        self._check_open()
        if deadline <= self._clock.monotonic():
            raise DeadlinePassed
        return self._log(conversation)

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
