"""A device that does not exist, for tests and demos: it reacts to load and says `simulated`.

First-order models: utilization follows the share of busy seconds, heat follows utilization with a
time constant of 20 s between 40 and 78 Celsius, memory is what models declare plus 20 MiB for
each request in flight.
"""

import math
from dataclasses import dataclass

from tidegate_api.state import DeviceState

_TAU_S = 20.0
_COOL, _HOT = 40.0, 78.0
_PER_REQUEST_BYTES = 20 * 2**20
_IDLE_WATTS, _FULL_WATTS = 15.0, 150.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """State of one simulated device."""

    index: int
    memory_total_bytes: int
    utilization_ratio: float = 0.0
    temperature_celsius: float = _COOL
    memory_used_bytes: int = 0


def advance(
    device: SimulatedDevice, *, elapsed_s: float, in_flight: int, declared_bytes: int
) -> SimulatedDevice:
    """Return the device `elapsed_s` seconds later under `in_flight` requests."""
    load = 1 - math.exp(-in_flight / 4)
    share = 1 - math.exp(-elapsed_s / _TAU_S)
    target = _COOL + (_HOT - _COOL) * load
    used = declared_bytes + in_flight * _PER_REQUEST_BYTES
    return SimulatedDevice(
        index=device.index,
        memory_total_bytes=device.memory_total_bytes,
        utilization_ratio=load,
        temperature_celsius=device.temperature_celsius
        + (target - device.temperature_celsius) * share,
        memory_used_bytes=min(used, device.memory_total_bytes),
    )


def describe(device: SimulatedDevice) -> DeviceState:
    """Return the device as the worker's state shows it, labelled."""
    watts = _IDLE_WATTS + (_FULL_WATTS - _IDLE_WATTS) * device.utilization_ratio
    return DeviceState(
        uuid=f"SIMULATED-{device.index}",
        name="simulated device",
        simulated=True,
        memory_used_bytes=device.memory_used_bytes,
        memory_total_bytes=device.memory_total_bytes,
        utilization_ratio=round(device.utilization_ratio, 4),
        temperature_celsius=round(device.temperature_celsius, 1),
        power_watts=round(watts, 1),
        throttle_reasons=[],
        ecc_errors=0,
    )
