"""The tail: where live conversations stand, and the last of what was said in them, in memory.

Live pushes and most replays are answered from here and never touch the disk. The tail is a copy of what was committed,
never ahead of it, and it may forget any conversation at any time: who asks is then told to read the log.

It is right because this process is the only one that writes: what it does not hear of did not happen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from landline.core.conversation import Conversation, NewConversation
from landline.core.log import Audience, ConversationId, Entry, Page, Transient

_ENTRY_BYTES = 250
"""What a kept entry or transient costs beside its body: the object, its integers, the header of its bytes."""

_CONVERSATION_BYTES = 900
"""What a conversation costs with nothing in it."""

_SHARE = 16
"""One conversation may fill this fraction of the tail, so that a busy one does not push out all others."""

_TRANSIENTS = 64
"""Transients kept per conversation. Open streams take them at once; each chunk of a livestream repeats what came
before it (D-33), so the last ones are those that matter."""


class _Live:
    """One conversation: entries `first` to `head` - 1, without gap. `last_ms` is None also where it is not known,
    but never where `started` is."""

    __slots__ = ("bytes", "entries", "first", "head", "last_ms", "oldest", "started", "transients")

    def __init__(self, head: int, last_ms: int | None, started: NewConversation | None, oldest: int) -> None:
        self.oldest = oldest
        self.first = head
        self.head = head
        self.last_ms = last_ms
        self.started = started
        # Lists where there is something to keep. In most conversations with an open stream nothing is being said.
        self.entries: list[Entry] | tuple[Entry, ...] = ()
        self.transients: list[Transient] | tuple[Transient, ...] = ()
        self.bytes = _CONVERSATION_BYTES


class Tail:
    """The live conversations of one process, bounded by bytes; the least recently appended goes first."""

    def __init__(self, most_bytes: int) -> None:
        """Keeps at most `most_bytes`, as far as they can be counted."""
        self._most = most_bytes
        self._bytes = 0
        self._live: OrderedDict[ConversationId, _Live] = OrderedDict()
        self.transients = 0
        """The counter of the last transient."""
        self.forgotten = 0
        """How often a conversation was forgotten: for `meet`."""

    def meet(
        self,
        conversation: ConversationId,
        head: int,
        last_ms: int | None,
        forgotten: int,
        started: NewConversation | None = None,
        oldest: int = 0,
    ) -> None:
        """Learn from the log where a conversation stands. `forgotten` is what it was before the log was asked.

        If something was forgotten since, this one may have moved and been forgotten, and `head` may be of yesterday:
        a stream would then wait at the wrong place. It is not learnt; next time, maybe.
        """
        live = self._live.get(conversation)
        if live is None:
            if forgotten == self.forgotten:
                live = self._live[conversation] = _Live(head, last_ms, started, oldest)
                self._grow(_CONVERSATION_BYTES)
        elif live.head == head and started is not None:
            live.started = started
            live.last_ms = last_ms
            live.oldest = max(live.oldest, oldest)

    def recall(self, conversation: ConversationId, entries: Sequence[Entry], forgotten: int) -> None:
        """Learn from the log what was said last: `entries`, in order, of which the last is the newest. `forgotten` as
        for `meet`; and a conversation that has moved since keeps what it has.

        Readers step over what was erased, and nothing here does, so it begins behind the last of that."""
        live = self._live.get(conversation)
        if live is None or forgotten != self.forgotten or not entries or entries[-1].sequence != live.head - 1:
            return
        first = live.head
        older: list[Entry] = []
        for entry in reversed(entries):
            if entry.audience is Audience.NOBODY or entry.sequence != first - 1:
                break
            first -= 1
            if first < live.first:
                older.append(entry)
        if older:
            older.reverse()
            live.entries = [*older, *live.entries]
            live.first = first
            self._fill(live, sum([len(entry.body) + _ENTRY_BYTES for entry in older]))

    def append(self, conversation: ConversationId, entry: Entry) -> None:
        """`entry` was committed. An update empties what was kept before it, so that no replay from memory shows what
        the log no longer would."""
        live = self._live.get(conversation)
        if live is None:
            live = self._live[conversation] = _Live(entry.sequence, None, None, 0)
            self._bytes += _CONVERSATION_BYTES
        elif entry.sequence < live.head:
            return  # `meet` read it from the log before this came round
        else:
            self._live.move_to_end(conversation)
        if entry.sequence != live.head or entry.original is not None:
            self._empty(live, entry.sequence)
        if isinstance(live.entries, list):
            live.entries.append(entry)
        else:
            live.entries = [entry]
        live.head = entry.sequence + 1
        live.last_ms = entry.time_ms
        self._fill(live, len(entry.body) + _ENTRY_BYTES)

    def pass_by(self, conversation: ConversationId, activity: bytes) -> bool:
        """Add a transient at the present head; False where the head is not known, and nobody can be shown anything."""
        live = self._live.get(conversation)
        if live is None:
            return False
        self.transients += 1
        transient = Transient(self.transients, live.head, activity)
        if isinstance(live.transients, list):
            live.transients.append(transient)
        else:
            live.transients = [transient]
        self._live.move_to_end(conversation)
        self._fill(live, len(activity) + _ENTRY_BYTES)
        if len(live.transients) > _TRANSIENTS:
            self._drop_transients(live, len(live.transients) // 2)
        return True

    def recent(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        """As `Store.read_cached`."""
        live = self._live.get(conversation)
        if live is None or not live.first <= position <= live.head:
            return None
        entries = live.entries[position - live.first :] if position < live.head else ()
        passing = live.transients
        if passing and passing[-1].counter > transient:
            passing = [each for each in passing if each.counter > transient and each.behind >= position]
            return self._merged(entries, passing, position, transient, max_bytes)
        return self._page(entries, position, transient, max_bytes)

    def _page(self, entries: Sequence[Entry], position: int, transient: int, max_bytes: int) -> Page:
        """What most reads are: entries only."""
        size = 0
        for count, entry in enumerate(entries):
            size += len(entry.body)
            if size > max_bytes and count:
                return Page(entries[:count], entry.sequence, entries[count - 1].time_ms, transient, more=True)
        if not entries:
            return Page([], position, None, max(transient, self.transients), more=False)
        last = entries[-1]
        return Page(entries, last.sequence + 1, last.time_ms, max(transient, self.transients), more=False)

    def _merged(
        self, entries: Sequence[Entry], passing: Sequence[Transient], position: int, transient: int, max_bytes: int
    ) -> Page:
        """Each transient right before the entry that was the next when it passed."""
        ordered: list[Entry | Transient] = [*entries, *passing]
        ordered.sort(key=_place)
        records: list[Entry | Transient] = []
        behind_ms, size = None, 0
        for record in ordered:
            size += len(record.body if isinstance(record, Entry) else record.activity)
            if size > max_bytes and records:
                return Page(records, position, behind_ms, transient, more=True)
            records.append(record)
            if isinstance(record, Entry):
                position, behind_ms = record.sequence + 1, record.time_ms
            else:
                transient = record.counter
        return Page(records, position, behind_ms, max(transient, self.transients), more=False)

    def conversation(self, conversation: ConversationId) -> Conversation | None:
        """The conversation as it stands, or None where that is not known here."""
        live = self._live.get(conversation)
        if live is None or live.started is None:
            return None
        new = live.started
        return Conversation(new.id, new.bot_id, new.user, new.locale, live.head, live.last_ms, live.oldest)

    def head(self, conversation: ConversationId) -> int | None:
        """The number that comes next, as far as is known here, or None where the conversation is not."""
        live = self._live.get(conversation)
        return None if live is None else live.head

    def oldest(self, conversation: ConversationId) -> int | None:
        """The first number that is left, as far as is known here, or None where the conversation is not."""
        live = self._live.get(conversation)
        return None if live is None else live.oldest

    def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """The acceptance time of an entry, or None where that is not known here."""
        live = self._live.get(conversation)
        if live is None or not live.first <= sequence < live.head:
            return None
        return live.entries[sequence - live.first].time_ms

    def forget(self, conversation: ConversationId) -> None:
        """The conversation is gone."""
        live = self._live.pop(conversation, None)
        if live is not None:
            self._bytes -= live.bytes
        self.forgotten += 1  # what is being read of it now is not learnt either

    def expire(self, conversation: ConversationId, oldest: int) -> None:
        """What is numbered below `oldest` is gone."""
        self.forgotten += 1
        live = self._live.get(conversation)
        if live is not None:
            live.oldest = max(live.oldest, oldest)
            self._let_go(live, max(0, min(oldest, live.head) - live.first))

    def _fill(self, live: _Live, size: int) -> None:
        live.bytes += size
        if live.bytes > self._most // _SHARE:
            self._halve(live)
        self._grow(size)

    def _grow(self, size: int) -> None:
        self._bytes += size
        while self._bytes > self._most:
            self._bytes -= self._live.popitem(last=False)[1].bytes
            self.forgotten += 1

    def _halve(self, live: _Live) -> None:
        """Let go of the older half: cheaper than one at a time, since a list moves up for each."""
        self._let_go(live, len(live.entries) // 2)
        self._drop_transients(live, len(live.transients) // 2)

    def _let_go(self, live: _Live, count: int) -> None:
        gone, live.entries = live.entries[:count], live.entries[count:] or ()
        live.first += len(gone)
        self._shrink(live, sum(len(entry.body) + _ENTRY_BYTES for entry in gone))

    def _empty(self, live: _Live, first: int) -> None:
        live.entries = live.transients = ()
        self._shrink(live, live.bytes - _CONVERSATION_BYTES)
        live.first = live.head = first

    def _drop_transients(self, live: _Live, count: int) -> None:
        gone, live.transients = live.transients[:count], live.transients[count:] or ()
        self._shrink(live, sum(len(each.activity) + _ENTRY_BYTES for each in gone))

    def _shrink(self, live: _Live, size: int) -> None:
        live.bytes -= size
        self._bytes -= size


def _place(record: Entry | Transient) -> tuple[int, int]:
    """A transient stands before the entry with the number it is tagged with; several in the order they passed."""
    if isinstance(record, Entry):
        return record.sequence, 1 << 62
    return record.behind, record.counter
