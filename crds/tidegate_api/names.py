"""Every name that crosses a process boundary, once.

Users, dashboards and other programs read these; a rename is an API change.
"""

from enum import StrEnum

GROUP = "tidegate.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
CATEGORY = "tidegate"

FIELD_MANAGER = "tidegate-operator"
ROUTES_LEASE = "tidegate-routes"  # renewed by the score loop: dates every RouteTable
LEADER_LEASE = "tidegate-operator"

LABEL_POOL = "tidegate.dev/pool"
LABEL_REVISION = "tidegate.dev/revision"
LABEL_CLASS = "tidegate.dev/class"
LABEL_WORKER_SET = "tidegate.dev/worker-set"
LABEL_ROUTER = "tidegate.dev/router"  # on router pods; NetworkPolicies select by it
LABEL_COMPONENT = "tidegate.dev/component"  # on our own objects: operator or router
LABEL_OPERATOR = "tidegate.dev/operator"  # on operator pods; NetworkPolicies select by it

ANNOTATION_PAUSED = "tidegate.dev/paused"
ANNOTATION_PROMOTE = "tidegate.dev/promote"  # <revision>/<step>
ANNOTATION_PROMOTE_FULL = "tidegate.dev/promote-full"  # <revision>
ANNOTATION_ABORT = "tidegate.dev/abort"  # <revision>
ANNOTATION_RETRY = "tidegate.dev/retry"  # <revision>
ANNOTATION_UNDO = "tidegate.dev/undo"  # <revision>@<RFC 3339>
ANNOTATION_RESTARTED_AT = "tidegate.dev/restartedAt"  # <RFC 3339>
ANNOTATION_MODELS_GENERATION = "tidegate.dev/models-generation"  # on worker pods
ANNOTATION_HOSTS = "tidegate.dev/hosts"  # on a Deployment: the revision promoted in place
ANNOTATION_ABORTED = "tidegate.dev/aborted"
ANNOTATION_RENDERED_HASH = "tidegate.dev/rendered-hash"
ANNOTATION_SCORE_LAG_MS = "tidegate.dev/score-lag-ms"
ANNOTATION_SIMULATED_DEVICES = "tidegate.dev/simulated-devices"

PORT_ROUTER_HTTP = 8000
PORT_ROUTER_GRPC = 8001
PORT_ROUTER_ADMIN = 9090
PORT_WORKER_HTTP = 8000
PORT_WORKER_GRPC = 8001
PORT_WORKER_AGENT = 9091
PORT_OPERATOR = 9092

HEADER_POOL = "x-tidegate-pool"  # "namespace/name"
HEADER_MODEL = "x-tidegate-model"  # gRPC metadata: routes without reading the message
HEADER_EXPLAIN = "x-tidegate-explain"
HEADER_TIER = "x-tidegate-tier"  # the name of one of routing.tiers
HEADER_CACHE = "x-tidegate-cache"  # answer: hit, miss or coalesced; absent: not cached
HEADER_DROPPED_REASON = "x-tidegate-dropped-reason"
HEADER_WORKER = "x-tidegate-worker"  # answer: pod name of the worker that served it
HEADER_REVISION = "x-tidegate-revision"
HEADER_ATTEMPTS = "x-tidegate-attempts"
HEADER_REQUEST_ID = "x-request-id"
HEADER_TRACEPARENT = "traceparent"  # https://www.w3.org/TR/trace-context/
HEADER_TRACESTATE = "tracestate"
HEADER_SERVER_TIMING = "Server-Timing"
HEADER_DRAIN_ACK = "x-tidegate-drain-ack"  # operator's scrape: every live router let go
HEADER_RESTRICTED_KEY = "x-tidegate-restricted-key"  # guards Triton's control APIs


class Kind(StrEnum):
    """Kinds of API group tidegate.dev."""

    INFERENCE_POOL = "InferencePool"
    MODEL_ROLLOUT = "ModelRollout"
    ROUTE_TABLE = "RouteTable"


PLURALS = {
    Kind.INFERENCE_POOL: "inferencepools",
    Kind.MODEL_ROLLOUT: "modelrollouts",
    Kind.ROUTE_TABLE: "routetables",
}
SHORT_NAMES = {
    Kind.INFERENCE_POOL: "tgpool",
    Kind.MODEL_ROLLOUT: "tgro",
    Kind.ROUTE_TABLE: "tgrt",
}


