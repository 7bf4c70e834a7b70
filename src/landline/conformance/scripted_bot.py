"""A bot that does what a check or a test tells it to: answer, delay, hang, refuse, break, or call the connector back.

It is a real HTTP server on 127.0.0.1 and a real client of the connector, without an SDK in between, so that a test can
see the bytes a bot sees and send what no SDK would.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDictProxy

Activity = dict[str, Any]


@dataclass(eq=False)
class Received:
    """One request that reached the bot. Times are `time.monotonic()`, the scale of the event loop."""

    method: str
    path: str
    """As it was asked for, with its query."""
    headers: CIMultiDictProxy[str]
    body: bytes
    activity: Activity
    """The parsed body, or `{}` where it is no JSON object."""
    begun: float
    """When its headers had been read."""
    peer: object
    """Address of the client's socket: tells connections apart."""
    answered: float | None = None
    """When its answer began to be written; None while the turn is open, or if nobody was left to answer."""

    @property
    def type(self) -> str | None:
        return self.activity.get("type")

    @property
    def text(self) -> str | None:
        return self.activity.get("text")

    @property
    def conversation_id(self) -> str | None:
        conversation = self.activity.get("conversation")
        return conversation.get("id") if isinstance(conversation, dict) else None


class Answer(NamedTuple):
    """What the connector answered: status, parsed JSON (None where there is none), headers."""

    status: int
    json: Any
    headers: CIMultiDictProxy[str]


OnActivity = Callable[["ScriptedBot", Activity], Awaitable[web.Response | None]]


