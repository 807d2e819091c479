"""One decision about one pool: a flat list of small steps (operator.md sections 1, 2, 8, 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate_api.names import ANNOTATION_PAUSED, ConditionType, Kind
from tidegate_operator.core.acknowledge import Acknowledgement, acknowledge
from tidegate_operator.core.allotment import Allotment, allot
from tidegate_operator.core.assets import unwanted_objects, wanted_objects
from tidegate_operator.core.conditions import judge
from tidegate_operator.core.decision import Decision, Manifest, WorkerScore
from tidegate_operator.core.drains import plan_drains
from tidegate_operator.core.events import list_events
from tidegate_operator.core.facts import Facts, find_conflicts
from tidegate_operator.core.failures import find_failures
from tidegate_operator.core.measurements import Measured, measure_workers
from tidegate_operator.core.memory import FailingSince, PoolMemory
from tidegate_operator.core.observation import PoolObservation
from tidegate_operator.core.podtemplate import drain_timeout_s
from tidegate_operator.core.revisions import RevisionPlan, last_restart, plan_revisions
from tidegate_operator.core.rollout.binding import Binding, bind
from tidegate_operator.core.rollout.drive import (
    Begun,
    Driven,
    Marks,
    begin,
    drive,
    judge_canary,
    look,
    marks,
    plan_before,
    steering,
)
from tidegate_operator.core.rollout.tell import tell
from tidegate_operator.core.rollout.tracks import watch_failures
from tidegate_operator.core.rollout.windows import AnalysisMemory
from tidegate_operator.core.serving import (
    Aspiration,
    Course,
    follow,
    is_settled,
    missing_workers,
    steer,
)
from tidegate_operator.core.shares import router_shares
from tidegate_operator.core.status import costs_per_hour, pool_status, stable_revision
from tidegate_operator.core.table import Steering, TableInput, build_table, plan_table
from tidegate_operator.core.targets import plan_targets, respect_autoscalers
from tidegate_operator.core.windows import Traffic, add_readings, measure
from tidegate_operator.core.workersets import WorkerSet, collect_sets

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one decision is made from, before anything is decided."""

    observation: PoolObservation
    memory: PoolMemory
    acknowledgement: Acknowledgement
    traffic: Traffic
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """Where the pool goes: by itself, or as its rollout says."""

    plan: RevisionPlan
    sets: tuple[WorkerSet, ...]
    allotment: Allotment
    aim: Aspiration
    course: Course
    driven: Driven | None = None
    failing: Mapping[str, FailingSince] = field(default_factory=dict)
    analysis: AnalysisMemory = field(default_factory=AnalysisMemory)


def _decide(observation: PoolObservation, memory: PoolMemory) -> Decision:
    pool = observation.pool
    readings = add_readings(memory.readings, observation.routers, pool)
    seen = _Seen(
        observation=observation,
        memory=memory,
        acknowledgement=acknowledge(observation.routers, pool.metadata.uid, observation.now_s),
        traffic=measure(readings, observation.routers, pool),
        binding=bind(observation),
    )
    way = _find_way(seen)
    targets = plan_targets(way.sets, way.aim, way.course)
    drains = plan_drains(
        targets, observation, memory, seen.acknowledgement, way.aim.drain_timeout_s
    )
    measured = measure_workers(
        observation, memory.workers, pool.spec.routing.score_weights, seen.traffic.waiting
    )
    applies = wanted_objects(observation, way.plan, targets, drains)
    facts = Facts(
        observation=observation,
        binding=seen.binding,
        plan=way.plan,
        allotment=way.allotment,
        sets=way.sets,
        targets=targets,
        course=way.course,
        drains=drains,
        acknowledgement=seen.acknowledgement,
        traffic=seen.traffic,
        missing=way.aim.missing,
        driven=way.driven,
        failures=find_failures(observation, [item for item in way.sets if item.desired]),
        conflicts=find_conflicts(observation, _names(pool.metadata.name, applies)),
    )
    after = PoolMemory(
        workers=measured.memory,
        drains=drains.memory,
        weights=way.course.mark,
        members=way.course.members,
        readings=readings,
        failing=way.failing,
        analysis=way.analysis,
    )
    return _describe(facts, applies, measured, after)


def _find_way(seen: _Seen) -> _Way:
    """Return the rollout's way where one is in charge and ever said anything usable."""
    observation, binding = seen.observation, seen.binding
    steered = binding.charge == "Rollout"
    paused = is_paused(observation)
    plan = plan_revisions(observation, binding.template, paused=paused and not steered)
    known = observation.pool.status.restarted_at or ""
    marks_of = binding.bound.meta.annotations if binding.bound else {}
    restart = known if paused else last_restart(observation, marks_of)
    plan = replace(plan, restarted_at=restart)
    begun = begin(binding, plan) if steered else None
    return _own_way(seen, plan) if begun is None else _steered_way(seen, plan, begun)


