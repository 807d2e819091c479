"""Routes and attempts, made field by field.

A constructor with that many keywords takes five times as long as the assignments, and these two are
made for every request. A test compares them with what the constructors make, so no field is missed.
"""

import math

from tidegate_router.core.pools import Group, PoolView
from tidegate_router.core.request import Ask, Attempt, Call, Choice, Route
from tidegate_router.core.series import SeriesKey

# Members of an Enum are looked up by a descriptor in Python 3.11: ten times a global's time.
_INFER, _INQUIRY, _STREAM = Call.INFER, Call.INQUIRY, Call.STREAM
_NOBODY: frozenset[str] = frozenset()
_NEVER_S = math.inf


def route(
    ask: Ask, view: PoolView, group: Group, revision: str, number: int, now_s: float
) -> Route:
    """Return a new request's route; `number` is its order of arrival."""
    table = view.table
    pool, policy = table.pool, table.policy
    made = Route.__new__(Route)
    made.ask = ask
    made.number = number
    made.pool_uid = pool.uid
    made.namespace = pool.namespace
    made.pool = pool.name
    made.revision = made.drawn = revision
    made.pinned = False
    made.started_s = now_s
    made.deadline_s = _NEVER_S if ask.timeout_s is None else now_s + ask.timeout_s
    made.timeout_s = policy.timeout_s
    made.size_bytes = ask.size_bytes
    made.cache_ttl_s = group.cache_ttl_s
    made.hold_until_s = 0.0
    made.tier = ""
    made.weight = 1.0
    made.held = False
    made.blocked_turn = -1
    made.retry = policy.retry
    made.attempts = made.free_retries = made.paid_retries = made.losses = 0
    made.answered = made.idempotent = made.finished = made.woken = False
    made.tried = _NOBODY
    made.last_fault = made.accelerator = made.worker = ""
    made.queue_s = made.upstream_s = 0.0
    made.last_outcome = made.slot = None
    made.sequence = group.sequence and bool(ask.sequence) and ask.call is not _INQUIRY
    made.repeatable = group.repeatable
    return made


def attempt(of: Route, choice: Choice, now_s: float) -> Attempt:
    """Return a route's next attempt at the chosen worker, which it takes a slot of."""
    candidate, ask = choice.candidate, of.ask
    worker, slot = candidate.worker, candidate.slot
    of.attempts += 1
    of.accelerator = worker.accelerator
    of.worker = worker.name or worker.id
    of.idempotent = candidate.repeatable
    of.slot = slot
    left_s = of.deadline_s - now_s
    per_try_s = of.retry.per_try_timeout_s
    if per_try_s and per_try_s < left_s:
        left_s = per_try_s
    made = Attempt.__new__(Attempt)
    made.number = of.attempts
    made.pool_uid = of.pool_uid
    made.worker_id = worker.id
    made.worker_name = of.worker
    made.address = worker.address
    made.http_port = worker.ports.http
    made.grpc_port = worker.ports.grpc
    made.revision = of.revision
    made.accelerator = worker.accelerator
    made.model = ask.model
    made.loaded_as = candidate.served.loaded_as or ""
    made.timeout_s = left_s
    made.started_s = now_s
    made.choice = choice
    made.trial = False
    made.stream = ask.call is _STREAM
    if ask.call is _INQUIRY:
        made.slot = None
        return made
    made.slot = slot
    if slot.in_flight == slot.streams:
        slot.heard_s = now_s
    slot.in_flight += 1
    if made.stream:
        slot.streams += 1
    return made


def as_trial(of: Route, made: Attempt, group: Group, now_s: float) -> None:
    """Mark an attempt that tries a worker; one that may be sent again gets little time for it."""
    candidate = made.choice.candidate
    slot = candidate.slot
    made.trial = candidate.health.begin()
    if slot.ejection.trial or (now_s < slot.ejection.trial_s and not slot.suspect):
        return
    slot.ejection.trial = made.trial = True
    known_s = group.patience_s.get(made.accelerator)
    if known_s and of.idempotent and of.ask.replayable and of.ask.call is _INFER:
        made.timeout_s = min(made.timeout_s, known_s)


def series_key(route: Route, revision: str) -> SeriesKey:
    """Return what a route's attempts at a revision are counted under."""
    return SeriesKey(
        uid=route.pool_uid,
        namespace=route.namespace,
        pool=route.pool,
        revision=revision,
        model=route.ask.model,
        accelerator=route.accelerator,
    )
