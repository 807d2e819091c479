"""Requests of a sequence go to the worker that holds its state, and nowhere else."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import Pin
from tidegate_api.state import Traits
from tidegate_router.core import sequences
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Call, Route, Step, Wait
from tidegate_router.core.sequences import SequenceBook

STATEFUL = Traits(sequence=True)


@pytest.fixture
def stateful(make_worker):
    def make(name, **fields):
        return make_worker(name, traits=STATEFUL, **{"limit": 50, **fields})

    return make


def place(one, sequence, **ask):
    """Send one request of a sequence to its end; return (worker, revision)."""
    route = one.plan(sequence=sequence, **ask)
    attempt = one.next(route)
    one.settle(route, attempt, Outcome.OK)
    one.dispatcher.finish(route, one.now_s)
    return attempt.worker_id, attempt.revision


def test_a_sequence_stays_on_its_worker(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(8))))
    homes = {name: place(one, name) for name in map(str, range(100))}
    for _ in range(5):
        one.now_s += 10
        assert {name: place(one, name) for name in homes} == homes


def test_sequences_spread_over_all_workers(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(4))))
    seen = Counter(place(one, str(n))[0] for n in range(2000))
    assert len(seen) == 4
    assert all(400 <= count <= 600 for count in seen.values())


def test_every_router_chooses_the_same_worker_and_revision(harness, stateful, make_table):
    workers = [stateful(f"w{n}", revision=f"r{n % 2}") for n in range(8)]
    table = make_table(*workers, weights={"r0": 70, "r1": 30})
    one, other = harness(table, seed=1), harness(table, seed=2)
    for n in range(200):
        assert place(one, str(n)) == place(other, str(n))


def test_the_revisions_of_new_sequences_follow_the_weights(harness, stateful, make_table):
    workers = [stateful("a", revision="old"), stateful("b", revision="new")]
    one = harness(make_table(*workers, weights={"old": 80, "new": 20}))
    seen = Counter(place(one, str(n))[1] for n in range(3000))
    assert seen["new"] / 3000 == pytest.approx(0.2, abs=0.03)


def test_neither_new_weights_nor_new_workers_move_a_running_sequence(harness, stateful, make_table):
    old = [stateful(f"a{n}", revision="old") for n in range(2)]
    new = [stateful(f"b{n}", revision="new") for n in range(2)]
    one = harness(make_table(*old, *new, weights={"old": 90, "new": 10}))
    homes = {name: place(one, name) for name in map(str, range(200))}
    more = [stateful(f"c{n}", revision="old") for n in range(4)]
    one.apply(make_table(*old, *new, *more, weights={"old": 10, "new": 90}, sequence=2))
    assert {name: place(one, name) for name in homes} == homes


def test_after_a_minute_of_rest_a_sequence_may_move(harness, stateful, make_table):
    old, new = stateful("a", revision="old"), stateful("b", revision="new")
    one = harness(make_table(old, new, weights={"old": 100, "new": 0}))
    assert place(one, "7") == ("a", "old")
    one.apply(make_table(old, new, weights={"old": 0, "new": 100}, sequence=2))
    one.now_s += 59
    assert place(one, "7") == ("a", "old")
    one.now_s += 61
    one.dispatcher.tick(one.now_s)
    assert one.dispatcher.sequences.count() == 0
    assert place(one, "7") == ("b", "new")


def test_a_draining_worker_goes_on_with_its_sequences_and_gets_no_new_ones(
    harness, stateful, make_table
):
    workers = [stateful(f"w{n}") for n in range(3)]
    one = harness(make_table(*workers))
    homes = {name: place(one, name) for name in map(str, range(60))}
    leaving = workers[0].model_copy(update={"draining": True})
    one.apply(make_table(leaving, *workers[1:], sequence=2))
    assert {name: place(one, name) for name in homes} == homes
    assert "w0" not in {place(one, f"new-{n}")[0] for n in range(60)}


def test_a_sequence_whose_worker_is_gone_or_down_goes_on_elsewhere(harness, stateful, make_table):
    workers = [stateful(f"w{n}") for n in range(3)]
    one = harness(make_table(*workers))
    home, _ = place(one, "s")
    one.dispatcher.down.unreachable(home, one.now_s)
    second, _ = place(one, "s")
    assert second != home
    rest = [worker for worker in workers if worker.id != second]
    one.apply(make_table(*rest, sequence=2))
    assert place(one, "s")[0] != second


def test_a_busy_home_is_waited_for(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}", limit=1) for n in range(3))))
    first = one.next(one.plan(sequence="s"))
    route = one.plan(sequence="s")
    assert isinstance(one.next(route), Wait)
    woken = []
    one.dispatcher.park(route, lambda: woken.append(1))
    one.dispatcher.release(first)
    assert woken
    one.dispatcher.unpark(route)
    assert one.next(route).worker_id == first.worker_id


@pytest.mark.parametrize("outcome", [Outcome.NEVER_RAN, Outcome.LOST, Outcome.UNREACHABLE])
def test_a_request_of_a_sequence_is_never_sent_elsewhere(harness, stateful, make_table, outcome):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(3))))
    route = one.plan(sequence="s")
    attempt = one.next(route)
    assert isinstance(one.settle(route, attempt, outcome), Refusal)


def test_a_canarys_sequence_is_not_rescued_by_stable(harness, stateful, make_table):
    canary = stateful("c", revision="new")
    table = make_table(stateful("s", revision="old"), canary, weights={"old": 1, "new": 99})
    one = harness(table)
    name = next(n for n in map(str, range(99)) if place(one, n)[1] == "new")
    route = one.plan(sequence=name)
    one.dispatcher.down.unreachable("c", one.now_s)
    assert not isinstance(one.next(route), Attempt)
    assert route.revision == "new"


def test_new_sequences_avoid_a_revision_that_nobody_can_serve(harness, stateful, make_table):
    one = harness(
        make_table(
            stateful("s", revision="old"), stateful("c", revision="new"),
            weights={"old": 50, "new": 50},
        )
    )  # fmt: skip
    one.dispatcher.down.unreachable("c", one.now_s)
    assert {place(one, str(n)) for n in range(50)} == {("s", "old")}


def test_an_id_means_nothing_to_a_model_without_the_trait(harness, make_worker, make_table):
    one = harness(make_table(*(make_worker(f"w{n}") for n in range(4))))
    assert len({place(one, "s")[0] for _ in range(40)}) == 4
    assert one.dispatcher.sequences.count() == 0


def test_requests_without_an_id_are_placed_as_any_other(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(4))))
    assert len({place(one, "")[0] for _ in range(40)}) == 4


def test_an_inquiry_with_an_id_is_an_inquiry(harness, stateful, make_table):
    one = harness(make_table(stateful("a", limit=1)))
    one.next(one.plan(sequence="s"))
    assert isinstance(one.next(one.plan(sequence="s", call=Call.INQUIRY)), Attempt)


def test_a_pin_decides_before_the_id(harness, stateful, make_table):
    pins = [Pin(revision="new", headers={"x-canary": "1"})]
    workers = [stateful("s", revision="old"), stateful("c", revision="new")]
    one = harness(make_table(*workers, weights={"old": 100, "new": 0}, pins=pins))
    assert place(one, "s") == ("s", "old")
    given_ = frozenset({("x-canary", "1")})
    assert place(one, "s", given=given_) == ("c", "new")


def test_ordinary_requests_are_retried_as_before(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(3))))
    route = one.plan()
    assert one.settle(route, one.next(route), Outcome.NEVER_RAN) is Step.RETRY


def test_streams_keep_to_their_sequence_too(harness, stateful, make_table):
    one = harness(make_table(*(stateful(f"w{n}") for n in range(8))))
    home, _ = place(one, "s")
    assert one.next(one.plan(sequence="s", call=Call.STREAM)).worker_id == home


def test_a_route_says_whether_its_answers_may_be_kept(harness, stateful, make_worker, make_table):
    assert not harness(make_table(stateful("a"))).plan().repeatable
    assert harness(make_table(make_worker("a"))).plan().repeatable
    one = harness(make_table(make_worker("a", traits=Traits(decoupled=True))))
    route = one.plan(call=Call.STREAM)
    assert isinstance(route, Route)
    assert not route.repeatable


def test_an_ensemble_is_routed_as_any_model(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", traits=Traits(ensemble=True))))
    route = one.plan()
    assert route.repeatable
    assert isinstance(one.next(route), Attempt)


def test_the_book_is_bounded_and_forgets_the_longest_unseen():
    book = SequenceBook()
    for number in range(sequences.MAX_KNOWN):
        book.settle(("u", "m", str(number)), "r", 0.0)
    assert book.place(("u", "m", "0"), 1.0) is not None, "seen again"
    book.settle(("u", "m", "one more"), "r", 2.0)
    assert book.count() == sequences.MAX_KNOWN
    assert book.place(("u", "m", "1"), 2.0) is None
    assert book.place(("u", "m", "0"), 2.0) is not None


@given(
    st.dictionaries(st.sampled_from("abcde"), st.integers(1, 100), min_size=2),
    st.sampled_from("abcde"),
    st.lists(st.text(max_size=8), min_size=1, max_size=60, unique=True),
)
def test_a_raised_weight_only_draws_sequences_to_itself(weights, raised, names):
    more = weights | {raised: weights.get(raised, 0) + 50}
    for name in names:
        before, after = sequences.by_weight(weights, name), sequences.by_weight(more, name)
        assert after in {before, raised}


@given(st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=9, unique=True), st.text())
def test_a_worker_that_leaves_moves_only_its_own_sequences(workers, name):
    order = sequences.in_order(workers, "r", name)
    gone = order[-1]
    assert sequences.in_order([w for w in workers if w != gone], "r", name)[0] == order[0]
    assert sequences.in_order(order[::-1], "r", name) == order


@pytest.mark.parametrize("weights", [{}, {"a": 0}], ids=["none", "all-zero"])
def test_without_weight_there_is_no_revision(weights):
    assert sequences.by_weight(weights, "s") is None
