"""The pick under load, on the production core in simulated time: slow and failing workers."""

import heapq
import random
from statistics import mean, quantiles

import pytest

from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Attempt

SERVICE_S = 0.010
UTILIZATION = 0.6


class Simulation:
    """Open-loop arrivals at workers that each serve one request after the other."""

    def __init__(self, harness, tables, slow, seed):
        self.one, self.slow = harness(*tables, seed=seed), slow
        self.random = random.Random(seed)
        self.free_s = {worker.id: 0.0 for table in tables for worker in table.workers}
        self.running, self.seen = [], []

    def service_s(self, worker):
        return self.slow.get(worker, 1.0) * SERVICE_S * self.random.expovariate(1.0)

    def finish_until(self, now_s):
        while self.running and self.running[0][0] <= now_s:
            end_s, _, route, attempt, began_s = heapq.heappop(self.running)
            self.one.now_s = end_s
            self.one.settle(route, attempt, Outcome.OK, end_s - began_s)
            self.one.dispatcher.finish(route, end_s)
            self.seen.append((attempt.worker_id, end_s - began_s))

    def run(self, requests, rate):
        now_s = self.one.now_s
        for number in range(requests):
            now_s += self.random.expovariate(rate)
            self.finish_until(now_s)
            self.one.now_s = now_s
            route = self.one.plan()
            attempt = self.one.next(route)
            assert isinstance(attempt, Attempt)
            begin_s = max(now_s, self.free_s[attempt.worker_id])
            end_s = begin_s + self.service_s(attempt.worker_id)
            self.free_s[attempt.worker_id] = end_s
            heapq.heappush(self.running, (end_s, number, route, attempt, now_s))
        self.finish_until(1e12)
        return self.seen[requests // 5 :]  # without the time in which nothing is known yet


def p99(samples):
    return quantiles(samples, n=100)[98]


@pytest.mark.parametrize("seed", [1, 2])
def test_one_of_four_workers_ten_times_slower_does_not_set_p99(
    harness, make_worker, make_table, seed
):
    workers = [make_worker(f"w{n}", limit=1000, score=0.8) for n in range(4)]
    tables = [make_table(*workers)]
    rate = 3.1 * UTILIZATION / SERVICE_S
    with_slow = Simulation(harness, tables, {"w3": 10.0}, seed).run(12_000, rate)
    three = Simulation(harness, [make_table(*workers[:3])], {}, seed).run(12_000, rate)
    to_slow = mean(worker == "w3" for worker, _ in with_slow)
    assert to_slow < 0.05
    latency, floor = p99([took for _, took in with_slow]), p99([took for _, took in three])
    assert latency < 0.13 < 10 * SERVICE_S * 4.6, "a slow worker alone: 100 ms x ln 100 = 460 ms"
    assert latency < 4 * floor


def test_equal_workers_share_equally(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}", limit=1000, score=0.5) for n in range(10)]
    seen = Simulation(harness, [make_table(*workers)], {}, 3).run(8000, 6 / SERVICE_S)
    for worker in workers:
        assert mean(name == worker.id for name, _ in seen) == pytest.approx(0.1, abs=0.03)


def test_the_best_of_scores_does_not_take_all(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}", limit=1000, score=0.5) for n in range(19)]
    best = make_worker("best", limit=1000, score=1.0)
    seen = Simulation(harness, [make_table(*workers, best)], {}, 4).run(6000, 14 / SERVICE_S)
    assert 0.05 < mean(name == "best" for name, _ in seen) < 0.2


def test_a_worker_that_fails_fast_draws_no_traffic(harness, make_worker, make_table):
    one = harness(make_table(*(make_worker(f"w{n}", limit=100) for n in range(4))))
    taken = []
    for _ in range(2000):
        one.now_s += 0.002
        route = one.plan()
        attempt = one.next(route)
        taken.append(attempt.worker_id)
        if attempt.worker_id == "w0":
            one.settle(route, attempt, Outcome.MODEL_ERROR, latency_s=0.0001)
        else:
            one.settle(route, attempt, Outcome.OK, latency_s=SERVICE_S)
    assert taken[200:].count("w0") / len(taken[200:]) < 0.05


def test_a_thousand_workers_are_drawn_without_looking_at_all(harness, make_worker, make_table):
    workers = [make_worker(f"w{n}", limit=2, score=0.5) for n in range(1000)]
    one = harness(make_table(*workers))
    for _ in range(2000):
        assert isinstance(one.next(one.plan()), Attempt)
    assert not isinstance(one.next(one.plan()), Attempt), "every slot is taken, and exactly once"
