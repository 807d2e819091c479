import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import Reason
from tidegate_api.pool import AcceleratorClass, ClassReplicas
from tidegate_operator.core.allotment import allot


def classes(*bounds):
    return [
        AcceleratorClass(name=f"c{index}", kind="CPU", replicas=ClassReplicas(min=low, max=high))
        for index, (low, high) in enumerate(bounds)
    ]


@pytest.mark.parametrize(
    ("replicas", "bounds", "counts", "limited"),
    [
        pytest.param(3, [(0, 2), (0, None)], [2, 1], None, id="list-order-up-to-the-maximum"),
        pytest.param(3, [(0, None), (2, None)], [1, 2], None, id="minima-come-first"),
        pytest.param(
            1, [(1, None), (1, None)], [1, 1], Reason.TOO_FEW_REPLICAS, id="minima-run-anyway"
        ),
        pytest.param(
            9, [(0, 2), (0, 3)], [2, 3], Reason.TOO_MANY_REPLICAS, id="maxima-hold-anyway"
        ),
        pytest.param(0, [(None, None)], [0], None, id="zero-is-zero"),
        pytest.param(
            0, [(1, None)], [1], Reason.TOO_FEW_REPLICAS, id="a-minimum-beats-zero-replicas"
        ),
        pytest.param(2, [(2, 2)], [2], None, id="exactly-full-is-not-limited"),
        pytest.param(
            5, [(3, 1), (0, None)], [3, 2], None, id="a-minimum-above-its-maximum-still-runs"
        ),
        pytest.param(4, [(0, 0), (0, None)], [0, 4], None, id="a-class-of-maximum-0-is-off"),
    ],
)
def test_replicas_spread_over_classes(replicas, bounds, counts, limited):
    result = allot(replicas, classes(*bounds))
    assert list(result.counts.values()) == counts
    assert result.limited == limited
    assert bool(result.message) == (limited is not None)


def test_a_class_without_bounds_takes_all():
    only = [AcceleratorClass(name="cpu", kind="CPU")]
    assert allot(7, only).counts == {"cpu": 7}


BOUNDS = st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(0, 8)))


@given(replicas=st.integers(0, 40), bounds=st.lists(BOUNDS, min_size=1, max_size=5))
def test_every_count_lies_in_its_bounds_and_the_sum_is_explained(replicas, bounds):
    result = allot(replicas, classes(*bounds))
    for (low, high), count in zip(bounds, result.counts.values(), strict=True):
        assert count >= low
        assert high is None or count <= max(low, high)
    if result.limited is None:
        assert result.total == replicas
    elif result.limited is Reason.TOO_FEW_REPLICAS:
        assert result.total == sum(low for low, _ in bounds) > replicas
    else:
        assert result.total == sum(max(low, high) for low, high in bounds) < replicas


@given(replicas=st.integers(0, 30), bounds=st.lists(BOUNDS, min_size=1, max_size=4))
def test_one_more_replica_never_shrinks_a_class(replicas, bounds):
    smaller, larger = (allot(n, classes(*bounds)).counts for n in (replicas, replicas + 1))
    assert all(larger[name] >= smaller[name] for name in smaller)
