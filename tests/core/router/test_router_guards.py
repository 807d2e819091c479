"""A canary that turns bad while the operator is silent: who drops it, when, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import Guard, Pin
from tidegate_router.core import pins, report
from tidegate_router.core.faults import Outcome
from tidegate_router.core.freshness import TRUSTED_S
from tidegate_router.core.guards import GuardBook, Reading

RATE = Guard(revision="new", min_requests=20, interval_s=10, min_success_rate=0.99)
SLOW = Guard(revision="new", min_requests=20, interval_s=10, max_p95_s=0.1)


class Scene:
    """A stable and a canary under one guard; time goes by in whole seconds."""

    def __init__(self, harness, make_worker, make_table, *guards, weights=None, **fields):
        workers = [
            make_worker("s", revision="old", limit=500),
            make_worker("c", revision="new", limit=500),
        ]
        self.weights = {"old": 50, "new": 50} if weights is None else weights
        self.make = lambda sequence, **more: make_table(
            *workers,
            **{"weights": self.weights, "guards": list(guards), **fields, **more},
            sequence=sequence,
        )
        self.one = harness(self.make(1))
        self.aborts = []

    def second(self, count=20, *, bad=Outcome.OK, latency_s=0.01, **ask):
        """One second of requests; those that the canary gets end `bad`."""
        for _ in range(count):
            route = self.one.plan(**ask)
            attempt = self.one.next(route)
            mine = attempt.revision == "new"
            ending = (bad, latency_s) if mine else (Outcome.OK, 0.01)
            self.one.settle(route, attempt, *ending)
            self.one.dispatcher.finish(route, self.one.now_s)
        self.one.now_s += 1
        self.aborts += self.one.dispatcher.tick(self.one.now_s)

    def seconds(self, long_s, **how):
        for _ in range(long_s):
            self.second(**how)

    @property
    def weight(self):
        [view] = self.one.dispatcher.pools.values()
        return view.revision_weights["new"]

    @property
    def shown(self):
        state = report.router_state(
            self.one.dispatcher, synced=True, draining=False, now_s=self.one.now_s
        )
        return state.local_aborts

    def silence(self):
        """Good traffic until the last proof of life is too old."""
        self.seconds(int(TRUSTED_S) + 1)
        assert self.aborts == []


@pytest.fixture
def scene(harness, make_worker, make_table):
    def build(*guards, **fields):
        return Scene(harness, make_worker, make_table, *guards, **fields)

    return build


@pytest.mark.parametrize(
    ("guard", "how", "words"),
    [
        pytest.param(RATE, {"bad": Outcome.MODEL_ERROR}, "success rate", id="errors"),
        pytest.param(RATE, {"bad": Outcome.TIMEOUT}, "success rate", id="timeouts"),
        pytest.param(RATE, {"bad": Outcome.UNREACHABLE}, "success rate", id="unreachable"),
        pytest.param(SLOW, {"latency_s": 0.5}, "p95", id="slow"),
    ],
)
def test_a_canary_that_turns_bad_in_the_silence_is_dropped_at_once(scene, guard, how, words):
    one = scene(guard)
    one.silence()
    one.seconds(2, **how)
    [abort] = one.aborts
    assert (abort.revision, abort.sequence, abort.uid) == ("new", 1, "u1")
    assert words in abort.message
    assert one.weight == 0
    assert {one.one.plan().revision for _ in range(200)} == {"old"}
    assert one.shown == [abort]
    shown = report.preview(one.one.dispatcher, "", "m", one.one.now_s)
    assert shown["localAborts"] == {"new": abort.message}
    assert shown["weights"] == {"old": 50, "new": 0}


@pytest.mark.parametrize(
    ("guard", "how"),
    [
        pytest.param(RATE, {}, id="all-is-well"),
        pytest.param(RATE, {"bad": Outcome.CLIENT}, id="the-clients-fault"),
        pytest.param(RATE, {"bad": Outcome.CANCELLED}, id="clients-that-leave"),
        pytest.param(RATE, {"latency_s": 3.0}, id="slow-where-only-success-is-guarded"),
        pytest.param(SLOW, {"latency_s": 0.09}, id="below-the-limit"),
        pytest.param(
            Guard(revision="new", min_requests=1, interval_s=10),
            {"bad": Outcome.MODEL_ERROR},
            id="a-guard-without-limits",
        ),
        pytest.param(
            Guard(revision="old", min_requests=1, interval_s=10, min_success_rate=0.99),
            {"bad": Outcome.MODEL_ERROR},
            id="the-guard-of-another",
        ),
    ],
)
def test_what_breaks_no_guard_keeps_its_weight(scene, guard, how):
    one = scene(guard)
    one.silence()
    one.seconds(30, **how)
    assert (one.aborts, one.weight, one.shown) == ([], 50, [])


def test_a_bad_canary_is_the_operators_as_long_as_it_lives(scene):
    one = scene(RATE)
    for sequence in range(2, 40):
        one.one.apply(one.make(sequence))
        one.second(bad=Outcome.MODEL_ERROR)
    assert (one.aborts, one.weight) == ([], 50)


def test_the_silence_has_to_last_15_seconds(scene):
    one = scene(RATE)
    one.seconds(int(TRUSTED_S), bad=Outcome.MODEL_ERROR)
    assert one.aborts == []
    one.second(bad=Outcome.MODEL_ERROR)
    assert len(one.aborts) == 1


def test_without_any_proof_of_life_the_guard_holds_from_the_start(scene):
    one = scene(RATE)
    one.one.dispatcher.proof.proven_s = None
    one.second()  # what was before the first reading is nobody's
    one.seconds(2, bad=Outcome.MODEL_ERROR)
    assert len(one.aborts) == 1


def test_without_data_the_weight_stays(scene):
    one = scene(RATE, weights={"old": 100, "new": 0})
    one.seconds(60, count=5)
    one.one.now_s += 3600
    one.seconds(3, count=0)
    assert (one.aborts, one.shown) == ([], [])
    idle = scene(RATE)
    idle.seconds(60, count=0)
    assert (idle.aborts, idle.weight) == ([], 50)


def test_failures_older_than_the_interval_are_forgotten(scene):
    one = scene(RATE)
    one.second()
    one.second(bad=Outcome.MODEL_ERROR)
    one.seconds(int(TRUSTED_S) + 5)
    assert one.aborts == []


def test_pinned_requests_break_no_guard(scene):
    one = scene(RATE, pins=[Pin(revision="new", headers={"a": "b"})])
    one.silence()
    one.seconds(10, bad=Outcome.MODEL_ERROR, given=pins.given([("a", "b")]))
    assert one.aborts == []


@pytest.fixture
def dropped(scene):
    one = scene(RATE)
    one.silence()
    one.seconds(2, bad=Outcome.MODEL_ERROR)
    assert one.weight == 0
    return one


@pytest.mark.parametrize(
    ("more", "weight", "told"),
    [
        pytest.param({}, 0, True, id="the-operator-goes-on-with-it"),
        pytest.param({"weights": {"old": 75, "new": 25}}, 0, True, id="at-another-weight"),
        pytest.param({"weights": {"old": 100, "new": 0}}, 0, False, id="the-operator-aborted-it"),
        pytest.param({"weights": {"old": 0, "new": 100}, "guards": []}, 100, False, id="promoted"),
        pytest.param({"weights": {"old": 100}}, None, False, id="its-revision-is-gone"),
    ],
)
def test_it_stays_dropped_and_told_until_a_newer_table_takes_note(dropped, more, weight, told):
    dropped.one.apply(dropped.make(2, **more))
    [view] = dropped.one.dispatcher.pools.values()
    assert view.revision_weights.get("new") == weight
    assert bool(dropped.shown) is told


def test_the_same_table_again_changes_nothing(dropped):
    dropped.one.apply(dropped.make(1, weights={"old": 100, "new": 0}))
    assert len(dropped.shown) == 1


def test_after_the_operators_abort_and_a_retry_it_is_guarded_anew(dropped):
    dropped.one.apply(dropped.make(2, weights={"old": 100, "new": 0}, guards=[]))
    dropped.second()
    dropped.one.apply(dropped.make(3))
    dropped.aborts.clear()
    assert dropped.weight == 50
    dropped.silence()
    dropped.seconds(2, bad=Outcome.MODEL_ERROR)
    assert len(dropped.aborts) == 1


def test_a_dropped_canary_is_told_once(dropped):
    dropped.seconds(20)
    assert len(dropped.aborts) == 1


def test_a_canary_with_all_weight_gives_it_to_the_one_other_revision(scene):
    one = scene(RATE, weights={"old": 0, "new": 100})
    one.silence()
    one.seconds(2, bad=Outcome.MODEL_ERROR)
    assert {one.one.plan().revision for _ in range(50)} == {"old"}


def test_the_readings_of_a_revision_end_with_its_guard(dropped):
    dropped.one.apply(dropped.make(2, guards=[]))
    dropped.second()
    assert dropped.one.dispatcher.guards._readings == {}


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=80),
    st.integers(1, 40),
)
def test_a_window_is_what_came_in_the_last_interval(seconds, interval_s):
    guard = Guard(revision="r", min_requests=1, interval_s=interval_s)
    book, ok, failed = GuardBook(), 0, 0
    book.window(("u", "r"), guard, Reading(), 0.0)
    for now_s, (good, bad) in enumerate(seconds, start=1):
        ok, failed = ok + good, failed + bad
        seen = book.window(("u", "r"), guard, Reading(ok, failed, {3: ok} if ok else {}), now_s)
        recent = seconds[max(0, now_s - interval_s) : now_s]
        assert seen.ok == sum(good for good, _ in recent)
        assert seen.failed == sum(bad for _, bad in recent)
        assert sum(seen.latency.values()) == seen.ok
        assert len(book._readings["u", "r"]) <= interval_s + 1


def test_long_intervals_keep_few_readings_and_a_window_at_most_a_sixtieth_longer():
    guard = Guard(revision="r", min_requests=1, interval_s=3600)
    book = GuardBook()
    for now_s in range(10_000):
        seen = book.window(("u", "r"), guard, Reading(ok=now_s), now_s)
        assert min(now_s, 3600) <= seen.ok <= 3661
    assert len(book._readings["u", "r"]) <= 62


def test_counters_that_began_anew_count_nothing_twice():
    assert Reading(1, 2, {4: 1}).since(Reading(5, 5, {4: 9})) == Reading(0, 0, {})
