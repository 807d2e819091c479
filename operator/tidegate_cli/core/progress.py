"""How far a rollout is, what its analysis measured, and when its timed steps will be over."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from tidegate_api.names import RolloutCondition
from tidegate_api.quantity import duration_s
from tidegate_api.rollout import CheckResult, ModelRollout, Step, WindowStatus
from tidegate_cli.core.documents import instant_s, span


class Health(StrEnum):
    """What a script wants to know."""

    DONE = "Done"
    DEGRADED = "Degraded"
    UNDER_WAY = "UnderWay"


EXIT_CODES = {Health.DONE: 0, Health.DEGRADED: 1, Health.UNDER_WAY: 3}
EXIT_TIMEOUT = 2


def judge(rollout: ModelRollout) -> Health:
    """Return Done only for what was promoted as asked and judged after the last edit."""
    status = rollout.status
    if status.observed_generation < rollout.metadata.generation or status.phase is None:
        return Health.UNDER_WAY
    if status.phase == "Degraded" or condition(rollout, RolloutCondition.STALLED) == "True":
        return Health.DEGRADED
    promoted = condition(rollout, RolloutCondition.PROMOTED) != "False"
    return Health.DONE if status.phase == "Healthy" and promoted else Health.UNDER_WAY


def condition(rollout: ModelRollout, kind: str) -> str:
    """Return a condition's status, an empty text where it is absent."""
    found = (one.status for one in rollout.status.conditions if one.type == kind)
    return next(found, "")


def summary(rollout: ModelRollout) -> str:
    """Return the one line that `status` prints, and `get -w` without a terminal."""
    status = rollout.status
    if status.observed_generation < rollout.metadata.generation or status.phase is None:
        return "Progressing - the operator has yet to see the last edit"
    parts = [status.phase, step(rollout), weight(rollout)]
    line = ", ".join(part for part in parts if part)
    return f"{line} - {status.message}" if status.message else line


def step(rollout: ModelRollout) -> str:
    """Return "step 3/6 (setWeight 25)"; empty for a rollout without steps or canary."""
    steps, done = rollout.spec.steps, rollout.status.current_step_index
    if not steps or done is None:
        return ""
    if done >= len(steps):
        return f"all {len(steps)} steps done"
    return f"step {done + 1}/{len(steps)} ({step_name(steps[done])})"


def step_name(one: Step) -> str:
    """Return a step as users write it, in few words."""
    if one.set_weight is not None:
        return f"setWeight {one.set_weight}"
    duration = one.pause and one.pause.duration
    return f"pause {duration}" if duration else "pause until promote"


def weight(rollout: ModelRollout) -> str:
    """Return the canary's weight, and what the routers acknowledged where that differs."""
    status = rollout.status
    if not status.canary_revision:
        return ""
    text = f"canary {status.canary_weight} %"
    if status.verified_weight == status.canary_weight:
        return text
    return f"{text} (routers acknowledged {status.verified_weight} %)"


@dataclass(frozen=True, slots=True)
class Eta:
    """The least time left: steps' pauses and analysis' intervals, not the workers' start.

    `until_step` is the step (from 1) that waits for `promote`; None: until promoted.
    """

    left_s: float
    until_step: int | None

    def __str__(self) -> str:
        if self.until_step is None:
            return f"at least {span(self.left_s)} to go"
        if self.left_s <= 0:
            return f"waits for promote at step {self.until_step}"
        return f"at least {span(self.left_s)} until step {self.until_step} waits for promote"


def eta(rollout: ModelRollout, now_s: float) -> Eta | None:
    """Return the time left, None where no step is under way."""
    status, steps = rollout.status, rollout.spec.steps
    done = status.current_step_index
    if judge(rollout) is not Health.UNDER_WAY or not status.canary_revision or done is None:
        return None
    began_s = instant_s(status.step_started_at)
    spent_s = max(0.0, now_s - began_s) if began_s is not None else 0.0
    left_s = 0.0
    for index in range(done, len(steps)):
        pause = steps[index].pause
        if pause is not None and pause.duration is None:
            return Eta(left_s, index + 1)
        left_s += max(0.0, _step_s(rollout, index) - (spent_s if index == done else 0.0))
    return Eta(left_s, None)


def _step_s(rollout: ModelRollout, index: int) -> float:
    """Return the least time of a step: its pause, or the analysis that it waits for."""
    spec = rollout.spec
    pause = spec.steps[index].pause
    if pause is not None:
        return duration_s(pause.duration or "0s")
    paused_next = index + 1 < len(spec.steps) and spec.steps[index + 1].pause is not None
    analysis = spec.analysis
    if analysis is None or analysis.dry_run or paused_next or index < analysis.starting_step:
        return 0.0
    return duration_s(analysis.initial_delay) + duration_s(analysis.interval)


def analysis(rollout: ModelRollout) -> Iterator[str]:
    """Yield the verdict, then each check of the newest window with its numbers."""
    found = rollout.status.analysis
    if found.verdict is None:
        return
    asked = rollout.spec.analysis
    limit = asked.failure_limit if asked else 0
    failed = f", {rollout.status.failed_checks} bad windows of {limit} tolerated in this step"
    yield f"{found.verdict}{': ' + found.message if found.message else ''}{failed}"
    if found.windows:
        yield from window(found.windows[-1])


def window(one: WindowStatus) -> Iterator[str]:
    """Yield a window's verdict, and its checks."""
    begun, ended = instant_s(one.started_at), instant_s(one.ended_at)
    lasted = f"{span(ended - begun)}" if begun is not None and ended is not None else "open"
    yield f"window of step {one.step + 1}, {lasted}: {one.verdict}"
    for check in one.checks:
        yield f"  {_check(check)}"


def _check(check: CheckResult) -> str:
    line = f"{check.name} {check.verdict}"
    if check.value is not None:
        line += f": {check.value:.6g}"
    if check.limit is not None:
        line += f" (limit {check.limit:.6g})"
    line += f", {check.bad} of {check.requests} requests beyond the limit" if check.requests else ""
    return f"{line}: {check.message}" if check.message else line
