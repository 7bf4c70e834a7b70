"""The server end of one stream, as a state machine: events in, at most one decision out.

Two rules:

1. A stream is a number, not a queue. It holds the position it has reached and nothing of what is to come: woken, it
   reads after its number, writes, and advances when the write was handed to the socket (spec 8.4).
2. One thing at a time: a page is read only when the page before it was handed over and the socket takes more. Whatever
   happens meanwhile (the log moves, once or a thousand times) is one remembered bit.

Whoever drives the machine carries each decision out and reports it with the event that the decision names; the answer
to that is the next decision, until there is none. There is no I/O here, and no clock: `now` is in seconds and comes
with `tick`. Between two ticks time stands still, so whatever happens is dated to the tick before it: a silence is
taken for longer than it was, never for shorter, and the hot path asks no clock.
"""

from __future__ import annotations

import math

import msgspec

from landline.core.log import ConversationId, Entry, Page, frame, transient_frame
from landline.core.watermark import watermark


class Listen(msgspec.Struct, frozen=True, gc=False):
    """Register for wake-ups, then report `listening`."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Read one page after these numbers, then report `page_read` or `read_failed`."""

    position: int
    transient: int


class Send(msgspec.Struct, frozen=True):
    """Hand these text frames to the socket in one write, report `paused` if it asks to stop, then `sent`."""

    frames: list[bytes]


class Watch(msgspec.Struct, frozen=True, gc=False):
    """Report `watched` after so long, unless the socket takes more before that."""

    after_s: float


class KeepAlive(msgspec.Struct, frozen=True, gc=False):
    """Send an empty text frame and, if `ping`, a Ping in the same write (spec 7.3)."""

    ping: bool


