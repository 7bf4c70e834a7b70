"""The order in which a bot hears of one conversation.

Theory of operation. Each conversation with something under way has a *line*. Whoever has an activity for the bot takes
a place in it at once, without waiting for anything, right behind the append: so the places stand in log order. A place
is left when its request has been *written*, not when it is answered; turns of a bot may therefore overlap, and a slow
turn holds nobody back (specification 8.1.4, D-38), unless the bot was registered as one that takes one turn at a time;
then the place is left with the answer. No lock is held while a bot works: bots call back in the middle of a turn.
"""

from __future__ import annotations

import asyncio

from landline.core.log import ConversationId
from landline.errors import BotUnreachable


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
