"""One request from plan to finish: who gets it, who waits, what is tried again."""

import pytest

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import RouterShare
from tidegate_api.state import Pressure, Thermal, Traits
from tidegate_router.core.faults import Outcome
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Call, Route, Step, Wait


def chosen(harness, **fields):
    """Send one request to its end and return the worker that got it."""
    route = harness.plan(**fields)
    attempt = harness.next(route)
    harness.settle(route, attempt, Outcome.OK)
    harness.dispatcher.finish(route, harness.now_s)
    return attempt.worker_id


def everyone(harness, count=60, **fields):
    return {chosen(harness, **fields) for _ in range(count)}


def test_a_request_goes_to_a_worker_of_its_model(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b", model="other")))
    assert everyone(one) == {"a"}


def test_an_attempt_carries_address_ports_and_time(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", address="10.1.2.3"), policy={"timeoutSeconds": 7}))
    attempt = one.next(one.plan())
    assert (attempt.address, attempt.http_port, attempt.grpc_port) == ("10.1.2.3", 8000, 8001)
    assert attempt.timeout_s == pytest.approx(7)


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param({"draining": True}, id="draining"),
        pytest.param({"address": ""}, id="without-address"),
        pytest.param({"ready": False}, id="not-ready-beside-a-ready-one"),
        pytest.param({"pressure": Pressure.CRITICAL}, id="critical-memory"),
        pytest.param({"thermal": Thermal.CRITICAL}, id="critical-heat"),
    ],
)
def test_an_unfit_worker_is_left_out_while_another_is_free(harness, make_worker, make_table, unfit):
    one = harness(make_table(make_worker("good"), make_worker("bad", **unfit)))
    assert everyone(one) == {"good"}


@pytest.mark.parametrize(
    "unfit",
    [{"ready": False}, {"pressure": Pressure.CRITICAL}, {"thermal": Thermal.CRITICAL}],
    ids=["not-ready", "critical-memory", "critical-heat"],
)
def test_soft_filters_are_dropped_when_nobody_else_is_left(harness, make_worker, make_table, unfit):
    assert everyone(harness(make_table(make_worker("bad", **unfit)))) == {"bad"}


def test_critical_is_dropped_before_not_ready(harness, make_worker, make_table):
    hot = make_worker("hot", thermal=Thermal.CRITICAL)
    assert everyone(harness(make_table(hot, make_worker("starting", ready=False)))) == {"hot"}


def test_a_worker_that_is_not_ready_is_no_way_out_of_saturation(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1), make_worker("starting", ready=False)))
    one.next(one.plan())
    assert isinstance(one.next(one.plan()), Wait)


