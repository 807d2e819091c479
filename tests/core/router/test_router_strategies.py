"""Every strategy chooses as it says, and all leave out the same workers."""

import random
from collections import Counter
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import Strategy
from tidegate_api.state import Pressure
from tidegate_router.core import alias, pick
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Attempt, Wait
from tidegate_router.core.slot import Slot

DRAWS = 100_000
EVERY = pytest.mark.parametrize("strategy", list(Strategy))


def a_tier(make_worker, weights, loads=(), limit=1000):
    found = tuple(
        Candidate(
            worker=make_worker(f"w{n}"), served=make_worker("x").serves[0], limit=limit,
            slot=Slot(in_flight=loads[n] if loads else 0), weight=weight, median_s=0.01,
        )
        for n, weight in enumerate(weights)
    )  # fmt: skip
    return pick.Tier(0, found, alias.build(weights))


def counts(tier, strategy, draws, seed=5):
    uniform = random.Random(seed).random
    return Counter(
        pick.choose((tier,), None, 3, uniform, 0.0, strategy).candidate.worker.id
        for _ in range(draws)
    )


def within_3_sigma(seen, shares):
    total = sum(seen.values())
    return all(
        abs(seen[name] - total * share) <= 3 * sqrt(total * share * (1 - share))
        for name, share in shares.items()
    )


@pytest.mark.parametrize("size", [4, 40], ids=["looked-through", "by-alias-table"])
def test_random_is_even_within_3_sigma(make_worker, size):
    weights = [0.05 + 0.9 * (n % 3) / 2 for n in range(size)]
    seen = counts(a_tier(make_worker, weights), Strategy.RANDOM, DRAWS)
    assert within_3_sigma(seen, {f"w{n}": 1 / size for n in range(size)})


@pytest.mark.parametrize("size", [4, 40], ids=["looked-through", "by-alias-table"])
def test_weighted_follows_the_weights_within_3_sigma(make_worker, size):
    weights = [0.05 + 0.9 * (n % 3) / 2 for n in range(size)]
    loads = [n % 5 for n in range(size)]
    seen = counts(a_tier(make_worker, weights, loads), Strategy.WEIGHTED, DRAWS)
    assert within_3_sigma(seen, {f"w{n}": w / sum(weights) for n, w in enumerate(weights)})


def test_random_and_weighted_hold_for_whole_requests(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}", limit=9, score=0.2 + 0.2 * n) for n in range(4)]
    for strategy, shares in (("Random", [1, 1, 1, 1]), ("Weighted", [0.2, 0.4, 0.6, 0.8])):
        one = harness(make_table(*workers, policy={"strategy": strategy}))
        seen = Counter(request(one) for _ in range(20_000))
        total = sum(shares)
        assert within_3_sigma(seen, {f"w{n}": part / total for n, part in enumerate(shares)})


def request(one, **ask):
    route = one.plan(**ask)
    attempt = one.next(route)
    one.settle(route, attempt, Outcome.OK)
    one.dispatcher.finish(route, one.now_s)
    return attempt.worker_id


def test_round_robin_takes_turns_and_skips_who_is_not_free(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}", limit=1) for n in range(5)]
    one = harness(make_table(*workers, policy={"strategy": "RoundRobin"}))
    held = one.next(one.plan())
    order = [request(one) for _ in range(8)]
    assert order[:4] == order[4:]
    assert set(order) == {worker.id for worker in workers} - {held.worker_id}


def test_round_robin_goes_on_after_a_rebuild(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}") for n in range(3)]
    one = harness(make_table(*workers, policy={"strategy": "RoundRobin"}))
    order = []
    for _ in range(6):
        order.append(request(one))
        one.now_s += 2
    assert order[:3] == order[3:]
    assert len(set(order)) == 3


def test_routers_begin_their_turns_at_different_workers(harness, make_worker, make_table):
    table = make_table(*(make_worker(f"w{n}") for n in range(9)), policy={"strategy": "RoundRobin"})
    assert len({request(harness(table, seed=seed)) for seed in range(30)}) > 3


