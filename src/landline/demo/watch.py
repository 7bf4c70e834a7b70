"""How the line between Landline and the bot stands, as the demo's page draws it.

Theory of operation. What really becomes of activities is seen in passing: `Watch` stands in front of what carries them.
That comes too late for a bot that is not there, since such an activity is tried again until its deadline, and tells
nothing before anybody has spoken. So the bot is *looked for* as well: a connection and not a byte on it, every moment
that a page is open; and at the start, when a page is loaded and when the bot is back, it is *asked* with a
conversationUpdate that tells of nobody. That one belongs to a conversation of its own, so that a bot which answers
everything finds somebody to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import msgspec
import structlog

from landline.bots.connections import NotAUrl
from landline.bots.http import HttpBotTransport
from landline.channel.tokens import new_conversation_id, random_id
from landline.core import activity, log
from landline.core.bot import Bot, without_query
from landline.core.conversation import NewConversation
from landline.core.log import ConversationId
from landline.demo import trouble
from landline.demo.trouble import Trouble
from landline.errors import BotUnreachable, DeliveryError, StoreError
from landline.ports import BotAnswer, Clock, Store

_LOOK_S = 1.0
"""A bot that was looked for so lately is not looked for again."""

_ASK_S = 10.0
"""Nor is one asked again so soon that is there and wants nothing from us."""

_log = structlog.get_logger(__name__)


class Standing(msgspec.Struct, frozen=True):
    """How the line stands. `state` is `unknown`, `connected`, `waiting` (it has something and does not answer) or
    `trouble`; the rest is what is in the way."""

    state: str
    word: str = ""
    help: str = ""
    guide: str = ""


_CONNECTED = Standing("connected", "connected", "It takes what it is sent.")
_UNKNOWN = Standing("unknown", "looking")


class Watch:
    """Implements `landline.ports.BotTransport` for one bot, and sees what becomes of everything. `begin` first."""

    def __init__(self, transport: HttpBotTransport, *, patience_s: float, may_take_long: bool = False) -> None:
        """A bot is given `patience_s` to connect or to answer before that is said to be long. One that `may_take_long`
        is known to speak in the middle of a turn, however long it is: nothing is said of its silence."""
        self._transport = transport
        self._patience_s = patience_s
        self._may_take_long = may_take_long
        self._standing = _UNKNOWN
        self._heard = 0
        """How many answers of the bot were seen: an older question does not overrule a newer answer."""
        self._reached = False
        """Whether the bot could be connected to when that was last known."""
        self._failed = False
        """Whether what is in the way came of the last message alone."""
        self._asked_s = 0.0
        self._closed = False
        self._since: dict[object, float] = {}
        """When each delivery that is under way began."""
        self._looked_at: float | None = None
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def begin(self, bot: Bot, store: Store, clock: Clock) -> None:
        """Know the bot, and what it takes to ask it."""
        assert bot.endpoint is not None
        self._bot, self._endpoint = bot, bot.endpoint
        self._store, self._clock = store, clock
        self._conversation: ConversationId | None = None

    # What is sent passes by

    async def deliver(
        self,
        bot: Bot,
        activity: bytes,
        deadline: float,
        *,
        retry: bool = True,
        own_connection: bool = False,
        on_written: Callable[[], None],
        on_activity: Callable[[bytes], Awaitable[None]],
    ) -> BotAnswer:
        """See `landline.ports.BotTransport.deliver`."""
        self.look()  # so that nobody waits for this one to be given up
        delivery = object()
        began_s = self._since[delivery] = asyncio.get_running_loop().time()
        try:
            answer = await self._transport.deliver(
                bot,
                activity,
                deadline,
                retry=retry,
                own_connection=own_connection,
                on_written=on_written,
                on_activity=on_activity,
            )
        except DeliveryError as error:
            if not isinstance(error, BotUnreachable):  # that is seen by looking, and in better words
                self._hear(self._trouble(error, asyncio.get_running_loop().time() - began_s))
            raise
        finally:
            del self._since[delivery]
        self._hear(trouble.in_answer(answer))
        return answer

    async def close(self) -> None:
        """See `landline.ports.BotTransport.close`. Nobody looks for the bot any more."""
        self._closed = True
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        await self._transport.close()

    def _trouble(self, error: DeliveryError, waited_s: float) -> Trouble:
        return trouble.in_delivering(error, self._endpoint, self._bot.app_id, waited_s)

    def _hear(self, found: Trouble | None) -> None:
        """The bot was there, whatever it made of it."""
        self._heard += 1
        self._reached = True
        self._failed = found is not None and found.passing
        self._stand(found)

    def _stand(self, found: Trouble | None) -> None:
        standing = _CONNECTED if found is None else Standing("trouble", found.word, found.help, found.guide)
        before, self._standing = self._standing, standing
        where = without_query(self._endpoint)
        if found is not None and standing != before:
            _log.warning("the bot does not take what it is sent", endpoint=where, trouble=found.word, help=found.help)
        elif found is None and before.state == "trouble":
            # Whoever has read the warning waits for this line, so it is of the same level.
            _log.warning("the bot takes what it is sent again", endpoint=where)

    # It is looked for

    @property
    def standing(self) -> Standing:
        """How the line stands, as far as it is known now."""
        longest_s = asyncio.get_running_loop().time() - min(self._since.values(), default=float("inf"))
        if self._standing.state == "connected" and longest_s > self._patience_s and not self._may_take_long:
            long = trouble.silent(longest_s)
            return Standing("waiting", long.word, long.help)
        return self._standing

    def look(self) -> None:
        """Look for the bot in the background, unless that has just been done."""
        now_s = asyncio.get_running_loop().time()
        if not self._closed and (self._looked_at is None or now_s - self._looked_at >= _LOOK_S):
            self._looked_at = now_s
            self._start("look", self._look)

    async def ask(self) -> Standing:
        """Ask the bot, and answer how the line stands. Takes at most twice the patience that there is."""
        await asyncio.shield(self._start("ask", self._ask))
        return self.standing

    def _start(self, name: str, work: Callable[[], Coroutine[object, object, None]]) -> asyncio.Task[None]:
        """One of each at a time, for however many pages."""
        task = self._under_way.get(name)
        if task is None or task.done():
            task = self._under_way[name] = asyncio.create_task(work())
        return task

    async def _look(self) -> None:
        found = await self._in_the_way()
        if found is not None:
            self._reached = False
            self._stand(found)
        elif self._is_to_be_asked():
            await self._start("ask", self._ask)

    def _is_to_be_asked(self) -> bool:
        """Not while it is well, nor where it failed over a message: what it answers to a question disproves neither."""
        if not self._reached:
            return True
        now_s = asyncio.get_running_loop().time()
        return self._standing.state == "trouble" and not self._failed and now_s - self._asked_s >= _ASK_S

    async def _ask(self) -> None:
        """Connect, and if that goes well have the bot answer something."""
        heard = self._heard
        found = await self._in_the_way()
        self._reached = found is None
        if found is None:
            found = await self._answer()
        self._asked_s = asyncio.get_running_loop().time()
        if self._heard == heard:
            self._failed = False
            self._stand(found)

    async def _in_the_way(self) -> Trouble | None:
        try:
            async with asyncio.timeout(self._patience_s):
                await self._transport.reach(self._endpoint)
        except (OSError, NotAUrl) as error:
            return trouble.in_connecting(error, self._endpoint)
        return None

    async def _answer(self) -> Trouble | None:
        deadline = asyncio.get_running_loop().time() + self._patience_s
        try:
            question = await self._question()
            answer = await self._transport.deliver(
                self._bot, question, deadline, retry=False, on_written=_nothing, on_activity=_unheard
            )
        except DeliveryError as error:
            return self._trouble(error, self._patience_s)
        except StoreError as error:
            return Trouble("not asked", f"{error.message}.")
        return trouble.in_answer(answer)

    async def _question(self) -> bytes:
        """A conversationUpdate that tells of nobody: no SDK does anything about it. Raises `StoreError`."""
        if self._conversation is None:
            name = new_conversation_id()
            await self._store.start(NewConversation(name, self._bot.id))
            self._conversation = name
        return activity.join(
            conversation=self._conversation,
            bot=self._bot,
            members=(),
            locale=None,
            activity_id=activity.transient_id(self._conversation, random_id(), seen=False),
            time=log.timestamp(self._clock.now_ms()),
        )


def _nothing() -> None:
    """Nobody waits behind a question."""


async def _unheard(said: bytes) -> None:
    """What a bot says to a question is for nobody."""
