"""Freshness, effective weights, alias table, peak latency."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_router.core import alias, ewma, freshness, weights

FINITE = st.floats(0, 1e6)


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        pytest.param(0, 1.0, id="fresh"),
        pytest.param(15, 1.0, id="15-s-is-still-trusted"),
        pytest.param(16, 29 / 30, id="just-after-15-s"),
        pytest.param(30, 0.5, id="half-way-between"),
        pytest.param(45, 0.0, id="45-s-is-worth-nothing"),
        pytest.param(1e9, 0.0, id="old"),
        pytest.param(math.inf, 0.0, id="never-proven"),
        pytest.param(math.nan, 0.0, id="no-number"),
        pytest.param(-1, 0.0, id="from-the-future"),
    ],
)
def test_trust_by_age(age_s, expected):
    assert freshness.trust(age_s) == pytest.approx(expected)


@given(FINITE, FINITE)
def test_trust_never_grows_with_age(one_s, other_s):
    low, high = sorted((one_s, other_s))
    assert freshness.trust(low) >= freshness.trust(high)


def test_without_any_proof_of_life_scores_are_worth_nothing():
    proof = freshness.ProofOfLife()
    assert freshness.trust(proof.age_s(0.0, 50.0)) == 0


def test_the_first_lease_proves_nothing_and_a_renewal_does():
    proof = freshness.ProofOfLife()
    assert not proof.lease_seen("t1", "", 10.0)
    assert not proof.lease_seen("t1", "", 12.0)
    assert proof.silence_s(12.0) == math.inf
    assert proof.lease_seen("t2", "", 14.0)
    assert proof.silence_s(17.0) == 3.0


def test_age_adds_scrape_age_silence_and_the_lag_of_the_write_budget():
    proof = freshness.ProofOfLife()
    proof.sequence_advanced(100.0)
    proof.lease_seen("t1", "2500", 100.0)
    assert proof.age_s(4.0, 107.0) == pytest.approx(4 + 7 + 2.5)


@pytest.mark.parametrize("lag", ["", "soon", "-5", "1.5", "²"])
def test_a_lag_that_is_no_number_counts_as_none(lag):
    proof = freshness.ProofOfLife()
    proof.lease_seen("t1", lag, 0.0)
    assert proof.lag_s == 0


@pytest.mark.parametrize(
    ("score", "trust", "mean", "age_s", "expected"),
    [
        pytest.param(0.8, 1, 0.5, 60, 0.8, id="trusted-score-as-it-is"),
        pytest.param(0.8, 0, 0.5, 60, 0.5, id="untrusted-score-is-the-mean"),
        pytest.param(0.8, 0.5, 0.4, 60, 0.6, id="half-trusted"),
        pytest.param(None, 1, 0.7, 60, 0.7, id="never-measured-is-the-mean"),
        pytest.param(math.nan, 1, 0.7, 60, 0.7, id="nan-is-the-mean"),
        pytest.param(-3.0, 1, 0.7, 60, weights.FLOOR, id="below-zero-is-the-floor"),
        pytest.param(7.0, 1, 0.7, 60, 1.0, id="above-one-is-one"),
        pytest.param(1.0, 1, 0.7, 5, 0.5, id="half-way-through-slow-start"),
        pytest.param(1.0, 1, 0.7, 0, 0.1, id="a-newcomer-starts-at-a-tenth"),
    ],
)
def test_effective_weight(score, trust, mean, age_s, expected):
    assert weights.effective(score, trust, mean, age_s) == pytest.approx(expected)


@given(
    st.floats(allow_nan=True, allow_infinity=True) | st.none(),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(-10, 1e6),
)
def test_a_weight_is_always_within_floor_and_one(score, trust, mean, age_s):
    assert weights.FLOOR <= weights.effective(score, trust, mean, age_s) <= 1


def test_the_mean_ignores_absurd_scores_and_is_neutral_without_any():
    assert weights.mean_score([0.2, None, math.nan, 0.4]) == pytest.approx(0.3)
    assert weights.mean_score([None]) == weights.NEUTRAL


@pytest.mark.parametrize("seed", range(5))
def test_alias_draws_follow_the_weights_by_chi_square(seed):
    wanted = [0.05, 1.0, 0.3, 0.3, 0.7, 0.05]
    table, uniform = alias.build(wanted), random.Random(seed).random
    draws = 60_000
    seen = Counter(table.draw(uniform()) for _ in range(draws))
    expected = [draws * weight / sum(wanted) for weight in wanted]
    chi_square = sum((seen[i] - mean) ** 2 / mean for i, mean in enumerate(expected))
    assert chi_square < 20.5  # 5 degrees of freedom, p = 0.001


@given(st.lists(st.floats(0.05, 1), min_size=1, max_size=60))
def test_an_alias_table_gives_each_index_exactly_its_share(wanted):
    table = alias.build(wanted)
    shares = [0.0] * len(wanted)
    for column, keep in enumerate(table.keep):
        shares[column] += keep / len(wanted)
        shares[table.other[column]] += (1 - keep) / len(wanted)
    assert shares == pytest.approx([weight / sum(wanted) for weight in wanted], abs=1e-9)


@pytest.mark.parametrize("wanted", [[], [0.0]])
def test_an_alias_table_needs_weight(wanted):
    with pytest.raises(ValueError, match="positive weights"):
        alias.build(wanted)


def test_a_peak_jumps_up_at_once_and_comes_down_slowly():
    latency = ewma.PeakLatency()
    latency.record(0.010, 0.0)
    latency.record(1.0, 1.0)
    assert latency.value_s == 1.0
    latency.record(0.010, 11.0)
    assert latency.value_s == pytest.approx(math.exp(-1) + 0.010 * (1 - math.exp(-1)))


def test_an_idle_value_drifts_to_the_median_and_one_trial_uses_what_was_measured():
    latency = ewma.PeakLatency()
    latency.record(1.0, 0.0)
    assert latency.estimate_s(0.01, 0, 100.0) == pytest.approx(0.01, rel=0.01)
    assert latency.estimate_s(0.01, 1, 100.0) == 1.0


def test_without_a_sample_the_median_of_the_peers_counts():
    assert ewma.PeakLatency().estimate_s(0.2, 3, 5.0) == 0.2


def test_failing_fast_is_not_being_fast():
    latency = ewma.PeakLatency()
    latency.record(0.010, 0.0)
    latency.record_failure(0.040, 1.0)
    assert latency.value_s == pytest.approx(0.2)
    latency.record(3.0, 2.0)
    latency.record_failure(0.040, 3.0)
    assert latency.value_s == pytest.approx(3.0)


@given(st.lists(st.floats(1e-5, 100), min_size=1, max_size=30))
def test_a_peak_stays_between_its_samples(samples):
    latency = ewma.PeakLatency()
    for second, sample in enumerate(samples):
        latency.record(sample, float(second))
    assert min(samples) - 1e-12 <= latency.value_s <= max(samples) + 1e-12
