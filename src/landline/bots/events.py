"""Frames of `text/event-stream`, as a bot answers when it replies in its own response (bot-side 2.6).

Parsing only: bytes go in as they come, in pieces of any size, and whole events come out. Lines end in CRLF or LF, an
empty line ends an event (WHATWG HTML, "Server-sent events"). A lone CR, which no bot sends, ends no line here.
"""

from __future__ import annotations

import msgspec

from landline.errors import TooLarge


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
        self._unread += part
        *lines, rest = self._unread.split(b"\n")
        self._unread = rest
        events = [event for line in lines if (event := self._line(bytes(line.removesuffix(b"\r")))) is not None]
        if len(rest) + self._size > self._most_bytes:
            raise TooLarge
        return events

    def finish(self) -> list[Event]:
        """The last event, if the response ended without the empty line behind it."""
        events = self.feed(b"\n\n")
        self._unread.clear()
        return events

    def _line(self, line: bytes) -> Event | None:
        if not self._begun:
            self._begun, line = True, line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._end()
        field, _, value = line.partition(b":")  # a comment has no field name
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value
        elif field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        return None

    def _end(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = b"", [], 0
        return Event(name.decode("utf-8", "replace") or "message", b"\n".join(data)) if data else None
