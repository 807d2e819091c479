"""ModelRollout: how a changed template takes over a pool's requests, step by step.

One per pool, long-lived, edited for each version. Semantics are Argo Rollouts'; the data that
decides is the routers' own. Only fields whose behaviour exists are declared.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tidegate_api import rules
from tidegate_api.meta import ApiModel, Condition, ObjectMeta
from tidegate_api.template import (
    Duration,
    ModelBehavior,
    ModelName,
    ModelSource,
    PodSettings,
)

Phase = Literal["Healthy", "Progressing", "Paused", "Degraded"]
Surge = Literal["Auto", "Surge", "TerminateFirst", "InPlace"]
Verdict = Literal["Pass", "Fail", "Inconclusive"]
RevisionName = Annotated[str, Field(max_length=63)]
Instant = Annotated[str, Field(max_length=40)]


class RolloutModel(ModelBehavior):
    """What differs of one of the pool's models."""

    name: ModelName = Field(description="a model of the pool's template")
    source: ModelSource | None = None


class RolloutTemplate(ApiModel):
    """Merged over the pool's template: models by name, scalars replace, lists replace whole."""

    image: str | None = Field(default=None, max_length=512)
    models: list[RolloutModel] | None = Field(
        default=None, max_length=64, json_schema_extra=rules.list_map("name")
    )
    pod: PodSettings | None = None


class PoolReference(ApiModel):
    """A pool of the rollout's namespace."""

    name: str = Field(min_length=1, max_length=36)


class StepPause(ApiModel):
    """A pause; without duration until `promote`."""

    duration: Duration | None = Field(default=None, description="omitted: until promote")


class Step(ApiModel):
    """One step: a weight, or a pause at the weight reached."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.ONE_STEP_KIND))

    set_weight: int | None = Field(
        default=None, ge=0, le=100, description="percent of requests that the canary gets"
    )
    pause: StepPause | None = None


class SuccessRate(ApiModel):
    """Least share of attempts that must succeed: ok / (ok + modelError + workerFault + timeout)."""

    min: float = Field(ge=0, le=1, description="0..1")


class P95Latency(ApiModel):
    """Limits of the attempts' 95th percentile, queueing in the router excluded."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.LATENCY_LIMIT))

    max: Duration | None = None
    max_ratio_to_stable: float | None = Field(
        default=None, ge=1, le=100, description="of stable's p95 in the same window"
    )


class ShadowCheck(ApiModel):
    """Limit of the share of mirrored requests whose answers differ."""

    max_disagreement: float = Field(ge=0, le=1, description="0..1")


class PrometheusCheck(ApiModel):
    """A query that must give one number within bounds; an empty or NaN answer is no data."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.PROMETHEUS_BOUND))

    name: str = Field(min_length=1, max_length=63)
    query: str = Field(min_length=1, max_length=4096, description="PromQL")
    min: float | None = None
    max: float | None = None


class Analysis(ApiModel):
    """What the canary's requests must look like. Fail is judged every interval, Pass needs data."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(
            rules.ANALYSIS_INTERVAL, rules.ANALYSIS_INITIAL_DELAY, rules.ANALYSIS_MAX_WINDOW
        )
    )

    interval: Duration = Field(default="10s", description="between two judgements")
    min_requests: int = Field(
        default=100, ge=1, le=1_000_000, description="per window and track, for Pass"
    )
    on_no_data: Literal["Pause", "Pass", "Fail"] = Field(
        default="Pause", description="when a window ends without minRequests"
    )
    failure_limit: int = Field(
        default=0, ge=0, le=100, description="bad windows tolerated per step"
    )
    initial_delay: Duration = Field(default="10s", description="after a new weight is verified")
    max_window: Duration = Field(default="10m", description="how long a window waits for data")
    starting_step: int = Field(default=0, ge=0, le=100, description="steps before are not judged")
    dry_run: bool = Field(default=False, description="verdicts are told and change nothing")
    success_rate: SuccessRate | None = None
    p95_latency: P95Latency | None = None
    shadow: ShadowCheck | None = None
    prometheus: list[PrometheusCheck] = Field(
        default_factory=list, max_length=16, json_schema_extra=rules.list_map("name")
    )


class Match(ApiModel):
    """Requests that always go to the canary; analysis leaves them out."""

    headers: dict[str, Annotated[str, Field(max_length=256)]] = Field(
        min_length=1, max_length=8, description="all must be equal; names in any case"
    )


class Mirror(ApiModel):
    """Copies of stable's requests that the canary answers to nobody."""

    percent: int = Field(default=0, ge=0, le=100, description="of stable's requests")


class RollbackWindow(ApiModel):
    """Going back to one of the newest revisions skips the steps."""

    revisions: int = Field(ge=0, le=100)


