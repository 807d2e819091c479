"""Who may wait, for how long, and what follows: the queue inside the dispatcher."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.names import DroppedReason
from tidegate_router.core import tiers as tier_moves
from tidegate_router.core.faults import Outcome
from tidegate_router.core.holds import ENTRY_BYTES, HoldBook
from tidegate_router.core.request import Attempt, Call, Wait

TIERS = [{"name": "gold", "weight": 8, "p99TargetSeconds": 0.05}, {"name": "bronze", "weight": 1}]


def full(harness, make_worker, make_table, *, limit=1, policy=None, **fields):
    """Return a scene whose only worker has no slot left, and the attempts that took them."""
    one = harness(make_table(make_worker("a", limit=limit), policy=policy or {}), **fields)
    return one, [one.next(one.plan()) for _ in range(limit)]


def wait(one, **ask):
    """Let one more wait; returns its route, or the refusal."""
    route = one.plan(**ask)
    found = one.next(route)
    if not isinstance(found, Wait):
        return found
    one.dispatcher.park(route, lambda: None)
    return route


def again(one, route):
    one.dispatcher.unpark(route)
    return one.next(route)


def test_who_cannot_be_served_in_time_hears_so_at_once(harness, make_worker, make_table):
    one, _ = full(harness, make_worker, make_table)
    waiting = [wait(one) for _ in range(300)]
    refused = [item for item in waiting if hasattr(item, "reason")]
    assert 200 <= len(refused) <= 220, "a slot of 10 ms serves 100 in a second, 83 with caution"
    assert {item.reason for item in refused} == {DroppedReason.SATURATED}
    assert {item.http_status for item in refused} == {429}
    assert all(item.retry_after_s >= 1 for item in refused)


def test_a_deadline_that_cannot_be_met_is_said_at_once_too(harness, make_worker, make_table):
    one, _ = full(harness, make_worker, make_table)
    for _ in range(50):
        wait(one, timeout_s=0.3)
    refused = wait(one, timeout_s=0.305)
    assert (refused.reason, refused.http_status) == (DroppedReason.DEADLINE, 429)
    assert refused.grpc_code == "RESOURCE_EXHAUSTED"
    assert refused.retry_after_s is not None
    assert "deadline" in refused.message


def test_an_urgent_one_goes_first_and_is_predicted_so(harness, make_worker, make_table):
    one, (running,) = full(harness, make_worker, make_table)
    patient = [wait(one) for _ in range(20)]
    urgent = wait(one, timeout_s=0.1)
    one.dispatcher.release(running)
    assert urgent.woken
    assert not any(route.woken for route in patient)


def test_a_client_without_a_deadline_has_the_pools_timeout_from_dispatch_on(
    harness, make_worker, make_table
):
    one, (running,) = full(harness, make_worker, make_table, policy={"timeoutSeconds": 0.5})
    route = wait(one)
    one.now_s += 0.9
    one.dispatcher.release(running)
    attempt = again(one, route)
    assert attempt.timeout_s == pytest.approx(0.5), "what it waited does not count"


def test_a_clients_own_deadline_covers_the_wait(harness, make_worker, make_table):
    one, (running,) = full(harness, make_worker, make_table)
    route = wait(one, timeout_s=0.8)
    one.now_s += 0.5
    one.dispatcher.release(running)
    assert again(one, route).timeout_s == pytest.approx(0.3)


def test_one_that_is_hopeless_when_its_turn_comes_is_dropped_and_the_next_has_it(
    harness, make_worker, make_table
):
    one, (running,) = full(harness, make_worker, make_table)
    late, fine = wait(one, timeout_s=0.2), wait(one)
    one.now_s += 0.195
    one.dispatcher.release(running)
    refused = again(one, late)
    assert (refused.reason, refused.http_status) == (DroppedReason.DEADLINE, 429)
    assert fine.woken
    assert isinstance(again(one, fine), Attempt)


def test_a_refused_one_hands_its_turn_on(harness, make_worker, make_table):
    one, (running,) = full(harness, make_worker, make_table)
    late, fine = wait(one, timeout_s=0.2), wait(one)
    one.dispatcher.release(running)
    one.now_s += 0.3
    assert again(one, late).http_status == 504
    assert fine.woken


@pytest.mark.parametrize(
    ("queue", "size_bytes", "admitted"),
    [
        pytest.param({"maxRequests": 3}, 0, 3, id="requests"),
        pytest.param({"maxBytes": 4 * ENTRY_BYTES}, ENTRY_BYTES, 2, id="bytes"),
    ],
)
def test_memory_is_bounded_whatever_is_predicted(
    harness, make_worker, make_table, queue, size_bytes, admitted
):
    one, _ = full(harness, make_worker, make_table, policy={"queue": queue})
    found = [wait(one, size_bytes=size_bytes) for _ in range(6)]
    refused = [item for item in found if hasattr(item, "reason")]
    assert len(refused) == 6 - admitted
    assert {item.reason for item in refused} == {DroppedReason.SATURATED}
    assert "routing.queue" in refused[0].message


def test_the_routers_own_bound_holds_over_all_pools(harness, make_worker, make_table):
    holds = HoldBook(max_bytes=3 * ENTRY_BYTES)
    pools = [make_table(make_worker(name, limit=1), uid=name, name=name) for name in ("p", "q")]
    one = harness(*pools, holds=holds)
    for name in ("p", "q"):
        one.next(one.plan(pool=f"ns/{name}"))
    found = [wait(one, pool=f"ns/{name}") for name in "pqpq"]
    assert [hasattr(item, "reason") for item in found] == [False, False, False, True]
    for route in found[:3]:
        one.dispatcher.unpark(route)
    assert (holds.size_bytes, holds.parked, holds.waiting()) == (0, 0, {})


def test_without_a_worker_requests_are_held_and_counted(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=2)))
    one.apply(make_table(sequence=2, weights={"r1": 100}))
    routes = [wait(one, size_bytes=10) for _ in range(5)]
    ((uid, load),) = one.dispatcher.holds.loads()
    assert (uid, load.requests, load.held) == ("u1", 5, 5)
    assert load.size_bytes == 5 * (10 + ENTRY_BYTES)
    one.now_s += 50
    one.apply(make_table(make_worker("a", limit=2), sequence=3))
    begun = []
    while ready := [route for route in routes if route.woken]:
        begun.append(again(one, ready[0]))
    assert [type(item) for item in begun] == [Attempt, Attempt, Wait]
    assert sum(load.held for _, load in one.dispatcher.holds.loads()) <= 3


@pytest.mark.parametrize("call", list(Call))
def test_every_call_is_held(harness, make_worker, make_table, call):
    one = harness(make_table(make_worker("a")))
    one.apply(make_table(sequence=2, weights={"r1": 100}))
    found = one.next(one.plan(call=call))
    assert found.until_s == pytest.approx(one.now_s + 55)


@pytest.mark.parametrize(
    ("timeout_s", "ttl_s", "status", "held_s"),
    [
        pytest.param(None, 0.0, 503, 0.0, id="never-where-the-pool-says-so"),
        pytest.param(None, 20.0, 503, 20.0, id="as-long-as-the-pool-says"),
        pytest.param(5.0, 20.0, 504, 5.0, id="not-beyond-the-clients-deadline"),
    ],
)
def test_a_hold_ends(harness, make_worker, make_table, timeout_s, ttl_s, status, held_s):
    one = harness(make_table(make_worker("a")))
    policy = {"queue": {"noWorkersTtlSeconds": ttl_s}}
    one.apply(make_table(sequence=2, weights={"r1": 100}, policy=policy))
    route = one.plan(timeout_s=timeout_s)
    found = one.next(route)
    if held_s:
        assert found.until_s == pytest.approx(one.now_s + held_s)
        one.now_s += held_s
        found = one.next(route)
    assert found.http_status == status


def test_one_that_waits_while_the_last_worker_goes_is_held_longer(harness, make_worker, make_table):
    one, _ = full(harness, make_worker, make_table)
    route = wait(one)
    one.apply(make_table(sequence=2, weights={"r1": 100}))
    assert again(one, route).until_s == pytest.approx(one.now_s + 55)


def test_a_newcomer_need_not_wait_behind_one_that_waits_for_another_version(
    harness, make_worker, make_table
):
    one = harness(
        make_table(make_worker("a", version="1", limit=1), make_worker("b", version="2", limit=2))
    )
    first = one.next(one.plan(version="1"))
    stuck = wait(one, version="1")
    assert isinstance(one.next(one.plan()), Attempt), "worker b is free"
    one.dispatcher.release(first)
    assert isinstance(again(one, stuck), Attempt)


def test_of_two_that_wait_for_another_version_none_spins(harness, make_worker, make_table):
    one = harness(
        make_table(make_worker("a", version="1", limit=1), make_worker("b", version="2", limit=1))
    )
    one.next(one.plan(version="1"))
    running = one.next(one.plan(version="2"))
    stuck = [wait(one, version="1") for _ in range(3)]
    one.dispatcher.release(running)
    for _ in range(10):
        ready = [route for route in stuck if route.woken]
        if not ready:
            break
        found = again(one, ready[0])
        assert isinstance(found, Wait)
        one.dispatcher.park(ready[0], lambda: None)
    assert not ready, "each has one chance per slot that comes free"


def test_all_slots_of_a_worker_that_came_back_are_used(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=3)))
    route = one.plan()
    one.settle(route, one.next(route), Outcome.UNREACHABLE)
    routes = [wait(one) for _ in range(3)]
    one.now_s += 0.6
    trial = again(one, routes[0])
    assert trial.trial
    one.settle(routes[0], trial, Outcome.OK)
    taken = 0
    while ready := [route for route in routes[1:] if route.woken]:
        taken += isinstance(again(one, ready[0]), Attempt)
    assert taken == 2


def test_a_retried_request_waits_whatever_is_predicted(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1), make_worker("b", limit=1)))
    route = one.plan()
    attempt = one.next(route)
    other = one.next(one.plan())
    for _ in range(60):
        wait(one)
    one.settle(route, attempt, Outcome.NEVER_RAN, release=False)
    found = one.next(route)
    assert isinstance(found, Wait)
    one.dispatcher.park(route, lambda: None)
    assert isinstance(other, Attempt)


def test_a_follower_of_a_higher_tier_takes_the_request_along(harness, make_worker, make_table):
    policy = {"tiers": TIERS, "trustTierHeader": True}
    one, (running,) = full(harness, make_worker, make_table, policy=policy)
    bronze = [wait(one, tier="bronze") for _ in range(10)]
    one.dispatcher.release(running)
    one.dispatcher.unpark(bronze[0])
    running = one.next(bronze[0])
    tier_moves.promote(one.dispatcher, bronze[7], "gold", one.now_s)
    one.dispatcher.release(running)
    assert bronze[7].woken
    assert not bronze[1].woken
    for route in bronze:
        one.dispatcher.unpark(route)
    assert one.dispatcher.holds.parked == 0


def test_a_lines_memory_goes_with_its_use(harness, make_worker, make_table):
    one, _ = full(harness, make_worker, make_table)
    one.dispatcher.unpark(wait(one))
    assert one.dispatcher.holds._lines
    one.now_s += 61
    one.dispatcher.tick(one.now_s)
    assert not one.dispatcher.holds._lines


def test_a_turn_that_could_not_be_used_costs_its_tier_nothing(harness, make_worker, make_table):
    even = [{"name": "gold", "weight": 1}, {"name": "bronze", "weight": 1}]
    policy = {"tiers": even, "trustTierHeader": True, "queue": {"maxWaitSeconds": 60}}
    one = harness(
        make_table(
            make_worker("a", version="1", limit=1),
            make_worker("b", version="2", limit=1),
            policy=policy,
        )
    )
    one.next(one.plan(version="1"))
    running = one.next(one.plan(version="2"))
    stuck = wait(one, tier="gold", version="1")
    everybody = [stuck, *(wait(one, tier=tier) for _ in range(40) for tier in ("gold", "bronze"))]
    served = []
    for _ in range(20):
        one.dispatcher.release(running)
        while ready := [route for route in everybody if route.woken]:
            found = again(one, ready[0])
            if isinstance(found, Attempt):
                running = found
                served.append(ready[0].tier)
            else:
                one.dispatcher.park(ready[0], lambda: None)
    assert len(served) == 20
    assert abs(served.count("gold") - served.count("bronze")) <= 2


def test_a_slot_that_is_taken_out_of_turn_is_paid_for(harness, make_worker, make_table):
    even = [{"name": "gold", "weight": 1}, {"name": "bronze", "weight": 1}]
    policy = {"tiers": even, "trustTierHeader": True, "queue": {"maxWaitSeconds": 60}}
    one, (running,) = full(harness, make_worker, make_table, policy=policy)
    gold = [wait(one, tier="gold") for _ in range(10)]
    bronze = [wait(one, tier="bronze") for _ in range(10)]
    for hasty in gold[5:]:
        one.dispatcher.release(running)
        running = again(one, hasty)  # its timer was faster than the one whose turn it was
        (slow,) = [route for route in (*gold, *bronze) if route.woken]
        assert isinstance(again(one, slow), Wait)
        one.dispatcher.park(slow, lambda: None)
    turns = []
    for _ in range(5):
        one.dispatcher.release(running)
        (route,) = [route for route in (*gold, *bronze) if route.woken]
        turns.append(route.tier)
        running = again(one, route)
    assert turns.count("bronze") >= 4


def test_one_that_waited_and_failed_may_wait_anew(harness, make_worker, make_table):
    one, (running,) = full(harness, make_worker, make_table)
    route = wait(one)
    one.now_s += 0.9
    one.dispatcher.release(running)
    attempt = again(one, route)
    one.apply(make_table(make_worker("a", limit=1), make_worker("b", limit=1), sequence=2))
    one.next(one.plan())
    one.now_s += 2
    one.settle(route, attempt, Outcome.NEVER_RAN, release=False)
    assert one.next(route).until_s == pytest.approx(one.now_s + 1)


def test_all_who_wait_for_a_canary_that_went_away_are_served_by_stable(
    harness, make_worker, make_table
):
    stable, canary = make_worker("s", revision="old", limit=50), make_worker("c", revision="new")
    weights = {"old": 60, "new": 40}
    one = harness(make_table(stable, canary, weights=weights))
    waiting = []
    while len(waiting) < 6:
        route = one.plan()
        if isinstance(one.next(route), Wait):
            one.dispatcher.park(route, lambda: None)
            waiting.append(route)
    assert {route.revision for route in waiting} == {"new"}
    one.apply(make_table(stable, weights=weights, sequence=2))
    for route in waiting:
        assert route.woken
        attempt = again(one, route)
        assert attempt.worker_id == "s"
    assert one.dispatcher.holds.parked == 0


class Crowd:
    """Requests of all kinds against a small pool; what they hold must add up at each step."""

    def __init__(self, harness, make_worker, make_table, seed):
        self.random = random.Random(seed)
        workers = [make_worker(f"w{n}", limit=2, version=str(1 + n % 2)) for n in range(3)]
        policy = {"tiers": TIERS, "trustTierHeader": True, "queue": {"maxRequests": 30}}
        self.tables = [
            make_table(*workers, policy=policy),
            make_table(*workers[:1], policy=policy),
            make_table(policy=policy, weights={"r1": 100}),
        ]
        self.one, self.sequence = harness(self.tables[0], seed=seed), 1
        self.running, self.waiting, self.calls = [], [], {}
        self.came = self.ended = 0

    def arrive(self):
        self.came += 1
        route = self.one.plan(
            tier=self.random.choice(["", "gold", "bronze"]),
            version=self.random.choice(["", "", "", "1", "2"]),
            size_bytes=self.random.randrange(1000),
            timeout_s=self.random.choice([None, None, 0.05, 0.5]),
        )
        if hasattr(route, "reason"):
            self.ended += 1
        else:
            self.ask(route)

    def ask(self, route):
        found = self.one.next(route)
        if isinstance(found, Attempt):
            self.running.append((route, found))
        elif isinstance(found, Wait):
            self.calls[route.number] = 0
            self.one.dispatcher.park(route, lambda: self.wake(route))
            self.waiting.append((route, found.until_s))
        else:
            self.ended += 1

    def wake(self, route):
        self.calls[route.number] += 1
        assert self.calls[route.number] == 1, "woken once per wait"
        assert route.woken

    def answer(self):
        if self.running:
            route, attempt = self.running.pop(self.random.randrange(len(self.running)))
            self.one.settle(route, attempt, Outcome.OK, 0.02)
            self.ended += 1

    def leave(self):
        if self.waiting:
            route, _ = self.waiting.pop(self.random.randrange(len(self.waiting)))
            self.one.dispatcher.abandon(route)
            self.ended += 1

    def time(self):
        self.one.now_s += self.random.expovariate(20)

    def table(self):
        self.sequence += 1
        chosen = self.random.choice(self.tables)
        self.one.apply(chosen.model_copy(update={"sequence": self.sequence}))

    def settle_down(self):
        """Let everybody who was woken, or whose time is over, ask again, as lanes do."""
        for _ in range(500):
            due = [
                item for item in self.waiting if item[0].woken or item[1] <= self.one.now_s
            ]  # fmt: skip
            if not due:
                return
            self.waiting.remove(due[0])
            self.one.dispatcher.unpark(due[0][0])
            self.ask(due[0][0])
        pytest.fail("they wake each other for ever")

    def check(self):
        holds = self.one.dispatcher.holds
        loads = dict(holds.loads())
        sizes = sum(route.ask.size_bytes + ENTRY_BYTES for route, _ in self.waiting)
        assert holds.parked == len(self.waiting) == sum(one.requests for one in loads.values())
        assert holds.size_bytes == sizes == sum(one.size_bytes for one in loads.values())
        assert sum(one.held for one in loads.values()) == sum(r.held for r, _ in self.waiting)
        assert self.came == self.ended + len(self.running) + len(self.waiting)
        self.nobody_waits_for_what_is_free()

    def nobody_waits_for_what_is_free(self):
        view = self.one.dispatcher.view("u1", self.one.now_s)
        free = {
            one.served.version
            for one in view.group("r1", "m").candidates
            if one.slot.in_flight < one.limit
        }
        for route, _ in self.waiting:
            wanted = {route.ask.version} if route.ask.version else free
            assert not wanted & free, (route.ask, free)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**9))
def test_whatever_happens_everybody_ends_once_and_no_slot_idles(
    harness, make_worker, make_table, seed
):
    crowd = Crowd(harness, make_worker, make_table, seed)
    steps = [crowd.arrive, crowd.answer, crowd.leave, crowd.time, crowd.table]
    for _ in range(120):
        crowd.random.choices(steps, [12, 7, 1, 4, 1])[0]()
        crowd.settle_down()
        crowd.check()
    crowd.one.now_s += 100
    crowd.settle_down()
    while crowd.running:
        crowd.answer()
        crowd.settle_down()
    crowd.check()
    assert crowd.came == crowd.ended
    assert crowd.one.dispatcher.holds.size_bytes == 0
