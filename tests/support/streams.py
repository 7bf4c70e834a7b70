"""What tests of streams need beside a client: one that lives through cuts, and eyes on the process."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import aiohttp

from landline.conformance.directline import Activity, Answer, ClientStream, DirectLine
from landline.conformance.scripted_bot import ScriptedBot
from support.landline import SECRET, Landline

_RETRY_S = 0.02
_LOOK_S = 0.01
_EVER_S = 600.0


async def until(condition: Callable[[], object], what: str, timeout: float = 10) -> None:
    """Wait for `condition` to become true. AssertionError after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        await asyncio.sleep(_LOOK_S)


class Follower:
    """A correct client (spec 8.7): whatever ends its stream, it comes back with its last watermark.

    `async with Follower(client, opened) as follower:`, where `opened` is the answer of a start or a reconnect. It keeps
    every stream that it ever had; what they brought is not freed of repeats, so that a test sees them.
    """

    def __init__(self, client: DirectLine, opened: Answer) -> None:
        self.streams: list[ClientStream] = []
        self._client = client
        self._conversation_id = opened.conversation_id
        self._url = opened.stream_url
        self._following: asyncio.Task[None]

    async def __aenter__(self) -> Follower:
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    @property
    def activities(self) -> list[Activity]:
        """Everything that came, stream after stream."""
        return [activity for stream in self.streams for activity in stream.activities]

    @property
    def ids(self) -> list[str]:
        """The ids of `activities`."""
        return [activity["id"] for activity in self.activities]

    @property
    def watermark(self) -> str:
        """The last watermark that came; empty before the first, as DirectLineJS writes it."""
        return next((stream.watermark for stream in reversed(self.streams) if stream.watermark), "")

    @property
    def cuts(self) -> int:
        """How many streams have ended."""
        return sum(not stream.open for stream in self.streams)

    async def until(self, condition: Callable[[Follower], object], what: str, timeout: float = 20) -> None:
        """Wait until `condition` holds of this follower. AssertionError after `timeout` seconds."""

        def holds() -> bool:
            if self._following.done():
                self._following.result()
            return bool(condition(self))

        await until(holds, what, timeout)

    async def _follow(self) -> None:
        url = self._url
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._listen(url or await self._reconnect())
            url = ""
            await asyncio.sleep(_RETRY_S)

    async def _listen(self, url: str) -> None:
        async with self._client.stream(url) as stream:
            self.streams.append(stream)
            await stream.until_closed(_EVER_S)

    async def _reconnect(self) -> str:
        answer = await self._client.reconnect(self._conversation_id, self.watermark)
        assert answer.status == 200, answer
        return answer.stream_url


async def started(client: DirectLine, bot: ScriptedBot, **parameters: object) -> Answer:
    """The answer of a first start, when the bot has heard of it: from now on it can speak."""
    opened = await client.start(**parameters)
    assert opened.status == 201, opened
    await bot.wait_for(lambda each: each.conversation_id == opened.conversation_id)
    return opened


async def say(bot: ScriptedBot, conversation_id: str, text: str, **more: object) -> str:
    """Let the bot send a message of its own accord; its id."""
    answer = await bot.send(conversation_id, {"type": "message", "text": text, **more})
    assert answer.status == 200, answer
    return str(answer.json["id"])


async def say_all(bot: ScriptedBot, conversation_id: str, texts: list[str], at_once: int = 16, **more: object) -> None:
    """Let the bot send all of these, `at_once` of them at the same time, in no certain order."""
    gate = asyncio.Semaphore(at_once)

    async def one(text: str) -> None:
        async with gate:
            await say(bot, conversation_id, text, **more)

    await asyncio.gather(*(one(text) for text in texts))


async def log_of(landline: Landline, conversation_id: str) -> list[Activity]:
    """The whole conversation by Get Activities."""
    async with DirectLine(landline.directline, SECRET) as client:
        return await client.all_activities(conversation_id)


async def has_entries(client: DirectLine, conversation_id: str, count: int, timeout: float = 10) -> None:
    """Wait until the log has so many activities, whatever became of the calls that brought them."""
    async with asyncio.timeout(timeout):
        while len(await client.all_activities(conversation_id)) < count:
            await asyncio.sleep(_LOOK_S)


def hang_up(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Leave a connection at once: with a reset, as a process that dies does, or in good rules."""
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()


def numbers(conversation_id: str, ids: list[str]) -> list[int]:
    """The sequence numbers in these ids; fails for an id of another form."""
    found = []
    for each in ids:
        conversation, number = each.split("|")
        assert conversation == conversation_id, each
        assert len(number) >= 7, each
        found.append(int(number))
    return found


def path_of(url: str) -> str:
    """Path and query of a URL: what stands in a request line."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


# The server's process, looked at from outside (Linux).


def resident_bytes(pid: int) -> int:
    """How much memory a process has in use."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no VmRSS of {pid}")


def open_files(pid: int) -> int:
    """How many descriptors a process has open, sockets among them."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def server_holds(stream: ClientStream) -> bool:
    """Whether the server still has its end of this stream open, whatever the client has been told."""
    return holds_other_end(stream.socket.get_extra_info("socket"))


def holds_other_end(plug: socket.socket) -> bool:
    """Whether the other end of this connection is still open."""
    client, server = _in_hex(plug.getsockname()), _in_hex(plug.getpeername())
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if (local, remote) == (server, client):
            return state == "01"  # ESTABLISHED
    return False


def _in_hex(address: tuple[str, int]) -> str:
    host = bytes(int(part) for part in address[0].split("."))[::-1]
    return f"{host.hex().upper()}:{address[1]:04X}"


@contextlib.contextmanager
def no_file_beyond(pid: int, size: int) -> Iterator[None]:
    """Let every write of a running process behind the first `size` bytes of any file fail, as on a full disk."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
