"""The Connector API at the edge: what bots call back (bot-side 3). Parse, call one channel method, format.

A bot without app id is recognised by the key in the path alone (bot-side 3), one with an app id by that and its token;
a path without a good key is as unknown as any other.
"""

from __future__ import annotations

import msgspec
from starlette.routing import Route

from landline.channel.bot_tokens import BotTokens
from landline.channel.bots import BotCalls
from landline.channel.registry import Registry
from landline.core.bot import Bot
from landline.errors import MissingCredential, NotFound
from landline.server.exchange import Exchange, Manners, Resource

PREFIX = "/b"

_encode = msgspec.json.Encoder().encode


class Connector:
    """The endpoints under the service URL of each bot."""

    def __init__(self, registry: Registry, tokens: BotTokens, calls: BotCalls, manners: Manners) -> None:
        self._registry = registry
        self._tokens = tokens
        self._calls = calls
        self._manners = manners

    def routes(self) -> list[Route]:
        """What is to be found where."""
        manners = self._manners
        activities = PREFIX + "/{key}/v3/conversations/{conversation}/activities"
        resources = (
            Resource(activities, manners, POST=self.send),
            # Reserved for a call of its own, which must not pass for a reply to an activity of that name (3.9).
            Resource(activities + "/history", manners),
            Resource(activities + "/{activity}", manners, POST=self.reply),
        )
        return [Route(resource.template, resource) for resource in resources]

    async def send(self, exchange: Exchange) -> None:
        """Send to conversation (bot-side 3.1)."""
        await self._accept(exchange, None)

    async def reply(self, exchange: Exchange) -> None:
        """Reply to activity (bot-side 3.2)."""
        await self._accept(exchange, exchange.path("activity"))

    async def _accept(self, exchange: Exchange, reply_to: str | None) -> None:
        bot = await self._bot(exchange)
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        body = await exchange.json_body()
        activity_id = await self._calls.send(bot, conversation, body, exchange.deadline, reply_to)
        await exchange.json(200, _encode({"id": activity_id}))

    async def _bot(self, exchange: Exchange) -> Bot:
        """Who is calling: known by the key path and, with an app id, by a token besides (bot-side 6.2)."""
        bot = self._registry.bot_of_key(exchange.path("key"))
        if bot is None:
            raise NotFound
        try:
            token = exchange.bearer()
        except MissingCredential:  # an empty one counts as none
            token = None
        await self._tokens.check(bot, token)
        return bot
