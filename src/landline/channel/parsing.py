"""Reading what strangers send, without holding everybody else up (spec 9, statement 212).

Each step of a parser is one call that lets no other thread run, but between two of them others do. So a long text is
read in a thread: the event loop then waits for a step at a time and not for the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

AT_ONCE_BYTES = 64 * 1024
"""A text of this size, however hostile, is read in a few milliseconds; a thread costs a tenth of one."""

_T = TypeVar("_T")


async def parsed(size: int, parse: Callable[[], _T]) -> _T:
    """What `parse` makes of a text of `size` bytes. Raises what it raises."""
    return parse() if size <= AT_ONCE_BYTES else await asyncio.to_thread(parse)