def test_least_loaded_counts_load_by_limit(harness, make_worker, make_table):
    small, large = make_worker("small", limit=2), make_worker("large", limit=8)
    one = harness(make_table(small, large, policy={"strategy": "LeastLoaded"}))
    taken = Counter(one.next(one.plan()).worker_id for _ in range(10))
    assert taken == {"small": 2, "large": 8}
    one = harness(make_table(small, large, policy={"strategy": "LeastLoaded"}))
    for _ in range(5):
        one.next(one.plan())
    loads = {name: slot.in_flight for (name, _, _), slot in one.dispatcher._slots.items()}
    assert loads == {"small": 1, "large": 4}


def test_least_loaded_shares_out_what_is_equal(make_worker):
    seen = counts(a_tier(make_worker, [1.0] * 5), Strategy.LEAST_LOADED, 20_000)
    assert within_3_sigma(seen, {f"w{n}": 0.2 for n in range(5)})


@pytest.mark.parametrize("size", [6, 60], ids=["looked-through", "drawn"])
def test_of_two_the_less_loaded_is_taken(make_worker, size):
    tier = a_tier(make_worker, [1.0] * size, loads=[1] + [0] * (size - 1))
    seen = counts(tier, Strategy.POWER_OF_TWO, 30_000)
    assert seen["w0"] == 0
    tier = a_tier(make_worker, [1.0] * size, loads=[0] + [1] * (size - 1))
    share = 2 / size  # the chance to be one of two
    assert within_3_sigma(counts(tier, Strategy.POWER_OF_TWO, 30_000), {"w0": share})


@EVERY
@given(st.integers(0, 2**32), st.integers(2, 14))
def test_no_strategy_exceeds_a_limit_or_waits_while_a_slot_is_free(
    harness, make_worker, make_table, strategy, seed, size
):
    workers = [make_worker(f"w{n}", limit=1 + n % 3) for n in range(size)]
    one = harness(make_table(*workers, policy={"strategy": strategy.value}), seed=seed)
    slots = sum(worker.serves[0].limit for worker in workers)
    taken = [one.next(one.plan()) for _ in range(slots)]
    assert all(isinstance(attempt, Attempt) for attempt in taken)
    seen = Counter(attempt.worker_id for attempt in taken)
    assert seen == {worker.id: worker.serves[0].limit for worker in workers}
    assert isinstance(one.next(one.plan()), Wait)


@EVERY
@pytest.mark.parametrize(
    "unfit",
    [{"draining": True}, {"address": ""}, {"ready": False}, {"pressure": Pressure.CRITICAL}],
    ids=["draining", "without-address", "not-ready", "critical"],
)
def test_every_strategy_leaves_out_the_unfit(harness, make_worker, make_table, strategy, unfit):
    workers = [make_worker("a"), make_worker("b"), make_worker("bad", **unfit)]
    one = harness(make_table(*workers, policy={"strategy": strategy.value}))
    assert {request(one) for _ in range(60)} == {"a", "b"}


@EVERY
def test_every_strategy_leaves_out_who_is_down(harness, make_worker, make_table, strategy):
    table = make_table(*(make_worker(name) for name in "abc"), policy={"strategy": strategy.value})
    one = harness(table)
    request(one)
    one.dispatcher.down.unreachable("b", one.now_s)
    assert {request(one) for _ in range(60)} == {"a", "c"}


@EVERY
def test_every_strategy_explains_itself(harness, make_worker, make_table, strategy):
    one = harness(make_table(make_worker("a"), policy={"strategy": strategy.value}))
    route = one.plan()
    attempt = one.next(route)
    assert "chose=a relaxed=0 candidates=1 drew a(w=" in one.dispatcher.explain(route, attempt)


@pytest.mark.parametrize("weight", [1, 5, 10, 50])
def test_a_canary_strays_by_at_most_25_requests_at_every_prefix(
    harness, make_worker, make_table, weight
):
    workers = [make_worker("s", revision="stable"), make_worker("c", revision="canary")]
    one = harness(make_table(*workers, weights={"stable": 100 - weight, "canary": weight}))
    seen = 0
    for number in range(1, 5001):
        one.now_s += 0.001
        seen += request(one) == "c"
        assert abs(seen - weight * number / 100) <= 25
    assert seen == 50 * weight
