import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.pool import ScoreWeights
from tidegate_api.state import (
    DeviceState,
    ModelState,
    Phase,
    Pressure,
    Thermal,
    Traits,
    WindowState,
    WorkerState,
)
from tidegate_operator.core.score import COMPONENTS, Reading, clamp_ratio, score_workers

WEIGHTS = ScoreWeights()


def device(**more):
    base = {
        "memory_used_bytes": 4,
        "memory_total_bytes": 10,
        "utilization_ratio": 0.2,
        "temperature_celsius": 40.0,
    }
    return DeviceState(uuid="d", **{**base, **more})


def reading(uid="a", *, limit=10, latency_ms=5.0, queue=0, devices=(), peers="r/c", **state):
    model = {"name": "m", "queue": queue, "success_ratio": state.pop("success", 1.0)}
    return Reading(
        uid=uid,
        peers=peers,
        limit=limit,
        latency_ms={} if latency_ms is None else {"m": latency_ms},
        state=WorkerState.model_construct(
            uid=uid,
            phase=Phase.READY,
            models=[ModelState.model_construct(**{**_model_defaults(), **model})],
            devices=list(devices),
            memory_pressure=state.get("pressure"),
            thermal=state.get("thermal"),
            window=state.get("window", WindowState()),
        ),
    )


def _model_defaults():
    return {"requests_per_second": 1.0, "traits": Traits(), "in_flight": 0}


def score(*readings, weights=WEIGHTS):
    return score_workers(readings, weights)


def test_the_default_weights_name_every_component():
    assert set(WEIGHTS.model_dump()) == set(COMPONENTS)


@pytest.mark.parametrize(
    ("case", "name", "expected"),
    [
        pytest.param({"devices": [device()]}, "memory", 0.6, id="memory-is-what-is-free"),
        pytest.param(
            {"devices": [device(), device(memory_used_bytes=9)]},
            "memory",
            0.1,
            id="the-fullest-device-counts",
        ),
        pytest.param(
            {"devices": [device()], "window": WindowState(memory_ratio=0.9)},
            "memory",
            0.1,
            id="the-window-goes-before-the-moment",
        ),
        pytest.param({"queue": 5}, "queue", 0.5, id="half-the-limit-pending-is-half"),
        pytest.param({"queue": 50}, "queue", 0.0, id="beyond-the-limit-is-clamped"),
        pytest.param({}, "latency", 1.0, id="alone-is-the-best"),
        pytest.param({"devices": [device()]}, "utilization", 0.8, id="idle-part-of-the-device"),
        pytest.param({"devices": [device()]}, "temperature", 1.0, id="40-degrees-is-cool"),
        pytest.param(
            {"devices": [device(temperature_celsius=85.0)]}, "temperature", 0.0, id="85-is-none"
        ),
        pytest.param(
            {"devices": [device(temperature_celsius=62.5)]}, "temperature", 0.5, id="half-way"
        ),
    ],
)
def test_components_are_ratios_with_1_as_best(case, name, expected):
    assert score(reading(**case))["a"].components[name] == pytest.approx(expected)


def test_absent_hardware_drops_out_and_the_weights_renormalise():
    result = score(reading(queue=5))["a"]
    assert set(result.components) == {"queue", "latency"}
    assert result.value == pytest.approx((0.3 * 0.5 + 0.2 * 1.0) / 0.5)


def test_an_absent_measurement_takes_the_peers_median():
    rows = [reading("a", latency_ms=5.0), reading("b", latency_ms=10.0), reading("c")]
    rows.append(reading("d", latency_ms=None))
    result = score(*rows)
    assert result["d"].components["latency"] == pytest.approx(1.0)
    assert result["b"].components["latency"] == pytest.approx(0.5)


def test_an_absent_device_value_takes_the_median_too():
    blind = device(temperature_celsius=None)
    rows = [reading("a", devices=[device(temperature_celsius=62.5)]), reading("b", devices=[blind])]
    assert score(*rows)["b"].components["temperature"] == pytest.approx(0.5)


def test_latency_is_compared_with_peers_only():
    rows = [reading("gpu", latency_ms=1.0, peers="r/gpu"), reading("cpu", latency_ms=50.0)]
    assert score(*rows)["cpu"].components["latency"] == 1.0


def test_a_worker_that_fails_fast_does_not_look_idle_and_fast():
    rows = [reading("good"), reading("bad", latency_ms=0.1, success=0.1)]
    result = score(*rows)
    assert result["bad"].value < result["good"].value


@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"pressure": Pressure.CRITICAL}, id="critical-memory"),
        pytest.param({"thermal": Thermal.CRITICAL}, id="critical-heat"),
    ],
)
def test_critical_is_0(state):
    assert score(reading(devices=[device()], **state))["a"].value == 0.0


def test_an_ensembles_own_queue_means_nothing():
    own = reading()
    ensemble = ModelState.model_construct(
        **{**_model_defaults(), "name": "e", "queue": 99, "traits": Traits(ensemble=True)}
    )
    own.state.models.append(ensemble)
    assert score(own)["a"].components["queue"] == 1.0


def test_weights_of_zero_leave_all_equal():
    nothing = ScoreWeights(memory=0, queue=0, latency=0, utilization=0, temperature=0)
    assert 0 <= score(reading(queue=5), weights=nothing)["a"].value <= 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [(math.nan, 0.0), (-1.0, 0.0), (math.inf, 1.0), (-math.inf, 0.0), (0.5, 0.5)],
)
def test_absurd_numbers_are_clamped(value, expected):
    assert clamp_ratio(value) == expected


ABSURD = st.one_of(st.floats(), st.integers(-(10**9), 10**9))


@given(rows=st.lists(st.tuples(ABSURD, ABSURD, ABSURD, ABSURD, ABSURD), min_size=1, max_size=6))
def test_every_score_lies_between_0_and_1_whatever_agents_say(rows):
    readings = [
        reading(
            str(index),
            queue=queue if math.isfinite(queue) else 0,
            latency_ms=latency,
            success=success,
            devices=[
                DeviceState.model_construct(
                    uuid="d",
                    memory_used_bytes=1,
                    memory_total_bytes=2,
                    utilization_ratio=load,
                    temperature_celsius=heat,
                )
            ],
        )
        for index, (queue, latency, success, load, heat) in enumerate(rows)
    ]
    for result in score(*readings).values():
        assert 0.0 <= result.value <= 1.0
        assert all(0.0 <= value <= 1.0 for value in result.components.values())


@given(first=st.integers(0, 9), second=st.integers(0, 9))
def test_a_longer_queue_never_scores_better(first, second):
    low, high = sorted((first, second))
    result = score(reading("a", queue=low), reading("b", queue=high))
    assert result["a"].value >= result["b"].value
