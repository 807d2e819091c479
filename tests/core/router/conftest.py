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
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.request import Ask, Ending


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
