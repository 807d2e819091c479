"""Router state v1: what a router answers at /v1/state on its admin port."""

from typing import Literal

from pydantic import Field

from tidegate_api.meta import ApiModel

ROUTER_STATE_SCHEMA: Literal["router-state.v1"] = "router-state.v1"


class AppliedTable(ApiModel):
    """The newest RouteTable of a pool that this router applied completely."""

    namespace: str
    pool: str
    uid: str
    applied_sequence: int
    age_s: float = Field(alias="ageSeconds", description="seconds since the last proof of life")


class Attempts(ApiModel):
    """Cumulative attempts by outcome (router.core.faults)."""

    ok: int = 0
    client: int = 0
    model_error: int = 0
    worker_fault: int = 0
    timeout: int = 0
    cancelled: int = 0


class SeriesState(ApiModel):
    """Cumulative counts of one (pool, revision, model, class) since this instance started."""

    namespace: str
    pool: str
    uid: str
    revision: str
    model: str
    accelerator: str = ""
    requests: int = 0
    attempts: Attempts = Field(default_factory=Attempts)
    attempt_latency: list[tuple[int, int]] = Field(
        default_factory=list, description="sparse [bucket, count], scheme tg1"
    )
    client_latency: list[tuple[int, int]] = Field(
        default_factory=list, description="sparse [bucket, count], scheme tg1, queue included"
    )


class QueueState(ApiModel):
    """What waits in, and runs through, this router for one pool now."""

    namespace: str
    pool: str
    waiting: int = 0
    held: int = Field(default=0, description="of those waiting: no worker exists for them")
    waiting_bytes: int = 0
    in_flight: int = 0


class ShadowState(ApiModel):
    """Cumulative comparisons of mirrored requests of one (pool, canary revision, model)."""

    namespace: str
    pool: str
    uid: str
    revision: str = Field(description="the revision that got the copies")
    model: str
    compared: int = 0
    disagreed: int = Field(default=0, description="another top-1, text or shape")
    failed: int = Field(default=0, description="the canary gave no answer where stable did")
    skipped: int = Field(default=0, description="not sent: over the budget or too large")
    max_abs_difference: float = Field(default=0.0, description="largest seen since the start")


class LocalAbort(ApiModel):
    """A canary that this router dropped by itself, on a guard of a stale table."""

    namespace: str
    pool: str
    uid: str
    revision: str
    sequence: int = Field(description="of the table whose guard was broken")
    message: str = ""


class EjectedWorker(ApiModel):
    """A worker that this router sends no requests of a model for a while."""

    namespace: str
    pool: str
    uid: str
    worker: str = Field(description="pod UID")
    revision: str
    model: str
    reason: str = Field(default="", description="consecutive, ratio or silent")


class RouterState(ApiModel):
    """The whole document."""

    schema_: Literal["router-state.v1"] = Field(default=ROUTER_STATE_SCHEMA, alias="schema")
    instance: str = Field(description="pod UID + start time: a change means counters reset")
    synced: bool = Field(description="false on a snapshot: counts as unsynced")
    draining: bool = False
    histogram_scheme: str = "tg1"
    tables: list[AppliedTable] = Field(default_factory=list)
    series: list[SeriesState] = Field(default_factory=list)
    queues: list[QueueState] = Field(default_factory=list)
    shadows: list[ShadowState] = Field(default_factory=list)
    local_aborts: list[LocalAbort] = Field(default_factory=list)
    ejected: list[EjectedWorker] = Field(default_factory=list)