class ConditionType(StrEnum):
    """Condition types of an InferencePool; Ready, Reconciling, Stalled are kstatus's."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    WORKERS_AVAILABLE = "WorkersAvailable"
    MODELS_LOADED = "ModelsLoaded"
    METRICS_AVAILABLE = "MetricsAvailable"
    ROUTER_SYNCED = "RouterSynced"
    SCALING_ACTIVE = "ScalingActive"
    SCALING_LIMITED = "ScalingLimited"
    NAME_TAKEN = "NameTaken"
    TEMPLATE_OVERRIDDEN = "TemplateOverridden"


class RolloutCondition(StrEnum):
    """Condition types of a ModelRollout; Ready, Reconciling, Stalled are kstatus's."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    PAUSED = "Paused"
    COMPLETED = "Completed"
    PROMOTED = "Promoted"
    DEGRADED = "Degraded"
    PINNED = "Pinned"
    CONFLICT = "Conflict"
    INVALID_SPEC = "InvalidSpec"


class Reason(StrEnum):
    """Condition reasons (CamelCase, stable)."""

    AS_DESIRED = "AsDesired"
    SCALED_TO_ZERO = "ScaledToZero"
    PAUSED = "Paused"
    WORKERS_STARTING = "WorkersStarting"
    REPLACING_REVISION = "ReplacingRevision"
    DRAINING = "Draining"
    SCALING = "Scaling"
    INSUFFICIENT_ACCELERATOR = "InsufficientAccelerator"
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CONTAINER_CRASHED = "ContainerCrashed"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    MODEL_FETCH_FAILED = "ModelFetchFailed"
    MODEL_DIGEST_MISMATCH = "ModelDigestMismatch"
    MODEL_CONFIG_INVALID = "ModelConfigInvalid"
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    MODEL_NOT_READY = "ModelNotReady"
    MODELS_READY = "ModelsReady"
    BACKEND_NOT_IN_IMAGE = "BackendNotInImage"
    INSUFFICIENT_DEVICE_MEMORY = "InsufficientDeviceMemory"
    SERVER_CRASHED = "ServerCrashed"
    NO_WORKERS = "NoWorkers"
    WORKERS_READY = "WorkersReady"
    INVALID_SPEC = "InvalidSpec"
    NAME_CONFLICT = "NameConflict"
    OPERATOR_CONFLICT = "OperatorConflict"
    WRITE_REFUSED = "WriteRefused"
    METRICS_FOUND = "MetricsFound"
    METRICS_MISSING = "MetricsMissing"
    METRICS_STALE = "MetricsStale"
    ROUTERS_SYNCED = "RoutersSynced"
    ROUTERS_CATCHING_UP = "RoutersCatchingUp"
    ROUTER_UNREACHABLE = "RouterUnreachable"
    NO_ROUTERS = "NoRouters"
    FOREIGN_AUTOSCALER = "ForeignAutoscaler"
    REPLICAS_FIXED = "ReplicasFixed"
    DESIRED_WITHIN_RANGE = "DesiredWithinRange"
    TOO_FEW_REPLICAS = "TooFewReplicas"
    TOO_MANY_REPLICAS = "TooManyReplicas"
    OLDER_POOL_OWNS_NAME = "OlderPoolOwnsName"
    ROLLOUT_IN_CHARGE = "RolloutInCharge"
    ROLLOUT_DELETED = "RolloutDeleted"


