"""RouteTable: what the operator publishes per pool and every router applies.

A table whose JSON exceeds PART_BYTES is split: parts first, the index last. A router applies
only a complete set whose digests match, so a half-written table changes nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from tidegate_api.meta import ApiModel, ObjectMeta
from tidegate_api.names import FailureMode, Strategy
from tidegate_api.pool import RevisionWeight
from tidegate_api.state import Pressure, Thermal, Traits

ROUTE_TABLE_SCHEMA: Literal["routetable.v1"] = "routetable.v1"
PART_BYTES = 256 * 1024


class PoolIdentity(ApiModel):
    """The pool a table belongs to; the oldest pool owns a bare model name."""

    namespace: str = Field(max_length=63)
    name: str = Field(max_length=63)
    uid: str = Field(max_length=64)
    created_at: str = Field(default="", max_length=32, description="RFC 3339, UTC")


class RetryPolicy(ApiModel):
    """Resolved pool.spec.routing.retry."""

    attempts: int = Field(default=2, ge=0, le=10)
    budget_percent: int = Field(default=20, ge=0, le=100)
    per_try_timeout_s: float | None = Field(default=None, gt=0, alias="perTryTimeoutSeconds")
    max_body_bytes: int = Field(default=1024 * 1024, ge=0)


class EjectionPolicy(ApiModel):
    """Resolved pool.spec.routing.ejection."""

    consecutive_failures: int = Field(default=3, ge=1, le=100)
    base_s: float = Field(default=5.0, gt=0, alias="baseSeconds")
    max_s: float = Field(default=300.0, gt=0, alias="maxSeconds")
    max_ejected_percent: int = Field(default=50, ge=0, le=100)


class QueuePolicy(ApiModel):
    """Resolved pool.spec.routing.queue."""

    max_requests: int = Field(default=5000, ge=1)
    max_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    max_wait_s: float | None = Field(
        default=None,
        ge=0,
        alias="maxWaitSeconds",
        description="absent: the larger of 1 s and 4 times the median service time",
    )
    no_workers_ttl_s: float = Field(default=55.0, ge=0, alias="noWorkersTtlSeconds")


class TierPolicy(ApiModel):
    """One of pool.spec.routing.tiers."""

    name: str = Field(max_length=63)
    weight: float = Field(default=1.0, gt=0, description="share of a queue")
    p99_target_s: float | None = Field(default=None, gt=0, alias="p99TargetSeconds")


class RoutingPolicy(ApiModel):
    """Resolved pool.spec.routing: numbers instead of texts."""

    strategy: Strategy = Strategy.SCORED
    top_k: int = Field(default=3, ge=1, le=16)
    timeout_s: float = Field(default=30.0, gt=0, alias="timeoutSeconds")
    retry: RetryPolicy = Field(default_factory=RetryPolicy)
    ejection: EjectionPolicy = Field(default_factory=EjectionPolicy)
    failure_mode: FailureMode = FailureMode.FAIL_OPEN
    queue: QueuePolicy = Field(default_factory=QueuePolicy)
    tiers: list[TierPolicy] = Field(
        default_factory=list, max_length=8, description="the last one is the default"
    )
    trust_tier_header: bool = False


class Ports(ApiModel):
    """Ports of a worker."""

    http: int = Field(default=8000, ge=1, le=65535)
    grpc: int = Field(default=8001, ge=1, le=65535)
    agent: int = Field(default=9091, ge=1, le=65535)


class Served(ApiModel):
    """One model that a worker serves; the key of in-flight counts and weights."""

    revision: str = Field(max_length=63)
    model: str = Field(max_length=100)
    version: str = Field(default="1", max_length=20)
    limit: int = Field(ge=1, description="requests in flight at once, over all routers")
    ready: bool = True
    idempotent: bool = True
    cache_ttl_s: float = Field(
        default=0.0, ge=0, alias="cacheTtlSeconds", description="0: answers are not cached"
    )
    traits: Traits = Field(default_factory=Traits)
    loaded_as: str | None = Field(
        default=None,
        max_length=110,
        description="its name in Triton where that is another: a second revision in one worker",
    )


class RoutedWorker(ApiModel):
    """A worker as routers see it."""

    id: str = Field(max_length=64, description="pod UID")
    name: str = Field(default="", max_length=253)
    address: str = Field(max_length=64, description="IP")
    ports: Ports = Field(default_factory=Ports)
    revision: str = Field(max_length=63)
    accelerator: str = Field(default="", max_length=15)
    serves: list[Served] = Field(default_factory=list, max_length=64)
    score: float | None = Field(default=None, description="0..1, 1 = best; absent: never measured")
    score_age_s: float | None = Field(
        default=None, ge=0, alias="scoreAgeSeconds", description="when the table was written"
    )
    pressure: Pressure | None = None
    thermal: Thermal | None = None
    draining: bool = False
    ready: bool = True
    cost_per_hour: float | None = None


class RouterShare(ApiModel):
    """The part, 0..1, of every worker's limit that one router instance may use."""

    instance: str = Field(max_length=128)
    share: float = Field(ge=0, le=1)


