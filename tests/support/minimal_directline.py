"""A Direct Line server of one file, on which a client meets what Landline does not do: several activities a frame, no
`Idempotency-Key`, no watermark in the stream URL, no streams, and answers that get lost. Its bot echoes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

SECRET = "secret-of-the-minimal-server"


@dataclass(eq=False)
class Talk:
    """One conversation: a list. A watermark is a position in it."""

    log: list[dict[str, Any]] = field(default_factory=list)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    sockets: set[web.WebSocketResponse] = field(default_factory=set)

    def append(self, activity: dict[str, Any]) -> str:
        name = f"{len(self.log):07}"
        self.log.append(activity | {"id": name})
        self.moved.set()
        self.moved = asyncio.Event()
        return name


class MinimalDirectLine:
    """`async with MinimalDirectLine() as server:` listens at `server.url`."""

    def __init__(self, *, streams: bool = True, a_frame: int = 3, token_s: float = 1800, tokens: bool = True) -> None:
        self.a_frame = a_frame
        self.streams = streams
        self.token_s = token_s
        self.tokens = tokens
        self.talks: dict[str, Talk] = {}
        self.lose_answers = 0
        """So many sends are accepted and their connection is cut instead of answered."""
        self.break_polls = 0
        """So many polls have their connection cut instead of answered."""
        self.refuse: list[web.Response] = []
        """Answers given to the next reconnects, in place of the usual one."""
        self.valid: set[str] = {SECRET}
        self.requests: list[str] = []
        self._runner: web.AppRunner

    async def __aenter__(self) -> MinimalDirectLine:
        application = web.Application()
        base = "/v3/directline"
        application.router.add_post(f"{base}/conversations", self._start)
        application.router.add_post(f"{base}/tokens/refresh", self._refresh)
        application.router.add_get(f"{base}/conversations/{{id}}", self._reconnect)
        application.router.add_get(f"{base}/conversations/{{id}}/activities", self._poll)
        application.router.add_post(f"{base}/conversations/{{id}}/activities", self._send)
        application.router.add_get(f"{base}/conversations/{{id}}/stream", self._stream)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.05)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = site.port
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def cut(self) -> None:
        """Drop every open stream."""
        for talk in self.talks.values():
            for socket in list(talk.sockets):
                await socket.close(code=1011)

    def _opened(self, name: str, watermark: str | None) -> dict[str, Any]:
        token = f"token-{len(self.valid)}"
        self.valid.add(token)
        at = "" if watermark is None else f"&watermark={watermark}"
        if not self.tokens:  # nor streams: what the smallest servers in use have
            return {"conversationId": name}
        issued = {"token": token, "expires_in": self.token_s}
        stream = f"ws://127.0.0.1:{self.port}/v3/directline/conversations/{name}/stream?t=x{at}"
        return {"conversationId": name, "streamUrl": stream} | issued

    def _talk(self, request: web.Request) -> Talk:
        self.requests.append(f"{request.method} {request.path_qs}")
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            raise web.HTTPForbidden
        try:
            return self.talks[request.match_info["id"]]
        except KeyError:
            raise web.HTTPNotFound from None

    async def _start(self, request: web.Request) -> web.Response:
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.valid:
            raise web.HTTPForbidden
        name = f"talk-{len(self.talks)}"
        self.talks[name] = Talk()
        return web.json_response(self._opened(name, None), status=201)

    async def _refresh(self, request: web.Request) -> web.Response:
        self.requests.append("POST refresh")
        if request.headers["Authorization"].removeprefix("Bearer ") not in self.valid:
            raise web.HTTPForbidden
        return web.json_response(self._opened("", None))

    async def _reconnect(self, request: web.Request) -> web.Response:
        self._talk(request)
        if not self.tokens:
            raise web.HTTPNotFound
        if self.refuse:
            return self.refuse.pop(0)
        return web.json_response(self._opened(request.match_info["id"], request.query.get("watermark", "")))

    async def _poll(self, request: web.Request) -> web.Response:
        if self.break_polls and request.transport is not None:
            self.break_polls -= 1
            request.transport.abort()
        talk, begin = self._talk(request), int(request.query.get("watermark") or 0)
        page = talk.log[begin : begin + 50]
        behind = begin + len(page)
        return web.json_response({"activities": page, "watermark": behind if not self.tokens else str(behind)})

    async def _send(self, request: web.Request) -> web.Response:
        talk = self._talk(request)
        activity = await request.json()
        name = talk.append(activity)
        if self.lose_answers:
            self.lose_answers -= 1
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if activity["type"] == "message":
            talk.append({"type": "message", "text": f"echo {activity.get('text')}", "from": {"id": "bot"}})
        return web.json_response({"id": name})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if not self.streams:
            raise web.HTTPBadGateway
        talk, at = self.talks[request.match_info["id"]], int(request.query.get("watermark") or 0)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        talk.sockets.add(socket)
        writing = asyncio.create_task(self._write(talk, socket, at))
        try:
            while (await socket.receive()).type is WSMsgType.TEXT:
                pass
        finally:
            writing.cancel()
            talk.sockets.discard(socket)
        return socket

    async def _write(self, talk: Talk, socket: web.WebSocketResponse, at: int) -> None:
        while not socket.closed:
            moved = talk.moved
            await socket.send_str("")
            while page := talk.log[at : at + self.a_frame]:
                at += len(page)
                await socket.send_json({"activities": page, "watermark": str(at)})
            await moved.wait()
