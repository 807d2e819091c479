"""Whose turn it is: fairness between tiers, order inside one, and counts that add up."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_router.core.queue.fair import Departures, FairQueue, Waiting

COST_S = 0.01


class Scene:
    """A queue with numbered requests."""

    def __init__(self, **weights):
        self.weights, self.queue, self.number = weights, FairQueue(), 0
        self.waiting, self.turn = {}, 0

    def join(self, tier, expires_s=1.0):
        self.number += 1
        one = Waiting(number=self.number, tier=tier, expires_s=expires_s, wake=lambda: None)
        self.queue.join(one, self.weights[tier])
        self.waiting[one.number] = one
        return one

    def serve(self):
        self.turn += 1
        one = self.queue.choose(self.turn, COST_S)
        if one is not None:
            self.queue.leave(one.tier, one.number)
            del self.waiting[one.number]
        return one


def test_the_earliest_end_of_patience_goes_first():
    scene = Scene(only=1)
    numbers = {scene.join("only", end).number: end for end in (3.0, 1.0, 2.0, 1.0)}
    served = [numbers[scene.serve().number] for _ in range(4)]
    assert served == [1.0, 1.0, 2.0, 3.0]
    assert scene.serve() is None


def test_of_equal_ends_the_earlier_arrival_goes_first():
    scene = Scene(only=1)
    arrived = [scene.join("only").number for _ in range(50)]
    assert [scene.serve().number for _ in range(50)] == arrived


def test_while_overloaded_the_newest_goes_first():
    scene = Scene(only=1)
    arrived = [scene.join("only").number for _ in range(10)]
    for _ in range(9):
        scene.queue.note("only", 5.0, served=False)
    assert [scene.serve().number for _ in range(10)] == arrived[::-1]


@pytest.mark.parametrize(
    ("served", "unserved", "overloaded"),
    [
        pytest.param(0, 0, False, id="nothing-happened"),
        pytest.param(100, 3, False, id="a-few-gave-up"),
        pytest.param(0, 3, False, id="too-few-to-say"),
        pytest.param(10, 5, True, id="a-third-gave-up"),
        pytest.param(1000, 50, False, id="a-twentieth-gave-up"),
    ],
)
def test_overload_is_when_more_than_a_tenth_leave_unserved(served, unserved, overloaded):
    departures = Departures()
    for _ in range(served):
        departures.note(1.0, served=True)
    for _ in range(unserved):
        departures.note(1.0, served=False)
    assert departures.overloaded is overloaded


def test_overload_is_over_when_those_who_leave_are_served_again():
    departures = Departures()
    for _ in range(20):
        departures.note(1.0, served=False)
    for tick in range(100):
        departures.note(1.0 + tick * 0.05, served=True)
    assert not departures.overloaded


def test_tiers_get_their_weights_while_all_of_them_wait():
    scene = Scene(gold=8, silver=3, bronze=1)
    for tier in scene.weights:
        for _ in range(1200):
            scene.join(tier)
    counts = Counter(scene.serve().tier for _ in range(1200))
    assert counts == {"gold": 800, "silver": 300, "bronze": 100}


def test_bronze_is_served_however_much_gold_comes():
    scene = Scene(gold=1000, bronze=1)
    first, second = scene.join("bronze"), scene.join("bronze")
    order = []
    for _ in range(1100):
        scene.join("gold")
        scene.join("gold")
        order.append(scene.serve())
    assert order.index(second) - order.index(first) in range(1000, 1003), "gold's share between"


def test_a_tier_earns_nothing_by_being_away():
    scene = Scene(gold=1, bronze=1)
    for _ in range(500):
        scene.join("bronze")
    for _ in range(400):
        scene.serve()
    for _ in range(100):
        scene.join("gold")
    counts = Counter(scene.serve().tier for _ in range(50))
    assert abs(counts["gold"] - counts["bronze"]) <= 1


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=20, max_size=300),
    st.integers(0, 2**32),
)
def test_over_any_span_two_waiting_tiers_differ_by_one_request_each(weights, steps, seed):
    """The bound of SFQ: |W_f/w_f - W_g/w_g| <= c/w_f + c/w_g while both wait."""
    names = [f"t{index}" for index in range(len(weights))]
    scene = Scene(**dict(zip(names, weights, strict=True)))
    served, spans = Counter(), {}
    for which, comes in steps:
        if comes:
            for _ in range(random.Random(seed).randint(1, 5)):
                scene.join(names[which % len(names)])
        one = scene.serve()
        if one is not None:
            served[one.tier] += 1
        queued = Counter(waiting.tier for waiting in scene.waiting.values())
        for f in names:
            for g in names:
                if f >= g:
                    continue
                if not (queued[f] and queued[g]):
                    spans.pop((f, g), None)
                    continue
                now = served[f] / scene.weights[f] - served[g] / scene.weights[g]
                low, high = spans.get((f, g), (now, now))
                spans[f, g] = low, high = min(low, now), max(high, now)
                assert high - low <= 1 / scene.weights[f] + 1 / scene.weights[g] + 1e-9


class Machine:
    """Random joins, turns, departures and returns; every request ends exactly once."""

    def __init__(self, seed):
        self.random, self.queue = random.Random(seed), FairQueue()
        self.woken, self.members, self.number, self.turn = Counter(), {}, 0, 0

    def join(self):
        self.number += 1
        self.put(self.number, turn=-1)

    def put(self, number, turn):
        def wake():
            self.woken[number] += 1

        one = Waiting(
            number=number, tier=self.random.choice("abc"), wake=wake, turn=turn,
            expires_s=self.random.random(),
        )  # fmt: skip
        self.queue.join(one, self.random.choice((1, 2, 8)))
        self.members[number] = one

    def choose(self):
        self.turn += self.random.random() < 0.7
        one = self.queue.choose(self.turn, COST_S)
        eligible = [m for m in self.members.values() if not m.woken and m.turn != self.turn]
        if one is None:
            assert not eligible
        else:
            assert one.number in self.members
            one.wake()

    def leave(self):
        if self.members:
            number = self.random.choice(list(self.members))
            one = self.members.pop(number)
            assert self.queue.leave(one.tier, number) is one
            assert self.queue.leave(one.tier, number) is None
            if one.woken and self.random.random() < 0.3:
                self.woken[number] -= 1
                self.put(number, turn=self.turn)

    def note(self):
        self.queue.note(self.random.choice("abc"), self.turn, served=self.random.random() < 0.5)

    def check(self):
        assert len(self.queue) == len(self.members)
        assert all(times <= 1 for times in self.woken.values())
        for line in self.queue.tiers.values():
            asleep = {n for n, member in line.members.items() if not member.woken}
            assert {number for _, number in line.order} == asleep
            assert line.order == sorted(line.order)


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_happens_nobody_is_lost_or_woken_twice(seed):
    machine = Machine(seed)
    steps = [machine.join, machine.choose, machine.leave, machine.note]
    for _ in range(200):
        machine.random.choices(steps, [10, 7, 5, 3])[0]()
        machine.check()


@pytest.mark.parametrize(
    ("tier", "expires_s", "before", "share"),
    [
        pytest.param("gold", 9.0, 4, 4 / 5, id="the-last-of-gold"),
        pytest.param("gold", 0.5, 0, 4 / 5, id="an-urgent-one-goes-before-its-tier"),
        pytest.param("bronze", 9.0, 8, 1 / 5, id="the-last-of-bronze"),
        pytest.param("new", 9.0, 0, 1 / 11, id="the-first-of-a-tier-shares-with-all"),
    ],
)
def test_work_ahead_is_ones_own_tier_at_its_share(tier, expires_s, before, share):
    scene = Scene(gold=4, bronze=1, new=0.5)
    for _ in range(4):
        scene.join("gold")
    for _ in range(8):
        scene.join("bronze")
    line = scene.queue.tier(tier, scene.weights[tier])
    assert line.before(expires_s) == before
    assert scene.queue.share_ratio(line) == pytest.approx(share)
