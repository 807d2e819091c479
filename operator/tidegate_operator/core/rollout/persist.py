"""Progress <-> status of a ModelRollout.

Status is all that a new operator has. Reading is total: what cannot be read counts as absent,
and the state machine rebuilds what it needs.
"""

import datetime as dt
from collections.abc import Mapping

from pydantic import ValidationError

from tidegate_api.names import (
    ANNOTATION_ABORT,
    ANNOTATION_PROMOTE,
    ANNOTATION_PROMOTE_FULL,
    ANNOTATION_RESTARTED_AT,
    ANNOTATION_RETRY,
    ANNOTATION_UNDO,
    RolloutCondition,
    RolloutReason,
)
from tidegate_api.rollout import HandledVerbs, ModelRolloutStatus, SurgeStatus
from tidegate_operator.core.instants import rfc3339_micro
from tidegate_operator.core.rollout.model import Policy, Progress, State, Strategy
from tidegate_operator.core.rollout.verbs import VERB_CHARACTERS

_LAST_S = 253_402_300_799.0  # of the year 9999
_WORDS = 2048
_FIELDS: Mapping[str, str] = {
    ANNOTATION_PROMOTE: "promote",
    ANNOTATION_PROMOTE_FULL: "promote_full",
    ANNOTATION_ABORT: "abort",
    ANNOTATION_RETRY: "retry",
    ANNOTATION_UNDO: "undo",
    ANNOTATION_RESTARTED_AT: "restarted_at",
}


def status_of(document: object) -> ModelRolloutStatus:
    """Return the status of the wire; one that breaks the schema counts as lost."""
    try:
        return ModelRolloutStatus.model_validate(document)
    except ValidationError:
        return ModelRolloutStatus()


def progress_of(status: ModelRolloutStatus) -> Progress:
    """Return what the state machine remembers; `Progress()` where there is no status."""
    state = _state(status.state)
    if state is None:
        return Progress(handled=_handled(status.handled_verbs))
    surge = status.surge
    return Progress(
        state=state,
        since_s=_epoch_s(status.state_since),
        step_index=status.current_step_index or 0,
        step_since_s=_epoch_s(status.step_started_at),
        step_hash=status.step_hash or "",
        progressed_s=_epoch_s(status.progressed_at),
        ready_workers=status.ready_workers,
        stable=status.stable_revision or None,
        canary=status.canary_revision or None,
        asked=status.asked_revision or None,
        weight=status.canary_weight,
        verified=status.verified_weight,
        failed_checks=status.failed_checks,
        aborted=status.aborted_revision or None,
        pinned=status.pinned_revision or None,
        reason=_reason(status),
        message=status.message,
        strategy=_strategy(surge.strategy if surge else ""),
        strategy_message=surge.message if surge else "",
        handled=_handled(status.handled_verbs),
    )


def remembered(
    policy: Policy, progress: Progress, previous: ModelRolloutStatus
) -> ModelRolloutStatus:
    """Return `previous` with the machine's fields replaced; the reason is in the conditions."""
    return previous.model_copy(
        update={
            "state": progress.state.value,
            "state_since": rfc3339_micro(progress.since_s),
            "current_step_index": max(0, progress.step_index),
            "step_count": len(policy.steps),
            "step_hash": progress.step_hash or None,
            "step_started_at": rfc3339_micro(progress.step_since_s),
            "progressed_at": rfc3339_micro(progress.progressed_s),
            "ready_workers": max(0, progress.ready_workers),
            "stable_revision": progress.stable,
            "canary_revision": progress.canary,
            "asked_revision": progress.asked,
            "canary_weight": progress.weight,
            "verified_weight": progress.verified,
            "failed_checks": progress.failed_checks,
            "aborted_revision": progress.aborted,
            "pinned_revision": progress.pinned,
            "message": progress.message[:_WORDS],
            "surge": SurgeStatus(
                strategy=progress.strategy, message=progress.strategy_message[:1024]
            ),
            "handled_verbs": _shown(progress.handled),
        }
    )


def _shown(handled: Mapping[str, str]) -> HandledVerbs:
    return HandledVerbs.model_validate(
        {
            field: handled[annotation][:VERB_CHARACTERS]
            for annotation, field in _FIELDS.items()
            if annotation in handled
        }
    )


def _handled(verbs: HandledVerbs) -> dict[str, str]:
    values = verbs.model_dump()
    return {name: values[field] for name, field in _FIELDS.items() if values[field] is not None}


def _state(text: str) -> State | None:
    return State(text) if text in set(State) else None


def _strategy(text: str) -> Strategy:
    known: Mapping[str, Strategy] = {"TerminateFirst": "TerminateFirst", "InPlace": "InPlace"}
    return known.get(text, "Surge")


def _reason(status: ModelRolloutStatus) -> RolloutReason:
    """The condition Progressing always bears the state's reason."""
    kind = RolloutCondition.PROGRESSING.value
    found = next((item.reason for item in status.conditions if item.type == kind), "")
    return RolloutReason(found) if found in set(RolloutReason) else RolloutReason.COMPLETED


def _epoch_s(text: str | None) -> float:
    """An instant of the wire; the epoch where there is none: it counts as long past."""
    try:
        moment = dt.datetime.fromisoformat((text or "").strip())
    except ValueError:
        return 0.0
    epoch_s = moment.replace(tzinfo=moment.tzinfo or dt.UTC).timestamp()
    return min(max(0.0, epoch_s), _LAST_S)
