"""How many workers each set shall have, and which sets shall go (operator.md sections 2, 3).

Order of a replacement: new workers Ready -> weight moves -> routers acknowledge -> old workers
marked draining -> acknowledged -> idle or drain.timeout -> replicas 0 -> objects removed. A class
edit goes the same way inside one revision, without the weight. Class bounds hold for the desired
size; a replacement runs beyond them for as long as it lasts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate_operator.core.allotment import Allotment
from tidegate_operator.core.observation import ObservedAutoscaler
from tidegate_operator.core.serving import Aspiration, Course
from tidegate_operator.core.workersets import WorkerSet


@dataclass(frozen=True, slots=True)
class Target:
    """A set and the size it shall reach. `retire`: it is obsolete and may be drained now."""

    workers: WorkerSet
    wanted: int
    retire: bool = False


def respect_autoscalers(
    allotment: Allotment, sets: Sequence[WorkerSet], autoscalers: Sequence[ObservedAutoscaler]
) -> Allotment:
    """Return the allotment with the size of each set that a foreign autoscaler drives.

    Someone aimed an HPA at our Deployment: the condition says so, and we never write against it.
    """
    aimed = {item.target_name for item in autoscalers if item.target_kind == "Deployment"}
    driven = {
        item.accelerator: item.replicas
        for item in sets
        if item.desired and item.deployment is not None and item.name in aimed
    }
    return replace(allotment, counts={**allotment.counts, **driven}) if driven else allotment


def plan_targets(sets: Sequence[WorkerSet], aim: Aspiration, course: Course) -> tuple[Target, ...]:
    """Return one target per set, in the order of `sets`."""
    if aim.scale is not None:
        return tuple(_steered(item, aim.scale, course, sets) for item in sets)
    return tuple(_target(item, aim, course, carries=_carries_class(item, sets)) for item in sets)


def _steered(
    item: WorkerSet,
    scale: Mapping[str, Mapping[str, int]],
    course: Course,
    sets: Sequence[WorkerSet],
) -> Target:
    """A rollout says how many workers each revision has; what it does not name goes."""
    counts = scale.get(item.revision)
    if counts is None:
        gone = _let_go(item, course)
        return Target(item, 0, retire=True) if gone else Target(item, item.replicas)
    siblings = [other for other in sets if other.revision == item.revision]
    successors = [other for other in siblings if other.current]
    if item.current or (not successors and _carries_class(item, sets)):
        return Target(item, counts.get(item.accelerator, 0))
    if all(other.ready >= counts.get(other.accelerator, 0) for other in successors):
        return Target(item, 0, retire=True)
    return Target(item, item.replicas)


def _target(item: WorkerSet, aim: Aspiration, course: Course, *, carries: bool) -> Target:
    if item.desired:
        return Target(item, _held(aim.counts.get(item.accelerator, 0), item, aim))
    if _may_retire(item, aim, course):
        return Target(item, 0, retire=True)
    if item.revision == course.serving != aim.desired and carries:
        wanted = aim.counts.get(item.accelerator, item.replicas)
        return Target(item, _held(wanted, item, aim))
    return Target(item, item.replicas)


def _held(wanted: int, item: WorkerSet, aim: Aspiration) -> int:
    """Paused pools never grow."""
    return min(wanted, item.replicas) if aim.paused else wanted


def _carries_class(item: WorkerSet, sets: Sequence[WorkerSet]) -> bool:
    """Whether scaling a serving, obsolete revision applies to this set of its class.

    Where a class edit left two, the larger one carries the class.
    """
    rivals = [
        other
        for other in sets
        if (other.revision, other.accelerator) == (item.revision, item.accelerator)
    ]
    return item.name == max(rivals, key=lambda other: (other.replicas, other.name)).name


def _may_retire(item: WorkerSet, aim: Aspiration, course: Course) -> bool:
    """Another revision's set once no router sends there, ours once its successor is Ready."""
    if item.revision == course.serving:
        return item.revision == aim.desired and not aim.missing
    return _let_go(item, course)


def _let_go(item: WorkerSet, course: Course) -> bool:
    """Whether no router sends to this set's revision any more."""
    weighted = {entry.revision for entry in course.mark.weights} if course.mark else set()
    let_go = course.settled or course.overdue
    return let_go and not course.moved and item.revision not in weighted
