"""Shadow copies: which requests are copied, within which bounds, and what they leave alone."""

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from tidegate_api.routetable import Guard, MirrorPolicy, Pin, Served
from tidegate_api.state import Traits
from tidegate_router.core import pins, report
from tidegate_router.core.copies import Copy, end_copy, plan_copy
from tidegate_router.core.faults import Outcome
from tidegate_router.core.mirror import (
    MAX_BODY_BYTES,
    MAX_HELD_BYTES,
    MAX_IN_FLIGHT,
    Judged,
    MirrorBook,
    ShadowKey,
)
from tidegate_router.core.request import Call

KEY = ShadowKey(uid="u", namespace="ns", pool="p", revision="new", model="m")


class Scene:
    """A stable that answers, and a canary that gets copies."""

    def __init__(self, harness, make_worker, make_table, *, canary=None, percent=100, **fields):
        fields = {"weights": {"old": 100, "new": 0}} | fields
        stable = make_worker("s", revision="old", limit=500, **fields.pop("stable", {}))
        canary = make_worker("c", revision="new", **({"limit": 500} | (canary or {})))
        mirror = MirrorPolicy(revision="new", percent=percent)
        self.one = harness(make_table(stable, canary, mirror=mirror, **fields))

    def answer(self, *, outcome=Outcome.OK, **ask):
        """Send one request to its end; return its route and last attempt."""
        route = self.one.plan(**ask)
        attempt = self.one.next(route)
        self.one.settle(route, attempt, outcome)
        self.one.dispatcher.finish(route, self.one.now_s)
        return route, attempt

    def copy(self, size_bytes=100, **ask):
        route, attempt = self.answer(**ask)
        return plan_copy(self.one.dispatcher, route, attempt, size_bytes, self.one.now_s)

    def slots(self, worker):
        return sum(
            slot.in_flight
            for (name, _, _), slot in self.one.dispatcher._slots.items()
            if name == worker
        )

    @property
    def shadow(self):
        [state] = self.one.dispatcher.mirrors.states()
        return state


@pytest.fixture
def scene(harness, make_worker, make_table):
    return lambda **fields: Scene(harness, make_worker, make_table, **fields)


def test_a_copy_goes_to_a_worker_of_the_mirrors_revision_with_a_slot(scene):
    one = scene()
    copy = one.copy()
    attempt = copy.attempt
    assert (attempt.worker_id, attempt.revision, attempt.model) == ("c", "new", "m")
    assert one.slots("c") == 1
    end_copy(one.one.dispatcher, copy)
    assert one.slots("c") == 0


@pytest.mark.parametrize("percent", [1, 10, 33, 100])
def test_the_percent_of_each_100_requests_is_copied(scene, percent):
    one = scene(percent=percent)
    found = [one.copy() for _ in range(300)]
    for copy in found:
        if isinstance(copy, Copy):
            end_copy(one.one.dispatcher, copy)
    for block in range(3):
        assert sum(copy is not None for copy in found[block * 100 :][:100]) == percent


@pytest.mark.parametrize(
    ("table", "ask"),
    [
        pytest.param({"percent": 0}, {}, id="a-mirror-of-0-percent"),
        pytest.param({}, {"call": Call.STREAM}, id="streams"),
        pytest.param({}, {"call": Call.INQUIRY}, id="inquiries"),
        pytest.param({}, {"version": "1"}, id="a-version"),
        pytest.param({"weights": {"old": 0, "new": 100}}, {}, id="the-canarys-own"),
        pytest.param(
            {"pins": [Pin(revision="old", headers={"a": "b"})]},
            {"given": pins.given([("a", "b")])},
            id="pinned",
        ),
        pytest.param({"stable": {"idempotent": False}}, {}, id="what-must-not-run-twice"),
        pytest.param({"stable": {"traits": Traits(sequence=True)}}, {}, id="sequences"),
    ],
)
def test_what_is_never_copied(scene, table, ask):
    one = scene(**table)
    assert [one.copy(**ask) for _ in range(20)] == [None] * 20
    assert one.one.dispatcher.mirrors.states() == []


