"""Five times the load that the workers can take, in simulated time on the production core."""

import heapq
import math
import random
from dataclasses import dataclass, field

import pytest

from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Attempt, Wait

WORKERS, LIMIT, SERVICE_S = 4, 4, 0.04
CAPACITY_PER_S = WORKERS * LIMIT / SERVICE_S
TIERS = [
    {"name": "gold", "weight": 8, "p99TargetSeconds": 0.1},
    {"name": "silver", "weight": 3},
    {"name": "bronze", "weight": 1},
]


@dataclass
class Request:
    tier: str
    came_s: float
    waited_s: float = 0.0
    ended_s: float = math.nan
    refused: object = None
    tries: int = 1
    until_s: float = 0.0
    route: object = None
    began: bool = field(default=False)


class Simulation:
    """Clients, a router and workers whose service times are exponential."""

    def __init__(self, harness, make_worker, make_table, *, seed, mix, retries=0):
        self.random, self.mix, self.retries = random.Random(seed), mix, retries
        self.workers = [make_worker(f"w{n}", limit=LIMIT) for n in range(WORKERS)]
        self.make_table = make_table
        self.one = harness(self.table(), seed=seed)
        self.events, self.count, self.done = [], 0, []
        self.one.now_s = 0.0
        self.service_s = SERVICE_S
        self.sequence = 1
        self.one.dispatcher.proof.sequence_advanced(0.0)

    def table(self):
        policy = {"tiers": TIERS, "trustTierHeader": True}
        return self.make_table(*self.workers, policy=policy)

    def at(self, when_s, act, *what):
        self.count += 1
        heapq.heappush(self.events, (when_s, self.count, act, what))

    def offer(self, per_s, from_s, to_s):
        now_s = from_s
        while (now_s := now_s + self.random.expovariate(per_s)) < to_s:
            (tier,) = self.random.choices(list(self.mix), list(self.mix.values()))
            self.at(now_s, self.arrive, Request(tier, now_s))

    def run(self):
        while self.events:
            self.one.now_s, _, act, what = heapq.heappop(self.events)
            act(*what)
        assert self.one.dispatcher.holds.parked == 0

    def arrive(self, request):
        request.route = self.one.plan(tier=request.tier)
        self.ask(request)

    def ask(self, request):
        now_s, route = self.one.now_s, request.route
        found = self.one.next(route)
        if isinstance(found, Attempt):
            request.waited_s = now_s - request.came_s
            took_s = self.random.expovariate(1 / self.service_s)
            self.at(now_s + took_s, self.answered, request, found, took_s)
        elif isinstance(found, Wait):
            request.until_s = found.until_s
            self.one.dispatcher.park(route, lambda: self.at(self.one.now_s, self.woken, request))
            self.at(found.until_s, self.expired, request, found.until_s)
        else:
            self.refuse(request, found)

    def woken(self, request):
        request.until_s = 0.0
        self.one.dispatcher.unpark(request.route)
        self.ask(request)

    def expired(self, request, until_s):
        if request.until_s == until_s:
            self.woken(request)

    def refuse(self, request, refusal):
        request.refused, request.ended_s = refusal, self.one.now_s
        self.one.dispatcher.finish(request.route, self.one.now_s)
        self.done.append(request)
        if request.tries <= self.retries:
            again = Request(request.tier, self.one.now_s, tries=request.tries + 1)
            self.at(self.one.now_s + self.random.uniform(0.01, 0.1), self.come_back, again)

    def come_back(self, request):
        request.came_s = self.one.now_s
        self.arrive(request)

    def answered(self, request, attempt, took_s):
        self.one.settle(request.route, attempt, Outcome.OK, took_s)
        self.one.dispatcher.finish(request.route, self.one.now_s)
        request.ended_s = self.one.now_s
        self.done.append(request)

    def served(self, from_s=0.0, to_s=math.inf, tier=None):
        return [
            one
            for one in self.done
            if one.refused is None and from_s <= one.ended_s < to_s and tier in {None, one.tier}
        ]


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


