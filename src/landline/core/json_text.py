"""JSON that is kept as text: the members of an object and the items of an array, each as it was written (D-50).

Whatever a body is made of, no step here makes a Python call for each escape, string or bracket in it: a body of 256 KiB
has 131,000 of them, and it may come from anybody (spec 9, statement 212). A step goes over the whole text at
the speed of `bytes.replace`, of `bytes.translate`, of a search by a pattern that looks at every byte once, or of
arithmetic on one large number.
"""

from __future__ import annotations

import json
import re
import struct
from itertools import accumulate, count
from operator import add, sub
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
    try:
        members = _split(body)
    except msgspec.DecodeError:
        return _decode_beside_surrogates(body)
    except RecursionError:
        raise BadSyntax(_TOO_DEEP) from None
    if _may_be_deep(body):
        _check_depth(without_escapes(body))
    return members


def _split(text: bytes | Raw) -> dict[str, Raw]:
    _check_members(text)
    return _OBJECT.decode(text)


def _check_members(text: bytes | Raw) -> None:
    """Raises `BadArgument` for more than `MEMBERS`, before an object was made for each of them."""
    written = bytes(text)
    if _has_more(written, b":", MEMBERS) and len(_beginning(written.translate(_AS_ARRAY))) > 2 * MEMBERS:
        raise BadArgument(f"An object has more than {MEMBERS} members")


def _has_more(text: bytes, mark: bytes, most: int) -> bool:
    """Whether there are more of a byte than so many: where there are few, ten times as fast as to count them."""
    return len(text.split(mark, most + 1)) > most + 1


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
_BRACKET_DIGITS = bytes.maketrans(b"[{]}", b"1100")
_QUOTES = bytes.maketrans(b'01"', b"001")
_OUTSIDE = bytes.maketrans(b"01", b"\xff\x00")
_OCTET = 8


def _peak(octet: int) -> int:
    steps = (1 if octet >> bit & 1 else -1 for bit in reversed(range(_OCTET)))
    return max(accumulate(steps, initial=0))


_STEPS = bytes(2 * octet.bit_count() for octet in range(256))
_PEAKS = bytes(map(_peak, range(256)))
"""Eight brackets are the bits of a byte, 1 for one that opens: how far they lead, eight added so that it is no negative
number, and how far up on the way."""
_JOINED_BITS = (8, 16, 32, 64)
_LANE_BYTES = 16
"""A lane when all is put together: 128 brackets."""


