"""POSTs activities to bots: one request, one deadline, and an exact notion of what may have reached the bot.

Theory of operation. A request that never left completely cannot have had an effect, so it is tried again until the
deadline. One that left completely may have started a turn, so it is never repeated, whatever happens to its answer
(bot 1, fact 4). `bots/wire.py` draws that line, where the operating system has taken the last byte, and repeats
nothing by itself.

An answer that is an event stream is a bot speaking for as long as it likes. It is heard by a task of its own, which the
deadline does not end: what the bot says late is said all the same.

Nothing here knows conversations. The service URL contains the bot's key and is never logged; nor is a token, nor what
stands in the query of an endpoint.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from urllib.parse import unquote, urlsplit

import msgspec
import structlog

from landline.bots.connections import Connections, NotAUrl
from landline.bots.credentials import Credentials
from landline.bots.events import Event, EventStream
from landline.bots.wire import Answer, Broken
from landline.core.bot import Bot, may_be_called
from landline.errors import (
    BotBroke,
    BotRejected,
    BotTimedOut,
    BotUnreachable,
    ConfigurationError,
    DeliveryError,
    NoBot,
    StoreError,
    TooLarge,
)
from landline.ports import BotAnswer

_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Before the first, second, … further attempt to reach a bot; the last one repeats (bot 2.4)."""

_LAST_TRY_S = 0.2
"""No pause ends later than this before the deadline, so that a bot coming up in its last second is still found."""

_ANSWER_BYTES = 4 * 1024 * 1024
_ERROR_BYTES = 4096
"""Bounds of what is read of a bot's answer, or of one event in it, and of its error answer (bot 2.4)."""

_SECRET_CHARACTERS = 8
"""What stands in the query of an endpoint and is so long may be a secret. What is shorter occurs by chance, too."""

_SILENCE_S = 60.0
_SPEECH_S = 600.0
"""An event stream is given up after so long a silence, and in any case after so long."""

_EVENT_STREAM = "text/event-stream"

_HOPELESS = (ssl.SSLCertVerificationError, NotAUrl)
"""Failures that the next attempt would repeat: neither a certificate nor a URL is better a second later."""

_log = structlog.get_logger(__name__)


class HttpBotTransport:
    """Implements `landline.ports.BotTransport` with one pool of connections, made on the running event loop.

    `connect_timeout_s` limits one attempt to connect: name, TCP and TLS together. `ca_file` (PEM) replaces the system's
    authorities for https bots; `ConfigurationError` if it is not usable. `credentials` is what bots with an app id are
    shown. Where `allowed_hosts` are given, a bot anywhere else is never connected to.
    """

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        ca_file: Path | None = None,
        credentials: Credentials | None = None,
        allowed_hosts: Sequence[str] = (),
    ) -> None:
        self._credentials = credentials
        self._allowed_hosts = tuple(allowed_hosts)
        # Not bounded in number: a slow bot must not use up what others need. `Bot.concurrency` is the bound.
        self._connections = Connections(_authorities(ca_file), connect_timeout_s)
        self._slots: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._under_way: set[asyncio.Timeout] = set()
        self._listening: set[asyncio.Task[BotAnswer]] = set()
        self._closed = False

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
        """See `landline.ports.BotTransport.deliver`.

        A server accepts connections in order, but reads from one that it knows before it reads from a new one.
        """
        delivery = _Delivery(
            self._connections,
            self._credentials,
            bot,
            activity,
            deadline,
            retry=retry,
            own_connection=own_connection,
            on_written=on_written,
            on_activity=on_activity,
        )
        try:
            if bot.endpoint is None:
                raise NoBot
            if not may_be_called(bot.endpoint, self._allowed_hosts):
                raise BotUnreachable("Failed to send activity: bot's host is not allowed")
            if self._closed:
                raise BotUnreachable
            return await self._within_limits(delivery, bot.endpoint)
        except DeliveryError as error:
            _report(bot, activity, error)
            raise
        finally:
            delivery.let_go()

    async def _within_limits(self, delivery: _Delivery, endpoint: str) -> BotAnswer:
        """Run `delivery` in one of its bot's slots and no longer than its deadline, waiting for the slot included."""
        if asyncio.get_running_loop().time() >= delivery.deadline:
            # A timeout that is over already would strike only after the first write.
            raise BotUnreachable("Failed to send activity: bot could not be reached: no time was left")
        limit = asyncio.timeout_at(delivery.deadline)
        self._under_way.add(limit)
        slot = self._slot(delivery.bot)
        try:
            async with limit:
                await slot.acquire()
                try:
                    return await delivery.run(endpoint)
                finally:
                    self._leave(slot, delivery.listening)
        except TimeoutError as error:
            return delivery.cut(BotBroke if self._closed else BotTimedOut, error)
        finally:
            self._under_way.discard(limit)

    async def reach(self, endpoint: str) -> None:
        """Look whether a bot's host can be connected to; the bot hears nothing. Raises `NotAUrl`, and `OSError` for
        whatever is in the way: the name, TCP or TLS."""
        await self._connections.reach(endpoint)

    def _leave(self, slot: asyncio.Semaphore, listening: asyncio.Task[BotAnswer] | None) -> None:
        """Give the slot back, but not while the bot is still speaking."""
        if listening is None or listening.done():
            slot.release()
            return
        self._listening.add(listening)

        def end(heard: asyncio.Task[BotAnswer]) -> None:
            self._listening.discard(heard)
            slot.release()
            if not heard.cancelled():
                heard.exception()  # whoever asked was answered long ago

        listening.add_done_callback(end)
        if self._closed:
            listening.cancel()

    def _slot(self, bot: Bot) -> asyncio.Semaphore:
        # The bound is part of the key, so that a changed one takes effect.
        key = bot.id, bot.concurrency
        slots = self._slots.get(key)
        if slots is None:
            slots = self._slots[key] = asyncio.Semaphore(bot.concurrency)
        return slots

    async def close(self) -> None:
        """Let go of connections. What was written and not answered fails as `BotBroke`, the rest as `BotUnreachable`:
        its join, if it was one, must stay due."""
        self._closed = True
        for limit in self._under_way:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())
        for listening in self._listening:
            listening.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await self._connections.close()


