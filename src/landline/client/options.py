"""What can be set about a client: times, bounds, and what is known of the server."""

from __future__ import annotations

import random
from dataclasses import dataclass

LONGEST_WAIT_S = 60.0
"""No wait before a reconnect is longer (C5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The defaults suit people who chat. Tests shorten the times."""

    first_wait_s: float = 1.0
    """Upper bound of the wait before the first reconnect. It doubles each time; chance picks from all below it."""
    longest_wait_s: float = 15.0
    """Upper bound of all waits, at most `LONGEST_WAIT_S`."""
    request_timeout_s: float = 30.0
    """Deadline of one HTTP call."""
    send_timeout_s: float = 60.0
    """How long a send, a start and a resume are tried."""
    heartbeat_s: float = 30.0
    """A stream is pinged so often; one that does not answer in half of that is given up."""
    close_timeout_s: float = 2.0
    """Deadline of a WebSocket close handshake."""
    polling: bool = False
    """Never open a stream."""
    poll_s: float = 1.0
    """Pause between two polls that brought nothing."""
    stream_again_s: float = 300.0
    """After so long of polling, a stream is tried again."""
    buffered: int = 256
    """Received activities that wait to be taken, at most; the stream is not read while they are so many."""
    buffered_bytes: int = 8 << 20
    """The same in bytes."""
    remembered: int = 4096
    """Activities that are known again when they are repeated, at most."""
    idempotent: bool | None = None
    """Whether the server knows `Idempotency-Key`. None: it is asked when it matters."""

    def __post_init__(self) -> None:
        if not 0 < self.first_wait_s <= self.longest_wait_s <= LONGEST_WAIT_S:
            raise ValueError(f"0 < first_wait_s <= longest_wait_s <= {LONGEST_WAIT_S:g} does not hold")


def chance() -> float:
    """From 0 to 1, for the length of a wait: clients that were cut off together do not come back together."""
    return random.random()  # noqa: S311 - it guards nothing
