"""The same work behind well-known servers, written as their documentation would: no store, no bot, nothing tuned away
but the access log. `bare` does no work at all: what uvicorn and Starlette cost for a constant answer."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated

import uvicorn
import uvloop
from aiohttp import WSMsgType, web
from fastapi import FastAPI, Header, Request, Response, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.work import PREFIX, Work


def aiohttp_app(work: Work) -> web.Application:  # noqa: C901  # five handlers, as one would write them
    """aiohttp's own server, with its own WebSockets."""
    streams: dict[str, web.WebSocketResponse] = {}

    def credential(request: web.Request) -> str:
        return request.headers["Authorization"].removeprefix("Bearer ")

    def json(body: bytes) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def start(request: web.Request) -> web.Response:
        return json(work.start(credential(request)))

    async def send(request: web.Request) -> web.Response:
        sent = work.send(credential(request), request.match_info["conversation"], await request.read())
        if (stream := streams.get(sent.conversation)) is not None:
            await stream.send_str(sent.frame.decode())
        return json(sent.answer)

    async def read(request: web.Request) -> web.Response:
        return json(work.read(credential(request), request.match_info["conversation"], request.query.get("watermark")))

    async def reconnect(request: web.Request) -> web.Response:
        conversation = request.match_info["conversation"]
        return json(work.reconnect(credential(request), conversation, request.query.get("watermark")))

    async def stream(request: web.Request) -> web.WebSocketResponse:
        conversation = request.match_info["conversation"]
        frames = work.admit(conversation, request.query["t"], request.query["watermark"])
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        for frame in frames:
            await socket.send_str(frame.decode())
        streams[conversation] = socket
        try:
            async for message in socket:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            if streams.get(conversation) is socket:
                del streams[conversation]
        return socket

    app = web.Application()
    app.router.add_post(PREFIX, start)
    app.router.add_get(PREFIX + "/{conversation}", reconnect)
    app.router.add_post(PREFIX + "/{conversation}/activities", send)
    app.router.add_get(PREFIX + "/{conversation}/activities", read)
    app.router.add_get(PREFIX + "/{conversation}/stream", stream)
    return app


def fastapi_app(work: Work) -> FastAPI:
    """FastAPI; its WebSockets are those of uvicorn and `websockets`."""
    app = FastAPI()
    streams: dict[str, WebSocket] = {}

    def json(body: bytes) -> Response:
        return Response(body, media_type="application/json")

    @app.post(PREFIX)
    async def start(authorization: Annotated[str, Header()]) -> Response:
        return json(work.start(authorization.removeprefix("Bearer ")))

    @app.post(PREFIX + "/{conversation}/activities")
    async def send(conversation: str, request: Request, authorization: Annotated[str, Header()]) -> Response:
        sent = work.send(authorization.removeprefix("Bearer "), conversation, await request.body())
        if (stream := streams.get(sent.conversation)) is not None:
            await stream.send_text(sent.frame.decode())
        return json(sent.answer)

    @app.get(PREFIX + "/{conversation}/activities")
    async def read(
        conversation: str, authorization: Annotated[str, Header()], watermark: str | None = None
    ) -> Response:
        return json(work.read(authorization.removeprefix("Bearer "), conversation, watermark))

    @app.get(PREFIX + "/{conversation}")
    async def reconnect(
        conversation: str, authorization: Annotated[str, Header()], watermark: str | None = None
    ) -> Response:
        return json(work.reconnect(authorization.removeprefix("Bearer "), conversation, watermark))

    @app.websocket(PREFIX + "/{conversation}/stream")
    async def stream(websocket: WebSocket, conversation: str, t: str, watermark: str) -> None:
        frames = work.admit(conversation, t, watermark)
        await websocket.accept()
        for frame in frames:
            await websocket.send_text(frame.decode())
        streams[conversation] = websocket
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            if streams.get(conversation) is websocket:
                del streams[conversation]

    return app


def bare_app() -> Starlette:
    """A constant answer from Starlette."""

    async def answer(request: Request) -> Response:
        return Response(b'{"id":"0"}', media_type="application/json")

    return Starlette(routes=[Route("/bare", answer)])


async def serve_aiohttp(port: int) -> None:
    runner = web.AppRunner(aiohttp_app(Work(f"ws://127.0.0.1:{port}")), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


def main(name: str, port: int) -> None:
    """Serve until killed."""
    if name == "aiohttp":
        uvloop.run(serve_aiohttp(port))
        return
    app = bare_app() if name == "bare" else fastapi_app(Work(f"ws://127.0.0.1:{port}"))
    uvicorn.run(
        app,
        port=port,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
        ws_per_message_deflate=False,
        backlog=4096,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
