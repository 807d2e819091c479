"""A high dynamic range histogram of latencies: microseconds, relative error at most 0.1 %.

The scheme is HdrHistogram's (Gil Tene, hdrhistogram.org): values below 2 048 have a bucket each;
above, every doubling has 1 024 buckets. Buckets are sparse; histograms of one second each add up
to that of the whole run without loss.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

_EXACT_BITS = 11  # 2 048 values of one microsecond each
_EXACT = 1 << _EXACT_BITS
_HALF_BITS = _EXACT_BITS - 1


def bucket_of(value_us: int) -> int:
    """Return the bucket that holds a value in microseconds, 0 for negative ones."""
    if value_us < _EXACT:
        return max(value_us, 0)
    shift = value_us.bit_length() - _EXACT_BITS
    return (shift << _HALF_BITS) + (value_us >> shift)


def middle_us(bucket: int) -> float:
    """Return the middle of a bucket, in microseconds."""
    if bucket < _EXACT:
        return float(bucket)
    shift = (bucket >> _HALF_BITS) - 1
    low = (bucket - (shift << _HALF_BITS)) << shift
    return low + ((1 << shift) - 1) / 2


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, the sum for the mean, and the largest value as it was."""

    counts: dict[int, int] = field(default_factory=dict)
    sum_us: float = 0.0
    max_us: float = 0.0

    def add(self, value_us: float) -> None:
        """Count one value in microseconds."""
        bucket, counts = bucket_of(int(value_us)), self.counts
        counts[bucket] = counts.get(bucket, 0) + 1
        self.sum_us += value_us
        if value_us > self.max_us:  # noqa: PLR1730  # max() costs a call for each request
            self.max_us = value_us

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts.values())

    @property
    def mean_us(self) -> float:
        """The mean in microseconds; 0 for an empty histogram."""
        return self.sum_us / self.total if self.counts else 0.0

    def quantile_us(self, q: float) -> float:
        """Return the q-quantile (0..1) in microseconds, 0 for an empty histogram.

        It is the middle of the bucket that holds rank ceil(q x n); q = 1 is the exact maximum.
        """
        if q >= 1:
            return self.max_us
        rank, seen = max(1, math.ceil(q * self.total)), 0
        for bucket, count in sorted(self.counts.items()):
            seen += count
            if seen >= rank:
                return min(middle_us(bucket), self.max_us)
        return 0.0

    def curve(self) -> Iterator[tuple[float, float]]:
        """Yield (share of values at or below, value in microseconds) in rising order."""
        seen, total = 0, self.total
        for bucket, count in sorted(self.counts.items()):
            seen += count
            yield seen / total, min(middle_us(bucket), self.max_us)


def merge(histograms: Iterable[Histogram]) -> Histogram:
    """Return the histogram of everything that the given ones counted."""
    merged = Histogram()
    for one in histograms:
        for bucket, count in one.counts.items():
            merged.counts[bucket] = merged.counts.get(bucket, 0) + count
        merged.sum_us += one.sum_us
        merged.max_us = max(merged.max_us, one.max_us)
    return merged
