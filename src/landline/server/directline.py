"""The Direct Line API at the edge: parse, call one channel method, format (spec 5).

The order of the lines in an endpoint is the order of checks of spec 3.4: who asks, whether the conversation is
theirs and exists, and only then what was sent.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable
from functools import partial
from urllib.parse import urlsplit

import msgspec
import structlog
from starlette.routing import Route

from landline.channel.activities import Activities
from landline.channel.attachments import Attachments, Upload
from landline.channel.conversations import Admitted, Conversations, Opened
from landline.channel.parsing import parsed
from landline.channel.throttle import Throttle
from landline.channel.tokens import Grant, Issued, Tokens
from landline.core import attachments, json_text
from landline.core.attachments import Head, Role
from landline.core.tokens import Ticket, TokenParameters, read_parameters
from landline.errors import (
    BadArgument,
    BadSyntax,
    Draining,
    LandlineError,
    MissingProperty,
    NotTrusted,
    NotWebSocket,
    RateLimited,
    UnknownConversation,
    UnsupportedMediaType,
)
from landline.server.exchange import Exchange, HttpRules, Resource, bearer_of, origin_of, public_base, query_parameters
from landline.server.openapi import CREDENTIALS, SENDING, operation
from landline.server.paths import DIRECT_LINE
from landline.server.stream import Streaming
from landline.wire.answers import Header
from landline.wire.multipart import form_of
from landline.wire.websocket import Accept, Upgrade

PREFIX = DIRECT_LINE
SPOKEN_BYTES = 256 * 1024
"""The largest activity on `/stream/multimodal` (7.6)."""
STREAM_MESSAGE_BYTES = 64 * 1024
"""The largest message of a client on a stream; it is ignored anyway (7.4)."""

COOKIE = "dl_session"
COOKIE_S = 86_400
"""The life of a browser's session, in seconds (5.7)."""

_TAG = "Direct Line"
_STREAM = re.compile(PREFIX + r"/conversations/([^/]+)/stream(/multimodal)?")

_encode = msgspec.json.Encoder().encode
_log = structlog.get_logger(__name__)


