"""The decision core of every lane: which worker a request goes to, and what follows its end.

A lane (HTTP, gRPC) drives one request like this; all calls are synchronous and cheap, `now_s` is
the lane's monotonic clock:

    route = dispatcher.plan(Ask(model=..., ...), now_s)        # Route | Refusal
    while True:
        attempt = dispatcher.next_attempt(route, now_s)        # Attempt | Wait | Refusal
        # Wait: dispatcher.park(route, wake), await the wake-up or wait.until_s, unpark, ask again.
        # tidegate_router.lane.acquire() does these two lines for both lanes.
        ... send to attempt.address:attempt.http_port / grpc_port within attempt.timeout_s ...
        step = dispatcher.settle(route, attempt, Ending(...), now_s)   # Step | Refusal
        dispatcher.release(attempt)                            # once the *worker* has stopped
        if step is not Step.RETRY: break
    dispatcher.finish(route, now_s)                            # exactly once, in a finally

Rules for a lane
* `faults.judge_http` / `judge_grpc` turn a worker's answer into Ending.outcome. Transport faults:
  no connection -> UNREACHABLE; broken after the first byte sent -> LOST; attempt.timeout_s over ->
  TIMEOUT; client left -> CANCELLED.
* `settle` once per attempt. FORWARD: pass on the worker's answer as it is. A Refusal: answer
  refusal.http_status / grpc_code with header names.HEADER_DROPPED_REASON. RETRY: go round.
* A stream calls `route.answered = True` before its first byte to the client: nothing is retried
  from then on.
* `release` frees the slot and is idempotent. It comes later than `settle` when the worker goes on
  computing after the client left or the attempt's time was over (HTTP cannot cancel).
* Answers carry HEADER_WORKER (attempt.worker_name), HEADER_REVISION (attempt.revision) and
  HEADER_ATTEMPTS (route.attempts). `explain(route, attempt)` gives HEADER_EXPLAIN's value.
* Call.INQUIRY (metadata, config, statistics) takes no slot and counts nothing, else it is the same.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from tidegate_api.names import DroppedReason
from tidegate_api.routerstate import LocalAbort
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.verdict import guard_broken
from tidegate_router.core import filters, lookup, pick, refusals
from tidegate_router.core.canary import pick_by_weight, rescuer
from tidegate_router.core.down import DownBook
from tidegate_router.core.endpoints import Endpoint, EndpointBook, Pool
from tidegate_router.core.faults import FAILURES, Outcome
from tidegate_router.core.freshness import TRUSTED_S, ProofOfLife, trust
from tidegate_router.core.guards import GuardBook
from tidegate_router.core.holds import MAX_HOLD_S, HoldBook, Wake
from tidegate_router.core.mirror import MirrorBook
from tidegate_router.core.pick import Candidate, Uniform
from tidegate_router.core.pins import pinned_revisions
from tidegate_router.core.pools import REBUILD_S, Group, PoolView, Situation, Slots
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import (
    Ask,
    Attempt,
    Call,
    Ending,
    Pick,
    Route,
    Settled,
    Slot,
    Step,
    Wait,
)
from tidegate_router.core.retry import POISON_LOSSES, PoisonBook, is_last, may_retry
from tidegate_router.core.series import SeriesBook, SeriesKey


@dataclass(slots=True)
class Dispatcher:
    """All state of one router that decisions read. `instance` names this process in tables.

    `uniform` returns floats in [0, 1). `bare_names`: whether a request may leave its pool out.
    """

    instance: str
    uniform: Uniform
    bare_names: bool = True
    names: lookup.NameIndex = field(default_factory=lookup.NameIndex)
    pools: dict[str, PoolView] = field(default_factory=dict)
    endpoints: EndpointBook = field(default_factory=EndpointBook)
    proof: ProofOfLife = field(default_factory=ProofOfLife)
    down: DownBook = field(default_factory=DownBook)
    holds: HoldBook = field(default_factory=HoldBook)
    poison: PoisonBook = field(default_factory=PoisonBook)
    series: SeriesBook = field(default_factory=SeriesBook)
    guards: GuardBook = field(default_factory=GuardBook)
    mirrors: MirrorBook = field(default_factory=MirrorBook)
    _slots: Slots = field(default_factory=dict)
    _arrivals: int = 0

    def apply(
        self, tables: dict[str, RouteTableSpec], changed: Iterable[str], now_s: float
    ) -> None:
        """Take the applied tables (by pool UID) after those of `changed` pools did so."""
        first = not self.pools
        for uid in changed:
            table = tables.get(uid)
            if table is None:
                self.pools.pop(uid, None)
                continue
            view = self.pools.get(uid)
            if view is None:
                view = self.pools[uid] = PoolView(table, since_s=now_s)
                view.join(table, now_s, first=True)
            else:
                view.join(table, now_s, first=first)
            self.endpoints.note_table(table, now_s)
        self.names = lookup.build(tables.values(), self.names)
        self.holds.wake_all()

    def apply_endpoints(self, pool: Pool, endpoints: Iterable[Endpoint], now_s: float) -> None:
        """Take all endpoints of a pool's EndpointSlices."""
        self.endpoints.replace(pool, endpoints, now_s)
        uid = self.names.pools.get("/".join(pool))
        if uid in self.pools:
            self.pools[uid].built_s = None
        self.holds.wake_all()

    def plan(self, ask: Ask, now_s: float) -> Route | Refusal:
        """Find the pool and draw the revision, once for the whole request."""
        found = self.names.find(ask.pool, ask.model, bare_names=self.bare_names)
        if isinstance(found, Refusal):
            return found
        if self.poison.suspected(ask.body_hash, now_s):
            return refusals.poisoned()
        view = self.view(found, now_s)
        if view is None:
            return Refusal(DroppedReason.UNKNOWN_POOL, f"pool of model '{ask.model}' is gone")
        servable = view.servable(ask.model, ask.version)
        if ask.version and not servable and view.servable(ask.model, ""):
            text = f"model '{ask.model}' has no version {ask.version}"
            return Refusal(DroppedReason.UNKNOWN_MODEL, text)
        pin = self._pin(ask, view, now_s)
        revision = pin or self._draw(ask, view, servable)
        if revision is None:
            text = f"pool {lookup.full_name(view.table.pool)} has no revision with weight"
            return Refusal(DroppedReason.NO_WORKERS, text, refusals.RETRY_AFTER_S)
        if refused := refusals.wrong_call(ask, view.group(revision, ask.model)):
            return refused
        if ask.call is not Call.INQUIRY:
            view.in_flight += 1
        pinned = pin is not None or bool(ask.version)
        return self._route(ask, view, revision, now_s, pinned=pinned)

    def _pin(self, ask: Ask, view: PoolView, now_s: float) -> str | None:
        """Return the revision that the request's headers ask for, if a worker of it is usable."""
        for revision in pinned_revisions(view.table.pins, ask.given):
            ready = view.group(revision, ask.model).ready
            if self._anyone(ready, ask.version, now_s):
                return revision
        return None

    def _draw(self, ask: Ask, view: PoolView, servable: list[str]) -> str | None:
        """Return the revision; only what analysis counts spends a ticket."""
        weights = view.revision_weights
        if ask.call is Call.INQUIRY or ask.version:
            return pick_by_weight(weights, servable, self.uniform) or pick_by_weight(
                weights, weights, self.uniform
            )
        return view.draw.draw(weights, servable, self.uniform)

    def _anyone(
        self,
        candidates: Iterable[Candidate],
        version: str,
        now_s: float,
        tried: Collection[str] = (),
    ) -> bool:
        """Whether a worker that was not tried yet may be sent something, now or once it is free."""
        return any(
            one.worker.id not in tried
            and (not version or one.served.version == version)
            and self.down.usable(one.worker.id, now_s)
            for one in candidates
        )

    def next_attempt(self, route: Route, now_s: float) -> Attempt | Wait | Refusal:
        """Choose a worker and take a slot there, or say until when to wait, or why not."""
        woken, route.woken = route.woken, False
        if now_s >= route.deadline_s:
            return refusals.too_late(route)
        view = self.view(route.pool_uid, now_s)
        if view is None:
            return refusals.no_workers(route)
        self._rescue_stranded(route, view, now_s)
        group = view.group(route.revision, route.ask.model)
        patient = route.attempts == 0 and not woken
        if not (patient and route.ask.call is not Call.INQUIRY and self.holds.ahead(route)):
            found = pick.choose(
                group.tiers,
                lambda candidate: self._allowed(candidate, route, now_s),
                view.table.policy.top_k,
                self.uniform,
                now_s,
            )
            if found is not None:
                return self._begin(route, view, *found, now_s)
        return self._without_candidate(route, view, group, woken=woken, now_s=now_s)

    def _rescue_stranded(self, route: Route, view: PoolView, now_s: float) -> None:
        """Give a request whose canary has nobody left to try to stable.

        A canary that still has weight failed it even if nobody was asked: that counts like a
        connect error. One without was taken away meanwhile, which is no failure of its own.
        """
        weights = view.revision_weights
        if route.rescued or route.pinned or (len(weights) == 1 and route.revision in weights):
            return
        mine = view.group(route.revision, route.ask.model).candidates
        if self._anyone(mine, "", now_s, route.tried) or not self._rescue(route, view, now_s):
            return
        counted = weights.get(route.drawn, 0) > 0 and route.ask.call is not Call.INQUIRY
        if route.attempts == 0 and counted:
            route.accelerator = mine[0].worker.accelerator if mine else ""
            self.series.of(_series_key(route, route.drawn)).count_attempt(Outcome.UNREACHABLE, 0.0)

    def _rescue(self, route: Route, view: PoolView, now_s: float) -> bool:
        """Move a canary's request to stable if that has a usable worker; a pinned one stays."""
        if route.rescued or route.pinned:
            return False
        stable = rescuer(route.revision, view.revision_weights, view.guarded)
        if stable is None:
            return False
        if not self._anyone(view.group(stable, route.ask.model).ready, "", now_s):
            return False
        route.revision = stable
        route.tried.clear()  # of workers that may serve both revisions
        return True

    def park(self, route: Route, wake: Wake) -> None:
        """Let a request wait in its queue; `wake` is called at most once, from within a call."""
        self.holds.park(route, wake)

    def unpark(self, route: Route) -> None:
        """Take a request out of its queue, woken or timed out."""
        self.holds.unpark(route)

    def abandon(self, route: Route) -> None:
        """Take a request out whose client left; a wake-up that it had goes to the next."""
        self.holds.unpark(route)
        if route.woken:
            self.holds.wake_first(route.queue)

    def settle(self, route: Route, attempt: Attempt, ending: Ending, now_s: float) -> Settled:
        """Learn from an attempt's end and decide what follows."""
        outcome = route.last_outcome = ending.outcome
        route.upstream_s += ending.latency_s
        self._learn(route, attempt, ending, now_s)
        if outcome not in FAILURES:
            return Step.FORWARD
        route.last_fault = f"{attempt.worker_name}: {ending.detail or outcome.value}"
        if outcome is not Outcome.UNREACHABLE:  # that one is down: it may come back in time
            route.tried.add(attempt.worker_id)
        if outcome is Outcome.LOST:
            route.losses += 1
            if route.losses >= POISON_LOSSES:
                self.poison.suspect(route.ask.body_hash, now_s)
                return refusals.poisoned()
        view = self.pools.get(route.pool_uid)
        if view is not None and may_retry(route, outcome, view.budget, now_s):
            if is_last(route, outcome):
                self._rescue(route, view, now_s)
            return Step.RETRY
        return refusals.exhausted(route, outcome)

    def release(self, attempt: Attempt) -> None:
        """Free the slot, once the worker has stopped working on the attempt."""
        slot, attempt.slot = attempt.slot, None
        if slot is not None:
            slot.in_flight -= 1
            self.holds.wake_first((attempt.pool_uid, attempt.revision, attempt.model))

    def finish(self, route: Route, now_s: float) -> None:
        """Count the request's end as its client saw it; once per route."""
        if route.finished:
            return
        route.finished = True
        if route.ask.call is Call.INQUIRY or route.pool_uid not in self.pools:
            return
        view = self.pools[route.pool_uid]
        if route.started_s >= view.since_s:  # an older one was counted by a table that went away
            view.in_flight -= 1
        series = self.series.of(_series_key(route, route.drawn))
        series.count_request(now_s - route.started_s, answered=route.last_outcome is Outcome.OK)

    def explain(self, route: Route, attempt: Attempt) -> str:
        """Return one line that says why this worker: the value of HEADER_EXPLAIN."""
        why = " pinned=true" if route.pinned else ""
        why += f" drawn={route.drawn}" if route.rescued else ""
        return (
            f"pool={route.namespace}/{route.pool} revision={route.revision}{why} "
            f"attempt={attempt.number} chose={attempt.worker_name} {pick.explain(attempt.pick)}"
        )

    def view(self, uid: str, now_s: float) -> PoolView | None:
        """Return a pool's view, rebuilt if it is older than a second."""
        view = self.pools.get(uid)
        if view is None:
            return None
        if view.built_s is None or now_s - view.built_s >= REBUILD_S:
            view.rebuild(self._situation(view.table, now_s), self._slots, self.series, now_s)
        return view

    def tick(self, now_s: float) -> list[LocalAbort]:
        """Once a second: forget what is gone; return the canaries that broke their guard now."""
        living = {worker.id for view in self.pools.values() for worker in view.table.workers}
        self.endpoints.forget_except(living)
        living |= self.endpoints.pods()
        self.down.forget_except(living)
        self.series.forget_except(set(self.pools))
        self.mirrors.forget_except(set(self.pools))
        self._slots = {
            key: slot for key, slot in self._slots.items() if key[0] in living or slot.in_flight
        }
        return self._drop_canaries(now_s)

    def _drop_canaries(self, now_s: float) -> list[LocalAbort]:
        """Judge each guard while the operator is silent; readings are taken all the time."""
        aborts: list[LocalAbort] = []
        silent = self.proof.silence_s(now_s) > TRUSTED_S
        for uid, view in self.pools.items():
            for guard in view.table.guards:
                reading = self.series.reading(uid, guard.revision)
                seen = self.guards.window((uid, guard.revision), guard, reading, now_s)
                if not silent or view.revision_weights.get(guard.revision, 0) == 0:
                    continue
                if reason := guard_broken(guard, seen.ok, seen.failed, seen.latency):
                    aborts.append(view.drop(guard.revision, reason))
        self.guards.forget_except(
            {(uid, revision) for uid, view in self.pools.items() for revision in view.guarded}
        )
        return aborts

    def _situation(self, table: RouteTableSpec, now_s: float) -> Situation:
        pool = (table.pool.namespace, table.pool.name)
        workers = [
            worker
            for worker in table.workers
            if filters.usable(worker, gone=self.endpoints.gone(pool, worker, now_s))
        ]
        workers += self.endpoints.unlisted(pool, table, now_s)
        return Situation(
            workers=workers,
            trusts={
                worker.id: trust(self.proof.age_s(worker.score_age_s, now_s)) for worker in workers
            },
            share=filters.share_of(self.instance, table.routers),
        )

    def _route(
        self, ask: Ask, view: PoolView, revision: str, now_s: float, *, pinned: bool
    ) -> Route:
        table, self._arrivals = view.table, self._arrivals + 1
        policy = table.policy
        timeout_s = min(policy.timeout_s, ask.timeout_s or policy.timeout_s)
        return Route(
            ask=ask,
            number=self._arrivals,
            pool_uid=table.pool.uid,
            namespace=table.pool.namespace,
            pool=table.pool.name,
            revision=revision,
            drawn=revision,
            pinned=pinned,
            started_s=now_s,
            deadline_s=now_s + timeout_s,
            hold_until_s=now_s + min(timeout_s, MAX_HOLD_S),
            retry=policy.retry,
        )

    def _allowed(self, candidate: Candidate, route: Route, now_s: float) -> bool:
        ask, worker = route.ask, candidate.worker.id
        return (
            (candidate.slot.in_flight < candidate.limit or ask.call is Call.INQUIRY)
            and worker not in route.tried
            and (not ask.version or candidate.served.version == ask.version)
            and self.down.usable(worker, now_s)
        )

    def _begin(
        self, route: Route, view: PoolView, candidate: Candidate, why: Pick, now_s: float
    ) -> Attempt:
        worker, counted = candidate.worker, route.ask.call is not Call.INQUIRY
        if route.attempts == 0:
            view.budget.note_request(now_s)
            route.queue_s = now_s - route.started_s
        route.attempts += 1
        route.accelerator, route.worker = worker.accelerator, worker.name or worker.id
        route.idempotent = filters.repeatable(candidate.served)
        candidate.slot.in_flight += counted
        if self.holds.anyone(route.queue) and self._room(view.group(*route.queue[1:]).candidates):
            self.holds.wake_first(route.queue)  # more than one slot was free
        left_s = route.deadline_s - now_s
        return Attempt(
            number=route.attempts,
            pool_uid=route.pool_uid,
            worker_id=worker.id,
            worker_name=worker.name or worker.id,
            address=worker.address,
            http_port=worker.ports.http,
            grpc_port=worker.ports.grpc,
            revision=route.revision,
            accelerator=worker.accelerator,
            model=route.ask.model,
            loaded_as=candidate.served.loaded_as or "",
            timeout_s=min(left_s, route.retry.per_try_timeout_s or left_s),
            started_s=now_s,
            pick=why,
            trial=self.down.begin(worker.id),
            slot=candidate.slot if counted else None,
        )

    def _room(self, candidates: Iterable[Candidate]) -> bool:
        """Whether somebody who is up has a free slot."""
        return any(
            one.slot.in_flight < one.limit and not self.down.is_down(one.worker.id)
            for one in candidates
        )

    def _without_candidate(
        self, route: Route, view: PoolView, group: Group, *, woken: bool, now_s: float
    ) -> Wait | Refusal:
        """Nobody can take it now: wait while somebody may soon, else refuse."""
        if not group.candidates and not _expected(view.table, route):
            return refusals.no_workers(route)
        left = [one for one in group.candidates if one.worker.id not in route.tried]
        if group.candidates and not left:
            return refusals.exhausted(route, route.last_outcome)
        up = [one for one in left if not self.down.is_down(one.worker.id)]
        if now_s >= route.hold_until_s or self.holds.full(route.queue):
            return refusals.saturated(route) if up else refusals.no_workers(route)
        if woken and self._room(up):
            self.holds.wake_first(route.queue)  # a slot is free that is none for this request
        back_s = (self.down.back_at_s(one.worker.id) for one in left)
        later_s = (at_s for at_s in back_s if at_s is not None and at_s > now_s)
        return Wait(min([route.hold_until_s, *later_s]))

    def _learn(self, route: Route, attempt: Attempt, ending: Ending, now_s: float) -> None:
        outcome, worker = ending.outcome, attempt.worker_id
        if outcome is Outcome.UNREACHABLE:
            self.down.unreachable(worker, now_s)
        elif outcome is Outcome.LOST:
            self.down.lost(worker, now_s)
        elif outcome in {Outcome.TIMEOUT, Outcome.CANCELLED}:
            self.down.ended_otherwise(worker)
        else:
            self.down.answered(worker)
        if route.ask.call is Call.INQUIRY:
            return
        latency = self._slots.setdefault((worker, attempt.revision, attempt.model), Slot()).latency
        view = self.pools.get(route.pool_uid)
        if outcome is Outcome.OK:
            latency.record(ending.latency_s, now_s)
        elif view is not None and outcome in FAILURES | {Outcome.MODEL_ERROR}:
            latency.record_failure(view.group(attempt.revision, attempt.model).p95_s, now_s)
        if not (route.pinned or route.rescued):
            self.series.of(_series_key(route, route.revision)).count_attempt(
                outcome, ending.latency_s
            )


def _series_key(route: Route, revision: str) -> SeriesKey:
    return SeriesKey(
        uid=route.pool_uid,
        namespace=route.namespace,
        pool=route.pool,
        revision=revision,
        model=route.ask.model,
        accelerator=route.accelerator,
    )


def _expected(table: RouteTableSpec, route: Route) -> bool:
    """Whether the table still counts on a worker for this: it may only be on its way."""
    return any(
        not worker.draining and served.revision == route.revision
        for worker in table.workers
        for served in worker.serves
        if served.model == route.ask.model
    )