class RolloutReason(StrEnum):
    """Condition and pause reasons of a ModelRollout (CamelCase, stable)."""

    COMPLETED = "Completed"
    FIRST_DEPLOY = "FirstDeploy"
    STARTING_CANARY = "StartingCanary"
    SHIFTING_TRAFFIC = "ShiftingTraffic"
    TIMED_PAUSE = "TimedPause"
    PAUSED_BY_STEP = "PausedByStep"
    PAUSED_BY_USER = "PausedByUser"
    AWAITING_DATA = "AwaitingData"
    NO_DATA = "NoData"
    OUTAGE_NEEDS_CONFIRMATION = "OutageNeedsConfirmation"
    PROMOTING = "Promoting"
    SCALING_DOWN_OLD = "ScalingDownOld"
    ABORTING = "Aborting"
    UNDOING = "Undoing"
    ANALYSIS_FAILED = "AnalysisFailed"
    ABORTED_BY_USER = "AbortedByUser"
    LOCAL_ABORT = "LocalAbort"
    CANARY_CANNOT_START = "CanaryCannotStart"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    INSUFFICIENT_ACCELERATOR = "InsufficientAccelerator"
    IN_PLACE_NOT_POSSIBLE = "InPlaceNotPossible"
    ROUTER_UNREACHABLE = "RouterUnreachable"
    PINNED = "Pinned"
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_HAS_ROLLOUT = "PoolHasRollout"
    INVALID_SPEC = "InvalidSpec"
    WORKERS_READY = "WorkersReady"
    WORKERS_MISSING = "WorkersMissing"
    AS_ASKED = "AsAsked"


class EventReason(StrEnum):
    """Reasons of Kubernetes Events on an InferencePool."""

    REVISION_CREATED = "RevisionCreated"
    REVISION_PROMOTED = "RevisionPromoted"
    REVISION_REMOVED = "RevisionRemoved"
    WORKER_SET_CREATED = "WorkerSetCreated"
    WORKER_SET_REMOVED = "WorkerSetRemoved"
    SCALING_WORKER_SET = "ScalingWorkerSet"
    TRAFFIC_WEIGHT_UPDATED = "TrafficWeightUpdated"
    WORKERS_DRAINING = "WorkersDraining"
    WORKER_FAILED = "WorkerFailed"
    SOURCE_UNVERIFIED = "SourceUnverified"
    WORKER_IMAGE_INSECURE = "WorkerImageInsecure"
    NAME_CONFLICT = "NameConflict"
    POOL_READY = "PoolReady"
    POOL_NOT_READY = "PoolNotReady"


class RolloutEventReason(StrEnum):
    """Reasons of Kubernetes Events on a ModelRollout; Argo Rollouts' where it has them."""

    ROLLOUT_UPDATED = "RolloutUpdated"
    ROLLOUT_STEP_COMPLETED = "RolloutStepCompleted"
    TRAFFIC_WEIGHT_UPDATED = "TrafficWeightUpdated"
    TRAFFIC_WEIGHT_VERIFIED = "TrafficWeightVerified"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_RESUMED = "RolloutResumed"
    ROLLOUT_ABORTED = "RolloutAborted"
    ROLLOUT_COMPLETED = "RolloutCompleted"
    ROLLOUT_UNDONE = "RolloutUndone"
    ANALYSIS_RUN_FAILED = "AnalysisRunFailed"
    SCALING_REPLICA_SET = "ScalingReplicaSet"
    SURGE_CHOSEN = "SurgeChosen"
    VERB_IGNORED = "VerbIgnored"
    STEP_TOO_SHORT_FOR_TRAFFIC = "StepTooShortForTraffic"
    INVALID_SPEC = "InvalidSpec"
    CONFLICT = "Conflict"


class Strategy(StrEnum):
    """Values of spec.routing.strategy: how a router chooses among the workers of a revision."""

    SCORED = "Scored"
    ROUND_ROBIN = "RoundRobin"
    LEAST_LOADED = "LeastLoaded"
    WEIGHTED = "Weighted"
    RANDOM = "Random"
    POWER_OF_TWO = "PowerOfTwo"


class FailureMode(StrEnum):
    """Values of spec.routing.failureMode: what routers do once every score is worthless."""

    FAIL_OPEN = "FailOpen"
    FAIL_CLOSED = "FailClosed"


class DroppedReason(StrEnum):
    """Values of header x-tidegate-dropped-reason: why the router itself refused."""

    NO_WORKERS = "no-workers"
    SATURATED = "saturated"
    SCORES_STALE = "scores-stale"
    DEADLINE = "deadline"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_POOL = "unknown-pool"
    NOT_ALLOWED = "not-allowed"
    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large"
    RETRIES_EXHAUSTED = "retries-exhausted"
    SUSPECTED_POISON = "suspected-poison"
    SHUTTING_DOWN = "shutting-down"
    CLIENT_GONE = "client-gone"
    INTERNAL = "internal"
