"""Routes, attempts and choices that are made field by field lack nothing."""

import math

import pytest

from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Attempt, Call, Choice, Route


def fields_of(made):
    return {name: getattr(made, name) for name in type(made).__slots__}


@pytest.mark.parametrize("call", list(Call))
def test_a_route_and_an_attempt_have_every_field(harness, make_worker, make_table, call):
    one = harness(make_table(make_worker("a", address="10.1.2.3"), make_worker("b")))
    route = one.plan(call=call)
    attempt = one.next(route)
    assert isinstance(route, Route)
    assert isinstance(attempt, Attempt)
    assert isinstance(attempt.choice, Choice)
    for made in (route, attempt, attempt.choice):
        known = fields_of(made)
        assert fields_of(type(made)(**known)) == known


def test_a_new_route_is_what_its_constructor_makes(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), policy={"timeoutSeconds": 7}))
    route = one.plan()
    given = {
        name: getattr(route, name)
        for name in (
            "ask", "number", "pool_uid", "namespace", "pool", "revision", "drawn", "pinned",
            "started_s", "deadline_s", "timeout_s", "retry",
        )
    }  # fmt: skip
    assert fields_of(Route(**given, repeatable=True)) == fields_of(route)
    assert (route.namespace, route.pool, route.pool_uid) == ("ns", "p", "u1")
    assert (route.deadline_s, route.timeout_s) == (math.inf, 7)


@pytest.mark.parametrize(
    ("timeout_s", "expected_s"),
    [
        pytest.param(None, 30, id="the-pools"),
        pytest.param(5, 3, id="the-clients-from-its-arrival"),
        pytest.param(90, 30, id="the-pools-is-shorter"),
    ],
)
def test_the_shorter_time_counts(harness, make_worker, make_table, timeout_s, expected_s):
    one = harness(make_table(make_worker("a")))
    route = one.plan(timeout_s=timeout_s)
    one.now_s += 2  # in the queue, which the pool's time does not count
    one.next(route)
    assert route.deadline_s == one.now_s + expected_s


def test_two_attempts_of_a_route_are_numbered(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan()
    first = one.next(route)
    one.settle(route, first, Outcome.NEVER_RAN)
    second = one.next(route)
    assert (first.number, second.number) == (1, 2)
    assert first.worker_id != second.worker_id
