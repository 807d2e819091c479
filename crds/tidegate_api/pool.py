"""InferencePool: a set of Triton workers that serve the same models.

Only fields whose behaviour exists are declared; docs/status.md lists the rest of the design.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tidegate_api import rules
from tidegate_api.meta import ApiModel, Condition, ObjectMeta
from tidegate_api.template import (
    ClassModel,
    Duration,
    LabelValue,
    Name,
    Quantity,
    WorkerTemplate,
)


class ClassReplicas(ApiModel):
    """Bounds of one class, over all revisions. Absent: 0 and no limit."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.REPLICAS_ORDERED))

    min: int | None = Field(default=None, ge=0, le=10_000, description="omitted: 0")
    max: int | None = Field(default=None, ge=0, le=10_000, description="omitted: no limit")


class AcceleratorClass(ApiModel):
    """A class of hardware that workers may run on; list order is the fallback order."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.CLASS_INSTANCES_FIT))

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$", max_length=15)]
    kind: Literal["GPU", "CPU", "Neuron"] = Field(
        description="what models run on where instances[].kind is omitted"
    )
    resources: dict[str, Annotated[int, Field(ge=0)] | Quantity] | None = Field(
        default=None,
        max_length=16,
        description="requests and limits of one worker, e.g. nvidia.com/gpu: 1",
    )
    node_selector: dict[str, LabelValue] | None = Field(default=None, max_length=32)
    cost_per_hour: str | None = Field(
        default=None,
        pattern=r"^[0-9]+(\.[0-9]+)?$",
        max_length=16,
        description="of one worker, in a currency of your choice",
    )
    replicas: ClassReplicas | None = None
    models: list[ClassModel] | None = Field(
        default=None,
        max_length=64,
        description="settings of models that differ on this class",
        json_schema_extra=rules.list_map("name"),
    )


class ScoreWeights(ApiModel):
    """Weights of the components of a worker's score; only their ratios matter."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.SCORE_WEIGHTS_COUNT))

    memory: float = Field(default=0.25, ge=0, le=1, description="free device memory")
    queue: float = Field(default=0.3, ge=0, le=1, description="short queue")
    latency: float = Field(
        default=0.2, ge=0, le=1, description="latency relative to the pool's best worker"
    )
    utilization: float = Field(default=0.15, ge=0, le=1, description="idle device")
    temperature: float = Field(default=0.1, ge=0, le=1, description="cool device")


class Retry(ApiModel):
    """Retries after the first try, within one deadline."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.PER_TRY_TIMEOUT))

    attempts: int = Field(default=2, ge=0, le=10, description="retries after the first try")
    budget_percent: int = Field(
        default=20, ge=0, le=100, description="retries as a share of a router's recent requests"
    )
    per_try_timeout: Duration | None = Field(
        default=None, description="of one worker's answer; omitted: only the whole timeout counts"
    )
    max_body_bytes: Quantity = Field(
        default="1Mi", description="a larger request is not kept for a retry"
    )


class EjectionRules(ApiModel):
    """When a worker that answers badly, or not at all, gets no requests for a while."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(rules.BASE_EJECTION, rules.MAX_EJECTION, rules.EJECTION_ORDERED)
    )

    consecutive_failures: int = Field(default=3, ge=1, le=100, description="in a row")
    base_ejection: Duration = Field(
        default="5s", description="then one request tries the worker, and again after as long"
    )
    max_ejection: Duration = Field(
        default="300s", description="the time doubles up to this for workers that fall again"
    )
    max_ejected_percent: int = Field(
        default=50,
        ge=0,
        le=100,
        description="of a revision's workers of one class, yet one if there are two; 0: off",
    )


