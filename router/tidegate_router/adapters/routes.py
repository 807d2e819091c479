"""Feeds the dispatcher with tables and endpoints: from Kubernetes, a snapshot or a routes file."""

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from tidegate_api.names import (
    ANNOTATION_SCORE_LAG_MS,
    API_VERSION,
    LABEL_POOL,
    PLURALS,
    ROUTES_LEASE,
    Kind,
)
from tidegate_api.routerstate import LocalAbort
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.template import JsonObject
from tidegate_router.adapters import snapshot
from tidegate_router.adapters.kube import ExpiredError, KubeError, KubeReader, Query
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.endpoints import Endpoint, Pool
from tidegate_router.core.slices import pool_of, read_slice
from tidegate_router.core.table import Key, TableBook
from tidegate_router.lane import clock

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 5.0)
_SNAPSHOT_AFTER_S = 5.0
_SNAPSHOT_PERIOD_S = 2.0
_LASTED_S = 5.0  # a watch that lived this long was no failure


@dataclass(slots=True)
class Routes:
    """What this router knows of the cluster. `ready`: it may serve; `synced`: from a fresh list."""

    dispatcher: Dispatcher
    book: TableBook = field(default_factory=TableBook)
    ready: bool = False
    synced: bool = False
    _objects: dict[str, dict[Key, RouteTableSpec]] = field(default_factory=dict)  # by scope
    _unreadable: dict[str, set[Key]] = field(default_factory=dict)  # by scope
    _away: set[str] = field(default_factory=set)  # scopes that cannot be listed
    _slices: dict[Key, tuple[Pool, list[Endpoint]]] = field(default_factory=dict)
    _unsaved: bool = False

    def tables_listed(self, scope: str, items: list[JsonObject], scopes: int) -> None:
        """Take a whole list of one scope; the first full set makes the router Ready.

        A table that cannot be read leaves the last good one in place. What the first list shows
        may be old: it proves no life.
        """
        before = self._objects.get(scope, {})
        parsed = {_key(item): _spec(item) for item in items}
        self._unreadable[scope] = {key for key, spec in parsed.items() if spec is None}
        kept = {key: spec or before.get(key) for key, spec in parsed.items()}
        self._objects[scope] = {key: spec for key, spec in kept.items() if spec is not None}
        self._away.discard(scope)
        if len(self._objects) < scopes:
            return
        everything = {key: spec for found in self._objects.values() for key, spec in found.items()}
        known = set(self.book.applied) if self.synced else set()
        unreadable = set().union(*self._unreadable.values())
        changed = self.book.relist(everything, clock(), unreadable)
        self._applied(changed, fresh=bool(changed & known))
        self.ready, self.synced = True, not self._away

    def away(self, scope: str) -> None:
        """No list of a scope for long: go on with what is known, say that it may be old."""
        self._away.add(scope)
        self.synced = False

    def table_event(self, scope: str, kind: str, item: JsonObject) -> None:
        """Take one watch event of a RouteTable."""
        key, spec = _key(item), _spec(item)
        if kind == "DELETED":
            self._objects[scope].pop(key, None)
            self._applied(self.book.withdraw(key), fresh=False)
        elif spec is not None:
            self._objects[scope][key] = spec
            self._applied(self.book.offer(key, spec), fresh=True)

    def slices_listed(self, scope: str, items: list[JsonObject]) -> None:
        """Take a whole list of EndpointSlices of one scope."""
        mine = {key: found for key, found in self._slices.items() if not scope or key[0] == scope}
        before = {pool for pool, _ in mine.values()}
        for key in mine:
            del self._slices[key]
        for item in items:
            self._slices[_key(item)] = (pool_of(item), list(read_slice(item)))
        for pool in before | {pool_of(item) for item in items}:
            self._endpoints_moved(pool)

    def slice_event(self, kind: str, item: JsonObject) -> None:
        """Take one watch event of an EndpointSlice."""
        key, pool = _key(item), pool_of(item)
        before, _ = self._slices.pop(key, (pool, None))
        if kind != "DELETED":
            self._slices[key] = (pool, list(read_slice(item)))
        for moved in {before, pool}:
            self._endpoints_moved(moved)

    def lease_event(self, item: JsonObject) -> None:
        """Take the Lease that dates all tables."""
        metadata, spec = item.get("metadata"), item.get("spec")
        annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
        lag = annotations.get(ANNOTATION_SCORE_LAG_MS) if isinstance(annotations, dict) else None
        renewed = spec.get("renewTime") if isinstance(spec, dict) else None
        self.dispatcher.proof.lease_seen(str(renewed or ""), str(lag or ""), clock())

    def restore(self, tables: list[RouteTableSpec]) -> None:
        """Start from whole tables of a file."""
        before = set(self.book.applied)
        changed = before | self.book.restore(tables)
        self._applied(changed, fresh=False)
        self.ready = True

    def tick(self) -> list[LocalAbort]:
        """Once a second: accept what was refused long enough, drop what is gone.

        Returns the canaries whose guard broke since the last call.
        """
        self._applied(self.book.tick(clock()), fresh=True)
        aborts = self.dispatcher.tick(clock())
        for abort in aborts:
            known = {"object": f"{abort.namespace}/{abort.pool}", "revision": abort.revision}
            _log.error("the canary is dropped without the operator: %s", abort.message, extra=known)
        return aborts

    def unsaved(self) -> list[RouteTableSpec] | None:
        """Return the tables if they changed since the last call."""
        changed, self._unsaved = self._unsaved, False
        return list(self.book.applied.values()) if changed else None

    def not_saved(self) -> None:
        """Note that the tables which `unsaved` returned could not be written."""
        self._unsaved = True

    def _applied(self, changed: set[str], *, fresh: bool) -> None:
        if not changed:
            return
        if fresh:
            self.dispatcher.proof.sequence_advanced(clock())
        self.dispatcher.apply(self.book.applied, changed, clock())
        self._unsaved = True

    def _endpoints_moved(self, pool: Pool) -> None:
        endpoints = [
            endpoint
            for owner, found in self._slices.values()
            if owner == pool
            for endpoint in found
        ]
        self.dispatcher.apply_endpoints(pool, endpoints, clock())


