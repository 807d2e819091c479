"""The status of a ModelRollout: phase, message and conditions (operator.md section 9).

kstatus reads Ready, Reconciling and Stalled only, the last two absent when false. A pause that
only a person ends is Ready (it serves as asked) and never Reconciling, so that helm --wait and
Flux do not undo a canary; who wants the end waits for Promoted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tidegate_api.meta import Condition
from tidegate_api.names import RolloutCondition, RolloutReason
from tidegate_api.rollout import AnalysisStatus, ModelRolloutStatus, PauseCondition, Phase
from tidegate_operator.core.instants import rfc3339, rfc3339_micro
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.rollout.model import Outcome, Policy, Progress, Sight, State
from tidegate_operator.core.rollout.persist import remembered
from tidegate_operator.core.rollout.view import RISING

_MESSAGE_CHARACTERS = 2000
_SHOWN_WINDOWS = 10

DONE = frozenset({State.HEALTHY, State.SCALING_DOWN})
_AGAINST_SPEC = frozenset({State.ABORTED, State.PINNED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition without the times."""

    status: Literal["True", "False"]
    reason: RolloutReason
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the conditions are judged by."""

    sight: Sight
    outcome: Outcome

    @property
    def progress(self) -> Progress:
        """Where the rollout stands after the decision."""
        return self.outcome.progress

    @property
    def waits_for_person(self) -> bool:
        """Whether it stands still until somebody acts."""
        state = self.progress.state
        return state is State.PAUSED or (self.sight.paused and state in RISING)

    @property
    def stuck(self) -> bool:
        """Whether progressDeadline passed, or it cannot begin at all."""
        return self.outcome.deadline_exceeded and not self.waits_for_person

    @property
    def serving_ready(self) -> int:
        """Ready workers of revisions that get requests."""
        tracks = self.sight.tracks
        names = [name for name, share in self.outcome.weights.items() if share and name in tracks]
        return sum(tracks[name].ready_total for name in names)

    @property
    def starved(self) -> bool:
        """Whether the pool shall have workers and none is Ready."""
        return any(count > 0 for count in self.sight.counts.values()) and not self.serving_ready


def _verdict(facts: Facts, reason: RolloutReason | None = None, *, true: bool) -> Verdict:
    progress = facts.progress
    return Verdict("True" if true else "False", reason or progress.reason, progress.message)


def _stuck_reason(facts: Facts) -> RolloutReason:
    telling = {RolloutReason.INSUFFICIENT_ACCELERATOR, RolloutReason.IN_PLACE_NOT_POSSIBLE}
    reason = facts.progress.reason
    return reason if reason in telling else RolloutReason.PROGRESS_DEADLINE_EXCEEDED


def ready(facts: Facts) -> Verdict:
    """True: it serves as asked, or a person wanted it to stand still."""
    if facts.stuck:
        return _verdict(facts, _stuck_reason(facts), true=False)
    if facts.waits_for_person:
        return _verdict(facts, true=True)
    if facts.progress.state not in DONE:
        return _verdict(facts, true=False)
    if facts.starved:
        text = f"no worker of revision {facts.progress.stable} is Ready"
        return Verdict("False", RolloutReason.WORKERS_MISSING, text)
    return _verdict(facts, RolloutReason.COMPLETED, true=True)


def stalled(facts: Facts) -> Verdict | None:
    """Present when only a person can help: aborted, pinned, no progress."""
    if facts.stuck:
        return _verdict(facts, _stuck_reason(facts), true=True)
    return _verdict(facts, true=True) if facts.progress.state in _AGAINST_SPEC else None


def reconciling(facts: Facts) -> Verdict | None:
    """Present during steps and timed pauses."""
    still = facts.waits_for_person or stalled(facts) is not None
    return None if still or facts.progress.state in DONE else _verdict(facts, true=True)


def progressing(facts: Facts) -> Verdict:
    """Whether it moves; its reason is always the state's, which a new operator reads back."""
    return _verdict(facts, true=reconciling(facts) is not None)


