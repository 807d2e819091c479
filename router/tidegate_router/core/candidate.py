"""A worker that may serve a model of a revision, ready to be drawn."""

from dataclasses import dataclass, field

from tidegate_api.routetable import RoutedWorker, Served
from tidegate_router.core.down import Health
from tidegate_router.core.filters import repeatable
from tidegate_router.core.slot import Slot


@dataclass(slots=True, kw_only=True, eq=False)
class Candidate:
    """Made anew by every rebuild; `slot` and `health` stay the same objects.

    `weight` is the effective one, `inverse` is 1 / weight. `median_s`: latency of its revision and
    class, what a worker without samples counts as.
    """

    worker: RoutedWorker
    served: Served
    limit: int
    slot: Slot
    weight: float
    median_s: float
    health: Health = field(default_factory=Health)
    inverse: float = 0.0
    repeatable: bool = False

    def __post_init__(self) -> None:
        """Derive what every draw and every attempt reads."""
        self.inverse = 1 / self.weight
        self.repeatable = repeatable(self.served)

    @property
    def name(self) -> str:
        """Name for people."""
        return self.worker.name or self.worker.id
