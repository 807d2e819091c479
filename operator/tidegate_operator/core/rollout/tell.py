"""The status and the events of every ModelRollout that names a pool."""

from tidegate_api.names import RolloutEventReason
from tidegate_operator.core.decision import RolloutDecision
from tidegate_operator.core.events import sets_created, sets_scaled
from tidegate_operator.core.facts import Facts
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.rollout.analysis import step_too_short
from tidegate_operator.core.rollout.binding import Binding
from tidegate_operator.core.rollout.drive import Driven
from tidegate_operator.core.rollout.kstatus import (
    conflict_status,
    invalid_status,
    rollout_status,
)
from tidegate_operator.core.rollout.model import Note
from tidegate_operator.core.rollout.view import weight_at


def tell(facts: Facts) -> tuple[RolloutDecision, ...]:
    """Return one decision per rollout: the bound one first, then its rivals by age."""
    binding = facts.binding
    rivals = [_rival(item, binding, facts.observation.now_s) for item in binding.rivals]
    if binding.bound is None:
        return tuple(rivals)
    return (_bound(facts, binding.bound), *rivals)


def _bound(facts: Facts, bound: ObservedRollout) -> RolloutDecision:
    status, now_s = bound.status, facts.observation.now_s
    notes: list[Note] = []
    if facts.driven is not None:
        driven = facts.driven
        status = rollout_status(driven.begun.policy, driven.sight, driven.outcome, bound, now_s)
        notes = [*driven.outcome.notes, *_scaled(facts), *_short_steps(facts, driven)]
    if problem := facts.binding.problem:
        notes.append(Note(RolloutEventReason.INVALID_SPEC, problem, warning=True))
        status = invalid_status(status, bound.meta.generation, problem, now_s)
    return RolloutDecision(
        name=bound.meta.name, uid=bound.meta.uid, status=status, notes=tuple(notes)
    )


def _scaled(facts: Facts) -> list[Note]:
    told = (*sets_created(facts), *sets_scaled(facts))
    return [Note(RolloutEventReason.SCALING_REPLICA_SET, event.message) for event in told]


def _short_steps(facts: Facts, driven: Driven) -> list[Note]:
    """Warn once, when a canary begins, of timed steps that cannot see minRequests."""
    policy, rate = driven.begun.policy, facts.traffic.requests_per_second
    begins = any(n.reason is RolloutEventReason.ROLLOUT_UPDATED for n in driven.outcome.notes)
    if not begins or policy.analysis is None or not rate:
        return []
    least = policy.analysis.min_requests
    return [
        Note(
            RolloutEventReason.STEP_TOO_SHORT_FOR_TRAFFIC,
            f"step {index + 1}: {rate:.1f} requests/s x {weight_at(policy.steps, index)} % x "
            f"{step.pause_s:.0f} s is less than minRequests {least}: the step will wait for data",
            warning=True,
        )
        for index, step in enumerate(policy.steps)
        if step.pause_s is not None
        and step_too_short(rate, weight_at(policy.steps, index), step.pause_s, least)
    ]


def _rival(item: ObservedRollout, binding: Binding, now_s: float) -> RolloutDecision:
    owner = binding.bound.meta.name if binding.bound else ""
    status = conflict_status(item.status, item.meta.generation, owner, now_s)
    text = f"the pool is in the hands of the older ModelRollout {owner}: nothing is done"
    notes = (Note(RolloutEventReason.CONFLICT, text, warning=True),)
    return RolloutDecision(name=item.meta.name, uid=item.meta.uid, status=status, notes=notes)