def available(facts: Facts) -> Verdict:
    """Whether any worker serves."""
    if facts.starved:
        text = "no worker of a revision with weight is Ready"
        return Verdict("False", RolloutReason.WORKERS_MISSING, text)
    text = f"{facts.serving_ready} workers are Ready"
    return Verdict("True", RolloutReason.WORKERS_READY, text)


def paused(facts: Facts) -> Verdict:
    """Whether a person must act for it to go on."""
    if facts.waits_for_person:
        return _verdict(facts, true=True)
    return Verdict("False", facts.progress.reason)


def completed(facts: Facts) -> Verdict:
    """Whether nothing is left to do."""
    return _verdict(facts, true=facts.progress.state in DONE)


def promoted(facts: Facts) -> Verdict:
    """Whether the asked revision gets everything, acknowledged by every live router."""
    return _verdict(facts, true=facts.progress.state in DONE)


def degraded(facts: Facts) -> Verdict:
    """Whether it serves something else than asked, or cannot go on."""
    wrong = facts.stuck or facts.progress.state in _AGAINST_SPEC | {State.ABORTING}
    if wrong:
        reason = _stuck_reason(facts) if facts.stuck else None
        return _verdict(facts, reason, true=True)
    return Verdict("False", RolloutReason.AS_ASKED)


def pinned(facts: Facts) -> Verdict:
    """Whether undo put an older revision in the asked one's place."""
    if facts.progress.state is State.PINNED:
        text = f"spec asks {facts.sight.asked}, serving {facts.progress.stable}"
        return Verdict("True", RolloutReason.PINNED, text)
    return Verdict("False", RolloutReason.AS_ASKED)


CONDITIONS: Mapping[RolloutCondition, Callable[[Facts], Verdict | None]] = {
    RolloutCondition.READY: ready,
    RolloutCondition.RECONCILING: reconciling,
    RolloutCondition.STALLED: stalled,
    RolloutCondition.PROGRESSING: progressing,
    RolloutCondition.AVAILABLE: available,
    RolloutCondition.PAUSED: paused,
    RolloutCondition.COMPLETED: completed,
    RolloutCondition.PROMOTED: promoted,
    RolloutCondition.DEGRADED: degraded,
    RolloutCondition.PINNED: pinned,
}


def phase(facts: Facts) -> Phase:
    """Return Argo's word for it."""
    if degraded(facts).status == "True":
        return "Degraded"
    if facts.waits_for_person:
        return "Paused"
    return "Healthy" if facts.progress.state in DONE else "Progressing"


def rollout_status(
    policy: Policy, sight: Sight, outcome: Outcome, rollout: ObservedRollout, now_s: float
) -> ModelRolloutStatus:
    """Return the whole status after a decision; what stays the same keeps its times."""
    facts = Facts(sight, outcome)
    judged = {kind: rule(facts) for kind, rule in CONDITIONS.items()}
    present = {kind: verdict for kind, verdict in judged.items() if verdict is not None}
    generation, previous = rollout.meta.generation, rollout.status
    return remembered(policy, outcome.progress, previous).model_copy(
        update={
            "observed_generation": generation,
            "phase": phase(facts),
            "pause_conditions": _pauses(facts, previous, now_s),
            "analysis": _analysis(facts, previous),
            "conditions": stamp(present, previous.conditions, generation, now_s),
        }
    )


def _pauses(facts: Facts, previous: ModelRolloutStatus, now_s: float) -> list[PauseCondition]:
    """One entry per reason; the start of one that goes on is kept."""
    progress = facts.progress
    reasons: dict[RolloutReason, float] = {}
    if progress.state is State.PAUSED or progress.reason is RolloutReason.TIMED_PAUSE:
        reasons[progress.reason] = progress.step_since_s
        if progress.state is State.PAUSED:
            reasons[progress.reason] = progress.since_s
    if facts.sight.paused and progress.state in RISING:
        reasons[RolloutReason.PAUSED_BY_USER] = now_s
    known = {item.reason: item.start_time for item in previous.pause_conditions}
    by_user = known.get(RolloutReason.PAUSED_BY_USER.value)
    return [
        PauseCondition(
            reason=reason.value,
            start_time=by_user
            if reason is RolloutReason.PAUSED_BY_USER and by_user
            else rfc3339_micro(since_s),
        )
        for reason, since_s in reasons.items()
    ]


