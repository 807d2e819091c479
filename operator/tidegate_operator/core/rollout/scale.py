"""Weights and workers that follow from where a rollout stands (operator.md section 6).

Only Ready workers count. A weight goes down at once; it goes up only while every live router has
acknowledged the previous one and nobody paused the rollout.
"""

from collections.abc import Mapping

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.model import State, Track
from tidegate_operator.core.rollout.view import (
    EVERYTHING,
    RISING,
    View,
    capable,
    is_outage_pause,
    needed,
)

_LEAVING = frozenset({State.ABORTING, State.ABORTED})


def canary_weight(view: View) -> int:
    """Return the canary's weight to publish, in percent."""
    progress = view.progress
    if progress.canary is None:
        return 0
    if progress.state is State.ABORTING:
        return _residual(view)
    if progress.state not in RISING or is_outage_pause(progress):
        return 0
    wanted = _wanted(view)
    held = view.sight.paused or not view.sight.settled or view.marked
    return min(wanted, view.published) if held else wanted


def _wanted(view: View) -> int:
    """The weight of the state; all of it while stable has no Ready worker and the canary has."""
    if view.stands_in:
        return EVERYTHING
    progress = view.progress
    if progress.state in {State.PROMOTING, State.UNDOING} or view.all_steps_done:
        return _everything_or_less(view)
    if progress.state is State.STARTING:
        return view.capable(view.reached)
    weight = view.capable(view.goal)
    failed = progress.state is State.PAUSED and progress.reason is RolloutReason.ANALYSIS_FAILED
    return min(weight, view.published) if failed else weight


def _everything_or_less(view: View) -> int:
    may_rise = view.progress.state in {State.PROMOTING, State.UNDOING}
    if may_rise and view.is_ready_for(EVERYTHING):
        return EVERYTHING
    return min(view.published, view.capable(EVERYTHING))


def _residual(view: View) -> int:
    """What an aborted canary keeps while a shrunken stable comes back; 0 if it never shrank."""
    policy, progress = view.policy, view.progress
    if not policy.dynamic_stable_scale or progress.strategy == "TerminateFirst":
        return 0
    if view.now_s - progress.since_s >= policy.progress_deadline_s:
        return 0
    need = needed(view.sight.counts, EVERYTHING)
    share = capable(need, view.stable_track.ready, EVERYTHING)
    return min(view.published, EVERYTHING - share)


def weights(view: View, weight: int) -> dict[str, int]:
    """Return the weights by revision; they sum to 100, or are empty where nothing is stable."""
    stable, canary = view.progress.stable, view.progress.canary
    if stable is None:
        return {}
    shares = {stable: EVERYTHING - weight}
    if canary is not None and weight:
        shares[canary] = weight
    return {name: share for name, share in shares.items() if share}


def workers(view: View, weight: int) -> dict[str, dict[str, int]]:
    """Return the workers per class of every revision that shall have any."""
    stable = view.progress.stable
    if stable is None:
        return {}
    canary = _canary_goal(view, weight)
    scale = {stable: _stable_workers(view, weight, canary)}
    if view.progress.canary is not None and canary:
        scale[view.progress.canary] = _within_room(view, canary)
    return {**_leftovers(view), **scale}


def _canary_goal(view: View, weight: int) -> dict[str, int]:
    """The canary's workers; empty where it shall have none of its own."""
    progress = view.progress
    if progress.canary is None or progress.strategy == "InPlace":
        return {}
    if progress.state not in RISING or is_outage_pause(progress):
        return {}
    level = EVERYTHING if progress.state in {State.PROMOTING, State.UNDOING} else view.goal
    goal = needed(view.sight.counts, max(level, view.published, weight))
    if not view.sight.paused:
        return goal
    present = view.canary_track.replicas
    return {name: min(count, present.get(name, 0)) for name, count in goal.items()}


def _within_room(view: View, goal: Mapping[str, int]) -> dict[str, int]:
    """TerminateFirst: the canary's workers start where stable's are gone."""
    if view.progress.strategy != "TerminateFirst":
        return dict(goal)
    counts, taken = view.sight.counts, view.stable_track.replicas
    return {
        name: min(count, max(0, counts.get(name, 0) - taken.get(name, 0)))
        for name, count in goal.items()
    }


def _stable_workers(view: View, weight: int, canary: Mapping[str, int]) -> dict[str, int]:
    counts = {name: max(0, count) for name, count in view.sight.counts.items()}
    progress = view.progress
    if progress.state not in RISING or progress.strategy == "InPlace":
        return counts
    if progress.strategy == "TerminateFirst":
        return {name: max(0, count - canary.get(name, 0)) for name, count in counts.items()}
    if not view.policy.dynamic_stable_scale:
        return counts
    return counts | needed(counts, EVERYTHING - _given_away(view, weight))


def _given_away(view: View, weight: int) -> int:
    """The canary's share that no router, however far behind, sends to stable."""
    level = EVERYTHING if view.progress.state in {State.PROMOTING, State.UNDOING} else view.goal
    return min(view.progress.verified, view.published, weight, level)


def _leftovers(view: View) -> dict[str, dict[str, int]]:
    """Workers that are kept for scaleDownDelay: an undo or a retry finds them warm."""
    progress = view.progress
    if progress.strategy == "InPlace":
        return {}  # the same workers host the revision that came and the one that went
    if progress.state in _LEAVING:
        gone = progress.strategy == "TerminateFirst" or _is_delay_over(view)
        kept = {} if gone or progress.canary is None else {progress.canary: view.canary_track}
    elif progress.state in {State.SCALING_DOWN, State.PINNED} and not _is_delay_over(view):
        kept = dict(view.sight.tracks)
    else:
        kept = {}
    return {name: dict(track.replicas) for name, track in kept.items() if _has_workers(track)}


def _is_delay_over(view: View) -> bool:
    if view.progress.state is State.ABORTING:
        return False
    return view.now_s - view.progress.since_s >= view.policy.scale_down_delay_s


def _has_workers(track: Track) -> bool:
    return any(count > 0 for count in track.replicas.values())
