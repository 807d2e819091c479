"""How a pool's replicas spread over its accelerator classes (operator.md section 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_api.names import Reason
from tidegate_api.pool import AcceleratorClass


@dataclass(frozen=True, slots=True)
class Allotment:
    """Workers per class, by class name in list order, and why the total differs if it does."""

    counts: Mapping[str, int]
    limited: Reason | None = None
    message: str = ""

    @property
    def total(self) -> int:
        """Workers over all classes."""
        return sum(self.counts.values())


def allot(replicas: int, classes: Sequence[AcceleratorClass]) -> Allotment:
    """Give each class its minimum, then fill classes in list order up to their maxima.

    Worked examples, classes as name(min..max):
      replicas 3, a(0..2) b(0..)    -> a 2, b 1
      replicas 3, a(0..)  b(2..)    -> a 1, b 2
      replicas 1, a(1..)  b(1..)    -> a 1, b 1, TooFewReplicas
      replicas 9, a(0..2) b(0..3)   -> a 2, b 3, TooManyReplicas
      replicas 0, a(1..)            -> a 1, TooFewReplicas
    """
    counts = {item.name: _minimum(item) for item in classes}
    missing = replicas - sum(counts.values())
    if missing < 0:
        text = f"spec.replicas is {replicas}, but the classes' minima sum to {replicas - missing}"
        return Allotment(counts, Reason.TOO_FEW_REPLICAS, f"{text}: the minima run")
    for item in classes:
        added = min(missing, _room(item, counts[item.name]))
        counts[item.name] += added
        missing -= added
    if not missing:
        return Allotment(counts)
    text = f"spec.replicas is {replicas}, but the classes' maxima sum to {replicas - missing}"
    return Allotment(counts, Reason.TOO_MANY_REPLICAS, f"{text}: the maxima run")


def _minimum(item: AcceleratorClass) -> int:
    return (item.replicas.min or 0) if item.replicas else 0


def _room(item: AcceleratorClass, count: int) -> int:
    limit = item.replicas.max if item.replicas else None
    return max(0, limit - count) if limit is not None else 2**31
