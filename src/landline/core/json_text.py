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

from landline.errors import BadArgument, BadSyntax

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
        raise BadArgument(_TOO_MANY_MEMBERS)


_TOO_MANY_MEMBERS = f"An object has more than {MEMBERS} members"


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
_SPLIT_EACH = 16
"""Where quotes stand at least so far from each other, an object for each piece between them costs less than bits."""


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
    if digits.count(b'"') * _SPLIT_EACH < size:
        return b"".join(digits.split(b'"')[::2])
    inside = _inside_strings(int(digits.translate(_QUOTES), 2), size)
    outside = f"{inside:0{size}b}".encode().translate(_OUTSIDE)
    kept = int.from_bytes(digits, "big") & int.from_bytes(outside, "big")
    return kept.to_bytes(size, "big").translate(None, b'\x00"')


def _inside_strings(quotes: int, size: int) -> int:
    """A bit for each mark with an odd number of quotes up to it: of a string without the quote that ends it. The first
    mark is highest, and there are so many marks."""
    inside, step = quotes, 1
    while step < size:
        inside ^= inside >> step
        step *= 2
    return inside


# Lone surrogates.

_MASKED = bytes.maketrans(b"dD", b"cC")
"""What no decoder refuses for its surrogates: `\\ud…` becomes `\\uc…`. Outside of strings neither letter is JSON, and
behind a backslash neither is an escape, so what was no JSON still is none. Everything stays in its place."""
_MASKED_AS_ARRAY = bytes.maketrans(b"{:}dD", b"[,]cC")
_OPENING = re.compile(rb"[ \t\r\n]*+[\[{]")
_BETWEEN = re.compile(rb"[ \t\r\n,:]*+")
_NAME = re.compile(rb'[ \t\r\n,]*+("[^"\\]*+(?:\\.[^"\\]*+){0,100}+")[ \t\r\n]*+:[ \t\r\n]*+')
_CLOSING = re.compile(rb"[ \t\r\n]*+}[ \t\r\n]*+\Z")
_CONTAINERS = (b"{", b"[")
_SURROGATE = re.compile(rb"\\u[Dd][89A-Fa-f]")
_BACKSLASHES, _STAND_IN = rb"\\", b"\xfd\xfd"
_MARK = b"\xfe"
"""Neither is in UTF-8, nor is it `links.OUR_BASE`."""
_NOT_OF_NAMES = bytes(set(range(256)) - set(b'":\xfe'))
_MARKED_NAME = re.compile(rb'\xfe:*+":')
_END_OF_NAME = re.compile(rb'\xfe[^"\xfe]*+"[ \t\r\n]*+:')
"""The last mark in a name, and what comes behind it."""
_NAMES = 1_000
"""Names with such escapes that are read one by one."""
_NAME_LIST = msgspec.json.Decoder(list[str])
_LONE = re.compile("[\ud800-\udfff]")
_LONE_SHOWN = 1_000
"""Lone surrogates that are shown as U+FFFD each; those behind are question marks."""
_LONE_ESCAPE = re.compile(
    rb"\\u[Dd](?:[89ABab]..(?!\\u[Dd][C-Fc-f])|[C-Fc-f]..(?<!\\u[Dd][89ABab]..\\u[Dd][C-Fc-f]..))"
)


def _decode_beside_surrogates(text: bytes) -> dict[str, Raw]:
    """The same for what msgspec refuses."""
    try:
        names, values = _written(text)
    except msgspec.DecodeError:
        raise BadSyntax from None
    except RecursionError:
        raise BadSyntax(_TOO_DEEP) from None
    try:
        read = _NAME_LIST.decode(b"[" + b",".join(names) + b"]")
    except msgspec.DecodeError:
        raise BadArgument(_NAME_REFUSED) from None
    if any(value[:1] in _CONTAINERS and b":" in value and _SURROGATE.search(value) for value in values):
        _check_names(text)
    if _may_be_deep(text):
        _check_depth(without_escapes(text))
    return dict(zip(read, map(Raw, values), strict=True))


_NAME_REFUSED = "A property name is not well-formed"


def _written(text: bytes) -> tuple[list[bytes], list[bytes]]:
    """The names and the values of an object, as they were written, however many have one name. Raises `BadArgument` for
    other JSON, `msgspec.DecodeError` for what is none."""
    masked = text.translate(_MASKED)
    opening = _OPENING.match(text)
    if opening is None or not opening[0].endswith(b"{"):
        _VALUE.decode(masked)
        raise BadArgument("A JSON object is expected")
    if not _has_more(text, b":", MEMBERS):
        found = _where_written(text, masked, _OBJECT.decode(masked), opening.end())
        if found is not None:
            return found
    else:
        _VALUE.decode(masked)
    items = _first(text.translate(_MASKED_AS_ARRAY), 2 * MEMBERS)
    if len(items) > 2 * MEMBERS:
        raise BadArgument(_TOO_MANY_MEMBERS)
    pieces = _pieces(text, items)
    return pieces[::2], pieces[1::2]


