"""What was received and not yet taken by the application, with a bound that holds the stream back."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple


class Item(NamedTuple):
    """An activity as it arrived, and the watermark behind it if it is the last of its activity set."""

    activity: bytes | None
    watermark: str | None


class Buffer:
    """First in, first out. `put` waits while `most` activities or `most_bytes` are held; one always fits."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._items: deque[Item] = deque()
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._ended = False
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: Item) -> None:
        """Wait for room, then add."""
        while self._items and (len(self._items) >= self._most or self._bytes >= self._most_bytes):
            self._room.clear()
            await self._room.wait()
        self._items.append(item)
        self._bytes += len(item.activity or b"")
        self._news.set()

    async def get(self) -> Item | None:
        """Wait for the next; None when it has ended and is empty. Cancelled, it takes nothing."""
        while not self._items:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        item = self._items.popleft()
        self._bytes -= len(item.activity or b"")
        self._room.set()
        return item

    def end(self) -> None:
        """Nothing more comes; what is held can still be taken."""
        self._ended = True
        self._news.set()
