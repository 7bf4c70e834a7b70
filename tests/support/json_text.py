"""JSON as text: values in all the spellings that peers may choose, so that tests can ask for survival to the byte."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hypothesis import strategies as st

_PIECES = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=4).map(lambda text: json.dumps(text)[1:-1]),
    st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='"\\'), max_size=4),
    st.sampled_from(
        [
            r"\ud83d",
            r"\uDC00",
            r"\ud83d\ude00",
            r"\uD83D\uDE00",
            r"\\",
            r"\/",
            r"\u0041",
            r"\ue000",
            r"\uFFFD",
            r"\\ud83d",
        ]
    ),
)
STRINGS = st.lists(_PIECES, max_size=4).map(lambda pieces: f'"{"".join(pieces)}"'.encode())
"""Strings, lone surrogate escapes among them."""

NAMES = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
_SPACES = st.sampled_from([b"", b" ", b"\n\t", b"\r\n"])
_SCALARS = st.one_of(
    STRINGS,
    st.sampled_from(
        [b"null", b"true", b"false", b"0", b"-0", b"1.50", b"1E+2", b"1e999", b"123456789012345678901234567890"]
    ),
)


def as_object(members: Mapping[str, bytes], space: bytes = b"") -> bytes:
    """The text of an object with these members; `space` goes wherever JSON allows it."""
    inner = (space + b",").join(
        space + json.dumps(name).encode() + space + b":" + space + text for name, text in members.items()
    )
    return b"{" + inner + space + b"}"


def _as_array(items: list[bytes], space: bytes) -> bytes:
    return b"[" + space + (space + b"," + space).join(items) + space + b"]"


VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.builds(_as_array, st.lists(inner, max_size=3), _SPACES),
        st.builds(as_object, st.dictionaries(NAMES, inner, max_size=3), _SPACES),
    ),
    max_leaves=8,
)
"""Any JSON value."""

OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
"""The members of an object: name and the text of the value."""