def _may_be_deep(text: bytes) -> bool:
    return _has_more(text, b"[", DEPTH // 2) or _has_more(text, b"{", DEPTH // 2)


def _check_depth(bare: bytes) -> None:
    """Raises `BadSyntax` for JSON that is nested over `DEPTH` levels; `bare` is it `without_escapes`."""
    # Two quotes in a row end one string and begin another, or are an empty one. Without them everything else is inside
    # or outside of a string as before.
    digits = bare.translate(_BRACKET_DIGITS, _NOT_MARKS).replace(b'""', b"")
    if b'"' in digits:
        digits = _outside_strings(digits)
    # What fills the last lane leads down, where it can do no harm.
    digits += b"0" * (-len(digits) % (_OCTET * _LANE_BYTES))
    steps, peaks = _lanes(int(digits or b"0", 2).to_bytes(len(digits) // _OCTET, "big"))
    levels = map(sub, accumulate(steps, initial=0), count(0, _OCTET * _LANE_BYTES))
    if max(map(add, levels, peaks), default=0) > DEPTH:
        raise BadSyntax(_TOO_DEEP)


def _lanes(octets: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How far each 128 brackets lead, 128 added, and how far up on the way. All neighbours are put together at once, in
    numbers that have a lane for each: a step of Python for each octet would take three times as long."""
    size = len(octets)
    steps, peaks = (int.from_bytes(octets.translate(table), "little") for table in (_STEPS, _PEAKS))
    for bits in _JOINED_BITS:
        steps, peaks = _joined(steps, peaks, bits, size)
    # No lane is so full that its higher half is more than zeros.
    in_halves = f"<{2 * size // _LANE_BYTES}Q"
    return (
        struct.unpack(in_halves, steps.to_bytes(size, "little"))[::2],
        struct.unpack(in_halves, peaks.to_bytes(size, "little"))[::2],
    )


def _joined(steps: int, peaks: int, bits: int, size: int) -> tuple[int, int]:
    """Two lanes of so many bits become one. `steps` have as much added to them as there are brackets in a lane."""
    lanes = size * 8 // (2 * bits)
    one = int.from_bytes((b"\x01" + bytes(bits // 4 - 1)) * lanes, "little")
    lower, top, added = (one << bits) - one, one << 2 * bits - 1, one * bits
    second_steps, second_peaks = steps >> bits & lower, peaks >> bits & lower
    steps, peaks = steps & lower, peaks & lower
    # The peak is that of the first, or where the first leads and the peak of the second.
    first, second = peaks + added, steps + second_peaks
    above = (second | top) - first
    is_above = above & top
    highest = first + (above & is_above - (is_above >> 2 * bits - 1))
    return steps + second_steps, highest - added


def without_escapes(text: bytes) -> bytes:
    """Without escaped backslashes and quotes: what quotes are left are those around strings."""
    return text.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in text else text


def _outside_strings(digits: bytes) -> bytes:
    """The digits with an even number of quotes in front of them."""
    size = len(digits)
    inside = _inside_strings(int(digits.translate(_QUOTES), 2), 1, size)
    outside = f"{inside:0{size}b}".encode().translate(_OUTSIDE)
    kept = int.from_bytes(digits, "big") & int.from_bytes(outside, "big")
    return kept.to_bytes(size, "big").translate(None, b'\x00"')


def _inside_strings(quotes: int, bits: int, size: int) -> int:
    """A bit for each mark with an odd number of quotes up to it: of a string without the quote that ends it. The first
    mark is highest, and there are so many bits from mark to mark."""
    inside, step = quotes, bits
    while step < bits * size:
        inside ^= inside >> step
        step *= 2
    return inside


# Lone surrogates.

_HIDDEN, _HIDDEN_UPPER = b"\xfe", b"\xfc"
"""Neither is in UTF-8, nor is it `links.OUR_BASE`."""
_HIDDEN_BACKSLASHES = b"\xfd\xfd"
_SURROGATE = re.compile(rb"\\u[Dd][89A-Fa-f]")
_END_OF_NAME = re.compile(rb'[\xfc\xfe][^"\xfc\xfe]*+"[ \t\r\n]*+:')
"""The last escape that is hidden in a name, and what comes behind it."""
_NOT_OF_NAMES = bytes(set(range(256)) - set(b'":\xfc\xfe'))
_NAME_DIGITS = bytes.maketrans(b'":\xfe\xfc', b"1233")
"""Two bits for a quote, a colon, and what is hidden."""
_NAMES = 1_000
"""Names with such escapes that are read one by one."""
_NAME_LIST = msgspec.json.Decoder(list[str])
_LONE = re.compile("[\ud800-\udfff]")
_LONE_SHOWN = 1_000
"""Lone surrogates that are shown as U+FFFD each; those behind are question marks."""
_LONE_ESCAPE = re.compile(
    rb"[\xfc\xfe]\\u0[89ABab][0-9A-Fa-f]{2}(?![\xfc\xfe]\\u0[C-Fc-f])"
    rb"|(?<![\xfc\xfe]\\u0[89ABab][0-9A-Fa-f]{2})[\xfc\xfe]\\u0[C-Fc-f][0-9A-Fa-f]{2}"
)


def _hidden(text: bytes) -> bytes:
    """JSON with `\\u0…` and a mark in front in place of each `\\ud…`: no decoder minds what surrogates there are, and
    all see whether hexadecimal digits follow."""
    # With the escaped backslashes out of the way, a backslash begins an escape wherever it stands.
    apart = text.replace(rb"\\", _HIDDEN_BACKSLASHES)
    hidden = apart.replace(rb"\ud", _HIDDEN + rb"\u0").replace(rb"\uD", _HIDDEN_UPPER + rb"\u0")
    return hidden if apart is text else hidden.replace(_HIDDEN_BACKSLASHES, rb"\\")


def _shown(hidden: bytes | Raw) -> bytes:
    """The same as it was written."""
    return bytes(hidden).replace(_HIDDEN + rb"\u0", rb"\ud").replace(_HIDDEN_UPPER + rb"\u0", rb"\uD")


def _put_back(value: Raw) -> Raw:
    return Raw(_shown(value))


def _decode_beside_surrogates(text: bytes) -> dict[str, Raw]:
    """The same for what msgspec refuses."""
    if _SURROGATE.search(text) is None:
        raise _no_object(text)
    hidden = _hidden(text)
    bare = without_escapes(hidden)
    try:
        members = _split(hidden)
    except msgspec.DecodeError:  # of a name, or of what is no object
        refusal = _no_object(hidden)
        number = _hidden_names(bare) if isinstance(refusal, BadArgument) else 0
        if not number:
            raise refusal from None
        members = _split_apart(_with_names(hidden, number))
    except RecursionError:
        raise BadSyntax(_TOO_DEEP) from None
    else:
        if number := _hidden_names(bare):
            _with_names(hidden, number)
    if _may_be_deep(bare):
        _check_depth(bare)
    return {name: _put_back(value) for name, value in members.items()}


def _split_apart(readable: bytes) -> dict[str, Raw]:
    try:
        return _split(readable)
    except msgspec.DecodeError:
        raise BadArgument("A JSON object is expected") from None


def _no_object(text: bytes) -> RequestError:
    try:
        _VALUE.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return BadSyntax()
    return BadArgument("A JSON object is expected")


def _with_names(hidden: bytes, number: int) -> bytes:
    """The same with nothing hidden in names, of which it has that number. Raises `BadArgument` for a name with a lone
    surrogate, `BadSyntax` for too many."""
    if number > _NAMES:
        raise BadSyntax("Too many names with escapes beside lone surrogates")
    same_length = hidden.replace(rb"\\", b"__").replace(rb"\"", b"__")
    parts: list[bytes] = []
    done = 0
    for found in _END_OF_NAME.finditer(same_length):
        start, end = same_length.rfind(b'"', 0, found.start()), same_length.index(b'"', found.start()) + 1
        parts += hidden[done:start], _shown(hidden[start:end])
        done = end
    try:
        _NAME_LIST.decode(b"[" + b",".join(parts[1::2]) + b"]")
    except msgspec.DecodeError:
        raise BadArgument("A property name is not well-formed") from None
    return b"".join((*parts, hidden[done:]))


def _hidden_names(bare: bytes) -> int:
    """How many names something is hidden in: how many strings with a colon right behind them."""
    digits = bare.translate(_NAME_DIGITS, _NOT_OF_NAMES).replace(b"3" * 8, b"3")
    marks, every = int(digits or b"0", 4), int.from_bytes(b"\x55" * (len(digits) // 4 + 1), "big")
    hidden = marks & marks >> 1 & every
    quotes, colons = marks & every & ~hidden, marks >> 1 & every & ~hidden
    inside = _inside_strings(quotes, 2, len(digits))
    # Adding to the last bit of a string makes all of them carry, into the place in front of its first quote.
    whole = inside * 3
    ends = quotes & ~inside & colons << 2
    of_names = inside & ~(whole + (ends << 2))
    return ((whole + (of_names & hidden)) & ~whole & every).bit_count()


def _members_beside_surrogates(text: bytes) -> dict[str, Raw]:
    """The same for an object inside a decoded one, whose names are well-formed."""
    hidden = _hidden(text)
    try:
        members = _split(hidden)
    except msgspec.DecodeError:
        members = _split(_with_names(hidden, _hidden_names(without_escapes(hidden))))
    return {name: _put_back(value) for name, value in members.items()}


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
        text: str = _LONE.sub("\ufffd", json.loads(bytes(value)), _LONE_SHOWN)
        return text.encode(errors="replace").decode()


def members_of(value: Raw, name: str) -> dict[str, Raw]:
    """The members of an object inside a decoded one; none for null. Raises `BadArgument` for anything else."""
    if value == _NULL:
        return {}
    if memoryview(value)[0] != ord("{"):
        raise BadArgument(f"'{name}' must be an object")
    try:
        return _split(value)
    except msgspec.DecodeError:
        return _members_beside_surrogates(bytes(value))


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


def apart(value: Raw) -> Raw:
    """A value for whoever looks only at what kinds of values are where in it: whatever surrogates there are, every
    decoder takes it. Its strings are not those that were written."""
    text = bytes(value)
    return value if _SURROGATE.search(text) is None else Raw(_hidden(text))


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
    return _LIST.decode(text) if not _has_more(text, b",", ITEMS - 1) else _beginning(text)[: ITEMS + 1]


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
    return Raw(_shown(_LONE_ESCAPE.sub(rb"\\ufffd", _hidden(text))))
