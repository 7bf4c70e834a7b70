"""JSON that is kept as text: what is JSON, how deep, and that every value survives to the byte."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from landline.core.json_text import (
    DEPTH,
    ITEMS,
    MEMBERS,
    decode,
    first_items_of,
    items_of,
    lenient,
    lenient_string,
    members_of,
)
from landline.errors import BadArgument, BadSyntax
from support.json_text import OBJECTS, STRINGS, VALUES, as_object


@given(OBJECTS)
def test_every_value_of_an_object_is_kept_byte_for_byte(members):
    assert {name: bytes(value) for name, value in decode(as_object(members)).items()} == members


@given(st.binary(max_size=60) | VALUES)
def test_whatever_is_not_an_object_is_refused_by_its_own_error(body):
    try:
        value = json.loads(body.decode(), parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        with pytest.raises(BadSyntax):
            decode(body)
    else:
        if isinstance(value, dict):
            assert set(decode(body)) == set(value)
        else:
            with pytest.raises(BadArgument):
                decode(body)


def test_every_escape_may_stand_beside_lone_surrogates():
    every = [code for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    text = b'"' + b"".join(rb"\u%04x" % code for code in [*every, *range(0xD800, 0xDA00)]) + b'"'
    assert bytes(decode(b'{"a":' + text + b"}")["a"]) == text


@pytest.mark.parametrize(
    "body",
    [
        rb'{"\ud83d":1}',
        rb'{"a":{"\udc00":1}}',
        rb'{"a":[{"x\ud83d" : 1}]}',
    ],
)
def test_property_names_are_well_formed(body):
    with pytest.raises(BadArgument):
        decode(body)


@pytest.mark.parametrize("body", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\xbd"}', "{}".encode("utf-16"), b""])
def test_bytes_that_are_not_utf8_json_are_bad_syntax(body):
    with pytest.raises(BadSyntax):
        decode(body)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_two_hundred_levels_are_carried_and_no_more(opening, closing):
    body = b'{"a":' + opening * 199 + b"1" + closing * 199 + b"}"
    assert len(decode(body)["a"].copy()) == len(body) - len(b'{"a":}')
    with pytest.raises(BadSyntax):
        decode(b'{"a":' + opening * 200 + b"1" + closing * 200 + b"}")
    with pytest.raises(BadSyntax):
        decode(b'{"a":' + opening * 100_000 + b"1" + closing * 100_000 + b"}")


def test_brackets_in_strings_and_siblings_are_not_levels():
    decode(b'{"a":"' + b'\\"[{' * 500 + b'","b":[' + b"[]," * 500 + b"{}]}")


@pytest.mark.parametrize("body", [b"{" * 300 + b'"' + rb"\"" * 100_000, b'{"\\ud83d' + rb"\"" * 100_000])
def test_a_string_without_end_is_searched_once(body):
    # Starting again at each escaped quote would take minutes.
    with pytest.raises(BadSyntax):
        decode(body)


@given(st.lists(STRINGS.map(lambda text: text[1:-1]), max_size=4), st.sampled_from(["1", '"x"', "[]", "{}"]))
@example([rb"\ud55c"], '"\\ud83d"')
@example([rb"\ud83d\ude00", rb"\\ud83d"], '{"\\ud83d\\ude00" : "\\udc00"}')
def test_names_are_read_or_refused_like_pythons_beside_a_lone_surrogate(names, value):
    body = b'{"a":"\\ud800"' + b"".join(b',"%b" \n: %b' % (name, value.encode()) for name in names) + b"}"
    expected = json.loads(body)
    if any("\ud800" <= character <= "\udfff" for name in expected for character in name):
        with pytest.raises(BadArgument):
            decode(body)
    else:
        assert set(decode(body)) == set(expected)


def test_what_looks_like_a_name_in_a_string_is_none():
    for text in (rb"\ud83d\":1", rb":\ud83d", rb"\ud83d,\":\"", rb"\ud83d\\"):
        body = b'{":":["' + text + b'"],"b":":","c":"' + text + b'"}'
        assert bytes(decode(body)["c"]) == b'"' + text + b'"'


@given(STRINGS)
def test_a_string_that_is_only_shown_has_a_replacement_for_each_lone_surrogate(text):
    expected = re.sub("[\ud800-\udfff]", "\ufffd", json.loads(text))
    assert lenient_string(Raw(text)) == expected
    assert lenient(msgspec.json.Decoder(str), Raw(text)) == expected


_SPACES = st.sampled_from(["", " ", "\n\t", "\r\n "])
_TEXTS = st.lists(
    st.sampled_from(
        [r"\ud800", r"\uDFFF", r"\ud83d\ude00", r"\ud55c", r"\\", r"\"", r"\n", r"\u0061", r"\\ud800", *"adDué:,[} "]
    ),
    max_size=5,
).map(lambda pieces: f'"{"".join(pieces)}"')
_TREES = st.recursive(
    st.one_of(_TEXTS, st.sampled_from(["1", "-0.5e3", "null", "true", "[]", "{}"])),
    lambda inner: st.one_of(
        st.tuples(st.just("["), st.lists(inner, max_size=3)),
        st.tuples(st.just("{"), st.lists(st.tuples(st.sampled_from(['"a"', '"\\ud83d\\ude00:"']), inner), max_size=3)),
    ),
    max_leaves=6,
)


def _spelled(tree: object, spaces: list[str]) -> str:
    """JSON of a tree: a text, or a bracket and what is in it; the next of the spaces wherever one may be."""
    if isinstance(tree, str):
        return tree
    spaces.append(space := spaces.pop(0))
    if tree[0] == "[":
        return f"[{space}" + f"{space},{space}".join(_spelled(each, spaces) for each in tree[1]) + f"{space}]"
    members = (f"{name}{space}:{space}{_spelled(each, spaces)}" for name, each in tree[1])
    return f"{{{space}" + f"{space},{space}".join(members) + f"{space}}}"


_SCAN = json.JSONDecoder().scan_once


def _past(text: str, place: int, blanks: str = " \t\r\n") -> int:
    while text[place] in blanks:
        place += 1
    return place


def _read_one_by_one(text: str) -> list[str]:
    """What stands at the top level of an object or an array, names as well, as it was written."""
    pieces, place = [], _past(text, _past(text, 0) + 1)
    while text[place] not in "]}":
        _, end = _SCAN(text, place)
        pieces.append(text[place:end])
        place = _past(text, end, " \t\r\n,:")
    return pieces


def _all_names(value: object) -> list[str]:
    if isinstance(value, list):
        return [name for each in value for name in _all_names(each[1] if isinstance(each, tuple) else each)] + [
            each[0] for each in value if isinstance(each, tuple)
        ]
    return []


@given(st.lists(st.tuples(_TEXTS, _TREES), max_size=5), st.lists(_SPACES, min_size=1, max_size=4), st.booleans())
def test_a_body_is_split_as_if_it_was_read_one_value_after_the_other(members, spaces, beside):
    if beside:
        members = [*members, ('"a"', '"\\ud800"')]
    text = _spelled(("{", members), [*spaces])
    names = _all_names(json.loads(text, object_pairs_hook=list))
    if any("\ud800" <= character <= "\udfff" for name in names for character in name):
        with pytest.raises(BadArgument):
            decode(text.encode())
        return
    pieces = _read_one_by_one(text)
    expected = {json.loads(name): value for name, value in zip(pieces[::2], pieces[1::2], strict=True)}
    given_members = {name: bytes(value).decode() for name, value in decode(text.encode()).items()}
    assert given_members == expected
    assert {name: bytes(value).decode() for name, value in members_of(Raw(text.encode()), "x").items()} == expected
    array = _spelled(("[", [tree for _, tree in members]), [*spaces])
    assert [bytes(item).decode() for item in items_of(Raw(array.encode()), "x")] == _read_one_by_one(array)


@given(st.lists(VALUES, max_size=4))
def test_items_are_kept_byte_for_byte_or_made_readable(items):
    array = Raw(b"[" + b" , ".join(items) + b"]")
    assert list(map(bytes, items_of(array, "x"))) == items
    assert list(map(bytes, first_items_of(array, 9))) == items
    for item in items_of(array, "x"):
        bytes(item).decode()


def test_no_more_items_and_members_are_read_than_it_is_said():
    many = Raw(b"[" + b'"\\ud800",' * ITEMS + b"1]")
    assert len(first_items_of(many, 7)) == 7
    for read in (items_of, items_of):
        assert len(read(Raw(b"[" + b"1," * (ITEMS - 1) + b"1]"), "x")) == ITEMS
        with pytest.raises(BadArgument):
            read(many, "x")
    members = [b'"%d":1' % number for number in range(MEMBERS + 1)]
    assert len(decode(b"{" + b",".join(members[1:]) + b"}")) == MEMBERS
    with pytest.raises(BadArgument):
        decode(b"{" + b",".join(members) + b"}")


@given(st.integers(DEPTH - 3, DEPTH + 3), st.integers(0, 9), st.sampled_from([b"", b'"]{",', rb'"\"\\",', b"[[]],"]))
def test_levels_are_counted_wherever_they_are(depth, place, between):
    inner = between + b"[" * (depth - 2) + b"1" + b"]" * (depth - 2)
    body = b'{"a":[' + b"{}," * place + inner + b"]}"
    if depth > DEPTH:
        with pytest.raises(BadSyntax):
            decode(body)
    else:
        decode(body)
