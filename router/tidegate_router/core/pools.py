"""What a router knows of one pool, built for fast picks: the candidates of each model.

A view is rebuilt at most once a second (weights fade with the age of scores), and at once when
its table or its EndpointSlices change.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tidegate_api.histogram import merge
from tidegate_api.routerstate import LocalAbort
from tidegate_api.routetable import EjectionPolicy, RoutedWorker, RouteTableSpec, Served
from tidegate_router.core import alias, canary, ejection, ewma, filters, latencies, slow, weights
from tidegate_router.core.canary import TicketDraw
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.down import DownBook
from tidegate_router.core.latencies import RecentLatency
from tidegate_router.core.pick import Tier, Turn
from tidegate_router.core.queue.drain import ServiceTime
from tidegate_router.core.retry import RetryBudget
from tidegate_router.core.series import SeriesBook
from tidegate_router.core.slot import Slot
from tidegate_router.core.tally import WINDOW_S, Tally

REBUILD_S = 1.0
SURVEY_S = 0.25
Member = tuple[RoutedWorker, Served]
Key = tuple[str, str]  # revision, model
Slots = dict[tuple[str, str, str], Slot]  # by (worker id, revision, model)


@dataclass(slots=True, kw_only=True, eq=False)
class Group:
    """All workers of one (revision, model): tiers from strict to lax, and the usual latency.

    `patience_s`: how long work may be in flight without a byte, by class. `leaving`: draining
    workers, by id, which still get what belongs to their sequences. `worthless`: no score is
    trusted at all. `trials`: who is down, ejected or slow, and due for one request. `usual_s`:
    latency by class. `peers`: the attempts of all.
    """

    key: Key = ("", "")
    tiers: tuple[Tier, ...]
    p95_s: float
    patience_s: Mapping[str, float | None] = field(default_factory=dict)
    decoupled: bool = False  # any number of answers per request
    sequence: bool = False  # the worker holds state between requests
    repeatable: bool = False  # a second run of a request does no harm
    worthless: bool = False
    leaving: Mapping[str, Candidate] = field(default_factory=dict)
    trials: list[Candidate] = field(default_factory=list)
    usual_s: Mapping[str, float] = field(default_factory=dict)
    peers: Tally = field(default_factory=Tally)
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

    def silent(self, now_s: float) -> list[Candidate]:
        """Return who has work in flight and gave no sign of life for too long."""
        patience_s = self.patience_s
        return [
            one
            for one in self.candidates
            if one.slot.in_flight
            and ejection.silent(one.slot, patience_s[one.worker.accelerator], now_s)
        ]

    def survey(self, now_s: float) -> None:
        """Decide whether ejections count now, who is slow, and who is due for a trial."""
        candidates = self.candidates
        slow.mark(candidates, self.usual_s)
        odd = [
            one
            for one in candidates
            if one.health.down
            or (slot := one.slot).ejected
            or slot.slow
            or slot.suspect
            or slot.shunned
        ]
        panic = any(one.slot.ejected for one in odd) and ejection.in_panic(candidates)
        pause_s = slow.pause_s(sum(self.peers.lately(now_s)), WINDOW_S)
        for one in odd:
            slot = one.slot
            slot.shunned = slot.slow or (slot.ejected and not panic)
        self.trials = [one for one in odd if ejection.due(one, now_s, pause_s)]


EMPTY_GROUP = Group(tiers=(), p95_s=ewma.UNKNOWN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a rebuild reads beside the table."""

    workers: Sequence[RoutedWorker]  # that pass the hard filters
    trusts: Mapping[str, float]  # f, by worker
    share: float  # of every limit
    down: DownBook
    leaving: Sequence[RoutedWorker] = ()  # draining, and not gone yet