def test_a_table_without_mirror_copies_nothing(harness, make_worker, make_table):
    one = harness(make_table(make_worker("s")))
    route = one.plan()
    assert plan_copy(one.dispatcher, route, one.next(route), 1, one.now_s) is None


def test_a_request_that_stable_rescued_is_not_sent_to_its_canary_again(scene):
    one = scene(weights={"old": 1, "new": 99}, guards=[Guard(
        revision="new", min_requests=1, interval_s=10)])  # fmt: skip
    route = one.one.plan()
    while route.revision != "new":
        route = one.one.plan()
    one.one.settle(route, one.one.next(route), Outcome.NEVER_RAN)
    rescue = one.one.next(route)
    one.one.settle(route, rescue, Outcome.OK)
    assert rescue.revision == "old"
    assert plan_copy(one.one.dispatcher, route, rescue, 1, one.one.now_s) is None


def test_a_canary_that_this_router_dropped_gets_no_copies(scene):
    one = scene(weights={"old": 50, "new": 50})
    [view] = one.one.dispatcher.pools.values()
    view.drop("new", "bad")
    assert one.copy() is None


@pytest.mark.parametrize(
    ("table", "ask"),
    [
        pytest.param({}, {"size_bytes": MAX_BODY_BYTES + 1}, id="too-large"),
        pytest.param({}, {"replayable": False}, id="not-whole"),
        pytest.param({"canary": {"ready": False}}, {}, id="not-ready"),
        pytest.param({"canary": {"draining": True}}, {}, id="draining"),
        pytest.param({"canary": {"model": "other"}}, {}, id="another-model"),
        pytest.param({"canary": {"idempotent": False}}, {}, id="the-canary-must-not-run-twice"),
        pytest.param({"canary": {"traits": Traits(decoupled=True)}}, {}, id="decoupled"),
    ],
)
def test_what_cannot_be_sent_is_skipped_and_counted(scene, table, ask):
    one = scene(**table)
    assert one.copy(**ask) is Judged.SKIPPED
    state = one.shadow
    assert (state.revision, state.skipped, state.compared) == ("new", 1, 0)


def test_a_worker_that_is_down_gets_no_copy_and_its_trial_is_left_to_a_request(scene):
    one = scene()
    one.one.dispatcher.down.unreachable("c", one.one.now_s)
    one.one.now_s += 3600
    assert one.copy() is Judged.SKIPPED
    assert one.one.dispatcher.down.usable("c", one.one.now_s)


def test_a_copy_waits_for_nothing(scene):
    one = scene(canary={"limit": 1})
    assert isinstance(one.copy(), Copy)
    assert one.copy() is Judged.SKIPPED
    assert one.slots("c") == 1


def test_a_copy_goes_before_nobody_who_waits(scene):
    one = scene(canary={"limit": 1}, weights={"old": 50, "new": 50})
    dispatcher = one.one.dispatcher
    routes = []
    while len(routes) < 2:
        route = one.one.plan()
        if route.revision == "new":
            routes.append(route)
    first = one.one.next(routes[0])
    one.one.next(routes[1])
    woken = []
    dispatcher.park(routes[1], lambda: woken.append(1))
    dispatcher.release(first)
    assert woken == [1]
    answered = None
    while answered is None:
        route = one.one.plan()
        if route.revision == "old":
            answered = one.one.next(route)
            one.one.settle(route, answered, Outcome.OK)
    assert plan_copy(dispatcher, route, answered, 1, one.one.now_s) is Judged.SKIPPED


def test_no_more_than_16_of_a_pool_are_on_their_way(scene):
    one = scene()
    copies = [one.copy() for _ in range(MAX_IN_FLIGHT)]
    assert all(isinstance(copy, Copy) for copy in copies)
    assert one.copy() is Judged.SKIPPED
    end_copy(one.one.dispatcher, copies[0])
    assert isinstance(one.copy(), Copy)


