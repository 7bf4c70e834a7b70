"""Origins of pages: one spelling of each, and what a list of them trusts."""

from __future__ import annotations

import pytest

from landline.core.origins import origin, trusts
from landline.errors import BadArgument


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://www.example.org", "https://www.example.org"),
        ("HTTPS://WWW.Example.ORG/", "https://www.example.org"),
        ("https://www.example.org:443", "https://www.example.org"),
        ("http://www.example.org:80/", "http://www.example.org"),
        ("http://www.example.org:443", "http://www.example.org:443"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("*", "*"),
    ],
)
def test_an_origin_has_one_spelling(text, normal):
    assert origin(text) == normal
    assert origin(normal) == normal


@pytest.mark.item(48)
@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "www.example.org", "//www.example.org", "https://", "https:///", "https://*.example.org"),
        *("https://a.example/path", "https://a.example?q", "https://a.example#f", "https://u:p@a.example"),
        *("https://a.example:0", "https://a.example:65536", "https://a.example:", "https://a.example:x"),
        *(
            "https://a.example ",
            " https://a.example",
            "https://a.example\n",
            "https://[::g]",
            "https://ü.example",
            "**",
        ),
    ],
)
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(BadArgument):
        origin(text)


@pytest.mark.parametrize(
    ("trusted", "given", "expected"),
    [
        (("https://a.b",), "https://a.b", True),
        (("https://a.b",), "HTTPS://A.B:443", True),
        (("https://a.b",), "http://a.b", False),
        (("https://a.b",), "https://a.b:444", False),
        (("https://a.b",), "https://x.a.b", False),
        (("https://a.b",), "null", False),
        (("https://a.b",), "", False),
        (("https://a.b",), "*", False),
        (("https://a.b", "*"), "null", True),
        ((), "https://a.b", False),
    ],
)
def test_an_origin_is_trusted_as_it_is_listed(trusted: tuple[str, ...], given: str, expected: bool) -> None:
    assert trusts(trusted, given) is expected