@dataclass(slots=True)
class PoolView:
    """One pool: its table, its draw, its budget, its groups."""

    table: RouteTableSpec
    joined_s: dict[str, float] = field(default_factory=dict)  # by worker; first table: long ago
    groups: dict[Key, Group] = field(default_factory=dict)
    models: dict[str, list[str]] = field(default_factory=dict)  # the revisions that serve each
    draw: TicketDraw = field(default_factory=TicketDraw)
    budget: RetryBudget = field(default_factory=RetryBudget)
    built_s: float | None = None  # None: rebuild before the next use
    due_s: float = -math.inf  # when the next look at it must come first
    in_flight: int = 0  # of requests planned since `since_s`
    since_s: float = -math.inf
    revision_weights: dict[str, int] = field(default_factory=dict)  # percent, as drawn here
    dropped: dict[str, LocalAbort] = field(default_factory=dict)  # by revision
    services: dict[tuple[str, str], ServiceTime] = field(default_factory=dict)
    guarded: frozenset[str] = frozenset()
    _tallies: dict[Key, Tally] = field(default_factory=dict)
    _turns: dict[Key, Turn] = field(default_factory=dict)
    _recent: dict[tuple[str, str, str], RecentLatency] = field(default_factory=dict)

    def spoil(self) -> None:
        """Rebuild before the next use."""
        self.built_s, self.due_s = None, -math.inf

    def join(self, table: RouteTableSpec, now_s: float, *, first: bool) -> None:
        """Take a new table; workers that get ready later than the first table start slowly."""
        since_s = now_s - weights.SLOW_START_S if first else now_s
        known = self.joined_s
        self.joined_s = {
            worker.id: known.get(worker.id, since_s) for worker in table.workers if worker.ready
        }
        self.table = table
        self.spoil()
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
        found = self.models.get(model, [])
        if not version:
            return found
        return [name for name in found if _has_version(self.groups[name, model], version)]

    def group(self, revision: str, model: str) -> Group:
        """Return the candidates of a model of a revision; empty when there is none."""
        return self.groups.get((revision, model), EMPTY_GROUP)

    @property
    def ejection(self) -> EjectionPolicy:
        """What the pool says of ejections."""
        return self.table.policy.ejection

    def rebuild(self, situation: Situation, slots: Slots, series: SeriesBook, now_s: float) -> None:
        """Build every group anew."""
        members: dict[Key, list[Member]] = {}
        for worker in situation.workers:
            for served in worker.serves:
                key = (served.revision, served.model)
                if key in members:
                    members[key].append((worker, served))
                else:
                    members[key] = [(worker, served)]
        self.groups, self.models = {}, {}
        for key, found in members.items():
            self.groups[key] = self._group(key, found, situation, slots, series, now_s)
            self.models.setdefault(key[1], []).append(key[0])
        for kept in (self._tallies, self._turns, self.services):
            for gone in kept.keys() - members.keys():
                del kept[gone]
        self.built_s = now_s

    def _group(
        self,
        key: Key,
        members: Sequence[Member],
        situation: Situation,
        slots: Slots,
        series: SeriesBook,
        now_s: float,
    ) -> Group:
        cumulative = series.latencies(self.table.pool.uid, *key)
        whole, patience_s = self._latencies(key, members, cumulative, now_s)
        service = self.services.setdefault(key, ServiceTime(ewma.UNKNOWN_S))
        found = self._candidates(key, members, situation, slots, now_s)
        trusts = situation.trusts
        sequence = any(served.traits.sequence for _, served in members)
        repeatable = all(one.repeatable for one in found)
        return Group(
            key=key,
            usual_s=slow.typical_s(found),
            peers=self._tallies[key],
            tiers=_tiers(found, trusts, self._turns.setdefault(key, Turn())),
            p95_s=latencies.quantiles_s(whole)[0] or ewma.UNKNOWN_S,
            patience_s=patience_s,
            decoupled=any(served.traits.decoupled for _, served in members),
            sequence=sequence,
            repeatable=repeatable,
            worthless=all(trusts[worker.id] <= 0 for worker, _ in members),
            leaving=_leaving(key, situation, slots) if sequence else {},
            p50_s=service.update(merge(cumulative.values()), now_s),
            slots=sum(one.limit for one in found),
            cache_ttl_s=min(one.cache_ttl_s for _, one in members) if repeatable else 0.0,
        )

    def _latencies(
        self,
        key: Key,
        members: Sequence[Member],
        cumulative: Mapping[str, Mapping[int, int]],
        now_s: float,
    ) -> tuple[Mapping[int, int], dict[str, float | None]]:
        """Return the recent latencies of all classes, and the patience with each class."""
        patience_s: dict[str, float | None] = {worker.accelerator: None for worker, _ in members}
        recent: list[Mapping[int, int]] = []
        for accelerator, histogram in cumulative.items():
            marks = self._recent.setdefault((*key, accelerator), RecentLatency())
            recent.append(marks.note(histogram, now_s))
            patience_s[accelerator] = ejection.patience_s(latencies.quantiles_s(recent[-1])[1])
        return merge(recent), patience_s

    def _candidates(
        self,
        key: Key,
        members: Sequence[Member],
        situation: Situation,
        slots: Slots,
        now_s: float,
    ) -> list[Candidate]:
        """Return every member as a candidate; a thousand of them are made each second."""
        mean = weights.mean_score([worker.score for worker, _ in members])
        peers = self._tallies.setdefault(key, Tally())
        found = [_slot(slots, worker, served) for worker, served in members]
        medians_s = _medians_s(members, found)
        trusts, joined_s, health_of = situation.trusts, self.joined_s, situation.down.of
        long_ago_s = now_s - weights.SLOW_START_S
        limits: dict[int, int] = {}
        candidates: list[Candidate] = []
        for (worker, served), slot in zip(members, found, strict=True):
            identity, limit = worker.id, limits.get(served.limit)
            if limit is None:
                limit = limits[served.limit] = filters.limit_here(served, situation.share)
            slot.peers = peers
            joined_age_s = now_s - joined_s.get(identity, long_ago_s)
            one = Candidate.__new__(Candidate)
            one.worker = worker
            one.served = served
            one.limit = limit
            one.slot = slot
            one.weight = weights.effective(worker.score, trusts[identity], mean, joined_age_s)
            one.inverse = 1 / one.weight
            one.median_s = medians_s[worker.accelerator]
            one.health = health_of(identity)
            one.repeatable = filters.repeatable(served)
            candidates.append(one)
        return candidates


