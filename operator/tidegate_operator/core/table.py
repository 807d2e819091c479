"""The RouteTable of a pool, and whether and how soon it must be written (operator.md section 8).

Membership, weights, readiness and draining are written at once; scores when one moved by more
than 0.05, through the write budget. A worker is listed from its first readiness until its pod is
gone. Readiness is the API server's: a failed scrape never means not ready.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_api.meta import ApiModel
from tidegate_api.names import FailureMode, Strategy
from tidegate_api.pool import InferencePool, RevisionWeight, RouterQueue, Tier
from tidegate_api.quantity import duration_s, quantity_bytes
from tidegate_api.routetable import (
    EjectionPolicy,
    Guard,
    MirrorPolicy,
    Pin,
    PoolIdentity,
    QueuePolicy,
    RetryPolicy,
    RoutedWorker,
    RouterShare,
    RouteTableSpec,
    RoutingPolicy,
    Served,
    TierPolicy,
    split,
)
from tidegate_api.state import ModelState, Pressure, Thermal, Traits, WorkerState
from tidegate_api.template import Model
from tidegate_operator.core import objects
from tidegate_operator.core.decision import TableChange, TablePlan
from tidegate_operator.core.drains import DrainPlan
from tidegate_operator.core.instants import rfc3339_micro
from tidegate_operator.core.limits import current_limit
from tidegate_operator.core.measurements import Measured
from tidegate_operator.core.memory import WorkerMemory
from tidegate_operator.core.observation import ObservedPod, PoolObservation, PublishedTable
from tidegate_operator.core.workersets import ENDED_PHASES, WorkerSet

SCORE_DEADBAND = 0.05
_AGE_STEP_S = 5.0  # a score that grows old is published anew, or routers would take it for fresh
_AGE_CAP_S = 60.0  # beyond 45 s routers ignore the score anyway
_SHARE_DEADBAND = 0.1
_HOLD_RATIO = 0.5
_SHORTEST_S = 0.001  # the CRD refuses 0; a table with it would be refused by routers
_MAX_WORKERS = 1000
_MAX_VERSION_CHARACTERS = 20
_MAX_REVISIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """What a rollout adds to the table."""

    pins: tuple[Pin, ...] = ()
    mirror: MirrorPolicy | None = None
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInput:
    """What a table is built from."""

    observation: PoolObservation
    sets: Sequence[WorkerSet]
    weights: Mapping[str, int]
    drains: DrainPlan
    measured: Measured
    shares: Sequence[RouterShare]
    steering: Steering = field(default_factory=Steering)


def plan_table(observation: PoolObservation, spec: RouteTableSpec) -> TablePlan | None:
    """Return how to write a table, None when the published one says the same."""
    change = classify(observation.published.spec if observation.published else None, spec)
    if change is None:
        return None
    index, parts = split(spec)
    pool = observation.pool
    return TablePlan(
        change=change,
        spec=spec,
        index=objects.route_table(pool, pool.metadata.name, index),
        parts=tuple(objects.route_table(pool, name, part) for name, part in parts.items()),
        stale_parts=_stale_parts(observation.published, parts.keys()),
    )


def _stale_parts(published: PublishedTable | None, fresh: Iterable[str]) -> tuple[str, ...]:
    """Every part that the new index does not name; gone only once that index is written."""
    if published is None:
        return ()
    return tuple(sorted(set(published.part_names) - set(fresh)))


def build_table(seen: TableInput) -> RouteTableSpec:
    """Return the whole table as of now, with the next sequence."""
    observation = seen.observation
    workers = _workers(seen)
    previous = observation.published.spec.sequence if observation.published else 0
    return RouteTableSpec(
        pool=pool_identity(observation.pool),
        sequence=max(previous + 1, int(observation.now_s * 1000)),
        published_at=rfc3339_micro(observation.now_s),
        weights=_weights(seen.weights, workers),
        policy=routing_policy(observation.pool),
        pins=list(seen.steering.pins),
        mirror=seen.steering.mirror,
        guards=list(seen.steering.guards),
        routers=list(seen.shares),
        models=[model.name for model in observation.pool.spec.template.models],
        workers=workers,
    )


def pool_identity(pool: InferencePool) -> PoolIdentity:
    """Return who the table belongs to."""
    meta = pool.metadata
    return PoolIdentity(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created_at=meta.creation_timestamp,
    )


def routing_policy(pool: InferencePool) -> RoutingPolicy:
    """Return spec.routing with durations and quantities as numbers."""
    routing = pool.spec.routing
    per_try = routing.retry.per_try_timeout
    return RoutingPolicy(
        strategy=Strategy(routing.strategy),
        top_k=routing.top_k,
        timeout_s=max(_SHORTEST_S, duration_s(routing.timeout)),
        retry=RetryPolicy(
            attempts=routing.retry.attempts,
            budget_percent=routing.retry.budget_percent,
            per_try_timeout_s=max(_SHORTEST_S, duration_s(per_try)) if per_try else None,
            max_body_bytes=quantity_bytes(routing.retry.max_body_bytes),
        ),
        ejection=EjectionPolicy(
            consecutive_failures=routing.ejection.consecutive_failures,
            base_s=max(_SHORTEST_S, duration_s(routing.ejection.base_ejection)),
            max_s=max(_SHORTEST_S, duration_s(routing.ejection.max_ejection)),
            max_ejected_percent=routing.ejection.max_ejected_percent,
        ),
        failure_mode=FailureMode(routing.failure_mode),
        queue=_queue_policy(routing.queue),
        tiers=[_tier_policy(tier) for tier in routing.tiers or ()],
        trust_tier_header=routing.trust_tier_header,
    )


def _queue_policy(queue: RouterQueue) -> QueuePolicy:
    return QueuePolicy(
        max_requests=queue.max_requests,
        max_bytes=quantity_bytes(queue.max_bytes),
        max_wait_s=duration_s(queue.max_wait) if queue.max_wait is not None else None,
        no_workers_ttl_s=duration_s(queue.no_workers_ttl),
    )


def _tier_policy(tier: Tier) -> TierPolicy:
    target_s = duration_s(tier.p99_target) if tier.p99_target is not None else None
    return TierPolicy(
        name=tier.name,
        weight=tier.weight or 1,
        p99_target_s=max(_SHORTEST_S, target_s) if target_s is not None else None,
    )


def _weights(weights: Mapping[str, int], workers: Sequence[RoutedWorker]) -> list[RevisionWeight]:
    """Every revision that has workers is named, those that get something first."""
    if not weights:
        return []
    others = {worker.revision for worker in workers} | weights.keys()
    ranked = sorted(others, key=lambda name: (-weights.get(name, 0), name))
    every = [RevisionWeight(revision=name, weight=weights.get(name, 0)) for name in ranked]
    return every[:_MAX_REVISIONS]


def _workers(seen: TableInput) -> list[RoutedWorker]:
    published = seen.observation.published
    listed = {w.id: w for w in published.spec.workers} if published else {}
    held = scrapes_fail_together(seen.observation, listed)
    found = [
        _worker(seen, item, pod, listed.get(pod.uid), held=held)
        for item in seen.sets
        for pod in item.pods
        if pod.ip and pod.phase not in ENDED_PHASES and (pod.ready or pod.uid in listed)
    ]
    found.sort(key=lambda worker: (worker.revision, worker.accelerator, worker.name, worker.id))
    return found[:_MAX_WORKERS]


def scrapes_fail_together(observation: PoolObservation, listed: Mapping[str, RoutedWorker]) -> bool:
    """Whether more than half of the listed workers fail to answer the operator.

    Then the operator is what is cut off, more likely than they are, and the nodes' heartbeats
    with it: the last published readiness holds.
    """
    there = [pod.uid for pod in observation.pods if pod.uid in listed and not pod.terminating]
    failed = [uid for uid in there if uid in observation.scrapes and observation.scrapes[uid].error]
    return len(failed) > 1 and len(failed) > _HOLD_RATIO * len(there)


def _worker(
    seen: TableInput, item: WorkerSet, pod: ObservedPod, before: RoutedWorker | None, *, held: bool
) -> RoutedWorker:
    scrape = seen.observation.scrapes.get(pod.uid)
    state = scrape.state if scrape else None
    memory = seen.measured.memory.get(pod.uid)
    gauges = _gauges(seen, pod, before)
    ready = before.ready if held and before is not None else pod.ready
    draining = pod.uid in seen.drains.draining
    return RoutedWorker(
        id=pod.uid,
        name=pod.name,
        address=pod.ip,
        revision=item.revision,
        accelerator=item.accelerator,
        serves=_serves(item, state, memory, before),
        score=gauges.score,
        score_age_s=gauges.age_s,
        pressure=gauges.pressure,
        thermal=gauges.thermal,
        draining=draining,
        ready=ready and not pod.terminating,
        cost_per_hour=_cost(seen.observation.pool, item.accelerator),
    )


@dataclass(frozen=True, slots=True)
class _Gauges:
    score: float | None = None
    age_s: float | None = None
    pressure: Pressure | None = None
    thermal: Thermal | None = None


def _gauges(seen: TableInput, pod: ObservedPod, before: RoutedWorker | None) -> _Gauges:
    """A new operator keeps what was published until it has measured by itself."""
    now_s, published = seen.observation.now_s, seen.observation.published
    memory = seen.measured.memory.get(pod.uid)
    score = seen.measured.scores.get(pod.uid)
    scrape = seen.observation.scrapes.get(pod.uid)
    if score is not None and memory is not None and scrape and scrape.state:
        age_s, state = _age_s(now_s - memory.scraped_s), scrape.state
        return _Gauges(round(score.value, 4), age_s, state.memory_pressure, state.thermal)
    if before is None or published is None:
        return _Gauges()
    age_s = _age_s((before.score_age_s or 0.0) + now_s - published.written_s)
    return _Gauges(before.score, age_s, before.pressure, before.thermal)


def _age_s(age_s: float) -> float:
    return round(min(_AGE_CAP_S, max(0.0, age_s)), 1)


def _cost(pool: InferencePool, class_name: str) -> float | None:
    found = [item for item in pool.spec.accelerators if item.name == class_name]
    text = found[0].cost_per_hour if found else None
    return float(text) if text else None


def _serves(
    item: WorkerSet,
    state: WorkerState | None,
    memory: WorkerMemory | None,
    before: RoutedWorker | None,
) -> list[Served]:
    """What the agent says it loaded; until it said so, what it was told to load.

    Models that it was not told to load are no offer: an agent may be wrong about itself.
    """
    if state is None and before is not None:
        return list(before.serves)
    document = item.document
    main = {(item.revision, found.model.name): found.model for found in document.models}
    if state is None or not state.models:
        return [_expected(item.revision, model) for model in main.values()]
    second = document.alongside
    beside = {(second.revision, m.model.name): m.model for m in second.models} if second else {}
    told = main | beside
    loaded = {(seen.revision or item.revision, seen.name): seen for seen in state.models}
    return [
        _loaded(key[0], seen, told[key], memory)
        for key, seen in sorted(loaded.items())
        if key in told and (key in main or seen.ready)
    ]


def _loaded(revision: str, seen: ModelState, told: Model, memory: WorkerMemory | None) -> Served:
    remembered = memory.models.get(seen.loaded_as or seen.name) if memory else None
    return Served(
        revision=revision,
        model=seen.name,
        version=seen.version if len(seen.version) <= _MAX_VERSION_CHARACTERS else "1",
        limit=current_limit(seen.traits, remembered),
        ready=seen.ready,
        idempotent=_idempotent(told, seen.traits),
        cache_ttl_s=_cache_ttl_s(told, seen.traits),
        traits=seen.traits,
        loaded_as=seen.loaded_as,
    )


def _expected(revision: str, model: Model) -> Served:
    instances = sum(group.count for group in model.instances or []) or 1
    traits = Traits(
        dynamic_batching=model.dynamic_batching is not None,
        max_batch_size=model.max_batch_size or 0,
        instances=instances,
    )
    return Served(
        revision=revision,
        model=model.name,
        version=str(model.source.version or 1),
        limit=current_limit(traits, None),
        idempotent=_idempotent(model, traits),
        cache_ttl_s=_cache_ttl_s(model, traits),
        traits=traits,
    )


def _idempotent(model: Model, traits: Traits) -> bool:
    """Sequence and decoupled models are not, unless their owner says so."""
    if model.idempotent is not None:
        return model.idempotent
    return not (traits.sequence or traits.decoupled)


def _cache_ttl_s(model: Model, traits: Traits) -> float:
    """Return for how long routers may repeat an answer: 0 unless a second run does no harm."""
    repeats = _idempotent(model, traits) and not (traits.sequence or traits.decoupled)
    if model.response_cache is None or not repeats:
        return 0.0
    return duration_s(model.response_cache.ttl)


def classify(before: RouteTableSpec | None, after: RouteTableSpec) -> TableChange | None:
    """Return how soon `after` must replace `before`; None when it need not."""
    if before is None or _structure(before) != _structure(after):
        return TableChange.URGENT
    pairs = zip(before.workers, after.workers, strict=True)
    if any(_moved(old, new) for old, new in pairs):
        return TableChange.SCORES
    return TableChange.SCORES if _shares_moved(before, after) else None


def _structure(spec: RouteTableSpec) -> ApiModel:
    """A table without what changes all the time."""
    workers = [_bare(worker) for worker in spec.workers]
    update = {"sequence": 0, "published_at": "", "routers": [], "workers": workers}
    return spec.model_copy(update=update)


def _bare(worker: RoutedWorker) -> RoutedWorker:
    serves = [served.model_copy(update={"limit": 1}) for served in worker.serves]
    gauges = {"score": None, "score_age_s": None, "pressure": None, "thermal": None}
    return worker.model_copy(update={"serves": serves, **gauges})


def _moved(old: RoutedWorker, new: RoutedWorker) -> bool:
    if (old.pressure, old.thermal) != (new.pressure, new.thermal):
        return True
    if [item.limit for item in old.serves] != [item.limit for item in new.serves]:
        return True
    if old.score is None or new.score is None:
        return old.score is not new.score
    aged_s = (new.score_age_s or 0.0) - (old.score_age_s or 0.0)
    return abs(new.score - old.score) > SCORE_DEADBAND + 1e-9 or aged_s > _AGE_STEP_S


def _shares_moved(before: RouteTableSpec, after: RouteTableSpec) -> bool:
    old = {item.instance: item.share for item in before.routers}
    new = {item.instance: item.share for item in after.routers}
    if old.keys() != new.keys():
        return True
    return any(abs(new[name] - old[name]) > _SHARE_DEADBAND for name in new)
