"""One shadow copy: whether a request that was answered is copied, and to which worker."""

from dataclasses import dataclass

from tidegate_api.routetable import MirrorPolicy
from tidegate_router.core import filters, pick
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.mirror import Judged, ShadowKey
from tidegate_router.core.pools import PoolView
from tidegate_router.core.request import Attempt, Call, Choice, Route


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A copy to be sent: `attempt` holds a slot until `end_copy`."""

    attempt: Attempt
    key: ShadowKey
    size_bytes: int


def plan_copy(
    dispatcher: Dispatcher, route: Route, answered: Attempt, size_bytes: int, now_s: float
) -> Copy | Judged | None:
    """Decide on a request that `answered` answered well: a copy, SKIPPED (counted), or nothing.

    Copied are unary inferences that another revision than the mirror's answered, drawn by weight
    and harmless when they run twice. `size_bytes` of the request's body.
    """
    view = dispatcher.view(route.pool_uid, now_s)
    policy = view.table.mirror if view is not None else None
    if view is None or policy is None or not _eligible(view, policy, route, answered):
        return None
    book, uid = dispatcher.mirrors, route.pool_uid
    if not book.drawn(uid, policy.percent, dispatcher.uniform):
        return None
    key = ShadowKey(
        uid=uid,
        namespace=route.namespace,
        pool=route.pool,
        revision=policy.revision,
        model=route.ask.model,
    )
    room = route.ask.replayable and book.room(uid, size_bytes)
    chosen = _choose(dispatcher, view, key, now_s) if room else None
    if chosen is None:
        book.count(key, Judged.SKIPPED)
        return Judged.SKIPPED
    book.begin(uid, size_bytes)
    return Copy(attempt=_attempt(view, key, chosen, now_s), key=key, size_bytes=size_bytes)


def end_copy(dispatcher: Dispatcher, copy: Copy) -> None:
    """Free what a copy held, once its worker has stopped."""
    dispatcher.release(copy.attempt)
    dispatcher.mirrors.end(copy.key.uid, copy.size_bytes)


def _eligible(view: PoolView, policy: MirrorPolicy, route: Route, answered: Attempt) -> bool:
    return (
        policy.percent > 0
        and route.ask.call is Call.INFER
        and route.idempotent
        and not (route.pinned or route.rescued)
        and answered.revision != policy.revision
        and policy.revision not in view.dropped
    )


def _choose(dispatcher: Dispatcher, view: PoolView, key: ShadowKey, now_s: float) -> Choice | None:
    """Return a ready worker with a free slot that nobody waits for."""
    if dispatcher.holds.anyone((key.uid, key.revision, key.model)):
        return None
    tiers = view.group(key.revision, key.model).tiers
    return pick.choose(
        [tier for tier in tiers if tier.level < filters.NOT_READY],
        _may_get_copies,
        view.table.policy.top_k,
        dispatcher.uniform,
        now_s,
    )


def _may_get_copies(one: Candidate) -> bool:
    slot = one.slot
    healthy = not (one.health.down or slot.shunned)
    return healthy and slot.in_flight < one.limit and filters.repeatable(one.served)


def _attempt(view: PoolView, key: ShadowKey, choice: Choice, now_s: float) -> Attempt:
    candidate, policy = choice.candidate, view.table.policy
    worker = candidate.worker
    candidate.slot.take(now_s)
    return Attempt(
        number=1,
        pool_uid=key.uid,
        worker_id=worker.id,
        worker_name=worker.name or worker.id,
        address=worker.address,
        http_port=worker.ports.http,
        grpc_port=worker.ports.grpc,
        revision=key.revision,
        accelerator=worker.accelerator,
        model=key.model,
        loaded_as=candidate.served.loaded_as or "",
        timeout_s=policy.retry.per_try_timeout_s or policy.timeout_s,
        started_s=now_s,
        choice=choice,
        slot=candidate.slot,
    )
