"""The retry budget, bodies under suspicion, and the decision what may be sent again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import RetryPolicy
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Ask, Call, Route
from tidegate_router.core.retry import PoisonBook, RetryBudget, may_retry


def spent(budget, wishes, percent=20, now_s=100.0):
    return sum(budget.take(percent, now_s) for _ in range(wishes))


def busy(requests, now_s=100.0):
    budget = RetryBudget()
    for _ in range(requests):
        budget.note_request(now_s)
    return budget


@pytest.mark.parametrize(
    ("requests", "percent", "expected"),
    [
        pytest.param(0, 20, 30, id="three-a-second-are-always-there"),
        pytest.param(150, 20, 30, id="a-fifth-of-150-is-the-floor"),
        pytest.param(1000, 20, 200, id="a-fifth-of-1000"),
        pytest.param(1000, 100, 1000, id="all-of-them"),
        pytest.param(1000, 0, 0, id="0-percent-switches-retries-off-floor-included"),
    ],
)
def test_the_budget_of_ten_seconds(requests, percent, expected):
    assert spent(busy(requests), 2000, percent) == expected


def test_requests_and_retries_leave_the_window_after_ten_seconds():
    budget = busy(1000, now_s=100.0)
    assert spent(budget, 2000, now_s=109.0) == 200
    assert spent(budget, 2000, now_s=110.0) == 0, "the requests are forgotten, the retries not yet"
    assert spent(budget, 2000, now_s=119.0) == 30


def test_a_pool_without_failures_keeps_only_the_window_in_memory():
    budget = RetryBudget()
    for second in range(100_000):
        budget.note_request(float(second))
    assert len(budget.tally._past) <= 10


@given(
    st.lists(st.tuples(st.floats(0, 2), st.booleans()), min_size=1, max_size=400),
    st.integers(0, 100),
)
def test_in_no_ten_seconds_more_is_spent_than_share_or_floor(steps, percent):
    budget, now_s = RetryBudget(), 1000.0
    asked, given_ = [], []
    for gap_s, wish in steps:
        now_s += gap_s
        if not wish:
            budget.note_request(now_s)
            asked.append(now_s)
        elif budget.take(percent, now_s):
            given_.append(now_s)
            # A second is counted whole, so the window is between 9 and 10 s.
            lately = sum(1 for at_s in given_ if at_s > now_s - 9)
            requests = sum(1 for at_s in asked if at_s > now_s - 11)
            assert lately <= max(percent / 100 * requests, 30)
    assert percent or not given_


def test_a_suspected_body_is_refused_for_30_s():
    book = PoisonBook()
    body = ("pool", "canary", "m", "h")
    assert not book.suspected(body, 0.0)
    book.suspect(body, 0.0)
    assert book.suspected(body, 29.9)
    assert not book.suspected(body, 30.0)
    assert not book.suspected(("pool", "canary", "m", "other"), 1.0)
    assert not book.suspected(("pool", "stable", "m", "h"), 1.0)


def test_bodies_need_no_hash_once_the_last_suspicion_is_over():
    book = PoisonBook()
    book.suspect(("pool", "r1", "m", "h"), 0.0)
    book.forget(29.0)
    assert book.anyone
    book.forget(30.0)
    assert not book.anyone


def test_a_body_without_a_name_is_never_suspected():
    book = PoisonBook()
    book.suspect(("pool", "r1", "m", ""), 0.0)
    assert not book.suspected(("pool", "r1", "m", ""), 1.0)


def test_suspicion_is_bounded_and_makes_room_with_time():
    book = PoisonBook()
    for number in range(10_001):
        book._until_s["pool", "r1", "m", str(number)] = 30.0
    late = ("pool", "r1", "m", "late")
    book.suspect(late, 1.0)
    assert not book.suspected(late, 2.0)
    book.suspect(late, 31.0)
    assert book.suspected(late, 32.0)
    assert len(book._until_s) == 1


def a_route(*, attempts=2, call=Call.INFER, replayable=True, **fields):
    known = {"idempotent": True, "deadline_s": 10.0} | fields
    return Route(
        ask=Ask(model="m", call=call, replayable=replayable), number=1, pool_uid="u",
        namespace="ns", pool="p", revision="r", drawn="r", pinned=False, started_s=0.0,
        retry=RetryPolicy(attempts=attempts), **known,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "fields", "expected"),
    [
        pytest.param(Outcome.NEVER_RAN, {}, True, id="it-never-ran"),
        pytest.param(Outcome.NEVER_RAN, {"idempotent": False}, True, id="nor-was-it-changed"),
        pytest.param(Outcome.NEVER_RAN, {"attempts": 0}, True, id="free-even-with-0-attempts"),
        pytest.param(Outcome.NEVER_RAN, {"replayable": False}, False, id="the-body-is-gone"),
        pytest.param(Outcome.NEVER_RAN, {"free_retries": 3}, False, id="three-further-workers"),
        pytest.param(Outcome.UNREACHABLE, {"replayable": False}, True, id="no-byte-was-sent"),
        pytest.param(Outcome.LOST, {}, True, id="lost"),
        pytest.param(Outcome.LOST, {"idempotent": False}, False, id="lost-and-not-idempotent"),
        pytest.param(Outcome.LOST, {"replayable": False}, False, id="lost-and-not-kept"),
        pytest.param(Outcome.LOST, {"call": Call.STREAM}, False, id="a-lost-stream"),
        pytest.param(Outcome.LOST, {"losses": 2}, False, id="lost-twice"),
        pytest.param(Outcome.LOST, {"paid_retries": 2}, False, id="attempts-used-up"),
        pytest.param(Outcome.LOST, {"attempts": 0}, False, id="no-attempts-wanted"),
        pytest.param(Outcome.TIMEOUT, {}, True, id="timeout"),
        pytest.param(Outcome.TIMEOUT, {"answered": True}, False, id="the-client-has-bytes"),
        pytest.param(Outcome.TIMEOUT, {"deadline_s": 5.0}, False, id="the-deadline-is-over"),
        pytest.param(Outcome.OK, {}, False, id="ok"),
        pytest.param(Outcome.CLIENT, {}, False, id="the-clients-fault"),
        pytest.param(Outcome.MODEL_ERROR, {}, False, id="the-models-error"),
        pytest.param(Outcome.CANCELLED, {}, False, id="the-client-left"),
    ],
)
def test_what_may_be_sent_again(outcome, fields, expected):
    assert may_retry(a_route(**fields), outcome, RetryBudget(), 5.0) is expected


def test_free_retries_spend_no_budget_and_paid_ones_do():
    budget = RetryBudget()
    assert may_retry(a_route(), Outcome.NEVER_RAN, budget, 5.0)
    assert spent(budget, 100, now_s=5.0) == 30
    route = a_route()
    assert not may_retry(route, Outcome.LOST, budget, 5.0)
    assert route.paid_retries == 0
    assert may_retry(route, Outcome.LOST, budget, 9.0) is False
