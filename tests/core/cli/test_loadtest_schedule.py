import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_cli.core.loadtest.schedule import Arrivals, Limits, intended_times_s


def limits(duration_s=None, count=None, warmup_s=0.0):
    return Limits(duration_s=duration_s, count=count, warmup_s=warmup_s)


def times_s(rate, arrivals, within, seed=1):
    return [*intended_times_s(rate, arrivals, within, random.Random(seed).random)]


@given(
    st.floats(min_value=0.5, max_value=500),
    st.floats(min_value=0.1, max_value=5),
    st.floats(min_value=0, max_value=2),
    st.sampled_from(Arrivals),
)
def test_times_rise_from_zero_and_end_with_the_duration(rate, duration_s, warmup_s, arrivals):
    found = times_s(rate, arrivals, limits(duration_s, warmup_s=warmup_s))
    assert found[0] == 0.0
    assert all(one < two for one, two in itertools.pairwise(found))
    assert found[-1] < warmup_s + duration_s


def test_constant_arrivals_do_not_drift():
    found = times_s(3, Arrivals.CONSTANT, limits(duration_s=1000))
    assert len(found) == 3000
    assert found[2999] == 2999 / 3


def test_poisson_arrivals_have_the_rate_and_the_spread_of_independent_users():
    found = times_s(100, Arrivals.POISSON, limits(duration_s=200))
    gaps = [two - one for one, two in itertools.pairwise(found)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.01, rel=0.03)
    assert deviation == pytest.approx(mean, rel=0.05)


def test_a_seed_repeats_a_poisson_run():
    within = limits(duration_s=5)
    assert times_s(50, Arrivals.POISSON, within, 3) == times_s(50, Arrivals.POISSON, within, 3)
    assert times_s(50, Arrivals.POISSON, within, 3) != times_s(50, Arrivals.POISSON, within, 4)


@pytest.mark.parametrize(
    ("within", "sent"),
    [
        pytest.param(limits(count=7), 7, id="a count alone ends a run"),
        pytest.param(limits(duration_s=1, count=7), 7, id="a count ends a run before its duration"),
        pytest.param(limits(duration_s=1, count=70), 10, id="a duration ends it before its count"),
        pytest.param(limits(count=7, warmup_s=1), 17, id="what warms up is not counted"),
    ],
)
def test_a_run_sends_as_many_as_its_limits_allow(within, sent):
    assert len(times_s(10, Arrivals.CONSTANT, within)) == sent


def test_the_first_request_after_the_warm_up_counts():
    within = limits(duration_s=1, warmup_s=0.5)
    assert not within.counts(0.499)
    assert within.counts(0.5)
    assert within.end_s == 1.5
