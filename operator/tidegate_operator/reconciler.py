"""reconcile(pool): gather, decide in core, write. Called at every event and each second."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate_api.names import ANNOTATION_MODELS_GENERATION, EventReason
from tidegate_api.pool import InferencePool, InferencePoolStatus
from tidegate_api.template import JsonObject
from tidegate_api.validation import InvalidPoolError, parse_pool
from tidegate_operator import caches as kinds
from tidegate_operator.adapters.client import ApiError, ConflictError
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.budget import bucket, may_write_gauges, must_write
from tidegate_operator.core.decide import decide
from tidegate_operator.core.decision import (
    Decision,
    Event,
    TableChange,
    TablePlan,
    WorkerScore,
)
from tidegate_operator.core.memory import PoolMemory
from tidegate_operator.core.observation import OperatorSettings
from tidegate_operator.core.reading import DELETION_COST, text
from tidegate_operator.core.status import invalid_spec_status
from tidegate_operator.gather import Gatherer, metadata
from tidegate_operator.rollouts import RolloutReporter
from tidegate_operator.telemetry import Telemetry
from tidegate_operator.workqueue import WorkQueue
from tidegate_operator.writer import NotLeadingError, Writer

_log = logging.getLogger(__name__)
_RETRY_S = (0.2, 10.0)
_TURN_S = 1.0  # a shorter wait in the queue is within the cycle that routers reckon with


@dataclass(slots=True)
class PoolRecord:
    """What the shell keeps of one pool between two reconciles."""

    memory: PoolMemory = field(default_factory=PoolMemory)
    scores: Sequence[WorkerScore] = ()
    costs: Mapping[str, float] = field(default_factory=dict)
    status_written_s: float = 0.0  # monotonic
    failures: int = 0


class Reconciler:
    """Holds the records of all pools; `reconcile` is the queue's work."""

    def __init__(
        self,
        caches: Caches,
        gatherer: Gatherer,
        writer: Writer,
        settings: OperatorSettings,
        telemetry: Telemetry,
        queue: WorkQueue[PoolKey],
        score_writes_per_second: float,
    ) -> None:
        self._caches = caches
        self._gatherer = gatherer
        self._writer = writer
        self._settings = settings
        self._telemetry = telemetry
        self.reporter = RolloutReporter(caches, writer, telemetry)
        self._bucket = bucket(score_writes_per_second, time.monotonic())
        self._pending: dict[PoolKey, float] = {}  # score changes that wait, since when
        self.records: dict[PoolKey, PoolRecord] = {}
        self.queue = queue

    @property
    def score_lag_s(self) -> float:
        """Return the age of the oldest score change that waits for the write budget or a turn."""
        now_s = time.monotonic()
        wait_s = self.queue.oldest_wait_s
        budget_s = now_s - min(self._pending.values(), default=now_s)
        return max(budget_s, wait_s if wait_s > _TURN_S else 0.0)

    async def reconcile(self, key: PoolKey) -> None:
        """Bring one pool one step on; errors are tried again with growing delay."""
        document = self._caches.get(kinds.POOLS.kind, key)
        self._telemetry.queue_depth.set(len(self.queue))
        if document is None:
            self._forget(key)
            await self.reporter.without_pool(key, self._gatherer.rollouts(key))
            return
        record = self.records.setdefault(key, PoolRecord())
        try:
            with self._telemetry.reconcile_duration.time():
                delay_s = await self._step(key, document, record)
            record.failures = 0
            self._telemetry.reconciles.labels("ok").inc()
        except NotLeadingError:
            raise
        except ApiError as error:
            delay_s = self._failed(key, record, error)
        except Exception as error:  # noqa: BLE001  # one pool's defect must not stop all others
            delay_s = self._broken(key, record, error)
        self.queue.add_after(key, delay_s)

    async def _step(self, key: PoolKey, document: JsonObject, record: PoolRecord) -> float:
        try:
            pool = parse_pool(document)
        except InvalidPoolError as error:
            await self._invalid(key, document, record, error)
            return _RETRY_S[1]
        uid = pool.metadata.uid
        observation = self._gatherer.observe(
            key, document, pool, self._writer.unlisted(uid), self._writer.refused(uid)
        )
        decision = decide(observation, record.memory)
        record.memory, record.scores = decision.memory, decision.scores
        self._gatherer.acknowledged[uid] = decision.drain_acks
        await self._write(key, document, pool, record, decision)
        self._costs(key, record, decision.costs_per_hour)
        return decision.recheck_after_s

    async def _write(
        self,
        key: PoolKey,
        document: JsonObject,
        pool: InferencePool,
        record: PoolRecord,
        decision: Decision,
    ) -> None:
        """Claim a new pool before anything is made for it, and look again.

        Of two releases that see a new pool, one's claim meets a conflict, and it leaves the pool.
        """
        if decision.status is not None and pool.status.operator is None:
            await self._writer.write_status(key, document, decision.status)
            self.queue.add(key)
        else:
            await self._carry_out(key, pool.metadata.uid, decision)
            if decision.status is not None:
                await self._write_status(key, document, pool.status, decision.status, record)
        await self.reporter.report(key, decision.rollouts)
        if decision.last is not None:
            await self._writer.apply(key, pool.metadata.uid, decision.last)
        await _at_once(self._writer.emit(document, event) for event in decision.events)

    async def _carry_out(self, key: PoolKey, uid: str, decision: Decision) -> None:
        """Table first: routers must know before workers go. Before it only the mark of an abort."""
        if decision.first is not None:
            await self._writer.apply(key, uid, decision.first)
        if decision.table is not None:
            await self._write_table(key, uid, decision.table)
        else:
            self._pending.pop(key, None)
        for pod, cost in decision.deletion_costs.items():
            await self._writer.annotate(key, pod, DELETION_COST, str(cost))
        for manifest in decision.applies:
            await self._writer.apply(key, uid, manifest)
        for pod, generation in decision.models_generations.items():
            await self._writer.annotate(key, pod, ANNOTATION_MODELS_GENERATION, generation)
        await _at_once(self._writer.delete(key, uid, item) for item in decision.deletes)

    async def _write_table(self, key: PoolKey, uid: str, plan: TablePlan) -> None:
        """Urgent changes at once; scores within the budget, the longest waiting first.

        A write that fails no longer waits for the budget: one pool that cannot be written must
        not make the scores of all others look old.
        """
        if plan.change is TableChange.SCORES:
            since_s = self._pending.setdefault(key, time.monotonic())
            before_us = sum(1 for waiting_s in self._pending.values() if waiting_s < since_s)
            filled = self._bucket.refilled(time.monotonic())
            taken = filled.take(time.monotonic()) if filled.tokens > before_us else None
            self._bucket = taken or filled
            if taken is None:
                return
        self._pending.pop(key, None)
        await self._writer.write_table(key, uid, plan)
        self._telemetry.table_writes.labels(plan.change.value.lower()).inc()

    async def _write_status(
        self,
        key: PoolKey,
        document: JsonObject,
        before: InferencePoolStatus,
        after: InferencePoolStatus,
        record: PoolRecord,
    ) -> None:
        now_s = time.monotonic()
        due = must_write(before, after)
        if due or may_write_gauges(before, after, now_s - record.status_written_s):
            await self._writer.write_status(key, document, after)
            record.status_written_s = now_s

    async def _invalid(
        self, key: PoolKey, document: JsonObject, record: PoolRecord, error: InvalidPoolError
    ) -> None:
        """Say what is wrong; workers and table stay as they are."""
        meta = metadata(document)
        before = InferencePoolStatus.model_validate(document.get("status") or {})
        if meta.deletion_timestamp or before.operator not in {None, self._settings.release}:
            return
        after = invalid_spec_status(
            before,
            release=self._settings.release,
            generation=meta.generation,
            message=str(error),
            now_s=time.time(),
        )
        await self._write_status(key, document, before, after, record)
        event = Event(EventReason.POOL_NOT_READY, str(error), warning=True)
        await self._writer.emit(document, event)

    def _failed(self, key: PoolKey, record: PoolRecord, error: ApiError) -> float:
        record.failures += 1
        result = "conflict" if isinstance(error, ConflictError) else "error"
        self._telemetry.reconciles.labels(result).inc()
        level = logging.DEBUG if result == "conflict" else logging.WARNING
        _log.log(level, "%s", error, extra={"object": str(key)})
        return float(min(_RETRY_S[1], _RETRY_S[0] * 2 ** min(record.failures, 8)))

    def _broken(self, key: PoolKey, record: PoolRecord, error: Exception) -> float:
        record.failures += 1
        self._telemetry.reconciles.labels("defect").inc()
        _log.error("defect: %r", error, exc_info=error, extra={"object": str(key)})
        return _RETRY_S[1]

    def _costs(self, key: PoolKey, record: PoolRecord, costs: Mapping[str, float]) -> None:
        gauge = self._telemetry.pool_cost
        for name in record.costs.keys() - costs.keys():
            gauge.remove(key.namespace, key.name, name)
        for name, cost in costs.items():
            gauge.labels(key.namespace, key.name, name).set(cost)
        record.costs = costs

    def _forget(self, key: PoolKey) -> None:
        record = self.records.pop(key, None)
        self._pending.pop(key, None)
        if record is not None:
            self._costs(key, record, {})
        alive = {text(item, "metadata", "uid") for item in self._caches.every(kinds.POOLS.kind)}
        self._writer.forget(alive)
        self._gatherer.forget(alive)

    async def tick(self, interval_s: float = 1.0) -> None:
        """See each second that every pool will be looked at again, now or when it asked to be.

        A pool that failed has a timer of its own and is not asked for before.
        """
        while True:
            for key in self._caches.pool_keys():
                if not self.queue.armed(key):
                    self.queue.add(key)
            await asyncio.sleep(interval_s)


async def _at_once(calls: Iterable[Awaitable[object]]) -> None:
    """Make calls that do not depend on each other; the first error is raised once all ended.

    One after the other, the leftovers of a few replaced revisions would keep the next edit waiting.
    """
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
