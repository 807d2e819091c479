"""When an open loop sends: intended times that no slow answer moves.

Latency counts from these times, so a server that stalls for a second has every request of that
second in its figures (the "coordinated omission" of a closed loop; Gil Tene, wrk2).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Arrivals(StrEnum):
    """How requests of an open loop follow each other."""

    CONSTANT = "constant"  # at equal distances
    POISSON = "poisson"  # independently of each other, as many users do


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a run ends: after `duration_s`, or after `count` requests. None: no such end.

    The warm-up comes first; nothing of it is counted, neither in time nor in requests.
    """

    duration_s: float | None
    count: int | None
    warmup_s: float

    @property
    def end_s(self) -> float:
        """Seconds from the start of the warm-up to the last send."""
        return math.inf if self.duration_s is None else self.warmup_s + self.duration_s

    def counts(self, intended_s: float) -> bool:
        """Whether a request intended at `intended_s` after the start is part of the result."""
        return intended_s >= self.warmup_s


def intended_times_s(
    rate: float, arrivals: Arrivals, limits: Limits, uniform: Callable[[], float]
) -> Iterator[float]:
    """Yield seconds from the start at which requests are due; `rate` in requests a second.

    `uniform` yields numbers in [0, 1) for Poisson arrivals.
    """
    at_s, number, counted = 0.0, 0, 0
    while at_s < limits.end_s and (limits.count is None or counted < limits.count):
        yield at_s
        number += 1
        counted += limits.counts(at_s)
        if arrivals is Arrivals.CONSTANT:
            at_s = number / rate
        else:
            at_s -= math.log1p(-uniform()) / rate
