"""Devices by NVML (nvidia-ml-py). No driver, no GPU: an empty list; a lost GPU drops out."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVar

import pynvml

from tidegate_api.state import DeviceState

_log = logging.getLogger(__name__)
T = TypeVar("T")

_THROTTLE = {
    "GpuIdle": 0x1,
    "ApplicationsClocksSetting": 0x2,
    "SwPowerCap": 0x4,
    "HwSlowdown": 0x8,
    "SyncBoost": 0x10,
    "SwThermalSlowdown": 0x20,
    "HwThermalSlowdown": 0x40,
    "HwPowerBrakeSlowdown": 0x80,
}
_HARMLESS = 0x1  # idle clocks are no throttling


class DeviceSource(Protocol):
    """Where device states come from: NVML, or the labelled simulation."""

    def read(self) -> list[DeviceState]:
        """Return the devices now."""


class Nvml:
    """NVML, opened once; a machine without it has no devices."""

    def __init__(self) -> None:
        self._open = False
        try:
            pynvml.nvmlInit()
            self._open = True
        except pynvml.NVMLError as error:
            _log.info("no NVML devices: %s", error)

    def read(self) -> list[DeviceState]:
        """Return every device that answers; each field that one lacks stays absent."""
        if not self._open:
            return []
        count = _ask(pynvml.nvmlDeviceGetCount) or 0
        found = (_device(index) for index in range(count))
        return [device for device in found if device is not None]

    def close(self) -> None:
        """Give NVML back."""
        if self._open:
            _ask(pynvml.nvmlShutdown)


def _device(index: int) -> DeviceState | None:
    handle = _ask(lambda: pynvml.nvmlDeviceGetHandleByIndex(index))
    uuid = _ask(lambda: pynvml.nvmlDeviceGetUUID(handle)) if handle is not None else None
    if uuid is None:
        return None
    memory = _ask(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle))
    rates = _ask(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    milliwatts = _ask(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    reasons = _ask(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0
    return DeviceState(
        uuid=str(uuid),
        name=str(_ask(lambda: pynvml.nvmlDeviceGetName(handle)) or ""),
        memory_used_bytes=None if memory is None else int(memory.used),
        memory_total_bytes=None if memory is None else int(memory.total),
        utilization_ratio=None if rates is None else rates.gpu / 100,
        temperature_celsius=_ask(
            lambda: float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        ),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        throttle_reasons=throttle_reasons(int(reasons)),
        ecc_errors=_ask(
            lambda: int(
                pynvml.nvmlDeviceGetTotalEccErrors(
                    handle,
                    pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                    pynvml.NVML_VOLATILE_ECC,
                )
            )
        ),
    )


def throttle_reasons(mask: int) -> list[str]:
    """Return the names of the set bits, idle clocks left out."""
    return [name for name, bit in _THROTTLE.items() if mask & bit & ~_HARMLESS]


def _ask(question: Callable[[], T]) -> T | None:
    """Return NVML's answer, None where this device or driver has none."""
    try:
        return question()
    except pynvml.NVMLError:
        return None
