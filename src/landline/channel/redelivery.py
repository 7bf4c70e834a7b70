"""What bots did not take: shown to an operator, and offered again by hand (bot-side 2.4).

Never by itself: a bot that failed may have done half of its work (bot-side fact 4), and hours later nobody waits for
the answer. Whoever asks for it knows the bot.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from landline.channel.delivery import Delivery
from landline.channel.registry import Registry
from landline.core import activity, log
from landline.core.failure import FailedDelivery
from landline.core.log import Entry
from landline.errors import NotServing, UnknownActivity, UnknownConversation
from landline.ports import Store


class Redelivery:
    """The failed deliveries of all bots."""

    def __init__(self, store: Store, registry: Registry, delivery: Delivery | None) -> None:
        """Without `delivery` they can be looked at, but nothing can be offered."""
        self._store = store
        self._delivery = delivery
        self._registry = registry

    async def failed(self) -> Sequence[FailedDelivery]:
        """Those that are recorded, oldest first: the order in which to offer them."""
        return await self._store.failures()

    async def offer(self, activity_id: str, deadline: float) -> None:
        """Offer an activity to its bot once more, behind what its conversation has under way.

        The bot gets the same activity, with its first id and time. Once it is taken the record is gone. Raises
        `UnknownActivity` where no failure is recorded, or where the activity is in the log no more; `DeliveryError`
        when the bot fails again, which is recorded in place of the first time; `NotServing`.
        """
        if self._delivery is None:
            raise NotServing
        failure = await self._find(activity_id)
        conversation = await self._store.conversation(failure.conversation)
        entry = await self._entry(failure)
        if conversation is None or entry is None:
            await self._store.settle_failure(failure.conversation, failure.sequence)
            raise UnknownActivity
        bot = self._registry.bot(failure.bot_id)
        said = activity.from_client(entry.body, conversation=conversation.id, bot=bot, bound=None, may_use_dl=True)
        body = partial(said.for_bot, bot, activity_id, log.timestamp(entry.time_ms))
        place = self._delivery.enter(conversation.id)
        await self._delivery.deliver(
            conversation, said.sender, body, deadline, place, retry=True, sequence=failure.sequence
        )
        self._store.mark_taken(failure.conversation, failure.sequence)  # for whoever sends it again with its key
        await self._store.settle_failure(failure.conversation, failure.sequence)

    async def _find(self, activity_id: str) -> FailedDelivery:
        for failure in await self._store.failures():
            if log.activity_id(failure.conversation, failure.sequence) == activity_id:
                return failure
        raise UnknownActivity

    async def _entry(self, failure: FailedDelivery) -> Entry | None:
        try:
            page = await self._store.read_after(failure.conversation, failure.sequence, 1, 1, for_stream=True)
        except UnknownConversation:  # it was deleted meanwhile
            return None
        found = next(iter(page.records), None)
        return found if isinstance(found, Entry) and found.sequence == failure.sequence else None
