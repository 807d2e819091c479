"""Pins, and the last attempt of a failed canary request: who gets it and what is counted."""

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from tidegate_api.routetable import Guard, Pin, Served
from tidegate_router.core import canary, pins
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Call, Step

ALWAYS = pins.given([("x-canary", "always")])
PIN = Pin(revision="new", headers={"x-canary": "always"})


def attempts_of(one):
    """Return {revision: {outcome: count}} of all attempts that analysis reads."""
    found = {}
    for state in one.dispatcher.series.states():
        counts = {key: value for key, value in state.attempts.model_dump().items() if value}
        if counts:
            found[state.revision] = counts
    return found


@pytest.fixture
def two(harness, make_worker, make_table):
    """A stable revision of two workers and a canary of one; more by keyword."""

    def build(*, canaries=1, weight=10, policy=None, stable=2, **fields):
        workers = [make_worker(f"s{n}", revision="old") for n in range(stable)]
        workers += [make_worker(f"c{n}", revision="new") for n in range(canaries)]
        return harness(
            make_table(
                *workers,
                weights={"old": 100 - weight, "new": weight},
                policy=policy or {},
                **fields,
            )
        )

    return build


def drawn_for(one, revision, **fields):
    """Plan until a request is drawn for a revision."""
    for _ in range(200):
        route = one.plan(**fields)
        if route.revision == revision:
            return route
        one.dispatcher.finish(route, one.now_s)
    raise AssertionError(f"nothing was drawn for {revision}")


@pytest.mark.parametrize(
    ("pinned", "known", "found"),
    [
        pytest.param({"a": "1"}, [("a", "1"), ("b", "2")], True, id="borne-among-others"),
        pytest.param({"a": "1", "b": "2"}, [("a", "1")], False, id="only-one-of-two"),
        pytest.param({"a": "1"}, [("A", "1")], True, id="names-in-any-case"),
        pytest.param({"a": "x"}, [("a", "X")], False, id="values-exactly"),
        pytest.param({"a": "1"}, [("a", "0"), ("a", "1")], True, id="one-of-several-values"),
        pytest.param({"a-bin": "1"}, [("a-bin", b"1")], False, id="binary-metadata-matches-none"),
        pytest.param({}, [("a", "1")], False, id="an-empty-pin-pins-nothing"),
    ],
)
def test_a_pin_needs_all_its_pairs(pinned, known, found):
    given = pins.given(known)
    assert (pins.pinned_revisions([Pin(revision="r", headers=pinned)], given) == ["r"]) is found


@pytest.mark.parametrize("weight", [0, 1, 50, 99])
def test_a_pinned_request_goes_to_its_revision_whatever_the_weight(two, weight):
    one = two(weight=weight, pins=[PIN])
    for call in Call:
        routes = [one.plan(given=ALWAYS, call=call) for _ in range(20)]
        assert {(route.revision, route.pinned) for route in routes} == {("new", True)}


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_pinned_request_counts_nothing_that_analysis_reads(two, outcome):
    one = two(pins=[PIN])
    route = one.plan(given=ALWAYS)
    one.settle(route, one.next(route), outcome)
    one.dispatcher.finish(route, one.now_s)
    assert attempts_of(one) == {}
    assert all(not state.attempt_latency for state in one.dispatcher.series.states())


def test_pinned_requests_spend_no_ticket(two):
    one, drawn = two(weight=10, pins=[PIN]), []
    for number in range(100):
        for _ in range(number % 3):
            one.plan(given=ALWAYS)
        drawn.append(one.plan().revision)
    assert drawn.count("new") == 10


@pytest.mark.parametrize("state", ["none", "not-ready", "down", "draining"])
def test_without_a_usable_worker_a_pinned_request_is_drawn_and_counted_like_any(
    harness, make_worker, make_table, state
):
    workers = [make_worker("s", revision="old")]
    if state != "none":
        flags = {"not-ready": {"ready": False}, "draining": {"draining": True}}.get(state, {})
        workers.append(make_worker("c", revision="new", **flags))
    one = harness(make_table(*workers, weights={"old": 100, "new": 0}, pins=[PIN]))
    if state == "down":
        one.dispatcher.down.unreachable("c", one.now_s)
    route = one.plan(given=ALWAYS)
    assert (route.revision, route.pinned) == ("old", False)
    one.settle(route, one.next(route), Outcome.OK)
    assert attempts_of(one) == {"old": {"ok": 1}}


def test_a_pin_to_a_revision_without_the_asked_version_is_not_followed(
    harness, make_worker, make_table
):
    workers = [
        make_worker("s", revision="old", version="1"),
        make_worker("c", revision="new", version="2"),
    ]
    one = harness(make_table(*workers, weights={"old": 100, "new": 0}, pins=[PIN]))
    assert one.plan(given=ALWAYS, version="1").revision == "old"
    assert one.plan(given=ALWAYS, version="2").revision == "new"


