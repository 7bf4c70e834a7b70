"""Event streams, cut into pieces at every place: what a bot says must not depend on how the network delivers it."""

from __future__ import annotations

import itertools

import pytest

from landline.bots.events import Event, EventStream
from landline.errors import TooLarge

SPOKEN = (
    b'event: activity\r\ndata: {"text":"gr\xc3\xbc\xc3\x9fe"}\r\n\r\n'
    b": a comment\r\n"
    b'event:invokeResponse\r\ndata:{"status":200}\r\n\r\n'
)
EVENTS = [Event("activity", '{"text":"grüße"}'.encode()), Event("invokeResponse", b'{"status":200}')]


def events(*parts: bytes, most_bytes: int = 1000) -> list[Event]:
    stream = EventStream(most_bytes)
    return [event for part in parts for event in stream.feed(part)] + stream.finish()


@pytest.mark.bot_item(31)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["CRLF", "LF"])
def test_events_are_whole_wherever_the_stream_is_cut(line_end: bytes) -> None:
    spoken = SPOKEN.replace(b"\r\n", line_end)
    assert events(spoken) == EVENTS
    assert events(*(bytes([byte]) for byte in spoken)) == EVENTS
    for first, second in itertools.combinations(range(len(spoken)), 2):
        assert events(spoken[:first], spoken[first:second], spoken[second:]) == EVENTS


@pytest.mark.bot_item(31)
def test_an_event_comes_out_with_its_last_byte() -> None:
    stream = EventStream(1000)
    assert stream.feed(b"event: activity\r\ndata: 1\r\n\r") == []
    assert stream.feed(b"\n") == [Event("activity", b"1")]


@pytest.mark.parametrize(
    ("spoken", "expected"),
    [
        (b"", []),
        (b"\n\n\n", []),
        (b"event: activity\n\n", []),
        (b"data: 1\n\n", [Event("message", b"1")]),
        (b"data: 1\ndata: 2\n\n", [Event("message", b"1\n2")]),
        (b"data:  1\n\n", [Event("message", b" 1")]),
        (b"data\n\n", [Event("message", b"")]),
        (b"id: 7\nretry: 1\nwhatever: x\ndata: 1\n\n", [Event("message", b"1")]),
        (b"\xef\xbb\xbfevent: activity\ndata: 1\n\n", [Event("activity", b"1")]),
        (b"event: activity\ndata: 1\n\ndata: 2\n\n", [Event("activity", b"1"), Event("message", b"2")]),
    ],
)
def test_events_are_read_as_the_html_standard_says(spoken: bytes, expected: list[Event]) -> None:
    assert events(spoken) == expected


@pytest.mark.parametrize("rest", [b"event: activity\ndata: 1", b"event: activity\ndata: 1\n"])
def test_the_last_event_counts_without_the_empty_line_behind_it(rest: bytes) -> None:
    assert events(rest) == [Event("activity", b"1")]


@pytest.mark.parametrize("endless", [b"x" * 100, b"data: xxxx\n" * 25, b"data\n" * 200])
def test_an_event_that_never_ends_is_given_up(endless: bytes) -> None:
    stream = EventStream(most_bytes=90)
    with pytest.raises(TooLarge):
        stream.feed(endless)


def test_a_line_that_comes_byte_by_byte_is_read_once_and_nothing_in_a_row_of_empty_lines() -> None:
    parts = [b"data: " + b"x" * 100, *[b"x"] * 1000, b"\n", *[b"\n", b": a\n"] * 1000, b"data: 2\n\n"]
    assert events(*parts, most_bytes=2000) == [Event("message", b"x" * 1100), Event("message", b"2")]