def _tiers(
    candidates: Sequence[Candidate], trusts: Mapping[str, float], turn: Turn
) -> tuple[Tier, ...]:
    levels: dict[int, list[Candidate]] = {}
    for one in candidates:
        level = filters.soft_level(one.worker, one.served, trusts[one.worker.id])
        if level not in levels:
            levels[level] = []
        levels[level].append(one)
    return _cumulative(levels, turn)


def _slot(slots: Slots, worker: RoutedWorker, served: Served) -> Slot:
    key = (worker.id, served.revision, served.model)
    slot = slots.get(key)
    if slot is None:
        slot = slots[key] = Slot()
    return slot


def _leaving(key: Key, situation: Situation, slots: Slots) -> dict[str, Candidate]:
    """Return the draining workers of a group whose workers hold state between requests."""
    return {
        worker.id: Candidate(
            worker=worker,
            served=served,
            limit=filters.limit_here(served, situation.share),
            slot=_slot(slots, worker, served),
            weight=weights.FLOOR,
            median_s=ewma.UNKNOWN_S,
            health=situation.down.of(worker.id),
        )
        for worker in situation.leaving
        for served in worker.serves
        if (served.revision, served.model) == key
    }


def _cumulative(levels: Mapping[int, Sequence[Candidate]], turn: Turn) -> tuple[Tier, ...]:
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
        table = alias.build([one.weight for one in so_far])
        tiers.append(Tier(level, so_far, table, turn))
    return tuple(tiers)


def _medians_s(members: Sequence[Member], slots: Sequence[Slot]) -> dict[str, float]:
    """Return the median latency per class; a class without samples takes that of all."""
    known: dict[str, list[float]] = {}
    for (worker, _), slot in zip(members, slots, strict=True):
        found = known.setdefault(worker.accelerator, [])
        if slot.latency.value_s is not None:
            found.append(slot.latency.value_s)
    every = [value for values in known.values() for value in values]
    fallback_s = ewma.UNKNOWN_S
    if len(known) > 1 and every:
        fallback_s = median(every)
    return {name: median(values) if values else fallback_s for name, values in known.items()}


def _has_version(group: Group, version: str) -> bool:
    return any(candidate.served.version == version for candidate in group.candidates)
