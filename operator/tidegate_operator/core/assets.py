"""The objects that must exist for a pool, and those that must go."""

from collections.abc import Iterable, Sequence

from tidegate_api.pool import InferencePool
from tidegate_operator.core import objects
from tidegate_operator.core.decision import Deletion, Manifest
from tidegate_operator.core.drains import DrainPlan, removable
from tidegate_operator.core.identity import models_object_name
from tidegate_operator.core.observation import ObservedRevision, Owned, PoolObservation
from tidegate_operator.core.revisions import KeptRevision, RevisionPlan, outdated_revisions
from tidegate_operator.core.serving import Course
from tidegate_operator.core.targets import Target


def wanted_objects(
    observation: PoolObservation,
    plan: RevisionPlan,
    targets: Sequence[Target],
    drains: DrainPlan,
) -> tuple[Manifest, ...]:
    """Return all that must exist, records before what is made from them."""
    pool = observation.pool
    return (
        *_pool_objects(observation),
        *_revision_record(pool, plan),
        *(
            manifest
            for target in targets
            if _exists(target)
            for manifest in _set_objects(pool, plan, target, drains)
        ),
    )


def _exists(target: Target) -> bool:
    """A set is made when it gets workers, and kept until it is drained."""
    made = target.workers.deployment is not None
    return not removable(target.workers, target) and (made or target.wanted > 0)


def _pool_objects(observation: PoolObservation) -> Iterable[Manifest]:
    yield objects.disruption_budget(observation.pool)
    if observation.settings.network_policy:
        yield objects.network_policy(observation.pool)


def _revision_record(pool: InferencePool, plan: RevisionPlan) -> Iterable[Manifest]:
    for item in plan.recorded:
        yield record_manifest(pool, item, aborted=item.name in plan.marked)


def record_manifest(pool: InferencePool, item: KeptRevision, *, aborted: bool) -> Manifest:
    """Return a revision's record as it is, or as it begins; only its mark may change."""
    kept = item.record.data if item.record else item.stored.to_wire()
    return objects.pool_revision(pool, item.name, kept, item.number, aborted=aborted)


def _set_objects(
    pool: InferencePool, plan: RevisionPlan, target: Target, drains: DrainPlan
) -> Iterable[Manifest]:
    item = target.workers
    numbers = {kept.name: kept.number for kept in plan.kept}
    for revision in plan.recorded:
        numbers.setdefault(revision.name, revision.number)
    number = item.record.number if item.record else numbers.get(item.revision, 1)
    kept = item.record.data if item.record else item.stored.to_wire()
    yield objects.set_revision(pool, item.name, item.stored, kept, number)
    told = item.models.to_wire() if item.models is not None else kept["models"]
    yield objects.models_config_map(pool, item.name, item.stored, told)
    yield objects.service(pool, item.name, item.stored)
    yield objects.deployment(
        pool, item.name, item.stored, drains.replicas[item.name], hosts=item.hosts
    )


def unwanted_objects(
    observation: PoolObservation,
    plan: RevisionPlan,
    targets: Sequence[Target],
    course: Course,
) -> tuple[Deletion, ...]:
    """Return what goes: drained sets, surplus history, a switched-off NetworkPolicy."""
    gone = [target for target in targets if removable(target.workers, target)]
    in_use = {t.workers.revision for t in targets if t not in gone}
    in_use |= {name for name in (plan.asked, course.serving) if name}
    in_use |= {item.name for item in plan.recorded}
    in_use |= course.weights.keys()
    limit = observation.pool.spec.revision_history_limit
    return (
        *(deletion for target in gone for deletion in _set_deletions(observation, target)),
        *(_record(item) for item in outdated_revisions(plan, frozenset(in_use), limit)),
        *_switched_off(observation),
    )


def _set_deletions(observation: PoolObservation, target: Target) -> Iterable[Deletion]:
    item = target.workers
    if item.deployment is not None:
        yield _owned(item.deployment.meta)
    for other in _ours(observation):
        if (other.kind, other.name) in {
            ("Service", item.name),
            ("ConfigMap", models_object_name(item.name)),
        }:
            yield _owned(other)
    if item.record is not None:
        yield _record(item.record)


def _switched_off(observation: PoolObservation) -> Iterable[Deletion]:
    if observation.settings.network_policy:
        return
    for other in _ours(observation):
        if (other.kind, other.name) == ("NetworkPolicy", observation.pool.metadata.name):
            yield _owned(other)


def _ours(observation: PoolObservation) -> Iterable[Owned]:
    uid = observation.pool.metadata.uid
    return (item for item in observation.others if item.controller_uid == uid)


def _owned(item: Owned) -> Deletion:
    return Deletion(item.kind, item.name, item.uid)


def _record(item: ObservedRevision) -> Deletion:
    return Deletion(item.meta.kind, item.meta.name, item.meta.uid)
