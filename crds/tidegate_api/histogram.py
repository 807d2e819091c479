"""Latency histogram scheme tg1: 176 buckets, bucket i ends at 50 us x 2^(i/8).

The relative error of a quantile is at most half a bucket, 2^(1/16) - 1 = 4.4 %. Histograms are
cumulative counts since the process started; readers subtract two scrapes of one instance, so a
missed scrape loses nothing, and histograms of several routers add up.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping

SCHEME = "tg1"
BUCKETS = 176
_FIRST_S = 50e-6
_PER_OCTAVE = 8
_ENDS_S = [_FIRST_S * 2 ** ((bucket + 1e-9) / _PER_OCTAVE) for bucket in range(BUCKETS - 1)]


def bucket_of(latency_s: float) -> int:
    """Return the bucket, 0..175, that holds a latency in seconds; the last is open-ended."""
    return bisect_left(_ENDS_S, latency_s)


def upper_bound_s(bucket: int) -> float:
    """Return the inclusive upper end of a bucket, in seconds."""
    return float(_FIRST_S * 2 ** (bucket / _PER_OCTAVE))


def merge(histograms: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Add sparse histograms {bucket: count}."""
    total: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


def difference(now: Mapping[int, int], before: Mapping[int, int]) -> dict[int, int]:
    """Return what was counted between two cumulative readings of one instance."""
    changed = {bucket: count - before.get(bucket, 0) for bucket, count in now.items()}
    return {bucket: count for bucket, count in changed.items() if count > 0}


def quantile_s(histogram: Mapping[int, int], q: float) -> float | None:
    """Return the q-quantile (0 < q <= 1) in seconds, None for an empty histogram.

    The value is the geometric middle of the bucket that holds rank ceil(q x n).
    """
    total = sum(histogram.values())
    if not total:
        return None
    rank, seen = math.ceil(q * total), 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= rank:
            return upper_bound_s(bucket) * 2 ** (-0.5 / _PER_OCTAVE)
    return None