class DirectLine:
    """The endpoints under `/v3/directline`."""

    def __init__(
        self,
        tokens: Tokens,
        throttle: Throttle,
        conversations: Conversations,
        activities: Activities,
        files: Attachments,
        streaming: Streaming,
        rules: HttpRules,
    ) -> None:
        self._rules = rules
        self._tokens = tokens
        self._throttle = throttle
        self._conversations = conversations
        self._activities = activities
        self._files = files
        self._streaming = streaming

    def routes(self) -> list[Route]:
        """What is to be found where."""
        rules = self._rules
        conversation = PREFIX + "/conversations/{conversation}"
        resources = (
            Resource(PREFIX + "/tokens/generate", rules, POST=self.generate),
            Resource(PREFIX + "/tokens/refresh", rules, POST=self.refresh),
            Resource(
                PREFIX + "/session/getsessionid", msgspec.structs.replace(rules, credentials=True), GET=self.session
            ),
            Resource(PREFIX + "/conversations", rules, POST=self.start),
            Resource(conversation, rules, GET=self.reconnect),
            Resource(conversation + "/activities", rules, GET=self.read, POST=self.send),
            Resource(conversation + "/upload", rules.for_files(), POST=self.upload),
            Resource(conversation + "/stream", rules, GET=self.not_a_stream),
            Resource(conversation + "/stream/multimodal", rules, GET=self.not_a_stream),
        )
        return [Route(resource.template, resource) for resource in resources]

    # Tokens

    @operation(
        _TAG, {200: "Token"}, body="TokenParameters", security=("secret",), raises=(MissingProperty, RateLimited)
    )
    async def generate(self, exchange: Exchange) -> None:
        """Generate a token for a new conversation (5.1)."""
        grant = _noted(exchange, self._tokens.secret_grant(exchange.bearer()))
        self._tokens.check_origin(grant, exchange.origin())
        await self._throttle.start(grant.site.id, exchange.deadline, *grant.overrides)
        issued = self._tokens.generate(grant, await self._parameters(exchange, grant))
        exchange.conversation = issued.conversation
        await exchange.json(200, _encode(_issued(issued)))

    @operation(_TAG, {200: "Token"}, security=("token",), raises=(UnknownConversation, RateLimited))
    async def refresh(self, exchange: Exchange) -> None:
        """Exchange a valid token for a new one (4.4)."""
        grant = _noted(exchange, self._tokens.renewable(exchange.bearer()))
        self._tokens.check_origin(grant, exchange.origin())
        await self._throttle.start(grant.site.id, exchange.deadline, *grant.overrides)
        issued = await self._conversations.refresh(grant)
        exchange.conversation = issued.conversation
        await exchange.json(200, _encode(_issued(issued)))

    @operation(_TAG, {200: "Session"}, security=("token",), parameters=("Origin",), raises=(NotTrusted,))
    async def session(self, exchange: Exchange) -> None:
        """Get the session of a browser, for sign-in cards (5.7)."""
        grant = _noted(exchange, self._tokens.grant(exchange.bearer()))
        session = self._tokens.session(grant, exchange.origin(), exchange.cookie(COOKIE))
        headers = () if session.cookie is None else (_set_cookie(session.cookie, exchange.base_url()),)
        await exchange.json(200, _encode({"sessionId": session.id}), *headers)

    # Conversations

    @operation(
        _TAG,
        {200: "Conversation", 201: "Conversation"},
        body="TokenParameters",
        security=("secret", "token"),
        raises=(MissingProperty, UnknownConversation, RateLimited),
    )
    async def start(self, exchange: Exchange) -> None:
        """Start a conversation, or return the one that was started (5.2)."""
        grant = self._grant(exchange, renewing=True)
        await self._throttle.start(grant.site.id, exchange.deadline, *grant.overrides)
        base = exchange.base_url()
        try:
            parameters = await self._parameters(exchange, grant)
        except (UnsupportedMediaType, BadSyntax, BadArgument):
            # Steps 9 and 10 of 3.4; step 8 comes before them. A start that is good finds out by itself.
            await self._conversations.check_not_gone(grant, exchange.deadline)
            raise
        opened = await self._conversations.start(grant, parameters, exchange.deadline)
        exchange.conversation = opened.conversation.id
        reference = grant.bot.reference_grammar_id
        await exchange.json(201 if opened.created else 200, _encode(_opened(opened, base, reference)))

    @operation(
        _TAG,
        {200: "Conversation"},
        security=("secret", "token"),
        parameters=("watermark",),
        headers=("X-DirectLine-Replay",),
        raises=(MissingProperty, UnknownConversation),
    )
    async def reconnect(self, exchange: Exchange) -> None:
        """Get a new token and a stream URL that begins at a watermark (5.3)."""
        grant = self._grant(exchange, renewing=True)
        conversation = await self._conversations.find(grant, exchange.path("conversation"))
        exchange.conversation = conversation.id
        opened = await self._conversations.reconnect(grant, conversation, exchange.query("watermark"))
        body = _encode(_opened(opened, exchange.base_url(), grant.bot.reference_grammar_id))
        await exchange.json(200, body, _replay(opened.replay.value))

    # Activities

    @operation(
        _TAG,
        {200: "ActivitySet"},
        security=("secret", "token"),
        parameters=("watermark",),
        headers=("X-DirectLine-Replay",),
        raises=(UnknownConversation, RateLimited),
    )
    async def read(self, exchange: Exchange) -> None:
        """Get one page of activities (5.4)."""
        grant, name = self._in_scope(exchange)
        await self._throttle.poll((grant.bot.id, name), exchange.deadline, *grant.overrides)
        conversation = await self._conversations.find(grant, name)
        exchange.conversation = conversation.id
        page = await self._activities.read(conversation, exchange.query("watermark"), exchange.base_url())
        await exchange.json(200, page.activity_set, _replay(page.replay.value))

    @operation(
        _TAG,
        {200: "Resource"},
        body="Activity",
        security=("secret", "token"),
        parameters=("Idempotency-Key",),
        raises=(UnknownConversation, *SENDING),
    )
    async def send(self, exchange: Exchange) -> None:
        """Send an activity (5.5)."""
        grant, name = self._in_scope(exchange)
        self._throttle.send((grant.bot.id, name), *grant.overrides)
        conversation = await self._conversations.find(grant, name, to_read=False)
        exchange.conversation = conversation.id
        body = await exchange.json_body()
        activity_id = await self._activities.send(grant, conversation, body, exchange.deadline, _key(exchange))
        await exchange.json(200, _encode({"id": activity_id}))

    @operation(
        _TAG,
        {200: "Resource"},
        body="Upload",
        security=("secret", "token"),
        parameters=("userId", "Idempotency-Key"),
        raises=(UnknownConversation, *SENDING),
    )
    async def upload(self, exchange: Exchange) -> None:
        """Upload files, and send an activity with them (5.6)."""
        grant, name = self._in_scope(exchange)
        self._throttle.send((grant.bot.id, name), *grant.overrides)
        conversation = await self._conversations.find(grant, name, to_read=False)
        exchange.conversation = conversation.id
        async with self._files.receive(grant, conversation) as upload:
            await _receive(exchange, upload)
            activity_id = await self._files.send(
                grant, conversation, upload, exchange.query("userId"), exchange.deadline, _key(exchange)
            )
        await exchange.json(200, _encode({"id": activity_id}))

    def _in_scope(self, exchange: Exchange) -> tuple[Grant, str]:
        """Who asks, and which conversation of theirs is meant: known before anything is counted (3.4, step 7)."""
        grant, name = self._grant(exchange), exchange.path("conversation")
        self._tokens.check_scope(grant, name)
        return grant, name

    def _grant(self, exchange: Exchange, *, renewing: bool = False) -> Grant:
        """Who asks, from a page that may (3.4, steps 4 and 5). `renewing`: and will get another token."""
        grant = _noted(exchange, self._tokens.grant(exchange.bearer()))
        if renewing:
            self._tokens.check_chain(grant)
        self._tokens.check_origin(grant, exchange.origin())
        return grant

    async def _parameters(self, exchange: Exchange, grant: Grant) -> TokenParameters:
        """The optional TokenParameters in the body (5.1, 5.2). The origins that it names hold for itself already."""
        body = await exchange.json_body()
        parameters = TokenParameters()
        if not json_text.is_none(body):
            parameters = await parsed(len(body), lambda: read_parameters(json_text.decode(body)))
        self._tokens.check_origin(grant, exchange.origin(), parameters.origins)
        return parameters

    # Streams

    @operation(
        _TAG,
        {101: None},
        parameters=("watermark", "t"),
        raises=(*CREDENTIALS, UnknownConversation, NotWebSocket, Draining),
    )
    async def not_a_stream(self, exchange: Exchange) -> None:
        """Open a stream by a WebSocket upgrade. Without an upgrade: 400, after the check of the credential (7.1)."""
        ticket = self._ticket(
            exchange.path("conversation"), exchange.query("t"), exchange.header(b"authorization"), exchange.origin()
        )
        await self._conversations.admit(ticket, exchange.query("watermark"))
        raise NotWebSocket

    def on_upgrade(self, path: str, request: Upgrade) -> Accept | Awaitable[Accept] | None:
        """Decide about a WebSocket handshake at `path` (7.1): at once, unless the disk has to be asked. Raises what the
        answer is to be. None where there are no streams."""
        stream = _STREAM.fullmatch(path)
        if stream is None:
            return None
        speaking = stream[2] is not None
        query = query_parameters(request.query, "watermark", "t")
        watermark = query.get("watermark")
        origin = origin_of(request.header(b"origin"))
        ticket = self._ticket(stream[1], query.get("t"), request.header(b"authorization"), origin)
        admitted = self._conversations.admit_known(ticket, watermark)
        if admitted is None:
            return self._admit(ticket, watermark, request, speaking=speaking)
        return self._accept(admitted, request, speaking=speaking)

    async def _admit(self, ticket: Ticket, watermark: str | None, request: Upgrade, *, speaking: bool) -> Accept:
        return self._accept(await self._conversations.admit(ticket, watermark), request, speaking=speaking)

    def _accept(self, admitted: Admitted, request: Upgrade, *, speaking: bool) -> Accept:
        if self._streaming.streams.draining:
            raise Draining
        host = request.header(b"host")
        base = public_base(self._rules, host, request.headers, request.scheme, request.client, request.server)
        streaming, ticket = self._streaming, admitted.ticket
        opening = admitted.conversation.id, admitted.start, ticket.site, ticket.ski, base
        if not speaking:
            return Accept(streaming.connection(*opening), STREAM_MESSAGE_BYTES)
        return Accept(streaming.speaking_connection(*opening, say=partial(self._say, admitted)), SPOKEN_BYTES)

    async def _say(self, admitted: Admitted, body: bytes) -> None:
        """One activity that came through a stream. There is nobody to tell of a failure but the log (7.6)."""
        deadline = self._streaming.wheel.time() + self._rules.deadline_s
        try:
            overrides = self._tokens.check_site(admitted.ticket), admitted.bot
            self._throttle.send((admitted.bot.id, admitted.conversation.id), *overrides)
            await self._activities.send_from_stream(admitted, body, deadline)
        except LandlineError as error:
            _log.warning(
                "an activity on a stream was dropped", conversation=admitted.conversation.id, reason=error.message
            )

    def _ticket(self, conversation: str, t: str | None, authorization: bytes | None, origin: str | None) -> Ticket:
        """What opens the stream: `t`, and only where there is none the header of a program that has a token (7.1)."""
        if t:
            return self._tokens.admit(t, conversation, origin)
        return self._tokens.admit_bearer(bearer_of(authorization), conversation, origin)


