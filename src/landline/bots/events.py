"""Frames of `text/event-stream`, as a bot answers when it replies in its own response (bot 2.6).

Parsing only: bytes go in as they come, in pieces of any size, and whole events come out. Lines end in CRLF or LF, an
empty line ends an event (WHATWG HTML, "Server-sent events"). A lone CR, which no bot sends, ends no line here.
"""

from __future__ import annotations

import msgspec

from landline.errors import TooLarge

_READ = frozenset((b"data", b"even"))
"""How lines begin that mean something. Others, comments for instance, are left out before anybody looks at them."""


class Event(msgspec.Struct, frozen=True):
    """One frame: its name ("message" where it has none) and its data, lines joined by LF."""

    name: str
    data: bytes


class EventStream:
    """The parser of one response. At most `most_bytes` are kept of an event that has not ended."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._unread = bytearray()
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False

    def feed(self, part: bytes) -> list[Event]:
        """The events that end in `part`. Raises `TooLarge`."""
        end = part.rfind(b"\n") + 1
        if not end:  # or a line that comes byte by byte would be searched from its beginning for each of them
            self._unread += part
            events = []
        else:
            text = bytes(self._unread + part[:end])
            if not self._begun:
                self._begun, text = True, text.removeprefix(b"\xef\xbb\xbf")
            self._unread = bytearray(part[end:])
            events = self._events(_lines(text))
        if len(self._unread) + self._size > self._most_bytes:
            raise TooLarge
        return events

    def finish(self) -> list[Event]:
        """The last event, if the response ended without the empty line behind it."""
        events = self.feed(b"\n\n")
        self._unread.clear()
        return events

    def _events(self, lines: list[bytes]) -> list[Event]:
        events: list[Event] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(Event(self._name.decode("utf-8", "replace") or "message", b"\n".join(self._data)))
                    self._data, self._size = [], 0
                self._name = b""
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                value = value.removeprefix(b" ")
                self._data.append(value)
                self._size += len(value) + 1
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return events


def _lines(text: bytes) -> list[bytes]:
    """The lines that are read of a text that ends with one; one empty line stands for several."""
    text = text.replace(b"\r\n", b"\n")[:-1]
    while b"\n\n\n" in text:
        text = text.replace(b"\n\n\n", b"\n\n")
    return [line for line in text.split(b"\n") if not line or line[:4] in _READ]
