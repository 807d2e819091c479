"""Whose a model name is, whose turn it is, what one pick chooses, and what is counted."""

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.histogram import bucket_of
from tidegate_api.names import DroppedReason
from tidegate_router.core import alias, lookup, pick
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.series import SeriesBook, SeriesKey
from tidegate_router.core.slot import Slot


def a_pool(make_table, make_worker, name, created, *models, namespace="ns"):
    workers = [make_worker(f"{name}-{model}", model=model) for model in models]
    return make_table(*workers, uid=f"u-{name}", name=name, namespace=namespace, created_at=created)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(("b", "2026-01-01T00:00:00Z", "ns"), ("a", "2026-01-02T00:00:00Z", "ns"),
                     id="the-older"),
        pytest.param(("b", "2026-01-01T00:00:00Z", "n1"), ("a", "2026-01-01T00:00:00Z", "n2"),
                     id="of-one-age-the-first-namespace"),
        pytest.param(("a", "2026-01-01T00:00:00Z", "ns"), ("b", "2026-01-01T00:00:00Z", "ns"),
                     id="then-the-first-name"),
    ],
)  # fmt: skip
def test_a_bare_name_belongs_to(one, two, make_table, make_worker):
    tables = [
        a_pool(make_table, make_worker, name, created, "m", namespace=namespace)
        for name, created, namespace in (one, two)
    ]
    for order in (tables, tables[::-1]):
        assert lookup.build(order).find("", "m", bare_names=True) == f"u-{one[0]}"


@given(st.permutations(range(6)), st.integers(0, 5))
def test_neither_order_nor_newcomers_move_a_name(make_table, make_worker, order, newer):
    tables = [
        a_pool(make_table, make_worker, f"p{n}", f"2026-01-0{n + 1}T00:00:00Z", "m")
        for n in range(6)
    ]
    assert lookup.build(tables[n] for n in order).find("", "m", bare_names=True) == "u-p0"
    few = [tables[0], *tables[newer:]]
    assert lookup.build(few).find("", "m", bare_names=True) == "u-p0"


@pytest.mark.parametrize(
    ("pool", "model", "bare", "expected"),
    [
        pytest.param("ns/a", "m", True, "u-a", id="named"),
        pytest.param("ns/a", "m", False, "u-a", id="named-where-bare-names-are-off"),
        pytest.param("ns/a", "x", True, DroppedReason.UNKNOWN_MODEL, id="not-its-model"),
        pytest.param("ns/x", "m", True, DroppedReason.UNKNOWN_POOL, id="no-such-pool"),
        pytest.param("a", "m", True, DroppedReason.UNKNOWN_POOL, id="without-its-namespace"),
        pytest.param("", "x", True, DroppedReason.UNKNOWN_MODEL, id="nobodys-model"),
        pytest.param("", "m", False, DroppedReason.UNKNOWN_MODEL, id="bare-names-are-off"),
    ],
)
def test_lookups(make_table, make_worker, pool, model, bare, expected):
    index = lookup.build([a_pool(make_table, make_worker, "a", "", "m")])
    found = index.find(pool, model, bare_names=bare)
    assert (found.reason if isinstance(found, Refusal) else found) == expected


def test_of_two_pools_of_one_name_the_newer_is_meant_by_it(make_table, make_worker):
    old = a_pool(make_table, make_worker, "a", "2026-01-01T00:00:00Z", "m")
    new = make_table(
        make_worker("w", model="m"), uid="u-new", name="a", created_at="2026-01-02T00:00:00Z"
    )
    for order in ([old, new], [new, old]):
        assert lookup.build(order).find("ns/a", "m", bare_names=True) == "u-new"


def test_a_pool_at_zero_owns_the_names_that_its_table_says(make_table, make_worker):
    at_zero = make_table(uid="u-a", name="a", models=["m"])
    assert lookup.build([at_zero]).find("", "m", bare_names=True) == "u-a"
    served = make_table(make_worker("w", model="n"), uid="u-a", name="a", models=["m"])
    found = lookup.build([served]).find("", "m", bare_names=True)
    assert isinstance(found, Refusal), "workers know better"


def test_a_pool_that_dropped_a_model_loses_the_name_and_one_without_workers_does_not(
    make_table, make_worker
):
    first = lookup.build([a_pool(make_table, make_worker, "a", "", "m", "n")])
    emptied = lookup.build([a_pool(make_table, make_worker, "a", "")], first)
    assert emptied.find("", "m", bare_names=True) == "u-a"
    changed = lookup.build([a_pool(make_table, make_worker, "a", "", "n")], emptied)
    assert isinstance(changed.find("", "m", bare_names=True), Refusal)


def candidates(make_worker, *weights, limit=4, **slots):
    return tuple(
        Candidate(
            worker=make_worker(f"w{n}"), served=make_worker("x").serves[0], limit=limit,
            slot=Slot(in_flight=slots.get(f"w{n}", 0)), weight=weight, median_s=0.01,
        )
        for n, weight in enumerate(weights)
    )  # fmt: skip


def tier(found, level=0):
    return pick.Tier(level, found, alias.build([one.weight for one in found]))


def free(one):
    return one.slot.in_flight < one.limit


def drawn(tiers, times, *, top_k=3, allowed=free, seed=3):
    uniform = random.Random(seed).random
    found = (pick.choose(tiers, allowed, top_k, uniform, 0.0) for _ in range(times))
    return Counter(one.candidate.worker.id for one in found)


