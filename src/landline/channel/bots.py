"""What bots may do in their conversations (bot-side 3.1, 3.2)."""

from __future__ import annotations

from landline.channel.activities import append, entry_of, pass_by
from landline.channel.repeats import Repeats
from landline.core import activity, log
from landline.core.activity import Kind
from landline.core.bot import Bot
from landline.core.conversation import Conversation, is_conversation_id
from landline.core.log import ConversationId
from landline.errors import UnknownConversation
from landline.ports import Clock, Store


class BotCalls:
    """The connector's use cases."""

    def __init__(self, store: Store, repeats: Repeats, clock: Clock, *, store_wait_s: float) -> None:
        self._store = store
        self._repeats = repeats
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
        said = activity.from_bot(body, conversation=conversation.id, bot=bot, reply_to=reply_to)
        if said.kind in (Kind.STORED, Kind.STREAMS_ONLY):
            key = None
            if request_id:
                path = (reply_to or "").encode(errors="surrogatepass")
                key = self._repeats.key(bot.id, request_id, path, body)
            entry = entry_of(said.kind, said.stored, key)
            accepted = await append(self._store, conversation, entry, deadline, self._give_up(deadline))
            return log.activity_id(conversation.id, accepted.sequence)
        return pass_by(self._store, self._clock, conversation, said.kind, said.stored)[0]

    def _give_up(self, deadline: float) -> float:
        return min(deadline, self._clock.monotonic() + self._store_wait_s)