def test_stale_scores_stop_nothing(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", score=0.9), make_worker("b", score=0.1)))
    one.now_s += 3600
    assert everyone(one) == {"a", "b"}


def test_a_given_version_is_kept(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", version="1"), make_worker("b", version="2")))
    assert everyone(one, version="2") == {"b"}
    refused = one.plan(version="3")
    assert refused.reason is DroppedReason.UNKNOWN_MODEL


def test_unary_inference_of_a_decoupled_model_names_the_stream_call(
    harness, make_worker, make_table
):
    one = harness(make_table(make_worker("a", traits=Traits(decoupled=True))))
    refused = one.plan()
    assert refused.http_status == 400
    assert "generate_stream" in refused.message
    assert isinstance(one.plan(call=Call.STREAM), Route)


def test_unknown_names_are_refused(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    assert one.plan("nobody").reason is DroppedReason.UNKNOWN_MODEL
    assert one.plan(pool="ns/other").reason is DroppedReason.UNKNOWN_POOL
    assert one.plan("other", pool="ns/p").reason is DroppedReason.UNKNOWN_MODEL


def test_a_bare_name_belongs_to_the_oldest_pool_whatever_comes_later(
    harness, make_worker, make_table
):
    old = make_table(make_worker("old"), uid="u1", name="z", created_at="2026-01-01T00:00:00Z")
    new = make_table(make_worker("new"), uid="u2", name="a", created_at="2026-01-02T00:00:00Z")
    one = harness(new, old)
    assert everyone(one) == {"old"}
    assert everyone(one, pool="ns/a") == {"new"}


def test_a_pool_scaled_to_zero_still_owns_its_names(harness, make_worker, make_table):
    old = make_table(make_worker("old"), uid="u1", name="z", created_at="2026-01-01T00:00:00Z")
    new = make_table(make_worker("new"), uid="u2", name="a", created_at="2026-01-02T00:00:00Z")
    one = harness(old, new)
    one.apply(old.model_copy(update={"workers": [], "sequence": 2}))
    route = one.plan()
    assert route.pool == "z"
    assert one.next(route).until_s == one.now_s + 55
    one.now_s += 55
    assert one.next(route).reason is DroppedReason.NO_WORKERS


def test_bare_names_can_be_switched_off(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")), bare_names=False)
    assert "x-tidegate-pool" in one.plan().message
    assert everyone(one, pool="ns/p") == {"a"}


def test_the_limit_is_shared_by_what_the_table_grants(harness, make_worker, make_table):
    shares = [RouterShare(instance="me", share=0.25), RouterShare(instance="you", share=0.75)]
    one = harness(make_table(make_worker("a", limit=8), routers=shares))
    assert isinstance(one.next(one.plan()), Attempt)
    assert isinstance(one.next(one.plan()), Attempt)
    assert isinstance(one.next(one.plan()), Wait)


def test_a_router_that_the_table_does_not_know_takes_an_equal_part(
    harness, make_worker, make_table
):
    shares = [RouterShare(instance="you", share=1.0)]
    one = harness(make_table(make_worker("a", limit=4), routers=shares))
    taken = [one.next(one.plan()) for _ in range(3)]
    assert [type(item) for item in taken] == [Attempt, Attempt, Wait]


def test_every_router_may_send_at_least_one(harness, make_worker, make_table):
    shares = [RouterShare(instance="me", share=0.0)]
    one = harness(make_table(make_worker("a", limit=4), routers=shares))
    assert isinstance(one.next(one.plan()), Attempt)


def test_saturation_waits_up_to_a_second_and_then_says_so(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    one.next(one.plan())
    route = one.plan()
    waiting = one.next(route)
    assert waiting.until_s == pytest.approx(one.now_s + 1)
    one.now_s += 1
    refused = one.next(route)
    assert (refused.reason, refused.http_status) == (DroppedReason.SATURATED, 429)
    assert refused.retry_after_s is not None


def test_a_short_deadline_ends_the_wait(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    one.next(one.plan())
    route = one.plan(timeout_s=0.2)
    assert one.next(route).until_s == pytest.approx(one.now_s + 0.2 - 0.01), "less one service"
    one.now_s += 0.195
    hopeless = one.next(route)
    assert (hopeless.reason, hopeless.http_status) == (DroppedReason.DEADLINE, 429)
    one.now_s += 0.2
    over = one.next(one.dispatcher.plan(route.ask, one.now_s - 0.3))
    assert (over.reason, over.http_status) == (DroppedReason.DEADLINE, 504)


def test_a_released_slot_wakes_those_who_wait_in_order(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    first, woken = one.next(one.plan()), []
    routes = [one.plan() for _ in range(3)]
    for route in routes:
        assert isinstance(one.next(route), Wait)
        one.dispatcher.park(route, lambda number=route.number: woken.append(number))
    one.dispatcher.release(first)
    assert woken == [routes[0].number]
    assert isinstance(one.next(one.plan()), Wait), "a newcomer does not overtake those who wait"
    one.dispatcher.unpark(routes[0])
    assert isinstance(one.next(routes[0]), Attempt)


def test_two_free_slots_wake_two(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=2)))
    attempts, woken = [one.next(one.plan()) for _ in range(2)], []
    routes = [one.plan() for _ in range(3)]
    for route in routes:
        one.next(route)
        one.dispatcher.park(route, lambda number=route.number: woken.append(number))
    for attempt in attempts:
        one.dispatcher.release(attempt)
    assert woken == [routes[0].number, routes[1].number]


def test_a_woken_client_that_left_hands_its_turn_on(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    first, woken = one.next(one.plan()), []
    routes = [one.plan() for _ in range(2)]
    for route in routes:
        one.next(route)
        one.dispatcher.park(route, lambda number=route.number: woken.append(number))
    one.dispatcher.release(first)
    one.dispatcher.abandon(routes[0])
    assert woken == [routes[0].number, routes[1].number]


def test_a_new_table_wakes_everybody(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    one.next(one.plan())
    woken, routes = [], [one.plan() for _ in range(2)]
    for route in routes:
        one.next(route)
        one.dispatcher.park(route, lambda number=route.number: woken.append(number))
    one.apply(make_table(make_worker("a", limit=3), sequence=2))
    for route in routes:
        assert woken.pop() == route.number, "one after the other"
        one.dispatcher.unpark(route)
        assert isinstance(one.next(route), Attempt)


def test_the_queue_is_bounded(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    one.next(one.plan())
    for _ in range(1000):
        route = one.plan()
        one.next(route)
        one.dispatcher.park(route, lambda: None)
    assert one.next(one.plan()).reason is DroppedReason.SATURATED


def test_release_frees_once(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=2)))
    attempt = one.next(one.plan())
    one.next(one.plan())
    one.dispatcher.release(attempt)
    one.dispatcher.release(attempt)
    assert isinstance(one.next(one.plan()), Attempt)
    assert isinstance(one.next(one.plan()), Wait)


def test_an_inquiry_takes_no_slot_and_counts_nothing(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", limit=1)))
    one.next(one.plan())
    assert chosen(one, call=Call.INQUIRY) == "a"
    assert one.dispatcher.series.states() == []


@pytest.mark.parametrize("outcome", [Outcome.NEVER_RAN, Outcome.UNREACHABLE])
def test_what_never_ran_goes_to_three_further_workers_for_free(
    harness, make_worker, make_table, outcome
):
    workers = [make_worker(f"w{number}") for number in range(6)]
    policy = {"retry": {"attempts": 0, "budgetPercent": 0}}
    one = harness(make_table(*workers, policy=policy))
    route, tried = one.plan(), []
    for _ in range(4):
        attempt = one.next(route)
        tried.append(attempt.worker_id)
        step = one.settle(route, attempt, outcome)
    assert len(set(tried)) == 4
    assert step.reason is DroppedReason.RETRIES_EXHAUSTED


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.TIMEOUT])
def test_what_may_have_run_is_repeated_elsewhere_within_the_attempts(
    harness, make_worker, make_table, outcome
):
    one = harness(
        make_table(*(make_worker(f"w{n}") for n in range(4)), policy={"retry": {"attempts": 1}})
    )
    route = one.plan()
    first = one.next(route)
    assert one.settle(route, first, outcome) is Step.RETRY
    second = one.next(route)
    assert second.worker_id != first.worker_id
    assert isinstance(one.settle(route, second, outcome), Refusal)


@pytest.mark.parametrize(
    ("served", "ask"),
    [
        pytest.param({"idempotent": False}, {}, id="not-idempotent"),
        pytest.param({"traits": Traits(sequence=True)}, {}, id="a-sequence"),
        pytest.param({}, {"replayable": False}, id="body-not-kept"),
        pytest.param({}, {"call": Call.STREAM}, id="a-stream"),
    ],
)
def test_what_may_have_run_is_not_repeated(harness, make_worker, make_table, served, ask):
    one = harness(make_table(make_worker("a", **served), make_worker("b", **served)))
    route = one.plan(**ask)
    assert isinstance(one.settle(route, one.next(route), Outcome.LOST), Refusal)


def test_a_body_that_is_not_kept_may_still_go_elsewhere_when_no_byte_was_sent(
    harness, make_worker, make_table
):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan(replayable=False)
    assert one.settle(route, one.next(route), Outcome.UNREACHABLE) is Step.RETRY


def test_nothing_is_repeated_after_the_first_byte_of_an_answer(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan(call=Call.STREAM)
    attempt = one.next(route)
    route.answered = True
    assert isinstance(one.settle(route, attempt, Outcome.NEVER_RAN), Refusal)


@pytest.mark.parametrize(
    "outcome", [Outcome.OK, Outcome.CLIENT, Outcome.MODEL_ERROR, Outcome.CANCELLED]
)
def test_other_answers_are_passed_on(harness, make_worker, make_table, outcome):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan()
    assert one.settle(route, one.next(route), outcome) is Step.FORWARD


def test_the_deadline_covers_all_attempts(harness, make_worker, make_table):
    one = harness(
        make_table(
            make_worker("a"),
            make_worker("b"),
            policy={"timeoutSeconds": 3, "retry": {"perTryTimeoutSeconds": 2}},
        )
    )
    route = one.plan()
    first = one.next(route)
    assert first.timeout_s == 2
    one.now_s += 2
    assert one.settle(route, first, Outcome.TIMEOUT) is Step.RETRY
    assert one.next(route).timeout_s == pytest.approx(1)
    one.now_s += 1
    assert one.next(route).reason is DroppedReason.DEADLINE


def test_a_request_in_flight_at_two_losses_is_refused_for_30_s(harness, make_worker, make_table):
    one = harness(make_table(*(make_worker(f"w{n}") for n in range(4))))
    route = one.plan(body_hash="abc")
    assert one.settle(route, one.next(route), Outcome.LOST) is Step.RETRY
    step = one.settle(route, one.next(route), Outcome.LOST)
    assert step.reason is DroppedReason.SUSPECTED_POISON
    assert one.plan(body_hash="abc").reason is DroppedReason.SUSPECTED_POISON
    assert isinstance(one.plan(body_hash="abd"), Route)
    one.now_s += 30.1
    assert isinstance(one.plan(body_hash="abc"), Route)


def test_retries_stay_within_20_percent_of_the_requests(harness, make_worker, make_table):
    one = harness(make_table(*(make_worker(f"w{n}", limit=1000) for n in range(2))))
    retried = 0
    for _ in range(1000):
        route = one.plan()
        retried += one.settle(route, one.next(route), Outcome.TIMEOUT) is Step.RETRY
    assert retried == pytest.approx(200, abs=2)


def test_three_retries_a_second_are_always_there(harness, make_worker, make_table):
    one = harness(make_table(*(make_worker(f"w{n}", limit=1000) for n in range(2))))
    steps = []
    for _ in range(40):
        route = one.plan()
        steps.append(one.settle(route, one.next(route), Outcome.TIMEOUT))
    assert steps.count(Step.RETRY) == 30
    one.now_s += 11
    route = one.plan()
    assert one.settle(route, one.next(route), Outcome.TIMEOUT) is Step.RETRY


def test_a_worker_without_a_connection_is_down_at_once_and_tried_again_by_one_request(
    harness, make_worker, make_table
):
    one = harness(make_table(make_worker("a", address="x"), make_worker("b", address="y")))
    route = one.plan()
    attempt = one.next(route)
    dead, alive = attempt.worker_id, {"a": "b", "b": "a"}[attempt.worker_id]
    one.settle(route, attempt, Outcome.UNREACHABLE)
    assert everyone(one) == {alive}
    one.now_s += 0.6
    attempts = [one.next(one.plan()) for _ in range(5)]
    trials = [item for item in attempts if isinstance(item, Attempt) and item.worker_id == dead]
    assert len(trials) <= 1
    assert all(item.trial for item in trials)


def test_with_every_worker_down_a_request_waits_for_the_trial(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    route = one.plan()
    assert one.settle(route, one.next(route), Outcome.UNREACHABLE) is Step.RETRY
    waiting = one.next(route)
    assert waiting.until_s == pytest.approx(one.now_s + 0.5)
    one.now_s += 0.5
    again = one.next(route)
    assert (again.worker_id, again.trial) == ("a", True)
    assert one.settle(route, again, Outcome.OK) is Step.FORWARD
    assert not one.dispatcher.down.is_down("a")


def test_the_revision_stays_the_same_over_retries(harness, make_worker, make_table):
    stable = [make_worker(f"s{n}", revision="r1") for n in range(3)]
    canary = [make_worker(f"c{n}", revision="r2") for n in range(3)]
    one = harness(make_table(*stable, *canary, weights={"r1": 50, "r2": 50}))
    for _ in range(100):
        route = one.plan()
        first = one.next(route)
        one.settle(route, first, Outcome.NEVER_RAN)
        second = one.next(route)
        one.settle(route, second, Outcome.OK)
        assert first.revision == second.revision == route.revision


def test_a_worker_starts_slowly_once_it_is_ready(harness, make_worker, make_table):
    old = [make_worker("a", score=0.8), make_worker("b", score=0.8)]
    one = harness(make_table(*old))
    one.apply(make_table(*old, make_worker("new", score=0.8, ready=False), sequence=2))
    one.now_s += 60
    one.apply(make_table(*old, make_worker("new", score=0.8), sequence=3))
    shares = []
    for _ in range(3):
        shares.append([chosen(one) for _ in range(400)].count("new") / 400)
        one.now_s += 7
    assert shares[0] < 0.02
    assert shares[0] < shares[1] < shares[2]
    assert shares[2] == pytest.approx(1 / 3, abs=0.1)


def test_attempts_are_counted_by_outcome_and_requests_once(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan()
    one.settle(route, one.next(route), Outcome.LOST)
    one.settle(route, one.next(route), Outcome.OK, latency_s=0.02)
    one.now_s += 0.05
    one.dispatcher.finish(route, one.now_s)
    one.dispatcher.finish(route, one.now_s)
    (state,) = one.dispatcher.series.states()
    assert (state.requests, state.attempts.ok, state.attempts.worker_fault) == (1, 1, 1)
    assert sum(count for _, count in state.attempt_latency) == 1
    assert sum(count for _, count in state.client_latency) == 1


def test_pinned_requests_are_left_out_of_the_attempts(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    chosen(one, version="1")
    (state,) = one.dispatcher.series.states()
    assert (state.requests, state.attempts.ok) == (1, 0)


def test_the_state_of_what_is_gone_is_dropped(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    chosen(one)
    one.dispatcher.down.unreachable("a", one.now_s)
    one.tables.clear()
    one.dispatcher.apply({}, ["u1"], one.now_s)
    one.dispatcher.tick(one.now_s)
    assert one.dispatcher.series.states() == []
    assert not one.dispatcher.down.is_down("a")
    assert one.plan().reason is DroppedReason.UNKNOWN_MODEL


def test_explain_names_revision_worker_and_what_was_drawn(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan()
    attempt = one.next(route)
    text = one.dispatcher.explain(route, attempt)
    assert f"chose={attempt.worker_name}" in text
    assert all(word in text for word in ("pool=ns/p", "revision=r1", "a(w=", "b(w=", "cost="))
    assert text.isascii()
    assert text.isprintable()
