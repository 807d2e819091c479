"""Reason and message of where a rollout stands, as people and programs read them.

No text holds the present time: status would be written each second.
"""

from collections.abc import Callable, Mapping

from tidegate_api.names import RolloutReason
from tidegate_operator.core.instants import rfc3339
from tidegate_operator.core.rollout.model import State
from tidegate_operator.core.rollout.view import EVERYTHING, RISING, View, needed

_LAST_S = 253_402_300_799.0  # of the year 9999
_KEPT = frozenset({State.PAUSED, State.ABORTING, State.ABORTED})

_REASONS: Mapping[State, RolloutReason] = {
    State.HEALTHY: RolloutReason.COMPLETED,
    State.FIRST_DEPLOY: RolloutReason.FIRST_DEPLOY,
    State.STARTING: RolloutReason.STARTING_CANARY,
    State.SHIFTING: RolloutReason.SHIFTING_TRAFFIC,
    State.PROMOTING: RolloutReason.PROMOTING,
    State.SCALING_DOWN: RolloutReason.SCALING_DOWN_OLD,
    State.UNDOING: RolloutReason.UNDOING,
    State.PINNED: RolloutReason.PINNED,
}


def waiting_for_capacity(view: View) -> str:
    """Return the scheduler's words while the rollout waits for room, else ""."""
    waits = {State.STARTING, State.SHIFTING, State.PROMOTING, State.UNDOING}
    if view.progress.state not in waits or view.progress.strategy == "InPlace":
        return ""
    return view.canary_track.unschedulable


def reason(view: View) -> RolloutReason:
    """Return why the rollout is where it is."""
    state = view.progress.state
    if state in _KEPT:
        return view.progress.reason
    if state in RISING and view.sight.paused:
        return RolloutReason.PAUSED_BY_USER
    if state is State.STARTING and view.obstacle:
        return RolloutReason.IN_PLACE_NOT_POSSIBLE
    if waiting_for_capacity(view):
        return RolloutReason.INSUFFICIENT_ACCELERATOR
    if state is State.HOLDING:
        timed = view.now_s < view.step_ends_s or not view.awaits_pass
        return RolloutReason.TIMED_PAUSE if timed else RolloutReason.AWAITING_DATA
    return _REASONS[state]


def message(view: View, weight: int) -> str:
    """Return one line about the state; `weight` is the canary's as published now."""
    words = _SAYINGS[view.progress.state](view)
    if view.progress.state not in RISING or view.progress.state is State.UNDOING:
        return words
    count = len(view.policy.steps)
    at = min(view.progress.step_index + 1, count)
    place = f"step {at}/{count}: " if count and not view.all_steps_done else ""
    return f"{place}{weight} % to {view.progress.canary}: {words}"


def _healthy(view: View) -> str:
    return f"revision {view.progress.stable} serves as asked"


def _first_deploy(view: View) -> str:
    need = sum(needed(view.sight.counts, EVERYTHING).values())
    there = view.stable_track.ready_total
    return f"first revision {view.progress.stable}: {there} of {need} workers are Ready"


def _starting(view: View) -> str:
    if view.sight.paused:
        return "paused"
    if view.obstacle:
        return f"InPlace is not possible: {view.obstacle}"
    need = sum(needed(view.sight.counts, view.goal).values())
    words = f"{view.canary_track.ready_total} of {need} workers are Ready"
    more = waiting_for_capacity(view) or view.canary_track.failure
    return f"{words}; {more}" if more else words


def _shifting(view: View) -> str:
    return f"routers have yet to acknowledge {view.goal} %"


def _holding(view: View) -> str:
    if view.sight.paused:
        return "paused"
    if view.now_s < view.step_ends_s:
        return f"pause until {_instant(view.step_ends_s)}"
    return "analysis awaits data" if view.awaits_pass else "the weight is verified"


def _paused(view: View) -> str:
    kept = view.progress.message
    say: Mapping[RolloutReason, str] = {
        RolloutReason.PAUSED_BY_STEP: "paused until promote",
        RolloutReason.OUTAGE_NEEDS_CONFIRMATION: (
            "TerminateFirst stops every worker of stable first: promote confirms the outage"
        ),
    }
    return say.get(view.progress.reason) or _without_place(kept) or "paused"


def _without_place(text: str) -> str:
    """The cause, without the place that an earlier look put before it."""
    head, found, rest = text.partition("paused because ")
    return f"{found}{rest}" if found else f"paused because {head}" if head else ""


def _instant(epoch_s: float) -> str:
    """An end as people read it; what lies beyond the calendar has none."""
    return rfc3339(epoch_s) if epoch_s < _LAST_S else "the end of time"


def _promoting(view: View) -> str:
    need = sum(needed(view.sight.counts, EVERYTHING).values())
    words = f"promoting: {view.canary_track.ready_total} of {need} workers are Ready"
    more = waiting_for_capacity(view)
    return f"{words}; {more}" if more else words


def _scaling_down(view: View) -> str:
    until = _instant(view.progress.since_s + view.policy.scale_down_delay_s)
    return f"revision {view.progress.stable} is promoted; old workers are kept until {until}"


def _kept(view: View) -> str:
    return view.progress.message


def _undoing(view: View) -> str:
    need = sum(needed(view.sight.counts, EVERYTHING).values())
    words = f"back to revision {view.progress.canary}"
    return f"{words}: {view.canary_track.ready_total} of {need} workers are Ready"


def _pinned(view: View) -> str:
    return f"spec asks {view.sight.asked}, serving {view.progress.stable}"


_SAYINGS: Mapping[State, Callable[[View], str]] = {
    State.HEALTHY: _healthy,
    State.FIRST_DEPLOY: _first_deploy,
    State.STARTING: _starting,
    State.SHIFTING: _shifting,
    State.HOLDING: _holding,
    State.PAUSED: _paused,
    State.PROMOTING: _promoting,
    State.SCALING_DOWN: _scaling_down,
    State.ABORTING: _kept,
    State.ABORTED: _kept,
    State.UNDOING: _undoing,
    State.PINNED: _pinned,
}
