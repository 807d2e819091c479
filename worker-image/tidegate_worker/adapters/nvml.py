"""Devices by NVML. No driver or no device: an empty list, never zeros.

Every value that a device does not support is absent. A device that is lost mid-way drops out of
the list; NVML is asked again from the start at the next sample.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, TypeVar

import pynvml

from tidegate_api.state import DeviceState

_log = logging.getLogger(__name__)
_THROTTLE_REASONS = {
    0x2: "ApplicationsClocksSetting",
    0x4: "SwPowerCap",
    0x8: "HwSlowdown",
    0x10: "SyncBoost",
    0x20: "SwThermalSlowdown",
    0x40: "HwThermalSlowdown",
    0x80: "HwPowerBrakeSlowdown",
    0x100: "DisplayClockSetting",
}
_Value = TypeVar("_Value")


class DeviceSource(Protocol):
    """Where device states come from: NVML, or the labelled simulation."""

    def read(self) -> list[DeviceState]:
        """Return the devices now."""


@dataclass(slots=True)
class Nvml:
    """The devices that this container may see. `library` is pynvml or a stand-in."""

    library: ModuleType = pynvml
    _started: bool = False
    _told: str = ""
    _events: object | None = None
    _xids: dict[str, int] = field(default_factory=dict)

    def read(self) -> list[DeviceState]:
        """Read every device; blocks for milliseconds, so call it in a thread."""
        try:
            self._start()
            self._read_xids()
            count = self.library.nvmlDeviceGetCount()
            return [self._device(self.library.nvmlDeviceGetHandleByIndex(i)) for i in range(count)]
        except self.library.NVMLError as error:
            self._lost(str(error))
            return []

    def _start(self) -> None:
        if not self._started:
            self.library.nvmlInit()
            self._started = True
            self._told = ""
            self._watch_xids()

    def _lost(self, words: str) -> None:
        if words != self._told:
            self._told = words
            _log.info("no devices: %s", words)
        if self._started:
            self._started, self._events = False, None
            self._optional(self.library.nvmlShutdown)

    def _optional(self, ask: Callable[..., _Value], *arguments: object) -> _Value | None:
        """Return what a device answers, None where it does not support the question."""
        try:
            return ask(*arguments)
        except (
            self.library.NVMLError_NotSupported,
            self.library.NVMLError_NoPermission,
            self.library.NVMLError_FunctionNotFound,
            self.library.NVMLError_Uninitialized,
        ):
            return None

    def _device(self, handle: object) -> DeviceState:
        nvml, ask = self.library, self._optional
        memory = ask(nvml.nvmlDeviceGetMemoryInfo, handle)
        load = ask(nvml.nvmlDeviceGetUtilizationRates, handle)
        power_mw = ask(nvml.nvmlDeviceGetPowerUsage, handle)
        heat = ask(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        uuid = _text(nvml.nvmlDeviceGetUUID(handle))
        return DeviceState(
            uuid=uuid,
            name=_text(ask(nvml.nvmlDeviceGetName, handle) or ""),
            memory_used_bytes=memory and int(memory.used),
            memory_total_bytes=memory and int(memory.total),
            utilization_ratio=load and min(1.0, load.gpu / 100),
            temperature_celsius=None if heat is None else float(heat),
            power_watts=None if power_mw is None else power_mw / 1000,
            throttle_reasons=_throttling(
                ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
            ),
            ecc_errors=ask(
                nvml.nvmlDeviceGetTotalEccErrors,
                handle,
                nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                nvml.NVML_VOLATILE_ECC,
            ),
            xid=self._xids.get(uuid),
        )

    def _watch_xids(self) -> None:
        """Ask to be told of XID errors; a device without such events is left out."""
        nvml = self.library
        self._events = self._optional(nvml.nvmlEventSetCreate)
        if self._events is None:
            return
        for index in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            self._optional(
                nvml.nvmlDeviceRegisterEvents, handle, nvml.nvmlEventTypeXidCriticalError,
                self._events,
            )  # fmt: skip

    def _read_xids(self) -> None:
        nvml = self.library
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait_v2(self._events, 0)
            except nvml.NVMLError_Timeout:
                return
            self._xids[_text(nvml.nvmlDeviceGetUUID(event.device))] = int(event.eventData)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _throttling(bits: int) -> list[str]:
    return [name for bit, name in _THROTTLE_REASONS.items() if bits & bit]
