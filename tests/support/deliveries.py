"""What tests of deliveries share: a store in trouble, and conditions that are waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from landline.core.conversation import Account, Member
from landline.core.log import ConversationId
from landline.errors import StoreUnavailable
from landline.stores.memory import MemoryStore
from support.channel import Channel, TestClock

LINGER_S = 0.1
"""How long a test watches that something does *not* happen. It happens within one turn of the loop if it does."""


class StuckStore(MemoryStore):
    """A store whose book of members hangs, fails, or notes no announcement when it is told to."""

    def __init__(self) -> None:
        super().__init__(TestClock())
        self.moves = asyncio.Event()
        self.moves.set()
        self.fails = False
        self.marks_fail = False

    async def join(self, conversation: ConversationId, account: Account, most: int | None = None) -> Sequence[Member]:
        await self._trouble()
        return await super().join(conversation, account, most)

    async def members(self, conversation: ConversationId) -> Sequence[Member]:
        await self._trouble()
        return await super().members(conversation)

    async def mark_announced(self, conversation: ConversationId, account_ids: Sequence[str]) -> None:
        await self._trouble()
        if self.marks_fail:
            raise StoreUnavailable
        await super().mark_announced(conversation, account_ids)

    async def _trouble(self) -> None:
        if self.fails:
            raise StoreUnavailable
        await self.moves.wait()


async def until(condition: object, what: str, within: float = 5) -> None:
    """Wait until `condition()` holds."""
    give_up = time.monotonic() + within
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up, what
        await asyncio.sleep(0.005)


async def until_idle(channel: Channel) -> None:
    """Until nothing is under way in the background."""
    async with asyncio.timeout(5):
        while channel.delivery._tasks._tasks:
            await asyncio.sleep(0)


async def all_announced(channel: Channel, conversation: ConversationId) -> None:
    async with asyncio.timeout(5):
        while not all(member.announced for member in await channel.store.members(conversation)):
            await asyncio.sleep(0.005)