def _where_written(
    text: bytes, masked: bytes, members: dict[str, Raw], place: int
) -> tuple[list[bytes], list[bytes]] | None:
    """The same for the members of `masked`, whose first one begins at `place`; None where a name stands twice, or has
    more escapes than are read one by one."""
    names: list[bytes] = []
    values: list[bytes] = []
    for value in members.values():
        name = _NAME.match(text, place)
        if name is None or not masked.startswith(value, name.end()):
            return None
        place = name.end() + len(value)
        names.append(name[1])
        values.append(text[name.end() : place])
    return (names, values) if _CLOSING.match(text, place) else None


def _pieces(text: bytes, items: list[Raw]) -> list[bytes]:
    """What stands in `text` where an array of the same length has these, its first items."""
    opening = _OPENING.match(text)
    place = opening.end() if opening else 0
    pieces: list[bytes] = []
    for item in items:
        between = _BETWEEN.match(text, place)
        start = between.end() if between else place
        place = start + len(item)
        pieces.append(text[start:place])
    return pieces


def _check_names(text: bytes) -> None:
    """Raises `BadArgument` for a name with a lone surrogate at any level, `BadSyntax` for too many names to look at."""
    marks = _marked(without_escapes(text)).translate(None, _NOT_OF_NAMES).replace(_MARK * 8, _MARK)
    # Of a name that has a mark only colons are left behind the last one.
    if _MARK + b'":' not in marks and b':":' not in marks:
        return
    number = len(_MARKED_NAME.findall(marks))
    if number > _NAMES:
        raise BadSyntax("Too many names with escapes beside lone surrogates")
    if not number:
        return
    same_length = _marked(text.replace(rb"\\", b"__").replace(rb"\"", b"__"))
    names: list[bytes] = []
    for found in _END_OF_NAME.finditer(same_length):
        start, end = same_length.rfind(b'"', 0, found.start()), same_length.index(b'"', found.start())
        names.append(text[start : end + 1])
    try:
        _NAME_LIST.decode(b"[" + b",".join(names) + b"]")
    except msgspec.DecodeError:
        raise BadArgument(_NAME_REFUSED) from None


def _marked(text: bytes) -> bytes:
    """A mark in each `\\ud…`, where a backslash begins an escape wherever it stands."""
    return text.replace(rb"\ud", _MARK + b"__").replace(rb"\uD", _MARK + b"__")


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
        # All names in a decoded object are well-formed.
        names, values = _written(bytes(value))
        return dict(zip(_NAME_LIST.decode(b"[" + b",".join(names) + b"]"), map(Raw, values), strict=True))


def items_of(value: Raw, name: str) -> list[Raw]:
    """The items of an array as they were written, lone surrogates and all; none for null. Raises `BadArgument` for
    anything else, and for more than `ITEMS`."""
    check_array(value, name)
    if value == _NULL:
        return []
    text, items = _found_in(value)
    if len(items) > ITEMS:
        raise BadArgument(f"'{name}' has more than {ITEMS} items")
    return items if text is None else list(map(Raw, _pieces(text, items)))


def first_items_of(value: Raw, most: int) -> list[Raw]:
    """The first items of an array, `ITEMS` at most, as they were written; none for anything else."""
    if memoryview(value)[0] != ord("["):
        return []
    text, items = _found_in(value)
    items = items[: min(most, ITEMS)]
    return items if text is None else list(map(Raw, _pieces(text, items)))


def apart(value: Raw) -> Raw:
    """A value for whoever looks only at what kinds of values are where in it: whatever surrogates there are, every
    decoder takes it. Its strings are not those that were written."""
    text = bytes(value)
    if _SURROGATE.search(text) is None:
        return value
    # No name becomes one that somebody looks for: of those none has what these stand for.
    return Raw(text.replace(rb"\\", b"__").replace(rb"\ud", rb"\uc").replace(rb"\uD", rb"\uc"))


def check_array(value: Raw, name: str) -> None:
    """Raises `BadArgument` unless `value` is an array or null."""
    if memoryview(value)[0] != ord("[") and value != _NULL:
        raise BadArgument(f"'{name}' must be an array")


def _found_in(value: Raw) -> tuple[bytes | None, list[Raw]]:
    """The items, or the first `ITEMS` and one more; with the text of the array where it has lone surrogates, which
    theirs has not."""
    text = bytes(value)
    try:
        return None, _first(text, ITEMS)
    except msgspec.DecodeError:
        return text, _first(text.translate(_MASKED), ITEMS)


def _first(array: bytes, most: int) -> list[Raw]:
    """All items, or one more than `most`."""
    return _LIST.decode(array) if not _has_more(array, b",", most - 1) else _beginning(array)[: most + 1]


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
    # With the escaped backslashes out of the way, a backslash begins an escape wherever it stands.
    readable = _LONE_ESCAPE.sub(rb"\\ufffd", text.replace(_BACKSLASHES, _STAND_IN))
    return Raw(readable.replace(_STAND_IN, _BACKSLASHES))
