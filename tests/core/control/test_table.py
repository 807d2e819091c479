import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import PoolIdentity, RoutedWorker, RouterShare, RouteTableSpec, Served
from tidegate_api.state import Pressure
from tidegate_operator.core.decision import TableChange
from tidegate_operator.core.table import classify


@pytest.fixture
def ready(world, make):
    running = world(raw=make.pool(replicas=2))
    running.run(8)
    return running


def worker(uid="a", **more):
    base = {"id": uid, "address": "10.0.0.1", "revision": "r", "score": 0.5, "score_age_s": 0.0}
    return RoutedWorker(**{**base, **more})


def table(*workers, **more):
    identity = PoolIdentity(namespace="ml", name="p", uid="u")
    return RouteTableSpec(**{"pool": identity, "sequence": 1, "workers": list(workers), **more})


SERVES = [Served(revision="r", model="m", limit=4)]
MORE = [Served(revision="r", model="m", limit=5)]
SLEEPS = [Served(revision="r", model="m", limit=4, ready=False)]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param(None, table(), TableChange.URGENT, id="the-first-table"),
        pytest.param(table(), table(sequence=9), None, id="a-sequence-alone-is-no-change"),
        pytest.param(table(), table(worker()), TableChange.URGENT, id="a-new-worker"),
        pytest.param(table(worker()), table(), TableChange.URGENT, id="a-worker-left"),
        pytest.param(
            table(worker()), table(worker(draining=True)), TableChange.URGENT, id="draining"
        ),
        pytest.param(table(worker()), table(worker(ready=False)), TableChange.URGENT, id="unready"),
        pytest.param(
            table(worker()), table(worker(address="10.0.0.2")), TableChange.URGENT, id="address"
        ),
        pytest.param(
            table(worker(serves=SERVES)),
            table(worker(serves=SLEEPS)),
            TableChange.URGENT,
            id="a-model-became-unready",
        ),
        pytest.param(
            table(worker(serves=SERVES)),
            table(worker(serves=MORE)),
            TableChange.SCORES,
            id="a-limit-adapts-with-the-scores",
        ),
        pytest.param(
            table(worker()), table(worker(score=0.55)), None, id="0.05-is-within-the-deadband"
        ),
        pytest.param(
            table(worker()), table(worker(score=0.56)), TableChange.SCORES, id="0.06-is-beyond"
        ),
        pytest.param(
            table(worker(score=None)), table(worker()), TableChange.SCORES, id="first-score"
        ),
        pytest.param(
            table(worker()),
            table(worker(pressure=Pressure.CRITICAL)),
            TableChange.SCORES,
            id="a-level-changed",
        ),
        pytest.param(
            table(worker()), table(worker(score_age_s=5.0)), None, id="5-s-older-may-pass"
        ),
        pytest.param(
            table(worker()),
            table(worker(score_age_s=6.0)),
            TableChange.SCORES,
            id="an-ageing-score-must-not-look-fresh",
        ),
        pytest.param(
            table(worker(score_age_s=9.0)), table(worker()), None, id="a-fresher-score-may-pass"
        ),
        pytest.param(
            table(),
            table(routers=[RouterShare(instance="a", share=1)]),
            TableChange.SCORES,
            id="a-new-router",
        ),
    ],
)
def test_what_changed_decides_how_soon(before, after, expected):
    assert classify(before, after) is expected


def test_many_small_steps_do_not_creep_past_the_deadband():
    published = table(worker(score=0.5))
    writes = 0
    for step in range(100):
        now = table(worker(score=0.5 + step * 0.004))
        if classify(published, now):
            published, writes = now, writes + 1
        assert abs(now.workers[0].score - published.workers[0].score) <= 0.05 + 1e-9
    assert writes < 10


def test_a_worker_is_listed_from_its_first_readiness(world):
    one = world()
    one.run(3)
    assert one.published.spec.workers == []
    one.run(3)
    assert [worker.ready for worker in one.published.spec.workers] == [True]


def test_an_unready_worker_stays_listed_as_such(ready):
    pod = next(iter(ready.pods.values()))
    pod.ready, pod.created_s = False, ready.now_s
    ready.tick()
    assert not ready.listed()[pod.name].ready


