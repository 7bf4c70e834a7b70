"""How stored bytes become what clients read: by concatenation, and still exactly what was stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core import log
from landline.core.activity import decode
from landline.core.log import LAST_SEQUENCE, ConversationId, Entry, Original, Page, Transient
from landline.core.watermark import watermark
from support.json_text import OBJECTS, as_object

CONVERSATION = ConversationId("Kq3vW9sTz1")
SEQUENCES = st.integers(0, LAST_SEQUENCE)
TIMES = st.integers(0, 4_102_444_800_000)


def test_ids_have_at_least_seven_digits():
    assert log.activity_id(CONVERSATION, 0) == "Kq3vW9sTz1|0000000"
    assert log.activity_id(CONVERSATION, 12_345_678) == "Kq3vW9sTz1|12345678"


@given(TIMES)
def test_a_timestamp_is_utc_to_the_millisecond(time_ms):
    text = log.timestamp(time_ms)
    assert len(text) == len("2026-01-05T10:00:00.001Z")
    parsed = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert (parsed - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 == pytest.approx(time_ms, abs=0.01)


@given(TIMES, st.integers(1, 10_000))
def test_timestamps_sort_as_text_like_the_times_they_show(time_ms, later):
    assert log.timestamp(time_ms) < log.timestamp(time_ms + later)


@given(SEQUENCES, TIMES, OBJECTS.filter(lambda members: not members.keys() & {"id", "timestamp"}))
def test_an_activity_is_the_stored_members_with_id_and_time(sequence, time_ms, members):
    members = {**members, "type": b'"message"'}
    shown = decode(log.activity(CONVERSATION, Entry(sequence, time_ms, as_object(members))))
    assert bytes(shown.pop("id")).decode() == f'"{log.activity_id(CONVERSATION, sequence)}"'
    assert bytes(shown.pop("timestamp")).decode() == f'"{log.timestamp(time_ms)}"'
    assert {name: bytes(value) for name, value in shown.items()} == members


@pytest.mark.item(124, 144)
@given(SEQUENCES, TIMES, st.none() | st.builds(Original, SEQUENCES, TIMES))
def test_a_frame_is_one_activity_and_the_watermark_behind_the_entry(sequence, time_ms, original):
    entry = Entry(sequence, time_ms, b'{"type":"message","text":"hi"}', original=original)
    frame = json.loads(log.frame(CONVERSATION, entry))
    assert frame == {
        "activities": [json.loads(log.activity(CONVERSATION, entry))],
        "watermark": watermark(CONVERSATION, sequence + 1, time_ms),
    }
    assert len(frame["activities"]) == 1


@pytest.mark.item(183)
def test_an_update_shows_the_id_and_time_of_its_original_at_a_later_watermark():
    update = Entry(9, 5000, b'{"type":"message"}', original=Original(3, 1000))
    frame = json.loads(log.frame(CONVERSATION, update))
    assert frame["activities"] == [
        {"id": "Kq3vW9sTz1|0000003", "timestamp": "1970-01-01T00:00:01.000Z", "type": "message"}
    ]
    assert frame["watermark"] == watermark(CONVERSATION, 10, 5000)


@pytest.mark.item(150)
def test_a_transient_repeats_the_watermark_before_it():
    passing = Transient(1, 3, b'{"id":"Kq3vW9sTz1|tv1","type":"typing"}')
    assert json.loads(log.transient_frame(passing, "3-00000000")) == {
        "activities": [{"id": "Kq3vW9sTz1|tv1", "type": "typing"}],
        "watermark": "3-00000000",
    }


@pytest.mark.item(144)
def test_a_page_is_its_entries_in_order_and_never_a_transient():
    entries = [Entry(number, 1000 + number, b'{"type":"message"}') for number in range(3)]
    page = Page([entries[0], Transient(1, 1, b'{"type":"typing"}'), *entries[1:]], 3, 1002, 1, False)
    read = json.loads(log.activity_set(CONVERSATION, page, "3-00000000"))
    assert read == {
        "activities": [json.loads(log.activity(CONVERSATION, entry)) for entry in entries],
        "watermark": "3-00000000",
    }


@pytest.mark.item(115)
def test_an_empty_page_has_a_watermark_too():
    assert json.loads(log.activity_set(CONVERSATION, Page([], 0, None, 0, False), "0")) == {
        "activities": [],
        "watermark": "0",
    }