class RouterQueue(ApiModel):
    """Requests that wait in each router, per pool."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.MAX_WAIT, rules.NO_WORKERS_TTL))

    max_requests: int = Field(default=5000, ge=1, le=1_000_000, description="a bound on memory")
    max_bytes: Quantity = Field(
        default="256Mi",
        description="of the bodies that wait; a router's own bound over all pools holds as well",
    )
    max_wait: Duration | None = Field(
        default=None,
        description="a request that would wait longer for a worker is refused at once; omitted: "
        "1s, or 4 times the median service time where that is more",
    )
    no_workers_ttl: Duration = Field(
        default="55s",
        alias="noWorkersTTL",
        description="how long a request is held while no worker exists; 0s: refused at once",
    )


class Tier(ApiModel):
    """A class of requests, named by header x-tidegate-tier."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.TIER_TARGET))

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
    p99_target: Duration | None = Field(
        default=None,
        alias="p99Target",
        description="the longest wait in a queue that is worth it; omitted: queue.maxWait",
    )
    weight: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="share of a queue, relative to the other tiers; omitted: 1",
    )


class Routing(ApiModel):
    """How routers choose a worker."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.REQUEST_TIMEOUT))

    strategy: Literal["Scored", "RoundRobin", "LeastLoaded", "Weighted", "Random", "PowerOfTwo"] = (
        Field(default="Scored", description="how one of a revision's workers is chosen")
    )
    top_k: int = Field(
        default=3, ge=1, le=16, description="candidates drawn by score; the least loaded wins"
    )
    score_weights: ScoreWeights = Field(default_factory=ScoreWeights)
    timeout: Duration = Field(
        default="30s", description="of a request, from dispatch, over all its attempts"
    )
    retry: Retry = Field(default_factory=Retry)
    ejection: EjectionRules = Field(default_factory=EjectionRules)
    failure_mode: Literal["FailOpen", "FailClosed"] = Field(
        default="FailOpen",
        description="without news for 45 s: choose evenly, or refuse with scores-stale",
    )
    queue: RouterQueue = Field(default_factory=RouterQueue)
    tiers: list[Tier] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="the last one is the default; omitted: all requests are alike",
        json_schema_extra=rules.list_map("name"),
    )
    trust_tier_header: bool = Field(
        default=False,
        description="header x-tidegate-tier counts; without it every request has the last tier",
    )


class Drain(ApiModel):
    """How long a worker that leaves may finish its work."""

    model_config = ConfigDict(json_schema_extra=rules.on(rules.DRAIN_TIMEOUT))

    timeout: Duration = Field(
        default="60s", description="after this a worker goes even with requests in flight"
    )


class InferencePoolSpec(ApiModel):
    """What the user asks for. The operator never writes it."""

    model_config = ConfigDict(
        json_schema_extra=rules.on(rules.CLASS_MODEL_KNOWN, rules.GPU_INSTANCES_NEED_GPU_CLASS)
    )

    template: WorkerTemplate
    accelerators: list[AcceleratorClass] = Field(
        min_length=1,
        max_length=16,
        description="what workers may run on, in fallback order",
        json_schema_extra=rules.list_map("name"),
    )
    replicas: int = Field(
        default=1,
        ge=0,
        le=10_000,
        description="workers over all classes; written by kubectl scale, HPA and KEDA too",
    )
    routing: Routing = Field(default_factory=Routing)
    drain: Drain = Field(default_factory=Drain)
    revision_history_limit: int = Field(
        default=10, ge=1, le=100, description="revisions without workers that are kept"
    )
    paused: bool = Field(
        default=False,
        description="no new revision, scale or weight increase; routing and draining go on",
    )


class RevisionStatus(ApiModel):
    """One revision that still has workers or is desired."""

    name: str = Field(max_length=63)
    replicas: int = Field(default=0, ge=0, description="its workers")
    ready_replicas: int = Field(default=0, ge=0)
    draining: int = Field(default=0, ge=0)
    weight: int = Field(default=0, ge=0, le=100, description="percent of requests")
    created_at: str | None = Field(default=None, max_length=40, description="RFC 3339, UTC")


class WorkerCounts(ApiModel):
    """Workers of all revisions."""

    total: int = Field(default=0, ge=0)
    ready: int = Field(default=0, ge=0)
    draining: int = Field(default=0, ge=0)
    ejected: int = Field(default=0, ge=0, description="by at least one router, for any model")


class Address(ApiModel):
    """Where to send requests."""

    url: str | None = Field(default=None, max_length=2048)


class OperatorClaim(ApiModel):
    """The operator release that reconciles this pool; another one leaves it alone."""

    name: str = Field(max_length=253)
    namespace: str = Field(max_length=63)


class RevisionWeight(ApiModel):
    """Percent of the pool's requests that a revision gets."""

    revision: str = Field(max_length=63)
    weight: int = Field(ge=0, le=100)


