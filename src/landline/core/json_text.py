"""JSON that is kept as text: the members of an object and the items of an array, each as it was written (D-50).

Whatever a body is made of, no step here makes a Python call for each escape, string or bracket in it: a body of 256 KiB
has 131,000 of them, and it may come from anybody (spec 9, statement 212). A step goes over the whole text at
the speed of `bytes.replace`, of `bytes.translate`, of a search by a pattern that looks at every byte once, or of
arithmetic on one large number.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from operator import add
from typing import TypeVar

import msgspec
from msgspec import Raw

from landline.errors import BadArgument, BadSyntax, RequestError

DEPTH = 200
"""Levels of nesting that are carried (spec 3.1)."""
MEMBERS = 1_000
"""Members of an object that is read member by member: an activity, and `from` in it."""
ITEMS = 1_000
"""Items of an array that is read item by item."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_T = TypeVar("_T")
_NULL = Raw(b"null")
_ABSENT = Raw(b"")

_OBJECT = msgspec.json.Decoder(dict[str, Raw])
_LIST = msgspec.json.Decoder(list[Raw])
_VALUE = msgspec.json.Decoder(Raw)
_STRING: msgspec.json.Decoder[str | None] = msgspec.json.Decoder(str | None)


def is_none(body: bytes) -> bool:
    """Whether there is nothing in `body`: no byte but blanks, or the JSON value `null`, which typed clients write for
    "none" (spec 3.1)."""
    return body.removeprefix(_BYTE_ORDER_MARK).strip() in (b"", b"null")


def decode(body: bytes) -> dict[str, Raw]:
    """The members of a JSON object, each value as it was written; of members with one name the last one counts. A byte
    order mark in front is ignored (RFC 8259, section 8.1).

    A lone surrogate escape in a value is carried on (D-50). Raises `BadSyntax`: not JSON, not UTF-8, nested too deeply;
    `BadArgument`: not an object, too many members, or a name with a lone surrogate.
    """
    if not body.isascii():
        body = body.removeprefix(_BYTE_ORDER_MARK)
        try:
            body.decode()
        except UnicodeDecodeError:
            raise BadSyntax("The body is not UTF-8") from None
    members = _members(body)
    if body.count(b"[") + body.count(b"{") > DEPTH:
        _check_depth(body)
    return members


def _members(text: bytes | Raw) -> dict[str, Raw]:
    try:
        _check_members(text)
        return _OBJECT.decode(text)
    except msgspec.DecodeError:
        return _members_beside_surrogates(bytes(text))
    except RecursionError:
        raise BadSyntax(_TOO_DEEP) from None


def _check_members(text: bytes | Raw) -> None:
    """Raises `BadArgument` for more than `MEMBERS`, before an object was made for each of them."""
    written = bytes(text)
    if written.count(b":") > MEMBERS and len(_beginning(written.translate(_AS_ARRAY))) > 2 * MEMBERS:
        raise BadArgument(f"An object has more than {MEMBERS} members")


_AS_ARRAY = bytes.maketrans(b"{:}", b"[,]")
"""The same in strings, which is no matter: names and values become items, two for each member."""

_Beginning = msgspec.defstruct(
    "_Beginning", [(f"item{n}", Raw, _ABSENT) for n in range(2 * MEMBERS + 1)], array_like=True
)
_BEGINNING = msgspec.json.Decoder(_Beginning)
"""The first items of an array. What comes behind is passed over: an object for each of two million would be 200 MB."""


def _beginning(array: bytes) -> list[Raw]:
    return [item for item in msgspec.structs.astuple(_BEGINNING.decode(array)) if item is not _ABSENT]


# How deep it is.

_TOO_DEEP = f"The body is nested over {DEPTH} levels"
_NOT_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
_OUTSIDE = bytes.maketrans(b"01", b"\xff\x00")
_BRACKET_DIGITS = bytes.maketrans(b"[]{}", b"1010")
_OCTET = 8


def _peak(octet: int) -> int:
    steps = (1 if octet >> bit & 1 else -1 for bit in reversed(range(_OCTET)))
    return max(accumulate(steps, initial=0))


_STEPS = bytes((2 * octet.bit_count() - _OCTET) & 0xFF for octet in range(256))
_PEAKS = bytes(map(_peak, range(256)))
"""Eight brackets are the bits of a byte, 1 for one that opens: how far they lead, and how far up on the way."""


