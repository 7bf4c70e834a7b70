"""The doors between the rooms. These docstrings are the contract: a new store or transport is written from here alone.

Times are UTC milliseconds since 1970 (`*_ms`) where they are kept, and seconds of `Clock.monotonic` where they bound a
wait (`deadline`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from landline.core.attachments import ORIGINAL, Attachment, AttachmentId
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.failure import FailedDelivery
from landline.core.log import Accepted, ConversationId, Entry, NewEntry, Page


class Clock(Protocol):
    """What time it is. The only source of time outside tests is the system's."""

    def now_ms(self) -> int:
        """UTC, milliseconds since 1970. May step backwards; stores continue at last + 1 ms (D-30)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step backwards, on the event loop's own scale."""
        ...


class Log(Protocol):
    """The conversation logs: the only source of what clients receive."""

    async def start(self, conversation: NewConversation) -> bool:
        """Make the conversation exist, with the bot, and the user or guest if known, as members whose join is due.

        True if this call created it, False if it existed (then nothing changes). Atomic: of concurrent calls exactly
        one answers True (D-24)."""
        ...

    async def conversation(self, conversation: ConversationId) -> Conversation | None:
        """The conversation, or None where none was started."""
        ...

    async def append(self, conversation: ConversationId, entry: NewEntry, deadline: float) -> Accepted:
        """Add `entry` at the head. The number is the next of this conversation, the time is max(clock, last + 1 ms);
        both are assigned in the transaction that makes the entry durable.

        Order: entries are numbered in the order in which `append` was called on this node. Answers, and calls of the
        listener, follow that order too, and the listener is called before the answer, so the echo is on its way first.

        At `deadline` an append still queued is withdrawn: `DeadlinePassed`, nothing stored. One whose commit is running
        gets up to 2 s more, then `OutcomeUnknown`. A full queue is `StoreUnavailable` at once. Raises
        `UnknownConversation`, and `ConversationFull` when the last number is used up (nothing written then).

        An entry with a `key` is appended once: the key is written in the same transaction, and whoever comes with it
        again, in this group, later, or after a restart, is answered what was assigned the first time. `Conflict` if it
        comes with another digest. An entry with an `original` is another version of that activity: `UnknownActivity`
        unless the original, or a version of it if it has expired, is there, not deleted, and the original is no such
        version itself; decided in the same transaction. An entry with a `newcomer` is `TooManyMembers` where that one
        is no member and would be one more than there may be, unless its key is known."""
        ...

    async def delete(
        self, conversation: ConversationId, sequence: int, notice: NewEntry, deadline: float
    ) -> Accepted | None:
        """Erase the content of the activity with this number and of all its later versions, so that no reader ever sees
        them again, and append `notice`, shown under the id of the activity and with a time of its own; all of it in one
        transaction (D-35). None if it was deleted before: nothing changes then.

        Order, deadline and errors are those of `append`; `UnknownActivity` where there is no such activity. One that
        has expired is there for as long as a version of it is."""
        ...

    def mark_taken(self, conversation: ConversationId, sequence: int) -> None:
        """The bot took this activity: a repeat of the send is answered so. Every `append` after this call knows it.
        Written with a later group: a crash may lose it, and the repeat is then offered to the bot once more."""
        ...

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        """Entries numbered `position` and up, in order, at most that many and that many bytes of body, but at least one
        where one exists. `for_stream` includes entries of `Audience.STREAMS`; otherwise they are stepped over, and the
        page's position lies behind them. Transients are never in it; its `transient` is the counter at the time the
        read began, so that a reader that goes on with `recent` misses none accepted after it. Raises
        `UnknownConversation` where none was started, and where it was purged, on whatever node."""
        ...

    async def entry(self, conversation: ConversationId, sequence: int) -> Entry | None:
        """That entry as it is now (`Audience.NOBODY` once it was deleted). If it has expired, the latest entry that is
        left with it as its `original`: a version, or the notice of its delete. None where there is nothing."""
        ...

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """The acceptance time of that entry in ms, or None where there is no such entry.

        Of the last number of the gap that a declared restore left (8.1.6), that of the last entry before the gap: it is
        what proves the position behind it (8.2.7)."""
        ...

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        """Call `moved` on the event loop when a log moved or a transient passed. A hint: it may come late, twice, or
        not at all; it carries nothing. One listener per store."""
        ...


