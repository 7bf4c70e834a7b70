"""The client end of a conversation, as a state machine: events in, at most one decision out (spec 8.7).

A session outlives its sockets. It begins with the watermark inside its stream URL and notes that of every activity set;
when a socket is lost it waits, asks for a new stream URL from that watermark on, and opens it; this repeats until the
conversation is over or hope is lost.
Delivery from the server is at least once: the session drops what it has already had.

Whoever drives it carries each decision out and reports the outcome. There is no I/O here, no clock and no chance:
`now` is in seconds, `jitter` is a random number from 0 to 1, and both come as arguments.
"""

from __future__ import annotations

from enum import Enum
from urllib.parse import parse_qs, urlsplit

import msgspec


class Open(msgspec.Struct, frozen=True, gc=False):
    """Open this stream URL at once (it lives for a minute), then report `opened`, or `lost` if that fails."""

    stream_url: str


class Deliver(msgspec.Struct, frozen=True):
    """Hand these activities (complete JSON each) to the application, in order."""

    activities: list[bytes]


class HangUp(msgspec.Struct, frozen=True, gc=False):
    """Close the socket, then report `lost`: what it carries cannot be understood."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Do nothing for so long, then report `waited`."""

    seconds: float


class Reconnect(msgspec.Struct, frozen=True, gc=False):
    """GET the conversation with `watermark=` this, present even where empty, then report `answered` or `refused`."""

    watermark: str


class Refresh(msgspec.Struct, frozen=True, gc=False):
    """Refresh the token, then report `refreshed` or `refresh_failed`. The stream is not touched by it."""


class NewToken(msgspec.Struct, frozen=True, gc=False):
    """Only a new token from whoever issues them helps; report `renewed` when there is one."""


class Over(msgspec.Struct, frozen=True, gc=False):
    """Nothing more will come, and this is why."""

    reason: str


Decision = Open | Deliver | HangUp | Wait | Reconnect | Refresh | NewToken | Over

HANG_UP = HangUp()
REFRESH = Refresh()
NEW_TOKEN = NewToken()
CONVERSATION_OVER = Over("conversation-over")
GAVE_UP = Over("gave-up")
STOPPED = Over("stopped")

_FORBIDDEN = 4403  # close codes of spec 7.7
_CONVERSATION_GONE = 4404
_COLLISION = 4409


class Patience(msgspec.Struct, frozen=True, gc=False):
    """How long a session waits before it reconnects: the first time, at most, and how often in a row (None: for ever).

    A longest wait of 15 s is what DirectLineJS does; the jitter keeps the clients of a restarted server apart. `least`
    is the share of each wait that chance does not shorten: 0 is full jitter."""

    first_s: float = 1.0
    longest_s: float = 15.0
    attempts: int | None = None
    least: float = 0.5


class _ActivitySet(msgspec.Struct):
    activities: list[msgspec.Raw]
    watermark: str | int | None = None  # a number in offline-directline

    @property
    def position(self) -> str | None:
        return None if self.watermark is None else str(self.watermark)


class _Identified(msgspec.Struct):
    id: str | None = None


class _State(Enum):
    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    WAITING = "waiting"
    ASKING = "asking"
    TOKENLESS = "tokenless"
    OVER = "over"


