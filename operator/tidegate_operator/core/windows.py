"""Traffic of a pool over the last 30 s, from the routers' cumulative counts.

Two readings of one router instance are subtracted, so a missed scrape loses nothing and a
restart (another instance id) starts anew instead of going negative.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_api import histogram
from tidegate_api.pool import InferencePool
from tidegate_api.routerstate import RouterState, SeriesState
from tidegate_operator.core.memory import RouterReading
from tidegate_operator.core.observation import RouterMember

WINDOW_S = 30.0
DEMAND_S = 5.0
STALE_AFTER_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What routers measured. None: no two readings yet."""

    requests_per_second: float | None = None
    p95_ms: float | None = None  # client's view, queue included
    waiting: int = 0  # requests in routers' queues now


def add_readings(
    readings: Sequence[RouterReading], routers: Sequence[RouterMember], pool: InferencePool
) -> tuple[RouterReading, ...]:
    """Return the readings with each newer scrape added and those beyond the window dropped."""
    newest = {r.instance: r.at_s for r in sorted(readings, key=lambda r: r.at_s)}
    added = [
        reading
        for member in routers
        if (reading := _reading(member, pool)) is not None
        and reading.at_s > newest.get(reading.instance, 0.0)
    ]
    alive = {member.state.instance for member in routers if member.state is not None}
    kept = [r for r in (*readings, *added) if r.instance in alive]
    end = {r.instance: r.at_s for r in sorted(kept, key=lambda r: r.at_s)}
    return tuple(r for r in kept if end[r.instance] - r.at_s <= WINDOW_S)


def _reading(member: RouterMember, pool: InferencePool) -> RouterReading | None:
    state = member.state
    if state is None or member.scraped_s is None or not readable(state):
        return None
    series = [item for item in state.series if item.uid == pool.metadata.uid]
    return RouterReading(
        instance=state.instance,
        at_s=member.scraped_s,
        requests=sum(item.requests for item in series),
        latency=histogram.merge(_buckets(item) for item in series),
    )


def _buckets(series: SeriesState) -> dict[int, int]:
    """Sparse counts; what lies outside the scheme is no measurement."""
    return {
        bucket: count
        for bucket, count in series.client_latency
        if 0 <= bucket < histogram.BUCKETS and count > 0
    }


def readable(state: RouterState) -> bool:
    """Whether the histograms are of the scheme that we can add up."""
    return state.histogram_scheme == histogram.SCHEME


def measure(
    readings: Sequence[RouterReading], routers: Sequence[RouterMember], pool: InferencePool
) -> Traffic:
    """Return rate, p95 and waiting requests over all routers."""
    pairs = list(_ends(readings).values())
    waiting = sum(queued(member.state, pool)[0] for member in routers if member.state)
    if not pairs:
        return Traffic(waiting=waiting)
    spread = histogram.merge(histogram.difference(b.latency, a.latency) for a, b in pairs)
    rate = sum(max(0, b.requests - a.requests) / (b.at_s - a.at_s) for a, b in pairs)
    p95_s = histogram.quantile_s(spread, 0.95)
    return Traffic(
        requests_per_second=rate,
        p95_ms=p95_s * 1000 if p95_s is not None else None,
        waiting=waiting,
    )


def queued(state: RouterState, pool: InferencePool) -> tuple[int, int]:
    """Return (waiting, in flight) of this pool in one router."""
    mine = [
        item
        for item in state.queues
        if (item.namespace, item.pool) == (pool.metadata.namespace, pool.metadata.name)
    ]
    return (
        sum(max(0, item.waiting) for item in mine),
        sum(max(0, item.in_flight) for item in mine),
    )


def recent_requests(readings: Sequence[RouterReading]) -> Mapping[str, int]:
    """Return requests of the last 5 s by router instance."""
    newest = _ends(readings)
    return {
        instance: max(0, last.requests - _before(readings, last).requests)
        for instance, (_, last) in newest.items()
    }


def _before(readings: Sequence[RouterReading], last: RouterReading) -> RouterReading:
    """The reading nearest to 5 s before `last`, or the oldest one."""
    mine = sorted(
        (r for r in readings if r.instance == last.instance and r.at_s < last.at_s),
        key=lambda r: abs(last.at_s - DEMAND_S - r.at_s),
    )
    return mine[0]


def _ends(
    readings: Sequence[RouterReading],
) -> dict[str, tuple[RouterReading, RouterReading]]:
    """Return (oldest, newest) per instance that has two readings."""
    groups: dict[str, list[RouterReading]] = {}
    for reading in sorted(readings, key=lambda r: r.at_s):
        groups.setdefault(reading.instance, []).append(reading)
    ends = {instance: (group[0], group[-1]) for instance, group in groups.items()}
    return {key: pair for key, pair in ends.items() if pair[1].at_s > pair[0].at_s}
