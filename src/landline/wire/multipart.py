"""`multipart/form-data` piece by piece: bytes in, heads of parts and their bytes out. Holds one piece at a time.

The grammar is `python_multipart`'s business; what the parts mean is that of `core.attachments`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from landline.core.attachments import Head, head
from landline.errors import BadSyntax, TooLarge

_FORM = re.compile(rb'\s*multipart/form-data\s*(?:;.*?\bboundary\s*=\s*(?:"([^"]*)"|([^\s;"]+)).*|;.*)?', re.I | re.S)
_SILENT = logging.Logger("multipart", logging.CRITICAL + 1)  # a client's mistake is the client's to hear of

_SLICE_BYTES = 16 * 1024
_TURN_S = 0.001
"""A body is parsed in slices; behind one that took so long, others get their turn. The worst takes five times as long,
one of a file a fiftieth."""

Event = Head | bytes
"""A part begins, or goes on."""


class Form:
    """The parser of one body.

    What may stand before the first boundary (RFC 2046, section 5.1.1) is to the parser a part of its own, which nobody
    hears of."""

    def __init__(self, boundary: bytes, parts: int) -> None:
        """`parts` is how many there may be. Raises `BadSyntax` for a boundary that is none."""
        self._most_parts = parts
        self._part = -1
        self._events: list[Event] = []
        self._content = bytearray()
        """What came of a part since the last event: the grammar may break it into single bytes."""
        self._headers: dict[bytes, bytes] = {}
        self._name = b""
        self._value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part,
                    "on_header_field": self._on_name,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_head,
                    "on_part_data": self._on_content,
                    "on_part_end": self._put_content,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise BadSyntax("The multipart boundary is too long") from error
        self._parser.logger = _SILENT
        self._parser.write(b"--%b\r\n\r\n\r\n" % boundary)

    async def read(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
        """What a body adds up to that comes in `pieces`. Raises `BadSyntax` for one that is no form, or not all of
        one, and `TooLarge` for one part too many."""
        async for piece in pieces:
            for start in range(0, len(piece), _SLICE_BYTES):
                begun = time.monotonic()
                events = self.feed(piece[start : start + _SLICE_BYTES])
                if time.monotonic() - begun > _TURN_S:
                    await asyncio.sleep(0)
                for event in events:
                    yield event
        if not self._ended:
            raise BadSyntax("The multipart body is not complete")

    def feed(self, piece: bytes) -> list[Event]:
        """What ends in `piece`. Raises as `read`."""
        self._events = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadSyntax("The multipart body is broken") from error
        self._put_content()
        return self._events

    # What the parser reports; the last two of three arguments say which part of the first is meant.

    def _on_part(self) -> None:
        self._headers.clear()
        self._part += 1
        if self._part > self._most_parts:
            raise TooLarge(f"The upload has more than {self._most_parts} parts")

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers.setdefault(self._name.lower(), self._value)
        self._name = self._value = b""

    def _on_head(self) -> None:
        if not self._part:
            return
        content_type, disposition = map(self._headers.get, (b"content-type", b"content-disposition"))
        self._events.append(head(content_type, disposition, in_form=True))

    def _on_content(self, data: bytes, start: int, end: int) -> None:
        if self._part:
            self._content += data[start:end]

    def _put_content(self) -> None:
        if self._content:
            self._events.append(bytes(self._content))
            self._content.clear()

    def _on_end(self) -> None:
        self._ended = True


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
