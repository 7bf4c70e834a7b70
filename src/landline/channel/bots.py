"""What bots may do in their conversations (bot-side 3.1, 3.2)."""

from __future__ import annotations

from landline.channel.activities import append, entry_of, pass_by
from landline.core import activity, log
from landline.core.activity import Kind
from landline.core.bot import Bot
from landline.core.conversation import Conversation, is_conversation_id
from landline.core.log import ConversationId
from landline.errors import Forbidden, UnknownConversation
from landline.ports import Clock, Store


class BotCalls:
    """The connector's use cases."""

    def __init__(self, store: Store, clock: Clock, *, store_wait_s: float) -> None:
        self._store = store
        self._clock = clock
        self._store_wait_s = store_wait_s

    async def find(self, bot: Bot, conversation: str) -> Conversation:
        """The bot's conversation. Another bot's is `Forbidden` to one that has proven who it is, and for one that has
        not it is as unknown as any: raises `UnknownConversation` (bot-side 8, 91 and 93)."""
        if not is_conversation_id(conversation):
            raise UnknownConversation
        found = await self._store.conversation(ConversationId(conversation))
        if found is not None and found.bot_id != bot.id and bot.app_id is not None:
            raise Forbidden("The conversation belongs to another bot")
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
