"""Watermarks: positions that prove themselves, and the table of spec 8.2.4."""

from __future__ import annotations

import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core.watermark import (
    BEGINNING,
    Given,
    Number,
    Replay,
    Start,
    Watermark,
    parse,
    proven_by,
    start_of,
    tag,
    watermark,
)

CONVERSATION = "Kq3vW9sTz1"
POSITIONS = st.integers(1, (1 << 28) - 1)
TIMES = st.integers(0, 1 << 42)


def test_the_form_is_the_one_that_is_written_down():
    checksum = zlib.crc32(b"Kq3vW9sTz1|17|1767607200001")
    assert watermark(CONVERSATION, 17, 1767607200001) == f"17-{checksum:08x}"
    assert watermark(CONVERSATION, 0, 1767607200001) == BEGINNING == "0"


@given(POSITIONS, TIMES)
def test_a_watermark_comes_back_as_it_was_given_out(position, time_ms):
    text = watermark(CONVERSATION, position, time_ms)
    assert parse(text) == Watermark(position, tag(CONVERSATION, position, time_ms))
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text)


@pytest.mark.parametrize(
    ("text", "given"),
    [(None, Given.ABSENT), ("", Given.START), ("-", Given.START), ("0", Given.START)],
)
def test_words_for_the_beginning_and_for_nothing_are_told_apart(text, given):
    assert parse(text) is given


@pytest.mark.item(120)
@pytest.mark.parametrize(
    "text",
    [
        *("null", "undefined", "garbage", "+17", "1.5", "-1", " 0", "0-00000000", "017-9f3a06c2", "17-9F3A06C2"),
        *(
            "17-9f3a06c",
            "17-9f3a06c22",
            "17-9f3a06c2\n",
            "١٧-9f3a06c2",
            "12345678901-9f3a06c2",
            "1" * 11,
            "1" * 12,
            "١٧",
            "9" * 300,
            "\udc80",
        ),
    ],
)
def test_anything_else_is_not_recognised(text):
    assert parse(text) is Given.UNRECOGNISED


@given(st.text())
def test_no_text_breaks_the_reader(text):
    assert isinstance(parse(text), Given | Number | Watermark)


@pytest.mark.item(205)
@pytest.mark.parametrize(
    ("text", "given"),
    [("7", Number(7)), ("0000007", Number(7)), ("9" * 10, Number(10**10 - 1)), ("0000000", Number(0))],
)
def test_a_bare_number_is_that_of_an_entry(text, given):
    assert parse(text) == given


@pytest.mark.item(205)
@pytest.mark.parametrize("text", ["0", "00", "0000000000"])
def test_no_other_zero_skips_the_first_entry(text):
    assert parse(text) is Given.START


# A log of three entries, numbered 0 to 2, accepted at these times.
TIMES_MS = (1000, 1007, 1008)
HEAD = watermark(CONVERSATION, 3, TIMES_MS[2])


def start(
    text: str | None, *, oldest: int = 0, absent_means_head: bool = False, conversation: str = CONVERSATION
) -> Start:
    """What a reader of that log is told."""
    given = parse(text)
    proof = proven_by(given, oldest=oldest, head=len(TIMES_MS))
    behind_ms = None if proof is None or proof < oldest else TIMES_MS[proof]
    return start_of(
        given,
        conversation,
        head=len(TIMES_MS),
        last_ms=TIMES_MS[-1],
        oldest=oldest,
        behind_ms=behind_ms,
        absent_means_head=absent_means_head,
    )


@pytest.mark.item(117, 132)
@pytest.mark.parametrize("position", [1, 2, 3])
@pytest.mark.parametrize("absent_means_head", [True, False])
def test_a_watermark_continues_exactly_behind_itself(position, absent_means_head):
    text = watermark(CONVERSATION, position, TIMES_MS[position - 1])
    assert start(text, absent_means_head=absent_means_head) == Start(position, text, Replay.COMPLETE)


@pytest.mark.item(130)
def test_an_absent_watermark_means_the_head_to_a_reconnect_and_the_beginning_elsewhere():
    assert start(None, absent_means_head=True) == Start(3, HEAD, Replay.COMPLETE)
    assert start(None) == Start(0, BEGINNING, Replay.COMPLETE)