def test_a_pinned_request_stays_with_its_revision_until_it_is_refused(two):
    one = two(pins=[PIN])
    route = one.plan(given=ALWAYS)
    assert one.settle(route, one.next(route), Outcome.NEVER_RAN) is Step.RETRY
    assert isinstance(one.next(route), Refusal)
    assert route.revision == "new"


@pytest.mark.parametrize(
    ("revision", "weights", "guards", "rescued"),
    [
        pytest.param("new", {"old": 90, "new": 10}, [], "old", id="less-weight-is-a-canary"),
        pytest.param("old", {"old": 90, "new": 10}, [], None, id="stable-has-no-rescuer"),
        pytest.param("old", {"old": 50, "new": 50}, [], None, id="even-weights-without-guard"),
        pytest.param("new", {"old": 50, "new": 50}, ["new"], "old", id="even-weights-with-guard"),
        pytest.param("new", {"old": 20, "new": 80}, ["new"], "old", id="a-guarded-majority"),
        pytest.param("old", {"old": 20, "new": 80}, ["new"], "new", id="less-weight-although-old"),
        pytest.param("new", {"old": 0, "new": 100}, ["new"], None, id="weight-0-rescues-nobody"),
        pytest.param("new", {"new": 100}, ["new"], None, id="alone"),
        pytest.param("c", {"a": 30, "b": 60, "c": 10}, [], "b", id="the-highest-other"),
        pytest.param("gone", {"old": 100}, [], "old", id="no-weight-any-more"),
    ],
)
def test_who_rescues_whom(revision, weights, guards, rescued):
    assert canary.rescuer(revision, weights, guards) == rescued


def test_the_only_canary_worker_failed_so_stable_answers_and_only_the_failure_counts(two):
    one = two()
    route = drawn_for(one, "new")
    assert one.settle(route, one.next(route), Outcome.NEVER_RAN) is Step.RETRY
    attempt = one.next(route)
    assert attempt.revision == "old"
    assert one.settle(route, attempt, Outcome.OK) is Step.FORWARD
    one.dispatcher.finish(route, one.now_s)
    assert attempts_of(one) == {"new": {"worker_fault": 1}}
    assert not any(state.attempt_latency for state in one.dispatcher.series.states())
    counted = {state.revision: state.requests for state in one.dispatcher.series.states()}
    assert counted["new"] == 1, "the request belongs to the revision that was drawn"


@pytest.mark.parametrize(
    ("outcome", "before"),
    [
        pytest.param(Outcome.NEVER_RAN, 3, id="the-third-free-retry"),
        pytest.param(Outcome.TIMEOUT, 2, id="the-second-paid-retry"),
    ],
)
def test_of_many_canary_workers_only_the_last_retry_leaves(two, outcome, before):
    one = two(canaries=6)
    route = drawn_for(one, "new")
    for _ in range(before):
        attempt = one.next(route)
        assert attempt.revision == "new"
        assert one.settle(route, attempt, outcome) is Step.RETRY
    assert one.next(route).revision == "old"
    [(revision, counts)] = attempts_of(one).items()
    assert (revision, sum(counts.values())) == ("new", before)


@pytest.mark.parametrize("outcome", [Outcome.MODEL_ERROR, Outcome.CLIENT, Outcome.OK])
def test_what_is_no_retry_is_no_rescue(two, outcome):
    one = two()
    route = drawn_for(one, "new")
    assert one.settle(route, one.next(route), outcome) is Step.FORWARD
    assert route.revision == "new"


def test_what_may_have_run_and_must_not_run_twice_is_not_rescued(harness, make_worker, make_table):
    workers = [
        make_worker("s", revision="old", idempotent=False),
        make_worker("c", revision="new", idempotent=False),
    ]
    one = harness(make_table(*workers, weights={"old": 90, "new": 10}))
    route = drawn_for(one, "new")
    assert isinstance(one.settle(route, one.next(route), Outcome.LOST), Refusal)


def test_a_failed_rescue_counts_for_neither(two):
    one = two(policy={"retry": {"attempts": 3}})
    route = drawn_for(one, "new")
    one.settle(route, one.next(route), Outcome.TIMEOUT)
    one.settle(route, one.next(route), Outcome.TIMEOUT)
    assert route.revision == "old"
    assert attempts_of(one) == {"new": {"timeout": 1}}


def test_stables_own_requests_never_go_to_the_canary(two):
    one = two(stable=1)
    route = drawn_for(one, "old")
    one.settle(route, one.next(route), Outcome.NEVER_RAN)
    assert isinstance(one.next(route), Refusal)
    assert route.revision == "old"


