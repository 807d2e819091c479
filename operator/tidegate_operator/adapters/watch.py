"""A list+watch cache: what the API server has of one kind, replaced whole at every re-list.

A watch only says what changes while it runs; after any break the cache lists again and drops what
is gone, so it keeps no ghosts.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidegate_api.names import LABEL_POOL
from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import ApiError, ExpiredError, KubeClient, Resource

_log = logging.getLogger(__name__)
_PAGE = 500
_WATCH_S = 300
_BACKOFF_S = (0.2, 5.0)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind a cache holds."""

    resource: Resource
    namespace: str = ""  # empty: all
    labels: str = ""  # a label selector


class ObjectCache:
    """Objects by (namespace, name). `changed(object)` hears of each that came, went or moved."""

    def __init__(
        self, client: KubeClient, selection: Selection, changed: Callable[[JsonObject], None]
    ) -> None:
        self._client = client
        self._selection = selection
        self._changed = changed
        self._objects: dict[tuple[str, str], JsonObject] = {}
        self._of_pool: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self.synced = asyncio.Event()
        self.heard_at_s: float | None = None  # loop time of the last list, event or bookmark

    @property
    def resource(self) -> Resource:
        """Return the kind that this cache holds."""
        return self._selection.resource

    def __iter__(self) -> Iterator[JsonObject]:
        return iter(list(self._objects.values()))

    def covers(self, namespace: str) -> bool:
        """Whether objects of this namespace belong here."""
        return self._selection.namespace in {"", namespace}

    def get(self, namespace: str, name: str) -> JsonObject | None:
        """Return an object as last seen."""
        return self._objects.get((namespace, name))

    def of_pool(self, namespace: str, pool: str) -> list[JsonObject]:
        """Return the objects that bear the label of a pool."""
        keys = self._of_pool.get((namespace, pool), ())
        return [self._objects[key] for key in sorted(keys)]

    def learn(self, item: JsonObject) -> None:
        """Take over the answer to an own write at once, unless something newer is here."""
        known = self._objects.get(_key(item))
        if known is None or _version(known) < _version(item):
            self._store(item)

    async def run(self) -> None:
        """List and watch for ever; ends only by cancellation."""
        delay_s = _BACKOFF_S[0]
        while True:
            try:
                version = await self._list()
                delay_s = _BACKOFF_S[0]
                await self._watch(version)
            except ExpiredError:
                continue
            except ApiError as error:
                _log.warning("watch of %s broke: %s", self.resource.plural, error)
                await asyncio.sleep(delay_s)
                delay_s = min(_BACKOFF_S[1], delay_s * 2)

    async def _list(self) -> str:
        fresh: dict[tuple[str, str], JsonObject] = {}
        query: dict[str, str | int] = {"limit": _PAGE, **self._filter()}
        while True:
            page = await self._client.request("GET", self._path(), query=query, timeout_s=30)
            for item in _items(page):
                fresh[_key(item)] = self._complete(item)
            metadata = _metadata(page)
            if not metadata.get("continue"):
                break
            query["continue"] = str(metadata["continue"])
        self._replace(fresh)
        return str(metadata.get("resourceVersion", ""))

    def _replace(self, fresh: dict[tuple[str, str], JsonObject]) -> None:
        before, self._objects, self._of_pool = self._objects, {}, {}
        for item in fresh.values():
            self._store(item)
        self._heard()
        self.synced.set()
        for key, item in {**before, **fresh}.items():
            if key not in fresh or key not in before or _version(before[key]) != _version(item):
                self._changed(item)

    async def _watch(self, version: str) -> None:
        query: dict[str, str | int] = {
            "resourceVersion": version, "timeoutSeconds": _WATCH_S, **self._filter(),
        }  # fmt: skip
        async for event in self._client.watch(self._path(), query):
            self._heard()
            item = event.get("object")
            if isinstance(item, dict):
                self._take(str(event.get("type")), item)

    def _take(self, kind: str, item: JsonObject) -> None:
        if kind == "ERROR":
            raise ExpiredError(str(item.get("message")))
        if kind == "BOOKMARK":
            return
        item = self._complete(item)
        if kind == "DELETED":
            self._objects.pop(_key(item), None)
            self._of_pool.get(_pool(item), set()).discard(_key(item))
        else:
            self._store(item)
        self._changed(item)

    def _store(self, item: JsonObject) -> None:
        self._objects[_key(item)] = item
        if pool := _pool(item)[1]:
            self._of_pool.setdefault((_key(item)[0], pool), set()).add(_key(item))

    def _complete(self, item: JsonObject) -> JsonObject:
        """Add what lists of typed objects leave out."""
        resource = self.resource
        return {"apiVersion": resource.api_version, "kind": resource.kind, **item}

    def _filter(self) -> dict[str, str]:
        return {"labelSelector": self._selection.labels} if self._selection.labels else {}

    def _path(self) -> str:
        return self._selection.resource.path(self._selection.namespace)

    def _heard(self) -> None:
        self.heard_at_s = asyncio.get_running_loop().time()


def _items(page: JsonObject) -> list[JsonObject]:
    items = page.get("items") or []
    return items if isinstance(items, list) else []


def _metadata(item: JsonObject) -> JsonObject:
    metadata = item.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _key(item: JsonObject) -> tuple[str, str]:
    metadata = _metadata(item)
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))


def _pool(item: JsonObject) -> tuple[str, str]:
    labels = _metadata(item).get("labels")
    name = labels.get(LABEL_POOL, "") if isinstance(labels, dict) else ""
    return _key(item)[0], str(name)


def _version(item: JsonObject) -> int:
    """Return the resourceVersion as a number: since 1.35 the API says that it compares so."""
    text = str(_metadata(item).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
