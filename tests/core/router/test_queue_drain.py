"""What predictions rest on: the drain rate, the service time, how long somebody may wait."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.histogram import bucket_of
from tidegate_api.names import DroppedReason
from tidegate_api.routetable import RoutingPolicy, TierPolicy
from tidegate_router.core.queue import admission
from tidegate_router.core.queue.drain import DrainRate, ServiceTime


def served(rate, per_s, seconds, now_s):
    for _ in range(int(seconds * per_s)):
        now_s += 1 / per_s
        rate.departed(now_s)
    return now_s


def test_without_evidence_the_guess_counts():
    rate = DrainRate()
    rate.open(50.0, 100.0)
    assert rate.per_s(100.0) == pytest.approx(50.0)


@pytest.mark.parametrize("guess", [1.0, 40.0, 10_000.0])
@pytest.mark.parametrize("per_s", [2.0, 40.0, 3000.0])
def test_what_is_measured_replaces_the_guess(guess, per_s):
    rate = DrainRate()
    rate.open(guess, 0.0)
    now_s = served(rate, per_s, max(60, 120 / per_s), 0.0)
    assert rate.per_s(now_s) == pytest.approx(per_s, rel=0.1)


def test_silence_lowers_the_rate_before_anything_departs():
    rate = DrainRate()
    rate.open(100.0, 0.0)
    now_s = served(rate, 100.0, 10, 0.0)
    seen = [rate.per_s(now_s + quiet_s) for quiet_s in (0.0, 1.0, 5.0, 60.0)]
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] < 5


def test_time_in_which_nobody_waits_does_not_count():
    rate = DrainRate()
    rate.open(100.0, 0.0)
    now_s = served(rate, 100.0, 10, 0.0)
    rate.close(now_s)
    rate.departed(now_s + 3)
    assert rate.per_s(now_s + 5) == pytest.approx(100.0, rel=0.1)


def test_what_was_measured_long_ago_gives_way_to_the_guess():
    rate = DrainRate()
    rate.open(100.0, 0.0)
    now_s = served(rate, 100.0, 10, 0.0)
    rate.close(now_s)
    rate.open(10.0, now_s + 1)
    assert rate.per_s(now_s + 1) == pytest.approx(100.0, rel=0.1)
    rate.close(now_s + 1)
    rate.open(10.0, now_s + 600)
    assert rate.per_s(now_s + 600) == pytest.approx(10.0, rel=0.1)


def test_half_of_the_workers_gone_is_noticed_within_seconds():
    rate = DrainRate()
    rate.open(200.0, 0.0)
    now_s = served(rate, 200.0, 20, 0.0)
    now_s = served(rate, 100.0, 5, now_s)
    assert rate.per_s(now_s) == pytest.approx(100.0, rel=0.15)


@settings(deadline=None)
@given(
    st.floats(1e-6, 1e6),
    st.lists(
        st.tuples(st.sampled_from(["open", "departed", "close", "read"]), st.floats(0, 100)),
        max_size=60,
    ),
)
def test_the_rate_is_always_a_positive_number(guess, steps):
    rate, now_s = DrainRate(), 0.0
    for what, later_s in steps:
        now_s += later_s
        if what == "open" and not rate.opened:
            rate.open(guess, now_s)
        elif what in {"departed", "close"}:
            getattr(rate, what)(now_s)
        assert 0 < rate.per_s(now_s) < math.inf


def histogram(*latencies_s):
    counts = {}
    for latency_s in latencies_s:
        counts[bucket_of(latency_s)] = counts.get(bucket_of(latency_s), 0) + 1
    return counts


def test_the_service_time_is_the_median_of_what_is_new():
    service = ServiceTime(0.01)
    assert service.update(histogram(*[0.5] * 4), 0.0) == 0.01, "too few to tell"
    assert service.update(histogram(*[0.5] * 9), 1.0) == pytest.approx(0.5, rel=0.05)


def test_the_service_time_follows_a_model_that_got_slower():
    service, seen = ServiceTime(0.01), []
    for second in range(120):
        seen += [0.01 if second < 60 else 0.2] * 100
        found = service.update(histogram(*seen), float(second))
        if second in {59, 60}:
            assert found == pytest.approx(0.01, rel=0.05)
        if second == 80:
            assert found == pytest.approx(0.2, rel=0.05)


def test_a_model_that_nobody_asks_keeps_its_service_time():
    service, seen = ServiceTime(0.01), histogram(*[0.2] * 50)
    for second in range(100):
        service.update(seen, float(second))
    assert service.p50_s == pytest.approx(0.2, rel=0.05)


GOLD = TierPolicy(name="gold", weight=8, p99_target_s=0.05)
BRONZE = TierPolicy(name="bronze")


@pytest.mark.parametrize(
    ("max_wait_s", "tier", "p50_s", "expected"),
    [
        pytest.param(None, BRONZE, 0.01, 1.0, id="a-second"),
        pytest.param(None, BRONZE, 2.0, 8.0, id="four-services-of-a-slow-model"),
        pytest.param(0.2, BRONZE, 2.0, 0.2, id="as-configured"),
        pytest.param(0.0, BRONZE, 2.0, 0.0, id="never"),
        pytest.param(None, GOLD, 0.01, 0.05, id="golds-target"),
        pytest.param(0.02, GOLD, 0.01, 0.02, id="never-above-what-is-configured"),
        pytest.param(0.2, GOLD, 0.01, 0.05, id="nor-above-its-target"),
    ],
)
def test_how_long_a_tier_may_wait(max_wait_s, tier, p50_s, expected):
    policy = RoutingPolicy.model_validate({"queue": {"maxWaitSeconds": max_wait_s}})
    assert admission.longest_wait_s(policy, tier, p50_s) == expected


@pytest.mark.parametrize(
    ("claimed", "trusted", "expected"),
    [
        pytest.param("gold", True, "gold", id="the-one-claimed"),
        pytest.param("", True, "bronze", id="the-last-without-a-claim"),
        pytest.param("platinum", True, "bronze", id="the-last-for-an-unknown-one"),
        pytest.param("gold", False, "bronze", id="the-last-where-claims-do-not-count"),
    ],
)
def test_the_tier_of_a_request(claimed, trusted, expected):
    policy = RoutingPolicy(tiers=[GOLD, BRONZE], trust_tier_header=trusted)
    assert admission.tier_of(policy, claimed).name == expected
    assert admission.rank_of(policy, claimed) == ["gold", "bronze"].index(expected)


def test_without_tiers_all_requests_are_alike():
    policy = RoutingPolicy(trust_tier_header=True)
    assert admission.tier_of(policy, "gold") == admission.tier_of(policy, "") == TierPolicy(name="")
    assert admission.rank_of(policy, "gold") == 0


@pytest.mark.parametrize(
    ("wait_s", "deadline_s", "until_s", "reason"),
    [
        pytest.param(1.0, math.inf, 101.0, DroppedReason.SATURATED, id="the-wait-ends-it"),
        pytest.param(1.0, 100.5, 100.4, DroppedReason.DEADLINE, id="less-than-a-service-is-left"),
        pytest.param(1.0, 99.0, 98.9, DroppedReason.DEADLINE, id="hopeless-from-the-start"),
    ],
)
def test_what_ends_the_patience(wait_s, deadline_s, until_s, reason):
    found = admission.patience(wait_s, 0.1, deadline_s, 100.0)
    assert found.until_s == pytest.approx(until_s)
    assert found.reason is reason
