"""From a pool with a bound ModelRollout to what its workers, weights and table shall be.

The state machine decides in percent and counts; this maps what it sees from worker sets, records
and routers, and what it says back onto them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate_api.names import ANNOTATION_ABORTED, ANNOTATION_PAUSED, GROUP
from tidegate_api.rollout import ModelRolloutSpec
from tidegate_api.routetable import MirrorPolicy, Pin
from tidegate_operator.core.assets import record_manifest
from tidegate_operator.core.decision import Manifest
from tidegate_operator.core.memory import FailingSince
from tidegate_operator.core.observation import ObservedRollout, PoolObservation
from tidegate_operator.core.revisions import KeptRevision, RevisionPlan
from tidegate_operator.core.rollout.analysis import AnalysisContext, assess, guard
from tidegate_operator.core.rollout.binding import Binding
from tidegate_operator.core.rollout.inplace import obstacle
from tidegate_operator.core.rollout.machine import advance
from tidegate_operator.core.rollout.model import (
    Outcome,
    Policy,
    Progress,
    Sight,
    State,
)
from tidegate_operator.core.rollout.persist import progress_of
from tidegate_operator.core.rollout.policy import resolve
from tidegate_operator.core.rollout.tracks import seen_tracks
from tidegate_operator.core.rollout.view import MOVING, View
from tidegate_operator.core.rollout.windows import AnalysisMemory
from tidegate_operator.core.table import Steering
from tidegate_operator.core.workersets import WorkerSet

_VERBS = f"{GROUP}/"
_LOADED = MOVING | {State.ABORTING}  # until no router sends to a canary in stable's workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A rollout before this decision: what it wants and where it stood."""

    rollout: ObservedRollout
    policy: Policy
    progress: Progress
    asked: KeptRevision
    frozen: bool  # its spec cannot be read: nothing new begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """One decision of the state machine, and the plan of revisions that follows from it."""

    begun: Begun
    sight: Sight
    outcome: Outcome
    plan: RevisionPlan


@dataclass(frozen=True, slots=True)
class Marks:
    """Records to write with and without the mark of an aborted revision."""

    first: Manifest | None = None
    last: Manifest | None = None


def begin(binding: Binding, plan: RevisionPlan) -> Begun | None:
    """Return where the bound rollout stands; None while it never said anything usable.

    With a broken spec the last revision that was asked for stays the aim.
    """
    bound = binding.bound
    if bound is None:
        return None
    progress = progress_of(bound.status)
    known = {item.name: item for item in plan.kept}
    frozen = binding.template is None
    asked = known.get(progress.asked or "") if frozen else plan.desired
    if asked is None:
        return None
    policy = resolve(bound.rollout.spec) if bound.rollout else Policy()
    return Begun(rollout=bound, policy=policy, progress=progress, asked=asked, frozen=frozen)


def plan_before(begun: Begun, plan: RevisionPlan) -> RevisionPlan:
    """Return the plan by what the rollout remembers, to see which workers it has."""
    progress = begun.progress
    return _plan(begun, plan, progress, (progress.canary, progress.stable))


def look(
    begun: Begun,
    observation: PoolObservation,
    plan: RevisionPlan,
    sets: Sequence[WorkerSet],
    *,
    counts: Mapping[str, int],
    failing: Mapping[str, FailingSince],
    settled: bool,
) -> Sight:
    """Return what the state machine may look at, before analysis."""
    annotations = begun.rollout.meta.annotations
    published = observation.published.spec.weights if observation.published else []
    return Sight(
        now_s=observation.now_s,
        asked=begun.asked.name,
        counts=counts,
        tracks=seen_tracks(observation, plan_before(begun, plan), sets, failing),
        kept=tuple(item.name for item in plan.kept),
        was_stable=observation.pool.status.stable_revision,
        marked_aborted=_marked(plan),
        published={item.revision: item.weight for item in published if item.weight},
        settled=settled,
        verbs={key: value for key, value in annotations.items() if key.startswith(_VERBS)},
        paused=is_paused(begun, observation),
        local_aborts=_local_aborts(observation),
        in_place_obstacle=_obstacle(begun, plan),
    )


def judge_canary(
    begun: Begun, observation: PoolObservation, sight: Sight, memory: AnalysisMemory
) -> tuple[Sight, AnalysisMemory]:
    """Return the sight with what analysis says of the canary, and what analysis remembers."""
    plan, progress = begun.policy.analysis, begun.progress
    if plan is None:
        return sight, AnalysisMemory()
    view = View(policy=begun.policy, sight=sight, progress=progress)
    tried = progress.state in MOVING and progress.canary == sight.asked
    context = AnalysisContext(
        now_s=observation.now_s,
        pool_uid=observation.pool.metadata.uid,
        stable=progress.stable,
        canary=progress.canary if tried else None,
        step_index=progress.step_index,
        step_since_s=progress.step_since_s,
        goal=view.goal,
        verified=progress.verified,
        routers=observation.routers,
        queries=observation.queries,
        stored=begun.rollout.status.analysis.windows,
    )
    assessment, memory = assess(plan, context, memory)
    return replace(sight, assessment=assessment), memory


