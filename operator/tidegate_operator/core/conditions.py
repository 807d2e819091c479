"""The conditions of a pool: one small function each (operator.md section 9).

kstatus reads Ready, Reconciling and Stalled only; the last two are absent when false. The
transition time moves only when the status does.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate_api.meta import Condition
from tidegate_api.names import ConditionType, Reason
from tidegate_operator.core.facts import Facts, is_leftover, name_owners
from tidegate_operator.core.instants import rfc3339
from tidegate_operator.core.windows import STALE_AFTER_S

PROGRESS_DEADLINE_S = 600.0
_MESSAGE_CHARACTERS = 2000

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without the times."""

    status: Status
    reason: Reason
    message: str = ""


def ready(facts: Facts) -> Verdict:
    """True: the desired revision has all desired workers Ready and gets the requests."""
    blocked = _blocked(facts)
    if blocked is not None:
        return blocked
    if facts.missing:
        return _not_ready(facts)
    if facts.plan.held_back:
        return _held_back(facts)
    if facts.replacing:
        text = f"revision {facts.desired} waits: {facts.course.waits_for}"
        return Verdict("False", Reason.REPLACING_REVISION, text)
    if not facts.allotment.total:
        return Verdict("True", Reason.SCALED_TO_ZERO, "no workers are asked for")
    if facts.unannounced:
        return Verdict("False", Reason.ROUTERS_CATCHING_UP, "routers have yet to see the workers")
    count = facts.allotment.total
    return Verdict("True", Reason.AS_DESIRED, f"{count} of {count} workers are Ready")


def _blocked(facts: Facts) -> Verdict | None:
    """What needs a person before anything can go on."""
    foreign = [
        item
        for item in facts.conflicts
        if not is_leftover(item, facts.observation.pool.metadata.name)
    ]
    if foreign:
        item = foreign[0]
        owner = f"{item.controller_kind} {item.controller_name}" if item.controller_uid else ""
        text = (
            f"{item.kind} {item.name} exists and is controlled by {owner or 'nobody'}, "
            "not by this pool: delete it or rename the pool"
        )
        return Verdict("False", Reason.NAME_CONFLICT, text)
    if facts.observation.refused:
        write = facts.observation.refused[0]
        text = f"{write.kind} {write.name} was refused: {write.message}"
        return Verdict("False", Reason.WRITE_REFUSED, text)
    return None


def _held_back(facts: Facts) -> Verdict:
    """A paused pool serves as asked: waiting for it would time out for nothing."""
    if facts.desired is None:
        return Verdict("False", Reason.PAUSED, "the pool is paused and never ran")
    text = f"revision {facts.desired} serves; {facts.plan.asked} waits for the end of the pause"
    return Verdict("True", Reason.PAUSED, text)


def _not_ready(facts: Facts) -> Verdict:
    if facts.failures:
        worst = facts.failures[0]
        more = len(facts.failures) - 1
        text = worst.message + (f" (and {more} more)" if more else "")
        return Verdict("False", worst.reason, text + _still_serving(facts))
    if facts.conflicts:
        item = facts.conflicts[0]
        text = f"waits until {item.kind} {item.name} of an earlier pool of this name is gone"
        return Verdict("False", Reason.WORKERS_STARTING, text)
    if facts.plan.paused:
        return Verdict("False", Reason.PAUSED, f"the pause keeps {facts.missing} workers back")
    there = facts.allotment.total - facts.missing
    text = f"{there} of {facts.allotment.total} workers are Ready" + _still_serving(facts)
    reason = Reason.REPLACING_REVISION if facts.replacing else Reason.WORKERS_STARTING
    return Verdict("False", reason, text)


def _still_serving(facts: Facts) -> str:
    return f"; revision {facts.course.serving} serves on" if facts.replacing else ""


def stalled(facts: Facts) -> Verdict | None:
    """Present when only a person can help, or a failure outlived the progress deadline."""
    blocked = _blocked(facts)
    if blocked is not None:
        return Verdict("True", blocked.reason, blocked.message)
    if not facts.missing or not facts.failures or not _deadline_passed(facts):
        return None
    worst = facts.failures[0]
    return Verdict("True", worst.reason, worst.message)


