"""What one pool remembers between two decisions because it cannot be read again.

Losing all of it (kill -9) is safe: averages start anew, and a change that was on its way waits
for routers to acknowledge the newest table instead of the one that made it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_api.pool import RevisionWeight
from tidegate_operator.core.rollout.windows import AnalysisMemory


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Running values of one model on one worker."""

    latency_ms: float | None = None  # exponentially weighted mean of p50
    limit: float | None = None  # requests in flight; None: the start limit
    pressed_scrapes: int = 0  # in a row with more pending than the instances can batch


@dataclass(frozen=True, slots=True)
class WorkerMemory:
    """Running values of one worker, and the scrape they are from."""

    scraped_s: float
    models: Mapping[str, ModelMemory] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainMemory:
    """One worker on its way out."""

    started_s: float
    sequence: int  # of the first table known to mark it
    acked_s: float | None = None  # when every router was first seen to have applied that


@dataclass(frozen=True, slots=True)
class WeightsMark:
    """Since which sequence the published weights are what they are."""

    weights: tuple[RevisionWeight, ...]
    sequence: int
    since_s: float


@dataclass(frozen=True, slots=True)
class MembersMark:
    """Since which sequence the published table offers exactly these workers."""

    offered: frozenset[str]  # pod UIDs, ready and not draining
    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterReading:
    """Cumulative counts of one router instance for this pool at one time."""

    instance: str
    at_s: float
    requests: int
    latency: Mapping[int, int]  # tg1, client's view


@dataclass(frozen=True, slots=True)
class FailingSince:
    """Since when a revision has had a lasting failure without a break."""

    text: str
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolMemory:
    """Goes into `decide` and comes out of it changed."""

    workers: Mapping[str, WorkerMemory] = field(default_factory=dict)  # by pod UID
    drains: Mapping[str, DrainMemory] = field(default_factory=dict)  # by pod UID
    weights: WeightsMark | None = None
    members: MembersMark | None = None
    readings: tuple[RouterReading, ...] = ()
    failing: Mapping[str, FailingSince] = field(default_factory=dict)  # by revision
    analysis: AnalysisMemory = field(default_factory=AnalysisMemory)
