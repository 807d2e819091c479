"""Slow workers under load, on the production core in simulated time, with limits and a queue."""

import heapq
import random
from itertools import count
from statistics import quantiles

import pytest

from tidegate_router.core import slow
from tidegate_router.core.ewma import PeakLatency
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Attempt, Wait
from tidegate_router.core.slot import Slot

SERVICE_S = 0.010
WORKERS = 4


class Clinic:
    """Open-loop arrivals at workers of some instances each, with a limit of one more."""

    def __init__(self, harness, make_worker, make_table, *, instances, factor, seed=1):
        workers = [make_worker(f"w{n}", limit=instances + 1, score=0.8) for n in range(WORKERS)]
        self.one = harness(make_table(*workers), seed=seed)
        self.factor, self.instances = factor, instances
        self.random = random.Random(seed)
        self.free_s = {worker.id: [0.0] * instances for worker in workers}
        self.events, self.order = [], count()
        self.answers, self.refused = [], 0  # (took, worker, at)

    def at(self, when_s, what, *arguments):
        heapq.heappush(self.events, (when_s, next(self.order), what, arguments))

    def run(self, requests, load):
        arrival_s = self.one.now_s
        for _ in range(requests):
            arrival_s += self.random.expovariate(load * WORKERS * self.instances / SERVICE_S)
            self.at(arrival_s, lambda: self.ask(self.one.plan()))
        while self.events:
            when_s, _, what, arguments = heapq.heappop(self.events)
            self.one.now_s = max(self.one.now_s, when_s)
            what(*arguments)
        return self

    def ask(self, route):
        found = self.one.next(route)
        if isinstance(found, Attempt):
            self.serve(route, found)
        elif isinstance(found, Wait):
            self.wait(route, found)
        else:
            self.refused += 1
            self.one.dispatcher.finish(route, self.one.now_s)

    def wait(self, route, found):
        waiting = {"on": True}

        def again():
            if waiting.pop("on", None):
                self.one.dispatcher.unpark(route)
                self.ask(route)

        self.one.dispatcher.park(route, lambda: self.at(self.one.now_s, again))
        self.at(found.until_s, again)

    def serve(self, route, attempt):
        slots, now_s = self.free_s[attempt.worker_id], self.one.now_s
        factor = self.factor if attempt.worker_id == "w0" else 1
        end_s = max(now_s, slots[0]) + SERVICE_S * factor * self.random.uniform(0.9, 1.1)
        heapq.heapreplace(slots, end_s)
        self.at(end_s, self.end, route, attempt, now_s)

    def end(self, route, attempt, began_s):
        now_s = self.one.now_s
        self.one.settle(route, attempt, Outcome.OK, now_s - began_s)
        self.one.dispatcher.finish(route, now_s)
        self.answers.append((now_s - route.started_s, attempt.worker_id, now_s))

    def settled(self):
        """Leave out the time in which nothing is known yet."""
        return self.answers[len(self.answers) // 5 :]

    def p99(self):
        return quantiles([took for took, _, _ in self.settled()], n=100)[98]

    def share(self):
        return sum(worker == "w0" for _, worker, _ in self.settled()) / len(self.settled())

    def throughput(self):
        return len(self.answers) / (max(at_s for _, _, at_s in self.answers) - 1000.0)


@pytest.fixture
def clinic(harness, make_worker, make_table):
    def make(**fields):
        return Clinic(harness, make_worker, make_table, **fields)

    return make


@pytest.mark.parametrize("instances", [2, 8])
def test_one_of_four_ten_times_slower_at_60_percent_load_at_most_doubles_p99(clinic, instances):
    healthy = clinic(instances=instances, factor=1).run(5000, 0.6)
    ill = clinic(instances=instances, factor=10).run(5000, 0.6)
    assert ill.p99() <= 2 * healthy.p99()
    assert ill.share() < 0.01
    assert (ill.refused, healthy.refused) == (0, 0)


def test_under_overload_a_slow_worker_does_its_part(clinic):
    ill = clinic(instances=2, factor=4).run(3000, 1.5)
    possible = (3 + 1 / 4) * 2 / SERVICE_S
    assert ill.throughput() >= 0.95 * possible
    assert ill.share() > 0.06


def test_a_worker_that_got_fast_again_has_its_part_within_ten_seconds(clinic):
    one = clinic(instances=2, factor=10).run(3000, 0.6)
    healed_s, one.factor = one.one.now_s, 1
    one.run(6000, 0.6)
    late = [worker for _, worker, at_s in one.answers if at_s > healed_s + 8]
    assert late.count("w0") / len(late) == pytest.approx(0.25, abs=0.06)


def test_equal_workers_are_never_slow(clinic):
    one = clinic(instances=2, factor=1).run(3000, 0.8)
    assert not any(slot.slow for slot in one.one.dispatcher._slots.values())
    assert one.share() == pytest.approx(0.25, abs=0.04)


def a_group(harness, make_worker, make_table, *latencies_s, accelerators=()):
    workers = [
        make_worker(f"w{n}", accelerator=accelerators[n] if accelerators else "cpu", limit=1)
        for n in range(len(latencies_s))
    ]
    one = harness(make_table(*workers))
    for n, latency_s in enumerate(latencies_s):
        slot = one.dispatcher._slots.setdefault((f"w{n}", "r1", "m"), Slot())
        slot.latency.record(latency_s, one.now_s)
    one.dispatcher.view("u1", one.now_s)
    return one


def slow_ones(one):
    return {name for (name, _, _), slot in one.dispatcher._slots.items() if slot.slow}


@pytest.mark.parametrize(
    ("latencies_s", "expected"),
    [
        pytest.param([0.01, 0.01, 0.039], set(), id="below-four-times"),
        pytest.param([0.01, 0.01, 0.041], {"w2"}, id="above-four-times"),
        pytest.param([0.01, 0.5], {"w1"}, id="of-two-the-slower"),
        pytest.param([0.5], set(), id="alone"),
        pytest.param([0.01, 0.5, 0.5], set(), id="most-are-slow"),
        pytest.param([0.0001, 0.0001, 0.003], set(), id="below-a-millisecond-is-noise"),
    ],
)
def test_who_counts_as_slow(harness, make_worker, make_table, latencies_s, expected):
    assert slow_ones(a_group(harness, make_worker, make_table, *latencies_s)) == expected


def test_a_slower_class_is_not_slow(harness, make_worker, make_table):
    classes = ["gpu", "gpu", "cpu", "cpu"]
    one = a_group(harness, make_worker, make_table, 0.01, 0.01, 0.2, 0.2, accelerators=classes)
    assert slow_ones(one) == set()


def test_a_waiting_request_takes_a_slow_slot_after_the_usual_time(harness, make_worker, make_table):
    one = a_group(harness, make_worker, make_table, 0.01, 0.01, 0.5)
    busy = [one.next(one.plan(replayable=False)) for _ in range(2)]
    assert {attempt.worker_id for attempt in busy} <= {"w0", "w1", "w2"}
    one = a_group(harness, make_worker, make_table, 0.01, 0.01, 0.5)
    one.dispatcher._slots["w2", "r1", "m"].tried_s = one.now_s
    one.now_s += 0.3
    assert {one.next(one.plan()).worker_id for _ in range(2)} == {"w0", "w1"}
    route = one.plan()
    found = one.next(route)
    assert found.until_s == pytest.approx(one.now_s + 0.01)
    one.now_s += 0.0101
    assert one.next(route).worker_id == "w2"


def test_a_slow_worker_is_tried_once_in_200_requests_and_once_a_second():
    assert slow.pause_s(0, 10) == 10
    assert slow.pause_s(100, 10) == 10
    assert slow.pause_s(1000, 10) == 2
    assert slow.pause_s(1_000_000, 10) == 1


def test_three_good_trials_in_a_row_bring_it_back():
    slot = Slot(slow=True, latency=PeakLatency(1.0, 0.0))
    for latency_s in (0.01, 0.01, 0.5, 0.01, 0.02):
        slow.note(slot, latency_s, 0.01)
        assert slot.slow
    slow.note(slot, 0.02, 0.01)
    assert not slot.slow
    assert slot.latency.value_s is None


def test_without_peers_no_trial_is_good():
    slot = Slot(slow=True, good_trials=2)
    slow.note(slot, 0.001, None)
    assert (slot.slow, slot.good_trials) == (True, 0)
