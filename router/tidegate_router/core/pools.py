"""What a router knows of one pool, built for fast picks: the candidates of each model.

A view is rebuilt at most once a second (weights fade with the age of scores), and at once when
its table or its EndpointSlices change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_api.histogram import merge, quantile_s
from tidegate_api.routerstate import LocalAbort
from tidegate_api.routetable import RoutedWorker, RouteTableSpec, Served
from tidegate_router.core import alias, canary, ewma, filters, weights
from tidegate_router.core.canary import TicketDraw
from tidegate_router.core.pick import Candidate, Tier
from tidegate_router.core.queue.drain import ServiceTime
from tidegate_router.core.request import Slot
from tidegate_router.core.retry import RetryBudget
from tidegate_router.core.series import SeriesBook

REBUILD_S = 1.0
Member = tuple[RoutedWorker, Served]
Slots = dict[tuple[str, str, str], Slot]  # by (worker id, revision, model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All workers of one (revision, model): tiers from strict to lax, and the usual latency."""

    tiers: tuple[Tier, ...]
    p95_s: float
    decoupled: bool = False  # any number of answers per request
    p50_s: float = ewma.UNKNOWN_S  # of the last 10 to 20 s
    slots: int = 0  # requests that all its workers together take at once
    cache_ttl_s: float = 0.0  # 0: answers are not cached

    @property
    def ready(self) -> tuple[Candidate, ...]:
        """Every candidate that is published as ready, as long as there is one."""
        kept = [tier for tier in self.tiers if tier.level < filters.NOT_READY]
        return kept[-1].candidates if kept else ()

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every candidate, whatever its soft level."""
        return self.tiers[-1].candidates if self.tiers else ()


EMPTY_GROUP = Group(tiers=(), p95_s=ewma.UNKNOWN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a rebuild reads beside the table."""

    workers: Sequence[RoutedWorker]  # that pass the hard filters
    trusts: Mapping[str, float]  # f, by worker
    share: float  # of every limit