def test_a_failed_scrape_never_means_not_ready(ready):
    next(iter(ready.pods.values())).silent = True
    ready.run(3)
    assert all(worker.ready for worker in ready.listed().values())


def test_if_most_scrapes_fail_together_the_last_readiness_holds(ready):
    for pod in ready.pods.values():
        pod.silent = True
    ready.tick()
    observed = ready.observe()
    unready = tuple(_unready(pod) for pod in observed.pods)
    ready.extra = {"pods": unready, "scrapes": observed.scrapes}
    ready.tick()
    assert all(worker.ready for worker in ready.listed().values())


def test_if_few_fail_the_api_decides(ready):
    ready.tick()
    observed = ready.observe()
    ready.extra = {"pods": tuple(_unready(pod) for pod in observed.pods)}
    ready.tick()
    assert not any(worker.ready for worker in ready.listed().values())


def _unready(pod):
    return type(pod)(**{**{f: getattr(pod, f) for f in pod.__slots__}, "ready": False})


def test_a_new_operator_keeps_published_scores_until_it_measured(ready):
    ready.memory = type(ready.memory)()
    ready.extra = {"scrapes": {}}
    assert ready.tick().table is None


def test_a_silent_agents_score_grows_old_in_the_table(ready):
    next(iter(ready.pods.values())).silent = True
    ages = set()
    before = ready.published.spec.sequence
    for _ in range(20):
        ready.tick()
        ages.update(worker.score_age_s for worker in ready.published.spec.workers)
    assert ready.published.spec.sequence > before
    assert max(age for age in ages if age is not None) >= 5.0


def test_policy_is_in_numbers(world, make):
    routing = {"timeout": "1m30s", "retry": {"perTryTimeout": "500ms", "maxBodyBytes": "2Mi"}}
    one = world(raw=make.pool(routing=routing))
    one.tick()
    policy = one.published.spec.policy
    assert policy.timeout_s == 90.0
    assert policy.retry.per_try_timeout_s == 0.5
    assert policy.retry.max_body_bytes == 2 * 1024 * 1024


def test_strategy_and_ejection_are_in_the_policy(world, make):
    routing = {
        "strategy": "LeastLoaded", "failureMode": "FailClosed",
        "ejection": {"consecutiveFailures": 5, "baseEjection": "500ms", "maxEjection": "1m"},
    }  # fmt: skip
    one = world(raw=make.pool(routing=routing))
    one.tick()
    policy = one.published.spec.policy
    assert (policy.strategy, policy.failure_mode) == ("LeastLoaded", "FailClosed")
    ejection = policy.ejection
    assert (ejection.consecutive_failures, ejection.base_s, ejection.max_s) == (5, 0.5, 60.0)
    assert ejection.max_ejected_percent == 50


def test_what_is_served_comes_from_the_loaded_config(ready):
    served = next(iter(ready.listed().values())).serves[0]
    assert served.limit == 16
    assert served.traits.dynamic_batching
    assert served.idempotent


def test_a_large_table_is_split_and_old_parts_go(world, make):
    one = world(raw=make.pool(replicas=1000), routers=[])
    one.run(6)
    assert len(one.published.spec.workers) == 1000
    first = one.published.part_names
    assert len(first) > 1
    one.published = type(one.published)(
        spec=one.published.spec, written_s=one.now_s, part_names=(*first, "vision-part-old")
    )
    for pod in list(one.pods.values())[:3]:
        pod.ready, pod.created_s = False, one.now_s
    plan = one.tick().table
    assert "vision-part-old" in plan.stale_parts
    assert not set(plan.stale_parts) & {part.name for part in plan.parts}


@given(
    now_s=st.floats(min_value=0, max_value=4e9, allow_nan=False),
    lag=st.integers(0, 10**13),
)
def test_a_sequence_only_grows_even_when_the_clock_does_not(world, now_s, lag):
    one = world(now_s=now_s)
    one.tick()
    spec = one.published.spec.model_copy(update={"sequence": lag})
    one.published = type(one.published)(spec=spec, written_s=0.0)
    one.edit(routing={"timeout": "1s"})
    plan = one.tick().table
    assert plan.spec.sequence > lag
    assert plan.spec.sequence >= math.floor(one.now_s * 1000)
