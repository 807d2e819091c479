"""Every list+watch cache of the leading operator, and who is woken when an object moves."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidegate_api.names import API_VERSION, LABEL_POOL, PLURALS, Kind
from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import KubeClient, Resource
from tidegate_operator.adapters.watch import ObjectCache, Selection
from tidegate_operator.core.reading import text

POOLS = Resource(API_VERSION, Kind.INFERENCE_POOL, PLURALS[Kind.INFERENCE_POOL])
TABLES = Resource(API_VERSION, Kind.ROUTE_TABLE, PLURALS[Kind.ROUTE_TABLE])
ROLLOUTS = Resource(API_VERSION, Kind.MODEL_ROLLOUT, PLURALS[Kind.MODEL_ROLLOUT])
DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
REVISIONS = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
PODS = Resource("v1", "Pod", "pods")
SERVICES = Resource("v1", "Service", "services")
CONFIG_MAPS = Resource("v1", "ConfigMap", "configmaps")  # never listed: see Written
BUDGETS = Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
POLICIES = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
AUTOSCALERS = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
SLICES = Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")
EVENTS = Resource("v1", "Event", "events")

RESOURCES = {
    item.kind: item
    for item in (POOLS, TABLES, DEPLOYMENTS, REVISIONS, PODS, SERVICES, CONFIG_MAPS, BUDGETS,
                 POLICIES)
}  # fmt: skip
_LABELLED = (DEPLOYMENTS, REVISIONS, PODS, SERVICES, BUDGETS, POLICIES)


@dataclass(frozen=True, slots=True)
class PoolKey:
    """Namespace and name of a pool: the key of the work queue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class Caches:
    """All caches over the watched namespaces; `wake(key)` names a pool whose objects moved."""

    def __init__(
        self,
        client: KubeClient,
        namespaces: tuple[str, ...],
        router_service: str,
        wake: Callable[[PoolKey], None],
    ) -> None:
        self._wake = wake
        self._specs: dict[PoolKey, tuple[str, str]] = {}  # pool -> UID, generation
        self.pool_changes = 0  # counts changes of the set of pools and of their specs
        self.autoscaler_changes = 0
        scopes = namespaces or ("",)
        self._by_kind: dict[str, list[ObjectCache]] = {}
        for resource in (POOLS, ROLLOUTS, TABLES, AUTOSCALERS, *_LABELLED):
            labels = LABEL_POOL if resource in _LABELLED else ""
            self._by_kind[resource.kind] = [
                ObjectCache(client, Selection(resource, scope, labels), self._changed)
                for scope in scopes
            ]
        namespace, _, name = router_service.partition("/")
        selection = Selection(SLICES, namespace, f"kubernetes.io/service-name={name}")
        self._slices = [ObjectCache(client, selection, self._ignore)] if name else []

    @property
    def all(self) -> list[ObjectCache]:
        """Return every cache, to be run."""
        return [cache for caches in self._by_kind.values() for cache in caches] + self._slices

    async def synced(self) -> None:
        """Return when every cache has listed once."""
        await asyncio.gather(*(cache.synced.wait() for cache in self.all))

    def get(self, kind: str, key: PoolKey, name: str = "") -> JsonObject | None:
        """Return one object of the pool's namespace, by default the one named like the pool."""
        found = (cache.get(key.namespace, name or key.name) for cache in self._by_kind[kind])
        return next((item for item in found if item is not None), None)

    def of_pool(self, kind: str, key: PoolKey) -> list[JsonObject]:
        """Return the objects of a kind that bear the pool's label."""
        caches = self._by_kind[kind]
        return [item for cache in caches for item in cache.of_pool(key.namespace, key.name)]

    def rollouts_of(self, key: PoolKey) -> list[JsonObject]:
        """Return the ModelRollouts that name a pool, whether it exists or not."""
        return [
            item
            for item in self.every(ROLLOUTS.kind)
            if text(item, "metadata", "namespace") == key.namespace
            and text(item, "spec", "poolRef", "name") == key.name
        ]

    def pool_keys(self) -> set[PoolKey]:
        """Return every pool that exists or that a ModelRollout names."""
        pools = {
            PoolKey(text(item, "metadata", "namespace"), text(item, "metadata", "name"))
            for item in self.every(POOLS.kind)
        }
        named = {
            PoolKey(text(item, "metadata", "namespace"), text(item, "spec", "poolRef", "name"))
            for item in self.every(ROLLOUTS.kind)
        }
        return pools | named

    def every(self, kind: str) -> Iterator[JsonObject]:
        """Yield all objects of a kind."""
        for cache in self._by_kind[kind]:
            yield from cache

    def router_slices(self) -> list[JsonObject]:
        """Return the EndpointSlices of the router Service."""
        return [item for cache in self._slices for item in cache]

    def learn(self, item: JsonObject) -> None:
        """Take over the answer to an own write."""
        for cache in self._by_kind.get(text(item, "kind"), ()):
            if cache.covers(text(item, "metadata", "namespace")):
                cache.learn(item)

    def _changed(self, item: JsonObject) -> None:
        namespace, name = text(item, "metadata", "namespace"), text(item, "metadata", "name")
        if text(item, "kind") == POOLS.kind:
            self._count_pool(PoolKey(namespace, name))
            self._wake(PoolKey(namespace, name))
        elif text(item, "kind") == ROLLOUTS.kind:
            self._wake(PoolKey(namespace, text(item, "spec", "poolRef", "name")))
        elif text(item, "kind") == AUTOSCALERS.kind:
            self.autoscaler_changes += 1  # the next tick looks at it
        elif text(item, "kind") == TABLES.kind:
            self._wake(PoolKey(namespace, text(item, "spec", "pool", "name")))
        elif pool := text(item, "metadata", "labels", LABEL_POOL):
            self._wake(PoolKey(namespace, pool))

    def _count_pool(self, key: PoolKey) -> None:
        item = self.get(POOLS.kind, key)
        before = self._specs.pop(key, None)
        if item is not None:
            self._specs[key] = text(item, "metadata", "uid"), text(item, "metadata", "generation")
        self.pool_changes += before != self._specs.get(key)

    @staticmethod
    def _ignore(item: JsonObject) -> None:
        del item  # routers are read each second; no pool has to be woken
