"""What bots may say in their conversations, by call or in what they answer (bot-side 2.6, 3.1 to 3.4,
3.9)."""

from __future__ import annotations

from functools import partial

import structlog

from landline.channel.activities import append, entry_of, pass_by
from landline.channel.idempotency import Repeats
from landline.channel.parsing import parsed
from landline.channel.retention import LastUse
from landline.channel.retry import retry_while_unavailable
from landline.core import activity, log
from landline.core.activity import BotActivity, Kind
from landline.core.bot import Bot
from landline.core.conversation import Conversation, is_conversation_id
from landline.core.log import ConversationId, NewEntry, Original, SendKey
from landline.errors import (
    BadArgument,
    Forbidden,
    LandlineError,
    MissingProperty,
    UnknownActivity,
    UnknownConversation,
)
from landline.ports import Clock, Store

# Keys beside those that bots write: no header has a line break in it.
_FIRST_WORDS = "begin\n"
_OF_HISTORY = "history\n"

_log = structlog.get_logger(__name__)


class BotActivities:
    """The connector's use cases."""

    def __init__(self, store: Store, repeats: Repeats, last_use: LastUse, clock: Clock, *, store_wait_s: float) -> None:
        self._store = store
        self._last_use = last_use
        self._repeats = repeats
        self._clock = clock
        self._store_wait_s = store_wait_s

    async def find(self, bot: Bot, conversation: str) -> Conversation:
        """The bot's conversation. Another bot's is `Forbidden` to one that has proven who it is, and for one that has
        not it is as unknown as any: raises `UnknownConversation` (bot-side 8, 91 and 93)."""
        if not is_conversation_id(conversation):
            raise UnknownConversation
        name = ConversationId(conversation)
        found = self._store.cached_conversation(name) or await self._store.conversation(
            name
        )  # what a bot needs never changes
        if found is not None and found.bot_id != bot.id and bot.app_id is not None:
            raise Forbidden("The conversation belongs to another bot")
        if found is None or found.bot_id != bot.id:
            raise UnknownConversation
        self._last_use.note(found.id)
        return found

    async def send(
        self,
        bot: Bot,
        conversation: Conversation,
        body: bytes,
        deadline: float,
        reply_to: str | None = None,
        request_id: str | None = None,
    ) -> str:
        """Accept an activity of the bot; answer its id once it is durable and on its way to every stream.

        Brief trouble of the store is waited out here, since most SDKs never repeat a send (bot-side 1, fact 1). One
        does, with the same `request_id` (fact 2): the repeat is answered the first id. An unknown `reply_to` is no
        error (bot-side 3.2). Raises `RequestError` with nothing stored, `Conflict` for something else with that
        `request_id`.
        """
        said = await _parsed(body, conversation, bot, reply_to)
        key = None
        if request_id:
            path = (reply_to or "").encode(errors="surrogatepass")
            key = self._repeats.key(bot.id, request_id, path, body)
        return await self._accept(conversation, said, deadline, key)

    async def begin(self, bot: Bot, conversation: Conversation, body: bytes, deadline: float) -> str:
        """Accept the first words of a conversation that the bot starts: once, however often the start is repeated
        (bot-side 3.7). Otherwise as `send`."""
        said = await _parsed(body, conversation, bot)
        return await self._accept(conversation, said, deadline, SendKey(bot.id, _FIRST_WORDS, b""))

    async def _accept(
        self, conversation: Conversation, said: BotActivity, deadline: float, key: SendKey | None = None
    ) -> str:
        if said.kind in (Kind.STORED, Kind.STREAMS_ONLY):
            entry = entry_of(said.kind, said.stored, key)
            accepted = await append(self._store, conversation, entry, deadline, self._give_up(deadline))
            return log.activity_id(conversation.id, accepted.sequence)
        return pass_by(self._store, self._clock, conversation, said.kind, said.stored)[0]

    async def accept_reply(self, bot: Bot, conversation: Conversation, reply: bytes) -> None:
        """Accept an activity that the bot answered with, as if it had sent it (bot-side 2.6).

        Nobody can be told of a failure: the answer is under way already, and no bot says it twice.
        """
        try:
            body = activity.without_private_members(reply)
            await self.send(bot, conversation, body, self._clock.monotonic() + self._store_wait_s)
        except LandlineError as error:
            _log.error("a bot's reply was lost", bot=bot.id, conversation=conversation.id, reason=error.message)

    async def add_history(
        self, bot: Bot, conversation: Conversation, body: bytes, deadline: float, request_id: str | None = None
    ) -> str:
        """Accept what was said elsewhere before, in its order, as if it were said now; answer the last id.

        What a user said stays the user's. Ids that the bot gives count only against a repeat: what came under one, or
        is an entry of this conversation by that id, is not stored again (bot-side 3.9).
        What came without one is known again when the whole call is repeated with the same `request_id`. Raises
        `RequestError` with nothing stored, `Conflict` for something else with that `request_id`.
        """
        written = await parsed(len(body), partial(activity.replies, body))
        if not written:
            raise MissingProperty("'activities' is missing or empty")
        members = await retry_while_unavailable(self._give_up(deadline), lambda: self._store.members(conversation.id))
        users = {member.account.id for member in members if not member.is_bot}
        read = partial(activity.from_bot, conversation=conversation.id, bot=bot, reply_to=None, users=users)
        past = await parsed(len(body), lambda: [(activity.id_of(each), read(each)) for each in written])
        last = ""
        for place, (given, said) in enumerate(past):
            key = None
            if given and await self._is_entry(conversation, given, deadline):
                last = given
                continue
            if given:
                key = self._repeats.key(bot.id, f"history {given}")
            elif request_id:
                key = self._repeats.key(bot.id, f"{_OF_HISTORY}{place}\n{request_id}", body)
            last = await self._accept(conversation, said, deadline, key)
        return last

    async def _is_entry(self, conversation: Conversation, activity_id: str, deadline: float) -> bool:
        sequence = log.sequence_of(conversation.id, activity_id)
        if sequence is None:
            return False
        give_up = self._give_up(deadline)
        entry = await retry_while_unavailable(give_up, lambda: self._store.entry(conversation.id, sequence))
        return entry is not None

    async def update(
        self,
        bot: Bot,
        conversation: Conversation,
        activity_id: str,
        body: bytes,
        deadline: float,
        request_id: str | None = None,
    ) -> None:
        """Say something else under the id and the time of an activity that the bot said before (D-35, bot-side 3.3).

        Raises `UnknownActivity` for what is not the bot's, was deleted, or is in no log; `RequestError` as `send`.
        """
        await parsed(len(body), partial(activity.check_id, body, activity_id))
        said = await _parsed(body, conversation, bot)
        original = await self._own(conversation, activity_id)
        if original is None:
            raise UnknownActivity
        if said.kind not in (Kind.STORED, Kind.STREAMS_ONLY):
            raise BadArgument(f"An activity cannot become one of type {said.type!r}")
        key = None
        if request_id:
            key = self._repeats.key(bot.id, request_id, b"update", activity_id.encode(), body)
        entry = NewEntry(said.stored, entry_of(said.kind, said.stored).audience, original, key)
        await append(self._store, conversation, entry, deadline, self._give_up(deadline))

    async def delete(self, bot: Bot, conversation: Conversation, activity_id: str, deadline: float) -> None:
        """Take back what the bot said: it and its later versions are erased, and clients are told (D-35, bot-side 3.4).

        Deleting twice is deleting once. Raises `UnknownActivity`."""
        original = await self._own(conversation, activity_id)
        if original is None:
            return
        notice = NewEntry(activity.deletion(conversation.id, bot))
        await retry_while_unavailable(
            self._give_up(deadline),
            lambda: self._store.delete(conversation.id, original.sequence, notice, deadline),
        )

    async def _own(self, conversation: Conversation, activity_id: str) -> Original | None:
        """Number and time of an activity that is the bot's to change; None if it was deleted. What it said first may
        have expired: for as long as clients are shown a later version, it can be changed and deleted."""
        sequence = log.sequence_of(conversation.id, activity_id)
        found = None if sequence is None else await self._store.entry(conversation.id, sequence)
        # An entry that repeats another's id is never known by its own.
        if found is None or (found.sequence == sequence and found.original is not None):
            raise UnknownActivity
        if found.is_deleted:
            return None
        if not activity.is_bots(found.body):
            raise UnknownActivity
        return found.original or Original(found.sequence, found.time_ms)

    def _give_up(self, deadline: float) -> float:
        return min(deadline, self._clock.monotonic() + self._store_wait_s)


async def _parsed(body: bytes, conversation: Conversation, bot: Bot, reply_to: str | None = None) -> BotActivity:
    read = partial(activity.from_bot, body, conversation=conversation.id, bot=bot, reply_to=reply_to)
    return await parsed(len(body), read)
