"""Agents and routers that lie, and values at the edge: a decision never raises for them."""

import math
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_api.routerstate import QueueState, RouterState, SeriesState
from tidegate_api.state import DeviceState, ModelState, Phase, Traits, WindowState, WorkerState
from tidegate_operator.core.decide import decide
from tidegate_operator.core.observation import Scrape

NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, -1.0, math.nan, math.inf, 1e308]))
COUNTS = st.integers(0, 10**18)
ANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

MODELS = st.builds(
    ModelState.model_construct,
    name=st.sampled_from(["resnet50", "other", "x" * 500]),
    version=st.sampled_from(["1", "9" * 50]),
    ready=st.booleans(),
    reason=st.sampled_from(["", "ModelFetchFailed", "?"]),
    message=st.text(max_size=5),
    queue=COUNTS,
    in_flight=COUNTS,
    success_ratio=st.one_of(st.none(), NUMBERS),
    requests_per_second=st.one_of(st.none(), NUMBERS),
    p50_ms=st.one_of(st.none(), NUMBERS),
    traits=st.builds(
        Traits,
        dynamic_batching=st.booleans(),
        max_batch_size=st.integers(-5, 10**6),
        instances=st.integers(-5, 10**6),
    ),
)
DEVICES = st.builds(
    DeviceState.model_construct,
    uuid=st.just("d"),
    memory_used_bytes=st.one_of(st.none(), COUNTS),
    memory_total_bytes=st.one_of(st.none(), COUNTS),
    utilization_ratio=st.one_of(st.none(), NUMBERS),
    temperature_celsius=st.one_of(st.none(), NUMBERS),
)
STATES = st.builds(
    WorkerState.model_construct,
    uid=st.just("u"),
    phase=st.sampled_from(list(Phase)),
    reason=st.sampled_from(["", "BackendNotInImage", "?"]),
    models=st.lists(MODELS, max_size=80),
    devices=st.lists(DEVICES, max_size=3),
    window=st.builds(
        WindowState.model_construct,
        utilization_ratio=st.one_of(st.none(), NUMBERS),
        memory_ratio=st.one_of(st.none(), NUMBERS),
    ),
    memory_pressure=st.none(),
    thermal=st.none(),
)


@ANY
@given(states=st.lists(STATES, min_size=1, max_size=3))
def test_lying_agents_change_scores_and_nothing_else(world, make, states):
    one = world(raw=make.pool(replicas=3))
    one.run(8)
    memory = one.memory
    for round_ in range(3):
        seen = one.observe()
        at_s = one.now_s + 1 + round_
        scrapes = {
            pod.uid: Scrape(scraped_s=at_s, state=states[index % len(states)])
            for index, pod in enumerate(seen.pods)
        }
        decision = decide(replace(seen, scrapes=scrapes, now_s=at_s), memory)
        memory = decision.memory
        assert decision.deletes == ()
        assert not any(manifest.kind == "RouteTable" for manifest in decision.applies)
        if decision.table is not None:
            check(decision.table.spec)


def check(table):
    assert len(table.workers) == 3
    assert not any(worker.draining for worker in table.workers)
    for worker in table.workers:
        assert worker.score is None or 0.0 <= worker.score <= 1.0
        assert {served.model for served in worker.serves} <= {"resnet50"}
        assert all(served.limit >= 1 for served in worker.serves)


INTEGERS = st.integers(-(10**18), 10**18)


@ANY
@given(
    values=st.lists(
        st.tuples(INTEGERS, INTEGERS, INTEGERS, st.integers(-5, 10**6), INTEGERS), max_size=80
    )
)
def test_lying_routers_keep_shares_in_range(world, make, values):
    one = world(raw=make.pool(replicas=1))
    one.run(8)
    memory = one.memory
    for round_ in range(2):
        seen = one.observe()
        members = tuple(
            replace(
                seen.routers[0],
                name=f"r{index}",
                scraped_s=one.now_s + round_,
                state=router_state(index, row, round_),
            )
            for index, row in enumerate(values)
        )
        decision = decide(replace(seen, routers=members), memory)
        memory = decision.memory
        if decision.table is not None:
            assert all(0 <= item.share <= 1 for item in decision.table.spec.routers)
        assert decision.status is not None


def router_state(index, row, round_):
    requests, waiting, in_flight, bucket, count = row
    series = SeriesState(
        namespace="ml",
        pool="vision",
        uid="pool-uid",
        revision="r",
        model="m",
        requests=requests * (1 + round_),
        client_latency=[(bucket, count * (1 + round_))],
    )
    queue = QueueState(namespace="ml", pool="vision", waiting=waiting, in_flight=in_flight)
    return RouterState(instance=f"{index}" * 100, synced=True, series=[series], queues=[queue])