def test_copies_leave_attempts_queues_and_health_alone(scene):
    one = scene()
    route, attempt = one.answer()
    before = report.router_state(one.one.dispatcher, synced=True, draining=False, now_s=0)
    copy = plan_copy(one.one.dispatcher, route, attempt, 1, one.one.now_s)
    end_copy(one.one.dispatcher, copy)
    one.one.dispatcher.mirrors.count(copy.key, Judged.FAILED)
    after = report.router_state(one.one.dispatcher, synced=True, draining=False, now_s=0)
    assert (after.series, after.queues) == (before.series, before.queues)
    assert not one.one.dispatcher.down.is_down("c")
    assert [state.failed for state in after.shadows] == [1]


def test_a_copy_to_a_second_revision_in_the_same_worker_has_its_loaded_name(
    harness, make_worker, make_table
):
    both = make_worker(
        "w",
        revision="old",
        serves=[
            Served(revision="old", model="m", limit=4),
            Served(revision="new", model="m", limit=1, loaded_as="m--new"),
        ],
    )
    mirror = MirrorPolicy(revision="new", percent=100)
    one = harness(make_table(both, weights={"old": 100, "new": 0}, mirror=mirror))
    route = one.plan()
    attempt = one.next(route)
    copy = plan_copy(one.dispatcher, route, attempt, 1, one.now_s)
    assert (copy.attempt.worker_id, copy.attempt.loaded_as) == ("w", "m--new")


def test_what_is_known_of_a_pool_that_is_gone_is_forgotten(scene):
    one = scene()
    end_copy(one.one.dispatcher, one.copy())
    one.one.dispatcher.mirrors.count(KEY, Judged.AGREED)
    one.one.dispatcher.apply({}, ["u1"], one.one.now_s)
    one.one.dispatcher.tick(one.one.now_s)
    assert one.one.dispatcher.mirrors.states() == []


@cases(st.lists(st.tuples(st.sampled_from(list(Judged)), st.floats(0, 9)), max_size=40))
def test_counts_add_up_and_the_largest_difference_stays(results):
    book = MirrorBook()
    for judged, difference in results:
        book.count(KEY, judged, difference)
    for state in book.states():
        kinds = [judged for judged, _ in results]
        assert state.compared == kinds.count(Judged.AGREED) + kinds.count(Judged.DISAGREED)
        assert state.disagreed == kinds.count(Judged.DISAGREED)
        assert state.failed == kinds.count(Judged.FAILED)
        assert state.skipped == kinds.count(Judged.SKIPPED)
        assert state.max_abs_difference == max(difference for _, difference in results)


@cases(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 2 * MAX_BODY_BYTES), st.booleans()),
        max_size=300,
    )
)
def test_the_bounds_hold_whatever_comes_and_ends(events):
    book, running = MirrorBook(), []
    for uid, size_bytes, ends in events:
        if ends and running:
            book.end(*running.pop(0))
        elif book.room(uid, size_bytes):
            book.begin(uid, size_bytes)
            running.append((uid, size_bytes))
        assert sum(size for _, size in running) <= MAX_HELD_BYTES
        assert all(size <= MAX_BODY_BYTES for _, size in running)
        for one in "abcdefgh":
            assert sum(uid == one for uid, _ in running) <= MAX_IN_FLIGHT
    while running:
        book.end(*running.pop())
    assert book.room("a", MAX_BODY_BYTES)


def test_what_ended_holds_no_bytes():
    book = MirrorBook()
    for _ in range(2 * MAX_HELD_BYTES // MAX_BODY_BYTES):
        assert book.room("u", MAX_BODY_BYTES)
        book.begin("u", MAX_BODY_BYTES)
        book.end("u", MAX_BODY_BYTES)


def test_all_pools_share_the_bytes():
    book = MirrorBook()
    pools = MAX_HELD_BYTES // MAX_BODY_BYTES
    for number in range(pools):
        assert book.room(f"u{number}", MAX_BODY_BYTES)
        book.begin(f"u{number}", MAX_BODY_BYTES)
    assert not book.room("another", 1)
    assert book.room("another", 0)
