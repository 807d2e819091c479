"""One look of the state machine: policy, sight and progress, and what follows from them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.model import (
    AnalysisPlan,
    Policy,
    Progress,
    Sight,
    State,
    StepPlan,
    Track,
)

EVERYTHING = 100  # percent
_NO_TRACK = Track()

# A canary is on its way: it may be aborted, paused, superseded.
MOVING = frozenset({State.STARTING, State.SHIFTING, State.HOLDING, State.PAUSED, State.PROMOTING})
# Some revision is to get more than it has.
RISING = MOVING | {State.UNDOING}


def needed(counts: Mapping[str, int], weight: int) -> dict[str, int]:
    """Return the workers by class for `weight` percent: at least 1 where the pool runs any."""
    return {
        name: max(1, math.ceil(count * weight / EVERYTHING))
        for name, count in counts.items()
        if count > 0
    }


def weight_at(steps: tuple[StepPlan, ...], index: int) -> int:
    """Return the weight that holds during step `index`: the last one set up to there, or 0."""
    weights = [step.weight for step in steps[: max(0, index + 1)] if step.weight is not None]
    return weights[-1] if weights else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the rules read. `fresh`: the assessment was made in the present step."""

    policy: Policy
    sight: Sight
    progress: Progress
    fresh: bool = True

    @property
    def now_s(self) -> float:
        """Seconds since the epoch."""
        return self.sight.now_s

    @property
    def total(self) -> int:
        """Workers that the pool shall have."""
        return sum(count for count in self.sight.counts.values() if count > 0)

    @property
    def stable_track(self) -> Track:
        """Workers of the stable revision."""
        return self.sight.tracks.get(self.progress.stable or "", _NO_TRACK)

    @property
    def canary_track(self) -> Track:
        """Workers of the canary, or of what undo goes to."""
        return self.sight.tracks.get(self.progress.canary or "", _NO_TRACK)

    @property
    def published(self) -> int:
        """The canary's weight in the published table."""
        return self.sight.published.get(self.progress.canary or "", 0)

    @property
    def all_steps_done(self) -> bool:
        """Whether the canary is to take everything next."""
        return self.progress.step_index >= len(self.policy.steps)

    @property
    def step(self) -> StepPlan | None:
        """The present step."""
        index = self.progress.step_index
        return None if self.all_steps_done else self.policy.steps[max(0, index)]

    @property
    def reached(self) -> int:
        """The weight of the steps that are done."""
        return weight_at(self.policy.steps, self.progress.step_index - 1)

    @property
    def goal(self) -> int:
        """The weight of the present step; 100 after the last."""
        if self.all_steps_done:
            return EVERYTHING
        return weight_at(self.policy.steps, self.progress.step_index)

    @property
    def judging(self) -> AnalysisPlan | None:
        """The analysis where its verdicts count in this step."""
        plan = self.policy.analysis
        if plan is None or plan.dry_run or self.progress.step_index < plan.starting_step:
            return None
        return plan

    @property
    def awaits_pass(self) -> bool:
        """Whether the present step ends only on good data: without requests there is none."""
        plan = self.judging
        return plan is not None and (self.goal > 0 or plan.max_disagreement is not None)

    @property
    def step_ends_s(self) -> float:
        """When the time of the present step is over; infinite for a pause until promote."""
        step = self.step
        if step is None or not step.is_pause:
            return self.progress.step_since_s
        length_s = math.inf if step.pause_s is None else step.pause_s
        return self.progress.step_since_s + length_s

    @property
    def obstacle(self) -> str:
        """What rules out the InPlace that the user insists on."""
        insists = self.policy.surge == "InPlace" and self.progress.strategy == "InPlace"
        return self.sight.in_place_obstacle if insists else ""

    @property
    def marked(self) -> bool:
        """Whether the canary's ControllerRevision still says that it was aborted."""
        return self.progress.canary in self.sight.marked_aborted

    @property
    def stands_in(self) -> bool:
        """Whether the canary serves for a stable revision without any Ready worker."""
        alone = self.canary_track.ready_total > 0 and not self.stable_track.ready_total
        return self.total > 0 and alone

    @property
    def has_arrived(self) -> bool:
        """Whether the step's weight is published: steps go on although stable is broken."""
        in_full = self.stands_in and self.published == EVERYTHING
        return in_full or self.published == self.goal

    def capable(self, weight: int) -> int:
        """Return how much of `weight` the canary's Ready workers can take, in percent."""
        return capable(needed(self.sight.counts, weight), self.canary_track.ready, weight)

    def is_ready_for(self, weight: int) -> bool:
        """Whether the canary has the Ready workers that `weight` needs in every class."""
        return covers(needed(self.sight.counts, weight), self.canary_track.ready)


def covers(need: Mapping[str, int], ready: Mapping[str, int]) -> bool:
    """Whether every class has the Ready workers that it needs."""
    return all(ready.get(name, 0) >= count for name, count in need.items())


def capable(need: Mapping[str, int], ready: Mapping[str, int], weight: int) -> int:
    """Return `weight` where `ready` covers `need`, else the share that Ready workers carry."""
    if covers(need, ready):
        return weight
    there = sum(min(max(0, ready.get(name, 0)), count) for name, count in need.items())
    return weight * there // sum(need.values())


def is_overdue(view: View) -> bool:
    """Whether nothing moved for progressDeadline where something should have."""
    progress = view.progress
    waits = {State.PAUSED, State.HEALTHY, State.SCALING_DOWN, State.ABORTED, State.PINNED}
    if progress.state in waits or view.sight.paused:
        return False
    since_s = progress.progressed_s
    if progress.state is State.HOLDING:
        since_s = max(since_s, view.step_ends_s)
    return view.now_s - since_s >= view.policy.progress_deadline_s


def needs_confirmation(view: View) -> bool:
    """Whether TerminateFirst would leave no worker of stable before the canary has one."""
    progress, sight = view.progress, view.sight
    if progress.strategy != "TerminateFirst" or progress.weight or view.published:
        return False
    if view.canary_track.ready_total or sum(view.canary_track.replicas.values()):
        return False
    need = needed(sight.counts, view.goal)
    left = sum(max(0, sight.counts[name] - count) for name, count in need.items())
    return view.total > 0 and left == 0


def is_outage_pause(progress: Progress) -> bool:
    """Whether the pause is about the outage that TerminateFirst means."""
    return (
        progress.state is State.PAUSED
        and progress.reason is RolloutReason.OUTAGE_NEEDS_CONFIRMATION
    )
