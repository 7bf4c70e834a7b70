"""Content-Disposition: the names in it, in every spelling that clients give them (spec 5.6).

One file name reaches us as raw UTF-8, as `filename*` (RFC 8187), in numbered pieces (RFC 2231), as encoded words
(RFC 2047) and with percent signs for quotes; whichever it is, the same name comes of it. What is none of these
spellings, or too long to be one, is the name as it stands there.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import a2b_qp
from itertools import count, islice

from landline.core import percent

Parameters = dict[bytes, bytes]

_BYTES = 16 * 1024
"""No more of a Content-Disposition is read. A file name in it has at most 200 characters that are kept."""

_SEGMENT = re.compile(rb'\s*+(?:([^\s=;"]++)\s*+=\s*+("(?:[^"\\]++|\\.)*+"|[^;]*+))?[^;]*+;?', re.DOTALL)
"""What stands between two semicolons, with the parameter in it if it is one. Whatever it is, it is passed in one go."""
_SEGMENTS = 100
"""So many of them are read."""
_IN_FORMS = (("%22", '"'), ("%0A", "\n"), ("%0a", "\n"), ("%0D", "\r"), ("%0d", "\r"))
_EXTENDED = re.compile(r"([\w.:-]{1,40})'[^']*'(.*)", re.ASCII | re.DOTALL)
_WORD = re.compile(r"=\?([\w.:-]{1,40})(?:\*[\w-]{0,40})?\?([BbQq])\?([^?]*+)\?=", re.ASCII)
_WORDS = re.compile(rf"{_WORD.pattern}(?:\s*+{_WORD.pattern})*+", re.ASCII)
"""Encoded words with nothing but blanks between them, which are not part of the text (RFC 2047, section 6.2)."""

_SINGLE_BYTE = {f"iso-8859-{part}" for part in (*range(1, 12), *range(13, 17))} | {
    f"windows-{page}" for page in range(1250, 1259)
}
_CHARSETS = _SINGLE_BYTE | {
    *("utf-8", "utf8", "us-ascii", "koi8-r", "koi8-u", "gb2312", "gbk", "gb18030", "big5"),
    *("shift_jis", "euc-jp", "iso-2022-jp", "euc-kr"),
}
"""What names are written in. Others are left alone: Python knows some that cost more than they are long."""


def parameters(disposition: bytes | None) -> Parameters:
    """The parameters of a Content-Disposition, which may lack its disposition type; of two with one name the last."""
    segments = islice(_SEGMENT.finditer((disposition or b"")[:_BYTES]), _SEGMENTS)
    return {found[1].lower(): found[2] for found in segments if found[1]}


def part_name(given: Parameters) -> str | None:
    """What a part of a form is called."""
    value = given.get(b"name")
    return None if value is None else _text(_unquoted(value))


def filename(given: Parameters, *, in_form: bool) -> str | None:
    """The file name as its sender means it, a path or not; None where there is none. `filename*` wins.

    `in_form`: browsers write a quote, or the end of a line, in the name of a form's file with percent signs.
    """
    extended = given.get(b"filename*")
    return _extended(extended) or _continued(given) or _plain(given.get(b"filename", extended), in_form=in_form)


def _plain(value: bytes | None, *, in_form: bool) -> str | None:
    if value is None:
        return None
    text = _text(_unquoted(value))
    if in_form:
        for escape, character in _IN_FORMS:
            text = text.replace(escape, character)
    return _WORDS.sub(_decoded, text) if "=?" in text else text


def _unquoted(value: bytes) -> bytes:
    value = value.strip()
    if value[:1] == b'"' == value[-1:] and len(value) > 1:
        value = value[1:-1].replace(rb"\"", b'"')  # other backslashes are those of a path on Windows
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _extended(value: bytes | None) -> str | None:
    """The value of `filename*` (RFC 8187), or None for what is none."""
    found = _EXTENDED.fullmatch((value or b"").decode("latin-1").strip().strip('"'))
    return None if found is None else _read(percent.decoded(found[2].encode("latin-1")), found[1])


def _continued(given: Parameters) -> str | None:
    """The value of `filename*0`, `filename*1` and so on, of which those with another `*` behind are encoded (RFC 2231,
    section 3 and 4); None where there is none."""
    charset, whole = "utf-8", b""
    for number in count():
        name = b"filename*%d" % number
        if (encoded := given.get(name + b"*")) is not None:
            text = _unquoted(encoded).decode("latin-1")
            if number == 0 and (found := _EXTENDED.fullmatch(text)):
                charset, text = found[1], found[2]
            whole += percent.decoded(text.encode("latin-1"))
        elif (plain := given.get(name)) is not None:
            whole += _unquoted(plain)
        else:
            break
    return _read(whole, charset)


def _decoded(words: re.Match[str]) -> str:
    """Encoded words that follow each other. A character may begin in one and end in the next: clients cut where they
    please."""
    whole, before = b"", ""
    text: list[str] = []
    for charset, encoding, content in _WORD.findall(words[0]):
        if charset.lower() != before and whole:
            text.append(_read(whole, before) or "")
            whole = b""
        octets = _base64(content) if encoding in "Bb" else _quoted(content)
        if octets is None or charset.lower() not in _CHARSETS:
            return words[0]
        whole, before = whole + octets, charset.lower()
    return "".join(text) + (_read(whole, before) or "")


def _base64(content: str) -> bytes | None:
    bare = content.rstrip("=")
    try:
        return b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError:
        return None


def _quoted(content: str) -> bytes:
    return a2b_qp(content.encode(), header=True)


def _read(octets: bytes, charset: str) -> str | None:
    return octets.decode(charset, "replace") if charset.lower() in _CHARSETS else None
