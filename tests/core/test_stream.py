from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

import pytest

from landline.core.log import ConversationId, Entry, Page, Transient
from landline.core.stream import (
    COLLISION,
    DROP,
    GOING_AWAY,
    LISTEN,
    SLOW_CONSUMER,
    Decision,
    KeepAlive,
    Read,
    Send,
    Stream,
    Timing,
    Watch,
)
from landline.core.watermark import watermark

C = ConversationId("C1")
TIMING = Timing(keepalive_s=20, dead_peer_s=60, stall_s=30)


def entry(sequence: int) -> Entry:
    return Entry(sequence, 1000 + sequence, b'{"type":"message","text":"%d"}' % sequence)


def typing(counter: int, behind: int) -> Transient:
    return Transient(counter, behind, b'{"type":"typing","id":"C1|t%d"}' % counter)


def page(records: Iterable[Entry | Transient], position: int, *, transient: int = 0, more: bool = False) -> Page:
    return Page(list(records), position, 1000 + position - 1, transient, more)


EMPTY = Page([], 0, None, 0, False)


def said(decision: Decision | None) -> list[tuple[list[str], str]]:
    """What the frames of a `Send` say: per frame the texts or ids, and the watermark."""
    assert isinstance(decision, Send)
    sets = [json.loads(frame) for frame in decision.frames]
    return [([a.get("text", a["id"]) for a in s["activities"]], s["watermark"]) for s in sets]


@pytest.fixture
def stream() -> Stream:
    """A stream at position 3 that is open and takes its first look."""
    stream = Stream(C, 3, watermark(C, 3, 1002), TIMING, 0.0)
    stream.opened()
    assert stream.listening(7) == Read(3, 7)
    return stream


@pytest.fixture
def idle(stream: Stream) -> Stream:
    """The same, with nothing left to read."""
    assert stream.page_read(Page([], 3, None, 7, False)) is None
    return stream


def test_interest_comes_before_the_first_look() -> None:
    stream = Stream(C, 0, "0", TIMING, 0.0)
    assert stream.opened() == LISTEN
    assert stream.woken() is None
    assert stream.listening(0) == Read(0, 0)


@pytest.mark.item(144)
def test_a_stream_with_nothing_to_show_says_nothing(stream: Stream) -> None:
    assert stream.page_read(EMPTY) is None
    assert stream.watermark == watermark(C, 3, 1002)


@pytest.mark.item(144)
def test_one_activity_per_frame_and_its_watermark_lies_right_behind_it(stream: Stream) -> None:
    decision = stream.page_read(page([entry(3), entry(4)], 5))
    assert said(decision) == [(["3"], watermark(C, 4, 1003)), (["4"], watermark(C, 5, 1004))]


def test_the_position_advances_when_the_frames_were_handed_over_and_not_before(stream: Stream) -> None:
    stream.page_read(page([entry(3)], 4))
    assert stream.position == 3
    stream.sent()
    assert stream.position == 4


def test_a_wake_up_leads_to_a_read_behind_the_position(idle: Stream) -> None:
    assert idle.woken() == Read(3, 7)


def test_wake_ups_during_a_read_are_remembered_as_one(stream: Stream) -> None:
    assert stream.woken() is None
    assert stream.woken() is None
    assert stream.page_read(EMPTY) == Read(0, 0)
    assert stream.page_read(EMPTY) is None


def test_a_wake_up_during_a_write_is_remembered(stream: Stream) -> None:
    stream.page_read(page([entry(3)], 4))
    assert stream.woken() is None
    assert stream.sent() == Read(4, 0)


def test_a_page_that_its_bound_ended_is_followed_by_the_next(stream: Stream) -> None:
    stream.page_read(page([entry(3)], 4, more=True))
    assert stream.sent() == Read(4, 0)


def test_entries_that_nobody_sees_are_stepped_over_in_silence(stream: Stream) -> None:
    assert stream.page_read(page([], 9, transient=8)) is None
    assert (stream.position, stream.transient) == (9, 8)


