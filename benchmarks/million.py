"""A store with very many conversations in which nothing happens: filled, and opened.

A program of its own, run by `storage`, so that its core and its memory are its own."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from benchmarks.servers import resident_bytes
from benchmarks.work import SystemClock
from landline.core.conversation import Account, NewConversation
from landline.core.log import ConversationId
from landline.stores.directory import Directory
from landline.stores.sqlite import SqliteStore

TOGETHER = 4000


class Opened(msgspec.Struct):
    """How long it took, and by how much the memory grew."""

    ms: float
    bytes: int


async def fill(directory: Path, count: int) -> None:
    """Start so many conversations, each with a user."""
    store = SqliteStore(Directory(directory), SystemClock())
    await store.open()
    for first in range(0, count, TOGETHER):
        await asyncio.gather(
            *(
                store.start(
                    NewConversation(ConversationId(f"idle-conversation-{number:012d}"), "bot", Account("user-1"))
                )
                for number in range(first, min(count, first + TOGETHER))
            )
        )
    await store.close()


async def opened(directory: Path) -> Opened:
    """Open the store once, as a server does at its start."""
    store = SqliteStore(Directory(directory), SystemClock())
    before, began = resident_bytes(os.getpid()), time.perf_counter()
    await store.open()
    took = Opened((time.perf_counter() - began) * 1e3, resident_bytes(os.getpid()) - before)
    await store.close()
    return took


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        uvloop.run(fill(Path(sys.argv[2]), int(sys.argv[3])))
    else:
        print(msgspec.json.encode(uvloop.run(opened(Path(sys.argv[2])))).decode())
