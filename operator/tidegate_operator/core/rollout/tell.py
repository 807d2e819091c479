"""The status and the events of every ModelRollout that names a pool."""

from tidegate_operator.core.decision import RolloutDecision
from tidegate_operator.core.observation import ObservedRollout, PoolObservation
from tidegate_operator.core.rollout.binding import Binding
from tidegate_operator.core.rollout.drive import Driven
from tidegate_operator.core.rollout.kstatus import (
    conflict_status,
    invalid_status,
    rollout_status,
)
from tidegate_operator.core.rollout.model import Note


def tell(
    observation: PoolObservation, binding: Binding, driven: Driven | None
) -> tuple[RolloutDecision, ...]:
    """Return one decision per rollout: the bound one first, then its rivals by age."""
    rivals = [_rival(item, binding, observation.now_s) for item in binding.rivals]
    if binding.bound is None:
        return tuple(rivals)
    return (_bound(observation, binding, binding.bound, driven), *rivals)


def _bound(
    observation: PoolObservation,
    binding: Binding,
    bound: ObservedRollout,
    driven: Driven | None,
) -> RolloutDecision:
    status = bound.status
    notes: tuple[Note, ...] = ()
    if driven is not None:
        outcome = driven.outcome
        status = rollout_status(
            driven.begun.policy, driven.sight, outcome, bound, observation.now_s
        )
        notes = outcome.notes
    if binding.problem:
        status = invalid_status(status, bound.meta.generation, binding.problem, observation.now_s)
    return RolloutDecision(name=bound.meta.name, uid=bound.meta.uid, status=status, notes=notes)


def _rival(item: ObservedRollout, binding: Binding, now_s: float) -> RolloutDecision:
    owner = binding.bound.meta.name if binding.bound else ""
    status = conflict_status(item.status, item.meta.generation, owner, now_s)
    return RolloutDecision(name=item.meta.name, uid=item.meta.uid, status=status)
