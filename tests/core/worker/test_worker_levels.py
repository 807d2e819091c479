"""Device memory and heat: levels, fit, the window, the labelled simulation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import Reason
from tidegate_api.state import DeviceState, Pressure, Thermal
from tidegate_api.template import Model
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.pressure import Thresholds, check_fit, memory_pressure, thermal
from tidegate_worker.core.simulation import SimulatedDevice, advance, describe
from tidegate_worker.core.window import LENGTH, add, sample, summarize

GIB = 2**30
LIMITS = Thresholds()


def device(used=None, total=None, heat=None, load=None):
    return DeviceState(
        uuid="GPU-1",
        memory_used_bytes=used,
        memory_total_bytes=total,
        temperature_celsius=heat,
        utilization_ratio=load,
    )


MEMORY = [
    (0, Pressure.LOW), (49, Pressure.LOW), (50, Pressure.NORMAL), (69, Pressure.NORMAL),
    (70, Pressure.HIGH), (84, Pressure.HIGH), (85, Pressure.CRITICAL), (100, Pressure.CRITICAL),
]  # fmt: skip


@pytest.mark.parametrize(("percent", "level"), MEMORY)
def test_memory_levels_begin_where_the_design_says(percent, level):
    assert memory_pressure([device(percent, 100)], LIMITS) is level


HEAT = [
    (20.0, Thermal.NORMAL), (64.9, Thermal.NORMAL), (65.0, Thermal.WARNING),
    (79.9, Thermal.WARNING), (80.0, Thermal.THROTTLING), (84.9, Thermal.THROTTLING),
    (85.0, Thermal.CRITICAL), (120.0, Thermal.CRITICAL),
]  # fmt: skip


@pytest.mark.parametrize(("celsius", "level"), HEAT)
def test_heat_levels_begin_where_the_design_says(celsius, level):
    assert thermal([device(heat=celsius)], LIMITS) is level


ABSENT = [
    ("no device", []),
    ("a device that tells nothing", [device()]),
    ("a total of zero", [device(used=1, total=0)]),
]


@pytest.mark.parametrize("devices", [a[1] for a in ABSENT], ids=[a[0] for a in ABSENT])
def test_what_is_not_measured_has_no_level(devices):
    assert memory_pressure(devices, LIMITS) is None
    assert thermal(devices, LIMITS) is None


def test_the_worst_device_decides():
    assert memory_pressure([device(10, 100), device(90, 100)], LIMITS) is Pressure.CRITICAL
    assert thermal([device(heat=30.0), device(heat=82.0)], LIMITS) is Thermal.THROTTLING


def test_thresholds_are_configurable():
    limits = Thresholds(normal_ratio=0.1, warning_celsius=30.0)
    assert memory_pressure([device(20, 100)], limits) is Pressure.NORMAL
    assert thermal([device(heat=40.0)], limits) is Thermal.WARNING


def model(name, memory):
    source = {"uri": "pvc://c/m"}
    return Model.model_validate({"name": name, "source": source, "memory": memory})


FITS = [
    ("exactly to the stop ratio less the overhead", "16Gi", [], True),
    ("a little beyond the stop ratio less the overhead", "16777217Ki", [], False),
    ("beside others", "8Gi", ["7Gi"], True),
    ("one too many", "8Gi", ["7Gi", "3Gi"], False),
    ("alone too large", "20Gi", [], False),
    ("nothing declared", None, ["99Gi"], True),
]


@pytest.mark.parametrize(
    ("memory", "beside", "fits"), [f[1:] for f in FITS], ids=[f[0] for f in FITS]
)
def test_declared_memory_must_leave_the_overhead_free(memory, beside, fits):
    devices = [device(0, 20 * GIB)]
    loaded = [model(f"m{index}", amount) for index, amount in enumerate(beside)]
    if fits:
        check_fit(model("new", memory), loaded, devices, LIMITS)
        return
    with pytest.raises(ModelError, match=r"room for 16\.0 GiB") as refused:
        check_fit(model("new", memory), loaded, devices, LIMITS)
    assert refused.value.reason is Reason.INSUFFICIENT_DEVICE_MEMORY


def test_without_a_device_nothing_is_refused():
    check_fit(model("new", "99Gi"), [], [], LIMITS)


@given(st.lists(st.integers(0, 30), max_size=4), st.integers(0, 30))
def test_no_admitted_set_of_models_ever_exceeds_the_room(amounts, newest):
    devices = [device(0, 24 * GIB)]
    admitted = []
    for index, amount in enumerate([*amounts, newest]):
        candidate = model(f"m{index}", f"{amount}Gi")
        try:
            check_fit(candidate, admitted, devices, LIMITS)
        except ModelError:
            continue
        admitted.append(candidate)
    total = sum(int(m.memory.removesuffix("Gi")) for m in admitted) * GIB
    assert total <= 0.95 * 24 * GIB - 3 * GIB


def test_a_window_holds_a_hundred_samples_and_their_means():
    window = ()
    for second in range(150):
        heat = 40.0 if second < 100 else 60.0
        devices = [device(50, 100, heat, 0.5), device(100, 100, heat + 10, 1.0)]
        window = add(window, sample(devices, queue=second % 2))
    found = summarize(window)
    assert found.samples == LENGTH == 100
    assert found.utilization_ratio == 0.75
    assert found.memory_ratio == 0.75
    assert found.temperature_celsius == 60.0
    assert found.queue == 0.5


def test_a_window_without_devices_is_silent_about_them():
    found = summarize(add((), sample([], queue=3)))
    assert (found.utilization_ratio, found.temperature_celsius, found.queue) == (None, None, 3.0)


def run(seconds, in_flight, device_=None):
    simulated = device_ or SimulatedDevice(index=0, memory_total_bytes=8 * GIB)
    for _ in range(seconds):
        simulated = advance(simulated, elapsed_s=1.0, in_flight=in_flight, declared_bytes=GIB)
    return simulated


def test_the_simulation_reacts_to_load_and_cools_again():
    hot = run(120, 16)
    cold = run(120, 0, hot)
    assert hot.temperature_celsius > 70
    assert hot.utilization_ratio > 0.9
    assert cold.temperature_celsius < 42
    assert cold.utilization_ratio == 0


def test_the_simulation_draws_power_as_it_works():
    idle, hot = describe(run(1, 0)), describe(run(120, 100))
    assert (idle.power_watts, hot.power_watts) == (15.0, 150.0)


def test_the_simulation_says_that_it_is_one():
    assert describe(run(1, 1)).simulated
    assert describe(run(1, 1)).uuid == "SIMULATED-0"


@given(st.lists(st.tuples(st.floats(0, 1000), st.integers(0, 10**6)), max_size=20))
def test_the_simulation_stays_within_physics(steps):
    simulated = SimulatedDevice(index=1, memory_total_bytes=GIB)
    for elapsed_s, in_flight in steps:
        simulated = advance(
            simulated, elapsed_s=elapsed_s, in_flight=in_flight, declared_bytes=GIB // 2
        )
        shown = describe(simulated)
        assert 0 <= shown.utilization_ratio <= 1
        assert 40 <= shown.temperature_celsius <= 78
        assert 0 <= shown.memory_used_bytes <= shown.memory_total_bytes
