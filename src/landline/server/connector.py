"""The Connector API at the edge: what bots call back (bot-side 3). Parse, call one channel method, format.

A bot without app id is recognised by the key in the path alone (bot-side 3), one with an app id by that and its token;
a path without a good key is as unknown as any other.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.routing import Route

from landline.channel.attachments import Attachments
from landline.channel.bot_tokens import BotTokens
from landline.channel.bots import BotCalls
from landline.channel.registry import Registry
from landline.core.bot import Bot
from landline.core.links import VIEWS
from landline.errors import (
    BotNotAuthenticated,
    Forbidden,
    IssuerUnavailable,
    MissingCredential,
    MissingProperty,
    NotFound,
    UnknownActivity,
    UnknownAttachment,
    UnknownConversation,
)
from landline.server.exchange import Exchange, Manners, Resource
from landline.server.openapi import ADDING, operation

PREFIX = "/b"
_UPLOADS = 4
"""Uploads of bots that are held in memory at a time. They come as text in JSON; more wait for their turn."""

_TAG = "Connector"
_CALLING = (NotFound, BotNotAuthenticated, Forbidden, IssuerUnavailable)
"""What may come of anything that a bot calls."""
_MADE = operation(
    _TAG, {200: "Resource"}, body="Activity", raises=(*_CALLING, UnknownConversation, UnknownActivity, *ADDING)
)

_encode = msgspec.json.Encoder().encode


class Connector:
    """The endpoints under the service URL of each bot."""

    def __init__(
        self, registry: Registry, tokens: BotTokens, calls: BotCalls, files: Attachments, manners: Manners
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._calls = calls
        self._files = files
        self._manners = manners
        self._uploading = asyncio.Semaphore(_UPLOADS)

    def routes(self) -> list[Route]:
        """What is to be found where."""
        manners = self._manners
        conversation = PREFIX + "/{key}/v3/conversations/{conversation}"
        activities = conversation + "/activities"
        resources = (
            Resource(activities, manners, POST=self.send),
            # Reserved for a call of its own, which must not pass for a reply to an activity of that name (3.9).
            Resource(activities + "/history", manners),
            Resource(activities + "/{activity}", manners, POST=self.reply, PUT=self.update, DELETE=self.delete),
            Resource(conversation + "/attachments", manners.for_files(), POST=self.attach),
            # The bytes themselves need no key: `server.attachments`.
            Resource(PREFIX + "/{key}" + VIEWS + "/{attachment}", manners, GET=self.attachment),
        )
        return [Route(resource.template, resource) for resource in resources]

    @_MADE
    async def send(self, exchange: Exchange) -> None:
        """Send to conversation (bot-side 3.1)."""
        await self._accept(exchange, None)

    @_MADE
    async def reply(self, exchange: Exchange) -> None:
        """Reply to activity (bot-side 3.2)."""
        await self._accept(exchange, exchange.path("activity"))

    @_MADE
    async def update(self, exchange: Exchange) -> None:
        """Update activity (bot-side 3.3)."""
        bot, activity_id = await self._bot(exchange), exchange.path("activity")
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        body = await exchange.json_body()
        await self._calls.update(bot, conversation, activity_id, body, exchange.deadline, _request_id(exchange))
        await exchange.json(200, _encode({"id": activity_id}))

    @operation(_TAG, {200: None}, raises=(*_CALLING, UnknownConversation, UnknownActivity, *ADDING))
    async def delete(self, exchange: Exchange) -> None:
        """Delete activity (bot-side 3.4). Most SDKs take a 204 for an error (fact 7)."""
        bot = await self._bot(exchange)
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        await self._calls.delete(bot, conversation, exchange.path("activity"), exchange.deadline)
        await exchange.answer(200, b"")

    async def _accept(self, exchange: Exchange, reply_to: str | None) -> None:
        bot = await self._bot(exchange)
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        body = await exchange.json_body()
        activity_id = await self._calls.send(
            bot, conversation, body, exchange.deadline, reply_to, _request_id(exchange)
        )
        await exchange.json(200, _encode({"id": activity_id}))

    @operation(_TAG, {201: "Resource"}, body="AttachmentData", raises=(*_CALLING, UnknownConversation, MissingProperty))
    async def attach(self, exchange: Exchange) -> None:
        """Upload an attachment (bot-side 3.6)."""
        bot = await self._bot(exchange)
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        exchange.check_json()
        async with self._uploading:
            body = await exchange.whole_upload()
            attachment_id = await self._files.attach(conversation, body, exchange.deadline)
        await exchange.json(201, _encode({"id": attachment_id}))

    @operation(_TAG, {200: "AttachmentInfo"}, raises=(*_CALLING, UnknownAttachment))
    async def attachment(self, exchange: Exchange) -> None:
        """What is known of an attachment (bot-side 3.6)."""
        blob = await self._files.find(exchange.path("attachment"), await self._bot(exchange))
        await blob.close()
        known = blob.attachment
        views = [{"viewId": view.id, "size": view.size} for view in known.views]
        await exchange.json(200, _encode({"name": known.name, "type": known.content_type, "views": views}))

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


def _request_id(exchange: Exchange) -> str | None:
    """The same for a request and its repeats, in the one SDK that repeats (bot-side 1, fact 2)."""
    value = exchange.header(b"x-ms-client-request-id")
    return None if value is None else value.decode("latin-1")
