"""Reads everything that one decision looks at, from caches and scrapes alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from tidegate_api.meta import ObjectMeta
from tidegate_api.names import HEADER_DRAIN_ACK, PORT_ROUTER_ADMIN, PORT_WORKER_AGENT
from tidegate_api.pool import InferencePool
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_api.routerstate import RouterState
from tidegate_api.routetable import PoolIdentity, RouteTableSpec, assemble
from tidegate_api.state import WorkerState
from tidegate_api.template import JsonObject
from tidegate_api.validation import InvalidRolloutError, parse_rollout
from tidegate_operator import caches as kinds
from tidegate_operator.adapters.scrape import Reading, Scraper, Target
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.observation import (
    ObservedAutoscaler,
    ObservedPod,
    ObservedRollout,
    OperatorSettings,
    OtherPool,
    Owned,
    PoolObservation,
    PublishedTable,
    QueryResult,
    RefusedWrite,
    RouterMember,
    Scrape,
)
from tidegate_operator.core.reading import (
    mapping,
    read_autoscaler,
    read_deployment,
    read_owned,
    read_pod,
    read_revision,
    ready_endpoints,
    records,
    text,
)

_Versions = tuple[tuple[str, str], ...]  # (name, resourceVersion)
_LEFT_S = 10.0  # a router that left is waited for this long
_OTHERS = (kinds.SERVICES, kinds.BUDGETS, kinds.POLICIES)


@dataclass(slots=True)
class Routers:
    """The routers of the Service now, and those that left it a moment ago."""

    present: dict[str, str] = field(default_factory=dict)  # pod name -> address
    left: dict[str, tuple[str, float]] = field(default_factory=dict)  # -> address, epoch seconds
    seen: dict[str, float] = field(default_factory=dict)  # -> first seen at, epoch seconds

    def update(self, found: Mapping[str, str], now_s: float) -> None:
        """Take in the ready endpoints as they are now."""
        for name in self.present.keys() - found.keys():
            self.left[name] = (self.present[name], now_s)
        self.present = dict(found)
        self.left = {
            name: entry
            for name, entry in self.left.items()
            if name not in found and now_s - entry[1] < _LEFT_S
        }
        self.seen = {name: self.seen.get(name, now_s) for name in self.addresses}

    @property
    def addresses(self) -> dict[str, str]:
        """Return {pod name: address} of all members, those that left included."""
        return {**{name: address for name, (address, _) in self.left.items()}, **self.present}


class Gatherer:
    """Builds observations; owns what is scraped and what cannot be read back."""

    def __init__(self, caches: Caches, settings: OperatorSettings) -> None:
        self._caches = caches
        self._settings = settings
        self._routers = Routers()
        self._tables: dict[str, tuple[_Versions, PublishedTable | None]] = {}  # by pool UID
        self._others: tuple[int, tuple[OtherPool, ...]] = (-1, ())
        self._autoscalers: tuple[int, dict[str, list[ObservedAutoscaler]]] = (-1, {})
        self.queries: dict[str, QueryResult] = {}  # by PromQL, see adapters.prometheus
        self.acknowledged: dict[str, frozenset[str]] = {}  # pool uid -> pod UIDs let go
        self.workers: Scraper[WorkerState] | None = None
        self.routers: Scraper[RouterState] | None = None

    def worker_targets(self) -> dict[str, Target]:
        """Return the agents to scrape, by pod UID."""
        acked = frozenset().union(*self.acknowledged.values())
        targets = {}
        for item in self._caches.every(kinds.PODS.kind):
            uid, address = text(item, "metadata", "uid"), text(item, "status", "podIP")
            if address and text(item, "status", "phase") not in {"Succeeded", "Failed"}:
                headers = {HEADER_DRAIN_ACK: "1"} if uid in acked else {}
                url = f"http://{_host(address)}:{PORT_WORKER_AGENT}/v1/state"
                targets[uid] = Target(uid, url, headers)
        return targets

    def router_targets(self) -> dict[str, Target]:
        """Return the routers to scrape, by pod name."""
        self._routers.update(ready_endpoints(self._caches.router_slices()), time.time())
        return {
            name: Target(name, f"http://{_host(address)}:{PORT_ROUTER_ADMIN}/v1/state", {})
            for name, address in self._routers.addresses.items()
        }

    def observe(
        self,
        key: PoolKey,
        document: JsonObject,
        pool: InferencePool,
        written: Sequence[Owned],
        refused: Sequence[RefusedWrite],
    ) -> PoolObservation:
        """Return all that is known around a pool. `written` are objects that no cache holds."""
        caches, now_s = self._caches, time.time()
        pods = tuple(read_pod(item) for item in caches.of_pool(kinds.PODS.kind, key))
        listed = [read_owned(item) for kind in _OTHERS for item in caches.of_pool(kind.kind, key)]
        return PoolObservation(
            now_s=now_s,
            pool=pool,
            template=mapping(document, "spec", "template"),
            accelerators=tuple(records(document, "spec", "accelerators")),
            settings=self._settings,
            deployments=tuple(map(read_deployment, caches.of_pool(kinds.DEPLOYMENTS.kind, key))),
            revisions=tuple(map(read_revision, caches.of_pool(kinds.REVISIONS.kind, key))),
            others=(*listed, *self._tables_owned(key), *written),
            pods=pods,
            scrapes=self._scrapes(pods),
            routers=self._members(now_s),
            published=self._published(key, pool.metadata.uid, now_s),
            autoscalers=tuple(self._autoscalers_in(key.namespace)),
            other_pools=self._other_pools(pool.metadata.uid),
            refused=tuple(refused),
            rollouts=self.rollouts(key),
            queries=dict(self.queries),
        )

    def wanted(self) -> set[str]:
        """Return the PromQL of every rollout's analysis."""
        return {
            text(check, "query")
            for item in self._caches.every(kinds.ROLLOUTS.kind)
            for check in records(item, "spec", "analysis", "prometheus")
        } - {""}

    def rollouts(self, key: PoolKey) -> tuple[ObservedRollout, ...]:
        """Return the ModelRollouts that name a pool."""
        return tuple(map(_rollout, self._caches.rollouts_of(key)))

    def _scrapes(self, pods: Sequence[ObservedPod]) -> dict[str, Scrape]:
        readings = self.workers.readings if self.workers else {}
        found = {pod.uid: readings.get(pod.uid) for pod in pods}
        return {
            uid: Scrape(scraped_s=reading.scraped_s, state=reading.state, error=reading.error)
            for uid, reading in found.items()
            if reading is not None
        }

    def _members(self, now_s: float) -> tuple[RouterMember, ...]:
        readings = self.routers.readings if self.routers else {}
        return tuple(
            self._member(name, address, readings.get(name) or Reading(), now_s)
            for name, address in sorted(self._routers.addresses.items())
        )

    def _member(
        self, name: str, address: str, reading: Reading[RouterState], now_s: float
    ) -> RouterMember:
        left = self._routers.left.get(name)
        return RouterMember(
            name=name,
            address=address,
            ready=left is None,
            left_s_ago=None if left is None else now_s - left[1],
            seen_s=self._routers.seen.get(name, now_s),
            scraped_s=reading.scraped_s,
            state=reading.state,
            error=reading.error,
        )

    def _tables_owned(self, key: PoolKey) -> list[Owned]:
        """Return who owns the tables with our names, so that none is taken over."""
        index = self._caches.get(kinds.TABLES.kind, key)
        return [read_owned(index)] if index else []

    def _published(self, key: PoolKey, uid: str, now_s: float) -> PublishedTable | None:
        """Return the table as published, parsed once per version."""
        found = {
            text(item, "metadata", "name"): item
            for item in self._caches.of_pool(kinds.TABLES.kind, key)
            if text(item, "spec", "pool", "uid") == uid
        }
        versions = tuple(
            (name, text(item, "metadata", "resourceVersion")) for name, item in found.items()
        )
        known = self._tables.get(uid)
        if known is None or known[0] != versions:
            table = _assembled(key.name, found, known[1] if known else None, now_s)
            known = self._tables[uid] = (versions, table)
        return known[1]

    def _autoscalers_in(self, namespace: str) -> list[ObservedAutoscaler]:
        if self._autoscalers[0] != self._caches.autoscaler_changes:
            grouped: dict[str, list[ObservedAutoscaler]] = {}
            for item in self._caches.every(kinds.AUTOSCALERS.kind):
                group = grouped.setdefault(text(item, "metadata", "namespace"), [])
                group.append(read_autoscaler(item))
            self._autoscalers = (self._caches.autoscaler_changes, grouped)
        return self._autoscalers[1].get(namespace, [])

    def forget(self, alive: set[str]) -> None:
        """Drop what is kept of pools that are gone."""
        for kept in (self._tables, self.acknowledged):
            for uid in kept.keys() - alive:
                del kept[uid]

    def _other_pools(self, uid: str) -> tuple[OtherPool, ...]:
        if self._others[0] != self._caches.pool_changes:
            every = tuple(map(_other_pool, self._caches.every(kinds.POOLS.kind)))
            self._others = (self._caches.pool_changes, every)
        return tuple(other for other in self._others[1] if other.identity.uid != uid)


