"""A bot at the other end of no wire: a `BotTransport` in the same process, every delivery in the hands of the test.

It makes the instants visible between which `channel.delivery` decides: a request begun, a request written, an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from landline.core.bot import Bot
from landline.errors import BotTimedOut, BotUnreachable, DeliveryError
from landline.ports import BotAnswer


class Post:
    """One delivery under way. `write` and `answer` move it on; at its deadline it fails by itself, as the real one."""

    def __init__(self, bot: Bot, body: bytes, deadline: float, retry: bool, on_written: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.bot = bot
        self.activity: dict[str, Any] = json.loads(body)
        self.deadline = deadline
        self.retry = retry
        self.begun = loop.time()
        self.is_written = False
        self._tell_written = on_written
        self.outcome: asyncio.Future[BotAnswer] = loop.create_future()

    @property
    def type(self) -> str:
        return str(self.activity["type"])

    @property
    def text(self) -> str | None:
        return self.activity.get("text")

    @property
    def joined(self) -> list[str]:
        """The ids that this activity announces."""
        return [member["id"] for member in self.activity.get("membersAdded", ())]

    def write(self) -> None:
        """The last byte of the request has left."""
        if not self.is_written:
            self.is_written = True
            self._tell_written()

    def answer(self, status: int = 200, body: bytes = b"") -> None:
        """The bot took it."""
        self.write()
        self.outcome.set_result(BotAnswer(status, "application/json", body))

    def fail(self, error: DeliveryError) -> None:
        """The delivery ends so."""
        self.outcome.set_exception(error)


class ScriptedTransport:
    """Implements `landline.ports.BotTransport`. Answers every delivery at once until `hold` is set."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.hold = False
        self.failure: DeliveryError | None = None
        """What every delivery comes to at once, never written."""
        self._news = asyncio.Event()

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
        post = Post(bot, activity, deadline, retry, on_written)
        self.posts.append(post)
        self._news.set()
        try:
            if self.failure is not None:
                raise self.failure
            if not self.hold:
                post.answer()
            async with asyncio.timeout_at(deadline):
                return await post.outcome
        except TimeoutError:
            raise (BotTimedOut if post.is_written else BotUnreachable) from None
        finally:
            post.write()

    async def close(self) -> None:
        pass

    # What came

    @property
    def messages(self) -> list[str | None]:
        """The texts of the messages in the order in which their requests began."""
        return [post.text for post in self.posts if post.type == "message"]

    @property
    def joins(self) -> list[list[str]]:
        """What each conversationUpdate announced, in that order."""
        return [post.joined for post in self.posts if post.type == "conversationUpdate"]

    async def nth(self, number: int, within: float = 5) -> Post:
        """The delivery with that number (0 is the first), past or to come."""
        try:
            async with asyncio.timeout(within):
                while len(self.posts) <= number:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"no delivery {number}; there were {[p.activity for p in self.posts]}") from None
        return self.posts[number]
