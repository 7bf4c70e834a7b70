"""What bots may say in their conversations, by call or in what they answer, and the conversations that they may start
and list themselves (bot-side 2.6, 3.1, 3.2, 3.7, 3.8)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import structlog

from landline.channel.activities import append, entry_of, pass_by
from landline.channel.patience import patiently
from landline.channel.tokens import new_conversation_id
from landline.core import activity, log
from landline.core.activity import Kind
from landline.core.bot import Bot
from landline.core.conversation import Account, Conversation, Member, NewConversation, is_conversation_id
from landline.core.log import ConversationId
from landline.errors import BadArgument, Forbidden, LandlineError, UnknownConversation
from landline.ports import Clock, Store

PAGE = 50
"""Conversations on a page of the list."""
MEMBERS = 100
"""Members that a bot may name when it starts a conversation."""

_log = structlog.get_logger(__name__)


class Begun(msgspec.Struct, frozen=True):
    """A conversation that a bot has started, and the id of what it said there at once."""

    conversation: ConversationId
    activity_id: str | None


class BotCalls:
    """The connector's use cases."""

    def __init__(self, store: Store, clock: Clock, *, store_wait_s: float) -> None:
        self._store = store
        self._clock = clock
        self._store_wait_s = store_wait_s

    async def find(self, bot: Bot, conversation: str) -> Conversation:
        """The bot's conversation. Raises `UnknownConversation`, also for another bot's."""
        if not is_conversation_id(conversation):
            raise UnknownConversation
        found = await self._store.conversation(ConversationId(conversation))
        if found is None or found.bot_id != bot.id:
            raise UnknownConversation
        return found

    async def send(
        self, bot: Bot, conversation: Conversation, body: bytes, deadline: float, reply_to: str | None = None
    ) -> str:
        """Accept an activity of the bot; answer its id once it is durable and on its way to every stream.

        Brief trouble of the store is waited out here, since most SDKs never repeat a send (bot-side 1, fact 1). An
        unknown `reply_to` is no error (bot-side 3.2). Raises `RequestError` with nothing stored.
        """
        said = activity.from_bot(body, conversation=conversation.id, bot=bot, reply_to=reply_to)
        if said.kind in (Kind.STORED, Kind.STREAMS_ONLY):
            entry = entry_of(said.kind, said.stored)
            give_up = min(deadline, self._clock.monotonic() + self._store_wait_s)
            accepted = await append(self._store, conversation, entry, deadline, give_up)
            return log.activity_id(conversation.id, accepted.sequence)
        return pass_by(self._store, self._clock, conversation, said.kind, said.stored)[0]

    async def hear(self, bot: Bot, conversation: Conversation, reply: bytes) -> None:
        """Accept an activity that the bot answered with, as if it had sent it (bot-side 2.6).

        Nobody can be told of a failure: the answer is under way already, and no bot says it twice.
        """
        try:
            body = activity.without_private_members(reply)
            await self.send(bot, conversation, body, self._clock.monotonic() + self._store_wait_s)
        except LandlineError as error:
            _log.error("a bot's reply was lost", bot=bot.id, conversation=conversation.id, reason=error.message)

    async def start(self, bot: Bot, body: bytes, deadline: float) -> Begun:
        """Start a conversation with those whom the bot names; say there what it sends along, if anything.

        Nobody is connected yet. The joins stay due, so that the bot hears of its user when that one has come. Raises
        `Forbidden` unless the bot is known by more than a URL and may do this, `RequestError` with nothing started.
        """
        _check_may_start(bot)
        members, said = activity.first_words(body, bot_id=bot.id)
        if len(members) > MEMBERS:
            raise BadArgument(f"More than {MEMBERS} members")
        name = new_conversation_id()
        if said is not None:
            activity.from_bot(said, conversation=name, bot=bot, reply_to=None)
        # A token for this conversation is bound to its user; of several, nobody can say which one asks for it.
        user = members[0] if len(members) == 1 else None
        await patiently(deadline, lambda: self._store.start(NewConversation(name, bot.id, user)))
        for member in members:
            await self._join(name, member, deadline)
        activity_id = None
        if said is not None:
            activity_id = await self.send(bot, await self.find(bot, name), said, deadline)
        return Begun(name, activity_id)

    async def _join(self, conversation: ConversationId, member: Account, deadline: float) -> None:
        await patiently(deadline, lambda: self._store.join(conversation, member))

    async def conversations(
        self, bot: Bot, continuation: str | None
    ) -> tuple[Sequence[tuple[ConversationId, Sequence[Member]]], str | None]:
        """A page of the bot's conversations with their members, and what asks for the next page; None where there is
        none. Raises `Forbidden` as `start` does, and `BadArgument`."""
        _check_may_start(bot)
        found = await self._store.started_by(bot.id, _place(continuation), PAGE + 1)
        page = [(name, await self._store.members(name)) for _, name in found[:PAGE]]
        return page, str(found[PAGE - 1][0]) if len(found) > PAGE else None


def _check_may_start(bot: Bot) -> None:
    """Whoever reads one activity knows the URL of an anonymous bot; that must not open all of its conversations."""
    if bot.app_id is None or not bot.may_create_conversations:
        raise Forbidden("This bot may not start or list conversations")


def _place(continuation: str | None) -> int:
    if not continuation:
        return 0
    if not (continuation.isascii() and continuation.isdigit() and len(continuation) < 16):
        raise BadArgument("'continuationToken' is not one of ours")
    return int(continuation)