def _noted(exchange: Exchange, grant: Grant) -> Grant:
    """`grant`, with who asks noted for the log."""
    exchange.site, exchange.bot = grant.site.id, grant.bot.id
    return grant


def _set_cookie(value: str, base: str) -> Header:
    """For pages of other sites, and for no script (5.7)."""
    path = urlsplit(base).path + PREFIX
    return (
        b"set-cookie",
        f"{COOKIE}={value}; HttpOnly; Secure; SameSite=None; Path={path}; Max-Age={COOKIE_S}".encode(),
    )


async def _receive(exchange: Exchange, upload: Upload) -> None:
    """Read the body of an upload, as a form or as one file (5.6)."""
    exchange.check_coding()
    content_type = exchange.header(b"content-type")
    form = form_of(content_type, upload.most_parts)
    if form is None:
        head = attachments.head(content_type, exchange.header(b"content-disposition"), in_form=False)
        await _receive_file(exchange, upload, head)
        return
    async with contextlib.aclosing(form.read(exchange.pieces())) as events:
        async for event in events:
            if isinstance(event, Head):
                upload.begin(event, event.role)
            else:
                await upload.write(event)


async def _receive_file(exchange: Exchange, upload: Upload, head: Head) -> None:
    """A body without a byte is no file: what has no body cannot be told from it."""
    async for piece in exchange.pieces():
        if piece and not upload.files:
            upload.begin(head, Role.FILE)
        await upload.write(piece)


def _issued(issued: Issued) -> dict[str, object]:
    return {"conversationId": issued.conversation, "token": issued.token, "expires_in": issued.expires_in}


def _opened(opened: Opened, base: str, reference_grammar_id: str) -> dict[str, object]:
    # http becomes ws, https becomes wss: what browsers need (5.2).
    stream = f"ws{base[4:]}{PREFIX}/conversations/{opened.conversation.id}/stream"
    return {
        **_issued(opened.issued),
        "streamUrl": f"{stream}?watermark={opened.watermark}&t={opened.ticket}",
        "referenceGrammarId": reference_grammar_id,
    }


def _key(exchange: Exchange) -> str | None:
    """The `Idempotency-Key` of a send (8.5)."""
    key = exchange.header(b"idempotency-key")
    return None if key is None else key.decode("latin-1")


def _replay(value: str) -> tuple[bytes, bytes]:
    return b"x-directline-replay", value.encode()
