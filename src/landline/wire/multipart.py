"""`multipart/form-data` piece by piece: bytes in, heads of parts and their bytes out (RFC 2046, section 5.1.1).

A part ends where the boundary is found behind a line end. What is looked through is looked through by `bytes.find`, and
a Python step is made for a boundary only, of which there are few: so no content costs more than any other. What the
parts mean is the business of `core.attachments`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from landline.core.attachments import Head, head
from landline.errors import BadSyntax, TooLarge

_FORM = re.compile(rb'\s*multipart/form-data\s*(?:;.*?\bboundary\s*=\s*(?:"([^"]*)"|([^\s;"]+)).*|;.*)?', re.I | re.S)

_BOUNDARY_BYTES = 256
_HEAD_BYTES = 4096
"""At most so much stands before the bytes of a part."""
_LINE_END = re.compile(rb"[ \t]{0,64}\r\n")
"""What stands behind a boundary at the beginning of a part, and `--` behind the last one."""
_TAIL_BYTES = 66
_LOOKALIKES = 1000
"""So many lines of a form may begin as its boundary does and go on otherwise. Each costs a step."""
_HEADERS = re.compile(rb"\r\n(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*\r\n)*")
_CONTENT_TYPE, _DISPOSITION = (
    re.compile(rb"\r\n%b:[ \t]*([^\r\n]*)" % name, re.I) for name in (b"content-type", b"content-disposition")
)

Event = Head | bytes
"""A part begins, or goes on."""


class Form:
    """The parser of one body. Holds what is not decided yet: a head, or what could become a boundary."""

    def __init__(self, boundary: bytes, parts: int) -> None:
        """`parts` is how many there may be. Raises `BadSyntax` for a boundary that is none."""
        if len(boundary) > _BOUNDARY_BYTES:
            raise BadSyntax("The multipart boundary is too long")
        self._delimiter = b"\r\n--" + boundary
        self._most_parts = self._parts_left = parts
        self._lookalikes = 0
        self._held = b"\r\n"  # the first boundary may stand at the very beginning
        self._is_heard_of = False  # what stands before the first boundary is not
        self._in_head = False
        self._ended = False

    async def read(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
        """What a body adds up to that comes in `pieces`. Raises `BadSyntax` for one that is no form, or not all of
        one, and `TooLarge` for one part too many."""
        async for piece in pieces:
            for event in self.feed(piece):
                yield event
        if not self._ended:
            raise BadSyntax("The multipart body is not complete")

    def feed(self, piece: bytes) -> list[Event]:
        """What ends in `piece`. What stands behind the last boundary is not looked at. Raises as `read`."""
        events: list[Event] = []
        data, self._held = self._held + piece, b""
        at: int | None = 0
        while at is not None and not self._ended:
            at = self._through_head(data, at, events) if self._in_head else self._through_content(data, at, events)
        return events

    def _through_head(self, data: bytes, start: int, events: list[Event]) -> int | None:
        """Where the bytes of the part begin; None where that is still to come. `start` is at a line end."""
        end = data.find(b"\r\n\r\n", start, start + _HEAD_BYTES)
        if end < 0:
            if len(data) - start >= _HEAD_BYTES:
                raise BadSyntax("The head of a part is too long")
            self._held = data[start:]
            return None
        lines = data[start : end + 2]
        if not _HEADERS.fullmatch(lines):
            raise BadSyntax("The multipart body is broken")
        content_type, disposition = _CONTENT_TYPE.search(lines), _DISPOSITION.search(lines)
        events.append(head(content_type and content_type[1], disposition and disposition[1], in_form=True))
        self._in_head = False
        return end + 4

    def _through_content(self, data: bytes, start: int, events: list[Event]) -> int | None:
        """Where the line end behind the next boundary is; None where that is still to come, or was the last one."""
        looked_at = start
        while (found := data.find(self._delimiter, looked_at)) >= 0:
            behind = found + len(self._delimiter)
            if data.startswith(b"--", behind):
                self._put(data, start, found, events)
                self._ended = True
                return None
            if line_end := _LINE_END.match(data, behind):
                self._put(data, start, found, events)
                self._begin_part()
                return line_end.end() - 2
            if len(data) - behind < _TAIL_BYTES and _may_go_on(data[behind:]):
                break
            self._lookalikes += 1
            if self._lookalikes > _LOOKALIKES:
                raise BadSyntax("The multipart boundary begins too many lines")
            looked_at = behind
        kept = found if found >= 0 else data.find(b"\r", max(looked_at, len(data) - len(self._delimiter)))
        kept = len(data) if kept < 0 else kept
        self._put(data, start, kept, events)
        self._held = data[kept:]
        return None

    def _put(self, data: bytes, start: int, end: int, events: list[Event]) -> None:
        if self._is_heard_of and end > start:
            events.append(data[start:end])

    def _begin_part(self) -> None:
        if not self._parts_left:
            raise TooLarge(f"The upload has more than {self._most_parts} parts")
        self._parts_left -= 1
        self._is_heard_of = self._in_head = True


def _may_go_on(behind: bytes) -> bool:
    """Whether what stands behind a boundary can still become the end of its line."""
    return behind.rstrip(b" \t") in (b"", b"\r") or behind == b"-"


def form_of(content_type: bytes | None, parts: int) -> Form | None:
    """The parser for a body of that type, with `parts` at most; None where it is another type, so that the body is one
    file (5.6).

    Raises `BadSyntax` for a form without boundary.
    """
    found = _FORM.fullmatch(content_type or b"")
    if found is None:
        return None
    boundary = found[1] or found[2]
    if not boundary:
        raise BadSyntax("The multipart boundary is missing")
    return Form(boundary, parts)
