"""A TCP relay between a client and the server: the network, with a hand on every wire.

It knows nothing about HTTP except where the request line of a connection is, so that a test can tell a stream from the
calls beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from types import TracebackType

_CHUNK = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Link:
    """One connection through the relay, from a client to the server."""

    def __init__(self, head: bytes, client: asyncio.StreamWriter) -> None:
        self.head = head
        """The first bytes that the client sent."""
        self.server_left = asyncio.Event()
        """Set when the server closed its end, whether or not the client was told."""
        self._client = client
        self._server: asyncio.StreamWriter | None = None
        self.deaf = False
        """Whether what the server says is dropped, while it still hears the client."""
        self._silent = False
        self._forgotten = False
        self._rest: int | None = None
        self._over = False

    @property
    def request_line(self) -> str:
        """Method, target and version of the connection's first request."""
        return self.head.split(b"\r\n", 1)[0].decode("latin-1")

    @property
    def is_stream(self) -> bool:
        """Whether this is a stream's socket and not a call."""
        return "/stream?" in self.request_line

    @property
    def open(self) -> bool:
        """Whether the client still believes in it."""
        return not self._over

    def cut(self) -> None:
        """Reset it (RST), in both directions, at once. Bytes under way are lost."""
        self._end(reset_client=True)

    def cut_after(self, count: int) -> None:
        """Let `count` more bytes through to the client, then end it, wherever in a frame that is.

        The client's end is closed, not reset: a reset could take the torn bytes with it before they are read."""
        self._rest = count

    def silence(self) -> None:
        """Carry nothing any more, in either direction, and tell nobody: a cable that was pulled.

        The kernels on this machine still acknowledge what they are sent, so no side notices by TCP alone."""
        self._silent = True

    def forget(self) -> None:
        """As `silence`, but whatever the client sends next is answered with a reset: a gateway that was restarted."""
        self._silent = self._forgotten = True

    async def carry(self, client: asyncio.StreamReader, port: int, pause: Callable[[], float]) -> None:
        """Join the client to the server on `port` until either end is through."""
        try:
            server, self._server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return self.cut()
        if self._over:  # cut while the server was being called
            self._abort(self._server)
            return None
        self._server.write(self.head)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._from_client(client, self._server, pause))
                both.create_task(self._from_server(server, pause))
        finally:
            self._abort(self._server)
        return None

    async def _from_client(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, pause: Callable[[], float]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(_CHUNK):
                if self._forgotten:
                    return self.cut()
                if not self._silent:
                    await asyncio.sleep(pause())
                    server.write(data)
                    await server.drain()
            return self._end()
        return self.cut()

    async def _from_server(self, server: asyncio.StreamReader, pause: Callable[[], float]) -> None:
        reset = False
        try:
            while data := await server.read(_CHUNK):
                if not (self._silent or self.deaf):
                    await asyncio.sleep(pause())
                    self._pass_on(data)
                    await self._client.drain()
        except OSError:
            reset = True
        self.server_left.set()
        if not self._silent:
            self._end(reset_client=reset)

    def _pass_on(self, data: bytes) -> None:
        if self._rest is None:
            self._client.write(data)
            return
        self._client.write(data[: self._rest])
        self._rest -= len(data)
        if self._rest <= 0:
            self._end()

    def _end(self, *, reset_client: bool = False) -> None:
        """Close both ends. The server's end is reset where the client's is, or where the relay cut on its own."""
        self._over = True
        if reset_client:
            self._abort(self._client)
        else:
            self._client.close()
        if self._server is not None:
            if reset_client or self._rest is not None:
                self._abort(self._server)
            else:
                self._server.close()

    @staticmethod
    def _abort(end: asyncio.StreamWriter) -> None:
        """Lingering for no time is what makes the kernel send RST instead of FIN."""
        with contextlib.suppress(OSError):
            end.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        end.transport.abort()


class Relay:
    """`async with Relay(server_port) as relay:` listens at `relay.url` and carries what comes to the server.

    `on_connect` sees every new link before a byte of it is carried, and may cut or silence it there and then.
    """

    def __init__(self, server_port: int) -> None:
        self.server_port = server_port
        self.port = 0
        self.links: list[Link] = []
        """Every connection that sent something, in the order of arrival."""
        self.on_connect: Callable[[Link], None] = lambda link: None
        self.delay_s = 0.0
        """How long everything is held, in either direction."""
        self._listener: asyncio.Server | None = None
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        await self.accept()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were aborted say goodbye in the next turn of the loop

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def directline(self) -> str:
        """What a client is given as its `domain`, to reach the server through the relay."""
        return f"{self.url}/v3/directline"

    @property
    def streams(self) -> list[Link]:
        """The streams' sockets among the links: one for each handshake that was tried."""
        return [link for link in self.links if link.is_stream]

    async def accept(self) -> None:
        """Listen (again), always on the same port."""
        if self._listener is None:
            self._listener = await asyncio.start_server(self._on_client, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Stop listening: who connects now is refused. Open links live on."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def cut(self) -> None:
        """Reset every open link."""
        for link in self.links:
            if link.open:
                link.cut()

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            await self._introduce(reader, writer)
        except asyncio.CancelledError:
            pass  # the relay is being left; the stream server would report a cancelled callback as a failure
        finally:
            writer.transport.abort()
            self._carrying.discard(task)

    async def _introduce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.read(_CHUNK)
        except OSError:
            return
        if not head:
            return
        link = Link(head, writer)
        self.links.append(link)
        self.on_connect(link)
        if link.open:
            await link.carry(reader, self.server_port, lambda: self.delay_s)
