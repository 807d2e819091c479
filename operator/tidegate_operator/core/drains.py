"""Which workers are on their way out, and when they may be removed (operator.md section 8).

A leaving worker is first marked in the table; when every router has applied that and the worker
is idle, or drain.timeout has passed, it may go. Scale-down victims: starting workers first, then
those that drain already, then the least busy; they get a pod-deletion-cost before replicas fall,
because that is how the ReplicaSet controller chooses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate_operator.core.acknowledge import Acknowledgement
from tidegate_operator.core.memory import DrainMemory, PoolMemory
from tidegate_operator.core.observation import ObservedPod, PoolObservation, Scrape
from tidegate_operator.core.targets import Target
from tidegate_operator.core.workersets import ENDED_PHASES, WorkerSet

VICTIM_COST = -100
_NO_SCRAPE = Scrape()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainPlan:
    """Draining pods, the replicas to apply per set, and deletion costs to write first."""

    draining: frozenset[str]  # pod UIDs to mark in the table
    acknowledged: frozenset[str]  # of those, the ones that every router let go
    replicas: Mapping[str, int]  # by set name
    costs: Mapping[str, int]  # by pod name, only those that must change
    memory: Mapping[str, DrainMemory] = field(default_factory=dict)


def plan_drains(
    targets: Sequence[Target],
    observation: PoolObservation,
    memory: PoolMemory,
    acknowledgement: Acknowledgement,
    drain_timeout_s: float,
) -> DrainPlan:
    """Return who drains and how far each set may shrink now."""
    drains = _remember(observation, memory, acknowledgement)
    judge = _Judge(observation, drains, _listed(observation), drain_timeout_s)
    victims = {t.workers.name: _victims(t, judge) for t in targets}
    leaving = {pod.uid for group in victims.values() for pod in group}
    terminating = [pod for t in targets for pod in t.workers.pods if pod.terminating]
    let_go = {uid for uid, drain in drains.items() if drain.acked_s is not None}
    return DrainPlan(
        draining=frozenset(leaving | {pod.uid for pod in terminating}),
        acknowledged=frozenset(
            let_go | {pod.uid for pod in terminating if judge.unknown_to_routers(pod)}
        ),
        replicas={t.workers.name: _replicas(t, victims[t.workers.name], judge) for t in targets},
        costs=_costs(targets, victims),
        memory=drains,
    )


def _remember(
    observation: PoolObservation, memory: PoolMemory, acknowledgement: Acknowledgement
) -> dict[str, DrainMemory]:
    """Return a memory for each existing pod that the published table marks as draining."""
    if observation.published is None:
        return {}
    spec = observation.published.spec
    existing = {pod.uid for pod in observation.pods}
    marked = [w.id for w in spec.workers if w.draining and w.id in existing]
    found: dict[str, DrainMemory] = {}
    for uid in marked:
        fresh = DrainMemory(started_s=observation.now_s, sequence=spec.sequence)
        drain = memory.drains.get(uid, fresh)
        if drain.acked_s is None and acknowledgement.acknowledged(drain.sequence):
            drain = replace(drain, acked_s=observation.now_s)
        found[uid] = drain
    return found


def _listed(observation: PoolObservation) -> frozenset[str]:
    published = observation.published
    return frozenset(w.id for w in published.spec.workers) if published else frozenset()


@dataclass(frozen=True, slots=True)
class _Judge:
    """Answers what may happen to one pod."""

    observation: PoolObservation
    drains: Mapping[str, DrainMemory]
    listed: frozenset[str]  # pod UIDs in the published table
    drain_timeout_s: float

    def scrape(self, pod: ObservedPod) -> Scrape:
        return self.observation.scrapes.get(pod.uid, _NO_SCRAPE)

    def busy(self, pod: ObservedPod) -> int:
        state = self.scrape(pod).state
        return sum(m.queue + m.in_flight for m in state.models) if state else 0

    def unknown_to_routers(self, pod: ObservedPod) -> bool:
        return pod.uid not in self.listed and not pod.ready

    def may_go(self, pod: ObservedPod) -> bool:
        """Whether removing this pod now loses no request that could be saved."""
        if self.unknown_to_routers(pod):
            return True
        drain = self.drains.get(pod.uid)
        if drain is None:
            return False
        if self.observation.now_s - drain.started_s >= self.drain_timeout_s:
            return True
        return drain.acked_s is not None and self._is_idle(pod, drain.acked_s)

    def _is_idle(self, pod: ObservedPod, acked_s: float) -> bool:
        """Nothing pending in a scrape made after the acknowledgement; a dead worker is idle."""
        scrape = self.scrape(pod)
        if scrape.error:
            return not pod.ready
        return (scrape.scraped_s or 0.0) > acked_s and not self.busy(pod)


def _victims(target: Target, judge: _Judge) -> tuple[ObservedPod, ...]:
    """Return the pods beyond the target. Replicas that have no pod yet are given up first.

    They stay victims when replicas have fallen already and the ReplicaSet controller is slow.
    """
    alive = target.workers.alive
    surplus = max(0, len(alive) - target.wanted)
    ranked = sorted(
        alive,
        key=lambda pod: (
            pod.ready,
            pod.uid not in judge.drains,
            judge.busy(pod),
            -pod.created_s,
            pod.name,
        ),
    )
    return tuple(ranked[:surplus])


def _replicas(target: Target, victims: Sequence[ObservedPod], judge: _Judge) -> int:
    current = target.workers.replicas
    if target.wanted >= current:
        return target.wanted
    if all(judge.may_go(pod) for pod in victims) and _costs_written(target, victims):
        return target.wanted
    return current


def _costs_written(target: Target, victims: Sequence[ObservedPod]) -> bool:
    """The ReplicaSet controller looks at costs only among equals, so only Ready pods need one."""
    return target.wanted == 0 or all(
        pod.deletion_cost == VICTIM_COST for pod in victims if pod.ready
    )


def _costs(
    targets: Sequence[Target], victims: Mapping[str, Sequence[ObservedPod]]
) -> dict[str, int]:
    """Return the annotations that differ from what they must be."""
    costs: dict[str, int] = {}
    for target in targets:
        chosen = {pod.uid for pod in victims[target.workers.name]} if target.wanted else set()
        for pod in target.workers.alive:
            cost = VICTIM_COST if pod.uid in chosen else 0
            if pod.deletion_cost != cost:
                costs[pod.name] = cost
    return costs


def removable(workers: WorkerSet, target: Target) -> bool:
    """Whether an obsolete set's objects may be deleted: nothing runs and nothing is asked for.

    Ended pods (evicted ones) go with their Deployment.
    """
    gone = all(pod.phase in ENDED_PHASES for pod in workers.pods)
    return target.retire and gone and workers.replicas == 0
