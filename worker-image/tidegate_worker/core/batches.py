"""Triton's count of executions per batch size -> the buckets of a histogram. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True, slots=True)
class BatchHistogram:
    """Cumulative buckets (upper bound as Prometheus writes it, count) and the sum of sizes."""

    buckets: tuple[tuple[str, float], ...]
    total: float


def histogram(executions: Mapping[int, int]) -> BatchHistogram:
    """Return the histogram of {batch size: executions since the server started}."""
    buckets = [
        (str(float(bound)), float(sum(n for size, n in executions.items() if size <= bound)))
        for bound in BOUNDS
    ]
    buckets.append(("+Inf", float(sum(executions.values()))))
    return BatchHistogram(tuple(buckets), float(sum(size * n for size, n in executions.items())))


def executions_by_model(statistics: Mapping[str, object]) -> dict[str, dict[int, int]]:
    """Read the answer of GET /v2/models/stats; what has another shape is left out."""
    found: dict[str, dict[int, int]] = {}
    listed = statistics.get("model_stats")
    for entry in listed if isinstance(listed, list) else []:
        sizes = found.setdefault(str(entry.get("name")), {})
        for item in entry.get("batch_stats", []):
            size = int(item["batch_size"])
            sizes[size] = sizes.get(size, 0) + int(item["compute_infer"]["count"])
    return found
