"""The states of a rollout and what takes it from one to another.

The machine looks every transition up here, and docs/rollouts.md draws it from here.
"""

from dataclasses import dataclass
from enum import StrEnum

from tidegate_operator.core.rollout.model import State
from tidegate_operator.core.rollout.view import MOVING


class Trigger(StrEnum):
    """What makes a rollout change its state."""

    EDITED = "another revision is asked for"
    REVERTED = "the stable revision is asked for"
    STEPS_CHANGED = "spec.steps changed"
    FIRST_EDITED = "edited before any worker was Ready"
    FIRST_READY = "first workers Ready"
    SURGE_CHOSEN = "another way to get workers"
    OUTAGE = "stable would have no worker"
    CONFIRMED = "promote, or no outage any more"
    NOTHING_TO_RUN = "0 workers are asked for"
    READY = "workers Ready"
    READY_FOR_ALL = "workers for everything Ready"
    VERIFIED = "weight acknowledged"
    VERIFIED_PAUSE = "weight acknowledged, the step is a pause without end"
    WEIGHT_LOST = "a worker is lost"
    NEXT_WEIGHT = "step done, a weight follows"
    NEXT_TIMED_PAUSE = "step done, a timed pause follows"
    NEXT_PAUSE = "step done, a pause without end follows"
    STEPS_DONE = "last step done"
    PROMOTE_FULL = "promote-full"
    NO_DATA = "no data and onNoData: Pause"
    BAD_VERDICT = "analysis failed, no automatic rollback"
    PROMOTED = "100 % acknowledged"
    DELAY_OVER = "scaleDownDelay over"
    ABORT = "abort"
    LET_GO = "weight 0 acknowledged"
    RETRY = "retry"
    UNDO = "undo"
    MAKE_ROOM = "no room beside stable"
    UNDONE = "100 % acknowledged, the spec asks for another"
    UNDONE_AS_ASKED = "100 % acknowledged, as the spec asks"
    TARGET_GONE = "the revision of undo is gone"
    TARGET_GONE_ABORTED = "the revision of undo is gone, the asked one is aborted"


@dataclass(frozen=True, slots=True)
class Row:
    """In any of `states`, `trigger` leads to `target`."""

    states: frozenset[State]
    trigger: Trigger
    target: State
    meaning: str


def _row(states: State | frozenset[State], trigger: Trigger, target: State, meaning: str) -> Row:
    chosen = states if isinstance(states, frozenset) else frozenset({states})
    return Row(chosen, trigger, target, meaning)


_ALL = frozenset(State)
_STEPPING = frozenset({State.HOLDING, State.PAUSED})

