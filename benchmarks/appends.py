"""Durable appends: the real store against a plain file, both with group commit, in one process on one core.

Run as a program of its own by `storage`, so that it has its core for itself; prints its results as JSON.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import msgspec
import uvloop

from benchmarks.work import SystemClock
from landline.core.conversation import NewConversation
from landline.core.log import ConversationId, NewEntry
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore

BODY = (
    b'{"channelId":"directline","conversation":{"id":"Qm9hdCBvbiB0aGUgcml2ZXI"},"from":{"id":"user-1"},'
    b'"type":"message","text":"' + b"a table for four this evening " * 6 + b'","textFormat":"plain","locale":"en-US"}'
)
WRITERS = (1, 64)

Append = Callable[[int], Awaitable[object]]
"""Append one body; the argument is the number of the writer."""


class Rate(msgspec.Struct):
    """What a round came to: durable appends per second of time, and CPU per append."""

    per_s: float
    cpu_us: float


class GroupedFile:
    """The least that makes an append durable: one thread that writes whatever queued, and syncs the data once."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._loop = asyncio.get_running_loop()
        self._handed: queue.SimpleQueue[list[tuple[bytes, asyncio.Future[None]]] | None] = queue.SimpleQueue()
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._busy = False
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    async def append(self, writer: int) -> None:
        answer = self._loop.create_future()
        self._waiting.append((BODY, answer))
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._hand_over)
        await answer

    def _hand_over(self) -> None:
        group, self._waiting = self._waiting, []
        self._handed.put(group)

    def _work(self) -> None:
        while (group := self._handed.get()) is not None:
            os.write(self._descriptor, b"".join([body for body, _ in group]))
            os.fdatasync(self._descriptor)
            self._loop.call_soon_threadsafe(self._back, group)

    def _back(self, group: list[tuple[bytes, asyncio.Future[None]]]) -> None:
        if self._waiting:
            self._hand_over()
        else:
            self._busy = False
        for _, answer in group:
            answer.set_result(None)

    def close(self) -> None:
        self._handed.put(None)
        self._thread.join()
        os.close(self._descriptor)


async def rate(append: Append, writers: int, seconds: float) -> Rate:
    """Each writer appends, waits until that is durable, and appends again."""
    done = 0
    end = time.perf_counter() + seconds

    async def write(number: int) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await append(number)
            done += 1

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(write(number) for number in range(writers)))
    return Rate(done / (time.perf_counter() - began), (time.process_time() - cpu) * 1e6 / done)


async def main(directory: Path, rounds: int, seconds: float) -> dict[str, list[Rate]]:
    """Round after round, one after the other, by what was measured: `store-64`, `file-1`, …"""
    store = SqliteStore(Directory(directory / "appends"), SystemClock())
    await store.open()
    names = [ConversationId(f"conversation-of-writer-{number}") for number in range(max(WRITERS))]
    for name in names:
        await store.start(NewConversation(name, "bot"))
    file = GroupedFile(directory / "appends.log")

    async def append(writer: int) -> None:
        await store.append(names[writer], NewEntry(BODY), time.monotonic() + 15)

    found: dict[str, list[Rate]] = {}
    for _ in range(rounds):
        for writers in WRITERS:
            for name, way in (("store", append), ("file", file.append)):
                await rate(way, writers, seconds / 10)
                found.setdefault(f"{name}-{writers}", []).append(await rate(way, writers, seconds))
    file.close()
    await store.close()
    return found


async def syncs(path: Path, per_s: float, seconds: float) -> list[float]:
    """A bare write-and-sync, so many times a second: what one durable write takes here, in ms."""
    took = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    began = time.perf_counter()
    for number in count():
        due = began + number / per_s
        if due - began > seconds:
            break
        while (left := due - time.perf_counter()) > 0:
            time.sleep(left if left > 0.0002 else 0)
        before = time.perf_counter()
        os.write(descriptor, BODY)
        os.fdatasync(descriptor)
        took.append((time.perf_counter() - before) * 1e3)
    os.close(descriptor)
    return took


if __name__ == "__main__":
    if sys.argv[1] == "syncs":
        print(
            msgspec.json.encode(asyncio.run(syncs(Path(sys.argv[2]) / "syncs.log", 1000, float(sys.argv[3])))).decode()
        )
    else:
        results = uvloop.run(main(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
        print(msgspec.json.encode(results).decode())
