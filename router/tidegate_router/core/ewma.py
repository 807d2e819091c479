"""Peak EWMA of a worker's latency (Finagle's): jumps up at once, comes down with tau 10 s."""

import math
from dataclasses import dataclass

TAU_S = 10.0
FAILURE_FACTOR = 5.0
UNKNOWN_S = 0.010


@dataclass(slots=True)
class PeakLatency:
    """The latency that (worker, model) showed lately, in seconds; None before the first sample."""

    value_s: float | None = None
    sampled_s: float = 0.0

    def record(self, latency_s: float, now_s: float) -> None:
        """Take a sample: a higher one is the new value, a lower one pulls it down slowly."""
        value_s = self.value_s
        if value_s is None or latency_s >= value_s:
            self.value_s = latency_s
        else:
            keep = math.exp(-max(0.0, now_s - self.sampled_s) / TAU_S)
            self.value_s = value_s * keep + latency_s * (1 - keep)
        self.sampled_s = now_s

    def record_failure(self, p95_s: float, now_s: float) -> None:
        """A failure counts as five times the revision's p95: failing fast is not being fast."""
        self.record(max(FAILURE_FACTOR * p95_s, self.value_s or 0.0), now_s)

    def estimate_s(self, median_s: float, in_flight: int, now_s: float) -> float:
        """Return what the next request may take; the peers' median without a sample.

        An idle worker's value drifts to the median, so that it is tried again; while that one
        trial runs, the value that was measured counts.
        """
        if self.value_s is None:
            return median_s
        if in_flight:
            return self.value_s
        keep = math.exp(-max(0.0, now_s - self.sampled_s) / TAU_S)
        return median_s + (self.value_s - median_s) * keep
