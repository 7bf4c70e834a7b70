from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landline.core.rate import Bucket, Rate


def test_a_burst_goes_through_at_once_and_the_next_one_waits_for_the_rate() -> None:
    bucket, rate = Bucket(), Rate(per_s=5, burst=20, longest_wait_s=5)
    waits = [bucket.turn(rate, 100.0) for _ in range(23)]
    assert waits[:20] == pytest.approx([0.0] * 20, abs=1e-9)
    assert waits[20:] == pytest.approx([0.2, 0.4, 0.6])


def test_at_the_defaults_of_polls_twenty_five_wait_and_no_more() -> None:
    bucket, rate = Bucket(), Rate(per_s=5, burst=20, longest_wait_s=5)
    waits = [bucket.turn(rate, 0.0) for _ in range(46)]
    assert waits[44] == pytest.approx(5.0)
    assert waits[45] > rate.longest_wait_s


def test_who_is_refused_costs_the_others_nothing() -> None:
    bucket, rate = Bucket(), Rate(per_s=10, burst=1)
    assert bucket.turn(rate, 0.0) == 0.0
    for _ in range(100):
        assert bucket.turn(rate, 0.05) == pytest.approx(0.05)
    assert bucket.turn(rate, 0.1) == pytest.approx(0.0)


def test_a_rate_that_is_kept_never_waits() -> None:
    bucket, rate = Bucket(), Rate(per_s=4, burst=2)
    assert max(bucket.turn(rate, second / 4) for second in range(1000)) == pytest.approx(0.0, abs=1e-9)


def test_a_bucket_is_idle_once_its_debt_is_paid() -> None:
    bucket, rate = Bucket(), Rate(per_s=2, burst=4)
    assert bucket.idle(0.0)
    bucket.turn(rate, 0.0)
    assert not bucket.idle(0.4)
    assert bucket.idle(0.5)


@given(
    st.floats(0.5, 100),
    st.integers(1, 50),
    st.floats(0, 10),
    st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_no_window_ever_holds_more_turns_than_burst_and_rate_allow(
    per_s: float, burst: int, longest_wait_s: float, pauses: list[float]
) -> None:
    bucket, rate, now, turns = Bucket(), Rate(per_s, burst, longest_wait_s), 0.0, []
    for pause in pauses:
        now += pause
        wait_s = bucket.turn(rate, now)
        if wait_s <= longest_wait_s:
            turns.append(now + wait_s)
    assert turns == sorted(turns)
    for first in range(len(turns)):
        for last in range(first, len(turns)):
            assert last - first + 1 <= burst + (turns[last] - turns[first]) * per_s + 1e-6


def test_another_rate_has_bursts_of_as_many_seconds() -> None:
    usual = Rate(per_s=20, burst=40, longest_wait_s=5)
    assert usual.at(5) == Rate(5, 10, 5)
    assert usual.at(0.1) == Rate(0.1, 1, 5)


def test_a_rate_that_cannot_be_calculated_with_is_next_to_nothing_or_to_everything() -> None:
    usual = Rate(per_s=20, burst=40, longest_wait_s=5)
    everything, nothing = usual.at(1e308), usual.at(5e-324)
    for _ in range(1000):
        assert Bucket().turn(everything, 0.0) == 0
    bucket = Bucket()
    assert bucket.turn(nothing, 0.0) == 0
    assert bucket.turn(nothing, 0.0) > 1e6