@pytest.mark.item(150)
def test_a_transient_repeats_the_watermark_before_it(idle: Stream) -> None:
    idle.woken()
    decision = idle.page_read(page([typing(8, 3), entry(3), typing(9, 4)], 4, transient=9))
    first, behind = watermark(C, 3, 1002), watermark(C, 4, 1003)
    assert said(decision) == [(["C1|t8"], first), (["3"], behind), (["C1|t9"], behind)]
    assert idle.sent() is None
    idle.woken()
    assert said(idle.page_read(page([typing(10, 4)], 4, transient=10))) == [(["C1|t10"], behind)]


def test_nothing_is_read_while_the_socket_asks_to_stop(idle: Stream) -> None:
    idle.paused(1)
    assert idle.woken() is None
    assert idle.tick(20.0) is None
    assert idle.resumed() == Read(3, 7)


def test_a_page_that_finds_a_full_socket_is_read_again_later(stream: Stream) -> None:
    stream.paused(1)
    assert stream.page_read(page([entry(3)], 4)) is None
    assert stream.resumed() == Read(3, 7)


def test_a_failed_read_is_tried_again_at_the_next_tick(stream: Stream) -> None:
    assert stream.read_failed() is None
    assert stream.tick(10.0) == Read(3, 7)


@pytest.mark.item(145)
def test_a_silent_stream_looks_once_more_and_then_gives_a_sign_of_life(idle: Stream) -> None:
    assert idle.tick(10.0) is None
    idle.heard()
    assert idle.tick(20.0) == Read(3, 7)
    assert idle.page_read(EMPTY) == KeepAlive(ping=False)
    assert idle.tick(30.0) is None


def test_a_lost_wake_up_costs_at_most_one_keepalive_interval(idle: Stream) -> None:
    idle.tick(20.0)
    assert said(idle.page_read(page([entry(3)], 4))) == [(["3"], watermark(C, 4, 1003))]


def test_a_clock_that_is_a_little_early_does_not_add_a_tick_of_silence(idle: Stream) -> None:
    assert idle.tick(19.999) == Read(3, 7)


def test_a_store_that_hangs_does_not_hold_back_the_sign_of_life(stream: Stream) -> None:
    assert stream.tick(20.0) == KeepAlive(ping=True)


def test_a_store_that_fails_does_not_hold_back_the_sign_of_life(idle: Stream) -> None:
    assert idle.tick(20.0) == Read(3, 7)
    assert idle.read_failed() == KeepAlive(ping=True)


def test_frames_count_as_signs_of_life(idle: Stream) -> None:
    idle.tick(10.0)
    idle.woken()
    idle.page_read(page([entry(3)], 4))
    idle.sent()
    assert idle.tick(20.0) is None


def test_a_client_that_never_answers_a_ping_is_dropped(idle: Stream) -> None:
    idle.tick(20.0)
    assert idle.page_read(EMPTY) == KeepAlive(ping=True)
    for now in (30.0, 40.0, 50.0, 60.0, 70.0):
        if isinstance(idle.tick(now), Read):
            assert idle.page_read(EMPTY) == KeepAlive(ping=True)
    assert idle.tick(80.0) == DROP
    assert idle.over


def test_any_frame_of_the_client_shows_that_it_lives(idle: Stream) -> None:
    idle.tick(20.0)
    idle.page_read(EMPTY)
    idle.heard()
    assert idle.tick(80.0) == Read(0, 0)


def test_a_ping_stuck_behind_a_full_socket_is_not_held_against_the_client(idle: Stream) -> None:
    idle.tick(20.0)
    idle.page_read(EMPTY)
    idle.paused(9)
    for now in (40.0, 60.0, 80.0):
        assert idle.tick(now) is None
    idle.resumed()
    idle.page_read(EMPTY)
    assert idle.tick(90.0) != DROP


