"""Which revision gets the pool's requests (operator.md sections 2, 3, 8).

A pool without a rollout replaces revisions by itself: the desired revision takes over, 100 to 0
in one table, once all its workers are Ready. Until then the old one serves on, however long.
The truth is the published table; status and pods only stand in when it is gone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_operator.core.acknowledge import Acknowledgement
from tidegate_operator.core.memory import MembersMark, PoolMemory, WeightsMark
from tidegate_operator.core.observation import PoolObservation
from tidegate_operator.core.workersets import WorkerSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Who serves now, and what keeps the desired revision waiting.

    `settled`: every router applied the published weights. `overdue`: they had drain.timeout for
    that, so removals wait no longer. `announced`: every router was offered all Ready workers of
    the desired sets.
    """

    serving: str | None
    weights: Mapping[str, int] = field(default_factory=dict)  # percent by revision, sum 100
    moved: bool = False  # in this decision
    waits_for: str = ""
    mark: WeightsMark | None = None
    settled: bool = False
    overdue: bool = False
    members: MembersMark | None = None
    announced: bool = False


def mark_weights(observation: PoolObservation, memory: PoolMemory) -> WeightsMark | None:
    """Return since which sequence the published weights hold.

    After a restart that is unknown; the newest sequence is then a safe upper bound.
    """
    if observation.published is None:
        return None
    spec = observation.published.spec
    weights = tuple(item for item in spec.weights if item.weight)
    known = memory.weights
    if known is not None and known.weights == weights and known.sequence <= spec.sequence:
        return known
    return WeightsMark(weights, spec.sequence, observation.now_s)


def mark_members(observation: PoolObservation, memory: PoolMemory) -> MembersMark | None:
    """Return since which sequence the published table offers the workers that it offers."""
    if observation.published is None:
        return None
    spec = observation.published.spec
    offered = frozenset(w.id for w in spec.workers if w.ready and not w.draining)
    known = memory.members
    if known is not None and known.offered == offered and known.sequence <= spec.sequence:
        return known
    return MembersMark(offered, spec.sequence)


def is_announced(
    members: MembersMark | None, sets: Sequence[WorkerSet], acknowledgement: Acknowledgement
) -> bool:
    """Whether a request that a router gets now may reach each Ready desired worker."""
    if members is None or not acknowledgement.acknowledged(members.sequence):
        return False
    needed = {pod.uid for item in sets if item.desired for pod in item.alive if pod.ready}
    return needed <= members.offered


def ready_by_revision(sets: Sequence[WorkerSet]) -> dict[str, int]:
    """Return Ready workers per revision that still has workers or a Deployment."""
    ready: dict[str, int] = {}
    for item in sets:
        if item.deployment is not None or item.pods:
            ready[item.revision] = ready.get(item.revision, 0) + item.ready
    return ready


def serving_before(
    observation: PoolObservation, ready: Mapping[str, int], desired: str | None
) -> str | None:
    """Return the revision that routers use now, if it still exists or shall exist.

    The desired one may have no worker because the pool is scaled to zero. Of a split that an
    ended rollout left, the stable one serves.
    """
    published = observation.published.spec.weights if observation.published else []
    stable = observation.pool.status.stable_revision
    split = sum(item.weight > 0 for item in published) > 1
    if split and stable in ready:  # what a rollout left behind
        return stable
    top = max(published, key=lambda item: item.weight, default=None)
    if top is not None and top.weight and top.revision in {*ready, desired}:
        return top.revision
    if observation.pool.status.stable_revision in ready:
        return observation.pool.status.stable_revision
    best = max(ready, key=lambda name: (ready[name], name), default=None)
    return best if best is not None and ready[best] else None


