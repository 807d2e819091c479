"""The dispatcher's own refusals, each saying what was found and what may help."""

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import PoolIdentity
from tidegate_router.core.faults import Outcome
from tidegate_router.core.pools import Group
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Call, Route
from tidegate_router.core.retry import POISON_S

RETRY_AFTER_S = 1.0
_LONGEST_RETRY_AFTER_S = 60.0


def no_workers(route: Route) -> Refusal:
    """No worker for the model exists, or none can be reached."""
    text = f"{_subject(route)} has no worker that can be reached{_last(route)}"
    return Refusal(DroppedReason.NO_WORKERS, text, RETRY_AFTER_S)


def crowded(route: Route, reason: DroppedReason, wait_s: float) -> Refusal:
    """The wait for a slot is longer than the tier allows or the client's deadline leaves.

    Nothing ran, so it is 429 whatever the reason; `wait_s` is the wait as predicted, or as it was.
    """
    most = "its deadline leaves" if reason is DroppedReason.DEADLINE else "it may wait"
    text = f"every worker of {_subject(route)} is at its limit: {wait_s:.3g} s is more than {most}"
    after_s = min(max(RETRY_AFTER_S, wait_s), _LONGEST_RETRY_AFTER_S)
    return Refusal(reason, text, after_s, 429, "RESOURCE_EXHAUSTED")


def hopeless(route: Route) -> Refusal:
    """It waited, and even if it ran now its client would not get the answer in time."""
    text = f"{_subject(route)} takes longer than what is left of the client's deadline"
    return Refusal(DroppedReason.DEADLINE, text, RETRY_AFTER_S, 429, "RESOURCE_EXHAUSTED")


def queue_full(route: Route, requests: int, size_bytes: int) -> Refusal:
    """The memory bound of the queue: routing.queue.maxRequests or maxBytes, or the router's own."""
    text = (
        f"the router's queue is full: {requests} requests with {size_bytes} bytes wait in pool "
        f"{route.namespace}/{route.pool} (routing.queue.maxRequests, maxBytes)"
    )
    return Refusal(DroppedReason.SATURATED, text, RETRY_AFTER_S)


def too_late(route: Route) -> Refusal:
    """The deadline, which covers all attempts, is over."""
    text = f"no answer within {route.deadline_s - route.started_s:.3g} s{_last(route)}"
    return Refusal(DroppedReason.DEADLINE, text)


def exhausted(route: Route, outcome: Outcome | None) -> Refusal:
    """The last attempt failed and may not be repeated."""
    if outcome is Outcome.TIMEOUT:
        return Refusal(DroppedReason.DEADLINE, f"{_subject(route)} did not answer{_last(route)}")
    text = f"{_subject(route)} failed {route.attempts} of {route.attempts} attempts{_last(route)}"
    return Refusal(DroppedReason.RETRIES_EXHAUSTED, text, RETRY_AFTER_S)


def poisoned(revision: str) -> Refusal:
    """The body was in flight at two connection losses."""
    text = "two workers broke their connection on this request: it is not sent again for a while"
    return Refusal(DroppedReason.SUSPECTED_POISON, text, POISON_S, revision=revision)


def wrong_call(ask: Ask, group: Group) -> Refusal | None:
    """Refuse unary inference of a decoupled model, naming the call that works."""
    if ask.call is not Call.INFER or not group.decoupled:
        return None
    text = (
        f"model '{ask.model}' is decoupled (any number of answers per request): use "
        f"POST /v2/models/{ask.model}/generate_stream or gRPC ModelStreamInfer"
    )
    return Refusal(DroppedReason.BAD_REQUEST, text)


def weightless(pool: PoolIdentity) -> Refusal:
    """No revision gets requests."""
    text = f"pool {pool.namespace}/{pool.name} has no revision with weight"
    return Refusal(DroppedReason.NO_WORKERS, text, RETRY_AFTER_S)


def scores_stale(pool: str) -> Refusal:
    """Nobody trusts any score, and the pool prefers no answer to a blind choice."""
    text = f"every score of pool {pool} is too old (spec.routing.failureMode is FailClosed)"
    return Refusal(DroppedReason.SCORES_STALE, text, RETRY_AFTER_S)


def _subject(route: Route) -> str:
    return f"model '{route.ask.model}' of pool {route.namespace}/{route.pool}"


def _last(route: Route) -> str:
    return f" (last: {route.last_fault})" if route.last_fault else ""
