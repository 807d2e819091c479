"""What the rollout's state machine reads and says.

`Progress` is all it knows from before; it is what status holds, so a new operator goes on from
there. Times are epoch seconds of the operator's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from tidegate_api.names import RolloutEventReason, RolloutReason
from tidegate_api.rollout import CheckResult, Surge, Verdict, WindowStatus

Strategy = Literal["Surge", "TerminateFirst", "InPlace"]


class State(StrEnum):
    """Where a rollout stands; docs/rollouts.md draws them from `machine.TRANSITIONS`."""

    HEALTHY = "Healthy"  # the asked revision is stable and alone
    FIRST_DEPLOY = "FirstDeploy"  # no revision of the pool was ever Ready: steps are skipped
    STARTING = "Starting"  # canary workers for the next weight become Ready
    SHIFTING = "Shifting"  # the weight is published; routers have yet to acknowledge it
    HOLDING = "Holding"  # the weight is verified; the step's pause and analysis run
    PAUSED = "Paused"  # until promote: an indefinite pause, missing data, a confirmation
    PROMOTING = "Promoting"  # the canary takes everything
    SCALING_DOWN = "ScalingDown"  # the canary is stable; old workers wait for scaleDownDelay
    ABORTING = "Aborting"  # weight 0 is published; routers have yet to acknowledge it
    ABORTED = "Aborted"  # stable has everything; sticky for this revision
    UNDOING = "Undoing"  # an older revision takes everything
    PINNED = "Pinned"  # after undo: it serves although the spec asks for another


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One of spec.steps: a weight, or a pause of `pause_s` seconds (None: until promote)."""

    weight: int | None = None
    pause_s: float | None = None

    @property
    def is_pause(self) -> bool:
        """Whether this step waits."""
        return self.weight is None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusPlan:
    """One query with its bounds."""

    name: str
    query: str
    min: float | None = None
    max: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPlan:
    """spec.analysis with durations in seconds. None: that check is off."""

    interval_s: float = 10.0
    min_requests: int = 100
    on_no_data: Literal["Pause", "Pass", "Fail"] = "Pause"
    failure_limit: int = 0
    initial_delay_s: float = 10.0
    max_window_s: float = 600.0
    starting_step: int = 0
    dry_run: bool = False
    min_success_rate: float | None = None
    max_p95_s: float | None = None
    max_p95_ratio: float | None = None
    max_disagreement: float | None = None
    prometheus: tuple[PrometheusPlan, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rollout's spec as numbers."""

    steps: tuple[StepPlan, ...] = ()
    step_hash: str = ""  # of steps: a change begins at step 0 again
    analysis: AnalysisPlan | None = None
    surge: Surge = "Auto"
    dynamic_stable_scale: bool = False
    automatic_rollback: bool = True
    progress_deadline_s: float = 600.0
    scale_down_delay_s: float = 30.0
    rollback_window: int = 0  # newest revisions to which going back skips the steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """The workers of one revision."""

    ready: Mapping[str, int] = field(default_factory=dict)  # Ready workers by class
    replicas: Mapping[str, int] = field(default_factory=dict)  # asked for, by class
    failure: str = ""  # what keeps a worker from starting, for good: broken model, crash loop
    failing_since_s: float | None = None  # since when `failure` holds without a break
    unschedulable: str = ""  # the scheduler's words: no accelerator is free

    @property
    def ready_total(self) -> int:
        """Ready workers over all classes."""
        return sum(self.ready.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What analysis says in this decision.

    `judged`: an interval ended just now (or a window closed), so `verdict` is new. A window is
    `bad` once, when it first met Fail. `passed`: since the step began a whole window passed
    and none that closed after it failed. `data_missing`: the open window has waited for
    minRequests until its end (of step and maxWindow), so onNoData decides.
    """

    judged: bool = False
    verdict: Verdict | None = None
    bad: bool = False
    passed: bool = False
    data_missing: bool = False
    message: str = ""
    checks: tuple[CheckResult, ...] = ()
    windows: tuple[WindowStatus, ...] = ()  # newest last, at most 10, the open one included


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What is there now. `counts` is the pool's desired total per class."""

    now_s: float
    asked: str  # revision of pool.template with rollout.template merged over it
    counts: Mapping[str, int]
    tracks: Mapping[str, Track] = field(default_factory=dict)  # by revision
    kept: tuple[str, ...] = ()  # every revision that exists, oldest first; `asked` may be none
    was_stable: str | None = None  # what the pool knows to have served as intended
    marked_aborted: frozenset[str] = frozenset()  # by the annotation of their ControllerRevision
    published: Mapping[str, int] = field(default_factory=dict)  # weights by revision
    settled: bool = True  # every live router has acknowledged `published`
    verbs: Mapping[str, str] = field(default_factory=dict)  # annotation name -> value
    paused: bool = False  # spec.paused or the annotation, of the rollout or the pool
    assessment: Assessment = field(default_factory=Assessment)
    local_aborts: Mapping[str, str] = field(default_factory=dict)  # revision -> router's words
    in_place_obstacle: str = ""  # the field that rules InPlace out; empty: it is possible


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a rollout remembers; equal to its status."""

    state: State = State.HEALTHY
    since_s: float = 0.0  # of the state
    step_index: int = 0  # steps done
    step_since_s: float = 0.0  # when the present step began
    step_hash: str = ""
    progressed_s: float = 0.0  # last progress; progressDeadline counts from here
    ready_workers: int = 0  # of the canary, else of stable: one more is progress
    stable: str | None = None
    canary: str | None = None  # also the target of promotion and undo
    asked: str | None = None
    weight: int = 0  # the canary's, as published by the last decision
    verified: int = 0  # the canary's, acknowledged by every live router
    failed_checks: int = 0
    aborted: str | None = None
    pinned: str | None = None
    reason: RolloutReason = RolloutReason.COMPLETED  # why in this state
    message: str = ""
    strategy: Strategy = "Surge"
    strategy_message: str = ""
    handled: Mapping[str, str] = field(default_factory=dict)  # annotation name -> last value


@dataclass(frozen=True, slots=True)
class Note:
    """An event to tell."""

    reason: RolloutEventReason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What must be so now.

    `weights` sum to 100 when any revision may serve, else they are empty. `scale` gives the
    workers per class of every revision that shall have any (stable, canary, one that is kept for
    scaleDownDelay); a revision that is not named is drained and removed once no router sends
    there. `mark_aborted` is to be recorded at that revision's ControllerRevision.
    """

    progress: Progress
    weights: Mapping[str, int]
    scale: Mapping[str, Mapping[str, int]]
    notes: tuple[Note, ...] = ()
    mark_aborted: str | None = None
    unmark_aborted: str | None = None
    deadline_exceeded: bool = False
    waiting_for_capacity: str = ""
