"""The labelled simulation as a device source: advances with real time under real load."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate_api.state import DeviceState
from tidegate_worker.core.simulation import SimulatedDevice, advance, describe


@dataclass(slots=True)
class SimulatedDevices:
    """`count` devices; `load` tells (requests in flight, bytes that models declare)."""

    count: int
    memory_bytes: int
    load: Callable[[], tuple[int, int]] = field(default=lambda: (0, 0))
    _devices: list[SimulatedDevice] = field(default_factory=list)
    _at_s: float = field(default_factory=time.monotonic)

    def read(self) -> list[DeviceState]:
        """Return the devices now."""
        if not self._devices:
            self._devices = [
                SimulatedDevice(index=index, memory_total_bytes=self.memory_bytes)
                for index in range(self.count)
            ]
        now_s = time.monotonic()
        in_flight, declared = self.load()
        self._devices = [
            advance(
                device,
                elapsed_s=now_s - self._at_s,
                in_flight=in_flight,
                declared_bytes=declared // max(1, self.count),
            )
            for device in self._devices
        ]
        self._at_s = now_s
        return [describe(device) for device in self._devices]