@dataclass(slots=True)
class KubernetesRoutes:
    """Keeps Routes true by list and watch; lists again after every break.

    No list for `lost_after_s`: what is known counts as unsynced.
    """

    routes: Routes
    reader: KubeReader
    namespaces: tuple[str, ...]
    operator_namespace: str
    lost_after_s: float = _SNAPSHOT_AFTER_S

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as group:
            for scope in self.namespaces or ("",):
                group.create_task(self._tables(scope))
                group.create_task(self._slices(scope))
            group.create_task(self._lease())

    async def _tables(self, scope: str) -> None:
        scopes = len(self.namespaces) or 1
        await self._keep(
            _path(f"/apis/{API_VERSION}", scope, PLURALS[Kind.ROUTE_TABLE]),
            {},
            lambda items: self.routes.tables_listed(scope, items, scopes),
            lambda kind, item: self.routes.table_event(scope, kind, item),
            lambda: self.routes.away(scope),
        )

    async def _slices(self, scope: str) -> None:
        await self._keep(
            _path("/apis/discovery.k8s.io/v1", scope, "endpointslices"),
            {"labelSelector": LABEL_POOL},
            lambda items: self.routes.slices_listed(scope, items),
            self.routes.slice_event,
        )

    async def _lease(self) -> None:
        def listed(items: list[JsonObject]) -> None:
            for item in items:
                self.routes.lease_event(item)

        await self._keep(
            _path("/apis/coordination.k8s.io/v1", self.operator_namespace, "leases"),
            {"fieldSelector": f"metadata.name={ROUTES_LEASE}"},
            listed,
            lambda _, item: self.routes.lease_event(item),
        )

    async def _keep(
        self,
        path: str,
        query: Query,
        listed: Callable[[list[JsonObject]], None],
        event: Callable[[str, JsonObject], None],
        lost: Callable[[], None] | None = None,
    ) -> None:
        """List, watch, and list again for ever."""
        delay_s, listed_s = _BACKOFF_S[0], clock()
        while True:
            began_s = clock()
            try:
                items, version = await self.reader.list(path, query)
                listed(items)
                began_s, listed_s = clock(), math.inf
                async for kind, item in self.reader.watch(path, query, version):
                    event(kind, item)
            except ExpiredError:
                _log.info("%s: listing again", path)
            except KubeError as error:
                _log.warning("%s", error)
            if math.isinf(listed_s) and clock() - began_s >= _LASTED_S:
                delay_s = _BACKOFF_S[0]
            listed_s = min(listed_s, clock())
            if lost is not None and clock() - listed_s >= self.lost_after_s:
                lost()
            await asyncio.sleep(delay_s)
            delay_s = min(_BACKOFF_S[1], delay_s * 2)


async def keep_snapshot(
    routes: Routes,
    path: Path,
    after_s: float = _SNAPSHOT_AFTER_S,
    period_s: float = _SNAPSHOT_PERIOD_S,
) -> None:
    """Start from the file when no list came within `after_s`; keep it up to date from then on."""
    await asyncio.sleep(after_s)
    if not routes.ready:
        tables = await asyncio.to_thread(snapshot.read, path)
        if tables is not None and not routes.ready:
            _log.warning("the API server is away: serving %d tables of %s", len(tables), path)
            routes.restore(tables)
            routes.unsaved()
    while True:
        tables = routes.unsaved()
        if tables is not None:
            try:
                await asyncio.to_thread(snapshot.write, path, tables)
            except OSError as error:
                _log.error("snapshot %s was not written: %s", path, error)
                routes.not_saved()
        await asyncio.sleep(period_s)


async def follow_file(routes: Routes, path: Path) -> None:
    """Serve a routes file, and again whenever it changes; a damaged one changes nothing."""
    seen: tuple[float, int] | None = None
    while True:
        try:
            stat = await asyncio.to_thread(path.stat)
        except OSError as error:
            _log.error("routes file: %s", error)
        else:
            if (stat.st_mtime, stat.st_size) != seen:
                seen = (stat.st_mtime, stat.st_size)
                tables = await asyncio.to_thread(snapshot.read, path)
                if tables is not None:
                    routes.restore(tables)
                    routes.dispatcher.proof.sequence_advanced(clock())
        await asyncio.sleep(0.5)


def _path(root: str, namespace: str, plural: str) -> str:
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def _key(item: JsonObject) -> Key:
    metadata = item.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("namespace", "")), str(found.get("name", ""))


def _spec(item: JsonObject) -> RouteTableSpec | None:
    """Return a table, None (and a log line) for one that this version cannot read."""
    try:
        return RouteTableSpec.model_validate(item.get("spec"))
    except ValidationError as error:
        _log.error(
            "RouteTable %s is left aside, the last good one stays: %d problems",
            "/".join(_key(item)), error.error_count(),
        )  # fmt: skip
        return None
