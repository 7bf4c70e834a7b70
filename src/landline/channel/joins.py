"""Whom the bot of a conversation must be told of: each member, once, before anything that the member says (6.4).

A join holds its place in the line until the bot has answered it, or `join_wait_s` after it was written.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import TypeVar

import structlog

from landline.channel.delivery_tasks import DeliveryTasks
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import random_id
from landline.core import activity, log
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member
from landline.core.log import ConversationId, Newcomer
from landline.errors import BotRejected, BotUnreachable, DeliveryError, NoBot, StoreError
from landline.ports import BotAnswer, Clock, Store

Post = Callable[[Conversation, Bot, bytes, float, Callable[[], None]], Coroutine[object, object, BotAnswer]]
"""POST these bytes to the bot by the deadline; the last parameter is called when they were written or given up."""

_MEMBERS = 65_536
"""Members remembered as announced, or as stored, so that a send need not ask the store; forgetting one costs that."""

_CLAIM_MARGIN_S = 1.0
"""A claim outlasts the request that it was made for by this much."""
_LOOK_AGAIN_S = 0.05
"""How often a node looks whether another one has told the bot."""

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class _Known(OrderedDict[tuple[ConversationId, str], None]):
    """Members, the latest `_MEMBERS` of them."""

    def add(self, member: tuple[ConversationId, str]) -> None:
        self[member] = None
        if len(self) > _MEMBERS:
            self.popitem(last=False)


class Joins:
    """The members of all conversations, as far as their bots must be told of them."""

    def __init__(
        self, store: Store, clock: Clock, post: Post, tasks: DeliveryTasks, *, join_wait_s: float, members: int
    ) -> None:
        """A conversation has at most so many `members`, the bot among them."""
        self._store = store
        self._clock = clock
        self._post = post
        self._tasks = tasks
        self._join_wait_s = join_wait_s
        self._most_members = members
        self._announced = _Known()
        self._joined = _Known()
        self._unwritten: set[asyncio.Task[object]] = set()  # joins on their way to bots

    def newcomer(self, conversation: ConversationId, sender: Account) -> Newcomer | None:
        """The sender, unless it is known to take part already."""
        member = conversation, sender.id
        if member in self._announced or member in self._joined:
            return None
        return Newcomer(sender.id, self._most_members)

    def remember(self, conversation: ConversationId, sender: Account) -> None:
        """Whatever became of the bot, who has spoken takes part: by that a person is found who is to be forgotten."""
        member = conversation, sender.id
        if member not in self._announced and member not in self._joined:
            self._tasks.keep(self._take_part(conversation, sender))

    async def _take_part(self, conversation: ConversationId, sender: Account) -> None:
        await self._store.join(conversation, sender, self._most_members)
        self._joined.add((conversation, sender.id))

    def forget(self, conversation: ConversationId, account: str) -> None:
        """This member has left: should it speak again, it joins again."""
        for known in (self._announced, self._joined):
            known.pop((conversation, account), None)

    async def tell_of_all(self, conversation: Conversation, bot: Bot, deadline: float) -> None:
        """Tell the bot of all members that are due. Raises `DeliveryError`."""
        members = await self._of_store(lambda: self._store.members(conversation.id), deadline)
        await self._tell(conversation, bot, members, deadline)

    async def tell_of(self, conversation: Conversation, bot: Bot, sender: Account, deadline: float) -> None:
        """The same, after `sender` has become a member. Raises `TooManyMembers` where it cannot."""
        if (conversation.id, sender.id) in self._announced and (conversation.id, bot.id) in self._announced:
            return
        joining = partial(self._store.join, conversation.id, sender, self._most_members)
        members = await self._of_store(joining, deadline)
        await self._tell(conversation, bot, members, deadline)

    async def _of_store(self, ask: Callable[[], Awaitable[T]], deadline: float) -> T:
        """What the store says of the members, in time: it may hang, and a request may not (8.6)."""
        try:
            async with asyncio.timeout_at(deadline):
                return await retry_while_unavailable(deadline, ask)
        except (StoreError, TimeoutError) as error:
            raise BotUnreachable("Failed to send activity: who takes part could not be told from the store") from error

    async def _tell(self, conversation: Conversation, bot: Bot, members: Sequence[Member], deadline: float) -> None:
        """POST one conversationUpdate with every member that is due, and mark them.

        What the bot answered does not matter; a request that was never written leaves the joins due and raises
        `BotUnreachable`, since what comes behind it could not be written either (spec 6.4).
        """
        unmarked = [member.account for member in members if not member.announced]
        due: Sequence[Account] = [
            account for account in unmarked if (conversation.id, account.id) not in self._announced
        ]
        while due:
            mine = await self._claimed(conversation.id, due, deadline)
            if mine:
                await self._post_claimed(conversation, bot, mine, deadline)
            due = [account for account in due if account not in mine]
            if due:
                due = await self._still_due(conversation.id, due, deadline)
        for member in members:
            self._announced.add((conversation.id, member.account.id))
        if unmarked:
            # Nobody waits for the mark: this process knows already.
            self._tasks.keep(self._mark(conversation.id, [account.id for account in unmarked], deadline))

    async def _claimed(
        self, conversation: ConversationId, due: Sequence[Account], deadline: float
    ) -> Sequence[Account]:
        """Those whose join this node tells of; another node may be telling of the others."""
        left_s = deadline - self._clock.monotonic() + _CLAIM_MARGIN_S
        until_ms = self._clock.now_ms() + int(left_s * 1000)
        ids = [account.id for account in due]
        mine = await self._of_store(lambda: self._store.claim_joins(conversation, ids, until_ms), deadline)
        return [account for account in due if account.id in mine]

    async def _still_due(
        self, conversation: ConversationId, due: Sequence[Account], deadline: float
    ) -> Sequence[Account]:
        """What is left of them a moment later."""
        await asyncio.sleep(_LOOK_AGAIN_S)
        members = await self._of_store(lambda: self._store.members(conversation), deadline)
        left = {member.account.id for member in members if not member.announced}
        return [account for account in due if account.id in left]

    async def _post_claimed(
        self, conversation: Conversation, bot: Bot, due: Sequence[Account], deadline: float
    ) -> None:
        try:
            await self._post_join(conversation, bot, due, deadline)
        except DeliveryError:
            self._tasks.keep(self._store.release_joins(conversation.id, [account.id for account in due]))
            raise

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

        posting = self._tasks.keep(self._post(conversation, bot, update, deadline, let_go))
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
            await retry_while_unavailable(deadline, lambda: self._store.mark_announced(conversation, accounts))
        except StoreError as error:
            # The bot was told; at worst it is told once more after a restart.
            _log.warning("announced join not recorded", conversation=conversation, reason=error.message)

    def give_up_unwritten(self) -> None:
        """End those that no bot has read yet: they stay due."""
        for posting in tuple(self._unwritten):
            posting.cancel()
