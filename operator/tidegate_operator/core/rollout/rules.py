"""What makes a rollout leave the state that it is in: one small rule per state.

The rules that hold in many states go first: what is asked for changed, the steps changed, the
canary must go. Verbs are in `verbs`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidegate_api.names import ANNOTATION_PROMOTE, ANNOTATION_PROMOTE_FULL, RolloutReason
from tidegate_operator.core.rollout.model import State, Strategy
from tidegate_operator.core.rollout.transitions import Trigger
from tidegate_operator.core.rollout.view import (
    EVERYTHING,
    MOVING,
    View,
    covers,
    is_outage_pause,
    is_overdue,
    needed,
    needs_confirmation,
)

_LEAST_FAILURE_S = 10.0  # a canary that fails for less may recover


@dataclass(frozen=True, slots=True)
class Found:
    """A transition that is due, and why."""

    trigger: Trigger
    reason: RolloutReason | None = None
    message: str = ""
    target: str | None = None  # the revision of undo
    strategy: Strategy | None = None


def find(view: View) -> Found | None:
    """Return the transition that is due, verbs aside."""
    general = _asked(view) or _changed_steps(view) or _must_go(view)
    return general or _RULES[view.progress.state](view)


def _subject(view: View) -> str | None:
    """The asked revision that the state is about."""
    progress = view.progress
    if progress.state in MOVING:
        return progress.canary
    if progress.state in {State.ABORTING, State.ABORTED, State.PINNED}:
        return progress.aborted
    if progress.state is State.UNDOING:
        same = view.sight.asked == progress.canary
        return progress.canary if same else progress.asked
    return progress.stable


def _asked(view: View) -> Found | None:
    asked, progress = view.sight.asked, view.progress
    if asked == _subject(view):
        return None
    if asked == progress.stable:
        return Found(Trigger.REVERTED)
    if progress.state is State.FIRST_DEPLOY and not view.stable_track.ready_total:
        return Found(Trigger.FIRST_EDITED)
    return Found(Trigger.EDITED)


def _changed_steps(view: View) -> Found | None:
    changed = view.progress.step_hash != view.policy.step_hash
    if not changed or view.progress.state not in MOVING:
        return None
    return Found(Trigger.STEPS_CHANGED)


def _must_go(view: View) -> Found | None:
    if view.progress.state not in MOVING:
        return None
    return _judged(view) or _dropped(view) or _failing(view) or _stuck(view)


def _judged(view: View) -> Found | None:
    plan, progress = view.judging, view.progress
    if plan is None or progress.failed_checks <= plan.failure_limit:
        return None
    limit = f"{progress.failed_checks} bad windows, failureLimit {plan.failure_limit}"
    words = view.sight.assessment.message
    text = f"{words} ({limit})" if words else limit
    reason = RolloutReason.ANALYSIS_FAILED
    if view.policy.automatic_rollback:
        return Found(Trigger.ABORT, reason, text)
    if progress.state is State.PAUSED and progress.reason is reason:
        return None
    return Found(Trigger.BAD_VERDICT, reason, text)


def _dropped(view: View) -> Found | None:
    """A router's guard broke, or an abort was recorded whose status was lost."""
    canary = view.progress.canary or ""
    words = view.sight.local_aborts.get(canary)
    if words is not None:
        return Found(Trigger.ABORT, RolloutReason.LOCAL_ABORT, words)
    if view.marked and (view.progress.weight or view.published):
        text = f"revision {canary} is recorded as aborted"
        return Found(Trigger.ABORT, RolloutReason.ABORTING, text)
    return None


def _failing(view: View) -> Found | None:
    track, progress = view.canary_track, view.progress
    since_s = track.failing_since_s
    if since_s is None or not track.failure:
        return None
    if progress.state is State.STARTING and not progress.weight:
        since_s = max(since_s, progress.since_s)  # a retry gets its chance
    plan = view.policy.analysis
    held_s = max(_LEAST_FAILURE_S, plan.interval_s if plan else 0.0)
    if view.now_s - since_s < held_s:
        return None
    return Found(Trigger.ABORT, RolloutReason.CANARY_CANNOT_START, track.failure)


def _stuck(view: View) -> Found | None:
    if not (view.published or view.progress.weight) or not is_overdue(view):
        return None
    text = f"no progress for {view.policy.progress_deadline_s:g} s: {view.progress.message}"
    return Found(Trigger.ABORT, RolloutReason.PROGRESS_DEADLINE_EXCEEDED, text)


def _nothing(_: View) -> Found | None:
    return None


def _first_deploy(view: View) -> Found | None:
    need = needed(view.sight.counts, EVERYTHING)
    if not view.sight.settled or not covers(need, view.stable_track.ready):
        return None
    alone = view.sight.published.get(view.progress.stable or "", 0) == EVERYTHING
    return Found(Trigger.FIRST_READY) if alone or not view.total else None


def _starting(view: View) -> Found | None:
    strategy, why = choose_strategy(view)
    if strategy != view.progress.strategy:
        return Found(Trigger.SURGE_CHOSEN, message=why, strategy=strategy)
    if view.sight.paused or view.obstacle or view.marked:
        return None
    if not view.total and not view.progress.weight and not view.published:
        return Found(Trigger.NOTHING_TO_RUN)
    if needs_confirmation(view) and not _is_confirmed(view):
        return Found(Trigger.OUTAGE, RolloutReason.OUTAGE_NEEDS_CONFIRMATION)
    if not view.is_ready_for(view.goal):
        return None
    return Found(Trigger.READY_FOR_ALL if view.all_steps_done else Trigger.READY)


