"""An echo server on our WebSocket class, for Autobahn's fuzzing client: `python tests/wire/echo_server.py PORT`.

The product never sends binary messages, so the frame of a binary echo is made here; whatever is read, checked, joined,
paused and closed is the product's. docs/websocket.md says how to run the client, and what came of it.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from landline.wire.connection import ConnectionContext, Limits
from landline.wire.listener import Listener, listening_sockets
from landline.wire.websocket import Accept, Upgrade, WebSocket
from landline.wire.wheel import Wheel

MAX_MESSAGE_BYTES = 16 * 1024 * 1024


class Echo:
    """Sends every message back as it came."""

    websocket: WebSocket

    def opened(self, websocket: WebSocket) -> None:
        self.websocket = websocket

    def text(self, payload: bytes) -> None:
        self.websocket.send_texts([payload])

    def binary(self, payload: bytes) -> None:
        self.websocket._transport.write(_binary_head(len(payload)) + payload)

    def heard(self) -> None:
        pass

    def resumed(self) -> None:
        pass

    def closed(self, code: int | None) -> None:
        pass


def _binary_head(length: int) -> bytes:
    if length < 126:
        return bytes((0x82, length))
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2, "big")
    return b"\x82\x7f" + length.to_bytes(8, "big")


async def serve(port: int) -> None:
    wheel = Wheel(asyncio.get_running_loop())

    def on_upgrade(request: Upgrade) -> Accept:
        return Accept(Echo(), MAX_MESSAGE_BYTES)

    async def nothing(scope: object, receive: object, send: object) -> None:
        raise NotImplementedError("this server has WebSockets only")

    listener = Listener(nothing, listening_sockets("127.0.0.1", port), ConnectionContext(Limits(), wheel, on_upgrade))
    await listener.start()
    print(f"ws://127.0.0.1:{port}", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
