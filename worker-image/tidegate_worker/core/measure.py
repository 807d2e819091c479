"""Triton's metrics -> numbers per model, and rates between two readings. Pure."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_RATIO_WINDOW_S = 30.0
_NOT_THE_MODELS_FAULT = frozenset({"CANCELED", "REJECTED"})  # a client left; a full queue


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of Triton's exposition."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Cumulative counts of one model since tritonserver started; times in microseconds."""

    successes: int = 0
    failures: int = 0
    inferences: int = 0
    executions: int = 0
    pending: int = 0
    duration_us: float = 0.0
    quantiles_ms: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reading:
    """All models at one time of a monotonic clock."""

    at_s: float
    models: Mapping[str, Counters]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What happened between two readings; None where nothing was measured."""

    requests_per_second: float | None = None
    mean_batch_size: float | None = None
    success_ratio: float | None = None
    in_flight: int = 0


def read(samples: Iterable[Sample]) -> dict[str, Counters]:
    """Return the counters of each model from Triton's samples; versions are summed."""
    values: dict[str, dict[str, float]] = {}
    quantiles: dict[str, dict[float, float]] = {}
    for sample in samples:
        model = sample.labels.get("model")
        if model is None or math.isnan(sample.value):  # NaN: a quantile before any request
            continue
        totals = values.setdefault(model, {})
        if sample.name == "nv_inference_request_summary_us" and "quantile" in sample.labels:
            quantile = float(sample.labels["quantile"])
            quantiles.setdefault(model, {})[quantile] = sample.value / 1000
        elif sample.labels.get("reason") not in _NOT_THE_MODELS_FAULT:
            name = sample.name.removesuffix("_total")
            totals[name] = totals.get(name, 0.0) + sample.value
    return {model: _counters(found, quantiles.get(model, {})) for model, found in values.items()}


def _counters(values: Mapping[str, float], quantiles: Mapping[float, float]) -> Counters:
    return Counters(
        successes=int(values.get("nv_inference_request_success", 0)),
        failures=int(values.get("nv_inference_request_failure", 0)),
        inferences=int(values.get("nv_inference_count", 0)),
        executions=int(values.get("nv_inference_exec_count", 0)),
        pending=max(0, int(values.get("nv_inference_pending_request_count", 0))),
        duration_us=values.get("nv_inference_request_duration_us", 0.0),
        quantiles_ms=quantiles,
    )


def remember(readings: Iterable[Reading], newest: Reading) -> deque[Reading]:
    """Return the readings of the last 30 s with `newest`; a restart of Triton begins anew."""
    kept = deque(r for r in readings if newest.at_s - r.at_s <= _RATIO_WINDOW_S)
    if kept and _reset(kept[-1], newest):
        kept.clear()
    kept.append(newest)
    return kept


def _reset(before: Reading, after: Reading) -> bool:
    return any(
        after.models.get(model, Counters()).successes < counters.successes
        for model, counters in before.models.items()
    )


def rates(readings: deque[Reading], model: str) -> Rates:
    """Return a model's rates: the last pair for load, the whole window for success.

    In flight is Little's law over the last pair: rate x mean time in the server; Triton itself
    only tells what waits.
    """
    newest = readings[-1].models.get(model, Counters()) if readings else Counters()
    if len(readings) < 2:
        return Rates(in_flight=newest.pending)
    last, first = readings[-2], readings[0]
    seconds = max(1e-6, readings[-1].at_s - last.at_s)
    before = last.models.get(model, Counters())
    done = newest.successes - before.successes
    executed = newest.executions - before.executions
    busy = (newest.duration_us - before.duration_us) / 1e6 / seconds
    return Rates(
        requests_per_second=done / seconds,
        mean_batch_size=(newest.inferences - before.inferences) / executed if executed else None,
        success_ratio=_success_ratio(first.models.get(model, Counters()), newest),
        in_flight=max(newest.pending, round(busy)),
    )


def busy(before: Counters | None, now: Counters) -> bool:
    """Whether requests wait or ended since the reading before."""
    known = before or Counters()
    ended = (now.successes, now.failures) != (known.successes, known.failures)
    return ended or now.pending > 0


def _success_ratio(first: Counters, newest: Counters) -> float | None:
    good, bad = newest.successes - first.successes, newest.failures - first.failures
    return good / (good + bad) if good + bad else None
