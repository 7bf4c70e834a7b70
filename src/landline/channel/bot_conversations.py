"""Conversations that bots start, and the list of those that they have (bot-side 3.7, 3.8).

Whoever reads one activity knows the URL of an anonymous bot; that must not open all of its conversations. So only a bot
with an app id may do either, and only if its operator said so.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from functools import partial

import msgspec

from landline.channel.bot_activities import BotActivities
from landline.channel.idempotency import Repeats
from landline.channel.parsing import parsed
from landline.channel.retry import retry_while_unavailable
from landline.channel.tokens import new_conversation_id
from landline.core import activity
from landline.core.bot import Bot
from landline.core.conversation import Account, Member, NewConversation
from landline.core.log import ConversationId
from landline.core.tokens import check_name
from landline.errors import BadArgument, Forbidden
from landline.ports import Store

PAGE = 50
"""Conversations on a page of the list."""
MEMBERS = 100
"""Members that a bot may name when it starts a conversation."""
_NAME_BYTES = 16
"""As many bits as a random name has."""


class Begun(msgspec.Struct, frozen=True):
    """A conversation that a bot has started, and the id of what it said there at once."""

    conversation: ConversationId
    activity_id: str | None


class BotConversations:
    """The use cases of a bot around its conversations as a whole."""

    def __init__(self, store: Store, calls: BotActivities, repeats: Repeats, key: bytes, *, members: int) -> None:
        """`key` is what names are made with where they must not be guessed and yet be found again. A conversation has
        at most so many `members`, the bot among them."""
        self._most_members = min(MEMBERS, members - 1)
        self._store = store
        self._calls = calls
        self._repeats = repeats
        self._key = key

    async def start(self, bot: Bot, body: bytes, deadline: float, request_id: str | None = None) -> Begun:
        """Start a conversation with those whom the bot names; say there what it sends along, if anything. The same call
        again, with the same `request_id`, comes to the same conversation (bot-side 1, fact 2).

        Nobody is connected yet. The joins stay due, so that the bot hears of its user when that one has come. Raises
        `Forbidden` unless the bot is known by more than a URL and may do this, `RequestError` with nothing started,
        `UnknownConversation` where what the first call started was deleted since.
        """
        _check_may_start(bot)
        members, said = await parsed(len(body), partial(activity.first_words, body, bot_id=bot.id))
        if len(members) > self._most_members:
            raise BadArgument(f"More than {self._most_members} members")
        name = await self._name(bot, body, request_id)
        if said is not None:
            read = partial(activity.from_bot, said, conversation=name, bot=bot, reply_to=None)
            await parsed(len(said), read)
        # A token for this conversation is bound to its user; of several, nobody can say which one asks for it.
        user = members[0] if len(members) == 1 else None
        if user is not None:
            check_name(user, "members.name")
        await retry_while_unavailable(deadline, lambda: self._store.start(NewConversation(name, bot.id, user)))
        for member in members:
            await self._join(name, member, deadline)
        activity_id = None
        if said is not None:
            activity_id = await self._calls.begin(bot, await self._calls.find(bot, name), said, deadline)
        return Begun(name, activity_id)

    async def _name(self, bot: Bot, body: bytes, request_id: str | None) -> ConversationId:
        """What a call is known by is the conversation itself, under a name that follows from the call: so they are
        stored in one transaction, and there is nothing else to be kept and forgotten (decision 25)."""
        if not request_id:
            return new_conversation_id()
        before, present = (self._named(span, bot, body, request_id) for span in self._repeats.spans)
        return present if await self._store.conversation(before) is None else before

    def _named(self, span: int, bot: Bot, body: bytes, request_id: str) -> ConversationId:
        call = msgspec.json.encode((span, bot.id, request_id)) + body
        name = hmac.digest(self._key, call, "sha256")[:_NAME_BYTES]
        return ConversationId(base64.urlsafe_b64encode(name).rstrip(b"=").decode())

    async def _join(self, conversation: ConversationId, member: Account, deadline: float) -> None:
        await retry_while_unavailable(deadline, lambda: self._store.join(conversation, member))

    async def page(
        self, bot: Bot, continuation: str | None
    ) -> tuple[Sequence[tuple[ConversationId, Sequence[Member]]], str | None]:
        """A page of the bot's conversations with their members, and what asks for the next page; None where there is
        none. Raises `Forbidden` as `start` does, and `BadArgument`."""
        _check_may_start(bot)
        found = await self._store.conversations_of_bot(bot.id, _place(continuation), PAGE + 1)
        page = [(name, await self._store.members(name)) for _, name in found[:PAGE]]
        return page, str(found[PAGE - 1][0]) if len(found) > PAGE else None


def _check_may_start(bot: Bot) -> None:
    if bot.app_id is None or not bot.create_conversations:
        raise Forbidden("This bot may not start or list conversations")


def _place(continuation: str | None) -> int:
    if not continuation:
        return 0
    if not (continuation.isascii() and continuation.isdigit() and len(continuation) < 16):
        raise BadArgument("'continuationToken' is not one of ours")
    return int(continuation)
