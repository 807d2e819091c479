"""A metric trace: what the routers would measure, from one instant to the next.

    - at: 0s                       # since the edit; ascending
      rate: 200                    # requests per second of the pool
      stable: {p95: 80ms}          # errors, clientErrors, disagreement: shares 0..1, default 0
      canary: {p95: 85ms, errors: 0.002}
    - at: 4m                       # what is not said stays as it was
      canary: {p95: 400ms}

It is expected values, without noise: what analysis says of it holds for the average run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from tidegate_api import histogram as tg1
from tidegate_api.meta import ApiModel
from tidegate_api.quantity import duration_s
from tidegate_api.template import Duration
from tidegate_cli.errors import InputError

_SIGMA = 0.5  # of ln(latency): a tail of 2.3 times the median at p95, as batching servers have
_P95_SIGMAS = 1.6449
_SMALLEST = 1e-9


class QualityRow(ApiModel):
    """What is said of one track at one instant; absent: as before."""

    model_config = ConfigDict(extra="forbid")

    p95: Duration | None = None
    errors: float | None = Field(default=None, ge=0, le=1)
    client_errors: float | None = Field(default=None, ge=0, le=1)
    disagreement: float | None = Field(default=None, ge=0, le=1)
    ready: bool | None = Field(default=None, description="false: its workers do not become Ready")
    failure: str | None = Field(default=None, description="what keeps a worker from starting")


class TraceRow(ApiModel):
    """One instant."""

    model_config = ConfigDict(extra="forbid")

    at: Duration
    rate: float | None = Field(default=None, ge=0)
    stable: QualityRow = Field(default_factory=QualityRow)
    canary: QualityRow = Field(default_factory=QualityRow)
    prometheus: dict[str, float | None] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How one track answers."""

    p95_s: float = 0.05
    errors: float = 0.0
    client_errors: float = 0.0
    disagreement: float = 0.0
    ready: bool = True
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What holds from `at_s` on. `prometheus`: values by the check's name."""

    at_s: float = 0.0
    rate: float = 0.0
    stable: Quality = field(default_factory=Quality)
    canary: Quality = field(default_factory=Quality)
    prometheus: Mapping[str, float | None] = field(default_factory=dict)


_ROWS = TypeAdapter(list[TraceRow])


def parse_trace(place: str, document: object) -> tuple[Moment, ...]:
    """Return the moments of a document; InputError names the entry and the field."""
    try:
        rows = _ROWS.validate_python(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"])) or "the document"
        raise InputError(f"{place}: {path}: {first['msg']}") from None
    moments: list[Moment] = []
    for index, row in enumerate(rows):
        moment = _after(moments[-1] if moments else Moment(), row)
        if moments and moment.at_s <= moments[-1].at_s:
            raise InputError(f"{place}: {index}.at: expected later than {moments[-1].at_s:g}s")
        moments.append(moment)
    if not moments or moments[0].at_s > 0 or not moments[0].rate:
        raise InputError(f"{place}: expected a first entry with at: 0s and a rate above 0")
    return tuple(moments)


def _after(before: Moment, row: TraceRow) -> Moment:
    return Moment(
        at_s=duration_s(row.at),
        rate=before.rate if row.rate is None else row.rate,
        stable=_quality(before.stable, row.stable),
        canary=_quality(before.canary, row.canary),
        prometheus={**before.prometheus, **row.prometheus},
    )


def _quality(before: Quality, row: QualityRow) -> Quality:
    return Quality(
        p95_s=duration_s(row.p95) if row.p95 else before.p95_s,
        errors=before.errors if row.errors is None else row.errors,
        client_errors=before.client_errors if row.client_errors is None else row.client_errors,
        disagreement=before.disagreement if row.disagreement is None else row.disagreement,
        ready=before.ready if row.ready is None else row.ready,
        failure=before.failure if row.failure is None else row.failure,
    )


def moment_at(moments: Sequence[Moment], at_s: float) -> Moment:
    """Return what holds `at_s` seconds after the edit."""
    return [moment for moment in moments if moment.at_s <= at_s][-1]


@lru_cache(maxsize=256)
def latency_shares(p95_s: float) -> tuple[tuple[int, float], ...]:
    """Return the share of attempts in each tg1 bucket, lognormal with this p95."""
    if p95_s <= 0:
        return ((0, 1.0),)
    median_s = p95_s / math.exp(_P95_SIGMAS * _SIGMA)
    shares, below = [], 0.0
    for bucket in range(tg1.BUCKETS):
        z = math.log(tg1.upper_bound_s(bucket) / median_s) / _SIGMA
        upto = 1.0 if bucket == tg1.BUCKETS - 1 else 0.5 * (1 + math.erf(z / math.sqrt(2)))
        if upto - below > _SMALLEST:
            shares.append((bucket, upto - below))
        below = upto
    return tuple(shares)
