"""The routes file of our router: workers of one pool, all of one model."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    PoolIdentity,
    Ports,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)

MODEL = "m"
_REVISION = "r1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker of the table; `limit` is what may be in flight at it."""

    http: int
    grpc: int = 8001
    address: str = "127.0.0.1"
    limit: int = 256


def write(
    file: Path, workers: Iterable[Worker], model: str = MODEL, policy: RoutingPolicy | None = None
) -> Path:
    """Write the table of a pool that serves one model."""
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="bench", name="bench", uid="bench"),
        sequence=1,
        weights=[RevisionWeight(revision=_REVISION, weight=100)],
        policy=policy or RoutingPolicy(),
        workers=[_routed(number, worker, model) for number, worker in enumerate(workers)],
    )
    file.write_text(json.dumps([table.to_wire()]))
    return file


def _routed(number: int, worker: Worker, model: str) -> RoutedWorker:
    return RoutedWorker(
        id=f"uid-{number}",
        name=f"worker-{number}",
        address=worker.address,
        ports=Ports(http=worker.http, grpc=worker.grpc),
        revision=_REVISION,
        accelerator="cpu",
        score=0.9,
        serves=[Served(revision=_REVISION, model=model, limit=worker.limit)],
    )
