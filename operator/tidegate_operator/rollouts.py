"""Writes what was decided about ModelRollouts: status, events, metrics."""

import logging
import time
from collections.abc import Callable, Sequence

from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import ApiError
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.decision import RolloutDecision
from tidegate_operator.core.notification import Notification, notification
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.reading import mapping, text
from tidegate_operator.core.rollout.kstatus import missing_pool_status
from tidegate_operator.gather import metadata
from tidegate_operator.telemetry import Telemetry
from tidegate_operator.writer import Writer

_log = logging.getLogger(__name__)
_PHASES = ("Healthy", "Progressing", "Paused", "Degraded")


class RolloutReporter:
    """The status of a rollout is its memory: it is written before anything is told of it."""

    def __init__(self, caches: Caches, writer: Writer, telemetry: Telemetry) -> None:
        self._caches = caches
        self._writer = writer
        self._telemetry = telemetry
        self.notify: Callable[[Notification], None] | None = None
        self._shown: dict[PoolKey, set[str]] = {}  # rollouts with metrics, by pool

    async def report(self, key: PoolKey, decisions: Sequence[RolloutDecision]) -> None:
        """Write each status that changed, then its events. Raises ApiError."""
        documents = {text(item, "metadata", "uid"): item for item in self._caches.rollouts_of(key)}
        self._forget(key, {decision.name for decision in decisions})
        for decision in decisions:
            document = documents.get(decision.uid)
            if document is not None:
                await self._one(key, document, decision)

    async def _one(self, key: PoolKey, document: JsonObject, decision: RolloutDecision) -> None:
        changed = mapping(document, "status") != decision.status.to_wire()
        if changed:
            before = document
            document = await self._writer.write_rollout_status(before, decision.status)
            self._count(key, before, decision)
        self._measure(key, decision)
        for note in decision.notes:
            fresh = await self._writer.emit(document, note)
            if self.notify is not None and (fresh or changed):
                self.notify(notification(metadata(document), decision.status, note, time.time()))

    async def without_pool(self, key: PoolKey, rollouts: Sequence[ObservedRollout]) -> None:
        """Tell the rollouts of a pool that does not exist (yet)."""
        now_s = time.time()
        decisions = [
            RolloutDecision(
                name=item.meta.name,
                uid=item.meta.uid,
                status=missing_pool_status(item.status, item.meta.generation, key.name, now_s),
            )
            for item in rollouts
        ]
        try:
            await self.report(key, decisions)
        except ApiError as error:
            _log.warning("%s", error, extra={"object": str(key)})

    def _measure(self, key: PoolKey, decision: RolloutDecision) -> None:
        status = decision.status
        self._shown.setdefault(key, set()).add(decision.name)
        for phase in _PHASES:
            gauge = self._telemetry.rollout_phase.labels(key.namespace, decision.name, phase)
            gauge.set(status.phase == phase)
        weight = self._telemetry.rollout_weight.labels(key.namespace, decision.name)
        weight.set(status.verified_weight)

    def _count(self, key: PoolKey, before: JsonObject, decision: RolloutDecision) -> None:
        """Count the verdict of each window once, when it is first shown as ended."""
        known = {text(item, "startedAt") for item in _windows(before) if text(item, "endedAt")}
        for window in decision.status.analysis.windows:
            if window.ended_at and window.started_at not in known:
                verdicts = self._telemetry.rollout_windows
                verdicts.labels(key.namespace, decision.name, window.verdict).inc()

    def _forget(self, key: PoolKey, alive: set[str]) -> None:
        for name in self._shown.pop(key, set()) - alive:
            for phase in _PHASES:
                self._telemetry.rollout_phase.remove(key.namespace, name, phase)
            self._telemetry.rollout_weight.remove(key.namespace, name)


def _windows(document: JsonObject) -> list[JsonObject]:
    found = mapping(document, "status", "analysis").get("windows")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