class Close(msgspec.Struct, frozen=True, gc=False):
    """Start the close handshake with this code and reason. The stream is over."""

    code: int
    reason: str


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Cut the connection without a close handshake: nobody is there to answer it. The stream is over."""


Decision = Listen | Read | Send | Watch | KeepAlive | Close | Drop

LISTEN = Listen()
KEEP_ALIVE, KEEP_ALIVE_AND_PING = KeepAlive(False), KeepAlive(True)
DROP = Drop()

# Specification 7.7.
GOING_AWAY = Close(1001, "going-away")
INTERNAL_ERROR = Close(1011, "internal-error")
SLOW_CONSUMER = Close(1013, "slow-consumer")
FORBIDDEN = Close(4403, "forbidden")
CONVERSATION_GONE = Close(4404, "conversation-gone")
COLLISION = Close(4409, "collision")


_LOOKS = 8
"""How often a full socket is looked at in `stall_s`. A stall may be noticed late by one part, never early."""


class Timing:
    """The durations of a stream, in seconds (spec 7.3, 7.7), and what they are when counted in ticks."""

    __slots__ = ("dead_s", "look_s", "quiet_s", "tick_s")

    def __init__(self, keepalive_s: float = 30.0, dead_peer_s: float = 60.0, stall_s: float = 30.0) -> None:
        # A whole number of ticks is `keepalive_s`: two, unless that is too seldom for `dead_peer_s`.
        self.tick_s = keepalive_s / (2 * math.ceil(max(1.0, 2 * keepalive_s / dead_peer_s)))
        # Less whatever the clock is off: an exact comparison might mean one tick more, and a silence of more than 30 s.
        self.quiet_s = keepalive_s - self.tick_s / 2
        self.dead_s = dead_peer_s - self.tick_s / 8
        self.look_s = stall_s / _LOOKS


_OPENING, _IDLE, _READING, _WRITING, _OVER = range(5)


class Stream:
    """One stream of one conversation, from `position` on.

    Promises, whatever the order of events: every frame has one activity (D-47, D-48); every activity that is read is
    sent once, in order, without gaps; a watermark never names more than was sent; nothing is read while the socket asks
    to stop; a wake-up that got lost costs at most `keepalive_s`, because a stream looks for itself before it says that
    it is idle.
    """

    __slots__ = (
        "_base",
        "_behind",
        "_behind_ms",
        "_heard_at",
        "_looks",
        "_moved",
        "_now",
        "_page",
        "_paused",
        "_pinged_at",
        "_sent_at",
        "_start",
        "_state",
        "_timing",
        "_unsent",
        "conversation",
        "position",
        "transient",
    )

    def __init__(
        self,
        conversation: ConversationId,
        position: int,
        start: str,
        timing: Timing,
        now: float,
        base: bytes = b"",
    ) -> None:
        """A stream that begins at `position`, whose wire form is `start`; links in it begin with `base`."""
        self.conversation = conversation
        self._base = base
        self.position = position
        self.transient = 0
        self._start = start
        self._behind = 0
        self._behind_ms = 0
        self._page: Page | None = None
        self._state = _OPENING
        self._moved = True  # nobody has looked yet
        self._paused = False
        self._timing = timing
        self._now = now
        self._sent_at = now
        self._heard_at = now
        self._pinged_at: float | None = None
        self._looks = 0
        self._unsent = 0

    @property
    def watermark(self) -> str:
        """The last watermark that was sent; before that, where the stream began."""
        return self._start or watermark(self.conversation, self._behind, self._behind_ms)

    @property
    def over(self) -> bool:
        """Whether the stream has ended; from then on no event has an effect."""
        return self._state == _OVER

    # What the driver reports.

    def opened(self) -> Decision | None:
        """The socket is open. Interest comes before the first look: an activity appended between a look and the
        registration after it would wait for the next one."""
        return LISTEN

    def listening(self, transient: int) -> Decision | None:
        """Wake-ups arrive from now on; `transient` counts the transients that passed before (D-49)."""
        if self._state != _OPENING:
            return None
        self.transient = transient
        self._state = _IDLE
        return self._look()

    def woken(self) -> Decision | None:
        """The log moved, or may have: a hint that may come late, twice, or for nothing."""
        self._moved = True
        return self._look()

    def page_read(self, page: Page) -> Decision | None:
        """The read that was decided has answered."""
        if self._state != _READING:
            return None
        self._state = _IDLE
        if self._paused:
            # The socket filled up meanwhile. Reading again later is cheaper than holding one page per slow client.
            self._moved = True
            return None
        if not page.records:
            self._advance(page)
            return self._look() or self._sign_of_life()
        self._page = page
        self._state = _WRITING
        return Send(self._frames(page))

    def read_failed(self) -> Decision | None:
        """The store could not answer. The next tick, or an earlier wake-up, tries again; nothing is skipped."""
        if self._state != _READING:
            return None
        self._state = _IDLE
        self._moved = True
        return None if self._paused else self._sign_of_life()

    def sent(self) -> Decision | None:
        """What was to be sent has been handed to the socket: only now is it behind this stream."""
        if self._state != _WRITING:
            return None
        self._state = _IDLE
        self._sent_at = self._now
        page, self._page = self._page, None
        if page is not None:
            self._advance(page)
        return self._look()

    def paused(self, unsent: int) -> Decision | None:
        """The socket asks to stop writing and holds back so many bytes. May be reported again while it does."""
        if self._paused or self._state == _OVER:
            return None
        self._paused = True
        self._unsent = unsent
        self._looks = 0
        return Watch(self._timing.look_s)

    def watched(self, unsent: int) -> Decision | None:
        """It still asks to stop, and now holds back so many. Close if nothing has left for `stall_s`: a slow reader is
        not a dead one, and as long as bytes leave it is waited for."""
        if not self._paused or self._state == _OVER:
            return None
        self._looks += 1
        if unsent < self._unsent:
            self._unsent = unsent
            self._looks = 0
        return Watch(self._timing.look_s) if self._looks < _LOOKS else self._end(SLOW_CONSUMER)

    def resumed(self) -> Decision | None:
        """The socket takes more. A look is due in any case: while it was full, a lost wake-up could not be noticed."""
        self._paused = False
        self._moved = True
        if self._pinged_at is not None:
            self._pinged_at = self._now  # the Ping stood behind what was stuck: its time begins now
        return self._look()

    def heard(self) -> None:
        """A frame of any kind arrived from the client: it lives."""
        self._heard_at = self._now
        self._pinged_at = None

    def tick(self, now: float) -> Decision | None:
        """Time passed. Silence behind a full socket proves nothing."""
        self._now = now
        if self._paused or self._state in (_OPENING, _OVER):
            return None
        if self._pinged_at is not None and now - self._pinged_at >= self._timing.dead_s:
            return self._end(DROP)
        if now - self._sent_at >= self._timing.quiet_s:
            if self._state != _IDLE:
                # A store that hangs is no reason to let the client believe that we are gone.
                return self._sign_of_life() if self._state == _READING else None
            self._moved = True
        return self._look()

    def close(self, why: Close) -> Decision | None:
        """Somebody else wants this stream to end."""
        return None if self._state == _OVER else self._end(why)

    def closed(self) -> None:
        """The socket is gone."""
        self._end(DROP)

    # What the machine decides.

    def _look(self) -> Decision | None:
        """Read on if there may be news, nothing else is under way, and the socket takes more."""
        if self._moved and self._state == _IDLE and not self._paused:
            self._moved = False
            self._state = _READING
            return Read(self.position, self.transient)
        return None

    def _frames(self, page: Page) -> list[bytes]:
        """One frame per activity (D-48). A transient repeats the watermark before it (D-39)."""
        frames = []
        for record in page.records:
            if isinstance(record, Entry):
                frames.append(frame(self.conversation, record, self._base))
                self._start = ""
                self._behind = record.sequence + 1
                self._behind_ms = record.time_ms
            else:
                frames.append(transient_frame(record, self.watermark, self._base))
        return frames

    def _advance(self, page: Page) -> None:
        self.position = page.position
        self.transient = page.transient
        if page.more:
            self._moved = True

    def _sign_of_life(self) -> Decision | None:
        """A keep-alive if one is due; with a Ping if the client has been as silent as we have."""
        now, quiet_s = self._now, self._timing.quiet_s
        if now - self._sent_at < quiet_s:
            return None
        self._sent_at = now
        if now - self._heard_at < quiet_s:
            return KEEP_ALIVE
        if self._pinged_at is None:
            self._pinged_at = now
        return KEEP_ALIVE_AND_PING

    def _end(self, how: Decision) -> Decision:
        self._state = _OVER
        self._page = None
        return how