class _Delivery:
    """One activity on its way to one bot, over as many attempts as it may take."""

    __slots__ = (
        "_activity",
        "_connections",
        "_credentials",
        "_left",
        "_on_activity",
        "_on_written",
        "_own_connection",
        "_repeating",
        "_retry",
        "_retry_after",
        "_settled",
        "_token",
        "_why",
        "bot",
        "deadline",
        "listening",
    )

    def __init__(
        self,
        connections: Connections,
        credentials: Credentials | None,
        bot: Bot,
        activity: bytes,
        deadline: float,
        *,
        retry: bool,
        own_connection: bool,
        on_written: Callable[[], None],
        on_activity: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self.bot = bot
        self.deadline = deadline
        self.listening: asyncio.Task[BotAnswer] | None = None
        """What hears an answer that is an event stream."""
        self._connections = connections
        self._credentials = credentials
        self._activity = activity
        self._retry = retry
        self._own_connection = own_connection
        self._on_written: Callable[[], None] | None = on_written
        self._on_activity = on_activity
        self._left = False
        """Whether the attempt under way may have reached the bot as a whole."""
        self._token: str | None = None
        """What the attempt under way shows to the bot."""
        self._retry_after: float | None = None
        self._settled: BotAnswer | BotRejected | None = None
        """What the bot's status line has settled already, whatever becomes of the rest of its answer."""
        self._repeating: BotRejected | None = None
        """The rejection that is being repeated. The bot was reached then: "unreachable" would be a lie."""
        self._why = "too many requests to the bot are under way"
        """Why no request was written: at first because not even a slot was found."""

    async def run(self, endpoint: str) -> BotAnswer:
        """Try until something may have reached the bot. The caller watches the deadline and then asks `cut`."""
        self._why = "bot could not be reached"
        pauses = chain(_PAUSES_S, repeat(_PAUSES_S[-1]))
        while True:
            self._settled = None
            self._left = False
            try:
                return await self._post(endpoint)
            except BotRejected as rejected:
                pause = self._before_repeating(rejected)
            except (Broken, NotAUrl, OSError) as error:
                if self._left:
                    return self.cut(BotBroke, error)
                pause = self._before_trying_again(error, next(pauses))
            await asyncio.sleep(pause)

    def cut(self, unanswered: type[DeliveryError], cause: BaseException) -> BotAnswer:
        """What the delivery comes to if it ends here; raises `unanswered` where the outcome is unknown.

        A 2xx stands although its body did not come to its end: of a normal message nobody reads it (bot 2.4)."""
        if isinstance(self._settled, BotAnswer):
            return self._settled
        raise self._settled or (unanswered() if self._left else self._unreached()) from cause

    def _unreached(self) -> DeliveryError:
        return self._repeating or BotUnreachable(f"Failed to send activity: {self._why}")

    async def _post(self, endpoint: str) -> BotAnswer:
        answer = await self._connections.post(
            endpoint,
            self._activity,
            authorization=await self._authorization(),
            own_connection=self._own_connection,
            taken=self._sent,
        )
        # Bots may answer before they have read everything, but what is answered was received.
        self._left = True
        good = 200 <= answer.status < 300
        if good and _mime_type(answer) == _EVENT_STREAM:
            return await self._overhear(answer)
        with answer:
            if good:
                return await self._taken(answer)
            raise await self._rejected(answer)

    def _sent(self) -> None:
        """The operating system has the last byte of the request."""
        self._left = True
        self.let_go()

    def let_go(self) -> None:
        """Tell the caller that the request was written or given up; once."""
        on_written, self._on_written = self._on_written, None
        if on_written is not None:
            on_written()

    async def _overhear(self, answer: Answer) -> BotAnswer:
        """Hear an event stream, until its end or for as long as this delivery lasts; then it is heard further."""
        if self._retry:
            self._settled = BotAnswer(answer.status, _EVENT_STREAM, b"")
        self.listening = asyncio.create_task(self._hear(answer))
        return await asyncio.shield(self.listening)

    async def _hear(self, answer: Answer) -> BotAnswer:
        """Pass on what the bot says, each activity before the next is read. One that breaks off was taken all the same:
        the bot has begun to speak."""
        invoked: Event | None = None
        with answer:
            try:
                async with asyncio.timeout(_SPEECH_S):
                    async for event in _events(answer):
                        if event.name == "activity":
                            await self._on_activity(event.data)
                        elif event.name == "invokeResponse":
                            invoked = event
            except (Broken, OSError, TooLarge) as error:
                _log.warning("what a bot was saying broke off", bot=self.bot.id, error=repr(error))
                if not self._retry and invoked is None:
                    raise BotBroke from error
        if invoked is None:
            return BotAnswer(answer.status, _EVENT_STREAM, b"")
        return _invoke_answer(invoked, self._without_secrets)

    async def _authorization(self) -> str | None:
        if self._credentials is None:
            return None
        try:
            self._token = await self._credentials.token(self.bot)
        except StoreError as error:
            raise BotUnreachable("Failed to send activity: no token could be made for the bot") from error
        return None if self._token is None else f"Bearer {self._token}"

    async def _taken(self, answer: Answer) -> BotAnswer:
        content_type = answer.header(b"content-type") or ""
        if self._retry and self.bot.delivery_mode is None:
            self._settled = BotAnswer(answer.status, content_type, b"")
        body = await _read(answer, _ANSWER_BYTES)
        if len(body) > _ANSWER_BYTES:
            raise Broken("the bot's answer is too large")
        return BotAnswer(answer.status, content_type, body)

    async def _rejected(self, answer: Answer) -> BotRejected:
        self._settled = BotRejected(answer.status)
        self._retry_after = self._may_repeat_after(answer)
        # A secret is read to its end, so that no part of one stays.
        longest = max(map(len, self._secrets()), default=0)
        return BotRejected(answer.status, self._without_secrets(await _read(answer, _ERROR_BYTES + longest)))

    def _secrets(self) -> list[bytes]:
        """What the bot was sent and nobody else may see, the longest first: one may be a part of another."""
        query = urlsplit(self.bot.endpoint or "").query
        asked = (query, *(each.partition("=")[2] for each in query.split("&")))
        known = {self._token or "", self.bot.service_key}
        known.update(each for text in asked for each in (text, unquote(text)) if len(each) >= _SECRET_CHARACTERS)
        return sorted((each.encode() for each in known if each), key=len, reverse=True)

    def _without_secrets(self, body: bytes) -> bytes:
        """What the bot says of a failure. Bots print what they were sent."""
        for each in self._secrets():
            body = body.replace(each, b"***")
        return body

    def _may_repeat_after(self, answer: Answer) -> float | None:
        """Seconds after which this rejection is worth one repetition, or None (bot 2.4)."""
        if answer.status in (401, 403) and self._token is not None and self._credentials is not None:
            # Keys and clocks go wrong on both sides; a token that is made this moment has the best chance.
            self._credentials.refused(self.bot, self._token)
            return 0.0
        return _seconds(answer.header(b"retry-after")) if answer.status in (429, 503) else None

    def _before_repeating(self, rejected: BotRejected) -> float:
        """Seconds until the one repetition that this rejection allows; raises `rejected` if there is none."""
        pause, self._retry_after = self._retry_after, None
        if not self._retry or self._repeating or pause is None or pause >= self._time_left():
            raise rejected
        self._repeating = rejected
        return pause

    def _before_trying_again(self, error: Exception, pause: float) -> float:
        """Seconds until the next attempt after a request that was not written; raises if there is none."""
        self._why = f"bot could not be reached: {_reason(error)}"
        time_left = self._time_left() - _LAST_TRY_S
        if isinstance(error, _HOPELESS) or time_left <= 0:
            raise self._unreached() from error
        return min(pause, time_left)

    def _time_left(self) -> float:
        return self.deadline - asyncio.get_running_loop().time()


def _authorities(ca_file: Path | None) -> Callable[[], ssl.SSLContext]:
    """Those of a file are read now, so that a wrong one is told of at the start."""
    if ca_file is None:
        return _context
    try:
        context = _context(ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"bot_ca_file: {ca_file}: {error.strerror or error}") from error
    return lambda: context


def _context(ca_file: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _mime_type(answer: Answer) -> str:
    return (answer.header(b"content-type") or "").partition(";")[0].strip().lower()


async def _read(answer: Answer, limit: int) -> bytes:
    """The body, or more than `limit` bytes of it."""
    parts = []
    size = 0
    while size <= limit and (part := await answer.read()):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


_SLICE_BYTES = 16 * 1024
"""So much of an event stream is parsed before others get their turn."""


async def _events(answer: Answer) -> AsyncIterator[Event]:
    """The events of an answer, each as soon as it is complete. A silence raises `TimeoutError`, an OSError."""
    stream = EventStream(_ANSWER_BYTES)
    while True:
        async with asyncio.timeout(_SILENCE_S):
            part = await answer.read()
        for start in range(0, len(part), _SLICE_BYTES):
            for event in stream.feed(part[start : start + _SLICE_BYTES]):
                yield event
            await asyncio.sleep(0)  # a slice of nothing but line ends takes longest, and inflated ones come at once
        if not part:
            for event in stream.finish():
                yield event
            return


class _InvokeAnswer(msgspec.Struct):
    status: int
    body: msgspec.Raw = msgspec.Raw(b"")


def _invoke_answer(event: Event, without_secrets: Callable[[bytes], bytes]) -> BotAnswer:
    """The answer to an `invoke` that came inside an event stream. Raises `BotRejected`, `BotBroke`."""
    try:
        answer = msgspec.json.decode(event.data, type=_InvokeAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BotBroke from error
    if not 200 <= answer.status < 300:
        raise BotRejected(answer.status, without_secrets(bytes(answer.body)))
    return BotAnswer(answer.status, "application/json", bytes(answer.body))


def _seconds(retry_after: str | None) -> float | None:
    """The value of `Retry-After`. A date would need both clocks to agree and counts as absent."""
    if retry_after is None or len(retry_after) > 9 or not (retry_after.isascii() and retry_after.isdigit()):
        return None
    return float(retry_after)


def _reason(error: Exception) -> str:
    """Why the bot was not reached, in words that name no host: clients see them."""
    match error:
        case socket.gaierror():
            return "its name could not be resolved"
        case ssl.SSLCertVerificationError():
            return "its certificate is not trusted"
        case ssl.SSLError():
            return "the TLS handshake failed"
        case TimeoutError():
            return "no connection in time"
        case NotAUrl():
            return "its endpoint is not an http or https URL"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
    return "the connection broke before the request was written"


class _Id(msgspec.Struct):
    id: str = ""


class _Named(msgspec.Struct):
    id: str = ""
    conversation: _Id = msgspec.field(default_factory=_Id)


def _report(bot: Bot, activity: bytes, error: DeliveryError) -> None:
    """One line for operators. Only here, off the common path, is the activity looked into."""
    try:
        named = msgspec.json.decode(activity, type=_Named)
    except (msgspec.DecodeError, UnicodeDecodeError):
        named = _Named()
    details: dict[str, object] = {}
    if isinstance(error, BotRejected):
        details = {"status": error.status, "body": error.body.decode("utf-8", "replace")}
    elif isinstance(error.__cause__, ssl.SSLCertVerificationError):
        details = {"detail": error.__cause__.verify_message}
    _log.warning(
        "bot did not take an activity",
        bot=bot.id,
        conversation=named.conversation.id,
        activity=named.id,
        reason=error.message,
        **details,
    )
