"""Bringing activities to bots: joins first, then activities as they were accepted.

Each has a place in the line of its conversation (`line.py`); the joins that are due go ahead of it (`joins.py`). What a
bot says in its answer instead of calling back goes the way of everything that it says (bot-side 2.6).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from landline.channel.delivery_tasks import DeliveryTasks
from landline.channel.joins import Joins
from landline.channel.line import Place
from landline.channel.parsing import parsed
from landline.channel.registry import Registry
from landline.core import activity
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation
from landline.core.failure import FailedDelivery
from landline.core.log import ConversationId
from landline.errors import BotRejected, DeliveryError, LandlineError, NoBot
from landline.ports import BotAnswer, BotTransport, Clock, Store

OnReply = Callable[[Bot, Conversation, bytes], Awaitable[None]]
"""Accept an activity that a bot answered with. Never raises: there is nobody left to be told."""

_FAILURES = 1000
"""Failed deliveries kept for operators. They are offered again by hand; more than that is a matter for the bot."""

_RECORD_S = 1.0
"""How long a failed request waits for its failure to be on record."""

_REACH_S = 1.0
"""How long a join may still take to reach its bot when nothing else is waited for."""

_log = structlog.get_logger(__name__)


class Delivery:
    """Brings activities and joins to bots, in order, inside the deadline of whoever sends them."""

    def __init__(
        self,
        store: Store,
        transport: BotTransport,
        registry: Registry,
        clock: Clock,
        *,
        on_reply: OnReply,
        join_wait_s: float,
        members: int,
    ) -> None:
        """A conversation has at most so many `members`, the bot among them."""
        self._store = store
        self._transport = transport
        self._registry = registry
        self._clock = clock
        self._on_reply = on_reply
        self._lines: dict[ConversationId, Place] = {}
        self._tasks = DeliveryTasks(clock)
        self.joins = Joins(store, clock, self._post, self._tasks, join_wait_s=join_wait_s, members=members)

    def check_bot(self, conversation: Conversation, sender: Account) -> None:
        """Raises `NoBot` where there is nobody to bring anything to: known before a place is taken and before anything
        is prepared for the bot, so that to be without one costs nothing. `deliver` looks once more."""
        if self._registry.bot(conversation.bot_id).endpoint is None:
            self.joins.remember(conversation.id, sender)
            raise NoBot

    def enter(self, conversation: ConversationId) -> Place:
        """Take the next place in the conversation's line. Never waits; must be left in the end."""
        return Place(self._lines, conversation)

    async def deliver(
        self,
        conversation: Conversation,
        sender: Account,
        body: Callable[[], bytes],
        deadline: float,
        place: Place,
        *,
        retry: bool,
        sequence: int | None = None,
    ) -> BotAnswer:
        """POST `body` to the conversation's bot in its turn, after the joins that are due, the sender's among them.

        The body is made when it is to be written: who waits holds nothing twice. `sequence` is its number, if it has
        one. Raises `TooManyMembers` where the sender can be no member, and `DeliveryError`; if it could be offered
        again, that is recorded for operators, unless there is no bot to offer it to. The place has been left when this
        ends.
        """
        try:
            return await self._deliver(conversation, sender, body, deadline, place, retry=retry)
        except DeliveryError as error:
            if sequence is not None and retry and not isinstance(error, NoBot):
                await self._record(conversation, sequence, error)
            raise

    async def _deliver(
        self,
        conversation: Conversation,
        sender: Account,
        body: Callable[[], bytes],
        deadline: float,
        place: Place,
        *,
        retry: bool,
    ) -> BotAnswer:
        try:
            bot = self._endpoint(conversation)
            waited = await place.turn(deadline)
            await self.joins.tell_of(conversation, bot, sender, deadline)
            on_written = _nothing if bot.serial else place.leave
            return await self._post(conversation, bot, body(), deadline, on_written, retry=retry, own_connection=waited)
        except DeliveryError:
            self.joins.remember(conversation.id, sender)
            raise
        finally:
            place.leave()

    async def _record(self, conversation: Conversation, sequence: int, error: DeliveryError) -> None:
        """Tell operators. A store in trouble holds up the answer only so long, and changes nothing about it."""
        status = error.status if isinstance(error, BotRejected) else None
        now_ms = self._clock.now_ms()
        failure = FailedDelivery(conversation.bot_id, conversation.id, sequence, now_ms, error.message, status)
        recording = self._tasks.keep(self._store.record_failure(failure, _FAILURES))
        await asyncio.wait((recording,), timeout=_RECORD_S)

    def settle(self, conversation: ConversationId, sequence: int) -> None:
        """The bot took in the end what it may have failed to take before: nobody has to offer it again."""
        self._tasks.keep(self._store.settle_failure(conversation, sequence))

    async def _post(
        self,
        conversation: Conversation,
        bot: Bot,
        body: bytes,
        deadline: float,
        on_written: Callable[[], None],
        *,
        retry: bool = True,
        own_connection: bool = False,
    ) -> BotAnswer:
        """POST `body`, and accept what the bot answers with."""
        if bot.timeout_s is not None:
            deadline = min(deadline, self._clock.monotonic() + bot.timeout_s)
        answer = await self._transport.deliver(
            bot,
            body,
            deadline,
            retry=retry,
            own_connection=own_connection,
            on_written=on_written,
            on_activity=partial(self._on_reply, bot, conversation),
        )
        if bot.delivery_mode is not None and retry and answer.body:
            # Whatever becomes of the request: nobody else has these, and the bot will not say them again.
            accepting = self._tasks.keep(self._accept_replies(bot, conversation, answer.body))
            await asyncio.wait((accepting,), timeout=max(0.0, deadline - self._clock.monotonic()))
        return answer

    async def _accept_replies(self, bot: Bot, conversation: Conversation, body: bytes) -> None:
        """Accept synchronous replies in their order (bot-side 2.6)."""
        try:
            replies = await parsed(len(body), partial(activity.replies, body))
        except LandlineError as error:
            _log.warning(
                "a bot's answer has no replies", bot=bot.id, conversation=conversation.id, reason=error.message
            )
            return
        for reply in replies:
            await self._on_reply(bot, conversation, reply)

    def announce(self, conversation: Conversation, deadline: float) -> None:
        """Tell the bot of the members whose join is due, in the background, ahead of everything that comes later.

        Never fails the caller's request: a start does not depend on its bot (5.2, D-23).
        """
        if self._registry.bot(conversation.bot_id).endpoint is not None:
            self._tasks.keep(self._announce(conversation, deadline, self.enter(conversation.id)))

    async def _announce(self, conversation: Conversation, deadline: float, place: Place) -> None:
        try:
            bot = self._endpoint(conversation)
            await place.turn(deadline)
            await self.joins.tell_of_all(conversation, bot, deadline)
        except LandlineError as error:
            _log.warning("join not announced, it stays due", conversation=conversation.id, reason=error.message)
        finally:
            place.leave()

    def _endpoint(self, conversation: Conversation) -> Bot:
        bot = self._registry.bot(conversation.bot_id)
        if bot.endpoint is None:
            raise NoBot
        return bot

    async def finish(self, until: float) -> None:
        """Let what is under way in the background come to its end, until then (on the scale of `Clock.monotonic`).

        A join that is cut off after the bot has it would be announced again by the next process (D-38). One that the
        bot does not get, because it is down, is given up soon: it stays due in any case."""
        await self._tasks.wait(min(until, self._clock.monotonic() + _REACH_S))
        self.joins.give_up_unwritten()
        await self._tasks.wait(until)

    async def close(self) -> None:
        """End what is under way in the background; joins that were not announced stay due."""
        await self._tasks.cancel()


def _nothing() -> None:
    """A serial bot's turn is not over when its request was written."""
