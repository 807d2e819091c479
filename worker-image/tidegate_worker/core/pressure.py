"""Levels of device memory and heat, and whether the models fit at all. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate_api.names import Reason
from tidegate_api.quantity import quantity_bytes
from tidegate_api.state import DeviceState, Pressure, Thermal
from tidegate_api.template import Model
from tidegate_worker.core.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Lower bounds of each level: memory as a ratio 0..1, heat in Celsius."""

    normal_ratio: float = 0.5
    high_ratio: float = 0.7
    critical_ratio: float = 0.85
    stop_ratio: float = 0.95
    warning_celsius: float = 65.0
    throttling_celsius: float = 80.0
    critical_celsius: float = 85.0
    overhead_bytes: int = 3 * 2**30


def memory_pressure(devices: Iterable[DeviceState], limits: Thresholds) -> Pressure | None:
    """Return the level of the fullest device, None without a device that tells."""
    ratios = [ratio for device in devices if (ratio := memory_ratio(device)) is not None]
    if not ratios:
        return None
    fullest = max(ratios)
    if fullest >= limits.critical_ratio:
        return Pressure.CRITICAL
    if fullest >= limits.high_ratio:
        return Pressure.HIGH
    return Pressure.NORMAL if fullest >= limits.normal_ratio else Pressure.LOW


def memory_ratio(device: DeviceState) -> float | None:
    """Return used / total of a device, None where it does not tell."""
    if device.memory_used_bytes is None or not device.memory_total_bytes:
        return None
    return device.memory_used_bytes / device.memory_total_bytes


def thermal(devices: Iterable[DeviceState], limits: Thresholds) -> Thermal | None:
    """Return the level of the hottest device, None without a device that tells."""
    heats = [d.temperature_celsius for d in devices if d.temperature_celsius is not None]
    if not heats:
        return None
    hottest = max(heats)
    if hottest >= limits.critical_celsius:
        return Thermal.CRITICAL
    if hottest >= limits.throttling_celsius:
        return Thermal.THROTTLING
    return Thermal.WARNING if hottest >= limits.warning_celsius else Thermal.NORMAL


def check_fit(
    model: Model, loaded: Sequence[Model], devices: Sequence[DeviceState], limits: Thresholds
) -> None:
    """Raise ModelError if `model` beside `loaded` does not fit into the devices' memory.

    What models declare plus the overhead must stay below the stop ratio of all devices' memory.
    A model that declares nothing is let through: there is nothing to reckon with.
    """
    total = sum(device.memory_total_bytes or 0 for device in devices)
    if not total or model.memory is None:
        return
    needed = sum(quantity_bytes(m.memory) for m in (*loaded, model) if m.memory)
    room = int(total * limits.stop_ratio) - limits.overhead_bytes
    if needed > room:
        raise ModelError(
            Reason.INSUFFICIENT_DEVICE_MEMORY,
            f"models[].memory sums to {needed / 2**30:.1f} GiB, but the "
            f"devices have room for {max(0, room) / 2**30:.1f} GiB beside the overhead: use a "
            "larger class, fewer models, or correct memory",
        )
