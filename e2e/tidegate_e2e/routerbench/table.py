"""The routes file of our router: workers of one pool, all of one model, and what is turned on."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, Ports, RoutedWorker, RouteTableSpec, Served
from tidegate_api.template import JsonObject
from tidegate_e2e.routerbench.load import PEERS

MODEL = "m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker of the table; `limit` is what may be in flight at it."""

    http: int
    grpc: int = 8001
    address: str = "127.0.0.1"
    limit: int = 256


@dataclass(frozen=True, slots=True)
class Feature:
    """What a router has turned on, as a file of tests/bench/peers/features says it.

    `weights`: percent of each revision; workers are of them in turn. `table`: fields of the route
    table in its JSON form; `serves`: of each model that a worker serves. `headers`: sent with each
    request; `vary`: and a request id, another each time. `arguments`: of the command line.
    """

    name: str
    about: str = ""
    weights: Mapping[str, int] = field(default_factory=lambda: {"r1": 100})
    table: Mapping[str, object] = field(default_factory=dict)
    serves: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    vary: bool = False
    arguments: Sequence[str] = ()


PLAIN = Feature("plain")


def feature(name: str) -> Feature:
    """Read a feature's file."""
    file = PEERS / "features" / f"{name}.json"
    return Feature(name, **json.loads(file.read_text()))


def features() -> list[str]:
    """Return the names of all features."""
    return sorted(file.stem for file in (PEERS / "features").glob("*.json"))


def write(
    file: Path, workers: Sequence[Worker], model: str = MODEL, turned_on: Feature = PLAIN
) -> Path:
    """Write the table; RuntimeError for a feature that this checkout does not have."""
    revisions = [*turned_on.weights]
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="bench", name="bench", uid="bench"),
        sequence=1,
        weights=[RevisionWeight(revision=one, weight=of) for one, of in turned_on.weights.items()],
        workers=[
            _routed(number, worker, model, revisions[number % len(revisions)])
            for number, worker in enumerate(workers)
        ],
    )
    try:
        whole = RouteTableSpec.model_validate(_with(table.to_wire(), turned_on))
    except ValidationError as error:
        raise RuntimeError(f"this router has no {turned_on.name}: {error}") from error
    written = whole.to_wire()
    if lacking := [*_lacking(_with(table.to_wire(), turned_on), written)]:
        raise RuntimeError(f"this router has no {turned_on.name}: its table knows no {lacking[0]}")
    file.write_text(json.dumps([written]))
    return file


def _with(table: JsonObject, turned_on: Feature) -> JsonObject:
    """Return a table's JSON with a feature's fields."""
    listed = table["workers"]
    workers = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    for worker in workers:
        served = worker["serves"]
        if isinstance(served, list):
            worker["serves"] = [
                {**one, **turned_on.serves} for one in served if isinstance(one, dict)
            ]
    return {**table, **turned_on.table}


def _lacking(asked: Mapping[str, object], written: Mapping[str, object]) -> Iterator[str]:
    """Yield the fields that were asked for and that the table does not have: it ignores those."""
    for name, value in asked.items():
        if name not in written:
            yield name
            continue
        inner = written[name]
        pairs = [(value, inner)]
        if isinstance(value, list) and isinstance(inner, list):
            pairs = [*zip(value, inner, strict=False)]
        for one, other in pairs:
            if isinstance(one, dict) and isinstance(other, dict):
                yield from _lacking(one, other)


def _routed(number: int, worker: Worker, model: str, revision: str) -> RoutedWorker:
    return RoutedWorker(
        id=f"uid-{number}",
        name=f"worker-{number}",
        address=worker.address,
        ports=Ports(http=worker.http, grpc=worker.grpc),
        revision=revision,
        accelerator="cpu",
        score=0.9,
        serves=[Served(revision=revision, model=model, limit=worker.limit)],
    )
