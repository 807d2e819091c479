import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.state import ModelState, Traits
from tidegate_operator.core.limits import adapt, current_limit, start_limit
from tidegate_operator.core.memory import ModelMemory


@pytest.mark.parametrize(
    ("traits", "expected"),
    [
        pytest.param(Traits(instances=1), 2, id="one-instance-without-batching"),
        pytest.param(Traits(instances=4), 8, id="two-per-instance-without-batching"),
        pytest.param(
            Traits(instances=2, dynamic_batching=True, max_batch_size=8),
            32,
            id="two-full-batches-per-instance",
        ),
        pytest.param(
            Traits(instances=2, max_batch_size=8), 4, id="batch-size-alone-does-not-batch"
        ),
        pytest.param(Traits(instances=0), 2, id="no-instance-counts-as-one"),
        pytest.param(
            Traits(dynamic_batching=True, max_batch_size=0), 2, id="batching-of-size-0-is-1"
        ),
    ],
)
def test_the_start_limit_follows_the_loaded_config(traits, expected):
    assert start_limit(traits) == expected
    assert current_limit(traits, None) == expected


BATCHING = Traits(instances=2, dynamic_batching=True, max_batch_size=8)  # start 32


def seen(queue):
    return ModelState(ready=True, name="m", queue=queue, traits=BATCHING)


def test_it_grows_by_a_batch_while_routers_queue_and_triton_does_not():
    memory = adapt(ModelMemory(), seen(0), waiting_in_routers=3)
    assert memory.limit == 40


def test_it_rests_when_nobody_queues():
    assert adapt(ModelMemory(), seen(0), waiting_in_routers=0).limit == 32


def test_it_shrinks_only_at_the_third_pressed_scrape_in_a_row():
    memory = ModelMemory()
    limits = []
    for _ in range(3):
        memory = adapt(memory, seen(17), waiting_in_routers=9)
        limits.append(memory.limit)
    assert limits == [32, 32, pytest.approx(28.8)]


def test_a_relaxed_scrape_starts_the_count_anew():
    memory = ModelMemory()
    for queue in (17, 17, 16, 17, 17):
        memory = adapt(memory, seen(queue), waiting_in_routers=0)
    assert memory.limit == 32


@given(steps=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 50)), max_size=80))
def test_it_stays_within_instances_and_four_times_the_start(steps):
    memory = ModelMemory()
    for queue, waiting in steps:
        memory = adapt(memory, seen(queue), waiting)
        assert 2 <= memory.limit <= 128
        assert 1 <= current_limit(BATCHING, memory) <= 128
