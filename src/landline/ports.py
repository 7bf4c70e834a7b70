"""The doors between the rooms. These docstrings are the contract: a new store or transport is written from here alone.

Times are UTC milliseconds since 1970 (`*_ms`) where they are kept, and seconds of `Clock.monotonic` where they bound a
wait (`deadline`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member, NewConversation
from landline.core.log import Accepted, ConversationId, NewEntry, Page


class Clock(Protocol):
    """What time it is. The only source of time outside tests is the system's."""

    def now_ms(self) -> int:
        """UTC, milliseconds since 1970. May step backwards; stores continue at last + 1 ms (D-30)."""
        ...

    def monotonic(self) -> float:
        """Seconds that never step backwards, on the event loop's own scale."""
        ...


class Store(Protocol):
    """The conversation logs: the only source of what clients receive.

    Every method is called on one event loop. What a method has answered is durable: it survives `kill -9` and a power
    cut. Reads see everything that was acknowledged before they began. A cancelled caller does not cancel a write.
    Writes raise `StoreUnavailable` when surely nothing was stored, `OutcomeUnknown` when that cannot be told; reads
    raise `StoreUnavailable`.
    """

    async def open(self) -> None:
        """Make the store ready. Raises `DataDirectoryError`: in use by another process, damaged, of a newer version,
        or its newest entry is more than a day ahead of the clock."""
        ...

    async def close(self) -> None:
        """Finish every accepted write, then let go. Idempotent. Later calls raise `StoreUnavailable`."""
        ...

    async def remember(self, name: str, value: bytes) -> bytes:
        """Keep `value` under `name` for the life of the deployment unless something is kept there already; answer what
        is kept. Atomic: concurrent callers, on any node, all get the same answer."""
        ...

    async def recall(self, name: str) -> bytes | None:
        """What is kept under `name`, or None."""
        ...

    async def start(self, conversation: NewConversation) -> bool:
        """Make the conversation exist, with the bot, and the user if known, as members whose join is due.

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
        `UnknownConversation`, and `ConversationFull` when the last number is used up (nothing written then)."""
        ...

    async def read_after(
        self, conversation: ConversationId, position: int, max_activities: int, max_bytes: int, *, for_stream: bool
    ) -> Page:
        """Entries numbered `position` and up, in order, at most that many and that many bytes of body, but at least one
        where one exists. `for_stream` includes entries of `Audience.STREAMS`; otherwise they are stepped over, and the
        page's position lies behind them. Transients are never in it; its `transient` is the counter at the time the
        read began, so that a reader that goes on with `recent` misses none accepted after it."""
        ...

    async def accepted_at(self, conversation: ConversationId, sequence: int) -> int | None:
        """The acceptance time of that entry in ms, or None where there is no such entry."""
        ...

    def recent(self, conversation: ConversationId, position: int, transient: int, max_bytes: int) -> Page | None:
        """The same as `read_after(for_stream=True)`, but at once and from memory, with the transients that lie between.

        None where memory does not reach back to `position`: read the log then. Transients with a counter up to
        `transient`, or behind `position`, are left out. Never touches the disk."""
        ...

    def transients(self) -> int:
        """The counter of the last transient accepted in this process; where a new stream begins to listen."""
        ...

    def pass_by(self, conversation: ConversationId, activity: bytes) -> None:
        """Show a transient (complete JSON) to the streams that are open now, best effort, at the present head."""
        ...

    def listen(self, moved: Callable[[ConversationId], None]) -> None:
        """Call `moved` on the event loop when a log moved or a transient passed. A hint: it may come late, twice, or
        not at all; it carries nothing. One listener per store."""
        ...

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        """The members in the order in which they became known. Raises `UnknownConversation`."""
        ...

    async def join(self, conversation: ConversationId, account: Account) -> Sequence[Member]:
        """Make `account` a member, its join due, unless it is one already; answer all members as `members` does."""
        ...

    async def announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        """Mark these members' joins as announced."""
        ...


class BotAnswer(msgspec.Struct, frozen=True):
    """A bot's 2xx answer. The body matters for an `invoke` and for synchronous replies only."""

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
        once: bool = False,
        apart: bool = False,
        written: Callable[[], None],
    ) -> BotAnswer:
        """POST `activity` (complete JSON) to the bot and answer its 2xx.

        `written` is called exactly once: when the request was written completely, or when it is given up. Until then
        the caller holds back the conversation's next activity (specification 8.1.4).

        What never reached the bot (refused, DNS, TLS, reset before the request was written) is tried again with growing
        pauses until `deadline`; what may have reached it is not repeated, besides the cases of bot-side 2.4 (429 and
        503 with a `Retry-After` that fits). `once` (an `invoke`) forbids those too. `apart` asks for a connection of
        its own: it follows so closely on another request that a bot might read the two in the wrong order.

        Raises `NoBot`, `BotUnreachable` (never written), `BotTimedOut`, `BotBroke`, `BotRejected`."""
        ...

    async def close(self) -> None:
        """Let go of connections. Deliveries under way fail as `BotBroke`."""
        ...


class TrustedIssuers(Protocol):
    """The keys of issuers whose tokens are good beside our own. Which these are, and where each has its keys, the
    operator said; no address is ever taken from a token."""

    async def key(self, issuer: str, kid: str) -> RSAPublicKey | None:
        """The key of that name, or None where the issuer is not trusted or has no such key.

        Raises `IssuerUnavailable` where its keys could not be fetched and none are known from before."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