@dataclass(slots=True)
class PoolView:
    """One pool: its table, its draw, its budget, its groups."""

    table: RouteTableSpec
    joined_s: dict[str, float] = field(default_factory=dict)  # by worker; first table: long ago
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    draw: TicketDraw = field(default_factory=TicketDraw)
    budget: RetryBudget = field(default_factory=RetryBudget)
    built_s: float | None = None  # None: rebuild before the next use
    in_flight: int = 0  # of requests planned since `since_s`
    since_s: float = -math.inf
    revision_weights: dict[str, int] = field(default_factory=dict)  # percent, as drawn here
    dropped: dict[str, LocalAbort] = field(default_factory=dict)  # by revision
    services: dict[tuple[str, str], ServiceTime] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()

    def join(self, table: RouteTableSpec, now_s: float, *, first: bool) -> None:
        """Take a new table; workers that get ready later than the first table start slowly."""
        since_s = now_s - weights.SLOW_START_S if first else now_s
        known = self.joined_s
        self.joined_s = {
            worker.id: known.get(worker.id, since_s) for worker in table.workers if worker.ready
        }
        self.table, self.built_s = table, None
        self.guarded = frozenset(guard.revision for guard in table.guards)
        self.dropped = {
            revision: abort
            for revision, abort in self.dropped.items()
            if table.sequence == abort.sequence or self._still_tried(revision)
        }
        self._weigh()

    def drop(self, revision: str, message: str) -> LocalAbort:
        """Take a canary's weight away until a newer table has none for it, or no guard."""
        pool = self.table.pool
        abort = LocalAbort(
            namespace=pool.namespace,
            pool=pool.name,
            uid=pool.uid,
            revision=revision,
            sequence=self.table.sequence,
            message=message,
        )
        self.dropped[revision] = abort
        self._weigh()
        return abort

    def _still_tried(self, revision: str) -> bool:
        """Whether the table goes on with a canary: the operator has not taken note of its drop."""
        weighed = any(one.revision == revision and one.weight for one in self.table.weights)
        return weighed and revision in self.guarded

    def _weigh(self) -> None:
        published = {item.revision: item.weight for item in self.table.weights}
        self.revision_weights = canary.without(published, self.dropped)

    def servable(self, model: str, version: str) -> list[str]:
        """Return the revisions that have a worker for the model (and version, if one is given)."""
        return [
            revision
            for (revision, name), group in self.groups.items()
            if name == model and (not version or _has_version(group, version))
        ]

    def group(self, revision: str, model: str) -> Group:
        """Return the candidates of a model of a revision; empty when there is none."""
        return self.groups.get((revision, model), EMPTY_GROUP)

    def rebuild(self, situation: Situation, slots: Slots, series: SeriesBook, now_s: float) -> None:
        """Build every group anew."""
        members: dict[tuple[str, str], list[Member]] = {}
        for worker in situation.workers:
            for served in worker.serves:
                members.setdefault((served.revision, served.model), []).append((worker, served))
        self.groups = {}
        for (revision, model), found in members.items():
            seen = merge(series.latencies(self.table.pool.uid, revision, model))
            p95_s = quantile_s(seen, 0.95) or ewma.UNKNOWN_S
            tiers = self._tiers(found, situation, slots, now_s)
            decoupled = any(served.traits.decoupled for _, served in found)
            service = self.services.setdefault((revision, model), ServiceTime(ewma.UNKNOWN_S))
            self.groups[revision, model] = Group(
                tiers=tiers,
                p95_s=p95_s,
                decoupled=decoupled,
                p50_s=service.update(seen, now_s),
                slots=sum(one.limit for one in tiers[-1].candidates),
                cache_ttl_s=min(filters.cache_ttl_s(served) for _, served in found),
            )
        self.services = {key: one for key, one in self.services.items() if key in self.groups}
        self.built_s = now_s

    def _tiers(
        self, members: Sequence[Member], situation: Situation, slots: Slots, now_s: float
    ) -> tuple[Tier, ...]:
        mean = weights.mean_score(worker.score for worker, _ in members)
        medians_s = _medians_s(members, slots)
        levels: dict[int, list[Candidate]] = {}
        for worker, served in members:
            trust = situation.trusts[worker.id]
            joined_s = self.joined_s.get(worker.id, now_s - weights.SLOW_START_S)
            candidate = Candidate(
                worker=worker,
                served=served,
                limit=filters.limit_here(served, situation.share),
                slot=slots.setdefault((worker.id, served.revision, served.model), Slot()),
                weight=weights.effective(worker.score, trust, mean, now_s - joined_s),
                median_s=medians_s[worker.accelerator],
            )
            levels.setdefault(filters.soft_level(worker, served, trust), []).append(candidate)
        return _cumulative(levels)


def _cumulative(levels: Mapping[int, Sequence[Candidate]]) -> tuple[Tier, ...]:
    """Return one tier per level, each with all stricter ones in it.

    A worker that says it is not ready is no way out of saturation: it counts only where no other
    exists.
    """
    kept = sorted(levels)
    if len(kept) > 1 and kept[-1] == filters.NOT_READY:
        kept.pop()
    tiers: list[Tier] = []
    so_far: tuple[Candidate, ...] = ()
    for level in kept:
        so_far += tuple(levels[level])
        tiers.append(Tier(level, so_far, alias.build([one.weight for one in so_far])))
    return tuple(tiers)


def _medians_s(members: Sequence[Member], slots: Slots) -> dict[str, float]:
    """Return the median latency per class; a class without samples takes that of all."""
    known: dict[str, list[float | None]] = {}
    for worker, served in members:
        slot = slots.get((worker.id, served.revision, served.model))
        known.setdefault(worker.accelerator, []).append(slot.latency.value_s if slot else None)
    overall = ewma.median_s(value for values in known.values() for value in values)
    fallback_s = overall if overall is not None else ewma.UNKNOWN_S
    medians_s: dict[str, float] = {}
    for accelerator, values in known.items():
        own_s = ewma.median_s(values)
        medians_s[accelerator] = fallback_s if own_s is None else own_s
    return medians_s


def _has_version(group: Group, version: str) -> bool:
    return any(candidate.served.version == version for candidate in group.candidates)
