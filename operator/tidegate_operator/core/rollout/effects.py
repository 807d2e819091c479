"""What a transition changes in `Progress`, and what it tells."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tidegate_api.names import RolloutEventReason, RolloutReason
from tidegate_operator.core.rollout.model import Note, Progress, State, Strategy
from tidegate_operator.core.rollout.rules import Found
from tidegate_operator.core.rollout.transitions import TARGETS, Trigger
from tidegate_operator.core.rollout.view import View, is_outage_pause


def apply(view: View, found: Found) -> tuple[Progress, tuple[Note, ...]]:
    """Return the progress after a transition, and its notes."""
    state = TARGETS[view.progress.state, found.trigger]
    effect = _EFFECTS.get(found.trigger)
    changed = effect(view, found) if effect else view.progress
    progress = replace(
        changed,
        state=state,
        since_s=view.now_s,
        progressed_s=view.now_s,
        asked=view.sight.asked,
        reason=found.reason or changed.reason,
        message=found.message or changed.message,
    )
    tell = _NOTES.get(found.trigger)
    return progress, tell(view, found, progress) if tell else ()


def _begin(view: View, _: Found) -> Progress:
    """Step 0 of what is asked for, or no steps at all."""
    skip = not view.policy.steps or _within_rollback_window(view)
    strategies: Mapping[str, Strategy] = {"Auto": "Surge"}
    surge = view.policy.surge
    same = view.progress.canary == view.sight.asked
    return replace(
        view.progress,
        canary=view.sight.asked,
        step_index=len(view.policy.steps) if skip else 0,
        step_since_s=view.now_s,
        step_hash=view.policy.step_hash,
        failed_checks=0,
        aborted=None,
        pinned=None,
        verified=view.progress.verified if same else 0,
        strategy=strategies.get(surge) or _own(surge),
        strategy_message="workers beside stable's" if surge == "Auto" else f"spec.surge is {surge}",
    )


def _own(surge: str) -> Strategy:
    chosen: Mapping[str, Strategy] = {"TerminateFirst": "TerminateFirst", "InPlace": "InPlace"}
    return chosen.get(surge, "Surge")


def _begin_again(view: View, found: Found) -> Progress:
    """New steps: workers and strategy of the same canary stay."""
    begun = _begin(view, found)
    if not (view.published or view.progress.weight):
        return begun
    kept = view.progress
    return replace(begun, strategy=kept.strategy, strategy_message=kept.strategy_message)


def _within_rollback_window(view: View) -> bool:
    kept, stable = view.sight.kept, view.progress.stable
    if stable not in kept:
        return False
    at = kept.index(stable)
    newest = kept[max(0, at - max(0, view.policy.rollback_window)) : at]
    return view.sight.asked in newest


def _settle_on_asked(view: View, _: Found) -> Progress:
    """The asked revision is stable and alone."""
    return replace(
        view.progress,
        stable=view.sight.asked,
        canary=None,
        step_index=len(view.policy.steps),
        step_hash=view.policy.step_hash,
        failed_checks=0,
        aborted=None,
        pinned=None,
        verified=0,
        message="",
    )


def _next_step(view: View, _: Found) -> Progress:
    progress = view.progress
    index = min(progress.step_index + 1, len(view.policy.steps))
    return replace(progress, step_index=index, step_since_s=view.now_s, failed_checks=0)


def _step_anew(view: View, _: Found) -> Progress:
    """Data counts from the verified weight on."""
    return replace(view.progress, step_since_s=view.now_s)


def _all_steps(view: View, _: Found) -> Progress:
    steps = len(view.policy.steps)
    return replace(view.progress, step_index=steps, step_since_s=view.now_s, failed_checks=0)


def _choose(view: View, found: Found) -> Progress:
    strategy = found.strategy or view.progress.strategy
    return replace(view.progress, strategy=strategy, strategy_message=found.message)


def _abort(view: View, _: Found) -> Progress:
    return replace(view.progress, aborted=view.progress.canary)


def _undo(view: View, found: Found) -> Progress:
    """The asked revision counts as aborted at once where it does not serve."""
    progress, asked = view.progress, view.sight.asked
    serving = asked in {progress.stable, found.target}
    return replace(
        progress,
        canary=found.target,
        aborted=None if serving else asked,
        pinned=None,
        verified=0,
        failed_checks=0,
        strategy="Surge",
        strategy_message="workers beside stable's",
    )


def _pin(view: View, _: Found) -> Progress:
    target, asked = view.progress.canary, view.sight.asked
    return replace(
        view.progress, stable=target, pinned=target, canary=None, aborted=asked, verified=0
    )


def _forget_target(view: View, _: Found) -> Progress:
    return replace(view.progress, canary=None, verified=0)


_EFFECTS: Mapping[Trigger, Callable[[View, Found], Progress]] = {
    Trigger.EDITED: _begin,
    Trigger.RETRY: _begin,
    Trigger.STEPS_CHANGED: _begin_again,
    Trigger.REVERTED: _settle_on_asked,
    Trigger.FIRST_EDITED: _settle_on_asked,
    Trigger.FIRST_READY: _settle_on_asked,
    Trigger.NOTHING_TO_RUN: _settle_on_asked,
    Trigger.PROMOTED: _settle_on_asked,
    Trigger.UNDONE_AS_ASKED: _settle_on_asked,
    Trigger.NEXT_WEIGHT: _next_step,
    Trigger.NEXT_TIMED_PAUSE: _next_step,
    Trigger.NEXT_PAUSE: _next_step,
    Trigger.STEPS_DONE: _next_step,
    Trigger.VERIFIED: _step_anew,
    Trigger.VERIFIED_PAUSE: _step_anew,
    Trigger.PROMOTE_FULL: _all_steps,
    Trigger.SURGE_CHOSEN: _choose,
    Trigger.MAKE_ROOM: _choose,
    Trigger.ABORT: _abort,
    Trigger.UNDO: _undo,
    Trigger.UNDONE: _pin,
    Trigger.TARGET_GONE: _forget_target,
    Trigger.TARGET_GONE_ABORTED: _forget_target,
}


def _updated(_: View, __: Found, after: Progress) -> tuple[Note, ...]:
    text = f"revision {after.canary} is rolled out against stable {after.stable}"
    return (Note(RolloutEventReason.ROLLOUT_UPDATED, text),)


def _step_completed(view: View, found: Found, _: Progress) -> tuple[Note, ...]:
    count = len(view.policy.steps)
    index = min(view.progress.step_index + 1, count)
    done = Note(RolloutEventReason.ROLLOUT_STEP_COMPLETED, f"step {index}/{count} is completed")
    resumed = _resumed(view, found, view.progress) if view.progress.state is State.PAUSED else ()
    pauses = found.trigger is Trigger.NEXT_PAUSE
    told = (Note(RolloutEventReason.ROLLOUT_PAUSED, "paused until promote"),) if pauses else ()
    return (*resumed, done, *told)


def _resumed(view: View, _: Found, __: Progress) -> tuple[Note, ...]:
    reason = view.progress.reason
    return (Note(RolloutEventReason.ROLLOUT_RESUMED, f"resumed after {reason}"),)


def _full(view: View, found: Found, after: Progress) -> tuple[Note, ...]:
    paused = view.progress.state is State.PAUSED
    resumed = _resumed(view, found, after) if paused else ()
    text = f"the steps after step {view.progress.step_index} are skipped"
    skipped = () if is_outage_pause(view.progress) else (text,)
    notes = tuple(Note(RolloutEventReason.ROLLOUT_STEP_COMPLETED, item) for item in skipped)
    return (*resumed, *notes)


def _paused(_: View, found: Found, __: Progress) -> tuple[Note, ...]:
    text = f"{found.reason}: {found.message}" if found.message else f"{found.reason}"
    warning = found.reason is RolloutReason.ANALYSIS_FAILED
    return (Note(RolloutEventReason.ROLLOUT_PAUSED, text, warning=warning),)


def _aborted(_: View, found: Found, after: Progress) -> tuple[Note, ...]:
    text = f"revision {after.aborted} is aborted: {found.reason}: {found.message}"
    return (Note(RolloutEventReason.ROLLOUT_ABORTED, text, warning=True),)


def _completed(_: View, __: Found, after: Progress) -> tuple[Note, ...]:
    return (Note(RolloutEventReason.ROLLOUT_COMPLETED, f"revision {after.stable} is stable"),)


def _reverted(view: View, found: Found, after: Progress) -> tuple[Note, ...]:
    return _completed(view, found, after)


def _undone(view: View, _: Found, after: Progress) -> tuple[Note, ...]:
    text = f"revision {after.stable} serves instead of {view.progress.stable}"
    return (Note(RolloutEventReason.ROLLOUT_UNDONE, text),)


def _chosen(_: View, found: Found, after: Progress) -> tuple[Note, ...]:
    text = f"{after.strategy}: {found.message}"
    return (Note(RolloutEventReason.SURGE_CHOSEN, text),)


_NOTES: Mapping[Trigger, Callable[[View, Found, Progress], tuple[Note, ...]]] = {
    Trigger.EDITED: _updated,
    Trigger.RETRY: _updated,
    Trigger.STEPS_CHANGED: _updated,
    Trigger.NEXT_WEIGHT: _step_completed,
    Trigger.NEXT_TIMED_PAUSE: _step_completed,
    Trigger.NEXT_PAUSE: _step_completed,
    Trigger.STEPS_DONE: _step_completed,
    Trigger.PROMOTE_FULL: _full,
    Trigger.OUTAGE: _paused,
    Trigger.VERIFIED_PAUSE: _paused,
    Trigger.NO_DATA: _paused,
    Trigger.BAD_VERDICT: _paused,
    Trigger.CONFIRMED: _resumed,
    Trigger.ABORT: _aborted,
    Trigger.PROMOTED: _completed,
    Trigger.NOTHING_TO_RUN: _completed,
    Trigger.FIRST_READY: _completed,
    Trigger.REVERTED: _reverted,
    Trigger.UNDONE: _undone,
    Trigger.UNDONE_AS_ASKED: _completed,
    Trigger.SURGE_CHOSEN: _chosen,
    Trigger.MAKE_ROOM: _chosen,
}
