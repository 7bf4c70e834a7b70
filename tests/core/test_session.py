from __future__ import annotations

import json

import pytest

from landline.core.session import (
    CONVERSATION_OVER,
    GAVE_UP,
    HANG_UP,
    NEW_TOKEN,
    REFRESH,
    STOPPED,
    Decision,
    Deliver,
    Open,
    Patience,
    Reconnect,
    Session,
    Wait,
)


def activity_set(*activities: tuple[str, str], watermark: str | None = "1-aaaaaaaa") -> bytes:
    """A frame with these activities, given as (id, text)."""
    return json.dumps({"activities": [{"id": i, "text": t} for i, t in activities], "watermark": watermark}).encode()


def texts(decision: Decision | None) -> list[str]:
    if decision is None:
        return []
    assert isinstance(decision, Deliver)
    return [json.loads(a)["text"] for a in decision.activities]


@pytest.fixture
def session() -> Session:
    """A session with an open stream."""
    session = Session(Patience(first_s=2.0, longest_s=16.0, attempts=None))
    assert session.started("url-1", 3600.0, 0.0) == Open("url-1")
    session.opened()
    return session


def test_a_lost_socket_leads_to_a_wait_a_reconnect_and_a_new_stream(session: Session) -> None:
    session.frame(activity_set(("a", "1"), watermark="1-aaaaaaaa"))
    assert session.lost(0.5) == Wait(1.5)
    assert session.waited() == Reconnect("1-aaaaaaaa")
    assert session.answered("url-2", 3600.0, 5.0) == Open("url-2")


def test_before_any_watermark_the_reconnect_asks_with_an_empty_one(session: Session) -> None:
    session.lost(0.0)
    assert session.waited() == Reconnect("")


@pytest.mark.item(144)
@pytest.mark.parametrize("watermark", ["0", "7-bbbbbbbb", "-"])
def test_a_session_begins_with_the_watermark_inside_its_stream_url(watermark: str) -> None:
    session = Session()
    session.started(f"wss://here/v3/directline/conversations/c/stream?watermark={watermark}&t=x", 3600.0, 0.0)
    session.opened()
    session.lost(0.0)
    assert session.waited() == Reconnect(watermark)


@pytest.mark.item(144)
def test_a_url_that_starts_over_takes_the_place_of_a_watermark_that_nobody_knew(session: Session) -> None:
    session.frame(activity_set(("a", "1"), watermark="7-bbbbbbbb"))
    session.lost(0.0)
    session.waited()
    session.answered("ws://here/stream?watermark=0&t=x", 3600.0, 0.0)
    session.lost(0.0)
    assert session.waited() == Reconnect("0")


@pytest.mark.parametrize("url", ["ws://here/stream?t=x", "ws://here/stream?watermark=&t=x", "ws://[here"])
def test_a_url_without_a_watermark_leaves_the_last_one(session: Session, url: str) -> None:
    session.frame(activity_set(("a", "1"), watermark="7-bbbbbbbb"))
    session.lost(0.0)
    session.waited()
    assert session.answered(url, 3600.0, 0.0) == Open(url)
    assert session.watermark == "7-bbbbbbbb"


@pytest.mark.parametrize("frame", [activity_set(("a", "1"), watermark=None), b'{"activities":[]}'])
def test_a_null_or_absent_watermark_does_not_overwrite_a_good_one(session: Session, frame: bytes) -> None:
    session.frame(activity_set(("b", "2"), watermark="7-bbbbbbbb"))
    session.frame(frame)
    assert session.watermark == "7-bbbbbbbb"


def test_a_repeat_is_dropped(session: Session) -> None:
    assert texts(session.frame(activity_set(("a", "1")))) == ["1"]
    assert session.frame(activity_set(("a", "1"))) is None


def test_a_repeat_is_dropped_although_it_comes_with_another_watermark(session: Session) -> None:
    session.frame(activity_set(("a", "1"), watermark="1-aaaaaaaa"))
    both = activity_set(("a", "1"), ("b", "2"), watermark="2-bbbbbbbb")
    assert texts(session.frame(both)) == ["2"]


def test_an_update_is_delivered(session: Session) -> None:
    session.frame(activity_set(("a", "1")))
    assert texts(session.frame(activity_set(("a", "2"), watermark="2-bbbbbbbb"))) == ["2"]


def test_an_update_that_returns_to_an_earlier_wording_is_delivered(session: Session) -> None:
    log = [activity_set(("a", text), watermark=f"{n}-aaaaaaaa") for n, text in enumerate("121", start=1)]
    assert [texts(session.frame(frame)) for frame in log] == [["1"], ["2"], ["1"]]


def test_a_replay_of_an_activity_and_its_updates_delivers_none_of_them_again(session: Session) -> None:
    log = [activity_set(("a", text), watermark=f"{n}-aaaaaaaa") for n, text in enumerate("1213", start=1)]
    for frame in log:
        session.frame(frame)
    assert [texts(session.frame(frame)) for frame in log] == [[], [], [], []]


def test_an_activity_without_an_id_is_delivered_every_time(session: Session) -> None:
    frame = b'{"activities":[{"text":"x"}],"watermark":"1"}'
    assert texts(session.frame(frame)) == ["x"]
    assert texts(session.frame(frame)) == ["x"]


