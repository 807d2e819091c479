"""Everything that status, conditions and events are told from, after all was decided."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_api.routetable import PoolIdentity
from tidegate_operator.core.acknowledge import Acknowledgement
from tidegate_operator.core.allotment import Allotment
from tidegate_operator.core.drains import DrainPlan
from tidegate_operator.core.observation import (
    OtherPool,
    Owned,
    PoolObservation,
)
from tidegate_operator.core.podfailure import Failure
from tidegate_operator.core.revisions import RevisionPlan
from tidegate_operator.core.rollout.binding import Binding
from tidegate_operator.core.rollout.drive import Driven
from tidegate_operator.core.serving import Course
from tidegate_operator.core.table import pool_identity
from tidegate_operator.core.targets import Target
from tidegate_operator.core.windows import Traffic
from tidegate_operator.core.workersets import WorkerSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One decision's outcome, ready to be described."""

    observation: PoolObservation
    binding: Binding
    plan: RevisionPlan
    allotment: Allotment
    sets: Sequence[WorkerSet]
    targets: Sequence[Target]
    course: Course
    drains: DrainPlan
    acknowledgement: Acknowledgement
    traffic: Traffic
    missing: int  # Ready workers that the desired sets lack
    driven: Driven | None  # a bound rollout's decision
    failures: Sequence[Failure]  # of the desired sets' pods, worst first
    conflicts: Sequence[Owned]  # objects with our names that are not ours

    @property
    def desired(self) -> str | None:
        """The revision that shall run."""
        return self.plan.desired.name if self.plan.desired else None

    @property
    def replacing(self) -> bool:
        """Whether the desired revision does not have the requests yet."""
        return self.desired is not None and self.course.serving not in {None, self.desired}

    @property
    def draining(self) -> int:
        """Workers on their way out."""
        return len(self.drains.draining)

    @property
    def retiring(self) -> bool:
        """Whether obsolete sets are still there."""
        return any(target.retire for target in self.targets)

    @property
    def resizing(self) -> bool:
        """Whether some set does not have its size yet."""
        return any(t.workers.replicas != t.wanted for t in self.targets)

    @property
    def busy(self) -> bool:
        """Whether the next step depends on what routers and workers do within moments."""
        return self.replacing or self.retiring or bool(self.draining) or self.unannounced

    @property
    def unannounced(self) -> bool:
        """Whether routers do not know the workers of a revision that was never stable yet."""
        first = self.observation.pool.status.stable_revision != self.desired
        return first and not (self.course.announced or self.course.overdue)

    @property
    def serving_ready(self) -> int:
        """Ready workers of the revision that gets the requests."""
        return sum(item.ready for item in self.sets if item.revision == self.course.serving)


def find_conflicts(
    observation: PoolObservation, wanted: frozenset[tuple[str, str]]
) -> tuple[Owned, ...]:
    """Return the objects that bear a wanted (kind, name) but are not controlled by this pool."""
    seen = (
        *(item.meta for item in observation.deployments),
        *(item.meta for item in observation.revisions),
        *observation.others,
    )
    uid = observation.pool.metadata.uid
    found = [o for o in seen if (o.kind, o.name) in wanted and o.controller_uid != uid]
    return tuple(sorted(found, key=lambda item: (item.kind, item.name)))


def is_leftover(conflict: Owned, pool_name: str) -> bool:
    """Whether an object belongs to an earlier pool of this name and is about to be collected."""
    same = (conflict.controller_kind, conflict.controller_name) == ("InferencePool", pool_name)
    return same or conflict.terminating


def name_owners(observation: PoolObservation) -> tuple[tuple[str, PoolIdentity], ...]:
    """Return (model, pool) for each model name that an older pool owns (router.md section 2)."""
    mine = _age(pool_identity(observation.pool))
    older = sorted(
        (other for other in observation.other_pools if _age(other.identity) < mine),
        key=lambda other: _age(other.identity),
    )
    models = [model.name for model in observation.pool.spec.template.models]
    return tuple((name, owner) for name in models if (owner := _owner(name, older)) is not None)


def _age(identity: PoolIdentity) -> tuple[str, str, str]:
    return identity.created_at, identity.namespace, identity.name


def _owner(model: str, older: Sequence[OtherPool]) -> PoolIdentity | None:
    return next((other.identity for other in older if model in other.models), None)