def test_a_canary_that_is_down_loses_no_request_and_each_is_its_failure(two):
    one = two()
    one.dispatcher.down.unreachable("c0", one.now_s)
    for number in range(1, 4):
        route = drawn_for(one, "new")
        attempt = one.next(route)
        assert attempt.revision == "old"
        one.settle(route, attempt, Outcome.OK)
        one.dispatcher.finish(route, one.now_s)
        assert attempts_of(one) == {"new": {"worker_fault": number}}


def test_a_canary_at_its_limit_keeps_its_requests(harness, make_worker, make_table):
    workers = [make_worker("s", revision="old"), make_worker("c", revision="new", limit=1)]
    one = harness(make_table(*workers, weights={"old": 90, "new": 10}))
    one.next(drawn_for(one, "new"))
    route = drawn_for(one, "new")
    assert not isinstance(one.next(route), Attempt)
    assert route.revision == "new"


def test_nobody_is_rescued_by_a_stable_that_is_down(two):
    one = two(stable=1)
    one.dispatcher.down.unreachable("c0", one.now_s)
    one.dispatcher.down.unreachable("s0", one.now_s)
    route = drawn_for(one, "new")
    assert not isinstance(one.next(route), Attempt)
    assert route.revision == "new"


def test_one_worker_of_both_revisions_rescues_itself(harness, make_worker, make_table):
    both = make_worker(
        "w",
        revision="old",
        serves=[
            Served(revision="old", model="m", limit=4),
            Served(revision="new", model="m", limit=4, loaded_as="m--new"),
        ],
    )
    guard = Guard(revision="new", min_requests=1, interval_s=10)
    one = harness(make_table(both, weights={"old": 50, "new": 50}, guards=[guard]))
    route = drawn_for(one, "new")
    first = one.next(route)
    assert (first.revision, first.loaded_as) == ("new", "m--new")
    one.settle(route, first, Outcome.NEVER_RAN)
    second = one.next(route)
    assert (second.worker_id, second.revision, second.loaded_as) == ("w", "old", "")


def test_two_revisions_in_one_worker_have_limits_of_their_own(harness, make_worker, make_table):
    both = make_worker(
        "w",
        revision="old",
        serves=[
            Served(revision="old", model="m", limit=2),
            Served(revision="new", model="m", limit=1, loaded_as="m--new"),
        ],
    )
    one = harness(make_table(both, weights={"old": 50, "new": 50}))
    taken = [one.next(drawn_for(one, name)) for name in ("new", "new", "old", "old", "old")]
    assert [isinstance(item, Attempt) for item in taken] == [True, False, True, True, False]


@cases(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), max_size=4),
    st.sets(st.sampled_from("abcd")),
)
def test_dropping_a_canary_takes_its_weight_and_is_no_outage(weights, dropped):
    left = canary.without(weights, dropped)
    assert set(left) == set(weights)
    assert any(left.values()) == any(weights.values())
    others = [name for name in weights if name not in dropped]
    if len(others) == 1 or any(weights[name] for name in others):
        assert not any(left[name] for name in weights if name in dropped)


@pytest.mark.parametrize("weights", [{"old": 100}, {"old": 100, "new": 0}], ids=["gone", "at-0"])
def test_who_waits_for_a_canary_that_is_taken_away_goes_to_stable_and_blames_nobody(
    harness, make_worker, make_table, weights
):
    stable, new = make_worker("s", revision="old"), make_worker("c", revision="new", limit=1)
    one = harness(make_table(stable, new, weights={"old": 50, "new": 50}))
    one.next(drawn_for(one, "new"))
    route = drawn_for(one, "new")
    assert not isinstance(one.next(route), Attempt)
    one.apply(make_table(stable, weights=weights, sequence=2))
    attempt = one.next(route)
    assert (attempt.worker_id, attempt.revision) == ("s", "old")
    one.settle(route, attempt, Outcome.OK)
    assert attempts_of(one) == {}


def test_a_new_stable_takes_what_waited_for_the_old_one(harness, make_worker, make_table):
    old, new = make_worker("s", revision="old", limit=1), make_worker("c", revision="new")
    one = harness(make_table(old, new, weights={"old": 100, "new": 0}))
    one.next(one.plan())
    route = one.plan()
    assert not isinstance(one.next(route), Attempt)
    one.apply(make_table(new, weights={"new": 100}, sequence=2))
    assert one.next(route).worker_id == "c"


def test_explain_tells_pins_and_rescues(two):
    one = two(pins=[PIN])
    route = one.plan(given=ALWAYS)
    assert " revision=new pinned=true " in one.dispatcher.explain(route, one.next(route))
    route = drawn_for(one, "new")
    one.settle(route, one.next(route), Outcome.NEVER_RAN)
    assert " revision=old drawn=new " in one.dispatcher.explain(route, one.next(route))