def test_what_is_remembered_is_bounded() -> None:
    session = Session(remembered=2)
    session.started("url", 3600.0, 0.0)
    session.opened()
    for name in "abc":
        session.frame(activity_set((name, "x"), watermark=name))
    assert texts(session.frame(activity_set(("a", "x"), watermark="a"))) == ["x"]
    assert session.frame(activity_set(("c", "x"), watermark="c")) is None


@pytest.mark.parametrize("payload", [b"", b"  \n"])
def test_a_keep_alive_changes_nothing(session: Session, payload: bytes) -> None:
    assert session.frame(payload) is None


@pytest.mark.parametrize(
    "payload", [b"{}", b"x", b'{"activities":[1],"watermark":"9"}', b'{"activities":[{"id":"\xff"}]}']
)
def test_an_unreadable_frame_ends_the_socket_and_moves_no_watermark(session: Session, payload: bytes) -> None:
    assert session.frame(payload) == HANG_UP
    assert session.watermark == ""
    assert isinstance(session.lost(0.0), Wait)


def test_what_came_with_an_unreadable_activity_is_delivered_when_it_comes_again(session: Session) -> None:
    session.frame(b'{"activities":[{"id":"a","text":"1"},2],"watermark":"2"}')
    assert texts(session.frame(b'{"activities":[{"id":"a","text":"1"}],"watermark":"1"}')) == ["1"]


def test_waits_grow_up_to_the_longest_and_start_over_after_a_good_frame(session: Session) -> None:
    waits = [session.lost(1.0)]
    for _ in range(4):
        session.waited()
        waits.append(session.refused(1.0, 503))
    assert waits == [Wait(2.0), Wait(4.0), Wait(8.0), Wait(16.0), Wait(16.0)]
    session.waited()
    session.answered("url", 3600.0, 0.0)
    session.opened()
    session.frame(activity_set())
    assert session.lost(1.0) == Wait(2.0)


def test_a_session_with_bounded_patience_gives_up() -> None:
    session = Session(Patience(attempts=2))
    session.started("url", 3600.0, 0.0)
    session.lost(0.0)
    session.waited()
    session.refused(0.0, None)
    session.waited()
    assert session.refused(0.0, 500) == GAVE_UP
    assert session.waited() is None


def test_a_stream_url_that_could_not_be_opened_leads_to_a_new_one(session: Session) -> None:
    session.lost(0.0)
    session.waited()
    session.answered("url-2", 3600.0, 0.0)
    assert isinstance(session.lost(0.0), Wait)
    assert session.waited() == Reconnect("")


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_after_a_collision_the_session_does_not_hurry_back(session: Session, jitter: float) -> None:
    assert session.lost(jitter, 4409) == Wait(8.0 + 8.0 * jitter)


def test_a_conversation_that_is_gone_ends_the_session(session: Session) -> None:
    assert session.lost(0.0, 4404) == CONVERSATION_OVER
    assert session.waited() is None


def test_a_reconnect_to_an_unknown_conversation_ends_the_session(session: Session) -> None:
    session.lost(0.0)
    session.waited()
    assert session.refused(0.0, 404) == CONVERSATION_OVER


def test_an_expired_token_needs_a_new_one_and_then_the_reconnect_is_repeated(session: Session) -> None:
    session.frame(activity_set(watermark="4-cccccccc"))
    session.lost(0.0)
    session.waited()
    assert session.refused(0.0, 403) == NEW_TOKEN
    assert session.renewed(3600.0, 0.0) == Reconnect("4-cccccccc")


def test_a_revoked_credential_needs_a_new_token(session: Session) -> None:
    assert session.lost(0.0, 4403) == NEW_TOKEN
    assert session.renewed(3600.0, 0.0) == Reconnect("")


def test_a_token_is_refreshed_at_half_of_its_life_and_once(session: Session) -> None:
    assert session.tick(1799.0) is None
    assert session.tick(1800.0) == REFRESH
    assert session.tick(1801.0) is None
    session.refreshed(3600.0, 1802.0)
    assert session.tick(3601.0) is None
    assert session.tick(3602.0) == REFRESH


def test_a_refresh_that_was_not_answered_is_tried_again(session: Session) -> None:
    session.tick(1800.0)
    assert session.refresh_failed(1800.0, None) is None
    assert session.tick(1810.0) is None
    assert session.tick(1816.0) == REFRESH


def test_a_refused_refresh_leaves_the_open_stream_alone(session: Session) -> None:
    session.tick(1800.0)
    assert session.refresh_failed(1800.0, 403) == NEW_TOKEN
    assert texts(session.frame(activity_set(("a", "1")))) == ["1"]
    assert session.renewed(3600.0, 1801.0) is None


def test_late_reports_about_an_old_socket_change_nothing(session: Session) -> None:
    session.lost(0.0)
    assert session.lost(0.0) is None
    assert session.frame(activity_set(("a", "1"))) is None
    assert session.opened() is None
    assert session.answered("url", 3600.0, 0.0) is None
    assert session.refused(0.0, 404) is None
    assert session.waited() == Reconnect("")


def test_a_stopped_session_stays_stopped(session: Session) -> None:
    assert session.stop() == STOPPED
    assert session.lost(0.0) is None
    assert session.tick(1e9) is None