@pytest.fixture(scope="module")
def simulate(harness, make_worker, make_table):
    def build(**fields):
        return Simulation(harness, make_worker, make_table, **fields)

    return build


@pytest.fixture(scope="module", params=[1, 2])
def overload(request, simulate):
    """5x for 6 s, then 0.8x for 8 s."""
    found = simulate(seed=request.param, mix={"gold": 10, "silver": 30, "bronze": 60})
    found.offer(5 * CAPACITY_PER_S, 0.0, 6.0)
    found.offer(0.8 * CAPACITY_PER_S, 6.0, 14.0)
    found.run()
    return found


def test_under_overload_the_workers_stay_busy(overload):
    goodput = len(overload.served(1.0, 6.0)) / 5
    assert goodput >= 0.9 * CAPACITY_PER_S


def test_refusals_come_at_once_and_say_when_to_come_back(overload):
    """From the first second on; until then nobody knows how long the model takes."""
    refused = [one for one in overload.done if one.refused is not None]
    assert len(refused) > 0.7 * 5 * CAPACITY_PER_S * 6
    known = [one.ended_s - one.came_s for one in refused if one.came_s >= 1.0]
    assert quantile(known, 0.99) <= 0.05
    assert quantile([one.ended_s - one.came_s for one in refused], 0.98) <= 0.05
    assert {one.refused.http_status for one in refused} == {429}
    assert all(one.refused.retry_after_s >= 1 for one in refused)


def test_gold_waits_no_longer_than_its_target_and_is_hardly_refused(overload):
    gold = [one for one in overload.done if one.tier == "gold"]
    assert max(one.waited_s for one in gold if one.refused is None) <= 0.1 + 1e-9
    assert sum(one.refused is not None for one in gold) <= 0.02 * len(gold)


def test_nobody_waits_longer_than_a_second(overload):
    assert max(one.waited_s for one in overload.served()) <= 1.0 + 1e-9


def test_bronze_gets_its_share(overload):
    gold, silver, bronze = (
        len(overload.served(1.0, 6.0, tier)) / 5 for tier in ("gold", "silver", "bronze")
    )
    assert gold == pytest.approx(0.5 * CAPACITY_PER_S, rel=0.1), "all that came"
    assert bronze / silver == pytest.approx(1 / 3, rel=0.15)
    assert bronze >= 0.1 * CAPACITY_PER_S


def test_five_seconds_after_the_load_is_normal_nobody_notices(overload):
    later = [one for one in overload.done if one.came_s >= 11.0]
    assert all(one.refused is None for one in later)
    assert quantile([one.ended_s - one.came_s for one in later], 0.99) <= SERVICE_S * 7


def test_clients_that_retry_make_no_lasting_overload(simulate):
    found = simulate(seed=3, mix={"bronze": 1}, retries=3)
    found.offer(2 * CAPACITY_PER_S, 0.0, 4.0)
    found.offer(0.8 * CAPACITY_PER_S, 4.0, 12.0)
    found.run()
    later = [one for one in found.done if one.came_s >= 9.0]
    assert sum(one.refused is not None for one in later) == 0
    assert len(found.served(1.0, 4.0)) / 3 >= 0.9 * CAPACITY_PER_S


def test_workers_that_get_slower_by_four_leave_no_heap_of_late_requests(simulate):
    found = simulate(seed=4, mix={"gold": 1, "bronze": 9})

    def slow():
        found.service_s = 4 * SERVICE_S

    found.offer(1.5 * CAPACITY_PER_S, 0.0, 10.0)
    found.at(3.0, slow)
    found.run()
    late = [one for one in found.done if one.refused is not None and one.came_s > 6.0]
    assert quantile([one.ended_s - one.came_s for one in late], 0.95) <= 0.05
    assert len(found.served(6.0, 10.0)) / 4 >= 0.9 * CAPACITY_PER_S / 4
