"""Effective weight of a worker: w = slowStart x (f x score + (1 - f) x mean), at least 0.05."""

import math
from collections.abc import Iterable

FLOOR = 0.05
NEUTRAL = 0.5
SLOW_START_S = 10.0
_SLOW_START_FROM = 0.1


def clean_score(score: float | None) -> float | None:
    """Return a score within 0..1, None for a missing or absurd one (NaN, infinite)."""
    if score is None or not math.isfinite(score):
        return None
    return min(1.0, max(0.0, score))


def mean_score(scores: Iterable[float | None]) -> float:
    """Return the mean of the usable scores, NEUTRAL when there is none."""
    known = [
        found
        for score in scores
        if (found := score if score is not None and 0.0 <= score <= 1.0 else clean_score(score))
        is not None
    ]
    return sum(known) / len(known) if known else NEUTRAL


def slow_start(age_s: float) -> float:
    """Return the factor, 0.1..1, of a worker that joined `age_s` seconds ago."""
    return min(1.0, max(_SLOW_START_FROM, age_s / SLOW_START_S))


def effective(score: float | None, trust: float, mean: float, joined_age_s: float) -> float:
    """Return w; a worker without a usable score counts as the mean."""
    known = score if score is not None and 0.0 <= score <= 1.0 else clean_score(score)
    blended = mean if known is None else trust * known + (1 - trust) * mean
    if joined_age_s < SLOW_START_S:
        blended *= slow_start(joined_age_s)
    return max(FLOOR, blended)
