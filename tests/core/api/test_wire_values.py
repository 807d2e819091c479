import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api import histogram
from tidegate_api.quantity import duration_s, duration_us, quantity, quantity_bytes
from tidegate_api.routetable import (
    PoolIdentity,
    RoutedWorker,
    RouteTableSpec,
    Served,
    assemble,
    canonical_json,
    split,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500us", 0.0005), ("2s", 2), ("1m30s", 90), ("1.5h", 5400), ("0s", 0), ("1h0m1ms", 3600.001)],
)
def test_a_duration(text, seconds):
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "-1s", "1 s", "1d", "s", "1s "])
def test_what_is_no_duration_is_named(text):
    with pytest.raises(ValueError, match="is no duration"):
        duration_s(text)


@given(st.integers(0, 10**9))
def test_microseconds_are_exact(microseconds):
    assert duration_us(f"{microseconds}us") == microseconds


@pytest.mark.parametrize(
    ("text", "number"), [("500m", "0.5"), ("2", "2"), ("8Gi", "8589934592"), ("1.5k", "1500")]
)
def test_a_quantity(text, number):
    assert str(quantity(text).normalize()) == str(type(quantity(text))(number).normalize())


def test_memory_in_bytes():
    assert quantity_bytes("2300Mi") == 2300 * 1024 * 1024


@pytest.mark.parametrize("text", ["", "-1", "1gi", "Mi", "1e3"])
def test_what_is_no_quantity_is_named(text):
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


@given(st.floats(50e-6, 190))
def test_a_latency_lies_in_its_bucket(latency_s):
    bucket = histogram.bucket_of(latency_s)
    assert latency_s <= histogram.upper_bound_s(bucket) * (1 + 1e-9)
    assert bucket == 0 or latency_s > histogram.upper_bound_s(bucket - 1) * (1 - 1e-9)


@given(st.lists(st.floats(50e-6, 190), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_off_by_half_a_bucket_at_most(latencies, q):
    counts = histogram.merge({histogram.bucket_of(value): 1} for value in latencies)
    rank = max(1, -int(-q * len(latencies) // 1))
    exact = sorted(latencies)[rank - 1]
    assert histogram.quantile_s(counts, q) == pytest.approx(exact, rel=2 ** (1 / 16) - 1 + 1e-6)


COUNTS = st.dictionaries(st.integers(0, 175), st.integers(1, 1000))


@given(COUNTS, COUNTS)
def test_the_difference_of_two_readings_is_what_was_added(before, added):
    assert histogram.difference(histogram.merge([before, added]), before) == added


def test_nothing_counted_has_no_quantile():
    assert histogram.quantile_s({}, 0.5) is None


def table(workers):
    serves = [Served(revision="r1", model="resnet50", limit=4)]
    return RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name="vision", uid="u"),
        sequence=7,
        workers=[
            RoutedWorker(id=f"pod-{n}", address="10.0.0.1", revision="r1", serves=serves)
            for n in range(workers)
        ],
    )


def test_a_small_table_has_no_parts():
    whole = table(3)
    assert split(whole) == (whole, {})


@given(st.integers(1, 60), st.integers(600, 5000))
def test_split_and_assembled_is_the_same_table(workers, max_bytes):
    whole = table(workers)
    index, parts = split(whole, max_bytes)
    assert assemble(index, parts) == whole
    for part in parts.values():
        assert len(part.workers) == 1 or len(canonical_json(part)) <= max_bytes + 600


def test_a_missing_part_is_no_table():
    index, parts = split(table(50), 2000)
    first, *_ = parts
    assert assemble(index, {name: part for name, part in parts.items() if name != first}) is None


def test_a_part_of_other_content_is_no_table():
    index, parts = split(table(50), 2000)
    first, *_ = parts
    changed = parts[first].model_copy(update={"workers": parts[first].workers[:-1]})
    assert assemble(index, {**parts, first: changed}) is None


def test_an_unchanged_part_keeps_its_name():
    _, before = split(table(50), 2000)
    _, after = split(table(50).model_copy(update={"sequence": 8}), 2000)
    assert before.keys() == after.keys()
