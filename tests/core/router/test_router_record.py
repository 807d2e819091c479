"""The record of a request, its sampling, Server-Timing and the W3C trace."""

import json
import random
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.routetable import RetryPolicy
from tidegate_router.core import record
from tidegate_router.core.faults import Outcome
from tidegate_router.core.record import Record, trace_of
from tidegate_router.core.request import Ask, Route

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def bits(seed=1):
    return random.Random(seed).getrandbits


def route_of(**more):
    return Route(
        ask=Ask(model="m"), number=1, pool_uid="u", namespace="ml", pool="vision", revision="r2",
        drawn="r2", pinned=False, started_s=10.0, deadline_s=40.0, hold_until_s=20.0,
        retry=RetryPolicy(), **more,
    )  # fmt: skip


def test_a_record_says_where_a_request_went_and_what_it_cost():
    route = route_of(
        attempts=2, worker="w1", queue_s=0.001, upstream_s=0.02, last_outcome=Outcome.OK
    )
    found = record.of_route("id-1", route, "200", 10.025, protocol="http", trace=TRACE)
    line = found.line("2026-01-01T00:00:00.000Z")
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "ts": "2026-01-01T00:00:00.000Z", "level": "info", "msg": "request", "id": "id-1",
        "protocol": "http", "status": "200", "outcome": "ok", "pool": "ml/vision", "model": "m",
        "revision": "r2", "worker": "w1", "attempts": 2, "queue_ms": 1.0, "upstream_ms": 20.0,
        "total_ms": 25.0, "trace": TRACE,
    }  # fmt: skip


def test_a_route_keeps_its_wait_its_last_worker_and_the_time_of_all_attempts(
    harness, make_table, make_worker
):
    one = harness(make_table(make_worker("a"), make_worker("b")))
    route = one.plan()
    one.now_s += 0.5
    first = one.next(route)
    one.settle(route, first, Outcome.NEVER_RAN, 0.25)
    one.now_s += 1.0
    second = one.next(route)
    one.settle(route, second, Outcome.OK, 0.125)
    found = record.of_route("id-1", route, "200", one.now_s, protocol="grpc")
    assert (found.queue_ms, found.upstream_ms, found.total_ms) == (500.0, 375.0, 1500.0)
    assert (found.worker, found.attempts) == (second.worker_name, 2)
    assert second.worker_name != first.worker_name


def test_a_request_that_reached_nobody_waited_all_its_time():
    found = record.of_route("id-1", route_of(), "429", 10.5, protocol="http", reason="saturated")
    assert (found.outcome, found.queue_ms, found.total_ms) == ("refused", 500.0, 500.0)
    assert found.reason == "saturated"


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_record_is_one_line_whatever_a_name_holds(identity, model):
    line = Record(id=identity, protocol="http", status="200", outcome="ok", model=model).line("t")
    assert line.count(b"\n") == 1
    assert json.loads(line)["id" if identity else "msg"] == (identity or "request")


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 1.0])
def test_the_sampled_part_is_the_ratio(ratio):
    taken = sum(record.sampled(uuid.UUID(int=n * 7919).hex, ratio) for n in range(20_000))
    assert abs(taken - ratio * 20_000) <= 5 * (20_000 * ratio * (1 - ratio)) ** 0.5


@given(st.text(max_size=40))
def test_a_larger_ratio_keeps_what_a_smaller_one_took(identity):
    taken = [record.sampled(identity, ratio) for ratio in (0.0, 0.01, 0.5, 1.0)]
    assert taken == sorted(taken)
    assert taken[-1]


def test_server_timing_adds_up_to_the_total():
    value = record.server_timing(0.001, 0.02, 0.0215)
    assert value == "queue;dur=1.00, upstream;dur=20.00, router;dur=0.50"
    assert record.server_timing(0.0, 0.02, 0.01).endswith("router;dur=0.00")


def test_a_valid_trace_goes_on_with_a_new_span():
    trace = trace_of([f"00-{TRACE}-{SPAN}-01"], bits())
    assert trace.given
    assert trace.sampled
    version, number, span, flags = trace.header.split("-")
    assert (version, number, flags) == ("00", TRACE, "01")
    assert span not in {SPAN, "0" * 16}
    assert len(span) == 16


REPLACED = [
    ("absent", []),
    ("twice", [f"00-{TRACE}-{SPAN}-01"] * 2),
    ("upper case", [f"00-{TRACE.upper()}-{SPAN}-01"]),
    ("a trace of zeros", [f"00-{'0' * 32}-{SPAN}-01"]),
    ("a span of zeros", [f"00-{TRACE}-{'0' * 16}-01"]),
    ("version ff", [f"ff-{TRACE}-{SPAN}-01"]),
    ("version 00 with more parts", [f"00-{TRACE}-{SPAN}-01-x"]),
    ("too short", [f"00-{TRACE}-{SPAN}"]),
    ("digits of another script", [f"00-{'٣' * 32}-{SPAN}-01"]),
    ("empty", [""]),
]


@pytest.mark.parametrize("values", [one[1] for one in REPLACED], ids=[one[0] for one in REPLACED])
def test_what_is_no_trace_is_replaced_by_a_new_one(values):
    trace = trace_of(values, bits())
    assert not trace.given
    assert not trace.sampled
    assert trace.trace not in {TRACE, "0" * 32}
    assert trace_of([trace.header], bits(2)).trace == trace.trace


def test_a_version_of_tomorrow_is_read_as_far_as_it_is_known():
    trace = trace_of([f"cc-{TRACE}-{SPAN}-ff-what-ever"], bits())
    assert trace.given
    assert trace.header.startswith(f"00-{TRACE}-")
    assert trace.header.endswith("-03")  # only the flags that have a meaning


def test_a_new_trace_is_sampled_as_its_record_is():
    assert trace_of([], bits(), sampled=True).sampled
    assert trace_of([], lambda _: 0).header == f"00-{1:032x}-{1:016x}-02"


@given(st.lists(st.text(max_size=60), max_size=2))
def test_any_header_gives_a_valid_trace(values):
    trace = trace_of(values, bits())
    assert trace_of([trace.header], bits(3)).given
