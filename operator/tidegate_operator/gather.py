"""Reads everything that one decision looks at, from caches and scrapes alone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from tidegate_api.meta import ObjectMeta
from tidegate_api.names import HEADER_DRAIN_ACK, PORT_ROUTER_ADMIN, PORT_WORKER_AGENT
from tidegate_api.pool import InferencePool
from tidegate_api.routerstate import RouterState
from tidegate_api.routetable import PoolIdentity, RouteTableSpec, assemble
from tidegate_api.state import WorkerState
from tidegate_api.template import JsonObject
from tidegate_operator import caches as kinds
from tidegate_operator.adapters.scrape import Reading, Scraper, Target
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.observation import (
    ObservedPod,
    OperatorSettings,
    OtherPool,
    Owned,
    PoolObservation,
    PublishedTable,
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
        self._tables_seen: dict[str, tuple[int, float]] = {}  # pool uid -> sequence, epoch seconds
        self._others: tuple[int, tuple[OtherPool, ...]] = (-1, ())
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
            others=(*listed, *written),
            pods=pods,
            scrapes=self._scrapes(pods),
            routers=self._members(now_s),
            published=self._published(key, pool.metadata.uid, now_s),
            autoscalers=tuple(
                read_autoscaler(item)
                for item in caches.every(kinds.AUTOSCALERS.kind)
                if text(item, "metadata", "namespace") == key.namespace
            ),
            other_pools=self._other_pools(pool.metadata.uid),
            refused=tuple(refused),
        )

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

    def _published(self, key: PoolKey, uid: str, now_s: float) -> PublishedTable | None:
        tables = {}
        for item in self._caches.of_pool(kinds.TABLES.kind, key):
            if text(item, "spec", "pool", "uid") == uid:
                tables[text(item, "metadata", "name")] = mapping(item, "spec")
        index = _parse_table(tables.get(key.name))
        if index is None:
            return None
        parts = {name: _parse_table(spec) for name, spec in tables.items() if name != key.name}
        whole = assemble(index, {name: part for name, part in parts.items() if part})
        if whole is None:
            return None
        sequence, seen_s = self._tables_seen.get(uid, (-1, 0.0))
        if sequence != whole.sequence:
            seen_s = now_s
            self._tables_seen[uid] = (whole.sequence, now_s)
        return PublishedTable(spec=whole, written_s=seen_s, part_names=tuple(sorted(parts)))

    def _other_pools(self, uid: str) -> tuple[OtherPool, ...]:
        if self._others[0] != self._caches.generation:
            every = tuple(map(_other_pool, self._caches.every(kinds.POOLS.kind)))
            self._others = (self._caches.generation, every)
        return tuple(other for other in self._others[1] if other.identity.uid != uid)


def metadata(document: JsonObject) -> ObjectMeta:
    """Return an object's metadata, for objects whose spec may be invalid."""
    return ObjectMeta.model_validate(mapping(document, "metadata"))


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


def _parse_table(spec: JsonObject | None) -> RouteTableSpec | None:
    try:
        return RouteTableSpec.model_validate(spec) if spec else None
    except ValidationError:
        return None


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
