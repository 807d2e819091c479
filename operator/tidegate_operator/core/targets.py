"""How many workers each set shall have, and which sets shall go (operator.md sections 2, 3).

Order of a replacement: new workers Ready -> weight moves -> routers acknowledge -> old workers
marked draining -> acknowledged -> idle or drain.timeout -> replicas 0 -> objects removed. A class
edit goes the same way inside one revision, without the weight. Class bounds hold for the desired
size; a replacement runs beyond them for as long as it lasts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_operator.core.serving import Course
from tidegate_operator.core.workersets import WorkerSet


@dataclass(frozen=True, slots=True)
class Target:
    """A set and the size it shall reach. `retire`: it is obsolete and may be drained now."""

    workers: WorkerSet
    wanted: int
    retire: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What targets are decided from, besides the sets."""

    desired: str | None
    course: Course
    counts: Mapping[str, int]  # wanted workers per class
    missing: int  # Ready workers that the desired sets lack
    weighted: frozenset[str]  # revisions with a published weight
    paused: bool


def plan_targets(sets: Sequence[WorkerSet], aim: Aim) -> tuple[Target, ...]:
    """Return one target per set, in the order of `sets`."""
    return tuple(_target(item, aim, _newest_of_class(item, sets)) for item in sets)


def _target(item: WorkerSet, aim: Aim, newest: bool) -> Target:
    if item.desired:
        return Target(item, _held(aim.counts.get(item.accelerator, 0), item, aim))
    if _may_retire(item, aim):
        return Target(item, 0, retire=True)
    if item.revision == aim.course.serving != aim.desired and newest:
        wanted = aim.counts.get(item.accelerator, item.replicas)
        return Target(item, _held(wanted, item, aim))
    return Target(item, item.replicas)


def _held(wanted: int, item: WorkerSet, aim: Aim) -> int:
    """Paused pools never grow."""
    return min(wanted, item.replicas) if aim.paused else wanted


def _newest_of_class(item: WorkerSet, sets: Sequence[WorkerSet]) -> bool:
    """Whether scaling a serving, obsolete revision applies to this set of its class.

    Where a class edit left two, the larger one carries the class.
    """
    rivals = [
        other
        for other in sets
        if (other.revision, other.accelerator) == (item.revision, item.accelerator)
    ]
    return item.name == max(rivals, key=lambda other: (other.replicas, other.name)).name


def _may_retire(item: WorkerSet, aim: Aim) -> bool:
    if item.revision != aim.course.serving:
        let_go = aim.course.settled or aim.course.overdue
        return item.revision not in aim.weighted and let_go and not aim.course.moved
    return item.revision == aim.desired and not aim.missing
