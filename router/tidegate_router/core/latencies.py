"""Quantiles of a group's latency as of late: those of a whole day would hide what changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_api.histogram import difference, quantile_s

TURN_S = 30.0
_ENOUGH = 100  # samples; with fewer the whole history counts
Histogram = Mapping[int, int]


@dataclass(slots=True)
class RecentLatency:
    """Two marks in a cumulative tg1 histogram: what came since the older one is recent.

    That is what 30 to 60 s brought.
    """

    _older: Histogram = field(default_factory=dict)
    _newer: Histogram = field(default_factory=dict)
    _turned_s: float = 0.0

    def note(self, cumulative: Histogram, now_s: float) -> Histogram:
        """Take a cumulative histogram; return what is recent of it."""
        if now_s - self._turned_s >= TURN_S:
            self._older, self._newer = self._newer, dict(cumulative)
            self._turned_s = now_s
        recent = difference(cumulative, self._older)
        return recent if sum(recent.values()) >= _ENOUGH else cumulative


def quantiles_s(histogram: Histogram) -> tuple[float | None, float | None]:
    """Return p95 and p99 in seconds, None without a sample."""
    return quantile_s(histogram, 0.95), quantile_s(histogram, 0.99)