def _check_depth(text: bytes) -> None:
    """Raises `BadSyntax` for JSON that is nested over `DEPTH` levels."""
    marks = without_escapes(text).translate(None, _NOT_MARKS)
    # Two quotes in a row end one string and begin another, or are an empty one. Without them everything else is inside
    # or outside of a string as before.
    marks = marks.replace(b'""', b"")
    brackets = _outside_strings(marks) if b'"' in marks else marks
    digits = brackets.translate(_BRACKET_DIGITS) + b"0" * (-len(brackets) % _OCTET)
    octets = int(digits or b"0", 2).to_bytes(len(digits) // _OCTET, "big")
    levels = accumulate(memoryview(octets.translate(_STEPS)).cast("b"), initial=0)
    if max(map(add, levels, octets.translate(_PEAKS)), default=0) > DEPTH:
        raise BadSyntax(_TOO_DEEP)


def without_escapes(text: bytes) -> bytes:
    """Without escaped backslashes and quotes: what quotes are left are those around strings."""
    return text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text


def _outside_strings(marks: bytes) -> bytes:
    """The brackets of `marks` with an even number of quotes in front of them."""
    size = len(marks)
    inside = _inside_strings(_digits(marks, b'"'))
    outside = f"{inside:0{size}b}".encode()[::-1].translate(_OUTSIDE)
    kept = int.from_bytes(marks, "big") & int.from_bytes(outside, "big")
    return kept.to_bytes(size, "big").translate(None, b'\x00"')


def _digits(marks: bytes, mark: bytes) -> int:
    """A bit for each mark, the first one lowest: 1 where it is this one."""
    table = bytearray(b"0" * 256)
    table[ord(mark)] = ord("1")
    return int(marks.translate(table)[::-1], 2)


def _inside_strings(quotes: int) -> int:
    """A bit for each that has an odd number of quotes up to it: a string without the quote that ends it."""
    inside, step, size = quotes, 1, quotes.bit_length()
    while step < size:
        inside ^= inside << step
        step *= 2
    return inside & (1 << size) - 1


# Lone surrogates.

_HIDDEN = b"\xfe"
_HIDDEN_BACKSLASHES = b"\xfd\xfd"
"""Neither is in UTF-8, nor is it `links.OUR_BASE`."""
_SURROGATE = re.compile(rb"\\u[Dd][89A-Fa-f]")
_END_OF_NAME = re.compile(rb'\xfe[^"\xfe]*+"[ \t\r\n]*+:')
"""The last escape that is hidden in a name, and what comes behind it."""
_NOT_OF_NAMES = bytes(set(range(256)) - set(b'":\xfe'))
_NAMES = 1_000
"""Names with such escapes that are read one by one."""
_LONE = re.compile("[\ud800-\udfff]")
_LONE_ESCAPE = re.compile(
    rb"\xfeu[Dd][89ABab][0-9A-Fa-f]{2}(?!\xfeu[Dd][C-Fc-f])"
    rb"|(?<!\xfeu[Dd][89ABab][0-9A-Fa-f]{2})\xfeu[Dd][C-Fc-f][0-9A-Fa-f]{2}"
)


def _hidden(text: bytes) -> bytes:
    """JSON with another byte in place of the backslash of each `\\ud…`, so that no decoder minds what surrogates there
    are. Raises `BadSyntax` for what is not even JSON if surrogates are taken for other escapes."""
    # With the escaped backslashes out of the way, a backslash begins an escape wherever it stands.
    apart = text.replace(rb"\\", _HIDDEN_BACKSLASHES)
    try:
        _VALUE.decode(apart.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0"))
    except (msgspec.DecodeError, RecursionError):
        raise BadSyntax from None
    hidden = apart.replace(rb"\ud", _HIDDEN + b"ud").replace(rb"\uD", _HIDDEN + b"uD")
    return hidden.replace(_HIDDEN_BACKSLASHES, rb"\\")


def _put_back(value: Raw) -> Raw:
    return Raw(bytes(value).replace(_HIDDEN, b"\\"))


def _members_beside_surrogates(text: bytes) -> dict[str, Raw]:
    """The same for what msgspec refuses."""
    if _SURROGATE.search(text) is None:
        raise _no_object(text)
    hidden = _hidden(text)
    try:
        _check_members(hidden)
        members = _OBJECT.decode(_with_names(hidden))
    except msgspec.DecodeError:
        raise BadArgument("A JSON object is expected") from None
    return {name: _put_back(value) for name, value in members.items()}


def _no_object(text: bytes) -> RequestError:
    try:
        _VALUE.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return BadSyntax()
    return BadArgument("A JSON object is expected")


def _with_names(hidden: bytes) -> bytes:
    """The same with nothing hidden in names. Raises `BadArgument` for one with a lone surrogate."""
    same_length = hidden.replace(rb"\\", b"__").replace(rb"\"", b"__")
    if hidden.count(_HIDDEN) > _NAMES and not _is_in_name(same_length.translate(None, _NOT_OF_NAMES)):
        return hidden
    parts: list[bytes] = []
    done = 0
    for number, found in enumerate(_END_OF_NAME.finditer(same_length)):
        if number == _NAMES:
            raise BadSyntax("Too many names with escapes beside lone surrogates")
        start, end = same_length.rfind(b'"', 0, found.start()), same_length.index(b'"', found.start()) + 1
        name = hidden[start:end].replace(_HIDDEN, b"\\")
        try:
            _STRING.decode(name)
        except msgspec.DecodeError:
            raise BadArgument("A property name is not well-formed") from None
        parts += hidden[done:start], name
        done = end
    return b"".join((*parts, hidden[done:]))


def _is_in_name(marks: bytes) -> bool:
    """Whether something is hidden in a name: in a string with a colon right behind it."""
    inside = _inside_strings(_digits(marks, b'"'))
    # Adding makes the bits of a string carry into the place behind it, once, if one of them is added to.
    ends = (inside + (_digits(marks, _HIDDEN) & inside)) & ~inside
    return ends << 1 & _digits(marks, b":") != 0


# What is read of values.


def string(value: Raw, name: str) -> str | None:
    """The string, or None for null. Raises `BadArgument` for anything else, and for one with a lone surrogate."""
    try:
        return _STRING.decode(value)
    except msgspec.DecodeError:
        raise BadArgument(f"'{name}' must be a well-formed string") from None


def lenient_string(value: Raw) -> str | None:
    """The string with U+FFFD for each lone surrogate, or None for anything else: for what is only shown."""
    try:
        return _STRING.decode(value)
    except msgspec.ValidationError:
        return None
    except msgspec.DecodeError:
        return _LONE.sub("\ufffd", json.loads(bytes(value)))


def members_of(value: Raw, name: str) -> dict[str, Raw]:
    """The members of an object inside a decoded one; none for null. Raises `BadArgument` for anything else."""
    if value == _NULL:
        return {}
    if memoryview(value)[0] != ord("{"):
        raise BadArgument(f"'{name}' must be an object")
    return _members(value)


def items_of(value: Raw, name: str) -> list[Raw]:
    """The items of an array, with U+FFFD for each lone surrogate; none for null. Raises `BadArgument` for anything
    else, and for more than `ITEMS`."""
    return [_readable(item) for item in exact_items_of(value, name)]


def exact_items_of(value: Raw, name: str) -> list[Raw]:
    """The same, where the items go on as they were written, lone surrogates and all."""
    check_array(value, name)
    items = [] if value == _NULL else _items(value)
    if len(items) > ITEMS:
        raise BadArgument(f"'{name}' has more than {ITEMS} items")
    return items


def first_items_of(value: Raw, most: int) -> list[Raw]:
    """The first items of an array, `ITEMS` at most, as they were written; none for anything else."""
    return _items(value)[: min(most, ITEMS)] if memoryview(value)[0] == ord("[") else []


def check_array(value: Raw, name: str) -> None:
    """Raises `BadArgument` unless `value` is an array or null."""
    if memoryview(value)[0] != ord("[") and value != _NULL:
        raise BadArgument(f"'{name}' must be an array")


def _items(value: Raw) -> list[Raw]:
    """The items, or the first `ITEMS` and one more."""
    try:
        return _list(bytes(value))
    except msgspec.DecodeError:
        return [_put_back(item) for item in _list(_hidden(bytes(value)))]


def _list(text: bytes) -> list[Raw]:
    return _LIST.decode(text) if text.count(b",") < ITEMS else _beginning(text)[: ITEMS + 1]


def lenient(decoder: msgspec.json.Decoder[_T], value: Raw) -> _T:
    """What `decoder` makes of a value with U+FFFD for each lone surrogate: for what is only looked at."""
    try:
        return decoder.decode(value)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return decoder.decode(_readable(value))


def _readable(value: Raw) -> Raw:
    text = bytes(value)
    if _SURROGATE.search(text) is None:
        return value
    return Raw(_LONE_ESCAPE.sub(rb"\\ufffd", _hidden(text)).replace(_HIDDEN, b"\\"))
