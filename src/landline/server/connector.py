"""The Connector API at the edge: what bots call back (bot 3). Parse, call one channel method, format.

A bot without app id is recognised by the key in the path alone (bot 3), one with an app id by that and its token;
a path without a good key is as unknown as any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec
from starlette.routing import Route

from landline.channel.attachments import Attachments
from landline.channel.bot_activities import BotActivities
from landline.channel.bot_conversations import BotConversations
from landline.channel.bot_tokens import BotTokens
from landline.channel.members import Members
from landline.channel.registry import Registry
from landline.core.bot import Bot
from landline.core.conversation import Conversation, Member
from landline.core.links import VIEWS
from landline.errors import (
    BadArgument,
    BotNotAuthenticated,
    CallConflict,
    Conflict,
    DeadlinePassed,
    Forbidden,
    IssuerUnavailable,
    MissingCredential,
    MissingProperty,
    NotFound,
    OutcomeUnknown,
    UnknownActivity,
    UnknownAttachment,
    UnknownConversation,
    UnknownMember,
)
from landline.server.exchange import Exchange, HttpRules, Resource
from landline.server.openapi import ADDING, NOBODY, operation
from landline.server.paths import BOTS

PREFIX = BOTS
_UPLOADS = 4
"""Uploads of one bot that are held in memory at a time. They come as text in JSON; more wait for their turn."""

_TAG = "Connector"
_CALLING = (NotFound, BotNotAuthenticated, Forbidden, IssuerUnavailable)
"""What may come of anything that a bot calls."""
_operation = functools.partial(operation, _TAG, security=("bot", NOBODY))
_MADE = _operation(
    {200: "Resource"}, body="Activity", raises=(*_CALLING, UnknownConversation, UnknownActivity, CallConflict, *ADDING)
)

_encode = msgspec.json.Encoder().encode


class Connector:
    """The endpoints under the service URL of each bot."""

    def __init__(
        self,
        registry: Registry,
        tokens: BotTokens,
        calls: BotActivities,
        conversations: BotConversations,
        members: Members,
        files: Attachments,
        rules: HttpRules,
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._calls = calls
        self._conversations = conversations
        self._members = members
        self._files = files
        self._rules = rules
        self._uploading: dict[str, asyncio.Semaphore] = {}

    def routes(self) -> list[Route]:
        """What is to be found where."""
        rules = self._rules
        conversation = PREFIX + "/{key}/v3/conversations/{conversation}"
        activities = conversation + "/activities"
        resources = (
            Resource(activities, rules, POST=self.send),
            # Reserved for a call of its own, which must not pass for a reply to an activity of that name (3.9).
            Resource(activities + "/history", rules, POST=self.add_history),
            Resource(activities + "/{activity}", rules, POST=self.reply, PUT=self.update, DELETE=self.delete),
            Resource(activities + "/{activity}/members", rules, GET=self.members),
            Resource(conversation + "/members", rules, GET=self.members),
            Resource(conversation + "/members/{member}", rules, GET=self.member, DELETE=self.remove),
            Resource(conversation + "/pagedmembers", rules, GET=self.paged_members),
            Resource(PREFIX + "/{key}/v3/conversations", rules, GET=self.conversations, POST=self.start),
            Resource(conversation + "/attachments", rules.for_files(), POST=self.attach),
            # The bytes themselves need no key: `server.attachments`.
            Resource(PREFIX + "/{key}" + VIEWS + "/{attachment}", rules, GET=self.attachment),
        )
        return [Route(resource.template, resource) for resource in resources]

    @_MADE
    async def send(self, exchange: Exchange) -> None:
        """Send an activity to a conversation (bot 3.1)."""
        await self._accept(exchange, None)

    @_MADE
    async def reply(self, exchange: Exchange) -> None:
        """Reply to an activity (bot 3.2)."""
        await self._accept(exchange, exchange.path("activity"))

    @_MADE
    async def update(self, exchange: Exchange) -> None:
        """Update an activity (bot 3.3)."""
        bot, conversation = await self._in_conversation(exchange)
        activity_id = exchange.path("activity")
        body = await exchange.json_body()
        with _as_bots_call_it():
            await self._calls.update(bot, conversation, activity_id, body, exchange.deadline, _request_id(exchange))
        await exchange.json(200, _encode({"id": activity_id}))

    @_operation({200: None}, raises=(*_CALLING, UnknownConversation, UnknownActivity, *ADDING))
    async def delete(self, exchange: Exchange) -> None:
        """Delete an activity (bot 3.4).

        The answer is 200, for most SDKs take a 204 for an error (bot 1, fact 7).
        """
        bot, conversation = await self._in_conversation(exchange)
        await self._calls.delete(bot, conversation, exchange.path("activity"), exchange.deadline)
        await exchange.answer(200, b"")

    async def _accept(self, exchange: Exchange, reply_to: str | None) -> None:
        bot, conversation = await self._in_conversation(exchange)
        body = await exchange.json_body()
        with _as_bots_call_it():
            activity_id = await self._calls.send(
                bot, conversation, body, exchange.deadline, reply_to, _request_id(exchange)
            )
        await exchange.json(200, _encode({"id": activity_id}))

    @_operation({200: "Resource"}, body="History", raises=(*_CALLING, UnknownConversation, CallConflict, *ADDING))
    async def add_history(self, exchange: Exchange) -> None:
        """Add the history of a conversation (bot 3.9)."""
        bot, conversation = await self._in_conversation(exchange)
        body = await exchange.json_body()
        with _as_bots_call_it():
            last = await self._calls.add_history(bot, conversation, body, exchange.deadline, _request_id(exchange))
        await exchange.json(200, _encode({"id": last}))

    # Members

    @_operation({200: "Members"}, raises=(*_CALLING, UnknownConversation))
    async def members(self, exchange: Exchange) -> None:
        """List the members of a conversation, or of one of its activities: they are the same (bot 3.5)."""
        bot, conversation = await self._in_conversation(exchange)
        members = await self._members.all(bot, conversation)
        await exchange.json(200, _encode([_shown(member) for member in members]))

    @_operation({200: "Account"}, raises=(*_CALLING, UnknownConversation, UnknownMember))
    async def member(self, exchange: Exchange) -> None:
        """Get one member (bot 3.5)."""
        bot, conversation = await self._in_conversation(exchange)
        member = await self._members.one(bot, conversation, exchange.path("member"))
        await exchange.json(200, _encode(_shown(member)))

    @_operation(
        {200: "PagedMembers"},
        parameters=("pageSize", "continuationToken"),
        raises=(*_CALLING, UnknownConversation, BadArgument),
    )
    async def paged_members(self, exchange: Exchange) -> None:
        """Get one page of members (bot 3.5).

        A continuation that is null would break a bot (bot 1, fact 8).
        """
        bot, conversation = await self._in_conversation(exchange)
        size, continuation = exchange.query("pageSize"), exchange.query("continuationToken")
        members, following = await self._members.page(bot, conversation, size, continuation)
        shown = {"members": [_shown(member) for member in members]}
        await exchange.json(200, _encode(_paged(shown, following)))

    @_operation({200: None}, raises=(*_CALLING, UnknownConversation, BadArgument, OutcomeUnknown))
    async def remove(self, exchange: Exchange) -> None:
        """Remove a member (bot 3.5)."""
        bot, conversation = await self._in_conversation(exchange)
        await self._members.remove(bot, conversation, exchange.path("member"), exchange.deadline)
        await exchange.json(200, b"")

    # Conversations

    @_operation(
        {201: "CreatedConversation"},
        body="ConversationParameters",
        security=("bot",),
        raises=(*_CALLING, UnknownConversation, *ADDING),
    )
    async def start(self, exchange: Exchange) -> None:
        """Create a conversation (bot 3.7). The bot is identified by the path, not the body."""
        bot = await self._bot(exchange)
        body = await exchange.json_body()
        begun = await self._conversations.start(bot, body, exchange.deadline, _request_id(exchange))
        exchange.conversation = begun.conversation
        created = {"id": begun.conversation, "serviceUrl": bot.service_url}
        if begun.activity_id is not None:
            created["activityId"] = begun.activity_id
        await exchange.json(201, _encode(created))

    @_operation(
        {200: "Conversations"},
        security=("bot",),
        parameters=("continuationToken",),
        raises=(*_CALLING, BadArgument),
    )
    async def conversations(self, exchange: Exchange) -> None:
        """List the bot's conversations (bot 3.8)."""
        bot, continuation = await self._bot(exchange), exchange.query("continuationToken")
        found, following = await self._conversations.page(bot, continuation)
        shown = [{"id": name, "members": [_shown(member) for member in members]} for name, members in found]
        await exchange.json(200, _encode(_paged({"conversations": shown}, following)))

    # Attachments

    @_operation({201: "Resource"}, body="AttachmentData", raises=(*_CALLING, UnknownConversation, MissingProperty))
    async def attach(self, exchange: Exchange) -> None:
        """Upload an attachment (bot 3.6)."""
        bot, conversation = await self._in_conversation(exchange)
        exchange.check_json()
        async with self._place_for_an_upload(bot, exchange.deadline):
            body = await exchange.whole_upload()
            attachment_id = await self._files.attach(conversation, body, exchange.deadline)
        await exchange.json(201, _encode({"id": attachment_id}))

    @contextlib.asynccontextmanager
    async def _place_for_an_upload(self, bot: Bot, deadline: float) -> AsyncIterator[None]:
        """A bot that takes its time over uploads holds up no other bot's. Raises `DeadlinePassed`."""
        places = self._uploading.setdefault(bot.id, asyncio.Semaphore(_UPLOADS))
        try:
            async with asyncio.timeout_at(deadline):
                await places.acquire()
        except TimeoutError as error:
            raise DeadlinePassed("Other uploads of the bot were under way for too long; nothing was stored") from error
        try:
            yield
        finally:
            places.release()

    @_operation({200: "AttachmentInfo"}, raises=(*_CALLING, UnknownAttachment))
    async def attachment(self, exchange: Exchange) -> None:
        """Get the name, the type and the views of an attachment (bot 3.6)."""
        blob = await self._files.find(exchange.path("attachment"), await self._bot(exchange))
        await blob.close()
        known = blob.attachment
        views = [{"viewId": view.id, "size": view.size} for view in known.views]
        await exchange.json(200, _encode({"name": known.name, "type": known.content_type, "views": views}))

    async def _in_conversation(self, exchange: Exchange) -> tuple[Bot, Conversation]:
        bot = await self._bot(exchange)
        conversation = await self._calls.find(bot, exchange.path("conversation"))
        exchange.conversation = conversation.id
        return bot, conversation

    async def _bot(self, exchange: Exchange) -> Bot:
        """Who is calling: known by the key path and, with an app id, by a token besides (bot 6.2)."""
        bot = self._registry.bot_of_key(exchange.path("key"))
        if bot is None:
            raise NotFound
        try:
            token = exchange.bearer()
        except MissingCredential:  # an empty one counts as none
            token = None
        await self._tokens.check(bot, token)
        exchange.bot = bot.id
        return bot


def _shown(member: Member) -> dict[str, str]:
    account = {"id": member.account.id, "role": "bot" if member.is_bot else "user"}
    if member.account.name is not None:
        account["name"] = member.account.name
    return account


def _paged(page: Mapping[str, object], following: str | None) -> dict[str, object]:
    return {**page} if following is None else {**page, "continuationToken": following}


@contextlib.contextmanager
def _as_bots_call_it() -> Iterator[None]:
    """The key of a bot's call is in another header than that of a client's send."""
    try:
        yield
    except Conflict as error:
        raise CallConflict from error


def _request_id(exchange: Exchange) -> str | None:
    """The same for a request and its repeats, in the one SDK that repeats (bot 1, fact 2)."""
    value = exchange.header(b"x-ms-client-request-id")
    return None if value is None else value.decode("latin-1")
