"""Carries out decisions: applies what differs, deletes, writes tables, status and events.

Every write first asks whether this process still leads.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate_api.names import FIELD_MANAGER
from tidegate_api.pool import InferencePoolStatus
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_api.template import JsonObject
from tidegate_operator import caches as kinds
from tidegate_operator.adapters.client import (
    ApiError,
    ConflictError,
    KubeClient,
    NotFoundError,
    RefusedError,
)
from tidegate_operator.adapters.lease import micro_time
from tidegate_operator.caches import RESOURCES, Caches, PoolKey
from tidegate_operator.core.decision import Deletion, Event, Manifest, TablePlan
from tidegate_operator.core.observation import Owned, RefusedWrite
from tidegate_operator.core.reading import mapping, read_owned, records, text, texts
from tidegate_operator.core.rollout.model import Note

_log = logging.getLogger(__name__)
_APPLY = {"fieldManager": FIELD_MANAGER, "force": "true"}
_CHECK_AGAIN_S = 30.0  # objects that no cache holds, refused writes, foreign owners
_EVENT_SILENCE_S = 600.0
_CONTROLLERS_OWN = "deployment.kubernetes.io/"  # annotations that the Deployment controller writes


class NotLeadingError(RuntimeError):
    """The renew deadline has passed: nothing may be written."""


@dataclass(frozen=True, slots=True)
class Applied:
    """One object as this process applied it."""

    digest: str  # of what was applied
    token: str  # of the answer: see _token
    uid: str
    at_s: float


@dataclass(slots=True)
class Written:
    """What this process knows of the objects that it applied for one pool."""

    applied: dict[tuple[str, str], Applied] = field(default_factory=dict)
    unlisted: dict[tuple[str, str], Owned] = field(default_factory=dict)  # ConfigMaps
    foreign: dict[tuple[str, str], tuple[Owned, float]] = field(default_factory=dict)
    refused: dict[tuple[str, str], tuple[RefusedWrite, float]] = field(default_factory=dict)
    events: dict[tuple[str, str], float] = field(default_factory=dict)

    def rests(self, at: tuple[str, str]) -> bool:
        """Whether a write was refused a moment ago, so that asking again has to wait."""
        return at in self.refused and time.monotonic() - self.refused[at][1] < _CHECK_AGAIN_S

    def note_refusal(self, at: tuple[str, str], error: RefusedError) -> None:
        """Remember that the API server refused to write an object."""
        _log.warning("%s", error)
        write = RefusedWrite(kind=at[0], name=at[1], message=str(error))
        self.refused[at] = (write, time.monotonic())


class Writer:
    """The only one that changes the cluster. Raises ApiError and NotLeadingError."""

    def __init__(self, client: KubeClient, caches: Caches, leads: Callable[[], bool]) -> None:
        self._client = client
        self._caches = caches
        self._leads = leads
        self._written: dict[str, Written] = {}

    def written(self, uid: str) -> Written:
        """Return what was applied for the pool of this UID."""
        return self._written.setdefault(uid, Written())

    def forget(self, alive: set[str]) -> None:
        """Drop what is kept of pools that are gone."""
        for uid in self._written.keys() - alive:
            del self._written[uid]

    def unlisted(self, uid: str) -> list[Owned]:
        """Return objects that no cache holds: own ConfigMaps, and foreigners with our names."""
        known = self.written(uid)
        return [*known.unlisted.values(), *(owned for owned, _ in known.foreign.values())]

    def refused(self, uid: str) -> list[RefusedWrite]:
        """Return what the API server refused lately."""
        return [write for write, _ in self.written(uid).refused.values()]

    async def apply(self, key: PoolKey, uid: str, manifest: Manifest) -> None:
        """Server-side apply `manifest` if it or the object changed since the last time."""
        known, at = self.written(uid), (manifest.kind, manifest.name)
        digest = hashlib.sha256(json.dumps(manifest.body, sort_keys=True).encode()).hexdigest()
        if self._settled(known, at, digest, key) or await self._is_foreign(key, known, at, uid):
            return
        path = RESOURCES[manifest.kind].path(key.namespace, manifest.name)
        try:
            answer = await self._request(
                "PATCH", path, query=_APPLY, body=manifest.body,
                content_type="application/apply-patch+yaml",
            )  # fmt: skip
        except RefusedError as error:
            known.note_refusal(at, error)
            return
        known.refused.pop(at, None)
        answer = {"kind": manifest.kind, **answer}
        if manifest.kind == kinds.CONFIG_MAPS.kind:
            known.unlisted[at] = read_owned(answer)
        self._caches.learn(answer)
        uid_now = text(answer, "metadata", "uid")
        known.applied[at] = Applied(digest, _token(answer), uid_now, time.monotonic())

    def _settled(self, known: Written, at: tuple[str, str], digest: str, key: PoolKey) -> bool:
        """Whether the object is as applied, or was refused a moment ago."""
        if known.rests(at):
            return True
        before = known.applied.get(at)
        if before is None or before.digest != digest:
            return False
        if at[0] == kinds.CONFIG_MAPS.kind:
            return time.monotonic() - before.at_s < _CHECK_AGAIN_S
        live = self._caches.get(at[0], key, at[1])
        return live is not None and _token(live) == before.token

    async def _is_foreign(
        self, key: PoolKey, known: Written, at: tuple[str, str], uid: str
    ) -> bool:
        """Whether somebody else's object has this name; it is never taken over.

        Ours is what this pool controls, and what was applied before even if its owner was edited.
        """
        if at in known.foreign and time.monotonic() - known.foreign[at][1] < _CHECK_AGAIN_S:
            return True
        known.foreign.pop(at, None)
        live = self._caches.get(*_lookup(at, key)) if at[0] != kinds.CONFIG_MAPS.kind else None
        if live is None:
            try:
                path = RESOURCES[at[0]].path(key.namespace, at[1])
                live = {"kind": at[0], **await self._client.request("GET", path)}
            except NotFoundError:
                return False
        owned = read_owned(live)
        before = known.applied.get(at)
        if owned.controller_uid == uid or (before is not None and before.uid == owned.uid):
            return False
        known.applied.pop(at, None)
        known.unlisted.pop(at, None)
        known.foreign[at] = (owned, time.monotonic())
        return True

    async def delete(self, key: PoolKey, uid: str, deletion: Deletion) -> None:
        """Delete an object if it still has the UID that was decided on."""
        path = RESOURCES[deletion.kind].path(key.namespace, deletion.name)
        body = {"preconditions": {"uid": deletion.uid}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", path, body=body)
        except (NotFoundError, ConflictError):
            _log.debug("%s %s is gone already", deletion.kind, deletion.name)
        self.written(uid).applied.pop((deletion.kind, deletion.name), None)
        self.written(uid).unlisted.pop((deletion.kind, deletion.name), None)

    async def annotate(self, key: PoolKey, pod: str, name: str, value: str) -> None:
        """Set an annotation of a worker; one that is gone needs none."""
        body = {"metadata": {"annotations": {name: value}}}
        try:
            answer = await self._request(
                "PATCH", kinds.PODS.path(key.namespace, pod), body=body,
                content_type="application/merge-patch+json",
            )  # fmt: skip
        except NotFoundError:
            return
        self._caches.learn({"kind": "Pod", **answer})

    async def write_table(self, key: PoolKey, uid: str, plan: TablePlan) -> None:
        """Write a table; a refusal is remembered and holds up nothing else of the pool."""
        known, at = self.written(uid), (plan.index.kind, plan.index.name)
        if known.rests(at):
            return
        try:
            await self._put_whole_table(key, plan)
        except RefusedError as error:
            known.note_refusal(at, error)
        else:
            known.refused.pop(at, None)

    async def _put_whole_table(self, key: PoolKey, plan: TablePlan) -> None:
        """Write parts, then the index, then remove parts that nothing refers to."""
        for part in plan.parts:
            if self._caches.get(kinds.TABLES.kind, key, part.name) is None:
                await self._put_table(key, part)
        await self._put_table(key, plan.index)
        for name in plan.stale_parts:
            try:
                await self._request("DELETE", kinds.TABLES.path(key.namespace, name))
            except NotFoundError:
                continue

    async def _put_table(self, key: PoolKey, table: Manifest) -> None:
        live = self._caches.get(kinds.TABLES.kind, key, table.name)
        path = kinds.TABLES.path(key.namespace)
        if live is None:
            answer = await self._request("POST", path, body=table.body)
        else:
            version = text(live, "metadata", "resourceVersion")
            meta = {**mapping(table.body, "metadata"), "resourceVersion": version}
            body = {**table.body, "metadata": meta}
            answer = await self._request("PUT", f"{path}/{table.name}", body=body)
        self._caches.learn({"kind": kinds.TABLES.kind, **answer})

    async def write_status(
        self, key: PoolKey, document: JsonObject, status: InferencePoolStatus
    ) -> None:
        """Replace the status subresource; ConflictError if the pool changed meanwhile."""
        path = kinds.POOLS.path(key.namespace, key.name, "status")
        body = {**document, "status": status.to_wire()}
        answer = await self._request("PUT", path, body=body)
        self._caches.learn({"kind": kinds.POOLS.kind, **answer})

    async def write_rollout_status(
        self, document: JsonObject, status: ModelRolloutStatus
    ) -> JsonObject:
        """Replace a ModelRollout's status; ConflictError if it changed meanwhile."""
        namespace, name = (
            text(document, "metadata", "namespace"),
            text(document, "metadata", "name"),
        )
        path = kinds.ROLLOUTS.path(namespace, name, "status")
        body = {**document, "status": status.to_wire()}
        answer = {"kind": kinds.ROLLOUTS.kind, **await self._request("PUT", path, body=body)}
        self._caches.learn(answer)
        return answer

    async def emit(self, document: JsonObject, event: Event | Note) -> bool:
        """Create an Event on an object, once in ten minutes for the same words; best effort.

        Returns whether these words were new.
        """
        said, now_s = self.written(text(document, "metadata", "uid")).events, time.monotonic()
        words = (event.reason.value, event.message)
        if now_s - said.get(words, -_EVENT_SILENCE_S) < _EVENT_SILENCE_S:
            return False
        for old in [words for words, at_s in said.items() if now_s - at_s >= _EVENT_SILENCE_S]:
            del said[old]
        said[words] = now_s
        try:
            body = _event_body(document, event)
            namespace = text(document, "metadata", "namespace")
            await self._request("POST", kinds.EVENTS.path(namespace), body=body)
        except ApiError as error:
            name = text(document, "metadata", "name")
            _log.warning("event %s: %s", event.reason, error, extra={"object": name})
        return True

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: object = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        if not self._leads():
            raise NotLeadingError("the lease is lost: nothing is written any more")
        return await self._client.request(
            method, path, query=query, body=body, content_type=content_type
        )


