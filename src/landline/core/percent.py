"""Percent-encoding (RFC 3986, section 2.1), and the fields that URLs and forms are made of.

What strangers send is decoded once, and only what somebody asks for: `urllib.parse` takes 10 ms for 8 KiB of names that
nobody reads, and an exception for each percent sign that stands for nothing.
"""

from __future__ import annotations

import re
from binascii import a2b_qp
from collections.abc import Collection, Iterator

STRAYS = 100
"""Percent signs that begin no escape, in text that is decoded all the same."""
FIELDS = 100
"""Fields of a query that are read."""

_SEGMENTS = 64
"""A path of more leads nowhere, and need not be decoded to know that."""

_NO_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NAME_BYTES = 256
"""Names that are longer, encoded, are none of ours."""


def decoded(text: bytes) -> bytes:
    """`text` with the byte in place of each escape; a percent sign that begins none stays. What has more than `STRAYS`
    of those is not encoded, and stays as it is."""
    if b"%" not in text:
        return text
    # Quoted-printable is the same with another sign, and there is a decoder for it that makes no object for each.
    escaped, strays = _NO_ESCAPE.subn(b"%25", text, STRAYS + 1)
    if strays > STRAYS:
        return text
    return a2b_qp(escaped.replace(b"=", b"%3D").replace(b"%", b"="))


def text_of(encoded: bytes) -> str:
    """The same as text, with U+FFFD for what is not UTF-8."""
    return decoded(encoded).decode(errors="replace")


def fields(encoded: bytes, names: Collection[bytes], most: int = FIELDS) -> Iterator[tuple[bytes, bytes]]:
    """Name and value of the fields with these names, decoded, among the first `most` of a query or a form."""
    for field in encoded.split(b"&", most)[:most]:
        name, _, value = field.partition(b"=")
        if len(name) <= _NAME_BYTES and (name := _field(name)) in names:
            yield name, _field(value)


def _field(encoded: bytes) -> bytes:
    return decoded(encoded.replace(b"+", b" "))


def by_segment(raw: bytes) -> str:
    """A raw path, decoded once. Each segment is decoded, but for what would change the number of segments: an id may
    hold an encoded slash. What is kept is decoded by who reads the segment (`Exchange.path`)."""
    if raw.count(b"/") > _SEGMENTS:
        return raw.decode("latin-1")
    segments = map(text_of, raw.split(b"/"))
    return "/".join(segment.replace("%", "%25").replace("/", "%2F") for segment in segments)
