"""Verbs: annotations that name their target and act once (operator.md section 4).

A verb acts, is refused (told once), or waits: promote of a step that is not verified yet,
anything that would raise a weight during a pause, retry until the mark of the abort is gone.
What acted or was refused is recorded in the same decision. The same verb acts again with another
time behind it (`<revision>@<RFC 3339>`), or after its annotation was away.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tidegate_api.names import (
    ANNOTATION_ABORT,
    ANNOTATION_PROMOTE,
    ANNOTATION_PROMOTE_FULL,
    ANNOTATION_RETRY,
    ANNOTATION_UNDO,
    RolloutReason,
)
from tidegate_operator.core.rollout.model import Sight, State
from tidegate_operator.core.rollout.rules import Found, after_step, target_of
from tidegate_operator.core.rollout.transitions import Trigger
from tidegate_operator.core.rollout.view import MOVING, View, is_outage_pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A verb that is settled now: it acts (`found`) or is refused (`refusal` says why)."""

    annotation: str
    value: str
    found: Found | None = None
    refusal: str = ""


# As much of a value as status keeps; a longer one matches nothing anyway.
VERB_CHARACTERS = 256

Answer = Found | str | None  # acts, is refused because, waits


def hear(view: View) -> Heard | None:
    """Return the first verb that acts or is refused now, abort before all others."""
    for annotation, rule in VERBS.items():
        value = view.sight.verbs.get(annotation)
        if value is None or _is_handled(view, annotation, value):
            continue
        answer = rule(view, target_of(value))
        if isinstance(answer, str):
            return Heard(annotation=annotation, value=value[:VERB_CHARACTERS], refusal=answer)
        if answer is not None:
            return Heard(annotation=annotation, value=value[:VERB_CHARACTERS], found=answer)
    return None


def _is_handled(view: View, annotation: str, value: str) -> bool:
    return view.progress.handled.get(annotation) == value[:VERB_CHARACTERS]


def already_heard(sight: Sight) -> dict[str, str]:
    """Return what counts as handled when status was lost: all but an abort of the asked revision.

    Verbs are old then, and an old undo must not go back to a revision of last year.
    """
    handled = {
        name: value[:VERB_CHARACTERS] for name, value in sight.verbs.items() if name in VERBS
    }
    retried = target_of(handled.get(ANNOTATION_RETRY, "")) == sight.asked
    if target_of(handled.get(ANNOTATION_ABORT, "")) == sight.asked and not retried:
        del handled[ANNOTATION_ABORT]
    return handled


def still_there(sight: Sight, handled: Mapping[str, str]) -> dict[str, str]:
    """Return the record without verbs whose annotation is away: set again, they act again."""
    return {
        name: value for name, value in handled.items() if name in sight.verbs or name not in VERBS
    }


def awaits_unmark(view: View) -> bool:
    """Whether a retry waits until its revision's mark is removed."""
    value = view.sight.verbs.get(ANNOTATION_RETRY)
    if value is None or _is_handled(view, ANNOTATION_RETRY, value):
        return False
    target = target_of(value)
    return _may_retry(view, target) and target in view.sight.marked_aborted


def _may_retry(view: View, target: str) -> bool:
    in_state = view.progress.state in {State.ABORTED, State.PINNED}
    return in_state and target == view.progress.aborted == view.sight.asked


def _abort(view: View, target: str) -> Answer:
    progress = view.progress
    if progress.state not in MOVING or progress.canary is None:
        return f"no canary is on its way (state {progress.state})"
    if target != progress.canary:
        return f"the canary is {progress.canary}"
    return Found(Trigger.ABORT, RolloutReason.ABORTED_BY_USER, "aborted by the verb")


def _retry(view: View, target: str) -> Answer:
    progress = view.progress
    if progress.state is State.ABORTING and target == progress.aborted:
        return None
    if not _may_retry(view, target):
        return f"the aborted revision is {progress.aborted or 'none'}"
    return None if target in view.sight.marked_aborted else Found(Trigger.RETRY)


def _undo(view: View, target: str) -> Answer:
    refusal = _undo_refusal(view, target)
    return refusal or Found(Trigger.UNDO, target=target)


def _undo_refusal(view: View, target: str) -> str:
    progress = view.progress
    if progress.state is State.FIRST_DEPLOY:
        return "no revision has served yet"
    if target not in view.sight.kept:
        return f"revision {target} is not kept"
    if target == progress.stable:
        return f"revision {target} is stable: abort takes a canary away"
    if target == progress.aborted:
        return f"revision {target} is aborted: retry it"
    if target == progress.canary:
        return f"revision {target} is on its way: promote-full skips its steps"
    return ""


def _promote_full(view: View, target: str) -> Answer:
    refusal = _canary_refusal(view, target)
    if refusal:
        return refusal
    if view.progress.state is State.PROMOTING:
        return "the canary is being promoted already"
    return None if view.sight.paused else Found(Trigger.PROMOTE_FULL)


def _promote(view: View, target: str) -> Answer:
    revision, _, step = target.rpartition("/")
    progress = view.progress
    refusal = _canary_refusal(view, revision)
    if refusal:
        return refusal
    outage = is_outage_pause(progress)
    if step != str(progress.step_index) and not (outage and step == "0"):
        return f"the present step is {progress.step_index}"
    if progress.state is State.PROMOTING:
        return "the canary is being promoted already"
    if view.sight.paused or progress.state not in {State.HOLDING, State.PAUSED}:
        return None
    return Found(Trigger.CONFIRMED) if outage else after_step(view)


def _canary_refusal(view: View, revision: str) -> str:
    progress = view.progress
    if progress.state not in MOVING:
        return f"no canary is on its way (state {progress.state})"
    return "" if revision == progress.canary else f"the canary is {progress.canary}"


VERBS: Mapping[str, Callable[[View, str], Answer]] = {
    ANNOTATION_ABORT: _abort,
    ANNOTATION_RETRY: _retry,
    ANNOTATION_UNDO: _undo,
    ANNOTATION_PROMOTE_FULL: _promote_full,
    ANNOTATION_PROMOTE: _promote,
}