def _deadline_passed(facts: Facts) -> bool:
    """Judged by the oldest worker that is not Ready."""
    waiting = [
        pod.created_s for item in facts.sets if item.desired for pod in item.alive if not pod.ready
    ]
    return bool(waiting) and facts.observation.now_s - min(waiting) >= PROGRESS_DEADLINE_S


def reconciling(facts: Facts) -> Verdict | None:
    """Present while the operator is on its way and not stalled."""
    if stalled(facts) is not None:
        return None
    if facts.draining or facts.retiring:
        return Verdict("True", Reason.DRAINING, f"{facts.draining} workers drain")
    return None if facts.plan.paused else _on_the_way(facts)


def _on_the_way(facts: Facts) -> Verdict | None:
    if facts.replacing:
        return Verdict("True", Reason.REPLACING_REVISION, f"towards revision {facts.desired}")
    if facts.missing:
        return Verdict("True", Reason.WORKERS_STARTING, f"{facts.missing} workers to come")
    if facts.unannounced and facts.allotment.total:
        return Verdict("True", Reason.ROUTERS_CATCHING_UP, "routers have yet to see the workers")
    if facts.resizing:
        return Verdict("True", Reason.SCALING, "worker sets change size")
    return None


def workers_available(facts: Facts) -> Verdict:
    """Whether anything serves, whatever revision."""
    count = facts.serving_ready
    if count:
        text = f"{count} workers of revision {facts.course.serving} are Ready"
        return Verdict("True", Reason.WORKERS_READY, text)
    if not facts.allotment.total:
        return Verdict("False", Reason.SCALED_TO_ZERO, "no workers are asked for")
    return Verdict("False", Reason.NO_WORKERS, "no worker is Ready")


def models_loaded(facts: Facts) -> Verdict:
    """Whether each desired worker has loaded each of its models."""
    scrapes = facts.observation.scrapes
    states = [
        (pod.name, scrapes[pod.uid].state)
        for item in facts.sets
        if item.desired
        for pod in item.alive
        if pod.uid in scrapes
    ]
    models = [
        (name, model)
        for name, state in states
        if state
        for model in state.models
        if model.revision in {"", state.revision}
    ]
    waiting = [(name, model) for name, model in models if not model.ready]
    if waiting:
        name, model = waiting[0]
        reason = _model_reason(model.reason)
        text = model.message or "is not ready"
        return Verdict("False", reason, f"pod {name}: model {model.name}: {text}")
    if not models:
        return Verdict("Unknown", Reason.NO_WORKERS, "no agent has answered yet")
    count = len({model.name for _, model in models})
    return Verdict("True", Reason.MODELS_READY, f"{count} models on {len(states)} workers")


def _model_reason(text: str) -> Reason:
    known = {reason.value: reason for reason in Reason}
    return known.get(text, Reason.MODEL_NOT_READY)


def metrics_available(facts: Facts) -> Verdict:
    """Whether queue and latency figures come in from routers."""
    answered = [m for m in facts.observation.routers if m.scraped_s is not None]
    if not answered:
        return Verdict("False", Reason.METRICS_MISSING, "no router has answered")
    newest_s = max(member.scraped_s or 0.0 for member in answered)
    if facts.observation.now_s - newest_s > STALE_AFTER_S:
        return Verdict("False", Reason.METRICS_STALE, "no router has answered for 10 s")
    return Verdict("True", Reason.METRICS_FOUND, f"{len(answered)} routers answer")


def router_synced(facts: Facts) -> Verdict:
    """Whether every live router has applied the present weights."""
    seen = facts.acknowledgement
    if not seen.members:
        return Verdict("Unknown", Reason.NO_ROUTERS, "no router is ready: nothing to wait for")
    if seen.unreachable:
        text = f"router {seen.unreachable[0]} has not answered for 10 s"
        return Verdict("False", Reason.ROUTER_UNREACHABLE, text)
    if not facts.course.settled or facts.course.mark is None:
        text = f"router {', '.join(seen.behind[:3])} has not applied the newest weights"
        return Verdict("False", Reason.ROUTERS_CATCHING_UP, text)
    return Verdict("True", Reason.ROUTERS_SYNCED, f"{seen.members} routers are in step")


