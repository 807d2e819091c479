"""Which ModelRollout decides what a pool runs, and what it asks for (operator.md section 3).

Bound is the oldest that names the pool, by (creationTimestamp, name); others are in conflict.
Once the bound one is deleted, the stable revision stays until the pool's own template changes or
another rollout binds: a pruned rollout would else silently downgrade production.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate_api.merge import merge_template
from tidegate_api.pool import InferencePoolStatus, RolloutBinding
from tidegate_api.template import JsonObject
from tidegate_api.validation import problems_of_merged
from tidegate_operator.core.identity import stable_hash
from tidegate_operator.core.observation import ObservedRollout, PoolObservation

Charge = Literal["Pool", "Rollout", "Override"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Who is in charge of the template.

    `template`: what shall run; None while it cannot be told (`problem` says why) and the stable
    revision serves on. Under an override it is None too: the stable revision stays.
    """

    charge: Charge
    template: JsonObject | None
    bound: ObservedRollout | None = None
    rivals: tuple[ObservedRollout, ...] = ()
    problem: str = ""
    record: RolloutBinding | None = None  # what the pool's status keeps of it


def bind(observation: PoolObservation) -> Binding:
    """Return who is in charge and what is asked for."""
    living = _by_age(observation.rollouts)
    own_hash = stable_hash(observation.template)
    if living:
        return _bound(observation, living[0], tuple(living[1:]), own_hash)
    before = observation.pool.status.rollout
    if before is not None and _overrides(before, observation.pool.status, own_hash):
        record = before.model_copy(update={"deleted": True})
        return Binding(charge="Override", template=None, record=record)
    return Binding(charge="Pool", template=observation.template)


def _by_age(rollouts: Sequence[ObservedRollout]) -> list[ObservedRollout]:
    living = [item for item in rollouts if not item.meta.deletion_timestamp]
    return sorted(living, key=lambda item: (item.meta.creation_timestamp, item.meta.name))


def _bound(
    observation: PoolObservation,
    bound: ObservedRollout,
    rivals: tuple[ObservedRollout, ...],
    own_hash: str,
) -> Binding:
    merged, problem = _merged(observation, bound)
    meta = bound.meta
    record = RolloutBinding(name=meta.name, uid=meta.uid, template_hash=own_hash)
    return Binding(
        charge="Rollout",
        template=merged,
        bound=bound,
        rivals=rivals,
        problem=problem,
        record=record,
    )


def _merged(observation: PoolObservation, bound: ObservedRollout) -> tuple[JsonObject | None, str]:
    """Return (template, ""), or (None, what is wrong with it)."""
    if bound.rollout is None:
        return None, bound.problem
    merged, unknown = merge_template(observation.template, bound.template)
    pool = observation.pool.model_dump(mode="json", by_alias=True, exclude_none=True)
    problems = unknown or problems_of_merged(pool, merged)
    if problems:
        return None, "; ".join(map(str, problems))
    return merged, ""


def _overrides(before: RolloutBinding, status: InferencePoolStatus, own_hash: str) -> bool:
    return before.template_hash == own_hash and status.stable_revision is not None
