"""Any order of calls of the dispatcher: no slot leaks, nothing goes negative, every route ends."""

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidegate_api.names import Strategy
from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    Pin,
    PoolIdentity,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)
from tidegate_api.state import Traits
from tidegate_router.core import report
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Call, Ending, Route, Step, Wait

REVISIONS = ("old", "new")
PIN = frozenset({("x-pin", "new")})
ASKS = st.fixed_dictionaries(
    {
        "call": st.sampled_from(list(Call)),
        "model": st.sampled_from(["m", "stateful"]),
        "version": st.sampled_from(["", "", "", "1", "2"]),
        "sequence": st.sampled_from(["", "", "a", "b"]),
        "replayable": st.booleans(),
        "body_hash": st.sampled_from(["", "x", "y"]),
        "timeout_s": st.sampled_from([None, 0.05, 5.0]),
        "given": st.sampled_from([frozenset(), PIN]),
    }
)
TABLES = st.fixed_dictionaries(
    {
        "states": st.lists(
            st.sampled_from(["ready", "ready", "ready", "draining", "starting", "gone"]),
            min_size=4, max_size=4,
        ),
        "canary": st.sampled_from([0, 10, 50]),
        "strategy": st.sampled_from(list(Strategy)),
        "limit": st.integers(1, 3),
        "percent": st.sampled_from([0, 50, 100]),
    }
)  # fmt: skip


def a_worker(number, state, limit):
    revision = REVISIONS[number % 2]
    return RoutedWorker(
        id=f"w{number}", name=f"w{number}", address="10.0.0.1", revision=revision,
        draining=state == "draining", ready=state != "starting",
        serves=[
            Served(revision=revision, model="m", limit=limit),
            Served(
                revision=revision, model="stateful", limit=limit, traits=Traits(sequence=True)
            ),
        ],
    )  # fmt: skip


class Calls(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now_s, self.sequence = 1000.0, 0
        self.dispatcher = Dispatcher("me", random.Random(1).random)
        self.waiting = {}  # route number: (route, until)
        self.sent = []  # (route, attempt): at a worker
        self.abandoned = []  # attempts settled, not released
        self.open = {}  # route number: route
        self.publish(states=["ready"] * 4, canary=10, strategy="Scored", limit=2, percent=50)

    def publish(self, *, states, canary, strategy, limit, percent):
        self.sequence += 1
        spec = RouteTableSpec(
            pool=PoolIdentity(namespace="ns", name="p", uid="u1"),
            sequence=self.sequence,
            workers=[a_worker(n, s, limit) for n, s in enumerate(states) if s != "gone"],
            weights=[
                RevisionWeight(revision="old", weight=100 - canary),
                RevisionWeight(revision="new", weight=canary),
            ],
            pins=[Pin(revision="new", headers={"x-pin": "new"})],
            policy=RoutingPolicy.model_validate(
                {"strategy": strategy, "ejection": {"maxEjectedPercent": percent}}
            ),
        )
        self.dispatcher.proof.sequence_advanced(self.now_s)
        self.dispatcher.apply({"u1": spec}, ["u1"], self.now_s)

    @rule(table=TABLES)
    def table(self, table):
        self.publish(**table)

    @rule(ask=ASKS)
    def arrive(self, ask):
        found = self.dispatcher.plan(Ask(**ask), self.now_s)
        if isinstance(found, Route):
            self.open[found.number] = found
            self.next(found)

    def next(self, route):
        found = self.dispatcher.next_attempt(route, self.now_s)
        if isinstance(found, Attempt):
            assert found.timeout_s > 0
            assert not found.slot or found.slot.in_flight > 0
            self.sent.append((route, found))
        elif isinstance(found, Wait):
            assert found.until_s > self.now_s
            self.dispatcher.park(route, lambda: None)
            self.waiting[route.number] = (route, found.until_s)
        else:
            assert isinstance(found, Refusal)
            self.finish(route)

    def finish(self, route):
        self.dispatcher.finish(route, self.now_s)
        self.dispatcher.finish(route, self.now_s)
        del self.open[route.number]

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)), slow=st.booleans())
    def end(self, data, outcome, slow):
        route, attempt = self.sent.pop(data.draw(st.integers(0, len(self.sent) - 1)))
        latency_s = 2.0 if slow else 0.01
        ending = Ending(outcome=outcome, latency_s=latency_s)
        settled = self.dispatcher.settle(route, attempt, ending, self.now_s)
        if outcome in {Outcome.TIMEOUT, Outcome.CANCELLED} and slow:
            self.abandoned.append(attempt)
        else:
            self.dispatcher.release(attempt)
            self.dispatcher.release(attempt)
        if settled is Step.RETRY:
            assert not route.sequence
            assert not route.answered
            self.next(route)
        else:
            self.finish(route)

    @precondition(lambda self: self.abandoned)
    @rule()
    def worker_stops(self):
        self.dispatcher.release(self.abandoned.pop())

    @precondition(lambda self: self.sent)
    @rule()
    def first_byte(self):
        self.dispatcher.heard(self.sent[0][1], self.now_s)

    @rule(seconds=st.sampled_from([0.001, 0.3, 1.1, 6.0, 20.0]))
    def time(self, seconds):
        self.now_s += seconds
        self.dispatcher.tick(self.now_s)
        self.wake()

    @rule()
    def wake(self):
        due = [
            route
            for route, until_s in self.waiting.values()
            if route.woken or until_s <= self.now_s
        ]
        for route in due:
            del self.waiting[route.number]
            self.dispatcher.unpark(route)
            self.next(route)

    @precondition(lambda self: self.waiting)
    @rule()
    def client_leaves(self):
        route, _ = self.waiting.pop(next(iter(self.waiting)))
        self.dispatcher.abandon(route)
        self.finish(route)

    @invariant()
    def every_slot_is_accounted_for(self):
        held, streams = {}, {}
        for attempt in [attempt for _, attempt in self.sent] + self.abandoned:
            if attempt.slot is not None:
                key = (attempt.worker_id, attempt.revision, attempt.model)
                held[key] = held.get(key, 0) + 1
                streams[key] = streams.get(key, 0) + attempt.stream
        for key, slot in self.dispatcher._slots.items():
            assert slot.in_flight == held.get(key, 0)
            assert slot.streams == streams.get(key, 0)

    @invariant()
    def every_route_is_somewhere(self):
        sent = {route.number for route, _ in self.sent}
        assert sent | self.waiting.keys() == self.open.keys()
        assert self.dispatcher.holds.parked == len(self.waiting)
        counted = [r for r in self.open.values() if r.ask.call is not Call.INQUIRY]
        assert self.dispatcher.pools["u1"].in_flight == len(counted)

    @invariant()
    def never_all_of_a_group_are_ejected(self):
        for group in self.dispatcher.pools["u1"].groups.values():
            if len(group.candidates) > 1:
                assert not all(one.slot.shunned for one in group.candidates)

    def teardown(self):
        while self.sent or self.abandoned or self.waiting:
            for route, attempt in self.sent[:]:
                self.sent.remove((route, attempt))
                ending = Ending(outcome=Outcome.OK, latency_s=0.01)
                self.dispatcher.settle(route, attempt, ending, self.now_s)
                self.dispatcher.release(attempt)
                self.finish(route)
            while self.abandoned:
                self.worker_stops()
            self.time(1.1)
        assert not self.open
        assert all(slot.in_flight == 0 for slot in self.dispatcher._slots.values())
        report.router_state(self.dispatcher, synced=True, draining=False, now_s=self.now_s)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