def missing_workers(sets: Sequence[WorkerSet], counts: Mapping[str, int]) -> int:
    """Return how many Ready workers the desired sets lack, class by class."""
    have = {item.accelerator: item.ready for item in sets if item.desired}
    return sum(max(0, count - have.get(name, 0)) for name, count in counts.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What the choice of the serving revision looks at."""

    before: str | None
    desired: str | None
    ready: Mapping[str, int]
    missing: int  # Ready workers that the desired revision lacks
    wanted: int  # workers that it shall have
    was_stable: bool  # `before` has served as intended once
    paused: bool
    in_sync: bool  # every router applied the present weights


def choose(seen: Candidates) -> tuple[str | None, str]:
    """Return (serving revision, why the desired one is not it).

    Moving is a weight increase, so paused pools and routers that have not acknowledged the last
    weights hold it, except when the old revision has no Ready worker and so nothing to lose.
    """
    before, desired = seen.before, seen.desired
    if desired is None or before in {None, desired}:
        return desired if before is None else before, ""
    old_serves = seen.ready.get(before or "", 0) > 0
    new_serves = seen.ready.get(desired, 0) > 0
    if seen.paused:
        return before, "the pool is paused"
    if not old_serves and (new_serves or not seen.was_stable or not seen.wanted):
        return desired, ""
    if seen.missing:
        there = seen.wanted - seen.missing
        return before, f"{there} of {seen.wanted} new workers are Ready"
    if not seen.in_sync:
        return before, "routers have not acknowledged the present weights"
    return desired, ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aspiration:
    """What the pool shall become, and what it has of that."""

    desired: str | None
    counts: Mapping[str, int]  # wanted workers per class
    missing: int  # Ready workers that the desired sets lack
    paused: bool
    drain_timeout_s: float
    scale: Mapping[str, Mapping[str, int]] | None = None  # a rollout's: by revision and class


def steer(
    observation: PoolObservation,
    memory: PoolMemory,
    acknowledgement: Acknowledgement,
    sets: Sequence[WorkerSet],
    aspiration: Aspiration,
) -> Course:
    """Return the course of this decision."""
    mark = mark_weights(observation, memory)
    settled = mark is None or acknowledgement.acknowledged(mark.sequence)
    ready = ready_by_revision(sets)
    before = serving_before(observation, ready, aspiration.desired)
    candidates = Candidates(
        before=before,
        desired=aspiration.desired,
        ready=ready,
        missing=aspiration.missing,
        wanted=sum(aspiration.counts.values()),
        was_stable=observation.pool.status.stable_revision == before,
        paused=aspiration.paused,
        in_sync=settled,
    )
    serving, waits_for = choose(candidates)
    timeout_s = aspiration.drain_timeout_s
    members = mark_members(observation, memory)
    return Course(
        serving=serving,
        weights={serving: 100} if serving is not None else {},
        moved=before is not None and serving != before,
        waits_for=waits_for,
        mark=mark,
        settled=settled,
        overdue=mark is not None and observation.now_s - mark.since_s >= timeout_s,
        members=members,
        announced=is_announced(members, sets, acknowledgement),
    )


def is_settled(
    observation: PoolObservation, memory: PoolMemory, acknowledgement: Acknowledgement
) -> bool:
    """Whether every router has applied the published weights."""
    mark = mark_weights(observation, memory)
    return mark is None or acknowledgement.acknowledged(mark.sequence)


def follow(
    observation: PoolObservation,
    memory: PoolMemory,
    acknowledgement: Acknowledgement,
    sets: Sequence[WorkerSet],
    aspiration: Aspiration,
    weights: Mapping[str, int],
) -> Course:
    """Return the course that a rollout has decided on."""
    mark = mark_weights(observation, memory)
    members = mark_members(observation, memory)
    published = {item.revision: item.weight for item in mark.weights} if mark else {}
    given = {name: weight for name, weight in weights.items() if weight}
    timeout_s = aspiration.drain_timeout_s
    return Course(
        serving=aspiration.desired,
        weights=dict(weights),
        moved=bool(published) and published != given,
        mark=mark,
        settled=mark is None or acknowledgement.acknowledged(mark.sequence),
        overdue=mark is not None and observation.now_s - mark.since_s >= timeout_s,
        members=members,
        announced=is_announced(members, sets, acknowledgement),
    )