class RolloutBinding(ApiModel):
    """The ModelRollout in charge of the template, also after it was deleted."""

    name: str = Field(max_length=253)
    uid: str = Field(max_length=64)
    template_hash: str = Field(
        max_length=16, description="of this pool's own template; a change ends an override"
    )
    deleted: bool = Field(
        default=False, description="the rollout is gone: stableRevision stays in its place"
    )


class InferencePoolStatus(ApiModel):
    """What the operator saw last."""

    observed_generation: int = Field(
        default=0, ge=0, description="metadata.generation that this status judged"
    )
    replicas: int = Field(
        default=0, ge=0, description="workers not draining, without those of a replacement"
    )
    ready_replicas: int = Field(default=0, ge=0, description="of replicas, those Ready")
    desired_replicas: int = Field(default=0, ge=0, description="workers that should run")
    selector: str = Field(default="", max_length=512, description="label selector of all workers")
    desired_revision: str | None = Field(
        default=None, max_length=63, description="hash of spec.template"
    )
    stable_revision: str | None = Field(
        default=None, max_length=63, description="the revision that serves"
    )
    revisions: list[RevisionStatus] = Field(default_factory=list, max_length=110)
    weights: list[RevisionWeight] = Field(
        default_factory=list, max_length=16, description="published to routers"
    )
    verified_weights: list[RevisionWeight] = Field(
        default_factory=list, max_length=16, description="acknowledged by every live router"
    )
    queue_depth: float | None = Field(
        default=None, description="waiting in routers and pending in Triton, per Ready worker"
    )
    p95_milliseconds: float | None = Field(
        default=None, description="latency that clients saw in the last 30 s"
    )
    requests_per_second: float | None = Field(default=None, description="in the last 30 s")
    cost_per_hour: str | None = Field(
        default=None, max_length=32, description="of all workers, by accelerators[].costPerHour"
    )
    workers: WorkerCounts = Field(default_factory=WorkerCounts)
    collision_count: int | None = Field(
        default=None, ge=0, description="salts the revision hash after a name collision"
    )
    rollout: RolloutBinding | None = Field(
        default=None, description="the ModelRollout that decides what runs"
    )
    restarted_at: str | None = Field(
        default=None, max_length=40, description="the last restart that was asked for"
    )
    operator: OperatorClaim | None = None
    address: Address | None = None
    conditions: list[Condition] = Field(
        default_factory=list, max_length=32, json_schema_extra=rules.list_map("type")
    )


class InferencePool(ApiModel):
    """The object as the API server serves it."""

    metadata: ObjectMeta
    spec: InferencePoolSpec
    status: InferencePoolStatus = Field(default_factory=InferencePoolStatus)


__all__ = [
    "AcceleratorClass",
    "Address",
    "ClassReplicas",
    "Drain",
    "EjectionRules",
    "InferencePool",
    "InferencePoolSpec",
    "InferencePoolStatus",
    "Name",
    "OperatorClaim",
    "Retry",
    "RevisionStatus",
    "RevisionWeight",
    "Routing",
    "ScoreWeights",
    "WorkerCounts",
]
