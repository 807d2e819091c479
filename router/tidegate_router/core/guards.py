"""Canaries that a router drops by itself while the operator is silent (operator.md section 5).

A weight 0 cannot travel while the operator or the API server is away. So the table carries a guard
per canary; while the last proof of life is older than TRUSTED_S, this router's own attempts of the
last `interval_s` are judged by the operator's own test. No data breaks no guard: the weight stays.
"""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tidegate_api.histogram import difference
from tidegate_api.routetable import Guard

_READINGS = 60  # per interval
Key = tuple[str, str]  # pool UID, revision


@dataclass(frozen=True, slots=True)
class Reading:
    """Attempts of a revision: cumulative, or within a window. `latency` in tg1."""

    ok: int = 0
    failed: int = 0
    latency: Mapping[int, int] = field(default_factory=dict)

    def since(self, before: "Reading") -> "Reading":
        """Return what came after an earlier reading; never less than nothing."""
        return Reading(
            max(0, self.ok - before.ok),
            max(0, self.failed - before.failed),
            difference(self.latency, before.latency),
        )


@dataclass(slots=True)
class GuardBook:
    """Readings of each guarded revision, over one interval of its guard."""

    _readings: dict[Key, deque[tuple[float, Reading]]] = field(default_factory=dict)

    def window(self, key: Key, guard: Guard, now: Reading, now_s: float) -> Reading:
        """Take a cumulative reading; return what came within the guard's interval.

        The window begins at the newest reading that is an interval old, so it is up to a sixtieth
        longer; before there is one, at the first.
        """
        known = self._readings.setdefault(key, deque())
        if not known or now_s - known[-1][0] >= guard.interval_s / _READINGS:
            known.append((now_s, now))
        while len(known) > 1 and known[1][0] <= now_s - guard.interval_s:
            known.popleft()
        return now.since(known[0][1])

    def forget_except(self, keys: Collection[Key]) -> None:
        """Drop the readings of revisions that no guard names any more."""
        self._readings = {key: found for key, found in self._readings.items() if key in keys}
