"""Workers, tables and dispatchers for tests of the router's decisions."""

import random

import pytest

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    PoolIdentity,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)
from tidegate_router.core import report
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Ask, Attempt, Ending, Route, Step


def _worker(name, *, revision="r1", model="m", limit=4, **fields):
    served = {key: fields.pop(key) for key in ("version", "idempotent", "traits") if key in fields}
    fields.setdefault("serves", [Served(revision=revision, model=model, limit=limit, **served)])
    fields.setdefault("address", "10.0.0.1")
    return RoutedWorker(id=name, name=name, revision=revision, **fields)


def _table(*workers, uid="u1", name="p", namespace="ns", sequence=1, **fields):
    weights = fields.pop("weights", None) or {worker.revision: 100 for worker in workers[:1]}
    policy = fields.pop("policy", {})
    return RouteTableSpec(
        pool=PoolIdentity(
            namespace=namespace, name=name, uid=uid, created_at=fields.pop("created_at", "")
        ),
        sequence=sequence,
        workers=list(workers),
        weights=[RevisionWeight(revision=key, weight=value) for key, value in weights.items()],
        policy=RoutingPolicy.model_validate(policy),
        **fields,
    )


class Harness:
    """A dispatcher with a clock that only moves when told."""

    def __init__(self, *tables, seed=1, **fields):
        self.now_s = 1000.0
        self.tables = {}
        self.dispatcher = Dispatcher("me", random.Random(seed).random, **fields)
        self.apply(*tables)

    def apply(self, *tables):
        self.tables |= {table.pool.uid: table for table in tables}
        changed = [table.pool.uid for table in tables]
        self.dispatcher.proof.sequence_advanced(self.now_s)
        self.dispatcher.apply(self.tables, changed, self.now_s)

    def plan(self, model="m", **fields):
        return self.dispatcher.plan(Ask(model=model, **fields), self.now_s)

    def next(self, route):
        return self.dispatcher.next_attempt(route, self.now_s)

    def settle(self, route, attempt, outcome, latency_s=0.01, *, release=True):
        ending = Ending(outcome=outcome, latency_s=latency_s)
        step = self.dispatcher.settle(route, attempt, ending, self.now_s)
        if release:
            self.dispatcher.release(attempt)
        return step


@pytest.fixture(scope="session")
def make_worker():
    return _worker


@pytest.fixture(scope="session")
def make_table():
    return _table


@pytest.fixture(scope="session")
def harness():
    return Harness


class Fleet:
    """Workers that answer as `behaviour` says; the clock moves 5 ms per request."""

    def __init__(self, harness, table, seed=1):
        self.one = harness(table, seed=seed)
        self.behaviour, self.latency_s = {}, 0.01
        self.log = []

    def request(self, **ask):
        self.one.now_s += 0.005
        route = self.one.plan(**ask)
        assert isinstance(route, Route), route
        while True:
            attempt = self.one.next(route)
            assert isinstance(attempt, Attempt), attempt
            outcome = self.behaviour.get(attempt.worker_id, Outcome.OK)
            self.log.append((self.one.now_s, attempt.worker_id, outcome, attempt.trial))
            step = self.one.settle(route, attempt, outcome, self.latency_s)
            if step is not Step.RETRY:
                self.one.dispatcher.finish(route, self.one.now_s)
                return step

    def requests(self, count, **ask):
        return [self.request(**ask) for _ in range(count)]

    def slot(self, worker, model="m", revision="r1"):
        return self.one.dispatcher._slots[worker, revision, model]

    def ejected(self):
        state = report.router_state(
            self.one.dispatcher, synced=True, draining=False, now_s=self.one.now_s
        )
        return {(item.worker, item.reason) for item in state.ejected}

    def asked(self, worker, since_s=0.0):
        return [at_s for at_s, name, _, _ in self.log if name == worker and at_s >= since_s]

    def sleep(self, seconds):
        self.one.now_s += seconds
        self.one.dispatcher.tick(self.one.now_s)


@pytest.fixture
def fleet(harness, make_worker, make_table):
    def make(count=4, seed=1, limit=50, workers=None, **fields):
        workers = workers or [make_worker(f"w{n}", limit=limit) for n in range(count)]
        return Fleet(harness, make_table(*workers, **fields), seed)

    return make
