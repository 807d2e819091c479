"""What the shell must do after one decision, in the order of the fields of `Decision`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_api.names import EventReason
from tidegate_api.pool import InferencePoolStatus
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.template import JsonObject
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.rollout.model import Note


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole object for server-side apply (apiVersion, kind, metadata, spec or data)."""

    body: JsonObject
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object to delete, if it still has this UID."""

    kind: str
    name: str
    uid: str


class TableChange(StrEnum):
    """How soon a table must be written."""

    URGENT = "Urgent"  # membership, weights, readiness, draining, policy: at once
    SCORES = "Scores"  # through the write budget


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePlan:
    """A RouteTable to write: parts first, then the index, then the stale parts go.

    Written by plain create or update with resourceVersion. `index` and `parts` are the objects
    of `spec`. When `parts` is empty, `index` alone is written.
    """

    change: TableChange
    spec: RouteTableSpec
    index: Manifest
    parts: tuple[Manifest, ...] = ()
    stale_parts: tuple[str, ...] = ()  # names of part objects that nothing refers to


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event on the pool; the shell drops repetitions of (reason, message)."""

    reason: EventReason
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerScore:
    """A worker's score with its parts, for the operator's own /v1/state."""

    uid: str
    name: str
    score: float | None
    components: Mapping[str, float]
    success_ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutDecision:
    """What to say of one ModelRollout."""

    name: str
    uid: str
    status: ModelRolloutStatus
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome. Every field may be empty; `status` None leaves the status alone.

    `deletion_costs` (pod name -> cost) are annotations to write before `applies`, because the
    ReplicaSet controller reads them when replicas fall. `models_generations` are annotations to
    write after `applies`: the kubelet then refreshes the models document at once. `applies` is
    everything that must exist, each time; the shell writes only what differs. `drain_acks` are
    pod UIDs whose next scrape carries the drain acknowledgement. `status` is complete, gauges
    included.
    """

    memory: PoolMemory
    first: Manifest | None = None  # before everything else: a revision is marked as aborted
    table: TablePlan | None = None
    deletion_costs: Mapping[str, int] = field(default_factory=dict)
    applies: tuple[Manifest, ...] = ()
    models_generations: Mapping[str, str] = field(default_factory=dict)  # by pod: annotate
    deletes: tuple[Deletion, ...] = ()
    status: InferencePoolStatus | None = None
    events: tuple[Event, ...] = ()
    drain_acks: frozenset[str] = frozenset()
    scores: tuple[WorkerScore, ...] = ()
    costs_per_hour: Mapping[str, float] = field(default_factory=dict)  # by class
    rollouts: tuple[RolloutDecision, ...] = ()
    last: Manifest | None = None  # after everything else: that mark goes
    recheck_after_s: float = 1.0