def test_nobody_is_chosen_where_nobody_is_allowed(make_worker):
    tiers = (tier(candidates(make_worker, 1, 1)),)
    assert pick.choose(tiers, lambda _: False, 3, random.Random(1).random, 0.0) is None
    assert pick.choose((), free, 3, random.Random(1).random, 0.0) is None


@pytest.mark.parametrize("size", [3, 12])
def test_a_worker_at_its_limit_is_never_chosen(make_worker, size):
    tiers = (tier(candidates(make_worker, *[1.0] * size, w0=4)),)
    assert "w0" not in drawn(tiers, 500)


def test_the_lax_tier_is_for_when_the_strict_one_has_nobody(make_worker):
    found = candidates(make_worker, 0.05, 1.0)
    tiers = (tier(found[:1]), tier(found, level=2))
    assert set(drawn(tiers, 200)) == {"w0"}
    chosen = pick.choose(tiers, lambda one: one is found[1], 3, random.Random(1).random, 0.0)
    why = pick.pick_of(chosen)
    assert (why.worker, why.relaxed, why.candidates) == ("w1", 2, 2)


def test_the_last_free_one_of_a_thousand_is_found(make_worker):
    found = candidates(make_worker, *[1.0] * 1000)
    tiers = (tier(found),)
    assert set(drawn(tiers, 20, allowed=lambda one: one is found[777])) == {"w777"}


@pytest.mark.parametrize("size", [3, 9])
def test_twice_the_cost_is_an_eighth_of_the_odds(make_worker, size):
    found = candidates(make_worker, *[1.0] * size, w0=1)
    of_three = drawn((tier(found),), 30_000, top_k=size)
    expected = (1 / 8) / (size - 1 + 1 / 8)
    assert of_three["w0"] / 30_000 == pytest.approx(expected, rel=0.15)


def test_of_one_drawn_candidate_the_weight_alone_decides(make_worker):
    found = candidates(make_worker, *[1.0] * 9, 0.5)
    share = drawn((tier(found),), 30_000, top_k=1)["w9"] / 30_000
    assert share == pytest.approx(0.5 / 9.5, rel=0.12)


@given(
    st.lists(st.floats(0.05, 1), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(0, 2**32),
)
def test_a_pick_considers_at_most_top_k_distinct_allowed_ones(make_worker, weights, top_k, seed):
    found = candidates(make_worker, *weights)
    allowed = {one.worker.id for one in found[::2]}
    choice = pick.choose(
        (tier(found),), lambda one: one.worker.id in allowed, top_k, random.Random(seed).random, 0.0
    )
    why = pick.pick_of(choice)
    names = [one.worker for one in why.considered]
    assert len(set(names)) == len(names) == min(top_k, len(allowed))
    assert set(names) <= allowed
    assert choice.candidate.worker.id in names
    assert all(one.cost > 0 and math.isfinite(one.cost) for one in why.considered)


def test_an_explanation_is_one_line_of_plain_characters(make_worker):
    choice = pick.choose(
        (tier(candidates(make_worker, 1, 1)),), free, 2, random.Random(1).random, 0.0
    )
    text = pick.explain(choice)
    assert text.isascii()
    assert text.isprintable()
    assert "relaxed=0 candidates=2" in text


KEY = SeriesKey(uid="u", namespace="ns", pool="p", revision="r", model="m", accelerator="cpu")


@pytest.mark.parametrize(
    ("outcome", "name", "timed"),
    [
        (Outcome.OK, "ok", True),
        (Outcome.CLIENT, "client", False),
        (Outcome.MODEL_ERROR, "model_error", True),
        (Outcome.NEVER_RAN, "worker_fault", False),
        (Outcome.UNREACHABLE, "worker_fault", False),
        (Outcome.LOST, "worker_fault", False),
        (Outcome.TIMEOUT, "timeout", True),
        (Outcome.CANCELLED, "cancelled", False),
    ],
)
def test_each_end_is_counted_as_one_thing(outcome, name, timed):
    book = SeriesBook()
    book.of(KEY).count_attempt(outcome, 0.02)
    (state,) = book.states()
    counts = state.attempts.model_dump()
    assert counts.pop(name) == 1
    assert set(counts.values()) == {0}
    assert state.attempt_latency == ([(bucket_of(0.02), 1)] if timed else [])


def test_the_time_of_a_request_that_nobody_answered_is_not_counted():
    book = SeriesBook()
    book.of(KEY).count_request(0.5, answered=False)
    book.of(KEY).count_request(0.02, answered=True)
    (state,) = book.states()
    assert (state.requests, state.client_latency) == (2, [(bucket_of(0.02), 1)])


def test_the_counts_of_a_pool_that_is_gone_are_dropped():
    book = SeriesBook()
    book.of(KEY).count_request(0.5, answered=True)
    book.forget_except({"other"})
    assert book.states() == []


def test_requests_in_flight_while_a_pools_table_was_away_are_not_taken_off_twice(
    harness, make_worker, make_table
):
    one = harness(make_table(make_worker("a")))
    old = [one.plan() for _ in range(3)]
    gone, one.tables = list(one.tables), {}
    one.dispatcher.apply(one.tables, gone, one.now_s)
    one.now_s += 1
    one.apply(make_table(make_worker("a"), sequence=2))
    one.now_s += 1
    new = one.plan()
    for route in old:
        one.dispatcher.finish(route, one.now_s)
    (view,) = one.dispatcher.pools.values()
    assert view.in_flight == 1
    one.dispatcher.finish(new, one.now_s)
    assert view.in_flight == 0
