"""Everything that one decision about one pool may look at, gathered before deciding.

The shell fills these from its watch caches and scrapes and calls `decide` once. Times are epoch
seconds of the operator's clock; nothing here is compared with a clock of another machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_api.meta import ObjectMeta
from tidegate_api.pool import InferencePool, OperatorClaim
from tidegate_api.rollout import ModelRollout, ModelRolloutStatus
from tidegate_api.routerstate import RouterState
from tidegate_api.routetable import PoolIdentity, RouteTableSpec
from tidegate_api.state import WorkerState
from tidegate_api.template import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """What the operator's own configuration contributes to a decision."""

    release: OperatorClaim
    worker_image: str  # used where spec.template.image is empty, resolved once per revision
    router_url: str = ""  # status.address.url; empty: unknown
    network_policy: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Identity of an object that bears one of our names."""

    kind: str
    name: str
    uid: str
    controller_uid: str | None = None  # ownerReference with controller: true
    controller_kind: str = ""
    controller_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    terminating: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedDeployment:
    """One worker set as the API server has it."""

    meta: Owned
    replicas: int  # spec.replicas
    ready: int = 0  # status.readyReplicas
    pod_template: JsonObject = field(default_factory=dict)  # spec.template, as served
    replica_failure: str = ""  # message of condition ReplicaFailure: quota or admission refused


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRevision:
    """One ControllerRevision, of a revision or of a worker set (core.stored tells which)."""

    meta: Owned
    data: JsonObject
    number: int = 0  # .revision
    created_at: str = ""  # RFC 3339


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerProblem:
    """What the kubelet says of one container that waits or ended."""

    container: str
    waiting_reason: str = ""
    waiting_message: str = ""
    terminated_reason: str = ""  # of the present or the last ended run
    terminated_message: str = ""
    exit_code: int | None = None
    restarts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """One worker."""

    uid: str
    name: str
    worker_set: str  # label tidegate.dev/worker-set = name of its Deployment
    revision: str
    accelerator: str  # class name
    ip: str = ""
    node: str = ""
    phase: str = "Pending"  # Pending, Running, Succeeded, Failed, Unknown
    phase_reason: str = ""  # status.reason, e.g. Evicted
    phase_message: str = ""
    ready: bool = False  # condition Ready
    terminating: bool = False
    created_s: float = 0.0
    problems: tuple[ContainerProblem, ...] = ()
    unschedulable_message: str = ""  # condition PodScheduled=False
    deletion_cost: int = 0  # annotation controller.kubernetes.io/pod-deletion-cost
    models_generation: str = ""  # annotation tidegate.dev/models-generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """The last good answer of an agent, and the error of the last try if it failed."""

    scraped_s: float | None = None  # when `state` arrived; None: never
    state: WorkerState | None = None
    error: str = ""  # empty: the last try succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterMember:
    """A ready endpoint of the router Service, or one that left it less than 10 s ago."""

    name: str
    address: str
    ready: bool = True
    left_s_ago: float | None = None  # None: still an endpoint
    seen_s: float = 0.0  # when this operator first saw it
    scraped_s: float | None = None
    state: RouterState | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTable:
    """The RouteTable of the pool as the API server has it, parts assembled."""

    spec: RouteTableSpec
    written_s: float  # when this operator wrote it or first saw it
    part_names: tuple[str, ...] = ()  # every part object of this pool that exists


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedAutoscaler:
    """An HPA (KEDA makes one too) and what it aims at."""

    name: str
    target_kind: str
    target_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPool:
    """Another pool of the cluster, as far as model names go."""

    identity: PoolIdentity
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedWrite:
    """A write that the API server refused for good (quota, admission, validation)."""

    kind: str
    name: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRollout:
    """A ModelRollout that names the pool. `rollout` is None where its spec cannot be read."""

    meta: ObjectMeta
    rollout: ModelRollout | None
    template: JsonObject = field(default_factory=dict)  # spec.template as written
    status: ModelRolloutStatus = field(default_factory=ModelRolloutStatus)
    problem: str = ""  # why `rollout` is None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """The newest answer of one Prometheus query. `value` None: no usable number."""

    at_s: float
    value: float | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolObservation:
    """One pool and everything around it at `now_s`.

    `template` and `accelerators` are the raw JSON of the spec: revisions hash what the user
    wrote, which a parsed model cannot give back exactly. `others` are objects beside
    Deployments and ControllerRevisions that bear names of this pool (Service, ConfigMap,
    PodDisruptionBudget, NetworkPolicy, RouteTable), whoever controls them.
    """

    now_s: float
    pool: InferencePool
    template: JsonObject
    accelerators: tuple[JsonObject, ...]
    settings: OperatorSettings
    deployments: tuple[ObservedDeployment, ...] = ()
    revisions: tuple[ObservedRevision, ...] = ()
    others: tuple[Owned, ...] = ()
    pods: tuple[ObservedPod, ...] = ()
    scrapes: Mapping[str, Scrape] = field(default_factory=dict)  # by pod UID
    routers: tuple[RouterMember, ...] = ()
    published: PublishedTable | None = None
    autoscalers: tuple[ObservedAutoscaler, ...] = ()
    other_pools: tuple[OtherPool, ...] = ()
    refused: tuple[RefusedWrite, ...] = ()
    rollouts: tuple[ObservedRollout, ...] = ()  # all that name this pool
    queries: Mapping[str, QueryResult] = field(default_factory=dict)  # by PromQL