def is_paused(begun: Begun, observation: PoolObservation) -> bool:
    """Whether the pool or the rollout is paused, by field or annotation, or cannot be read."""
    rollout, pool = begun.rollout.rollout, observation.pool
    by_field = pool.spec.paused or (rollout is not None and rollout.spec.paused)
    marks = (pool.metadata.annotations, begun.rollout.meta.annotations)
    by_mark = any(found.get(ANNOTATION_PAUSED) == "true" for found in marks)
    return begun.frozen or by_field or by_mark


def _obstacle(begun: Begun, plan: RevisionPlan) -> str:
    """What keeps the asked revision from running inside the stable one's workers."""
    stable = next((item for item in plan.kept if item.name == begun.progress.stable), None)
    if stable is None or stable.name == begun.asked.name:
        return ""
    return obstacle(stable, begun.asked)


def _marked(plan: RevisionPlan) -> frozenset[str]:
    return frozenset(
        item.name
        for item in plan.kept
        if item.record and item.record.meta.annotations.get(ANNOTATION_ABORTED) == "true"
    )


def _local_aborts(observation: PoolObservation) -> dict[str, str]:
    uid = observation.pool.metadata.uid
    return {
        found.revision: f"router {member.name}: {found.message}"
        for member in observation.routers
        if member.state is not None
        for found in member.state.local_aborts
        if found.uid == uid
    }


def drive(begun: Begun, sight: Sight, plan: RevisionPlan) -> Driven:
    """Let the state machine decide."""
    outcome = advance(begun.policy, sight, begun.progress)
    after = _plan(begun, plan, outcome.progress, outcome.scale)
    promoted = outcome.progress.stable not in {None, begun.progress.stable}
    if promoted and begun.progress.strategy == "InPlace":
        after = replace(after, adopts=begun.progress.stable)
    if outcome.mark_aborted is not None:
        after = replace(after, marked=after.marked | {outcome.mark_aborted})
    return Driven(begun=begun, sight=sight, outcome=outcome, plan=after)


def marks(driven: Driven, observation: PoolObservation) -> Marks:
    """Return the records whose mark changes: a new one before all else, an old one after all."""
    known = {item.name: item for item in (*driven.plan.kept, driven.begun.asked)}
    first, last = driven.outcome.mark_aborted, driven.outcome.unmark_aborted
    pool = observation.pool
    return Marks(
        first=record_manifest(pool, known[first], aborted=True) if first in known else None,
        last=record_manifest(pool, known[last], aborted=False) if last in known else None,
    )


def _plan(
    begun: Begun,
    plan: RevisionPlan,
    progress: Progress,
    scaled: Sequence[str | None] | Mapping[str, object],
) -> RevisionPlan:
    """The stable revision is the pool's desired one; others have workers beside it."""
    known = {item.name: item for item in plan.kept} | {begun.asked.name: begun.asked}
    stable, canary = known.get(progress.stable or "") or begun.asked, progress.canary
    names = [name for name in scaled if name is not None and name != stable.name]
    inside = progress.strategy == "InPlace" and progress.state in _LOADED
    others = [known[name] for name in names if name in known and not (inside and name == canary)]
    return replace(
        plan,
        asked=stable.name,
        desired=stable,
        others=tuple(others),
        tried=known.get(canary or ""),
        second=known.get(canary or "") if inside else None,
        marked=_marked(plan),
        steered=True,
    )


def steering(driven: Driven) -> Steering:
    """Return what the table says of a canary that is being tried."""
    progress, rollout = driven.outcome.progress, driven.begun.rollout.rollout
    canary = progress.canary
    if rollout is None or canary is None or progress.state not in MOVING:
        return Steering()
    ready = driven.sight.tracks[canary].ready_total if canary in driven.sight.tracks else 0
    analysis = driven.begun.policy.analysis
    acts = analysis is not None and not analysis.dry_run and driven.begun.policy.automatic_rollback
    guarded = acts and driven.outcome.weights.get(canary)
    return Steering(
        pins=_pins(rollout.spec, canary) if ready else (),
        mirror=_mirror(rollout.spec, canary) if ready else None,
        guards=(guard(analysis, canary),) if analysis is not None and guarded else (),
    )


def _pins(spec: ModelRolloutSpec, canary: str) -> tuple[Pin, ...]:
    if spec.match is None:
        return ()
    headers = {name.lower(): value for name, value in spec.match.headers.items()}
    return (Pin(revision=canary, headers=headers),)


def _mirror(spec: ModelRolloutSpec, canary: str) -> MirrorPolicy | None:
    if spec.mirror is None or not spec.mirror.percent:
        return None
    return MirrorPolicy(revision=canary, percent=spec.mirror.percent)