def _lookup(at: tuple[str, str], key: PoolKey) -> tuple[str, PoolKey, str]:
    return at[0], key, at[1]


def _token(item: JsonObject) -> str:
    """Return what changes when somebody edits an object: spec, labels, annotations or owners.

    Kinds without a generation answer with their version.
    """
    generation = text(item, "metadata", "generation")
    annotations = texts(item, "metadata", "annotations")
    parts = (
        generation or text(item, "metadata", "resourceVersion"),
        sorted(texts(item, "metadata", "labels").items()),
        sorted(pair for pair in annotations.items() if not pair[0].startswith(_CONTROLLERS_OWN)),
        records(item, "metadata", "ownerReferences"),
    )
    return json.dumps(parts)


def _event_body(document: JsonObject, event: Event | Note) -> JsonObject:
    uid, now = text(document, "metadata", "uid"), micro_time()
    name = text(document, "metadata", "name")
    seed = f"{uid}{event.reason}{event.message}{now}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name}.{hashlib.sha256(seed.encode()).hexdigest()[:16]}"},
        "involvedObject": {
            "apiVersion": kinds.POOLS.api_version,
            "kind": text(document, "kind") or kinds.POOLS.kind,
            "namespace": text(document, "metadata", "namespace"),
            "name": name,
            "uid": uid,
            "resourceVersion": text(document, "metadata", "resourceVersion"),
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason.value,
        "message": event.message[:1024],
        "eventTime": now,
        "firstTimestamp": f"{now[:19]}Z",
        "lastTimestamp": f"{now[:19]}Z",
        "count": 1,
        "action": event.reason.value,
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": FIELD_MANAGER,
    }
