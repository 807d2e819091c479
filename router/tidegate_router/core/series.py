"""Cumulative counts and tg1 histograms per (pool, revision, model, class) for /v1/state."""

from dataclasses import dataclass, field

from tidegate_api.histogram import bucket_of, merge
from tidegate_api.routerstate import Attempts, SeriesState
from tidegate_router.core.faults import Outcome
from tidegate_router.core.guards import Reading

_FIELD = {
    Outcome.OK: "ok",
    Outcome.CLIENT: "client",
    Outcome.MODEL_ERROR: "model_error",
    Outcome.NEVER_RAN: "worker_fault",
    Outcome.UNREACHABLE: "worker_fault",
    Outcome.LOST: "worker_fault",
    Outcome.TIMEOUT: "timeout",
    Outcome.CANCELLED: "cancelled",
}
_FAILED = ("model_error", "worker_fault", "timeout")
_TIMED = frozenset({Outcome.OK, Outcome.MODEL_ERROR, Outcome.TIMEOUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesKey:
    """What one series is about."""

    uid: str
    namespace: str
    pool: str
    revision: str
    model: str
    accelerator: str


@dataclass(slots=True, eq=False)
class Series:
    """Counts since the process started."""

    requests: int = 0
    attempts: dict[str, int] = field(default_factory=dict)
    attempt_latency: dict[int, int] = field(default_factory=dict)
    client_latency: dict[int, int] = field(default_factory=dict)

    def count_attempt(self, outcome: Outcome, latency_s: float) -> None:
        """Count an attempt; latencies of what a client spoilt or left say nothing."""
        name = _FIELD[outcome]
        self.attempts[name] = self.attempts.get(name, 0) + 1
        if outcome in _TIMED:
            _add(self.attempt_latency, latency_s)

    def count_request(self, latency_s: float, *, answered: bool) -> None:
        """Count a request with the time that its client saw, waiting included.

        The time of one that no worker answered says nothing about workers.
        """
        self.requests += 1
        if answered:
            _add(self.client_latency, latency_s)


def _add(histogram: dict[int, int], latency_s: float) -> None:
    bucket = bucket_of(latency_s)
    histogram[bucket] = histogram.get(bucket, 0) + 1


@dataclass(slots=True)
class SeriesBook:
    """All series of this process."""

    _series: dict[SeriesKey, Series] = field(default_factory=dict)
    _by_revision: dict[tuple[str, str], dict[SeriesKey, Series]] = field(default_factory=dict)

    def of(self, key: SeriesKey) -> Series:
        """Return a series, made on first use."""
        known = self._series.get(key)
        if known is None:
            known = self._series[key] = Series()
            self._by_revision.setdefault((key.uid, key.revision), {})[key] = known
        return known

    def states(self) -> list[SeriesState]:
        """Return every series as /v1/state shows it."""
        return [
            SeriesState(
                namespace=key.namespace,
                pool=key.pool,
                uid=key.uid,
                revision=key.revision,
                model=key.model,
                accelerator=key.accelerator,
                requests=series.requests,
                attempts=Attempts(**series.attempts),
                attempt_latency=sorted(series.attempt_latency.items()),
                client_latency=sorted(series.client_latency.items()),
            )
            for key, series in self._series.items()
        ]

    def latencies(self, uid: str, revision: str, model: str) -> dict[str, dict[int, int]]:
        """Return the attempt histograms of one model of a revision, by class."""
        return {
            key.accelerator: series.attempt_latency
            for key, series in self._by_revision.get((uid, revision), {}).items()
            if key.model == model
        }

    def reading(self, uid: str, revision: str) -> Reading:
        """Return the attempts of a revision so far, over all its models and classes."""
        mine = self._by_revision.get((uid, revision), {}).values()
        return Reading(
            ok=sum(one.attempts.get("ok", 0) for one in mine),
            failed=sum(one.attempts.get(name, 0) for one in mine for name in _FAILED),
            latency=merge(one.attempt_latency for one in mine),
        )

    def forget_except(self, uids: set[str]) -> None:
        """Drop the series of pools that are gone."""
        self._series = {key: one for key, one in self._series.items() if key.uid in uids}
        self._by_revision = {
            key: found for key, found in self._by_revision.items() if key[0] in uids
        }