def scaling_active(facts: Facts) -> Verdict:
    """False when an autoscaler aims at a child, which the operator owns and will not fight over."""
    children = {item.name for item in facts.sets}
    for scaler in facts.observation.autoscalers:
        if scaler.target_kind == "Deployment" and scaler.target_name in children:
            pool = facts.observation.pool.metadata.name
            text = (
                f"autoscaler {scaler.name} aims at {scaler.target_kind} {scaler.target_name}: "
                f"aim it at inferencepools.tidegate.dev {pool}"
            )
            return Verdict("False", Reason.FOREIGN_AUTOSCALER, text)
    return Verdict("True", Reason.REPLICAS_FIXED, "the size is spec.replicas, or who writes it")


def scaling_limited(facts: Facts) -> Verdict:
    """Whether the classes' bounds keep the pool from its size."""
    if facts.allotment.limited is None:
        return Verdict("False", Reason.DESIRED_WITHIN_RANGE, "the classes' bounds allow the size")
    return Verdict("True", facts.allotment.limited, facts.allotment.message)


def name_taken(facts: Facts) -> Verdict | None:
    """Present when an older pool owns the bare name of one of our models."""
    owners = name_owners(facts.observation)
    if not owners:
        return None
    model, owner = owners[0]
    meta = facts.observation.pool.metadata
    text = (
        f"requests for {model} go to the older pool {owner.namespace}/{owner.name}; "
        f"reach this one by header x-tidegate-pool: {meta.namespace}/{meta.name}"
    )
    return Verdict("True", Reason.OLDER_POOL_OWNS_NAME, text)


def template_overridden(facts: Facts) -> Verdict | None:
    """Present when a deleted ModelRollout's revision stays in the template's place."""
    record = facts.binding.record
    if facts.binding.charge != "Override" or record is None:
        return None
    text = (
        f"modelrollouts.tidegate.dev {record.name} was deleted: revision {facts.desired} stays "
        "until spec.template changes or another rollout names this pool"
    )
    return Verdict("True", Reason.ROLLOUT_DELETED, text)


CONDITIONS: Mapping[ConditionType, Callable[[Facts], Verdict | None]] = {
    ConditionType.READY: ready,
    ConditionType.RECONCILING: reconciling,
    ConditionType.STALLED: stalled,
    ConditionType.WORKERS_AVAILABLE: workers_available,
    ConditionType.MODELS_LOADED: models_loaded,
    ConditionType.METRICS_AVAILABLE: metrics_available,
    ConditionType.ROUTER_SYNCED: router_synced,
    ConditionType.SCALING_ACTIVE: scaling_active,
    ConditionType.SCALING_LIMITED: scaling_limited,
    ConditionType.NAME_TAKEN: name_taken,
    ConditionType.TEMPLATE_OVERRIDDEN: template_overridden,
}


def judge(facts: Facts) -> dict[ConditionType, Verdict]:
    """Return every condition that is present."""
    found = {kind: rule(facts) for kind, rule in CONDITIONS.items()}
    return {kind: verdict for kind, verdict in found.items() if verdict is not None}


def stamp(
    verdicts: Mapping[ConditionType, Verdict],
    previous: Sequence[Condition],
    generation: int,
    now_s: float,
) -> list[Condition]:
    """Return wire conditions; an unchanged status keeps its transition time."""
    before = {item.type: item for item in previous}
    stamped = []
    for kind, verdict in verdicts.items():
        old = before.get(kind.value)
        same = old is not None and old.status == verdict.status
        stamped.append(
            Condition(
                type=kind.value,
                status=verdict.status,
                reason=verdict.reason.value,
                message=verdict.message[:_MESSAGE_CHARACTERS],
                observed_generation=generation,
                last_transition_time=old.last_transition_time
                if old is not None and same
                else rfc3339(now_s),
            )
        )
    return stamped
