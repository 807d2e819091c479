"""InferencePool: a set of Triton workers that serve the same models.

Only fields whose behaviour exists are declared; docs/status.md lists the rest of the design.
"""

from typing import Annotated, Literal

from pydantic import Field

from tidegate_api.meta import ApiModel, Condition, ObjectMeta
from tidegate_api.template import (
    ClassModel,
    Duration,
    Name,
    Quantity,
    WorkerTemplate,
)


class ClassReplicas(ApiModel):
    """Bounds of one class, over all revisions. Absent: 0 and no limit."""

    min: int | None = Field(default=None, ge=0, le=10_000)
    max: int | None = Field(default=None, ge=0, le=10_000)


class AcceleratorClass(ApiModel):
    """A class of hardware that workers may run on; list order is the fallback order."""

    name: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$", max_length=15)]
    kind: Literal["GPU", "CPU", "Neuron"]
    resources: dict[str, int | Quantity] | None = Field(default=None, max_length=16)
    node_selector: dict[str, str] | None = Field(default=None, max_length=32)
    cost_per_hour: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+)?$", max_length=16)
    replicas: ClassReplicas | None = None
    models: list[ClassModel] | None = Field(default=None, max_length=64)


class ScoreWeights(ApiModel):
    """Weights of the components of a worker's score; only their ratios matter."""

    memory: float = Field(default=0.25, ge=0, le=1)
    queue: float = Field(default=0.3, ge=0, le=1)
    latency: float = Field(default=0.2, ge=0, le=1)
    utilization: float = Field(default=0.15, ge=0, le=1)
    temperature: float = Field(default=0.1, ge=0, le=1)


class Retry(ApiModel):
    """Retries after the first try, within one deadline."""

    attempts: int = Field(default=2, ge=0, le=10)
    budget_percent: int = Field(default=20, ge=0, le=100)
    per_try_timeout: Duration | None = None
    max_body_bytes: Quantity = "1Mi"


class Routing(ApiModel):
    """How routers choose a worker."""

    strategy: Literal["Scored"] = "Scored"
    top_k: int = Field(default=3, ge=1, le=16)
    score_weights: ScoreWeights = Field(default_factory=ScoreWeights)
    timeout: Duration = "30s"
    retry: Retry = Field(default_factory=Retry)


class Drain(ApiModel):
    """How long a worker that leaves may finish its work."""

    timeout: Duration = "60s"


class InferencePoolSpec(ApiModel):
    """What the user asks for. The operator never writes it."""

    template: WorkerTemplate
    accelerators: list[AcceleratorClass] = Field(min_length=1, max_length=16)
    replicas: int = Field(default=1, ge=0, le=10_000)
    routing: Routing = Field(default_factory=Routing)
    drain: Drain = Field(default_factory=Drain)
    revision_history_limit: int = Field(default=10, ge=1, le=100)
    paused: bool = False


class RevisionStatus(ApiModel):
    """One revision that still has workers or is desired."""

    name: str = Field(max_length=63)
    replicas: int = 0
    ready_replicas: int = 0
    draining: int = 0
    weight: int = Field(default=0, ge=0, le=100)
    created_at: str | None = None


class WorkerCounts(ApiModel):
    """Workers of all revisions."""

    total: int = 0
    ready: int = 0
    draining: int = 0


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


class InferencePoolStatus(ApiModel):
    """What the operator saw last."""

    observed_generation: int = 0
    replicas: int = 0
    ready_replicas: int = 0
    desired_replicas: int = 0
    selector: str = Field(default="", max_length=512)
    desired_revision: str | None = Field(default=None, max_length=63)
    stable_revision: str | None = Field(default=None, max_length=63)
    revisions: list[RevisionStatus] = Field(default_factory=list, max_length=110)
    weights: list[RevisionWeight] = Field(default_factory=list, max_length=16)
    verified_weights: list[RevisionWeight] = Field(default_factory=list, max_length=16)
    queue_depth: float | None = None
    p95_milliseconds: float | None = None
    requests_per_second: float | None = None
    cost_per_hour: str | None = Field(default=None, max_length=32)
    workers: WorkerCounts = Field(default_factory=WorkerCounts)
    collision_count: int | None = None
    operator: OperatorClaim | None = None
    address: Address | None = None
    conditions: list[Condition] = Field(default_factory=list, max_length=32)


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
