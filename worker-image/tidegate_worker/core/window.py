"""A rolling window of at most 100 samples, one a second, and its means. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tidegate_api.state import DeviceState, WindowState
from tidegate_worker.core.pressure import memory_ratio

LENGTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One second's view; None where no device tells."""

    utilization_ratio: float | None
    memory_ratio: float | None
    temperature_celsius: float | None
    queue: int


def sample(devices: Sequence[DeviceState], queue: int) -> Sample:
    """Return the sample of now: means over devices, the hottest for heat."""
    heats = [d.temperature_celsius for d in devices if d.temperature_celsius is not None]
    return Sample(
        utilization_ratio=_mean(d.utilization_ratio for d in devices),
        memory_ratio=_mean(memory_ratio(d) for d in devices),
        temperature_celsius=max(heats, default=None),
        queue=queue,
    )


def add(window: Sequence[Sample], newest: Sample) -> tuple[Sample, ...]:
    """Return the window with a sample more, the oldest dropped beyond 100."""
    return (*window, newest)[-LENGTH:]


def summarize(window: Sequence[Sample]) -> WindowState:
    """Return the means that the worker's state carries."""
    return WindowState(
        samples=len(window),
        utilization_ratio=_mean(s.utilization_ratio for s in window),
        memory_ratio=_mean(s.memory_ratio for s in window),
        temperature_celsius=_mean(s.temperature_celsius for s in window),
        queue=_mean(float(s.queue) for s in window),
    )


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return round(sum(present) / len(present), 4) if present else None
