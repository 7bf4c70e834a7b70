"""The order in which a bot hears of one conversation: joins first, then activities as they were accepted.

Theory of operation. Each conversation with something under way has a *line*. Whoever has an activity for the bot takes
a place in it at once, without waiting for anything, right behind the append: so the places stand in log order. A place
is left when its request has been *written*, not when it is answered; turns of a bot may therefore overlap, and a slow
turn holds nobody back (specification 8.1.4, D-38), unless the bot was registered as one that takes one turn at a time;
then the place is left with the answer. Otherwise only a join holds its place until the bot has answered it, or
`join_wait_s` after it was written (6.4). No lock is held while a bot works: bots call back in the middle of a turn.

What a bot says in its answer instead of calling back goes the way of everything that it says (bot-side 2.6).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial

import structlog

from landline.channel.registry import Registry
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import random_id
from landline.core import activity, log
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member
from landline.core.failure import FailedDelivery
from landline.core.log import ConversationId, Newcomer
from landline.errors import BotRejected, BotUnreachable, DeliveryError, LandlineError, NoBot, StoreError
from landline.ports import BotAnswer, BotTransport, Clock, Store

Hear = Callable[[Bot, Conversation, bytes], Awaitable[None]]
"""Accept an activity that a bot answered with. Never raises: there is nobody left to be told."""

_MEMBERS = 65_536
"""Members remembered as announced, or as stored, so that a send need not ask the store; forgetting one costs that."""

_FAILURES = 1000
"""Failed deliveries kept for operators. They are offered again by hand; more than that is a matter for the bot."""

_RECORD_S = 1.0
"""How long a failed request waits for its failure to be on record."""

_REACH_S = 1.0
"""How long a join may still take to reach its bot when nothing else is waited for."""

_log = structlog.get_logger(__name__)


class _Known(OrderedDict[tuple[ConversationId, str], None]):
    """Members, the latest `_MEMBERS` of them."""

    def add(self, member: tuple[ConversationId, str]) -> None:
        self[member] = None
        if len(self) > _MEMBERS:
            self.popitem(last=False)


class Place:
    """A place in a conversation's line. `leave` lets the next one begin; leaving twice is leaving once.

    Most lines have one place, and nobody waits: so there is a future only where somebody does."""

    __slots__ = ("_behind", "_called", "_conversation", "_first", "_left", "_lines")

    def __init__(self, lines: dict[ConversationId, Place], conversation: ConversationId) -> None:
        """The last place in the line of `conversation`, which is kept in `lines` by its last place."""
        self._lines = lines
        self._conversation = conversation
        self._behind: Place | None = None
        self._called: asyncio.Future[None] | None = None
        self._left = False
        ahead = lines.get(conversation)
        self._first = ahead is None
        lines[conversation] = self
        if ahead is not None:
            ahead._behind = self

    async def turn(self, deadline: float) -> bool:
        """Wait until everybody ahead has left; answer whether there was anybody. Raises `BotUnreachable` at `deadline`;
        nobody else notices."""
        if self._first:
            return False
        self._called = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout_at(deadline):
                await self._called
        except TimeoutError as error:
            raise BotUnreachable("Failed to send activity: bot timed out on what came before") from error
        finally:
            self._called = None
        return True

    def leave(self) -> None:
        """Who leaves before its turn came only closes the gap: the next one still waits for those ahead."""
        if self._left:
            return
        self._left = True
        if self._first:
            self._call_next()

    def _call_next(self) -> None:
        """The first place with somebody in it is the first of the line; without one the line is over."""
        place = self
        while place._left:
            if place._behind is None:
                del self._lines[self._conversation]
                return
            place = place._behind
        place._first = True
        if place._called is not None and not place._called.done():
            place._called.set_result(None)


class Delivery:
    """Brings activities and joins to bots, in order, inside the deadline of whoever sends them."""

    def __init__(
        self,
        store: Store,
        transport: BotTransport,
        registry: Registry,
        clock: Clock,
        *,
        hear: Hear,
        join_wait_s: float,
        members: int,
    ) -> None:
        """A conversation has at most so many `members`, the bot among them."""
        self._store = store
        self._transport = transport
        self._registry = registry
        self._clock = clock
        self._hear = hear
        self._join_wait_s = join_wait_s
        self._most_members = members
        self._lines: dict[ConversationId, Place] = {}
        self._announced = _Known()
        self._joined = _Known()
        self._tasks: set[asyncio.Task[object]] = set()
        self._unwritten: set[asyncio.Task[object]] = set()  # joins on their way to bots

    def newcomer(self, conversation: ConversationId, sender: Account) -> Newcomer | None:
        """The sender, unless it is known to take part already."""
        member = conversation, sender.id
        if member in self._announced or member in self._joined:
            return None
        return Newcomer(sender.id, self._most_members)

    def check_bot(self, conversation: Conversation, sender: Account) -> None:
        """Raises `NoBot` where there is nobody to bring anything to: known before a place is taken and before anything
        is prepared for the bot, so that to be without one costs nothing. `deliver` looks once more."""
        if self._registry.bot(conversation.bot_id).endpoint is None:
            self._remember(conversation.id, sender)
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
        once: bool,
        sequence: int | None = None,
    ) -> BotAnswer:
        """POST `body` to the conversation's bot in its turn, after the joins that are due, the sender's among them.

        The body is made when it is to be written: who waits holds nothing twice. `sequence` is its number, if it has
        one. Raises `TooManyMembers` where the sender can be no member, and `DeliveryError`; if it could be offered
        again, that is recorded for operators, unless there is no bot to offer it to. The place has been left when this
        ends.
        """
        try:
            return await self._deliver(conversation, sender, body, deadline, place, once=once)
        except DeliveryError as error:
            if sequence is not None and not once and not isinstance(error, NoBot):
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
        once: bool,
    ) -> BotAnswer:
        try:
            bot = self._endpoint(conversation)
            waited = await place.turn(deadline)
            await self._join(conversation, bot, sender, deadline)
            written = _nothing if bot.serial else place.leave
            return await self._post(conversation, bot, body(), deadline, written, once=once, apart=waited)
        except DeliveryError:
            self._remember(conversation.id, sender)
            raise
        finally:
            place.leave()

    def _remember(self, conversation: ConversationId, sender: Account) -> None:
        """Whatever became of the bot, who has spoken takes part: by that a person is found who is to be forgotten."""
        member = conversation, sender.id
        if member not in self._announced and member not in self._joined:
            self._keep(self._take_part(conversation, sender))

    async def _take_part(self, conversation: ConversationId, sender: Account) -> None:
        await self._store.join(conversation, sender, self._most_members)
        self._joined.add((conversation, sender.id))

    async def _record(self, conversation: Conversation, sequence: int, error: DeliveryError) -> None:
        """Tell operators. A store in trouble holds up the answer only so long, and changes nothing about it."""
        status = error.status if isinstance(error, BotRejected) else None
        now_ms = self._clock.now_ms()
        failure = FailedDelivery(conversation.bot_id, conversation.id, sequence, now_ms, error.message, status)
        recording = self._keep(self._store.record_failure(failure, _FAILURES))
        await asyncio.wait((recording,), timeout=_RECORD_S)

    def settle(self, conversation: ConversationId, sequence: int) -> None:
        """The bot took in the end what it may have failed to take before: nobody has to offer it again."""
        self._keep(self._store.settle_failure(conversation, sequence))

    async def _post(
        self,
        conversation: Conversation,
        bot: Bot,
        body: bytes,
        deadline: float,
        written: Callable[[], None],
        *,
        once: bool = False,
        apart: bool = False,
    ) -> BotAnswer:
        """POST `body`, and accept what the bot answers with."""
        if bot.timeout_s is not None:
            deadline = min(deadline, self._clock.monotonic() + bot.timeout_s)
        said = partial(self._hear, bot, conversation)
        answer = await self._transport.deliver(bot, body, deadline, once=once, apart=apart, written=written, said=said)
        if bot.delivery_mode is not None and not once and answer.body:
            # Whatever becomes of the request: nobody else has these, and the bot will not say them again.
            hearing = self._keep(self._hear_replies(bot, conversation, answer.body))
            await asyncio.wait((hearing,), timeout=max(0.0, deadline - self._clock.monotonic()))
        return answer

    async def _hear_replies(self, bot: Bot, conversation: Conversation, body: bytes) -> None:
        """Accept synchronous replies in their order (bot-side 2.6)."""
        try:
            replies = activity.replies(body)
        except LandlineError as error:
            _log.warning(
                "a bot's answer has no replies", bot=bot.id, conversation=conversation.id, reason=error.message
            )
            return
        for reply in replies:
            await self._hear(bot, conversation, reply)

    def forget(self, conversation: ConversationId, account: str) -> None:
        """This member has left: should it speak again, it joins again."""
        for known in (self._announced, self._joined):
            known.pop((conversation, account), None)

    def announce(self, conversation: Conversation, deadline: float) -> None:
        """Tell the bot of the members whose join is due, in the background, ahead of everything that comes later.

        Never fails the caller's request: a start does not depend on its bot (5.2, D-23).
        """
        if self._registry.bot(conversation.bot_id).endpoint is not None:
            self._keep(self._announce(conversation, deadline, self.enter(conversation.id)))

    async def _announce(self, conversation: Conversation, deadline: float, place: Place) -> None:
        try:
            bot = self._endpoint(conversation)
            await place.turn(deadline)
            members = await self._members(lambda: self._store.members(conversation.id), deadline)
            await self._tell(conversation, bot, members, deadline)
        except LandlineError as error:
            _log.warning("join not announced, it stays due", conversation=conversation.id, reason=error.message)
        finally:
            place.leave()

    async def _join(self, conversation: Conversation, bot: Bot, sender: Account, deadline: float) -> None:
        if (conversation.id, sender.id) in self._announced and (conversation.id, bot.id) in self._announced:
            return
        joining = partial(self._store.join, conversation.id, sender, self._most_members)
        members = await self._members(joining, deadline)
        await self._tell(conversation, bot, members, deadline)

    async def _members(self, ask: Callable[[], Awaitable[Sequence[Member]]], deadline: float) -> Sequence[Member]:
        """What the store says of the members, in time: it may hang, and a request may not (8.6)."""
        try:
            async with asyncio.timeout_at(deadline):
                return await retry_while_unavailable(deadline, ask)
        except (StoreError, TimeoutError) as error:
            raise BotUnreachable("Failed to send activity: who takes part could not be told from the store") from error

    async def _tell(self, conversation: Conversation, bot: Bot, members: Sequence[Member], deadline: float) -> None:
        """POST one conversationUpdate with every member that is due, and mark them.

        What the bot answered does not matter; a request that was never written leaves the joins due and raises
        `BotUnreachable`, since what comes behind it could not be written either (design, "Join mark").
        """
        unmarked = [member.account for member in members if not member.announced]
        due = [account for account in unmarked if (conversation.id, account.id) not in self._announced]
        if due:
            await self._post_join(conversation, bot, due, deadline)
        for member in members:
            self._announced.add((conversation.id, member.account.id))
        if unmarked:
            # Nobody waits for the mark: this process knows already.
            self._keep(self._mark(conversation.id, [account.id for account in unmarked], deadline))

    async def _post_join(self, conversation: Conversation, bot: Bot, due: Sequence[Account], deadline: float) -> None:
        update = activity.join(
            conversation=conversation.id,
            bot=bot,
            members=due,
            locale=conversation.locale,
            activity_id=activity.transient_id(conversation.id, random_id(), seen=False),
            time=log.timestamp(self._clock.now_ms()),
        )
        written = asyncio.Event()

        def let_go(_: object = None) -> None:
            self._unwritten.discard(posting)
            written.set()

        posting = self._keep(self._post(conversation, bot, update, deadline, let_go))
        self._unwritten.add(posting)
        posting.add_done_callback(let_go)  # one that `close` cancels may never have begun
        await written.wait()
        await asyncio.wait((posting,), timeout=None if bot.serial else self._join_wait_s)
        if not posting.done():
            return
        if posting.cancelled():
            raise BotUnreachable
        error = posting.exception()
        if isinstance(error, BotUnreachable | NoBot):
            raise error
        if isinstance(error, DeliveryError):
            status = error.status if isinstance(error, BotRejected) else None
            _log.warning(
                "bot failed on a join", conversation=conversation.id, bot=bot.id, reason=error.message, status=status
            )
        elif error is not None:
            raise error

    async def _mark(self, conversation: ConversationId, accounts: Sequence[str], deadline: float) -> None:
        try:
            await retry_while_unavailable(deadline, lambda: self._store.announced(conversation, accounts))
        except StoreError as error:
            # The bot was told; at worst it is told once more after a restart.
            _log.warning("announced join not recorded", conversation=conversation, reason=error.message)

    def _endpoint(self, conversation: Conversation) -> Bot:
        bot = self._registry.bot(conversation.bot_id)
        if bot.endpoint is None:
            raise NoBot
        return bot

    def _keep(self, work: Coroutine[object, object, object]) -> asyncio.Task[object]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, LandlineError):
            _log.error("delivery failed unexpectedly", exc_info=error)

    async def finish(self, until: float) -> None:
        """Let what is under way in the background come to its end, until then (on the scale of `Clock.monotonic`).

        A join that is cut off after the bot has it would be announced again by the next process (D-38). One that the
        bot does not get, because it is down, is given up soon: it stays due in any case."""
        await self._wait(min(until, self._clock.monotonic() + _REACH_S))
        for posting in tuple(self._unwritten):
            posting.cancel()
        await self._wait(until)

    async def _wait(self, until: float) -> None:
        while self._tasks and (left_s := until - self._clock.monotonic()) > 0:
            await asyncio.wait(self._tasks, timeout=left_s)

    async def close(self) -> None:
        """End what is under way in the background; joins that were not announced stay due."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _nothing() -> None:
    """A serial bot's turn is not over when its request was written."""
