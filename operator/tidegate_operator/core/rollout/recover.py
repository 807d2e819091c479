"""Where a decision begins: what status says, or what is left when status was lost.

A restore without status (Velero keeps it out) leaves the pool's memory, the published table and
the marks on ControllerRevisions; a canary begins again at step 0, an aborted one stays aborted.
"""

from collections.abc import Iterable
from dataclasses import replace

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.model import Policy, Progress, Sight, State
from tidegate_operator.core.rollout.verbs import already_heard, still_there


def opening(policy: Policy, sight: Sight, before: Progress) -> Progress:
    """Return progress whose stable revision exists."""
    known = {*sight.kept, *sight.tracks, sight.asked}
    if before.asked is None or before.stable not in known:
        return _rebuilt(policy, sight, known)
    lost = before.canary == before.stable or before.canary not in known
    handled = still_there(sight, before.handled)
    return replace(before, canary=None if lost else before.canary, handled=handled)


def _rebuilt(policy: Policy, sight: Sight, known: Iterable[str]) -> Progress:
    stable = _stable(sight, set(known))
    fresh = Progress(
        state=State.HEALTHY,
        since_s=sight.now_s,
        step_since_s=sight.now_s,
        progressed_s=sight.now_s,
        step_index=len(policy.steps),
        step_hash=policy.step_hash,
        stable=stable or sight.asked,
        asked=sight.asked,
        handled=already_heard(sight),
    )
    if stable is None:
        return replace(fresh, state=State.FIRST_DEPLOY, reason=RolloutReason.FIRST_DEPLOY)
    if sight.asked == stable or sight.asked not in sight.marked_aborted:
        return fresh
    return replace(
        fresh,
        state=State.ABORTING,
        canary=sight.asked,
        aborted=sight.asked,
        reason=RolloutReason.ABORTING,
        message=f"revision {sight.asked} is recorded as aborted",
    )


def _stable(sight: Sight, known: set[str]) -> str | None:
    """The revision to measure a canary against; None: nothing ever served."""
    served = {name: share for name, share in sight.published.items() if share > 0 and name in known}
    if sight.was_stable is None and not sight.marked_aborted and not _anyone_ready(sight, served):
        return None  # a new pool names its revision in the table before a worker is Ready
    sound = {name: share for name, share in served.items() if name not in sight.marked_aborted}
    if sight.was_stable in sound:
        return sight.was_stable
    if sound or served:
        candidates = sound or served
        return max(sorted(candidates), key=lambda name: candidates[name])
    return sight.was_stable if sight.was_stable in known else None


def _anyone_ready(sight: Sight, served: Iterable[str]) -> bool:
    tracks = (sight.tracks.get(name) for name in served)
    return any(track is not None and track.ready_total > 0 for track in tracks)
