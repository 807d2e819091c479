import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_cli.core.loadtest.histogram import Histogram, bucket_of, merge, middle_us

VALUES_US = st.integers(min_value=0, max_value=3_600_000_000)  # up to an hour


def filled(values):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(VALUES_US)
def test_a_bucket_is_wrong_by_at_most_a_thousandth(value_us):
    assert abs(middle_us(bucket_of(value_us)) - value_us) <= value_us / 1000


@given(VALUES_US, VALUES_US)
def test_buckets_keep_the_order_of_values(one, other):
    low, high = sorted((one, other))
    assert bucket_of(low) <= bucket_of(high)


@pytest.mark.parametrize(
    ("value_us", "bucket"),
    [
        pytest.param(0, 0, id="nothing is bucket 0"),
        pytest.param(-3, 0, id="a clock that stepped back is bucket 0"),
        pytest.param(2047, 2047, id="the last exact bucket"),
        pytest.param(2048, 2048, id="the first of two values"),
        pytest.param(2049, 2048, id="its second value"),
        pytest.param(4095, 3071, id="the last of two values"),
        pytest.param(4096, 3072, id="the first of four values"),
        pytest.param(4100, 3073, id="the next bucket of four values"),
    ],
)
def test_buckets_are_those_of_the_scheme(value_us, bucket):
    assert bucket_of(value_us) == bucket


def test_no_bucket_is_left_out_where_the_scale_doubles():
    used = sorted({bucket_of(value) for value in range(70_000)})
    assert used == list(range(used[-1] + 1))


@given(st.lists(VALUES_US, min_size=1, max_size=200), st.floats(min_value=0.001, max_value=1))
def test_a_quantile_is_that_of_the_sorted_values_within_a_thousandth(values, q):
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = filled(values).quantile_us(q)
    assert abs(found - exact) <= exact / 1000


@given(st.lists(st.lists(VALUES_US, max_size=50), max_size=5))
def test_merged_seconds_are_the_whole_run(parts):
    whole = filled(value for part in parts for value in part)
    merged = merge(filled(part) for part in parts)
    assert merged.counts == whole.counts
    assert merged.max_us == whole.max_us
    assert merged.sum_us == whole.sum_us
    assert merged.total == sum(len(part) for part in parts)


def test_merging_leaves_its_parts_alone():
    one, other = filled([1, 2]), filled([2, 3])
    merge([one, other]).add(9)
    assert one.counts == {1: 1, 2: 1}
    assert other.max_us == 3


def test_the_largest_value_is_exact_and_no_quantile_exceeds_it():
    histogram = filled([1_000_001, 5])
    assert histogram.quantile_us(1.0) == 1_000_001
    assert histogram.quantile_us(0.99) <= 1_000_001


def test_an_empty_histogram_has_zeros_and_no_curve():
    empty = Histogram()
    assert (empty.quantile_us(0.5), empty.quantile_us(1.0), empty.mean_us) == (0, 0, 0)
    assert [*empty.curve()] == []


def test_the_mean_is_exact():
    assert filled([1000.5, 3000.5]).mean_us == pytest.approx(2000.5)


def test_the_curve_rises_to_the_whole():
    source = random.Random(7)
    curve = [*filled(source.lognormvariate(6, 1) for _ in range(2000)).curve()]
    assert curve[-1][0] == 1.0
    assert all(one[0] < two[0] and one[1] <= two[1] for one, two in pairwise(curve))
