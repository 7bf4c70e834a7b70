"""`multipart/form-data` piece by piece: bytes in, heads of parts and their bytes out. Holds one piece at a time.

The grammar is `python_multipart`'s business; what the parts mean is that of `core.attachments`.
"""

from __future__ import annotations

import logging
import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from landline.core.attachments import Head, head
from landline.errors import BadSyntax

_FORM = re.compile(rb'\s*multipart/form-data\s*(?:;.*?\bboundary\s*=\s*(?:"([^"]*)"|([^\s;"]+)).*|;.*)?', re.I | re.S)
_SILENT = logging.Logger("multipart", logging.CRITICAL + 1)  # a client's mistake is the client's to hear of

Event = Head | bytes
"""A part begins, or goes on."""


class Form:
    """The parser of one body."""

    def __init__(self, boundary: bytes) -> None:
        """Raises `BadSyntax` for a boundary that is none."""
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
                    "on_part_begin": self._headers.clear,
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

    def feed(self, piece: bytes) -> list[Event]:
        """What `piece` adds. Raises `BadSyntax`."""
        self._events = []
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise BadSyntax("The multipart body is broken") from error
        self._put_content()
        return self._events

    def end(self) -> None:
        """The body is over. Raises `BadSyntax` unless the form is, too."""
        if not self._ended:
            raise BadSyntax("The multipart body is not complete")

    # What the parser reports; the last two of three arguments say which part of the first is meant.

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers.setdefault(self._name.lower(), self._value)
        self._name = self._value = b""

    def _on_head(self) -> None:
        content_type, disposition = map(self._headers.get, (b"content-type", b"content-disposition"))
        self._events.append(head(content_type, disposition, in_form=True))

    def _on_content(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def _put_content(self) -> None:
        if self._content:
            self._events.append(bytes(self._content))
            self._content.clear()

    def _on_end(self) -> None:
        self._ended = True


def form_of(content_type: bytes | None) -> Form | None:
    """The parser for a body of that type; None where it is another type, so that the body is one file (5.6).

    Raises `BadSyntax` for a form without boundary.
    """
    found = _FORM.fullmatch(content_type or b"")
    if found is None:
        return None
    boundary = found[1] or found[2]
    if not boundary:
        raise BadSyntax("The multipart boundary is missing")
    return Form(boundary)
