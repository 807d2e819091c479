"""The token bucket, and when a status write is worth one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.pool import InferencePoolStatus
from tidegate_operator.core.budget import bucket, may_write_gauges, must_write


def taken(full, times_s):
    """Return how many of the wishes at these times got a token."""
    count = 0
    for at_s in times_s:
        after = full.take(at_s)
        count, full = count + (after is not None), after or full
    return count


def test_a_full_bucket_gives_one_seconds_worth_at_once_and_no_more():
    assert taken(bucket(5, 0.0), [0.0] * 20) == 5


def test_tokens_come_back_with_time():
    assert taken(bucket(5, 0.0), [0.0] * 5 + [0.1, 0.2, 0.3, 0.4]) == 5 + 2


def test_a_rate_below_one_still_lets_one_through():
    assert taken(bucket(0.5, 0.0), [0.0, 1.0, 2.0, 3.0, 4.0]) == 3


def test_a_clock_that_stands_or_goes_back_gives_nothing_away():
    full = bucket(1, 100.0)
    assert taken(full, [100.0, 50.0, 100.0]) == 1


@given(
    rate=st.floats(0.1, 100),
    gaps_s=st.lists(st.floats(0, 3), min_size=1, max_size=200),
)
def test_no_run_of_wishes_gets_more_than_rate_times_time_plus_one_second(rate, gaps_s):
    times_s = [sum(gaps_s[: n + 1]) for n in range(len(gaps_s))]
    allowed = max(1.0, rate) + rate * times_s[-1]
    assert taken(bucket(rate, 0.0), times_s) <= allowed + 1e-6


@given(rate=st.floats(0.5, 50), seconds=st.integers(1, 60))
def test_whoever_asks_all_the_time_gets_the_whole_rate(rate, seconds):
    times_s = [n / 100 for n in range(seconds * 100)]
    assert taken(bucket(rate, 0.0), times_s) >= rate * seconds - 1


BEFORE = InferencePoolStatus(replicas=2, queue_depth=10, p95_milliseconds=100.0)


@pytest.mark.parametrize(
    ("change", "due"),
    [({}, False), ({"queue_depth": 900}, False), ({"p95_milliseconds": None}, False),
     ({"replicas": 3}, True), ({"stable_revision": "aaaaaaaa"}, True)],
    ids=["nothing", "a gauge", "a gauge that ends", "a size", "a revision"],
)  # fmt: skip
def test_a_status_is_due_at_once_only_for_more_than_gauges(change, due):
    assert must_write(BEFORE, BEFORE.model_copy(update=change)) is due


@pytest.mark.parametrize(
    ("change", "since_s", "worth"),
    [({"queue_depth": 12}, 30.0, True), ({"queue_depth": 12}, 29.9, False),
     ({"queue_depth": 11}, 1000.0, False), ({"p95_milliseconds": None}, 30.0, True),
     ({"requests_per_second": 0.1}, 30.0, True), ({}, 1000.0, False)],
    ids=["moved by a sixth", "too early", "moved by a tenth", "ended", "began", "stands"],
)  # fmt: skip
def test_gauges_are_written_each_half_minute_if_they_moved(change, since_s, worth):
    assert may_write_gauges(BEFORE, BEFORE.model_copy(update=change), since_s) is worth
