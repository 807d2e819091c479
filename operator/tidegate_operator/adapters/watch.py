"""A list+watch cache: what the API server has of one kind, replaced whole at every re-list.

A watch that ends in its time is taken up where it ended; after any break, and every five minutes
in any case, the cache lists again and drops what is gone, so it keeps no ghosts. Versions are
compared as numbers, which the API allows since 1.35 and etcd always gave.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tidegate_api.names import LABEL_POOL
from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import (
    ApiError,
    ExpiredError,
    KubeClient,
    Resource,
    UnavailableError,
)

_log = logging.getLogger(__name__)
_PAGE = 500
_BACKOFF_S = (0.2, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTimes:
    """Seconds. The server need not say anything about a quiet kind, so watches are short: then a
    stream that stays silent for longer than any watch lasts is dead for certain.
    """

    watch_s: tuple[int, int] = (45, 75)  # spread, as below, or all caches would ask at once
    silence_s: float = 90.0
    relist_s: tuple[float, float] = (270.0, 330.0)
    lasted_s: float = 5.0  # a watch that lived this long was no failure


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a kind a cache holds."""

    resource: Resource
    namespace: str = ""  # empty: all
    labels: str = ""  # a label selector


class ObjectCache:
    """Objects by (namespace, name). `changed(object)` hears of each that came, went or moved."""

    def __init__(
        self,
        client: KubeClient,
        selection: Selection,
        changed: Callable[[JsonObject], None],
        times: WatchTimes | None = None,
    ) -> None:
        self._client = client
        self._times = times or WatchTimes()
        self._selection = selection
        self._changed = changed
        self._objects: dict[tuple[str, str], JsonObject] = {}
        self._of_pool: dict[tuple[str, str], set[tuple[str, str]]] = {}
        self._gone: dict[tuple[str, str], int] = {}  # version of a deletion, until the next list
        self._version = ""  # to watch from
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
        """Take over the answer to an own write at once, unless something newer was seen."""
        if self._is_news(item):
            self._store(item)

    async def run(self) -> None:
        """List and watch for ever; ends only by cancellation."""
        delay_s = _BACKOFF_S[0]
        while True:
            began_s = _now_s()
            try:
                await self._follow()
            except ApiError as error:
                level = logging.DEBUG if isinstance(error, ExpiredError) else logging.WARNING
                _log.log(level, "watch of %s broke: %s", self.resource.plural, error)
            if _now_s() - began_s >= self._times.lasted_s:
                delay_s = _BACKOFF_S[0]
            await asyncio.sleep(delay_s)
            delay_s = min(_BACKOFF_S[1], delay_s * 2)

    async def _follow(self) -> None:
        """List, then watch until it is time to list again; raises ApiError when a watch breaks."""
        self._version = await self._list()
        # Not for secrets: this only spreads the load.
        until_s = _now_s() + random.uniform(*self._times.relist_s)  # noqa: S311
        while _now_s() < until_s:
            began_s = _now_s()
            await self._watch()
            if _now_s() - began_s < self._times.lasted_s:
                raise UnavailableError("the server ended the watch at once")

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
        before, self._objects, self._of_pool, self._gone = self._objects, {}, {}, {}
        for item in fresh.values():
            self._store(item)
        self._heard()
        self.synced.set()
        for key, item in {**before, **fresh}.items():
            if key not in fresh or key not in before or _version(before[key]) != _version(item):
                self._changed(item)

    async def _watch(self) -> None:
        query: dict[str, str | int] = {
            "resourceVersion": self._version,
            "timeoutSeconds": random.randint(*self._times.watch_s),  # noqa: S311  # spreads the load
            **self._filter(),
        }
        async for event in self._client.watch(self._path(), query, self._times.silence_s):
            self._heard()
            item = event.get("object")
            if isinstance(item, dict):
                self._take(str(event.get("type")), item)
        self._heard()

    def _take(self, kind: str, item: JsonObject) -> None:
        if kind == "ERROR":
            raise ExpiredError(str(item.get("message")))
        self._version = str(_metadata(item).get("resourceVersion") or self._version)
        if kind == "BOOKMARK":
            return
        item = self._complete(item)
        if kind == "DELETED":
            self._gone[_key(item)] = _version(item)
            self._drop(_key(item))
        elif self._is_news(item):
            self._store(item)
        self._changed(item)

    def _is_news(self, item: JsonObject) -> bool:
        """A watch may lag behind the answer to an own write, which may lag behind a deletion."""
        known = self._objects.get(_key(item))
        seen = _version(known) if known is not None else self._gone.get(_key(item), -1)
        return seen < _version(item)

    def _store(self, item: JsonObject) -> None:
        self._drop(_key(item))
        self._objects[_key(item)] = item
        if pool := _pool(item)[1]:
            self._of_pool.setdefault((_key(item)[0], pool), set()).add(_key(item))

    def _drop(self, key: tuple[str, str]) -> None:
        before = self._objects.pop(key, None)
        if before is None or (group := self._of_pool.get(_pool(before))) is None:
            return
        group.discard(key)
        if not group:
            del self._of_pool[_pool(before)]

    def _complete(self, item: JsonObject) -> JsonObject:
        """Add what lists of typed objects leave out."""
        resource = self.resource
        return {"apiVersion": resource.api_version, "kind": resource.kind, **item}

    def _filter(self) -> dict[str, str]:
        return {"labelSelector": self._selection.labels} if self._selection.labels else {}

    def _path(self) -> str:
        return self._selection.resource.path(self._selection.namespace)

    def _heard(self) -> None:
        self.heard_at_s = _now_s()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


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
    text = str(_metadata(item).get("resourceVersion", "0"))
    return int(text) if text.isdigit() else 0
