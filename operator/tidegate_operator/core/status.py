"""The status of a pool, whole, from the facts of one decision."""

from collections.abc import Iterable, Mapping

from tidegate_api.names import LABEL_POOL, ConditionType, Reason
from tidegate_api.pool import (
    Address,
    InferencePoolStatus,
    OperatorClaim,
    RevisionStatus,
    RevisionWeight,
    WorkerCounts,
)
from tidegate_operator.core.conditions import Verdict, stamp
from tidegate_operator.core.facts import Facts
from tidegate_operator.core.observation import ObservedPod
from tidegate_operator.core.workersets import ENDED_PHASES, WorkerSet, by_class

_MAX_REVISIONS = 16


def pool_status(
    facts: Facts, verdicts: Mapping[ConditionType, Verdict], weights: Iterable[RevisionWeight]
) -> InferencePoolStatus:
    """Return the status to write; gauges are rounded to what a person reads."""
    pool, now_s = facts.observation.pool, facts.observation.now_s
    settings = facts.observation.settings
    shown = list(weights)
    return InferencePoolStatus(
        observed_generation=pool.metadata.generation,
        replicas=_without_surge(facts, ready_only=False),
        ready_replicas=_without_surge(facts, ready_only=True),
        desired_replicas=facts.allotment.total,
        selector=f"{LABEL_POOL}={pool.metadata.name}",
        desired_revision=facts.desired,
        stable_revision=stable_revision(facts),
        rollout=facts.binding.record,
        restarted_at=facts.plan.restarted_at or None,
        revisions=_revisions(facts, shown),
        weights=shown,
        verified_weights=_verified(facts),
        queue_depth=_rounded(queue_depth(facts)),
        p95_milliseconds=_rounded(facts.traffic.p95_ms),
        requests_per_second=_rounded(facts.traffic.requests_per_second),
        cost_per_hour=f"{sum(costs_per_hour(facts).values()):.2f}",
        workers=_workers(facts),
        collision_count=facts.plan.collisions or None,
        operator=settings.release,
        address=Address(url=settings.router_url) if settings.router_url else None,
        conditions=stamp(verdicts, pool.status.conditions, pool.metadata.generation, now_s),
    )


def stable_revision(facts: Facts) -> str | None:
    """Return the revision that last served as intended: weighted, settled, all workers Ready."""
    serving = facts.course.serving
    settled = serving == facts.desired and facts.course.settled and not facts.course.moved
    if settled and not facts.missing and not facts.unannounced and facts.allotment.total:
        return serving
    return facts.observation.pool.status.stable_revision


def _without_surge(facts: Facts, *, ready_only: bool) -> int:
    """Workers of the serving revision that do not drain, the larger set per class.

    An HPA that read the surge of a replacement would ratchet the size up.
    """
    revision = facts.course.serving or facts.desired
    groups = by_class(facts.sets, revision or "").values()
    return sum(
        max(_staying(item, facts, ready_only=ready_only) for item in group) for group in groups
    )


def _staying(item: WorkerSet, facts: Facts, *, ready_only: bool) -> int:
    pods = [pod for pod in item.alive if pod.uid not in facts.drains.draining]
    return sum(pod.ready for pod in pods) if ready_only else len(pods)


def _revisions(facts: Facts, weights: list[RevisionWeight]) -> list[RevisionStatus]:
    names = {item.revision for item in facts.sets if item.pods or item.deployment}
    names |= {item.name for item in (facts.plan.desired, *facts.plan.others) if item is not None}
    percent = {item.revision: item.weight for item in weights}
    shown = [_revision(name, facts, percent.get(name, 0)) for name in sorted(names)]
    shown.sort(key=lambda item: (item.created_at or "~", item.name), reverse=True)
    return shown[:_MAX_REVISIONS]


def _revision(name: str, facts: Facts, weight: int) -> RevisionStatus:
    mine = [item for item in facts.sets if item.revision == name]
    created = [
        kept.record.created_at for kept in facts.plan.kept if kept.name == name and kept.record
    ]
    pods = [pod for item in mine for pod in item.pods]
    return RevisionStatus(
        name=name,
        replicas=sum(len(item.alive) for item in mine),
        ready_replicas=sum(item.ready for item in mine),
        draining=sum(pod.uid in facts.drains.draining for pod in pods),
        weight=weight,
        created_at=created[0] if created else None,
    )


def _verified(facts: Facts) -> list[RevisionWeight]:
    """Weights that every router has applied; the last verified ones while newer travel."""
    if facts.course.mark is not None and facts.course.settled:
        return list(facts.course.mark.weights)
    return list(facts.observation.pool.status.verified_weights)


def queue_depth(facts: Facts) -> float | None:
    """Return waiting requests, in routers and pending in Triton, per Ready worker."""
    states = [
        scrape.state
        for item in facts.sets
        for pod in item.alive
        if pod.ready
        and (scrape := facts.observation.scrapes.get(pod.uid)) is not None
        and scrape.state is not None
    ]
    if not states:
        return None
    pending = sum(
        model.queue for state in states for model in state.models if not model.traits.ensemble
    )
    return (facts.traffic.waiting + pending) / len(states)


def costs_per_hour(facts: Facts) -> dict[str, float]:
    """Return what the running workers cost by class, of classes that state a cost."""
    prices = {
        item.name: float(item.cost_per_hour)
        for item in facts.observation.pool.spec.accelerators
        if item.cost_per_hour
    }
    counts = dict.fromkeys(prices, 0)
    for item in facts.sets:
        if item.accelerator in counts:
            counts[item.accelerator] += len(_running(item))
    return {name: counts[name] * price for name, price in prices.items()}


def _running(item: WorkerSet) -> list[ObservedPod]:
    """Pods that hold their resources: all but the ended ones."""
    return [pod for pod in item.pods if pod.phase not in ENDED_PHASES]


def _workers(facts: Facts) -> WorkerCounts:
    pods = [pod for item in facts.sets for pod in _running(item)]
    ejected = _ejected(facts)
    return WorkerCounts(
        total=len(pods),
        ready=sum(pod.ready and not pod.terminating for pod in pods),
        draining=facts.draining,
        ejected=sum(pod.uid in ejected for pod in pods),
    )


def _ejected(facts: Facts) -> set[str]:
    """Return the UIDs of workers that a router has ejected."""
    uid = facts.observation.pool.metadata.uid
    return {
        found.worker
        for member in facts.observation.routers
        if member.state is not None
        for found in member.state.ejected
        if found.uid == uid
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def invalid_spec_status(
    previous: InferencePoolStatus,
    *,
    release: OperatorClaim,
    generation: int,
    message: str,
    now_s: float,
) -> InferencePoolStatus:
    """Return the status of a pool whose spec cannot be read; everything else stays as it was.

    `message` names the field and what was expected. Workers and the table are left alone.
    """
    verdicts = {
        ConditionType.READY: Verdict("False", Reason.INVALID_SPEC, message),
        ConditionType.STALLED: Verdict("True", Reason.INVALID_SPEC, message),
    }
    others = [
        item
        for item in previous.conditions
        if item.type not in {*verdicts, ConditionType.RECONCILING}
    ]
    stamped = stamp(verdicts, previous.conditions, generation, now_s)
    return previous.model_copy(
        update={
            "observed_generation": generation,
            "operator": release,
            "conditions": [*stamped, *others],
        }
    )
