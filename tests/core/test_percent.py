"""Percent-encoding: the same as the standard library says, of those fields that somebody asks for."""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st

from landline.core.percent import FIELDS, STRAYS, decoded, fields, text_of

_PIECES = st.lists(
    st.sampled_from([b"%", b"%4", b"%41", b"%c3%A9", b"%zz", b"=", b"+", b" ", b"\r\n", b"\n", b"_", b"x"])
)


@given(_PIECES.map(b"".join) | st.binary())
def test_escapes_are_decoded_and_everything_else_stays(text):
    assert decoded(text) == unquote_to_bytes(text)
    assert decoded(quote_from_bytes(text).encode()) == text


def test_text_that_is_full_of_percent_signs_stays_as_it_is():
    assert decoded(b"%" * STRAYS + b"%41") == b"%" * STRAYS + b"A"
    assert decoded(b"%-" * (STRAYS + 1) + b"%41") == b"%-" * (STRAYS + 1) + b"%41"


def test_text_that_is_not_utf8_has_a_replacement():
    assert text_of(b"%ff%41") == "\ufffdA"


def test_fields_are_found_by_their_decoded_name():
    encoded = b"a=1&%61=2&b&c=x+y%2B=&a=&d=%"
    assert list(fields(encoded, [b"a", b"b", b"c", b"d"])) == [
        (b"a", b"1"),
        (b"a", b"2"),
        (b"b", b""),
        (b"c", b"x y+="),
        (b"a", b""),
        (b"d", b"%"),
    ]
    assert not list(fields(encoded, [b"e"]))


def test_fields_behind_the_first_ones_are_not_read():
    assert list(fields(b"x&" * (FIELDS - 1) + b"a=1", [b"a"])) == [(b"a", b"1")]
    assert not list(fields(b"x&" * FIELDS + b"a=1", [b"a"]))
