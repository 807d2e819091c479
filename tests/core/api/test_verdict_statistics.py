"""The one statistical rule, against exact sums, and what routers make of it."""

import math
import random
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api import histogram as tg1
from tidegate_api.routetable import Guard
from tidegate_api.verdict import (
    ALPHA,
    attempts_above,
    binomial_tail,
    guard_broken,
    milliseconds,
    quantile_upper_s,
    ratio_upper,
    too_many,
)


def exact_tail(k, n, p):
    share = Fraction(p)
    return float(sum(comb(n, j) * share**j * (1 - share) ** (n - j) for j in range(k, n + 1)))


@given(
    n=st.integers(1, 150),
    part=st.floats(0, 1),
    p=st.sampled_from([0.001, 0.01, 0.05, 0.3, 0.5, 0.97]),
)
def test_the_tail_equals_the_exact_sum(n, part, p):
    k = round(part * n)
    assert binomial_tail(k, n, p) == pytest.approx(exact_tail(k, n, p), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "p", "expected"),
    [(0, 10, 0.0, 1.0), (1, 10, 0.0, 0.0), (11, 10, 0.5, 0.0), (10, 10, 1.0, 1.0),
     (0, 0, 0.5, 1.0), (-3, 10, 0.2, 1.0)],
)  # fmt: skip
def test_the_tail_at_its_ends(k, n, p, expected):
    assert binomial_tail(k, n, p) == expected


@pytest.mark.parametrize("n", [10**5, 10**6, 10**7])
@pytest.mark.parametrize("p", [0.01, 0.05, 0.5])
def test_the_tail_of_millions_agrees_with_the_normal_law(n, p):
    sigma = math.sqrt(n * p * (1 - p))
    for sigmas in (-3, 0, 1, 3):
        k = round(n * p + sigmas * sigma)
        z = (k - 0.5 - n * p) / sigma
        skew = (1 - 2 * p) / sigma
        edgeworth = skew * (z * z - 1) / 6 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        expected = math.erfc(z / math.sqrt(2)) / 2 + edgeworth
        assert binomial_tail(k, n, p) == pytest.approx(expected, rel=0.01)


@given(n=st.integers(1, 10**7), p=st.floats(1e-6, 0.999), part=st.floats(0, 1))
def test_the_tail_is_a_probability_that_falls_with_each_further_case(n, p, part):
    k = round(part * n)
    tail = binomial_tail(k, n, p)
    assert 0 <= tail <= 1
    assert binomial_tail(k + 1, n, p) <= tail * (1 + 1e-6) + 1e-300


@pytest.mark.parametrize(
    ("bad", "total", "allowed", "verdict"),
    [
        (5, 100, 0.05, False),  # exactly the allowed share
        (12, 100, 0.05, False),  # chance gives as many in 1 of 235
        (13, 100, 0.05, False),  # in 1 of 680
        (14, 100, 0.05, True),  # in 1 of 2100
        (1, 1, 0.01, False),  # one failed request proves nothing
        (2, 2, 0.01, True),
        (5, 100, 0.01, False),
        (6, 100, 0.01, True),
        (1, 1000, 0.0, True),  # none is allowed
        (0, 0, 0.05, False),
        (100, 100, 1.0, False),
    ],
)
def test_too_many_means_that_chance_gives_as_many_in_less_than_1_of_1000(
    bad, total, allowed, verdict
):
    assert too_many(bad, total, allowed) is verdict
    assert (binomial_tail(bad, total, allowed) < ALPHA) is verdict


@given(total=st.integers(1, 5000), allowed=st.floats(0, 1), part=st.floats(0, 1))
def test_a_share_within_the_allowed_one_is_never_too_many(total, allowed, part):
    assert not too_many(math.floor(allowed * total * part), total, allowed)


@given(st.dictionaries(st.integers(0, 175), st.integers(1, 50)), st.floats(1e-5, 500))
def test_only_buckets_that_lie_wholly_above_count(histogram, limit_s):
    surely = sum(
        number
        for bucket, number in histogram.items()
        if bucket and tg1.upper_bound_s(bucket - 1) >= limit_s
    )
    assert attempts_above(histogram, limit_s) == pytest.approx(surely, abs=0)


@given(st.integers(1, 175))
def test_a_bucket_counts_as_above_its_own_lower_end_and_not_within(bucket):
    lower_s = tg1.upper_bound_s(bucket - 1)
    assert attempts_above({bucket: 3}, lower_s) == 3
    assert attempts_above({bucket: 3}, lower_s * 1.01) == 0


def test_the_fastest_bucket_is_never_surely_above_anything():
    assert attempts_above({0: 9}, 1e-9) == 0


@given(st.dictionaries(st.integers(0, 175), st.integers(1, 500), min_size=1))
def test_the_upper_bound_lies_between_the_quantile_and_the_largest_value(histogram):
    upper_s = quantile_upper_s(histogram, 0.95)
    assert tg1.quantile_s(histogram, 0.95) <= upper_s <= tg1.upper_bound_s(max(histogram))


def test_the_upper_bound_nears_the_quantile_with_more_data():
    few, many = (dict.fromkeys(range(20, 120), n) for n in (1, 10_000))
    assert quantile_upper_s(few, 0.95) == tg1.upper_bound_s(119)
    assert quantile_upper_s(many, 0.95) == tg1.upper_bound_s(115)
    assert quantile_upper_s({}, 0.95) is None


def test_the_upper_bound_holds_in_97_of_100_samples():
    draw, held = random.Random(7), 0
    for _ in range(500):
        sample = tg1.merge({tg1.bucket_of(draw.random()): 1} for _ in range(200))
        held += quantile_upper_s(sample, 0.95) >= 0.95
    assert held >= 0.97 * 500


@pytest.mark.parametrize(
    ("bad", "total", "at_least", "at_most"),
    [(0, 0, 1, 1), (0, 100, 0.03, 0.05), (5, 100, 0.1, 0.13), (100, 100, 1, 1), (50, 10, 1, 1)],
)
def test_a_ratios_upper_bound_is_wide_with_little_data(bad, total, at_least, at_most):
    assert at_least <= ratio_upper(bad, total) <= at_most


GUARD = Guard(
    revision="canary", min_requests=100, interval_s=10, min_success_rate=0.99, max_p95_s=0.2
)


@pytest.mark.parametrize(
    ("ok", "failed", "latency", "words"),
    [
        (0, 0, {}, ""),
        (1000, 10, {40: 1010}, ""),
        (18, 2, {40: 20}, ""),  # tail 0.017: not beyond chance
        (16, 4, {40: 20}, "success rate 80.00% < 99.00%: 4 of 20 attempts failed"),
        (139, 0, {tg1.bucket_of(0.05): 139, tg1.bucket_of(0.312): 41},
         "p95 302 ms > 200 ms: 41 of 180 attempts above it"),
        (180, 0, {tg1.bucket_of(0.05): 176, tg1.bucket_of(0.312): 4}, ""),
    ],
)  # fmt: skip
def test_a_router_judges_its_own_window_as_the_operator_would(ok, failed, latency, words):
    assert guard_broken(GUARD, ok, failed, latency) == words


def test_a_guard_without_limits_is_never_broken():
    free = Guard(revision="canary", min_requests=1, interval_s=10)
    assert not guard_broken(free, 0, 500, {175: 500})


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.312, "312 ms"), (0.0012, "1.2 ms"), (2.5, "2500 ms")]
)
def test_milliseconds_for_people(seconds, words):
    assert milliseconds(seconds) == words
