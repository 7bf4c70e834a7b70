"""The end of a connection whose client may still be sending (statement 210; RFC 9112, section 9.6).

To close a connection with unread bytes, or to get more of them afterwards, makes TCP reset it, and a reset takes with
it what the client has not read yet: the answer that says why. So the answer is written, the connection is closed in our
direction where that can be done, and what still comes is read and dropped for a while.

TLS has no half of a close that its other end would survive. There the client learns the length of the answer from its
head; the connection is closed when nothing more comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from landline.wire.wheel import Timer, Wheel

_LEAVING_S = 0.5
"""How long a stop of the server waits for such a client, and the end of a connection for the client's own end of it."""


class Patience(msgspec.Struct, frozen=True):
    """How long a client is heard out that was answered already: `total_s` at most, as long as it is never silent for
    `silence_s`, and for `most_bytes`."""

    total_s: float = 30.0
    silence_s: float = 2.0
    most_bytes: int = 64 << 20


class Parting(asyncio.Protocol):
    """What a connection reports to when its last answer is with the transport. Reads, and drops what it reads.

    uvicorn knows it in place of what it follows, so it has `shutdown` as well."""

    __slots__ = ("_ends_at", "_gone", "_heard_at", "_left", "_patience", "_timer", "_transport", "_wheel")

    def __init__(
        self, transport: asyncio.Transport, wheel: Wheel, patience: Patience, gone: Callable[[Parting], None]
    ) -> None:
        """`gone` is called once, when the connection has ended."""
        self._transport = transport
        self._wheel = wheel
        self._patience = patience
        self._gone = gone
        self._left = patience.most_bytes
        self._heard_at = wheel.time()
        self._ends_at = self._heard_at + patience.total_s
        self._timer: Timer | None = None

    def begin(self) -> None:
        """Take the connection over."""
        transport = self._transport
        transport.set_protocol(self)
        if transport.can_write_eof():
            transport.write_eof()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Nobody wants it."""
        self._heard_at = self._wheel.time()
        self._left -= len(data)
        if self._left < 0:
            self._transport.abort()

    def eof_received(self) -> None:
        """The client has seen the end, or has said everything: asyncio closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._timer is not None:
            self._timer.cancel()
        self._gone(self)

    def shutdown(self) -> None:
        """uvicorn: the server stops."""
        self._ends_at = min(self._ends_at, self._wheel.time() + _LEAVING_S)
        if self._timer is not None:
            self._timer.cancel()
        self._watch()

    def _watch(self) -> None:
        self._timer = self._wheel.at(self._deadline, self._look)

    @property
    def _deadline(self) -> float:
        return min(self._ends_at, self._heard_at + self._patience.silence_s)

    def _look(self) -> None:
        self._timer = None
        if self._wheel.time() < self._deadline:
            self._watch()
        elif self._transport.get_write_buffer_size():
            self._transport.abort()  # it does not take the answer
        else:
            self._transport.close()
            # Over TLS that waits for the other end to close as well, for half a minute.
            self._timer = self._wheel.after(_LEAVING_S, self._transport.abort)