class Live(Protocol):
    """What this node knows at once, from its memory. Nothing here touches the disk."""

    def cached_conversation(self, conversation: ConversationId) -> Conversation | None:
        """The same as `conversation`, but at once and from memory; None where memory does not know. Never touches the
        disk."""
        ...

    def cached_time(self, conversation: ConversationId, sequence: int) -> int | None:
        """The same as `accepted_at`, likewise."""
        ...

    def read_cached(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        """The same as `read_after(for_stream=True)`, but at once and from memory, with the transients that lie between.

        None where memory does not reach back to `position`: read the log then. Transients with a counter up to
        `transient`, or behind `position`, are left out. Never touches the disk."""
        ...

    def transient_counter(self) -> int:
        """The counter of the last transient accepted in this process; where a new stream begins to listen."""
        ...

    def send_transient(self, conversation: ConversationId, activity: bytes) -> None:
        """Show a transient (complete JSON) to the streams that are open now, best effort, at the present head."""
        ...


class Members(Protocol):
    """Who takes part in which conversation."""

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        """The members in the order in which they became known. Raises `UnknownConversation`."""
        ...

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        """Make `account` a member (see `core.conversation.as_member`), its join due, unless it is one already; answer
        all members as `members` does. Raises `TooManyMembers`, with nothing changed, where it would be one more than
        `most`."""
        ...

    async def claim_joins(
        self, conversation: ConversationId, account_ids: Sequence[str], until_ms: int
    ) -> Sequence[str]:
        """Which of these members' joins the caller may announce: those that are due and that no other node has claimed.
        Atomic: of concurrent claims, on any node, exactly one has each. The claim ends with `announced`, with
        `release_joins`, or at `until_ms`, if its node died. Raises `UnknownConversation`."""
        ...

    async def release_joins(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """Give back what was claimed and could not be announced."""
        ...

    async def mark_announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """Mark these members' joins as announced."""
        ...

    async def leave(self, conversation: ConversationId, account_id: str) -> None:
        """End this account's membership, unless it is the bot's or there is none; that it was one stays known to
        `conversations_of_member`. Raises `UnknownConversation`."""
        ...

    async def conversations_of_member(self, account_id: str, most: int) -> Sequence[ConversationId]:
        """Conversations in which this account is a member and not the bot, or was one before it left, at most so
        many."""
        ...

    async def conversations_of_bot(self, bot_id: str, after: int, most: int) -> Sequence[tuple[int, ConversationId]]:
        """The conversations of a bot in the order in which they were started, at most so many, each with its place in
        that order, which is positive and never changes. The first has a place behind `after`."""
        ...


class Records(Protocol):
    """What the deployment keeps by name: keys, bots, sites."""

    async def put_if_absent(self, name: str, value: bytes) -> bytes:
        """Keep `value` under `name` for the life of the deployment unless something is kept there already; answer what
        is kept. Atomic: concurrent callers, on any node, all get the same answer."""
        ...

    async def get(self, name: str) -> bytes | None:
        """What is kept under `name`, or None."""
        ...

    async def list(self, prefix: str) -> Mapping[str, bytes]:
        """Everything that is kept under a name that begins with `prefix`, as it stood at one moment."""
        ...

    async def compare_and_set(self, name: str, old: bytes | None, new: bytes | None) -> bool:
        """Keep `new` under `name` in place of `old`; None stands for nothing, on either side.

        True if `old` was what was kept there; False if it was not, and then nothing changes. Atomic: of concurrent
        calls, on any node, that replace the same `old` exactly one answers True."""
        ...

    def watch(self, changed: Callable[[], None]) -> None:
        """Call `changed` on the event loop when another node changed a record. A hint: it may come late, twice, or not
        at all, so whoever must know looks again from time to time. One watcher per store."""
        ...


class Upkeep(Protocol):
    """How long conversations are kept (spec 9). Whatever removes does so in slices that take a few milliseconds, so
    that no append waits long: the caller goes on for as long as the answer asks for it."""

    def touch(self, conversation: ConversationId, at_ms: int) -> None:
        """The conversation was in use at that time. Written with a later group: a crash may lose it."""
        ...

    async def idle_conversations(self, before_ms: int, most: int) -> Sequence[ConversationId]:
        """Conversations that were last used before that time as far as is written, longest unused first, at most so
        many."""
        ...

    async def purge(self, conversation: ConversationId, used_before_ms: int | None = None) -> bool:
        """End the conversation: from the answer on it is unknown to every other method, and its members are forgotten.
        A tombstone stays, so that `start` never makes it exist again (D-24). True if this call ended it.

        With `used_before_ms`, only if it was last used before that time; an append is a use."""
        ...

    async def is_purged(self, conversation: ConversationId) -> bool:
        """Whether there is a tombstone of that name."""
        ...

    async def uncleared(self, most: int) -> Sequence[ConversationId]:
        """Purged conversations that were not cleared to the end, at most so many."""
        ...

    async def clear(self, conversation: ConversationId) -> bool:
        """Erase a slice of what a purged conversation said. True while there is more."""
        ...

    async def drop_tombstones(self, before_ms: int) -> bool:
        """Forget a slice of the tombstones of conversations that were purged before that time, and cleared. True while
        there are more."""
        ...

    async def expire(self, before_ms: int, keys_before_ms: int, after: int) -> int | None:
        """Remove a slice of the activities accepted before `before_ms`, in the order in which they came to any log, up
        to the first that is younger. It begins behind the place `after` (0 at first); the answer is where the next one
        does, None at the end. Keys of sends accepted since `keys_before_ms` stay known. A log goes on with its next
        number all the same; its `oldest` says from where on it is complete."""
        ...


class Failures(Protocol):
    """Deliveries that failed (bot 2.4)."""

    async def record_failure(self, failure: FailedDelivery, most: int) -> None:
        """Record it as the newest, in place of an older one of the same activity, whose attempts it counts too. Only
        the newest `most` are kept."""
        ...

    async def failures(self) -> Sequence[FailedDelivery]:
        """Everything that is recorded, oldest first."""
        ...

    async def settle_failure(self, conversation: ConversationId, sequence: int) -> None:
        """There is nothing to be done any more about this activity, if there was."""
        ...


class Store(Live, Log, Members, Records, Upkeep, Failures, Protocol):
    """All of it, by subject: a use case asks for the subjects that it needs.

    Every method is called on one event loop. What a method has answered is durable: it survives `kill -9` and a power
    cut. Reads see everything that was acknowledged before they began. A cancelled caller does not cancel a write.
    Writes raise `StoreUnavailable` when surely nothing was stored, `OutcomeUnknown` when that cannot be told; reads
    raise `StoreUnavailable`.

    What a method erased or removed, nobody finds on the disk either: some seconds later, whatever else happens.
    """

    async def open(self) -> None:
        """Make the store ready. Raises `DataDirectoryError`: in use by another process, damaged, of a newer version,
        or its newest entry is more than a day ahead of the clock."""
        ...

    async def close(self) -> None:
        """Finish every accepted write, then let go. Idempotent. Later calls raise `StoreUnavailable`."""
        ...

    async def check(self) -> None:
        """Return if writes work. Where the last one failed, or is still under way, that is found out by another one,
        which changes nothing, with little patience. Raises `StoreUnavailable`, which says what the trouble is."""
        ...


class Draft(Protocol):
    """An attachment on its way in. Whoever began it must `keep` or `discard` it in the end. One call at a time."""

    @property
    def id(self) -> AttachmentId:
        """Under which it will be found. URL-safe, and nobody can guess it: it is all that a download asks for (5.8)."""
        ...

    async def write(self, piece: bytes, view: str = ORIGINAL) -> None:
        """Add to a view; the views come one after the other. Holds no more than a fixed amount in memory. Raises
        `StoreUnavailable`, and where there is no room for it `TooMuchInConversation`, `TooMuchOfSite` or
        `TooLittleSpace`."""
        ...


class Blob(Protocol):
    """The bytes of an attachment, opened. They can be read to the end even if they are deleted meanwhile."""

    @property
    def attachment(self) -> Attachment:
        """What is known of them."""
        ...

    def read(self, view: str, start: int, size: int) -> AsyncGenerator[bytes, None]:
        """`size` bytes of a view from `start` on, which must be there, in pieces. Raises `StoreUnavailable`."""
        ...

    async def close(self) -> None:
        """Let go of them."""
        ...


class Blobs(Protocol):
    """The bytes of attachments. They outlast their process and a power cut from `keep` on, and are never changed.

    An entry in the log may point at a blob, so the blob is kept first; one that no entry came to point at, because the
    process died in between, is known to be in doubt.
    """

    async def open(self) -> None:
        """Make ready, and drop the drafts of a process that died. Raises `DataDirectoryError`."""
        ...

    async def close(self) -> None:
        """Finish what is under way, then let go. Idempotent."""
        ...

    def draft(self, conversation: ConversationId, site: str | None = None) -> Draft:
        """Begin an attachment in a conversation, brought by way of that site, if any. It counts against the bounds of
        both from its first byte until it is discarded, dropped, forgotten or expired."""
        ...

    async def keep(self, drafts: Sequence[tuple[Draft, Attachment]], *, doubtful: bool = False) -> None:
        """Make drafts of one conversation durable and let them be found. What is given beside each draft becomes what
        is known of it; `views` and `site` in it are ignored. What is `doubtful` is in doubt until it is
        settled. Raises what `Draft.write` does, and some may be kept then: discard all."""
        ...

    async def settle(self, attachments: Sequence[AttachmentId]) -> None:
        """An entry points at these. Never raises: where this fails, they are in doubt again after the next start."""
        ...

    def doubts(self) -> Sequence[tuple[AttachmentId, ConversationId]]:
        """What was in doubt when an earlier process died; as far as the disk can tell, which may be not at all."""
        ...

    async def drop(self, attachment: AttachmentId) -> None:
        """Delete one of them, which nothing points at. Raises `StoreUnavailable`."""
        ...

    async def discard(self, drafts: Sequence[Draft]) -> None:
        """Leave nothing of drafts, whether they were kept or not. Never raises."""
        ...

    async def find(self, attachment: AttachmentId) -> Blob | None:
        """Open the blob with that id, which may be any text, or None. Raises `StoreUnavailable`."""
        ...

    async def forget(self, conversation: ConversationId) -> None:
        """Delete everything that was kept in a conversation. Raises `StoreUnavailable`."""
        ...

    async def expire(self, before_ms: int) -> int:
        """Delete what was kept before that time; answer how much. Raises `StoreUnavailable`."""
        ...


class BotAnswer(msgspec.Struct, frozen=True):
    """A bot's 2xx answer. The body matters for an `invoke` and for synchronous replies only; that of an event stream is
    empty, besides what the bot says there about an `invoke`."""

    status: int
    content_type: str
    body: bytes


class BotTransport(Protocol):
    """Carries activities to bots. Keeps no order of its own; the caller starts deliveries in order."""

    async def deliver(
        self,
        bot: Bot,
        activity: bytes,
        deadline: float,
        *,
        retry: bool = True,
        own_connection: bool = False,
        on_written: Callable[[], None],
        on_activity: Callable[[bytes], Awaitable[None]],
    ) -> BotAnswer:
        """POST `activity` (complete JSON) to the bot and answer its 2xx.

        `on_written` is called exactly once: when the request was written completely, or when it is given up. Until then
        the caller holds back the conversation's next activity (specification 8.1.4).

        What never reached the bot (refused, DNS, TLS, reset before the request was written) is tried again with growing
        pauses until `deadline`; what may have reached it is not repeated, besides the cases of bot-side 2.4 (429 and
        503 with a `Retry-After` that fits). `retry=False` (an `invoke`) forbids those too. `own_connection` is for a
        request that follows so closely on another one that a bot might read the two in the wrong order.

        `on_activity` is awaited with each activity of an answer that is an event stream, in order, while the rest of it
        is still to come (bot-side 2.6). At the deadline such an answer counts as given, and goes on being heard for as
        long as the bot has something to say. `on_activity` does not raise.

        Raises `NoBot`, `BotUnreachable` (never written), `BotTimedOut`, `BotBroke`, `BotRejected`."""
        ...

    async def close(self) -> None:
        """Let go of connections. Deliveries under way fail as `BotBroke`."""
        ...


class TrustedIssuers(Protocol):
    """The keys of issuers whose tokens are good beside our own. Where these are the operator said, for each bot; no
    address is ever taken from a token."""

    async def key(self, key_set: str, kid: str) -> RSAPublicKey | None:
        """The key of that name, or None where the key set at that address has no such key. Asked at every use of a
        token; a key that is taken out of its set is unknown here after a bounded time.

        Raises `IssuerUnavailable` where the set could not be fetched for so long that what is known of it may be wrong,
        and where nothing is."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
