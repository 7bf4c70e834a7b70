"""What clients send into a conversation and read out of it (specification 5.4, 5.5, 8)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec

from landline.channel.conversations import Admitted, Conversations
from landline.channel.delivery import Delivery
from landline.channel.idempotency import Repeats, check_key
from landline.channel.parsing import AT_ONCE_BYTES, parsed
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import Grant, random_id
from landline.core import activity, links, log
from landline.core.activity import ClientActivity, Kind
from landline.core.bot import Bot
from landline.core.conversation import Conversation
from landline.core.log import Accepted, Audience, Newcomer, NewEntry, SendKey
from landline.core.watermark import Replay, watermark
from landline.errors import BadArgument
from landline.ports import Clock, Store


class Read(msgspec.Struct, frozen=True):
    """An answer of Get Activities: the ActivitySet as JSON."""

    activity_set: bytes
    replay: Replay


class PageBounds(msgspec.Struct, frozen=True):
    """Where one answer of Get Activities ends (8.3)."""

    activities: int
    bytes: int


class Activities:
    """Sending and reading, on behalf of clients."""

    def __init__(
        self,
        store: Store,
        conversations: Conversations,
        delivery: Delivery,
        repeats: Repeats,
        clock: Clock,
        bounds: PageBounds,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._delivery = delivery
        self._repeats = repeats
        self._clock = clock
        self._bounds = bounds

    def send(
        self, grant: Grant, conversation: Conversation, body: bytes, deadline: float, key: str | None = None
    ) -> Awaitable[str]:
        """Accept an activity, show it, offer it to the bot; answer its id once the bot took it (5.5).

        Durable, and on its way to every stream, before the bot hears of it (D-32). When the bot fails the activity
        stays (D-46) and `DeliveryError` is raised. Raises `RequestError` with nothing stored and nothing sent.

        Who sends the same once more with the same `key` (the `Idempotency-Key`) has it appended once (8.5); raises
        `Conflict` for something else with that key.
        """
        grant.check_bound()
        read = partial(
            activity.from_client,
            body,
            conversation=conversation.id,
            bot=grant.bot,
            bound=grant.user,
            may_use_dl=grant.may_claim_dl,
        )
        if len(body) > AT_ONCE_BYTES:
            return self._send_long(grant, conversation, read, body, deadline, key)
        posted = read()
        send_key = None if key is None else self.key(posted, key, body)
        return self.accept(grant.bot, conversation, posted, deadline, send_key)

    async def _send_long(
        self,
        grant: Grant,
        conversation: Conversation,
        read: Callable[[], ClientActivity],
        body: bytes,
        deadline: float,
        key: str | None,
    ) -> str:
        posted = await parsed(len(body), read)
        send_key = None if key is None else self.key(posted, key, body)
        return await self.accept(grant.bot, conversation, posted, deadline, send_key)

    def key(self, posted: ClientActivity, key: str, *sent: bytes) -> SendKey:
        """What an `Idempotency-Key` makes of a request; `sent` is what it says. Raises `BadArgument`."""
        check_key(key)
        if posted.type == "invoke":
            # A repeat is offered to the bot as it was stored, and that may lack its value (D-34).
            raise BadArgument("An invoke cannot have an Idempotency-Key")
        return self._repeats.key(posted.sender.id, key, *sent)

    async def send_from_stream(self, admitted: Admitted, body: bytes, deadline: float) -> str:
        """The same, for an activity that came through a stream: its ticket says who may speak (7.6, D-41)."""
        conversation, bot = admitted.conversation, admitted.bot
        posted = activity.from_client(body, conversation=conversation.id, bot=bot, bound=None, may_use_dl=True)
        self._conversations.check_speaker(admitted.ticket, posted.sender)
        return await self.accept(bot, conversation, posted, deadline)

    def accept(
        self,
        bot: Bot,
        conversation: Conversation,
        posted: ClientActivity,
        deadline: float,
        key: SendKey | None = None,
        used: Callable[[], None] = lambda: None,
    ) -> Awaitable[str]:
        """The same, for an activity that was read and found good already. `used` is called once it
        is in the log or about to go to the bot; for a repeat that neither needs it is not."""
        if key is None:
            return self._accept(bot, conversation, posted, deadline, None, used)
        return self._repeats.once(
            conversation.id, key, lambda: self._accept(bot, conversation, posted, deadline, key, used)
        )

    async def _accept(
        self,
        bot: Bot,
        conversation: Conversation,
        posted: ClientActivity,
        deadline: float,
        key: SendKey | None,
        used: Callable[[], None],
    ) -> str:
        accepted = None
        if posted.kind in (Kind.STORED, Kind.STREAMS_ONLY):
            newcomer = self._delivery.joins.newcomer(conversation.id, posted.sender)
            entry = entry_of(posted.kind, posted.stored, key, newcomer)
            accepted = await append(self._store, conversation, entry, deadline)
            activity_id = log.activity_id(conversation.id, accepted.sequence)
            time = log.timestamp(accepted.time_ms)
            if accepted.taken:
                return activity_id
        else:
            # Not in the log, so there is nothing that a key could be written with.
            activity_id, time = pass_by(self._store, self._clock, conversation, posted.kind, posted.stored)
        used()
        self._delivery.check_bot(conversation, posted.sender)
        # No await between the append's answer and this line: places in the line stand in log order (8.1.4).
        place = self._delivery.enter(conversation.id)
        await self._delivery.deliver(
            conversation,
            posted.sender,
            partial(posted.for_bot, bot, activity_id, time),
            deadline,
            place,
            retry=posted.type != "invoke",
            sequence=None if accepted is None else accepted.sequence,
        )
        if accepted is not None and key is not None:
            self._store.mark_taken(conversation.id, accepted.sequence)
            if accepted.repeated:
                self._delivery.settle(conversation.id, accepted.sequence)
        return activity_id

    async def read(self, conversation: Conversation, text: str | None, base: str = "") -> Read:
        """One page after the watermark, and the watermark behind it (5.4, 8.3). Reading consumes nothing.

        `base` is the public base that the reader came by, for links in what it reads."""
        start = await self._conversations.locate(conversation, text, absent_means_head=False)
        page = await self._store.read_after(
            conversation.id, start.position, self._bounds.activities, self._bounds.bytes, for_stream=False
        )
        end = start.watermark
        if page.behind_ms is not None:
            end = watermark(conversation.id, page.position, page.behind_ms)
        return Read(log.activity_set(conversation.id, page, end, links.json_text(base)), start.replay)


def append(
    store: Store, conversation: Conversation, entry: NewEntry, deadline: float, give_up: float | None = None
) -> Awaitable[Accepted]:
    """`Store.append`, offered again until `give_up` (by default `deadline`) while the store is in trouble."""
    until = deadline if give_up is None else give_up
    return retry_while_unavailable(until, lambda: store.append(conversation.id, entry, deadline))


def entry_of(kind: Kind, stored: bytes, key: SendKey | None = None, newcomer: Newcomer | None = None) -> NewEntry:
    """The log entry of a stored activity of either kind (6.3)."""
    audience = Audience.STREAMS if kind is Kind.STREAMS_ONLY else Audience.EVERYONE
    return NewEntry(stored, audience, None, key, newcomer)


def pass_by(store: Store, clock: Clock, conversation: Conversation, kind: Kind, stored: bytes) -> tuple[str, str]:
    """Give a transient its id and time, and show it to open streams unless clients never see its type (6.3, D-49)."""
    seen = kind is Kind.TRANSIENT
    activity_id = activity.transient_id(conversation.id, random_id(), seen=seen)
    time = log.timestamp(clock.now_ms())
    if seen:
        store.send_transient(conversation.id, activity.complete(stored, activity_id, time))
    return activity_id, time