class Session:
    """One client's session in one conversation.

    Promises, for a server that keeps spec 8: over any number of lost sockets every activity is delivered, in
    order and once, as long as no replay is longer than what is remembered; an update (known id, other content) and a
    `messageDelete` are delivered as what they are.
    """

    def __init__(self, patience: Patience | None = None, remembered: int = 4096) -> None:
        """`remembered` bounds how many activities are known again when they are repeated."""
        self.watermark = ""
        self._patience = patience or Patience()
        self._remembered = remembered
        self._state = _State.IDLE
        self._failures = 0
        self._refresh_at: float | None = None
        self._content: dict[str, int] = {}
        self._had: dict[int, None] = {}

    # What the driver reports.

    def started(self, stream_url: str, expires_in_s: float, now: float) -> Decision | None:
        """The conversation was started, or joined: here is its first stream URL, and in it where the session begins."""
        self._state = _State.ASKING
        return self.answered(stream_url, expires_in_s, now)

    def opened(self) -> Decision | None:
        """The socket is open."""
        if self._state is _State.OPENING:
            self._state = _State.OPEN
        return None

    def frame(self, payload: bytes) -> Decision | None:
        """A text frame arrived. An empty one is a keep-alive."""
        if self._state is not _State.OPEN or not payload.strip():
            return None
        try:
            received = msgspec.json.decode(payload, type=_ActivitySet)
            fresh = self._fresh(received)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Going on would move the watermark past something that was never delivered.
            return HANG_UP
        self._failures = 0
        self._note(received.position)
        return Deliver(fresh) if fresh else None

    def lost(self, jitter: float, code: int | None = None) -> Decision | None:
        """The socket is gone, or could not be opened; `code` is the close code, if there was one."""
        if self._state not in (_State.OPENING, _State.OPEN):
            return None
        if code == _CONVERSATION_GONE:
            return self._end(CONVERSATION_OVER)
        if code == _FORBIDDEN:
            return self._without_token()
        if code == _COLLISION:
            # Somebody else wanted the place. Coming back as if nothing had happened would throw them out in turn.
            return self._wait_up_to(self._patience.longest_s, jitter)
        return self._wait(jitter)

    def waited(self) -> Decision | None:
        """The wait is over."""
        return self._reconnect() if self._state is _State.WAITING else None

    def answered(self, stream_url: str, expires_in_s: float, now: float) -> Decision | None:
        """The reconnect was answered. Its token replaces the old one and lives for `expires_in_s`.

        A server that did not know our watermark has written another one into the URL: that is where we stand now."""
        if self._state is not _State.ASKING:
            return None
        self._state = _State.OPENING
        self._note(_position_in(stream_url))
        self.refreshed(expires_in_s, now)
        return Open(stream_url)

    def refused(self, jitter: float, status: int | None) -> Decision | None:
        """The reconnect was refused with `status`, or (None) not answered at all."""
        if self._state is not _State.ASKING:
            return None
        if status == 404:
            return self._end(CONVERSATION_OVER)
        if status in (401, 403):
            return self._without_token()
        return self._wait(jitter)

    def renewed(self, expires_in_s: float, now: float) -> Decision | None:
        """There is a new token."""
        self.refreshed(expires_in_s, now)
        return self._reconnect() if self._state is _State.TOKENLESS else None

    def tick(self, now: float) -> Decision | None:
        """Time passed. A token is refreshed at half of its life, so that one failed refresh does not cost it."""
        if self._state is _State.OVER or self._refresh_at is None or now < self._refresh_at:
            return None
        self._refresh_at = None
        return REFRESH

    def refreshed(self, expires_in_s: float, now: float) -> Decision | None:
        """The token was replaced by one that lives for `expires_in_s`."""
        self._refresh_at = now + expires_in_s / 2
        return None

    def refresh_failed(self, now: float, status: int | None) -> Decision | None:
        """The refresh was refused with `status`, or (None) not answered. The open stream goes on either way (D-43)."""
        if self._state is _State.OVER:
            return None
        if status in (401, 403):
            return NEW_TOKEN
        if status != 404:
            self._refresh_at = now + self._patience.longest_s
        return None

    def stop(self) -> Decision | None:
        """The application wants no more."""
        return self._end(STOPPED)

    # What the machine decides.

    def _note(self, watermark: str | None) -> None:
        self.watermark = watermark or self.watermark

    def _reconnect(self) -> Decision:
        # Empty, never absent: "absent" asks for what comes from now on, and would lose what was said before the first
        # frame arrived where a stream URL said nothing of its beginning (spec 8.2.4).
        self._state = _State.ASKING
        return Reconnect(self.watermark)

    def _wait(self, jitter: float) -> Decision:
        patience = self._patience
        if patience.attempts is not None and self._failures >= patience.attempts:
            return self._end(GAVE_UP)
        ceiling = min(patience.longest_s, patience.first_s * 2 ** min(self._failures, 16))
        self._failures += 1
        return self._wait_up_to(ceiling, jitter)

    def _wait_up_to(self, ceiling: float, jitter: float) -> Decision:
        self._state = _State.WAITING
        least = self._patience.least
        return Wait(ceiling * (least + (1 - least) * jitter))

    def _without_token(self) -> Decision:
        self._state = _State.TOKENLESS
        self._refresh_at = None
        return NEW_TOKEN

    def _end(self, why: Over) -> Decision:
        self._state = _State.OVER
        return why

    def _fresh(self, received: _ActivitySet) -> list[bytes]:
        # Read all of them before any is noted as had: one that cannot be read sends the whole set back.
        activities = [bytes(raw) for raw in received.activities]
        names = [msgspec.json.decode(activity, type=_Identified).id for activity in activities]
        return [
            activity
            for name, activity in zip(names, activities, strict=True)
            if name is None or not self._repeated(name, hash(activity), received.position)
        ]

    def _repeated(self, name: str, content: int, watermark: str | None) -> bool:
        """Whether this is an activity that the application already has, and notes it.

        It has it if the id's latest content is this one (spec 8.4). A replay also brings back contents that an
        update has replaced since: those are known by the watermark that came with them, so that an update which returns
        to an earlier wording is still told from a repetition of that wording.
        """
        place = hash((name, content, watermark))
        repeated = place in self._had or self._content.get(name) == content
        if place not in self._had:
            self._content[name] = content
        _remember(self._had, place, self._remembered)
        _forget(self._content, self._remembered)
        return repeated


def _position_in(stream_url: str) -> str | None:
    """The watermark that a stream URL begins at, if it says so."""
    try:
        given = parse_qs(urlsplit(stream_url).query).get("watermark")
    except ValueError:
        return None
    return given[0] if given else None


def _remember(had: dict[int, None], place: int, most: int) -> None:
    had[place] = None
    _forget(had, most)


def _forget(memory: dict[str, int] | dict[int, None], most: int) -> None:
    """Drop the oldest entries beyond `most`; a dictionary keeps the order of arrival."""
    while len(memory) > most:
        del memory[next(iter(memory))]  # type: ignore[arg-type]
