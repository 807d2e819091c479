"""The rollout's state machine: advance(policy, sight, before) -> what must be so now.

Level-triggered and total. It is called at every event and at least each second, may take several
transitions at once, and gives the weights of one table. The shell writes `mark_aborted` first,
then status and table in any order, `unmark_aborted` last: whichever write is lost, the next
decision on what is left comes to the same end.

weights and workers: `scale`. transitions: `transitions`, `rules`, `verbs`, `effects`.
"""

from collections.abc import Iterable
from dataclasses import replace

from tidegate_api.names import RolloutEventReason, RolloutReason
from tidegate_operator.core.rollout import scale, words
from tidegate_operator.core.rollout.effects import apply
from tidegate_operator.core.rollout.model import (
    Note,
    Outcome,
    Policy,
    Progress,
    Sight,
    State,
)
from tidegate_operator.core.rollout.recover import opening
from tidegate_operator.core.rollout.rules import find
from tidegate_operator.core.rollout.transitions import TRANSITIONS
from tidegate_operator.core.rollout.verbs import Heard, awaits_unmark, hear
from tidegate_operator.core.rollout.view import MOVING, View, is_overdue

__all__ = ["TRANSITIONS", "advance"]

_SPARE_TRANSITIONS = 16


def advance(policy: Policy, sight: Sight, before: Progress) -> Outcome:
    """Return what must be so now; raises for no input."""
    progress, notes = _look(policy, sight, opening(policy, sight, before))
    started = progress
    for _ in range(2 * len(policy.steps) + _SPARE_TRANSITIONS):
        view = View(
            policy=policy, sight=sight, progress=progress, fresh=_is_fresh(progress, started)
        )
        moved = _transition(view)
        if moved is None:
            break
        progress, told = moved
        notes.extend(told)
    return _outcome(View(policy=policy, sight=sight, progress=progress), before, notes)


def _is_fresh(progress: Progress, started: Progress) -> bool:
    """Whether the assessment, made before this decision, is about the present step."""
    step = (progress.canary, progress.step_index, progress.step_since_s)
    return step == (started.canary, started.step_index, started.step_since_s)


def _transition(view: View) -> tuple[Progress, tuple[Note, ...]] | None:
    found = find(view)
    if found is not None:
        return apply(view, found)
    heard = hear(view)
    return None if heard is None else _obey(view, heard)


def _obey(view: View, heard: Heard) -> tuple[Progress, tuple[Note, ...]]:
    handled = {**view.progress.handled, heard.annotation: heard.value}
    if heard.found is None:
        name = heard.annotation.rpartition("/")[2]
        text = f"{name} {heard.value} is ignored: {heard.refusal}"
        note = Note(RolloutEventReason.VERB_IGNORED, text, warning=True)
        return replace(view.progress, handled=handled), (note,)
    progress, notes = apply(view, heard.found)
    return replace(progress, handled=handled), notes


def _look(policy: Policy, sight: Sight, progress: Progress) -> tuple[Progress, list[Note]]:
    """Take in what happened since: an acknowledged weight, a Ready worker, a bad window."""
    notes: list[Note] = []
    view = View(policy=policy, sight=sight, progress=progress)
    ready = _ready_workers(view)
    verified = view.published if sight.settled else progress.verified
    if progress.canary is not None and verified != progress.verified:
        text = f"every live router sends {verified} % to {progress.canary}"
        notes.append(Note(RolloutEventReason.TRAFFIC_WEIGHT_VERIFIED, text))
    resumed = progress.reason is RolloutReason.PAUSED_BY_USER and not sight.paused
    if resumed:
        notes.append(Note(RolloutEventReason.ROLLOUT_RESUMED, "resumed by the user"))
    moved = resumed or verified != progress.verified or ready > progress.ready_workers
    progress = replace(
        progress,
        verified=verified,
        ready_workers=ready,
        progressed_s=sight.now_s if moved else progress.progressed_s,
    )
    return _count_failure(replace(view, progress=progress), notes)


def _ready_workers(view: View) -> int:
    track = view.stable_track if view.progress.canary is None else view.canary_track
    return track.ready_total


def _count_failure(view: View, notes: list[Note]) -> tuple[Progress, list[Note]]:
    progress, seen = view.progress, view.sight.assessment
    concerned = progress.state in MOVING and progress.canary == view.sight.asked
    if not seen.bad or not concerned or view.policy.analysis is None:
        return progress, notes
    effect = "" if view.judging else " (changes nothing: dryRun or before startingStep)"
    text = f"step {progress.step_index + 1}: {seen.message}{effect}"
    notes.append(Note(RolloutEventReason.ANALYSIS_RUN_FAILED, text, warning=True))
    if view.judging is None:
        return progress, notes
    return replace(progress, failed_checks=progress.failed_checks + 1), notes


def _outcome(view: View, before: Progress, notes: list[Note]) -> Outcome:
    weight = scale.canary_weight(view)
    reason = words.reason(view)
    progress = replace(
        view.progress,
        asked=view.sight.asked,
        weight=weight,
        ready_workers=_ready_workers(view),
        reason=reason,
        message=words.message(view, weight),
    )
    notes.extend(_changes(before, progress))
    mark, unmark = _marks(view)
    return Outcome(
        progress=progress,
        weights=scale.weights(view, weight),
        scale=scale.workers(view, weight),
        notes=tuple(notes),
        mark_aborted=mark,
        unmark_aborted=unmark,
        deadline_exceeded=_has_stalled(view),
        waiting_for_capacity=words.waiting_for_capacity(view),
    )


def _changes(before: Progress, after: Progress) -> Iterable[Note]:
    promoted = after.canary is None and after.stable == before.canary
    if after.weight != before.weight and not promoted:
        name = after.canary or before.canary
        text = f"weight of {name}: {before.weight} % -> {after.weight} %"
        yield Note(RolloutEventReason.TRAFFIC_WEIGHT_UPDATED, text)
    by_user = RolloutReason.PAUSED_BY_USER
    if after.reason is by_user and before.reason is not by_user:
        yield Note(RolloutEventReason.ROLLOUT_PAUSED, "paused by the user")


def _has_stalled(view: View) -> bool:
    if view.progress.state is State.STARTING and view.obstacle:
        return True
    return view.progress.state is not State.ABORTING and is_overdue(view)


def _marks(view: View) -> tuple[str | None, str | None]:
    """Return (revision to mark as aborted, revision to unmark); each is asserted until it is so."""
    aborted, marked = view.progress.aborted, view.sight.marked_aborted
    if awaits_unmark(view):
        return None, aborted
    stale = sorted(marked - {aborted})
    mark = aborted if aborted is not None and aborted not in marked else None
    return mark, stale[0] if stale else None