def test_the_head_of_an_empty_log_is_its_beginning():
    empty = start_of(Given.ABSENT, CONVERSATION, head=0, last_ms=None, oldest=0, behind_ms=None, absent_means_head=True)
    assert empty == Start(0, BEGINNING, Replay.COMPLETE)


@pytest.mark.item(116, 131)
@pytest.mark.parametrize("text", ["", "-", "0"])
@pytest.mark.parametrize("absent_means_head", [True, False])
def test_an_empty_watermark_means_the_beginning(text, absent_means_head):
    assert start(text, absent_means_head=absent_means_head) == Start(0, BEGINNING, Replay.COMPLETE)


@pytest.mark.item(120, 133)
@pytest.mark.parametrize("text", ["null", "undefined", "17", "x" * 300])
def test_garbage_starts_over_without_an_alarm(text):
    assert start(text) == Start(0, BEGINNING, Replay.FROM_START)


@pytest.mark.item(120, 189)
@pytest.mark.parametrize(
    "text",
    [
        watermark(CONVERSATION, 2, 1009),  # a history that went on differently
        watermark(CONVERSATION, 3, 1009),  # the same at the head
        watermark(CONVERSATION, 4, 1009),  # beyond the head
        watermark(CONVERSATION, 1 << 28, 1009),
        watermark("another-conversation", 2, TIMES_MS[1]),
    ],
)
@pytest.mark.parametrize("absent_means_head", [True, False])
def test_a_position_that_this_log_never_had_starts_over_and_says_so(text, absent_means_head):
    told = start(text, absent_means_head=absent_means_head)
    assert told == Start(0, BEGINNING, Replay.FROM_START, rolled_back=True)


@pytest.mark.parametrize("text", ["", "-", "0"])
def test_who_begins_where_retention_has_removed_something_is_told_of_the_loss(text):
    assert start(text, oldest=2) == Start(0, BEGINNING, Replay.TRUNCATED)
    assert start(None, oldest=2) == Start(0, BEGINNING, Replay.TRUNCATED)


@pytest.mark.item(205)
@pytest.mark.parametrize("number", ["0000000", "1", "0000002"])
@pytest.mark.parametrize("absent_means_head", [True, False])
def test_a_bare_number_continues_behind_its_entry_and_is_proven_from_then_on(number, absent_means_head):
    position = int(number) + 1
    proven = watermark(CONVERSATION, position, TIMES_MS[position - 1])
    assert start(number, absent_means_head=absent_means_head) == Start(position, proven, Replay.COMPLETE)


@pytest.mark.item(205)
@pytest.mark.parametrize("number", ["3", "0000003", "9999999999"])
def test_a_bare_number_beyond_the_last_entry_starts_over_without_an_alarm(number):
    assert start(number) == Start(0, BEGINNING, Replay.FROM_START)


@pytest.mark.item(205)
def test_a_bare_number_that_no_entry_has_starts_over():
    gap = start_of(Number(5), CONVERSATION, head=9, last_ms=1, oldest=0, behind_ms=None, absent_means_head=False)
    assert gap == Start(0, BEGINNING, Replay.FROM_START)


@pytest.mark.item(205)
def test_a_bare_number_where_retention_has_removed_something():
    assert start("0000000", oldest=2) == Start(0, BEGINNING, Replay.TRUNCATED)
    assert start("1", oldest=2) == Start(2, "1", Replay.COMPLETE)
    assert start("2", oldest=2) == Start(3, HEAD, Replay.COMPLETE)
    assert start("2", oldest=3) == Start(3, "2", Replay.COMPLETE)


@pytest.mark.item(126)
def test_a_position_before_what_is_retained_is_told_of_the_loss():
    text = watermark(CONVERSATION, 1, TIMES_MS[0])
    assert start(text, oldest=2) == Start(0, BEGINNING, Replay.TRUNCATED)


def test_the_head_is_proved_after_everything_was_removed():
    assert start(HEAD, oldest=3) == Start(3, HEAD, Replay.COMPLETE)


@pytest.mark.item(126)
def test_a_position_right_before_the_oldest_retained_entry_misses_nothing():
    text = watermark(CONVERSATION, 2, TIMES_MS[1])
    assert start(text, oldest=2) == Start(2, text, Replay.COMPLETE)
