"""Random histories of requests, failures and tables: what holds after each step."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core import report
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Route, Step, Wait

OUTCOMES = list(Outcome)


class Traffic:
    """Requests that come, wait, fail and end at random; checks what must always hold."""

    def __init__(self, harness, tables, seed):
        self.one, self.random = harness(tables[0], seed=seed), random.Random(seed)
        self.tables, self.sequence = tables, 1
        self.running, self.waiting = [], []
        self.sent, self.ended = 0, 0

    def arrive(self):
        self.sent += 1
        route = self.one.plan(
            replayable=self.random.random() < 0.8, body_hash=str(self.random.randrange(50))
        )
        if isinstance(route, Refusal):
            self.ended += 1
        else:
            self.ask(route)

    def ask(self, route):
        found = self.one.next(route)
        if isinstance(found, Attempt):
            self.running.append((route, found))
        elif isinstance(found, Wait):
            assert found.until_s > self.one.now_s
            assert found.until_s <= route.hold_until_s
            self.one.dispatcher.park(route, lambda: None)
            self.waiting.append((route, found))
        else:
            self.end(route)

    def end(self, route):
        self.one.dispatcher.finish(route, self.one.now_s)
        self.ended += 1

    def answer(self):
        if not self.running:
            return
        route, attempt = self.running.pop(self.random.randrange(len(self.running)))
        outcome = self.random.choices(OUTCOMES, [20, 1, 1, 2, 2, 1, 1, 1])[0]
        step = self.one.settle(route, attempt, outcome, self.random.expovariate(100))
        assert route.attempts <= 1 + 3 + route.retry.attempts
        if step is Step.RETRY:
            self.ask(route)
        else:
            self.end(route)

    def time(self):
        self.one.now_s += self.random.expovariate(10)
        self.ask_again(lambda route, wait: route.woken or wait.until_s <= self.one.now_s)

    def ask_again(self, due):
        ready = [(route, wait) for route, wait in self.waiting if due(route, wait)]
        self.waiting = [item for item in self.waiting if item not in ready]
        for route, _ in ready:
            self.one.dispatcher.unpark(route)
            self.ask(route)

    def table(self):
        self.sequence += 1
        chosen = self.random.choice(self.tables)
        self.one.apply(chosen.model_copy(update={"sequence": self.sequence}))
        self.one.dispatcher.tick(self.one.now_s)

    def check(self):
        dispatcher = self.one.dispatcher
        held = {}
        for _, attempt in self.running:
            key = (attempt.worker_id, attempt.revision, attempt.model)
            held[key] = held.get(key, 0) + 1
        for key, slot in dispatcher._slots.items():
            assert slot.in_flight == held.get(key, 0)
        assert dispatcher.holds.waiting().get("u1", 0) == len(self.waiting)
        assert self.sent == self.ended + len(self.running) + len(self.waiting)
        assert dispatcher.pools["u1"].in_flight == len(self.running) + len(self.waiting)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9))
def test_slots_queues_and_counts_always_add_up(harness, make_worker, make_table, seed):
    workers = [make_worker(f"w{n}", limit=2, score=0.5) for n in range(4)]
    tables = [
        make_table(*workers),
        make_table(*workers[:1]),
        make_table(workers[0].model_copy(update={"draining": True}), *workers[1:]),
        make_table(*(worker.model_copy(update={"ready": False}) for worker in workers)),
    ]
    traffic = Traffic(harness, tables, seed)
    steps = [traffic.arrive, traffic.answer, traffic.time, traffic.table]
    for _ in range(150):
        traffic.random.choices(steps, [10, 8, 4, 1])[0]()
        traffic.check()
    while traffic.running or traffic.waiting:
        traffic.answer()
        traffic.time()
        traffic.check()
    assert traffic.sent == traffic.ended
    assert not any(slot.in_flight for slot in traffic.one.dispatcher._slots.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 5))
def test_no_worker_ever_has_more_than_its_limit(harness, make_worker, make_table, seed, limit):
    workers = [make_worker(f"w{n}", limit=limit) for n in range(12)]
    one, chance = harness(make_table(*workers), seed=seed), random.Random(seed)
    running = []
    for _ in range(200):
        route = one.plan()
        found = one.next(route)
        if isinstance(found, Attempt):
            running.append((route, found))
        else:
            assert len(running) == 12 * limit, "nobody waits while a slot is free"
        counts = [attempt.worker_id for _, attempt in running]
        assert all(counts.count(worker.id) <= limit for worker in workers)
        if running and chance.random() < 0.3:
            one.settle(*running.pop(chance.randrange(len(running))), Outcome.OK)


def test_whoever_waits_is_served_in_order_when_slots_come_free(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    running, order, served = [one.next(one.plan())], [], []
    queue = {}
    for _ in range(20):
        route = one.plan()
        assert isinstance(one.next(route), Wait)
        order.append(route.number)
        queue[route.number] = route
        one.dispatcher.park(route, lambda: None)
    while queue:
        one.dispatcher.release(running.pop())
        (route,) = [route for route in queue.values() if route.woken]
        one.dispatcher.unpark(queue.pop(route.number))
        running.append(one.next(route))
        served.append(route.number)
    assert served == order


def test_state_tells_sequence_age_waiting_and_in_flight(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1), sequence=77))
    one.next(one.plan())
    route = one.plan()
    one.next(route)
    one.dispatcher.park(route, lambda: None)
    one.now_s += 3
    state = report.router_state(one.dispatcher, synced=True, draining=False, now_s=one.now_s)
    assert (state.instance, state.synced, state.histogram_scheme) == ("me", True, "tg1")
    (table,) = state.tables
    assert (table.namespace, table.pool, table.uid) == ("ns", "p", "u1")
    assert (table.applied_sequence, table.age_s) == (77, 3)
    (queue,) = state.queues
    assert (queue.waiting, queue.in_flight) == (1, 1)


def test_an_unproven_age_fits_into_json(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    one.dispatcher.proof.proven_s = None
    state = report.router_state(one.dispatcher, synced=False, draining=True, now_s=one.now_s)
    assert type(state).model_validate_json(state.model_dump_json()) == state


def test_workers_are_shown_with_what_the_router_makes_of_them(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", score=0.5), make_worker("b", draining=True)))
    one.dispatcher.down.unreachable("a", one.now_s)
    rows = {row["worker"]: row for row in report.workers(one.dispatcher, one.now_s)}
    assert (rows["a"]["down"], rows["a"]["eligible"], rows["a"]["trust"]) == (True, True, 1.0)
    assert (rows["b"]["draining"], rows["b"]["eligible"]) == (True, False)
    assert report.worker_counts(one.dispatcher) == {
        "usable": 0, "down": 1, "draining": 1, "ejected": 0, "notReady": 0,
    }  # fmt: skip


def test_a_preview_takes_no_slot_and_no_ticket(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    for _ in range(5):
        shown = report.preview(one.dispatcher, "", "m", one.now_s)
        assert shown["picks"]["r1"]["worker"] == "a"
    assert isinstance(one.next(one.plan()), Attempt)
    assert report.preview(one.dispatcher, "", "m", one.now_s)["picks"]["r1"] is None
    assert report.preview(one.dispatcher, "", "nobody", one.now_s) is None


@pytest.mark.parametrize(
    ("worker", "version", "ready"),
    [
        pytest.param({}, "", True, id="ready"),
        pytest.param({"ready": False}, "", False, id="starting"),
        pytest.param({"draining": True}, "", False, id="draining"),
        pytest.param({}, "9", False, id="another-version"),
    ],
)
def test_a_model_is_ready_with_one_ready_worker(
    harness, make_worker, make_table, worker, version, ready
):
    one = harness(make_table(make_worker("a", **worker)))
    assert report.model_ready(one.dispatcher, "", "m", version, one.now_s) is ready


def test_a_model_that_nobody_knows_is_neither_ready_nor_not(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    assert report.model_ready(one.dispatcher, "", "x", "", one.now_s) is None


def test_a_revision_of_weight_0_makes_no_model_ready(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), weights={"r1": 0, "r2": 100}))
    assert report.model_ready(one.dispatcher, "", "m", "", one.now_s) is False
    assert isinstance(one.plan(), Route)