class ScriptedBot:
    """`async with ScriptedBot() as bot:` listens at `bot.endpoint` and answers 200 until told otherwise.

    `on_activity` acts in the middle of the turn, the POST still open; what it answers goes out, None means "as
    `answer` said". Should it raise, the bot answers 500, and leaving the `async with` raises the same exception, so
    that an assertion inside a turn fails the test.
    """

    def __init__(self, port: int = 0, *, on_activity: OnActivity | None = None) -> None:
        self.port = port
        self.on_activity = on_activity
        self.received: list[Received] = []
        self._service_urls: dict[str, str] = {}
        self._respond: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
        self.answer()
        self._moving = asyncio.Event()
        self._moving.set()
        self._news = asyncio.Event()
        self._busy: set[asyncio.BaseTransport | None] = set()
        self._failure: BaseException | None = None
        self._session: aiohttp.ClientSession
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.05)
        self._site: web.TCPSite | None = None

    # Life

    async def __aenter__(self) -> ScriptedBot:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        await self._runner.setup()
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        await self._runner.cleanup()
        await self._session.close()
        if error is None and self._failure is not None:
            raise self._failure

    @property
    def endpoint(self) -> str:
        """The messaging endpoint."""
        return f"http://127.0.0.1:{self.port}/api/messages"

    async def refuse(self) -> None:
        """Stop listening and close idle connections: who connects now is refused. Turns under way go on."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        for connection in self._runner.server.connections if self._runner.server else ():
            if connection.transport in self._busy:
                connection.close()  # when its turn has ended
            else:
                connection.force_close()
        for _ in range(3):
            # The sockets are closed in the loop's next round; clients in this process notice in the one after.
            await asyncio.sleep(0)

    async def accept(self) -> None:
        """Listen (again), always on the same port."""
        if self._site is None:
            site = web.TCPSite(self._runner, "127.0.0.1", self.port)
            await site.start()
            self._site, self.port = site, site.port

    # Behaviour: each of these holds for the activities that follow, until another is asked for

    def answer(
        self,
        status: int = 200,
        body: bytes | str | Activity = b"",
        *,
        headers: Mapping[str, str] | None = None,
        delay: float = 0,
        content_type: str = "application/json",
    ) -> None:
        """Answer so, `delay` seconds after the activity was read."""
        content = json.dumps(body) if isinstance(body, dict) else body
        raw = content.encode() if isinstance(content, str) else content

        async def respond(_: web.BaseRequest) -> web.Response:
            if delay:
                await asyncio.sleep(delay)
            return web.Response(status=status, body=raw, headers=headers, content_type=content_type)

        self._respond = respond

    def speak(self, frames: Callable[[], AsyncIterator[bytes]], *, content_type: str = "text/event-stream") -> None:
        """Answer 200 at once, and then with these pieces, each written when it comes. The connection is cut should
        `frames` raise `ConnectionError`."""

        async def respond(request: web.BaseRequest) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": content_type})
            await response.prepare(request)
            try:
                async for frame in frames():
                    await response.write(frame)
            except ConnectionError:
                if request.transport is not None:
                    request.transport.abort()
            return response

        self._respond = respond

    def break_connections(self) -> None:
        """Read the activity, then close the socket without an answer."""

        async def respond(request: web.BaseRequest) -> web.Response:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # goes nowhere

        self._respond = respond

    def hang(self) -> None:
        """Read and record activities, but end no turn before `release`."""
        self._moving.clear()

    def release(self) -> None:
        """Let every turn go on that `hang` holds; they end as `answer` says at this moment."""
        self._moving.set()

    async def behave(self) -> None:
        """Answer 200 to everything, at once, as in the beginning. What it has received is kept."""
        self.on_activity = None
        self.answer()
        self.release()
        await self.accept()

    # What came

    @property
    def messages(self) -> list[Received]:
        """The activities of type `message`, in the order in which they were read."""
        return [each for each in self.received if each.type == "message"]

    def heard(self, conversation_id: str) -> list[Activity]:
        """The activities of one conversation, in the order in which they were read."""
        return [each.activity for each in self.received if each.conversation_id == conversation_id]

    async def wait_for(self, predicate: Callable[[Received], bool], timeout: float = 10) -> Received:
        """The first request, past or to come, for which `predicate` holds. AssertionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for each in self.received:
                        if predicate(each):
                            return each
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            seen = [each.activity or each.path for each in self.received]
            raise AssertionError(f"not received within {timeout} s; received: {seen}") from None

    async def wait_for_text(self, text: str, timeout: float = 10) -> Received:
        """The first message with exactly this text."""
        return await self.wait_for(lambda each: each.type == "message" and each.text == text, timeout)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        self._busy.add(transport)
        try:
            return await self._receive(request)
        finally:
            self._busy.discard(transport)

    async def _receive(self, request: web.BaseRequest) -> web.StreamResponse:
        begun = time.monotonic()
        body = await request.read()
        received = Received(
            method=request.method,
            path=request.raw_path,
            headers=request.headers,
            body=body,
            activity=_json_object(body),
            begun=begun,
            peer=request.transport and request.transport.get_extra_info("peername"),
        )
        self.received.append(received)
        self._learn(received)
        self._news.set()
        response = await self._turn(request, received.activity)
        if request.transport is not None and not request.transport.is_closing():
            received.answered = time.monotonic()
            self._news.set()
        return response

    async def _turn(self, request: web.BaseRequest, activity: Activity) -> web.StreamResponse:
        response = None
        if self.on_activity is not None:
            try:
                response = await self.on_activity(self, activity)
            except Exception as error:  # noqa: BLE001 - shown to the test when the bot is left
                self._failure = self._failure or error
                return web.Response(status=500)
        await self._moving.wait()
        return response or await self._respond(request)

    def _learn(self, received: Received) -> None:
        service_url = received.activity.get("serviceUrl")
        if received.conversation_id and isinstance(service_url, str):
            self._service_urls[received.conversation_id] = service_url.rstrip("/")

    # The connector's client

    def service_url(self, conversation_id: str) -> str:
        """The service URL that came with the conversation's last activity, without its last slash: what paths are
        joined to with one."""
        return self._service_urls[conversation_id]

    async def send(self, conversation_id: str, activity: Activity, service_url: str | None = None) -> Answer:
        """Send to conversation (bot-side 3.1)."""
        base = service_url or self.service_url(conversation_id)
        return await self.request("POST", f"{base}/v3/conversations/{conversation_id}/activities", json=activity)

    async def reply(
        self, conversation_id: str, activity_id: str, activity: Activity, service_url: str | None = None
    ) -> Answer:
        """Reply to activity (bot-side 3.2)."""
        base = service_url or self.service_url(conversation_id)
        url = f"{base}/v3/conversations/{conversation_id}/activities/{activity_id}"
        return await self.request("POST", url, json=activity)

    async def request(self, method: str, url: str, **options: Any) -> Answer:
        """Any request, with the options of `aiohttp.ClientSession.request`."""
        async with self._session.request(method, url, **options) as response:
            body = await response.read()
            try:
                parsed = json.loads(body)
            except ValueError:
                parsed = None
            return Answer(response.status, parsed, response.headers)


def _json_object(body: bytes) -> Activity:
    try:
        parsed = json.loads(body)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
