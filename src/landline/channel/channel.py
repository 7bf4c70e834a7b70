"""The use cases of one node put together, on any store and without any wire.

`landline serve` puts HTTP before them; tests call them as they are. Only this module knows who needs whom.
"""

from __future__ import annotations

import asyncio

import msgspec

from landline.channel.activities import Activities, PageBounds
from landline.channel.attachments import Attachments, UploadBounds
from landline.channel.bot_activities import BotActivities
from landline.channel.bot_conversations import BotConversations
from landline.channel.conversations import Conversations
from landline.channel.delivery import Delivery
from landline.channel.idempotency import Repeats
from landline.channel.members import Members
from landline.channel.redelivery import Redelivery
from landline.channel.registry import Registry
from landline.channel.retention import LastUse, Retention, RetentionPolicy
from landline.channel.streams import OpenStreams
from landline.channel.tokens import Lifetimes, Tokens
from landline.core.tokens import Keys
from landline.ports import Blobs, BotTransport, Clock, Store

_MARKS_S = 1.0
"""How long a stop waits, behind the last bot, until the store knows what bots took and whom they were told of."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How the use cases behave; what the settings say. Durations are in seconds."""

    lifetimes: Lifetimes
    pages: PageBounds
    uploads: UploadBounds
    retention: RetentionPolicy
    join_wait_s: float
    store_wait_s: float
    members: int
    """Members of a conversation, at most."""


class Channel:
    """Everything that clients, bots and operators can ask for, apart from what is registered (`Registrations`)."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        transport: BotTransport,
        registry: Registry,
        streams: OpenStreams,
        keys: Keys,
        clock: Clock,
        rules: Rules,
    ) -> None:
        """`store` and `blobs` are open already, and are closed by whoever opened them. Begins nothing."""
        self.store, self.transport, self.registry, self.streams, self.clock = store, transport, registry, streams, clock
        wait_s, members = rules.store_wait_s, rules.members
        self.tokens = Tokens(registry, keys, clock, rules.lifetimes)
        self.last_use = LastUse(store, clock, rules.retention.grain_s)
        self.repeats = repeats = Repeats(clock, rules.retention.keys_s)
        self.bots = BotActivities(store, repeats, self.last_use, clock, store_wait_s=wait_s)
        self.delivery = Delivery(
            store,
            transport,
            registry,
            clock,
            on_reply=self.bots.accept_reply,
            join_wait_s=rules.join_wait_s,
            members=members,
        )
        self.members = Members(store, self.delivery.joins, clock, store_wait_s=wait_s)
        self.redelivery = Redelivery(store, registry, self.delivery)
        self.conversations = Conversations(store, self.tokens, self.delivery, self.last_use)
        self.activities = Activities(store, self.conversations, self.delivery, repeats, clock, rules.pages)
        self.attachments = Attachments(blobs, store, self.activities, clock, rules.uploads, store_wait_s=wait_s)
        self.bot_conversations = BotConversations(store, self.bots, repeats, keys.conversation, members=members)
        self.retention = Retention(store, blobs, streams, clock, rules.retention)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Wake streams, and remove what is too old, from now on."""
        self.streams.tell(self.last_use.left)
        self.store.listen(self.streams.moved)
        work = (self.attachments.settle_doubts(), self.attachments.sweep(), self.retention.keep_sweeping())
        self._tasks = [asyncio.create_task(each) for each in work]

    async def finish(self, until: float) -> None:
        """Wait for what bots are being told, and for what they say in answer, until that time of the clock."""
        await self.delivery.finish(until)

    async def close(self, until: float) -> None:
        """End everything: wait for bots until that time, then let go of those that have not answered. What was written
        to a bot and what was not is known behind it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.finish(until)
        await self.transport.close()  # tells what may have reached a bot from what has not
        await self.finish(self.clock.monotonic() + _MARKS_S)
        await self.delivery.close()