def looks(stream: Stream, *unsent: int) -> tuple[Decision | None, float]:
    """What comes of a full socket that holds back so many bytes at each look, the last again and again; and when."""
    waiting, decision, passed_s = iter(unsent), stream.paused(unsent[0]), 0.0
    while isinstance(decision, Watch) and passed_s < 1000:
        passed_s += decision.after_s
        decision = stream.watched(next(waiting, unsent[-1]))
    return decision, passed_s


@pytest.mark.item(158)
def test_a_write_without_progress_ends_as_slow_consumer_after_stall_s(idle: Stream) -> None:
    assert looks(idle, 100) == (SLOW_CONSUMER, 30.0)
    assert idle.over


def test_a_full_socket_that_is_reported_again_is_as_full_as_before(idle: Stream) -> None:
    assert isinstance(idle.paused(100), Watch)
    assert idle.paused(100) is None


def test_the_time_of_a_stall_begins_with_the_last_progress(idle: Stream) -> None:
    """It may have been right behind the look before."""
    decision, passed_s = looks(idle, 100, 100, 100, 99)
    assert decision == SLOW_CONSUMER
    assert 30.0 <= passed_s - 4 * 30.0 / 8 <= 30.0 * 9 / 8


def test_a_slow_reader_that_makes_progress_is_waited_for(idle: Stream) -> None:
    idle.paused(100)
    for turn in range(1, 99):
        assert isinstance(idle.watched(100 - turn), Watch)


def test_a_socket_that_takes_more_is_not_looked_at_again(idle: Stream) -> None:
    idle.paused(100)
    idle.resumed()
    assert idle.watched(0) is None


# The time as ticks tell it


@pytest.mark.item(145)
@pytest.mark.parametrize("keepalive_s", [0.5, 20.0, 30.0])
@pytest.mark.parametrize("dead_peer_s", [0.1, 0.7, 1.0, 7.0, 20.0, 44.0, 60.0, 3600.0])
@pytest.mark.parametrize("late_s", [0.0, 0.05])
def test_what_the_settings_say_is_kept_to_whatever_they_are(
    keepalive_s: float, dead_peer_s: float, late_s: float
) -> None:
    """A keep-alive comes no earlier and hardly later; a client is dropped no later than by a quarter of its time."""
    timing = Timing(keepalive_s, dead_peer_s)
    stream = Stream(C, 0, "0", timing, 0.0)
    stream.opened()
    stream.listening(0)
    stream.page_read(EMPTY)
    pinged_at = None
    for count in itertools.count(1):
        now = count * timing.tick_s + late_s * (count % 2)
        decision = stream.tick(now)
        if isinstance(decision, Read):
            decision = stream.page_read(EMPTY)
        if pinged_at is None and decision == KeepAlive(ping=True):
            pinged_at = now
            assert keepalive_s <= now + 1e-9 <= keepalive_s + late_s + 1e-6
        if decision == DROP:
            break
    assert pinged_at is not None
    after_s, slack_s = now - pinged_at, max(dead_peer_s / 4, timing.tick_s)
    assert dead_peer_s - timing.tick_s / 8 <= after_s + 1e-9 <= dead_peer_s + slack_s + late_s + 2e-6


def test_at_the_defaults_a_stream_is_told_the_time_twice_in_keepalive_s() -> None:
    assert Timing().tick_s == Timing(keepalive_s=30, dead_peer_s=60).tick_s == 15
    assert Timing(keepalive_s=20, dead_peer_s=60).tick_s == 10


def test_a_close_from_outside_ends_the_stream_once(idle: Stream) -> None:
    assert idle.close(COLLISION) == COLLISION
    assert idle.close(GOING_AWAY) is None


def test_nothing_happens_after_the_end(stream: Stream) -> None:
    stream.closed()
    assert stream.over
    assert stream.page_read(page([entry(3)], 4)) is None
    assert stream.read_failed() is None
    assert stream.sent() is None
    assert stream.woken() is None
    assert stream.resumed() is None
    assert stream.tick(500.0) is None
    assert stream.listening(0) is None
    assert stream.position == 3


def test_a_stream_has_no_dictionary_to_grow(stream: Stream) -> None:
    assert not hasattr(stream, "__dict__")
