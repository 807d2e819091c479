import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.histogram import bucket_of
from tidegate_api.pool import InferencePool
from tidegate_api.routerstate import QueueState, RouterState, SeriesState
from tidegate_operator.core.memory import RouterReading
from tidegate_operator.core.observation import RouterMember
from tidegate_operator.core.shares import router_shares
from tidegate_operator.core.windows import add_readings, measure

POOL = InferencePool.model_validate(
    {
        "metadata": {"name": "p", "namespace": "ml", "uid": "u"},
        "spec": {
            "template": {"models": [{"name": "m", "source": {"uri": "file:///m"}}]},
            "accelerators": [{"name": "cpu", "kind": "CPU"}],
        },
    }
)


def router(instance, at_s, requests, *, waiting=0, in_flight=0, latency=None, **more):
    series = SeriesState(
        namespace="ml",
        pool="p",
        uid="u",
        revision="r",
        model="m",
        requests=requests,
        client_latency=list((latency or {}).items()),
    )
    foreign = series.model_copy(update={"uid": "other", "requests": 10**9})
    queue = QueueState(namespace="ml", pool="p", waiting=waiting, in_flight=in_flight)
    other = QueueState(namespace="ml", pool="q", waiting=99, in_flight=99)
    state = RouterState(
        instance=instance,
        synced=True,
        series=[series, foreign],
        queues=[queue, other],
        histogram_scheme=more.pop("scheme", "tg1"),
    )
    return RouterMember(name=instance, address="x", scraped_s=at_s, state=state, **more)


def history(*rounds):
    readings = ()
    for members in rounds:
        readings = add_readings(readings, members, POOL)
    return readings, rounds[-1]


def test_the_rate_is_the_difference_of_counts_over_time_summed_over_routers():
    readings, last = history(
        [router("a", 100.0, 1000), router("b", 100.0, 0)],
        [router("a", 110.0, 1100), router("b", 105.0, 25)],
    )
    assert measure(readings, last, POOL).requests_per_second == pytest.approx(15.0)


def test_p95_comes_from_the_difference_of_histograms():
    fast, slow = bucket_of(0.005), bucket_of(0.5)
    readings, last = history(
        [router("a", 100.0, 100, latency={slow: 100})],
        [router("a", 110.0, 200, latency={slow: 104, fast: 96})],
    )
    assert measure(readings, last, POOL).p95_ms == pytest.approx(5.0, rel=0.05)


def test_one_reading_measures_nothing_yet():
    readings, last = history([router("a", 100.0, 5, waiting=3)])
    seen = measure(readings, last, POOL)
    assert (seen.requests_per_second, seen.p95_ms, seen.waiting) == (None, None, 3)


def test_a_restarted_router_starts_anew_instead_of_going_negative():
    readings, last = history(
        [router("a/1", 100.0, 9000)], [router("a/2", 101.0, 5)], [router("a/2", 102.0, 15)]
    )
    assert measure(readings, last, POOL).requests_per_second == pytest.approx(10.0)


def test_the_same_scrape_is_taken_once():
    readings, _ = history([router("a", 100.0, 5)], [router("a", 100.0, 5)])
    assert len(readings) == 1


def test_readings_older_than_the_window_go():
    rounds = [[router("a", 100.0 + second, second)] for second in range(60)]
    readings, _ = history(*rounds)
    assert readings[-1].at_s - readings[0].at_s <= 30.0
    assert len(readings) == 31


def test_another_histogram_scheme_is_not_added_up():
    readings, _ = history([router("a", 100.0, 5, scheme="tg2")])
    assert readings == ()


def test_a_router_alone_may_use_all():
    assert [s.share for s in router_shares([router("a", 1.0, 0)], (), POOL)] == [1.0]


def test_no_routers_no_shares():
    assert router_shares([], (), POOL) == []


def test_shares_follow_demand_and_keep_a_fifth_even():
    readings, last = history(
        [router("a", 100.0, 0), router("b", 100.0, 0)],
        [router("a", 105.0, 300), router("b", 105.0, 100)],
    )
    shares = {item.instance: item.share for item in router_shares(last, readings, POOL)}
    assert shares == {"a": pytest.approx(0.7), "b": pytest.approx(0.3)}


def test_an_unknown_router_counts_like_the_others_on_average():
    readings, last = history(
        [router("a", 100.0, 0)], [router("a", 105.0, 100), router("new", 105.0, 7)]
    )
    shares = {item.instance: item.share for item in router_shares(last, readings, POOL)}
    assert shares == {"a": 0.5, "new": 0.5}


def test_a_router_that_left_gets_nothing():
    last = [router("a", 1.0, 0), router("b", 1.0, 0, left_s_ago=1.0)]
    assert [item.instance for item in router_shares(last, (), POOL)] == ["a"]


@given(demands=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 500)), min_size=1))
def test_shares_sum_to_1_and_none_is_0(demands):
    members = [router(f"r{i}", 105.0, n, waiting=w) for i, (n, w) in enumerate(demands)]
    old = tuple(
        RouterReading(instance=f"r{i}", at_s=100.0, requests=0, latency={})
        for i in range(len(demands))
    )
    shares = [s.share for s in router_shares(members, add_readings(old, members, POOL), POOL)]
    assert sum(shares) == pytest.approx(1.0, abs=0.002 * len(shares))
    assert all(share > 0 for share in shares)
