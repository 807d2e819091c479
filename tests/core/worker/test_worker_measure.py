"""Triton's counters -> load of each model."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_worker.core.batches import BOUNDS, executions_by_model, histogram
from tidegate_worker.core.measure import Counters, Reading, Sample, busy, rates, read, remember


def sample(name, value, model="m", **labels):
    return Sample(f"nv_inference_{name}", {"model": model, "version": "1", **labels}, value)


def test_a_models_samples_become_its_counters():
    found = read(
        [
            sample("request_success_total", 7),
            sample("request_failure_total", 2, reason="BACKEND"),
            sample("request_failure_total", 1, reason="OTHER"),
            sample("count_total", 21),
            sample("exec_count_total", 3),
            sample("pending_request_count", 4),
            sample("request_duration_us_total", 5000),
            sample("request_summary_us", 1500, quantile="0.95"),
            sample("request_summary_us_sum", 999),
            Sample("nv_cpu_utilization", {}, 0.5),
        ]
    )
    assert found == {
        "m": Counters(
            successes=7,
            failures=3,
            inferences=21,
            executions=3,
            pending=4,
            duration_us=5000,
            quantiles_ms={0.95: 1.5},
        )
    }


NOT_FAILURES = [("a client that left", "CANCELED"), ("a full queue", "REJECTED")]


@pytest.mark.parametrize("reason", [r for _, r in NOT_FAILURES], ids=[n for n, _ in NOT_FAILURES])
def test_what_is_not_the_models_fault_is_no_failure(reason):
    found = read([sample("request_failure", 5, reason=reason), sample("request_success", 1)])
    assert found["m"].failures == 0


def test_a_triton_without_reasons_counts_all_failures():
    assert read([sample("request_failure", 5)])["m"].failures == 5


def test_a_quantile_before_any_request_is_absent_not_zero():
    found = read([sample("request_summary_us", float("nan"), quantile="0.5"), sample("count", 0)])
    assert found["m"].quantiles_ms == {}


def test_versions_of_a_model_are_summed():
    one, two = (Sample("nv_inference_count", {"model": "m", "version": v}, 3) for v in "12")
    assert read([one, two])["m"].inferences == 6


def test_a_negative_queue_is_none():
    assert read([sample("pending_request_count", -1)])["m"].pending == 0


def readings(*values):
    return deque(Reading(at_s, {"m": counters}) for at_s, counters in values)


def test_rates_are_of_the_last_second_and_success_of_all():
    seen = readings(
        (0.0, Counters(successes=0, failures=0)),
        (28.0, Counters(successes=90, failures=10, inferences=90, executions=90,
                        duration_us=3e6)),
        (29.0, Counters(successes=110, failures=10, inferences=150, executions=100,
                        duration_us=7e6)),
    )  # fmt: skip
    found = rates(seen, "m")
    assert found.requests_per_second == pytest.approx(20)
    assert found.mean_batch_size == pytest.approx(6)
    assert found.success_ratio == pytest.approx(110 / 120)
    assert found.in_flight == 4


def test_as_many_failures_as_successes_are_half():
    seen = readings((0.0, Counters()), (1.0, Counters(successes=4, failures=4)))
    assert rates(seen, "m").success_ratio == 0.5


def test_an_idle_model_has_no_batch_size_and_no_success_ratio():
    found = rates(readings((0.0, Counters(successes=5)), (1.0, Counters(successes=5))), "m")
    assert (found.mean_batch_size, found.success_ratio, found.in_flight) == (None, None, 0)


def test_what_waits_is_in_flight_even_where_nothing_ended():
    found = rates(readings((0.0, Counters()), (1.0, Counters(pending=6))), "m")
    assert found.in_flight == 6


@pytest.mark.parametrize("count", [0, 1])
def test_without_two_readings_nothing_is_known_but_the_queue(count):
    seen = readings(*[(0.0, Counters(pending=2, successes=9))] * count)
    found = rates(seen, "m")
    assert found.requests_per_second is None
    assert found.in_flight == 2 * count


def test_readings_reach_back_half_a_minute():
    seen = deque()
    for second in range(100):
        seen = remember(seen, Reading(float(second), {"m": Counters(successes=second)}))
    assert [seen[0].at_s, seen[-1].at_s] == [69.0, 99.0]


def test_a_restart_of_triton_begins_anew():
    seen = remember(readings((0.0, Counters(successes=9))), Reading(1.0, {"m": Counters()}))
    assert len(seen) == 1


@given(st.lists(st.integers(0, 50), min_size=2, max_size=40))
def test_rates_are_never_negative_over_any_history_of_restarts(steps):
    seen, total = deque(), 0
    for second, step in enumerate(steps):
        total = 0 if step == 0 else total + step  # 0: Triton started again
        counters = Counters(successes=total, inferences=total, executions=total, duration_us=total)
        seen = remember(seen, Reading(float(second), {"m": counters}))
        found = rates(seen, "m")
        assert (found.requests_per_second or 0) >= 0
        assert found.success_ratio in {None, 1.0}
        assert found.in_flight >= 0


BUSY = [
    ("a success", Counters(), Counters(successes=1), True),
    ("a failure", Counters(), Counters(failures=1), True),
    ("work that waits", Counters(pending=3), Counters(pending=3), True),
    ("nothing", Counters(successes=4), Counters(successes=4), False),
    ("latencies that fade", Counters(), Counters(quantiles_ms={0.5: 1}), False),
    ("a model never seen before, idle", None, Counters(), False),
]


@pytest.mark.parametrize(
    ("before", "now", "expected"), [b[1:] for b in BUSY], ids=[b[0] for b in BUSY]
)
def test_work_keeps_a_drain_waiting(before, now, expected):
    assert busy(before, now) is expected


def test_batch_sizes_come_from_tritons_statistics():
    def entry(size, count):
        return {"batch_size": size, "compute_infer": {"count": count, "ns": 1}}

    document = {
        "model_stats": [
            {"name": "a", "version": "1", "batch_stats": [entry(1, 5), entry(8, 2)]},
            {"name": "a", "version": "2", "batch_stats": [entry(8, 1)]},
            {"name": "b", "batch_stats": []},
        ]
    }
    assert executions_by_model(document) == {"a": {1: 5, 8: 3}, "b": {}}
    assert executions_by_model({"error": "x"}) == {}


@given(st.dictionaries(st.integers(1, 2000), st.integers(0, 1000)))
def test_a_histogram_is_cumulative_and_complete(executions):
    found = histogram(executions)
    counts = [count for _, count in found.buckets]
    assert counts == sorted(counts)
    assert counts[-1] == sum(executions.values())
    assert found.total == sum(size * count for size, count in executions.items())
    assert len(found.buckets) == len(BOUNDS) + 1


def test_a_batch_counts_in_the_bucket_of_its_size():
    assert dict(histogram({8: 3}).buckets)["8.0"] == 3
    assert dict(histogram({8: 3}).buckets)["4.0"] == 0