class ModelRolloutSpec(ApiModel):
    """What the user asks for. The operator never writes it."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(
            rules.POOL_FIXED,
            rules.STEPS_RISE,
            rules.SHADOW_NEEDS_MIRROR,
            rules.PROGRESS_DEADLINE,
            rules.SCALE_DOWN_DELAY,
        )
    )

    pool_ref: PoolReference
    template: RolloutTemplate = Field(default_factory=RolloutTemplate)
    steps: list[Step] = Field(
        default_factory=list, max_length=50, description="none: promoted once it is Ready"
    )
    analysis: Analysis | None = Field(default=None, description="omitted: steps go by time alone")
    match: Match | None = None
    mirror: Mirror | None = None
    surge: Surge = Field(
        default="Auto",
        description="Surge: workers beside stable's. TerminateFirst: in their place. InPlace: a"
        " second version in stable's workers. Auto: Surge where schedulable, else InPlace where"
        " possible, else it waits",
    )
    dynamic_stable_scale: bool = Field(
        default=False, description="true: stable shrinks to its share while the canary grows"
    )
    automatic_rollback: bool = Field(
        default=True, description="false: a bad verdict pauses instead of aborting"
    )
    progress_deadline: Duration = Field(
        default="10m", description="without any progress for this long: Stalled"
    )
    scale_down_delay: Duration = Field(
        default="30s", description="workers of a revision without weight are kept this long"
    )
    rollback_window: RollbackWindow | None = None
    paused: bool = Field(
        default=False, description="no step and no weight increase; rollback goes on"
    )


class PauseCondition(ApiModel):
    """One reason why the rollout stands still."""

    reason: str = Field(max_length=64)
    start_time: Instant


class CheckResult(ApiModel):
    """One check of one window, with the numbers that decided it."""

    name: str = Field(max_length=80)
    verdict: Verdict
    requests: int = Field(default=0, ge=0, description="canary attempts that were judged")
    bad: int = Field(default=0, ge=0, description="of those, the ones beyond the limit")
    value: float | None = Field(default=None, description="what was measured")
    limit: float | None = Field(default=None, description="what was allowed")
    message: str = Field(default="", max_length=1024)


class WindowStatus(ApiModel):
    """One analysis window."""

    step: int = Field(ge=0)
    started_at: Instant
    ended_at: Instant | None = Field(default=None, description="absent: still open")
    verdict: Verdict
    checks: list[CheckResult] = Field(default_factory=list, max_length=24)


class AnalysisStatus(ApiModel):
    """The newest verdict, and the windows it stands on."""

    verdict: Verdict | None = None
    message: str = Field(default="", max_length=1024)
    windows: list[WindowStatus] = Field(default_factory=list, max_length=10)


class HandledVerbs(ApiModel):
    """The last value of each verb's annotation that was acted on or refused."""

    promote: str | None = Field(default=None, max_length=256)
    promote_full: str | None = Field(default=None, max_length=256)
    abort: str | None = Field(default=None, max_length=256)
    retry: str | None = Field(default=None, max_length=256)
    undo: str | None = Field(default=None, max_length=256)
    restarted_at: str | None = Field(default=None, max_length=256)


class SurgeStatus(ApiModel):
    """How the canary gets its workers, and why so."""

    strategy: Literal["Surge", "TerminateFirst", "InPlace"]
    message: str = Field(default="", max_length=1024)


class ModelRolloutStatus(ApiModel):
    """What the operator saw last, and all that a new operator needs to go on."""

    observed_generation: int = Field(default=0, ge=0)
    phase: Phase | None = None
    state: str = Field(
        default="", max_length=32, description="the state machine's, see docs/rollouts.md"
    )
    message: str = Field(default="", max_length=2048)
    current_step_index: int | None = Field(
        default=None, ge=0, description="steps done; as many as there are steps: all"
    )
    step_count: int | None = Field(default=None, ge=0)
    step_hash: str | None = Field(
        default=None, max_length=16, description="of spec.steps; a change begins at step 0 again"
    )
    step_started_at: Instant | None = None
    state_since: Instant | None = None
    progressed_at: Instant | None = Field(
        default=None, description="progressDeadline counts from here"
    )
    ready_workers: int = Field(
        default=0, ge=0, description="of the canary, else of stable: one more is progress"
    )
    stable_revision: RevisionName | None = None
    canary_revision: RevisionName | None = None
    asked_revision: RevisionName | None = Field(
        default=None, description="hash of the pool's template with this one merged over it"
    )
    canary_weight: int = Field(default=0, ge=0, le=100, description="published to routers")
    verified_weight: int = Field(default=0, ge=0, le=100, description="acknowledged by all")
    failed_checks: int = Field(default=0, ge=0, description="bad windows of this step")
    pause_conditions: list[PauseCondition] = Field(default_factory=list, max_length=8)
    aborted_revision: RevisionName | None = None
    pinned_revision: RevisionName | None = Field(
        default=None, description="after undo: serves although the spec asks for another"
    )
    surge: SurgeStatus | None = None
    analysis: AnalysisStatus = Field(default_factory=AnalysisStatus)
    handled_verbs: HandledVerbs = Field(default_factory=HandledVerbs)
    conditions: list[Condition] = Field(
        default_factory=list, max_length=32, json_schema_extra=rules.list_map("type")
    )


class ModelRollout(ApiModel):
    """The object as the API server serves it."""

    metadata: ObjectMeta
    spec: ModelRolloutSpec
    status: ModelRolloutStatus = Field(default_factory=ModelRolloutStatus)
