"""The score of a worker in [0, 1], 1 = best (design.md section 5, router.md section 3).

score = clamp(weighted mean of components) x success ratio of the last 30 s, and 0 when memory
or heat is Critical. A component whose hardware is absent drops out and the weights renormalise;
one whose measurement is absent takes the median of its peers (same revision and class), so that
a fresh worker is neither preferred nor shunned. A worker that fails fast must not look idle and
fast: hence the success ratio.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tidegate_api.pool import ScoreWeights
from tidegate_api.state import Pressure, Thermal, WorkerState

_COOL_CELSIUS = 40.0  # full headroom
_CRITICAL_CELSIUS = 85.0  # none left


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One worker's measurements as scoring needs them.

    `limit` is requests in flight over all models; `latency_ms` the running mean per model.
    """

    uid: str
    peers: str  # workers with the same value are compared: revision and class
    state: WorkerState
    limit: int
    latency_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Absent:
    """A component without a value. Hardware that is not there is no missing measurement."""

    hardware: bool


HARDWARE_ABSENT = Absent(hardware=True)
MEASUREMENT_ABSENT = Absent(hardware=False)
Value = float | Absent
Best = Mapping[str, float]  # model -> lowest latency among the peers, ms


@dataclass(frozen=True, slots=True)
class Score:
    """A score and what made it."""

    value: float
    components: Mapping[str, float]
    success_ratio: float


def clamp_ratio(value: float) -> float:
    """Return a number in [0, 1]; NaN is 0."""
    return 0.0 if math.isnan(value) else min(1.0, max(0.0, value))


def memory_headroom(reading: Reading, _best: Best) -> Value:
    """1 - used/total of the fullest device; the window's mean where the agent has one."""
    state = reading.state
    if not state.devices:
        return HARDWARE_ABSENT
    if state.window.memory_ratio is not None:
        return 1.0 - state.window.memory_ratio
    used = [
        device.memory_used_bytes / device.memory_total_bytes
        for device in state.devices
        if device.memory_used_bytes is not None and device.memory_total_bytes
    ]
    return 1.0 - max(used) if used else MEASUREMENT_ABSENT


def queue_headroom(reading: Reading, _best: Best) -> Value:
    """1 - pending in Triton / limit, over all models.

    An ensemble's own pending count means nothing; its composing models are counted.
    """
    counted = [model.queue for model in reading.state.models if not model.traits.ensemble]
    return 1.0 - sum(counted) / max(1, reading.limit) if counted else MEASUREMENT_ABSENT


def latency_ratio(reading: Reading, best: Best) -> Value:
    """Best of the peers / own, the mean over models that have a value."""
    ratios = [
        best[model] / own
        for model, own in reading.latency_ms.items()
        if own > 0 and best.get(model) is not None
    ]
    return statistics.fmean(ratios) if ratios else MEASUREMENT_ABSENT


def idle_ratio(reading: Reading, _best: Best) -> Value:
    """1 - device utilization, the mean of devices; the window's mean where there is one."""
    state = reading.state
    if not state.devices:
        return HARDWARE_ABSENT
    if state.window.utilization_ratio is not None:
        return 1.0 - state.window.utilization_ratio
    seen = [d.utilization_ratio for d in state.devices if d.utilization_ratio is not None]
    return 1.0 - statistics.fmean(seen) if seen else MEASUREMENT_ABSENT


def thermal_headroom(reading: Reading, _best: Best) -> Value:
    """1 at 40 C or less, 0 at 85 C (Critical), by the hottest device."""
    state = reading.state
    if not state.devices:
        return HARDWARE_ABSENT
    seen = [d.temperature_celsius for d in state.devices if d.temperature_celsius is not None]
    if not seen:
        return MEASUREMENT_ABSENT
    return (_CRITICAL_CELSIUS - max(seen)) / (_CRITICAL_CELSIUS - _COOL_CELSIUS)


COMPONENTS: Mapping[str, Callable[[Reading, Best], Value]] = {
    "memory": memory_headroom,
    "queue": queue_headroom,
    "latency": latency_ratio,
    "utilization": idle_ratio,
    "temperature": thermal_headroom,
}


def score_workers(readings: Sequence[Reading], weights: ScoreWeights) -> dict[str, Score]:
    """Return the score of each worker by UID, each compared with its peers only."""
    groups: dict[str, list[Reading]] = {}
    for reading in readings:
        groups.setdefault(reading.peers, []).append(reading)
    scores: dict[str, Score] = {}
    for group in groups.values():
        scores.update(_score_peers(group, weights))
    return scores


def success_ratio(state: WorkerState) -> float:
    """Return the share of successes of the last 30 s, models weighted by their traffic."""
    seen = [
        (model.success_ratio, max(model.requests_per_second or 0.0, 1e-3))
        for model in state.models
        if model.success_ratio is not None
    ]
    total = sum(weight for _, weight in seen)
    return clamp_ratio(sum(ratio * weight for ratio, weight in seen) / total) if seen else 1.0


def _score_peers(group: Sequence[Reading], weights: ScoreWeights) -> dict[str, Score]:
    best = _best_latency(group)
    raw = {
        reading.uid: {name: rule(reading, best) for name, rule in COMPONENTS.items()}
        for reading in group
    }
    medians = _medians(list(raw.values()))
    return {r.uid: _score_one(r, raw[r.uid], medians, weights) for r in group}


def _score_one(
    reading: Reading,
    raw: Mapping[str, Value],
    medians: Mapping[str, float],
    weights: ScoreWeights,
) -> Score:
    components = _filled(raw, medians)
    importance: Mapping[str, float] = weights.model_dump()
    total = sum(importance[name] for name in components)
    weighted = sum(importance[name] * value for name, value in components.items())
    mean = weighted / total if total > 0 else _plain_mean(components)
    ratio = success_ratio(reading.state)
    value = 0.0 if is_critical(reading.state) else clamp_ratio(mean) * ratio
    return Score(value, components, ratio)


def is_critical(state: WorkerState) -> bool:
    """Whether a worker is a last resort."""
    return state.memory_pressure is Pressure.CRITICAL or state.thermal is Thermal.CRITICAL


def _filled(raw: Mapping[str, Value], medians: Mapping[str, float]) -> dict[str, float]:
    filled: dict[str, float] = {}
    for name, value in raw.items():
        if isinstance(value, float | int):
            filled[name] = clamp_ratio(value)
        elif not value.hardware and name in medians:
            filled[name] = medians[name]
    return filled


def _medians(rows: Sequence[Mapping[str, Value]]) -> dict[str, float]:
    medians: dict[str, float] = {}
    for name in COMPONENTS:
        values = [row[name] for row in rows]
        numbers = [clamp_ratio(value) for value in values if isinstance(value, float | int)]
        if numbers:
            medians[name] = statistics.median(numbers)
    return medians


def _best_latency(group: Sequence[Reading]) -> Best:
    best: dict[str, float] = {}
    for reading in group:
        for model, own in reading.latency_ms.items():
            if own > 0 and own < best.get(model, math.inf):
                best[model] = own
    return best


def _plain_mean(components: Mapping[str, float]) -> float:
    """Every weight that applies is 0, or nothing was measured: neutral among equals."""
    return statistics.fmean(components.values()) if components else 1.0