def choose_strategy(view: View) -> tuple[Strategy, str]:
    """Return how the canary gets its workers, and why; decided before it has any weight."""
    progress, surge = view.progress, view.policy.surge
    if progress.weight or view.published:
        return progress.strategy, progress.strategy_message
    if surge != "Auto":
        return surge, f"spec.surge is {surge}"
    crowded = view.canary_track.unschedulable
    if view.sight.in_place_obstacle:
        return "Surge", f"InPlace is not possible: {view.sight.in_place_obstacle}"
    if crowded:
        return "InPlace", f"no room for workers beside stable's: {crowded}"
    if progress.strategy == "InPlace":
        return "InPlace", progress.strategy_message
    return "Surge", "workers beside stable's"


def _is_confirmed(view: View) -> bool:
    """By the verb's record, which outlives the state."""
    handled, canary = view.progress.handled, view.progress.canary
    steps = {f"{canary}/0", f"{canary}/{view.progress.step_index}"}
    step = target_of(handled.get(ANNOTATION_PROMOTE, "")) in steps
    return step or target_of(handled.get(ANNOTATION_PROMOTE_FULL, "")) == canary


def target_of(value: str) -> str:
    """Return what a verb aims at: its value without the time that makes it another edge."""
    return value.partition("@")[0]


def _shifting(view: View) -> Found | None:
    if not view.sight.settled or not view.has_arrived or not view.is_ready_for(view.goal):
        return None
    if math.isinf(view.step_ends_s):
        return Found(Trigger.VERIFIED_PAUSE, RolloutReason.PAUSED_BY_STEP)
    return Found(Trigger.VERIFIED)


def _holding(view: View) -> Found | None:
    if not view.has_arrived or not view.is_ready_for(view.goal):
        return Found(Trigger.WEIGHT_LOST)
    if view.sight.paused or view.now_s < view.step_ends_s:
        return None
    if _followed_by_pause(view) or not view.awaits_pass:
        return after_step(view)
    return _by_data(view)


def _followed_by_pause(view: View) -> bool:
    """A weight that a pause follows is judged in the pause."""
    step, following = view.step, view.progress.step_index + 1
    steps = view.policy.steps
    if step is None or step.is_pause or following >= len(steps):
        return False
    return steps[following].is_pause


def _by_data(view: View) -> Found | None:
    plan, seen = view.judging, view.sight.assessment
    if plan is None or not view.fresh:
        return None
    if seen.passed:
        return after_step(view)
    if not seen.data_missing:
        return None
    text = seen.message or f"fewer than {plan.min_requests} requests"
    if plan.on_no_data == "Pass":
        return after_step(view)
    if plan.on_no_data == "Fail" and view.policy.automatic_rollback:
        return Found(Trigger.ABORT, RolloutReason.NO_DATA, text)
    return Found(Trigger.NO_DATA, RolloutReason.NO_DATA, text)


def after_step(view: View) -> Found:
    """Return the transition to what follows the present step."""
    following = view.progress.step_index + 1
    if following >= len(view.policy.steps):
        return Found(Trigger.STEPS_DONE)
    step = view.policy.steps[following]
    if not step.is_pause:
        return Found(Trigger.NEXT_WEIGHT)
    if step.pause_s is None:
        return Found(Trigger.NEXT_PAUSE, RolloutReason.PAUSED_BY_STEP)
    return Found(Trigger.NEXT_TIMED_PAUSE)


def _paused(view: View) -> Found | None:
    if is_outage_pause(view.progress) and not needs_confirmation(view):
        return Found(Trigger.CONFIRMED)
    return None


def _promoting(view: View) -> Found | None:
    return Found(Trigger.PROMOTED) if _has_everything(view) else None


def _has_everything(view: View) -> bool:
    """Whether all workers are Ready and every live router sends everything there."""
    arrived = view.sight.settled and view.published == EVERYTHING
    return arrived and not view.sight.paused and view.is_ready_for(EVERYTHING)


def _scaling_down(view: View) -> Found | None:
    over = view.now_s - view.progress.since_s >= view.policy.scale_down_delay_s
    return Found(Trigger.DELAY_OVER) if over else None


def _aborting(view: View) -> Found | None:
    gone = view.sight.settled and not view.published
    return Found(Trigger.LET_GO) if gone else None


def _undoing(view: View) -> Found | None:
    target, sight = view.progress.canary, view.sight
    if target is None or (target not in sight.kept and target != sight.asked):
        text = "the revision that undo asked for is gone"
        if view.progress.aborted == sight.asked:
            return Found(Trigger.TARGET_GONE_ABORTED, RolloutReason.ABORTED_BY_USER, text)
        return Found(Trigger.TARGET_GONE)
    if _has_everything(view):
        as_asked = target == sight.asked
        return Found(Trigger.UNDONE_AS_ASKED if as_asked else Trigger.UNDONE)
    crowded = view.canary_track.unschedulable and view.policy.surge == "TerminateFirst"
    if crowded and view.progress.strategy != "TerminateFirst":
        why = f"no room beside stable's workers: {view.canary_track.unschedulable}"
        return Found(Trigger.MAKE_ROOM, message=why, strategy="TerminateFirst")
    return None


_RULES: Mapping[State, Callable[[View], Found | None]] = {
    State.HEALTHY: _nothing,
    State.FIRST_DEPLOY: _first_deploy,
    State.STARTING: _starting,
    State.SHIFTING: _shifting,
    State.HOLDING: _holding,
    State.PAUSED: _paused,
    State.PROMOTING: _promoting,
    State.SCALING_DOWN: _scaling_down,
    State.ABORTING: _aborting,
    State.ABORTED: _nothing,
    State.UNDOING: _undoing,
    State.PINNED: _nothing,
}
