"""What people type for the URL of a bot."""

from __future__ import annotations

import pytest

from landline.demo.endpoint import endpoint_of
from landline.errors import ConfigurationError


@pytest.mark.parametrize(
    ("typed", "endpoint", "added"),
    [
        ("http://localhost:3978/api/messages", "http://localhost:3978/api/messages", ""),
        ("http://localhost:3978", "http://localhost:3978/api/messages", "the path /api/messages"),
        ("http://localhost:3978/", "http://localhost:3978/", ""),
        ("http://localhost:3978?code=k", "http://localhost:3978/api/messages?code=k", "the path /api/messages"),
        ("localhost:3978", "http://localhost:3978/api/messages", "the path /api/messages and http://"),
        ("localhost", "http://localhost/api/messages", "the path /api/messages and http://"),
        ("localhost:3978/bot", "http://localhost:3978/bot", "http://"),
        ("3978", "http://localhost:3978/api/messages", "the path /api/messages and http://"),
        (":3978", "http://localhost:3978/api/messages", "the path /api/messages and http://"),
        (" 3978 ", "http://localhost:3978/api/messages", "the path /api/messages and http://"),
        ("127.0.0.1:3978", "http://127.0.0.1:3978/api/messages", "the path /api/messages and http://"),
        ("10.0.0.7", "http://10.0.0.7/api/messages", "the path /api/messages and http://"),
        ("[::1]:3978", "http://[::1]:3978/api/messages", "the path /api/messages and http://"),
        ("bot.example.org:8080/x", "http://bot.example.org:8080/x", "http://"),
        ("bot.example.org", "https://bot.example.org/api/messages", "the path /api/messages and https://"),
        ("HTTPS://bot.example.org/x?code=k", "https://bot.example.org/x?code=k", ""),
    ],
)
def test_what_is_meant_is_understood_and_what_was_added_is_said(typed: str, endpoint: str, added: str) -> None:
    understood = endpoint_of(typed)
    assert (understood.endpoint, understood.added) == (endpoint, added)


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "  ",
        "0",
        "99999",
        "localhost:99999",
        "localhost:abc",
        "http://",
        "http:///api/messages",
        "http://[::1",
        "http://a b/",
        "http://localhost:3978/a b",
        "http://localhost:3978/#x",
        "ftp://localhost:3978",
        "ws://localhost:3978",
        "file:///bot.py",
        "http://user:password@localhost:3978/",
        "user@localhost:3978",
        "http://" + "a" * 64 + ".example/",
        "http://exa\x00mple/",
    ],
)
def test_what_is_no_url_is_refused_with_a_sentence(typed: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^bot: .+") as refused:
        endpoint_of(typed)
    assert refused.value.exit_code == 2
    assert "password@" not in refused.value.message
