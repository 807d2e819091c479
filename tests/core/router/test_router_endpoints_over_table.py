"""What EndpointSlices say over a table, seen by one request."""

import pytest

from tidegate_api.routetable import Served
from tidegate_router.core.endpoints import GRACE_S, Endpoint, EndpointBook
from tidegate_router.core.faults import Outcome


def chosen(harness, **fields):
    """Send one request to its end and return the worker that got it."""
    route = harness.plan(**fields)
    attempt = harness.next(route)
    harness.settle(route, attempt, Outcome.OK)
    harness.dispatcher.finish(route, harness.now_s)
    return attempt.worker_id


def everyone(harness, count=60, **fields):
    return {chosen(harness, **fields) for _ in range(count)}


def endpoint(uid, **fields):
    known = {
        "name": uid, "address": "10.0.0.9", "revision": "r1", "accelerator": "",
        "serving": True, "terminating": False,
    }  # fmt: skip
    return Endpoint(uid=uid, **{**known, **fields})


def see(harness, *endpoints):
    harness.dispatcher.apply_endpoints(("ns", "p"), endpoints, harness.now_s)


def test_a_terminating_worker_gets_nothing_whatever_its_table_says(
    harness, make_worker, make_table
):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    see(one, endpoint("a", terminating=True), endpoint("b"))
    assert everyone(one) == {"b"}


def test_a_worker_that_left_its_service_gets_nothing(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    see(one, endpoint("a"), endpoint("b"))
    see(one, endpoint("b"))
    assert everyone(one) == {"b"}


def test_slices_may_follow_the_table_by_10_s(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a"), make_worker("late")))
    see(one, endpoint("a"))
    assert everyone(one) == {"a", "late"}
    one.now_s += 11
    assert everyone(one) == {"a"}


def test_without_any_slice_the_table_counts(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a")))
    one.now_s += 100
    assert everyone(one) == {"a"}


def test_a_serving_worker_that_no_table_lists_is_used_after_10_s(harness, make_worker, make_table):
    one = harness(make_table(make_worker("a", score=0.5)))
    see(one, endpoint("a"), endpoint("new"))
    assert everyone(one) == {"a"}
    one.now_s += 10
    assert everyone(one, count=300) == {"a", "new"}


@pytest.mark.parametrize("state", [{"serving": False}, {"revision": "unknown"}])
def test_an_unlisted_worker_that_does_not_serve_a_known_revision_is_left_alone(
    harness, make_worker, make_table, state
):
    one = harness(make_table(make_worker("a")))
    see(one, endpoint("a"), endpoint("new", **state))
    one.now_s += 20
    assert everyone(one) == {"a"}


def test_an_unlisted_worker_is_trusted_with_what_each_of_its_peers_serves(make_worker, make_table):
    """A second revision may not have reached every worker of the set."""
    book = EndpointBook()
    plain = make_worker("a")
    second = Served(revision="r2", model="m", limit=4, loaded_as="m--r2")
    both = make_worker("b", serves=[*plain.serves, second])
    for table in (make_table(plain, both), make_table(both, plain)):
        book.replace(("ns", "p"), [endpoint("a"), endpoint("b"), endpoint("new")], 0.0)
        [found] = book.unlisted(("ns", "p"), table, GRACE_S + 1)
        assert (found.id, found.serves) == ("new", plain.serves)