def _own_way(seen: _Seen, plan: RevisionPlan) -> _Way:
    """A pool without a rollout replaces revisions by itself."""
    observation, pool = seen.observation, seen.observation.pool
    sets = collect_sets(observation, plan)
    allotment = _allotment(observation, sets)
    aim = Aspiration(
        desired=plan.desired.name if plan.desired else None,
        counts=allotment.counts,
        missing=missing_workers(sets, allotment.counts),
        paused=plan.paused,
        drain_timeout_s=drain_timeout_s(pool),
    )
    course = steer(observation, seen.memory, seen.acknowledgement, sets, aim)
    return _Way(plan=plan, sets=sets, allotment=allotment, aim=aim, course=course)


def _steered_way(seen: _Seen, plan: RevisionPlan, begun: Begun) -> _Way:
    """Look at the workers that the rollout remembers, let it decide, look at those it wants."""
    observation, pool = seen.observation, seen.observation.pool
    before = collect_sets(observation, plan_before(begun, plan))
    allotment = _allotment(observation, before)
    failing = watch_failures(observation, before, seen.memory.failing)
    sight = look(
        begun,
        observation,
        plan,
        before,
        counts=allotment.counts,
        failing=failing,
        settled=is_settled(observation, seen.memory, seen.acknowledgement),
    )
    sight, analysis = judge_canary(begun, observation, sight, seen.memory.analysis)
    driven = drive(begun, sight, plan)
    sets = collect_sets(observation, driven.plan)
    scale = driven.outcome.scale
    desired = driven.plan.desired.name if driven.plan.desired else None
    counts = scale.get(desired or "", allotment.counts)
    aim = Aspiration(
        desired=desired,
        counts=counts,
        missing=missing_workers(sets, counts),
        paused=is_paused(observation),
        drain_timeout_s=drain_timeout_s(pool),
        scale=scale,
    )
    course = follow(
        observation, seen.memory, seen.acknowledgement, sets, aim, driven.outcome.weights
    )
    return _Way(
        plan=driven.plan,
        sets=sets,
        allotment=allotment,
        aim=aim,
        course=course,
        driven=driven,
        failing=failing,
        analysis=analysis,
    )


def _allotment(observation: PoolObservation, sets: Sequence[WorkerSet]) -> Allotment:
    spec = observation.pool.spec
    return respect_autoscalers(
        allot(spec.replicas, spec.accelerators), sets, observation.autoscalers
    )


def _describe(
    facts: Facts, applies: Sequence[Manifest], measured: Measured, memory: PoolMemory
) -> Decision:
    observation = facts.observation
    foreign = {(item.kind, item.name) for item in facts.conflicts}
    table_input = TableInput(
        observation=observation,
        sets=facts.sets,
        weights=facts.course.weights,
        drains=facts.drains,
        measured=measured,
        steering=steering(facts.driven) if facts.driven else Steering(),
        shares=router_shares(observation.routers, memory.readings, observation.pool),
    )
    spec = build_table(table_input)
    deletes = unwanted_objects(observation, facts.plan, facts.targets, facts.course)
    verdicts = judge(facts)
    marked = marks(facts.driven, observation) if facts.driven else Marks()
    return Decision(
        memory=memory,
        first=marked.first,
        table=None if _table_name(observation) in foreign else plan_table(observation, spec),
        deletion_costs=facts.drains.costs,
        applies=tuple(item for item in applies if (item.kind, item.name) not in foreign),
        models_generations=_generations(facts.sets),
        deletes=deletes,
        status=pool_status(facts, verdicts, spec.weights),
        events=list_events(facts, verdicts[ConditionType.READY], stable_revision(facts), deletes),
        drain_acks=facts.drains.acknowledged,
        scores=_scores(observation, measured),
        costs_per_hour=costs_per_hour(facts),
        rollouts=tell(facts),
        last=marked.last,
        recheck_after_s=_BUSY_RECHECK_S if facts.busy else _IDLE_RECHECK_S,
    )


def _generations(sets: Sequence[WorkerSet]) -> dict[str, str]:
    """Pods whose models document is another than the one that they were annotated with."""
    return {
        pod.name: wanted
        for item in sets
        for wanted in (str(item.document.generation),)
        for pod in item.alive
        if pod.models_generation != wanted and (item.models is not None or pod.models_generation)
    }


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