def metadata(document: JsonObject) -> ObjectMeta:
    """Return an object's metadata, for objects whose spec may be invalid."""
    return ObjectMeta.model_validate(mapping(document, "metadata"))


def _rollout(item: JsonObject) -> ObservedRollout:
    meta = metadata(item)
    try:
        status = ModelRolloutStatus.model_validate(mapping(item, "status"))
    except ValidationError:
        status = ModelRolloutStatus()
    template = mapping(item, "spec", "template")
    try:
        rollout = parse_rollout(item)
    except InvalidRolloutError as error:
        return ObservedRollout(
            meta=meta, rollout=None, template=template, status=status, problem=str(error)
        )
    return ObservedRollout(meta=meta, rollout=rollout, template=template, status=status)


def _other_pool(item: JsonObject) -> OtherPool:
    meta = metadata(item)
    identity = PoolIdentity(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created_at=meta.creation_timestamp,
    )
    models = records(item, "spec", "template", "models")
    return OtherPool(identity=identity, models=tuple(text(model, "name") for model in models))


def _assembled(
    name: str, found: Mapping[str, JsonObject], before: PublishedTable | None, now_s: float
) -> PublishedTable | None:
    """Put the parts of a published table together; None while they do not fit."""
    index = _parse_table(mapping(found.get(name), "spec"))
    if index is None:
        return None
    parts = {part: _parse_table(mapping(item, "spec")) for part, item in found.items()}
    del parts[name]
    whole = assemble(index, {part: spec for part, spec in parts.items() if spec})
    if whole is None:
        return None
    same = before is not None and before.spec.sequence == whole.sequence
    written_s = before.written_s if before is not None and same else now_s
    return PublishedTable(spec=whole, written_s=written_s, part_names=tuple(sorted(parts)))


def _parse_table(spec: JsonObject | None) -> RouteTableSpec | None:
    try:
        return RouteTableSpec.model_validate(spec) if spec else None
    except ValidationError:
        return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
