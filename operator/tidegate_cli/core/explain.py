"""Why a rollout stands still, and why its canary has the weight that it has."""

from collections.abc import Iterator

from tidegate_api.names import RolloutReason
from tidegate_api.rollout import ModelRollout
from tidegate_cli.core import progress
from tidegate_cli.core.documents import instant_s, span
from tidegate_cli.core.snapshot import Snapshot

_PAUSES = {
    RolloutReason.PAUSED_BY_STEP: "the step has no duration: `tidegate promote` ends it",
    RolloutReason.PAUSED_BY_USER: "spec.paused or the annotation tidegate.dev/paused holds it:"
    " `tidegate resume` takes the annotation away",
    RolloutReason.TIMED_PAUSE: "the step's pause has time left; it ends by itself",
    RolloutReason.AWAITING_DATA: "analysis has too few requests for a verdict; it goes on by itself"
    " once minRequests are there",
    RolloutReason.NO_DATA: "a window ended without minRequests and analysis.onNoData is Pause:"
    " `tidegate promote` goes on without data",
    RolloutReason.OUTAGE_NEEDS_CONFIRMATION: "TerminateFirst would take the only stable worker"
    " away before the canary runs: `tidegate promote` accepts the outage",
    RolloutReason.ANALYSIS_FAILED: "analysis failed and automaticRollback is false:"
    " `tidegate abort`, or `tidegate promote` against it",
    RolloutReason.INSUFFICIENT_ACCELERATOR: "no node has room for the canary's workers",
    RolloutReason.ROUTER_UNREACHABLE: "a router does not answer, so no weight may rise",
    RolloutReason.PINNED: "after an undo: `tidegate retry`, or edit the template",
}


def explain(snapshot: Snapshot, rollout: ModelRollout) -> Iterator[str]:
    """Yield sentences, the most telling first."""
    yield progress.summary(rollout)
    yield from _pauses(rollout, snapshot.now_s)
    yield from _weight(snapshot, rollout)
    yield from _troubles(snapshot, rollout)
    verdict = next(progress.analysis(rollout), "")
    if verdict:
        yield f"Analysis says {verdict}."
    yield from _next(snapshot, rollout)


def _pauses(rollout: ModelRollout, now_s: float) -> Iterator[str]:
    for pause in rollout.status.pause_conditions:
        began_s = instant_s(pause.start_time)
        since = f" for {span(now_s - began_s)}" if began_s is not None else ""
        # An operator of another version may know reasons that this command does not.
        words = next((text for reason, text in _PAUSES.items() if reason == pause.reason), "")
        yield f"It stands still{since}, {pause.reason}: {words or rollout.status.message}."


def _weight(snapshot: Snapshot, rollout: ModelRollout) -> Iterator[str]:
    status = rollout.status
    stable = status.stable_revision
    if status.pinned_revision:
        yield (
            f"{status.pinned_revision} serves since an undo, although spec asks for"
            f" {status.asked_revision}."
        )
    if status.aborted_revision:
        yield f"{status.aborted_revision} has no weight: it was aborted, and {stable} has it all."
    if not status.canary_revision or status.canary_revision == status.aborted_revision:
        return
    yield f"{status.canary_revision} has {status.canary_weight} %, {_asked(rollout)}."
    yield from _routers(snapshot, rollout, status.canary_revision)


def _asked(rollout: ModelRollout) -> str:
    """Say which step asks for which weight."""
    steps, done = rollout.spec.steps, rollout.status.current_step_index or 0
    if done >= len(steps):
        return "all steps are done and it takes over" if steps else "there are no steps"
    weights = [
        (index, one.set_weight)
        for index, one in enumerate(steps[: done + 1])
        if one.set_weight is not None
    ]
    if not weights:
        return "no step has set a weight yet"
    index, asked = weights[-1]
    text = f"step {index + 1} asks for {asked} %"
    if asked > rollout.status.canary_weight:
        text += "; a weight follows Ready workers and the routers' acknowledgement"
    return text


def _routers(snapshot: Snapshot, rollout: ModelRollout, canary: str) -> Iterator[str]:
    status = rollout.status
    published = snapshot.published.get(canary)
    if published is not None and published != status.canary_weight:
        yield f"The RouteTable gives it {published} %: one of the two is a moment older."
    if status.verified_weight != status.canary_weight:
        yield f"Not every router has acknowledged that: {status.verified_weight} % is verified."


def _troubles(snapshot: Snapshot, rollout: ModelRollout) -> Iterator[str]:
    wrong = {"Stalled": "True", "Conflict": "True", "InvalidSpec": "True", "Available": "False"}
    for one in rollout.status.conditions:
        if wrong.get(one.type) == one.status:
            yield f"{one.type} is {one.status}, {one.reason}: {one.message}."
    pool = snapshot.pool
    if pool is None:
        yield f"Its pool {rollout.spec.pool_ref.name} does not exist."
        return
    for one in pool.status.conditions:
        if one.type == "RouterSynced" and one.status == "False":
            yield f"The pool's RouterSynced is False, {one.reason}: {one.message}."


def _next(snapshot: Snapshot, rollout: ModelRollout) -> Iterator[str]:
    left = progress.eta(rollout, snapshot.now_s)
    if left is None:
        return
    done = rollout.status.current_step_index or 0
    if done + 1 < len(rollout.spec.steps):
        following = progress.step_name(rollout.spec.steps[done + 1])
        yield f"Next is step {done + 2}, {following}; {left}."
    else:
        yield f"Next it takes over everything; {left}."