class Pin(ApiModel):
    """Requests that bear all these headers go to this revision whatever the weights say."""

    revision: str = Field(max_length=63)
    headers: dict[str, Annotated[str, Field(max_length=256)]] = Field(
        max_length=8, description="lower-case names"
    )


class MirrorPolicy(ApiModel):
    """Copies of the other revisions' requests that `revision` answers to nobody."""

    revision: str = Field(max_length=63)
    percent: int = Field(ge=0, le=100)


class Guard(ApiModel):
    """When a router drops a canary by itself, because the table no longer tells it anything.

    Holds while the last proof of life is older than 15 s: the router's own window of this
    revision is judged as the operator would (tidegate_api.verdict).
    """

    revision: str = Field(max_length=63)
    min_requests: int = Field(ge=1)
    interval_s: float = Field(gt=0, alias="intervalSeconds")
    min_success_rate: float | None = Field(default=None, ge=0, le=1)
    max_p95_s: float | None = Field(default=None, gt=0, alias="maxP95Seconds")


class PartReference(ApiModel):
    """A part of the worker list, in an object of its own."""

    name: str = Field(max_length=253)
    sha256: str = Field(max_length=64)


class RouteTableSpec(ApiModel):
    """The document. `--routes-file` holds a list of these as JSON."""

    schema_: Literal["routetable.v1"] = Field(default=ROUTE_TABLE_SCHEMA, alias="schema")
    role: Literal["Index", "Part"] = "Index"
    pool: PoolIdentity
    sequence: int = Field(ge=0, description="compared per pool UID; only ever grows")
    published_at: str = Field(default="", max_length=40)
    weights: list[RevisionWeight] = Field(default_factory=list, max_length=16)
    policy: RoutingPolicy = Field(default_factory=RoutingPolicy)
    pins: list[Pin] = Field(default_factory=list, max_length=8)
    mirror: MirrorPolicy | None = None
    guards: list[Guard] = Field(default_factory=list, max_length=4)
    routers: list[RouterShare] = Field(default_factory=list, max_length=64)
    models: list[Annotated[str, Field(max_length=100)]] = Field(
        default_factory=list, max_length=64, description="what it serves, also while at zero"
    )
    workers: list[RoutedWorker] = Field(default_factory=list, max_length=1000)
    parts: list[PartReference] = Field(default_factory=list, max_length=64)


class RouteTable(ApiModel):
    """The object as the API server serves it."""

    metadata: ObjectMeta
    spec: RouteTableSpec


def canonical_json(spec: RouteTableSpec) -> bytes:
    """Return the bytes that a part's digest covers: sorted keys, no spaces."""
    return json.dumps(spec.to_wire(), sort_keys=True, separators=(",", ":")).encode()


def digest(spec: RouteTableSpec) -> str:
    """Return the SHA-256 of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(spec)).hexdigest()


def split(
    table: RouteTableSpec, max_bytes: int = PART_BYTES
) -> tuple[RouteTableSpec, Mapping[str, RouteTableSpec]]:
    """Return (index, {object name: part}) such that no document exceeds `max_bytes` by much.

    A small table is its own index without parts. A part is named by its content, so an unchanged
    one is not written again and the set in use is never overwritten before the new index is.
    """
    if len(canonical_json(table)) <= max_bytes:
        return table, {}
    per_worker = max(1, len(canonical_json(table)) // max(1, len(table.workers)))
    size = max(1, min(1000, max_bytes // (per_worker + 1)))
    chunks = [table.workers[at : at + size] for at in range(0, len(table.workers), size)]
    documents = [_part(table, chunk) for chunk in chunks]
    parts = {f"{table.pool.name}-part-{digest(part)[:10]}": part for part in documents}
    references = [PartReference(name=name, sha256=digest(part)) for name, part in parts.items()]
    return table.model_copy(update={"workers": [], "parts": references}), parts


def _part(table: RouteTableSpec, workers: Sequence[RoutedWorker]) -> RouteTableSpec:
    return RouteTableSpec(role="Part", pool=table.pool, sequence=0, workers=list(workers))


def assemble(index: RouteTableSpec, parts: Mapping[str, RouteTableSpec]) -> RouteTableSpec | None:
    """Return the whole table, or None while a part is missing or has another digest."""
    workers = list(index.workers)
    for reference in index.parts:
        part = parts.get(reference.name)
        if part is None or digest(part) != reference.sha256:
            return None
        workers.extend(part.workers)
    return index.model_copy(update={"workers": workers, "parts": []})
