"""One decision about one pool: a flat list of small steps (operator.md sections 1, 2, 8, 9)."""

from collections.abc import Sequence

from tidegate_api.names import ANNOTATION_PAUSED, ConditionType, Kind
from tidegate_operator.core.acknowledge import acknowledge
from tidegate_operator.core.allotment import allot
from tidegate_operator.core.assets import unwanted_objects, wanted_objects
from tidegate_operator.core.conditions import judge
from tidegate_operator.core.decision import Decision, Manifest, WorkerScore
from tidegate_operator.core.drains import plan_drains
from tidegate_operator.core.events import list_events
from tidegate_operator.core.facts import Facts, find_conflicts, find_failures
from tidegate_operator.core.measurements import Measured, measure_workers
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.observation import PoolObservation
from tidegate_operator.core.podtemplate import drain_timeout_s
from tidegate_operator.core.revisions import plan_revisions
from tidegate_operator.core.serving import Aspiration, missing_workers, steer
from tidegate_operator.core.shares import router_shares
from tidegate_operator.core.status import costs_per_hour, pool_status, stable_revision
from tidegate_operator.core.table import TableInput, build_table, plan_table
from tidegate_operator.core.targets import plan_targets, respect_autoscalers
from tidegate_operator.core.windows import add_readings, measure
from tidegate_operator.core.workersets import collect_sets

_BUSY_RECHECK_S = 0.25  # while something is on its way
_IDLE_RECHECK_S = 1.0


def is_paused(observation: PoolObservation) -> bool:
    """Whether spec.paused or the annotation holds the pool; Argo CD would revert the field."""
    pool = observation.pool
    return pool.spec.paused or pool.metadata.annotations.get(ANNOTATION_PAUSED) == "true"


def is_foreign(observation: PoolObservation) -> bool:
    """Whether another release of the operator claims this pool."""
    claim = observation.pool.status.operator
    return claim is not None and claim != observation.settings.release


def decide(observation: PoolObservation, memory: PoolMemory) -> Decision:
    """Return what must exist, change and be said about `observation.pool` now.

    Total: raises nothing for any observation. Called at every event and at least once a second.
    A pool that is being deleted, or that another release claims, is left alone: owner references
    collect its children without us.
    """
    if observation.pool.metadata.deletion_timestamp or is_foreign(observation):
        return Decision(memory=memory)
    return _decide(observation, memory)


def _decide(observation: PoolObservation, memory: PoolMemory) -> Decision:
    pool = observation.pool
    acks = acknowledge(observation.routers, pool.metadata.uid, observation.now_s)
    readings = add_readings(memory.readings, observation.routers, pool)
    traffic = measure(readings, observation.routers, pool)
    plan = plan_revisions(observation, paused=is_paused(observation))
    sets = collect_sets(observation, plan)
    allotment = respect_autoscalers(
        allot(pool.spec.replicas, pool.spec.accelerators), sets, observation.autoscalers
    )
    aim = Aspiration(
        desired=plan.desired.name if plan.desired else None,
        counts=allotment.counts,
        missing=missing_workers(sets, allotment.counts),
        paused=plan.paused,
        drain_timeout_s=drain_timeout_s(pool),
    )
    course = steer(observation, memory, acks, sets, aim)
    targets = plan_targets(sets, aim, course)
    drains = plan_drains(targets, observation, memory, acks, aim.drain_timeout_s)
    measured = measure_workers(
        observation, memory.workers, pool.spec.routing.score_weights, traffic.waiting
    )
    applies = wanted_objects(observation, plan, targets, drains)
    facts = Facts(
        observation=observation,
        plan=plan,
        allotment=allotment,
        sets=sets,
        targets=targets,
        course=course,
        drains=drains,
        acknowledgement=acks,
        traffic=traffic,
        missing=aim.missing,
        failures=find_failures(observation, sets),
        conflicts=find_conflicts(observation, _names(pool.metadata.name, applies)),
    )
    after = PoolMemory(
        workers=measured.memory,
        drains=drains.memory,
        weights=course.mark,
        members=course.members,
        readings=readings,
    )
    return _describe(facts, applies, measured, after)


def _describe(
    facts: Facts, applies: Sequence[Manifest], measured: Measured, memory: PoolMemory
) -> Decision:
    observation = facts.observation
    foreign = {(item.kind, item.name) for item in facts.conflicts}
    table_input = TableInput(
        observation=observation,
        sets=facts.sets,
        serving=facts.course.serving,
        drains=facts.drains,
        measured=measured,
        shares=router_shares(observation.routers, memory.readings, observation.pool),
    )
    spec = build_table(table_input)
    deletes = unwanted_objects(observation, facts.plan, facts.targets, facts.course)
    verdicts = judge(facts)
    return Decision(
        memory=memory,
        table=None if _table_name(observation) in foreign else plan_table(observation, spec),
        deletion_costs=facts.drains.costs,
        applies=tuple(item for item in applies if (item.kind, item.name) not in foreign),
        deletes=deletes,
        status=pool_status(facts, verdicts, spec.weights),
        events=list_events(facts, verdicts[ConditionType.READY], stable_revision(facts), deletes),
        drain_acks=facts.drains.acknowledged,
        scores=_scores(observation, measured),
        costs_per_hour=costs_per_hour(facts),
        recheck_after_s=_BUSY_RECHECK_S if facts.busy else _IDLE_RECHECK_S,
    )


def _table_name(observation: PoolObservation) -> tuple[str, str]:
    return Kind.ROUTE_TABLE.value, observation.pool.metadata.name


def _names(pool: str, applies: Sequence[Manifest]) -> frozenset[tuple[str, str]]:
    table = (Kind.ROUTE_TABLE.value, pool)
    return frozenset({table, *((item.kind, item.name) for item in applies)})


def _scores(observation: PoolObservation, measured: Measured) -> tuple[WorkerScore, ...]:
    return tuple(
        WorkerScore(
            uid=pod.uid,
            name=pod.name,
            score=score.value,
            components=score.components,
            success_ratio=score.success_ratio,
        )
        for pod in observation.pods
        if (score := measured.scores.get(pod.uid)) is not None
    )
