"""A clock whose hands a test can move."""

from __future__ import annotations

import time

NOON_MS = 1_750_000_000_000


class FakeClock:
    """A `landline.ports.Clock`. UTC stands still until it is moved; what bounds a wait goes on with the event loop."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.utc_ms = now_ms

    def now_ms(self) -> int:
        return self.utc_ms

    def monotonic(self) -> float:
        return time.monotonic()

    def move(self, by_ms: int) -> None:
        """Forward, or backward."""
        self.utc_ms += by_ms
