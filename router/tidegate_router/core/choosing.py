"""Which candidates a request may have, and the choices that are no draw: trials and sequences."""

from collections.abc import Collection, Iterable

from tidegate_router.core import ejection, pick
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.filters import EJECTED
from tidegate_router.core.pools import Group, PoolView
from tidegate_router.core.request import Call, Choice, Route
from tidegate_router.core.sequences import SequenceBook, in_order


def anyone(
    candidates: Iterable[Candidate], version: str, now_s: float, tried: Collection[str] = ()
) -> bool:
    """Whether a worker that was not tried yet may be sent something, now or once it is free."""
    return any(
        one.worker.id not in tried
        and (not version or one.served.version == version)
        and one.health.usable(now_s)
        for one in candidates
    )


def room(candidates: Iterable[Candidate]) -> bool:
    """Whether somebody who is up, and not shunned, has a free slot."""
    return any(
        one.slot.in_flight < one.limit and not one.health.down and not one.slot.shunned
        for one in candidates
    )


def by_strategy(
    view: PoolView, group: Group, route: Route, uniform: pick.Uniform, now_s: float
) -> Choice | None:
    """Choose for a request that is not the plainest: a version, a retry, an inquiry.

    An ejected worker is taken only when nobody else is left for this request; that others are
    busy is no reason. A slow one is taken also by who waited for as long as a request takes.
    """
    ask, tried, policy = route.ask, route.tried, view.table.policy
    if group.trials and (chosen := trial(group, route, now_s)) is not None:
        return chosen

    def fits(one: Candidate) -> bool:
        return (
            one.worker.id not in tried
            and (not ask.version or one.served.version == ask.version)
            and one.health.usable(now_s)
        )

    def free(one: Candidate) -> bool:
        return one.slot.in_flight < one.limit or ask.call is Call.INQUIRY

    waited_s = now_s - route.started_s

    def allowed(one: Candidate) -> bool:
        slot = one.slot
        shunned = slot.shunned and (slot.ejected or waited_s < usual_s(group, one))
        return not shunned and free(one) and fits(one)

    def last_resort(one: Candidate) -> bool:
        return free(one) and fits(one)

    found = pick.choose(group.tiers, allowed, policy.top_k, uniform, now_s, policy.strategy)
    if found is not None or any(not one.slot.shunned and fits(one) for one in group.candidates):
        return found
    return pick.choose(group.tiers, last_resort, policy.top_k, uniform, now_s, policy.strategy)


def usual_s(group: Group, one: Candidate) -> float:
    """Return what a request usually takes in a worker's class."""
    return group.usual_s.get(one.worker.accelerator, 0.0)


def slow_from_s(group: Group, route: Route) -> float | None:
    """Return when a waiting request may take a slow worker's free slot; None when there is none."""
    times_s = [
        route.started_s + usual_s(group, one)
        for one in group.candidates
        if one.slot.slow and not one.slot.ejected and one.slot.in_flight < one.limit
    ]
    return min(times_s, default=None)


def trial(group: Group, route: Route, now_s: float) -> Choice | None:
    """Return a worker that is due for one request, if this request may be the one.

    A worker that is down takes anyone: where there is no connection, nothing was sent. An ejected
    one takes who can be sent again elsewhere, and if no such request came for as long as it was
    out, anyone.
    """
    ask = route.ask
    if route.attempts or ask.version or ask.call is Call.INQUIRY:
        return None
    safe = ask.replayable and route.repeatable and ask.call is Call.INFER
    for candidate in group.trials:
        state = candidate.slot.ejection
        slot = candidate.slot
        fits = safe or candidate.health.down or now_s > state.trial_s + state.duration_s
        if fits and slot.in_flight < candidate.limit and ejection.due(candidate, now_s):
            group.trials.remove(candidate)
            slot.tried_s = now_s
            return _alone(candidate, group, EJECTED, now_s)
    return None


def in_sequence(
    book: SequenceBook, group: Group, route: Route, now_s: float
) -> tuple[Candidate, Choice | None] | None:
    """Return the worker that holds a sequence's state, and a choice if it has a free slot.

    A draining worker goes on with what it has. One that is gone or down lost the state: another
    takes over, and its model says what it thinks of a sequence without a beginning. None when
    nobody is left.
    """
    key = (route.pool_uid, route.ask.model, route.ask.sequence)
    place = book.place(key, now_s) or book.settle(key, route.revision, now_s)
    holder = _holder(group, place.worker) if place.revision == route.revision else None
    if holder is None or not holder.health.usable(now_s):
        holder = _new_holder(group, route, now_s)
    if holder is None:
        return None
    place.revision, place.worker = route.revision, holder.worker.id
    if holder.slot.in_flight >= holder.limit:
        return holder, None
    return holder, _alone(holder, group, 0, now_s)


def _holder(group: Group, worker: str) -> Candidate | None:
    for one in group.candidates:
        if one.worker.id == worker:
            return one
    return group.leaving.get(worker)


def _new_holder(group: Group, route: Route, now_s: float) -> Candidate | None:
    for shunned in (False, True):
        for tier in group.tiers:
            fit = {
                one.worker.id: one
                for one in tier.candidates
                if one.health.usable(now_s) and one.slot.shunned <= shunned
            }
            if fit:
                return fit[in_order(fit, route.revision, route.ask.sequence)[0]]
    return None


def _alone(candidate: Candidate, group: Group, level: int, now_s: float) -> Choice:
    cost_s = pick.cost(candidate, now_s)
    load = candidate.slot.in_flight
    return Choice(candidate, level, len(group.candidates), [candidate], [load], [cost_s])
