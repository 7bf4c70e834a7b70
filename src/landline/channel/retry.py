"""Waiting out a store in trouble: a full disk or a full queue is a delay before it is an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from landline.errors import DeadlinePassed, StoreUnavailable

_RETRY_S = 0.05
"""Pause before what was surely not stored is offered again. A group commit takes a few milliseconds."""

T = TypeVar("T")


async def retry_while_unavailable(give_up: float, attempt: Callable[[], Awaitable[T]], pause_s: float = _RETRY_S) -> T:
    """What `attempt` answers, made again while it is sure that nothing was stored, until `give_up` (on the scale of
    `Clock.monotonic`). Without trouble it awaits nothing but the attempt itself."""
    while True:
        try:
            return await attempt()
        except DeadlinePassed:
            raise
        except StoreUnavailable as error:
            if not error.retry or asyncio.get_running_loop().time() + pause_s >= give_up:
                raise
            await asyncio.sleep(pause_s)
