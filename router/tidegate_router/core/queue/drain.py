"""How fast a queue is served, and how long a model usually takes: what predictions rest on.

The drain rate is measured only while somebody waits: then every slot is in use, so what leaves the
queue is what the workers can do. Without enough evidence it is slots / p50 service (Little's law).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_api.histogram import difference, quantile_s

_MEMORY_S = 2.0
_MEMORY_EVENTS = 20.0  # a slow model's rate is measured over more than the 2 s
_EVIDENCE = 4.0  # departures below which the guess counts as well
_IDLE_MEMORY_S = 10.0
_SLOWEST_PER_S = 1e-3


@dataclass(slots=True)
class DrainRate:
    """Departures per second of one queue, with exponential forgetting."""

    _count: float = 0.0
    _span_s: float = 0.0
    _seen_s: float = 0.0
    _open: bool = False

    @property
    def opened(self) -> bool:
        """Whether somebody waits as far as this was told."""
        return self._open

    def open(self, guess_per_s: float, now_s: float) -> None:
        """Somebody waits from now on, nobody did before; old evidence gives way to the guess."""
        guess_per_s = max(guess_per_s, _SLOWEST_PER_S)
        keep = math.exp(-max(0.0, now_s - self._seen_s) / _IDLE_MEMORY_S)
        missing = max(0.0, _EVIDENCE - self._count * keep)
        self._count = self._count * keep + missing
        self._span_s = self._span_s * keep + missing / guess_per_s
        self._seen_s, self._open = now_s, True

    def close(self, now_s: float) -> None:
        """Nobody waits any more: what leaves from now on says nothing about capacity."""
        if self._open:
            self._advance(now_s)
            self._open = False

    def departed(self, now_s: float) -> None:
        """One who waited went to a worker."""
        if self._open:
            self._advance(now_s)
            self._count += 1

    def per_s(self, now_s: float) -> float:
        """Return departures per second; silence since the last one lowers it."""
        quiet_s = max(0.0, now_s - self._seen_s) if self._open else 0.0
        return max(self._count / max(self._span_s + quiet_s, 1e-9), _SLOWEST_PER_S)

    def _advance(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._seen_s)
        memory_s = max(_MEMORY_S, _MEMORY_EVENTS / self.per_s(now_s))
        keep = math.exp(-passed_s / memory_s)
        self._count *= keep
        self._span_s = self._span_s * keep + memory_s * (1 - keep)
        self._seen_s = now_s


_WINDOW_S = 10.0
_ENOUGH = 5


@dataclass(slots=True)
class ServiceTime:
    """The median attempt latency of one (model, revision) over the last 10 to 20 s."""

    p50_s: float
    _older: Mapping[int, int] = field(default_factory=dict)
    _newer: Mapping[int, int] = field(default_factory=dict)
    _newer_s: float = -math.inf

    def update(self, cumulative: Mapping[int, int], now_s: float) -> float:
        """Take a cumulative tg1 histogram; with fewer than 5 new samples the last value stays."""
        recent = difference(cumulative, self._older)
        if sum(recent.values()) >= _ENOUGH:
            self.p50_s = quantile_s(recent, 0.5) or self.p50_s
        if now_s - self._newer_s >= _WINDOW_S:
            self._older, self._newer, self._newer_s = self._newer, dict(cumulative), now_s
        return self.p50_s