def _analysis(facts: Facts, previous: ModelRolloutStatus) -> AnalysisStatus:
    """The windows of this canary; the last ones stay to be read after its end."""
    seen, canary = facts.sight.assessment, facts.progress.canary
    if canary is not None and canary != previous.canary_revision:
        return AnalysisStatus()
    if canary is None or (facts.progress.state not in RISING and not seen.judged):
        return previous.analysis  # what ended it stays, with its numbers
    before, over = previous.analysis, facts.progress.state not in RISING
    windows = [item for item in seen.windows if item.ended_at or not over]
    return AnalysisStatus(
        verdict=seen.verdict or before.verdict,
        message=(seen.message or before.message)[:1024],
        windows=windows[-_SHOWN_WINDOWS:] or before.windows,
    )


def conflict_status(
    previous: ModelRolloutStatus, generation: int, owner: str, now_s: float
) -> ModelRolloutStatus:
    """Return the status of a rollout whose pool has an older one: nothing is done."""
    text = f"the pool is in the hands of the older modelrollouts.tidegate.dev {owner}"
    return _refused(
        ModelRolloutStatus(conditions=previous.conditions),
        generation,
        {RolloutCondition.CONFLICT: Verdict("True", RolloutReason.POOL_HAS_ROLLOUT, text)},
        now_s,
    )


def missing_pool_status(
    previous: ModelRolloutStatus, generation: int, pool: str, now_s: float
) -> ModelRolloutStatus:
    """Return the status of a rollout whose pool is not there; its memory stays for when it is."""
    text = f"inferencepools.tidegate.dev {pool} does not exist in this namespace"
    missing = {RolloutCondition.READY: Verdict("False", RolloutReason.POOL_NOT_FOUND, text)}
    refused = _refused(previous, generation, missing, now_s)
    memory = [item for item in previous.conditions if item.type == RolloutCondition.PROGRESSING]
    return refused.model_copy(update={"conditions": [*refused.conditions, *memory]})


def invalid_status(
    previous: ModelRolloutStatus, generation: int, problem: str, now_s: float
) -> ModelRolloutStatus:
    """Return `previous` with what is wrong with the spec; what ran before runs on."""
    text = f"{problem}; what served before serves on"
    broken = {RolloutCondition.INVALID_SPEC: Verdict("True", RolloutReason.INVALID_SPEC, text)}
    refused = _refused(previous, generation, broken, now_s)
    told = {item.type for item in refused.conditions} | {RolloutCondition.RECONCILING.value}
    kept = [item for item in previous.conditions if item.type not in told]
    return refused.model_copy(update={"conditions": [*refused.conditions, *kept]})


def _refused(
    status: ModelRolloutStatus,
    generation: int,
    cause: Mapping[RolloutCondition, Verdict],
    now_s: float,
) -> ModelRolloutStatus:
    first = next(iter(cause.values()))
    verdicts = {
        RolloutCondition.READY: Verdict("False", first.reason, first.message),
        RolloutCondition.STALLED: Verdict("True", first.reason, first.message),
        RolloutCondition.DEGRADED: Verdict("True", first.reason, first.message),
        **cause,
    }
    return status.model_copy(
        update={
            "observed_generation": generation,
            "phase": "Degraded",
            "message": first.message[:_MESSAGE_CHARACTERS],
            "conditions": stamp(verdicts, status.conditions, generation, now_s),
        }
    )


def stamp(
    verdicts: Mapping[RolloutCondition, Verdict],
    previous: Sequence[Condition],
    generation: int,
    now_s: float,
) -> list[Condition]:
    """Return wire conditions; an unchanged status keeps its transition time."""
    since = {(item.type, item.status): item.last_transition_time for item in previous}
    return [
        Condition(
            type=kind.value,
            status=verdict.status,
            reason=verdict.reason.value,
            message=verdict.message[:_MESSAGE_CHARACTERS],
            observed_generation=generation,
            last_transition_time=since.get((kind.value, verdict.status)) or rfc3339(now_s),
        )
        for kind, verdict in verdicts.items()
    ]