TRANSITIONS: tuple[Row, ...] = (
    _row(
        State.FIRST_DEPLOY,
        Trigger.FIRST_READY,
        State.HEALTHY,
        "The first revision serves; there was nothing to compare it with, so no steps.",
    ),
    _row(
        State.FIRST_DEPLOY,
        Trigger.FIRST_EDITED,
        State.FIRST_DEPLOY,
        "No worker was Ready yet: the new revision takes the place of the old one.",
    ),
    _row(
        _ALL,
        Trigger.EDITED,
        State.STARTING,
        "Step 0 against the same stable revision; an earlier canary gets weight 0 at once.",
    ),
    _row(
        _ALL,
        Trigger.REVERTED,
        State.HEALTHY,
        "The canary gets weight 0 at once, an abort is forgotten, no steps.",
    ),
    _row(
        MOVING,
        Trigger.STEPS_CHANGED,
        State.STARTING,
        "Step 0 of the new steps with the same canary.",
    ),
    _row(
        State.STARTING,
        Trigger.SURGE_CHOSEN,
        State.STARTING,
        "status.surge says which strategy and why.",
    ),
    _row(
        State.STARTING,
        Trigger.OUTAGE,
        State.PAUSED,
        "TerminateFirst would stop the last worker of stable: promote confirms it.",
    ),
    _row(
        State.STARTING,
        Trigger.NOTHING_TO_RUN,
        State.HEALTHY,
        "A pool without workers takes the new revision without steps.",
    ),
    _row(
        State.STARTING,
        Trigger.READY,
        State.SHIFTING,
        "Every class has the Ready workers that the step's weight needs.",
    ),
    _row(
        State.STARTING,
        Trigger.READY_FOR_ALL,
        State.PROMOTING,
        "No steps to take: none are written, promote-full, or rollbackWindow.",
    ),
    _row(
        State.SHIFTING,
        Trigger.VERIFIED,
        State.HOLDING,
        "Every live router applied the weight.",
    ),
    _row(State.SHIFTING, Trigger.VERIFIED_PAUSE, State.PAUSED, "The first step is a pause."),
    _row(
        State.HOLDING,
        Trigger.WEIGHT_LOST,
        State.SHIFTING,
        "Fewer Ready workers carry less: the step is verified again when they are back.",
    ),
    _row(_STEPPING, Trigger.NEXT_WEIGHT, State.STARTING, "Workers for the next weight start."),
    _row(_STEPPING, Trigger.NEXT_TIMED_PAUSE, State.HOLDING, "The pause's time runs."),
    _row(_STEPPING, Trigger.NEXT_PAUSE, State.PAUSED, "Until promote."),
    _row(_STEPPING, Trigger.STEPS_DONE, State.PROMOTING, "The canary takes everything."),
    _row(
        State.HOLDING,
        Trigger.NO_DATA,
        State.PAUSED,
        "Too few requests to judge: until promote.",
    ),
    _row(
        MOVING,
        Trigger.BAD_VERDICT,
        State.PAUSED,
        "automaticRollback: false. Until promote, or abort.",
    ),
    _row(
        State.PAUSED,
        Trigger.CONFIRMED,
        State.STARTING,
        "The outage is accepted, or needs no confirmation any more.",
    ),
    _row(
        MOVING,
        Trigger.PROMOTE_FULL,
        State.STARTING,
        "The remaining steps are skipped; readiness and acknowledgement are not.",
    ),
    _row(
        State.PROMOTING,
        Trigger.PROMOTED,
        State.SCALING_DOWN,
        "The canary is stable now; the old workers are kept for a while.",
    ),
    _row(State.SCALING_DOWN, Trigger.DELAY_OVER, State.HEALTHY, "The old workers drain."),
    _row(
        MOVING,
        Trigger.ABORT,
        State.ABORTING,
        "By the verb, analysis, a router's guard, a canary that cannot start, progressDeadline.",
    ),
    _row(
        State.ABORTING,
        Trigger.LET_GO,
        State.ABORTED,
        "No router sends to the canary; sticky for this revision.",
    ),
    _row(
        frozenset({State.ABORTED, State.PINNED}),
        Trigger.RETRY,
        State.STARTING,
        "Step 0 with the same revision.",
    ),
    _row(
        _ALL - {State.FIRST_DEPLOY},
        Trigger.UNDO,
        State.UNDOING,
        "A kept revision takes everything; a canary gets weight 0 at once.",
    ),
    _row(
        State.UNDOING,
        Trigger.MAKE_ROOM,
        State.UNDOING,
        "Under surge: TerminateFirst stable makes room.",
    ),
    _row(
        State.UNDOING,
        Trigger.UNDONE,
        State.PINNED,
        "Until retry or an edit; the asked revision counts as aborted.",
    ),
    _row(
        State.UNDOING,
        Trigger.UNDONE_AS_ASKED,
        State.SCALING_DOWN,
        "The spec was edited to the same revision meanwhile.",
    ),
    _row(State.UNDOING, Trigger.TARGET_GONE, State.HEALTHY, "Stable serves on."),
    _row(State.UNDOING, Trigger.TARGET_GONE_ABORTED, State.ABORTING, "Stable serves on."),
)

TARGETS: dict[tuple[State, Trigger], State] = {
    (state, row.trigger): row.target for row in TRANSITIONS for state in row.states
}
