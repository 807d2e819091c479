"""What the admin port shows: router state, workers, and picks that are only looked at."""

from dataclasses import asdict

from tidegate_api.routerstate import AppliedTable, EjectedWorker, QueueState, RouterState
from tidegate_router.core import learn, pick
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.freshness import trust
from tidegate_router.core.holds import Load
from tidegate_router.core.pools import PoolView

_UNPROVEN_S = 1e9  # JSON has no infinity


def router_state(
    dispatcher: Dispatcher, *, synced: bool, draining: bool, now_s: float
) -> RouterState:
    """Return /v1/state."""
    loads, nothing = dict(dispatcher.holds.loads()), Load()
    age_s = min(dispatcher.proof.silence_s(now_s), _UNPROVEN_S)
    return RouterState(
        instance=dispatcher.instance,
        synced=synced,
        draining=draining,
        tables=[_applied(view, age_s) for view in dispatcher.pools.values()],
        series=dispatcher.series.states(),
        queues=[
            QueueState(
                namespace=view.table.pool.namespace,
                pool=view.table.pool.name,
                waiting=loads.get(uid, nothing).requests,
                held=loads.get(uid, nothing).held,
                waiting_bytes=loads.get(uid, nothing).size_bytes,
                in_flight=max(0, view.in_flight - loads.get(uid, nothing).requests),
            )
            for uid, view in dispatcher.pools.items()
        ],
        shadows=dispatcher.mirrors.states(),
        local_aborts=[
            abort for view in dispatcher.pools.values() for abort in view.dropped.values()
        ],
        ejected=[one for view in dispatcher.pools.values() for one in _ejected(view)],
    )


def _ejected(view: PoolView) -> list[EjectedWorker]:
    pool = view.table.pool
    return [
        EjectedWorker(
            namespace=pool.namespace,
            pool=pool.name,
            uid=pool.uid,
            worker=one.worker.id,
            revision=group.key[0],
            model=group.key[1],
            reason=one.slot.ejection.reason.value,
        )
        for group, one in learn.ejected(view)
    ]


def _applied(view: PoolView, age_s: float) -> AppliedTable:
    pool = view.table.pool
    return AppliedTable(
        namespace=pool.namespace,
        pool=pool.name,
        uid=pool.uid,
        applied_sequence=view.table.sequence,
        age_s=round(age_s, 3),
    )


def workers(dispatcher: Dispatcher, now_s: float) -> list[dict[str, object]]:
    """Return every worker with what this router makes of it."""
    return [
        row
        for uid in list(dispatcher.pools)
        if (view := dispatcher.view(uid, now_s)) is not None
        for row in _rows(dispatcher, view, now_s)
    ]


def _rows(dispatcher: Dispatcher, view: PoolView, now_s: float) -> list[dict[str, object]]:
    pool = view.table.pool
    listed = {
        one.worker.id: one.worker for group in view.groups.values() for one in group.candidates
    }
    everyone = {worker.id: worker for worker in view.table.workers} | listed
    return [
        {
            "pool": f"{pool.namespace}/{pool.name}",
            "worker": worker.name or worker.id,
            "id": worker.id,
            "address": worker.address,
            "revision": worker.revision,
            "accelerator": worker.accelerator,
            "ready": worker.ready,
            "draining": worker.draining,
            "down": dispatcher.down.is_down(worker.id),
            "eligible": worker.id in listed,
            "score": worker.score,
            "trust": round(trust(dispatcher.proof.age_s(worker.score_age_s, now_s)), 3),
            "models": _models(view, worker.id, now_s),
        }
        for worker in everyone.values()
    ]


def _models(view: PoolView, worker: str, now_s: float) -> list[dict[str, object]]:
    return [
        {
            "model": model,
            "revision": revision,
            "limit": one.limit,
            "inFlight": one.slot.in_flight,
            "weight": round(one.weight, 4),
            "cost": round(pick.cost(one, now_s), 6),
            "ejected": one.slot.ejection.reason.value if one.slot.ejected else "",
            "slow": one.slot.slow,
        }
        for (revision, model), group in view.groups.items()
        for one in group.candidates
        if one.worker.id == worker
    ]


def preview(
    dispatcher: Dispatcher, pool: str, model: str, now_s: float
) -> dict[str, object] | None:
    """Return what a pick would be for each revision now, without sending anything."""
    uid = dispatcher.names.find(pool, model, bare_names=dispatcher.bare_names)
    view = dispatcher.view(uid, now_s) if isinstance(uid, str) else None
    if view is None:
        return None
    picks: dict[str, object] = {}
    for revision in view.servable(model, ""):
        found = pick.choose(
            view.group(revision, model).tiers,
            lambda one: (
                one.slot.in_flight < one.limit and not one.slot.shunned and one.health.usable(now_s)
            ),
            view.table.policy.top_k,
            dispatcher.uniform,
            now_s,
            view.table.policy.strategy,
        )
        picks[revision] = asdict(pick.pick_of(found)) if found else None
    owner = view.table.pool
    return {
        "pool": f"{owner.namespace}/{owner.name}",
        "model": model,
        "weights": view.revision_weights,
        "localAborts": {revision: abort.message for revision, abort in view.dropped.items()},
        "picks": picks,
    }


def model_ready(
    dispatcher: Dispatcher, pool: str, model: str, version: str, now_s: float
) -> bool | None:
    """Return whether a ready worker serves the model; None when nobody knows the model."""
    uid = dispatcher.names.find(pool, model, bare_names=dispatcher.bare_names)
    view = dispatcher.view(uid, now_s) if isinstance(uid, str) else None
    if view is None:
        return None
    return any(
        one.worker.ready and one.served.ready and not dispatcher.down.is_down(one.worker.id)
        for revision in view.servable(model, version)
        if view.revision_weights.get(revision, 0) > 0
        for one in view.group(revision, model).candidates
        if not version or one.served.version == version
    )


def worker_counts(dispatcher: Dispatcher) -> dict[str, int]:
    """Return how many workers are in each state; an ejected one is that for any of its models."""
    counts = {"usable": 0, "down": 0, "draining": 0, "ejected": 0, "notReady": 0}
    for view in dispatcher.pools.values():
        ejected = {one.worker.id for _, one in learn.ejected(view)}
        for worker in view.table.workers:
            if worker.draining:
                counts["draining"] += 1
            elif dispatcher.down.is_down(worker.id):
                counts["down"] += 1
            elif worker.id in ejected:
                counts["ejected"] += 1
            else:
                counts["usable" if worker.ready else "notReady"] += 1
    return counts
