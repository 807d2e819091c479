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
* `heard(attempt, now_s)` at a byte of an answer that is not its end: a worker that works on
  something without a byte for max(500 ms, 3 x p99) is ejected as silent.
* Call.INQUIRY (metadata, config, statistics) takes no slot and counts nothing, else it is the same.

The straight way of a request (one revision or a ticket, no pin, a free worker, a good answer) is
written out in plan, next_attempt, settle and finish: each call saved is 1 % of a decision's time
(tests/bench/bench_decide.py). Everything else takes the methods below them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tidegate_api.names import DroppedReason
from tidegate_api.routerstate import LocalAbort
from tidegate_api.routetable import RouteTableSpec
from tidegate_api.verdict import guard_broken
from tidegate_router.core import choosing, drawing, filters, learn, lookup, making, pick, refusals
from tidegate_router.core.canary import rescuer
from tidegate_router.core.down import DownBook
from tidegate_router.core.endpoints import Endpoint, EndpointBook, Pool
from tidegate_router.core.faults import FAILURES, Outcome
from tidegate_router.core.freshness import TRUSTED_S, ProofOfLife
from tidegate_router.core.guards import GuardBook
from tidegate_router.core.holds import HoldBook
from tidegate_router.core.learn import HealthKeeper
from tidegate_router.core.mirror import MirrorBook
from tidegate_router.core.pick import Uniform
from tidegate_router.core.pools import (
    EMPTY_GROUP,
    REBUILD_S,
    SURVEY_S,
    Group,
    PoolView,
    Situation,
    Slots,
)
from tidegate_router.core.queue.fair import Wake
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import (
    Ask,
    Attempt,
    Call,
    Choice,
    Ending,
    Route,
    Settled,
    Step,
    Wait,
)
from tidegate_router.core.retry import POISON_LOSSES, PoisonBook, is_last, may_retry
from tidegate_router.core.sequences import SequenceBook
from tidegate_router.core.series import Series, SeriesBook

# Members of an Enum are looked up by a descriptor in Python 3.11: ten times a global's time.
_OK, _INQUIRY = Outcome.OK, Call.INQUIRY
_FORWARD = Step.FORWARD
_NOBODY: frozenset[str] = frozenset()


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
    sequences: SequenceBook = field(default_factory=SequenceBook)
    keeper: HealthKeeper = field(default_factory=HealthKeeper)
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
        self.holds.stir_all()

    def apply_endpoints(self, pool: Pool, endpoints: Iterable[Endpoint], now_s: float) -> None:
        """Take all endpoints of a pool's EndpointSlices."""
        self.endpoints.replace(pool, endpoints, now_s)
        uid = self.names.pools.get("/".join(pool))
        if uid in self.pools:
            self.pools[uid].spoil()
        self.holds.stir_all()

    def plan(self, ask: Ask, now_s: float) -> Route | Refusal:
        """Find the pool and draw the revision, once for the whole request."""
        model = ask.model
        found = self.names.find(ask.pool, model, bare_names=self.bare_names)
        if isinstance(found, Refusal):
            return found
        view = self.pools.get(found)
        if view is None:
            return Refusal(DroppedReason.UNKNOWN_POOL, f"pool of model '{model}' is gone")
        if now_s >= view.due_s:
            self._look(view, now_s)
        pinned, counted = False, ask.call is not _INQUIRY
        if counted and not (ask.version or ask.sequence or view.table.pins):
            servable = view.models.get(model, ())
            revision = view.draw.draw(view.revision_weights, servable, self.uniform)
        else:
            drawn = drawing.draw(ask, view, self.sequences, self.uniform, now_s)
            if isinstance(drawn, Refusal):
                return drawn
            revision, pinned = drawn.revision, drawn.pinned
        if revision is None:
            return refusals.weightless(view.table.pool)
        if ask.body_hash and self.poison.suspected((found, revision, model, ask.body_hash), now_s):
            return refusals.poisoned(revision)
        group = view.groups.get((revision, model), EMPTY_GROUP)
        if group.decoupled or group.worthless:
            refused = drawing.refused(ask, view, group)
            if refused is not None:
                return refused
        self._arrivals += 1
        view.in_flight += counted
        route = making.route(ask, view, group, revision, self._arrivals, now_s)
        route.pinned = pinned
        return route

    def next_attempt(self, route: Route, now_s: float) -> Attempt | Wait | Refusal:
        """Choose a worker and take a slot there, or say until when to wait, or why not."""
        woken, route.woken = route.woken, False
        if now_s >= route.deadline_s:
            return self._give_up(route, refusals.too_late(route), now_s, woken=woken)
        view = self.pools.get(route.pool_uid)
        if view is None:
            return self._give_up(route, refusals.no_workers(route), now_s, woken=woken)
        if now_s >= view.due_s:
            self._look(view, now_s)
        ask, waits = route.ask, self.holds.parked or route.hold_until_s
        if not (route.attempts or waits or route.sequence or ask.version) and (
            ask.call is not _INQUIRY
        ):
            group = view.groups.get((route.revision, ask.model), EMPTY_GROUP)
            choice = choosing.trial(group, route, now_s) if group.trials else None
            if choice is None:
                policy = view.table.policy
                choice = pick.choose(
                    group.tiers, None, policy.top_k, self.uniform, now_s, policy.strategy
                )
            if choice is not None:
                return self._begin(route, view, choice, now_s)
        return self._next_slowly(route, view, woken=woken, now_s=now_s)

    def _next_slowly(
        self, route: Route, view: PoolView, *, woken: bool, now_s: float
    ) -> Attempt | Wait | Refusal:
        """Choose for a request that waited, waits behind others, or is not the plainest."""
        before = route.queue if woken else None
        self._rescue_stranded(route, view, now_s)
        if before is not None and before != route.queue:
            self.holds.wake_next(before)  # those behind it are stranded as well
            woken = False
        group = view.group(route.revision, route.ask.model)
        if route.hold_until_s and not route.attempts and now_s + group.p50_s > route.deadline_s:
            return self._give_up(route, refusals.hopeless(route), now_s, woken=woken)
        if self.holds.parked and self._lets_others_go_first(route):
            refused = self.holds.stay(route, view.table.policy, group, now_s)
            return refused or Wait(route.hold_until_s)
        choice = self._choose(route, view, group, now_s)
        if choice is None:
            return self._without_candidate(route, view, group, woken=woken, now_s=now_s)
        attempt = self._begin(route, view, choice, now_s)
        if route.hold_until_s:
            self.holds.served(route, now_s, woken=woken, took_slot=attempt.slot is not None)
        return attempt

    def _lets_others_go_first(self, route: Route) -> bool:
        """Whether a newcomer waits behind others. Inquiries take no slot, retries were first."""
        newcomer = route.attempts == 0 and not route.hold_until_s
        return newcomer and route.ask.call is not _INQUIRY and self.holds.ahead(route)

    def _give_up(self, route: Route, refusal: Refusal, now_s: float, *, woken: bool) -> Refusal:
        """Refuse a request; if it waited, its line learns of it and its turn goes on."""
        if route.hold_until_s:
            self.holds.gave_up(route, now_s, woken=woken)
        return refusal

    def _choose(self, route: Route, view: PoolView, group: Group, now_s: float) -> Choice | None:
        if not route.sequence:
            return choosing.by_strategy(view, group, route, self.uniform, now_s)
        found = choosing.in_sequence(self.sequences, group, route, now_s)
        return found[1] if found is not None else None

    def _rescue_stranded(self, route: Route, view: PoolView, now_s: float) -> None:
        """Give a request whose canary has nobody left to try to stable.

        A canary that still has weight failed it even if nobody was asked: that counts like a
        connect error. One without was taken away meanwhile, which is no failure of its own.
        """
        weights = view.revision_weights
        if route.rescued or route.pinned or (len(weights) == 1 and route.revision in weights):
            return
        if route.sequence:
            return  # its state is where it is; a new one was drawn among those that can take it
        mine = view.group(route.revision, route.ask.model).candidates
        if choosing.anyone(mine, "", now_s, route.tried) or not self._rescue(route, view, now_s):
            return
        counted = weights.get(route.drawn, 0) > 0 and route.ask.call is not Call.INQUIRY
        if route.attempts == 0 and counted:
            route.accelerator = mine[0].worker.accelerator if mine else ""
            self.series.of(making.series_key(route, route.drawn)).count_attempt(
                Outcome.UNREACHABLE, 0.0
            )

    def _rescue(self, route: Route, view: PoolView, now_s: float) -> bool:
        """Move a canary's request to stable if that has a usable worker; a pinned one stays."""
        if route.rescued or route.pinned:
            return False
        stable = rescuer(route.revision, view.revision_weights, view.guarded)
        if stable is None:
            return False
        if not choosing.anyone(view.group(stable, route.ask.model).ready, "", now_s):
            return False
        route.revision = stable
        route.tried = _NOBODY  # of workers that may serve both revisions
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
            self.holds.abandoned(route)

    def heard(self, attempt: Attempt, now_s: float) -> None:
        """Note a byte of an attempt's answer: the worker is not silent."""
        learn.heard(attempt.choice.candidate, now_s)

    def settle(self, route: Route, attempt: Attempt, ending: Ending, now_s: float) -> Settled:
        """Learn from an attempt's end and decide what follows."""
        outcome = route.last_outcome = ending.outcome
        route.upstream_s += ending.latency_s
        candidate = attempt.choice.candidate
        slot, health = candidate.slot, candidate.health
        if (
            outcome is _OK
            and not (slot.failures_in_row or slot.ejected or slot.slow or attempt.trial)
            and not (health.losses or health.down)
            and attempt.started_s >= slot.valid_s
            and route.ask.call is not _INQUIRY
        ):
            latency_s, second = ending.latency_s, int(now_s)
            slot.latency.record(latency_s, now_s)
            slot.heard_s = now_s
            tally, peers = slot.tally, slot.peers
            if tally.second != second:
                tally.turn(second)
            if peers.second != second:
                peers.turn(second)
            tally.ok += 1
            peers.ok += 1
            if not route.pinned and route.revision == route.drawn:
                series = slot.series or self._series_of(route, attempt)
                series.count_attempt(_OK, latency_s)
            return _FORWARD
        self._learn(route, attempt, ending, now_s)
        return self._follow(route, attempt, ending, now_s) if outcome in FAILURES else _FORWARD

    def _follow(self, route: Route, attempt: Attempt, ending: Ending, now_s: float) -> Settled:
        """Decide what follows a failed attempt."""
        outcome = ending.outcome
        route.last_fault = f"{attempt.worker_name}: {ending.detail or outcome.value}"
        if outcome is not Outcome.UNREACHABLE:  # that one is down: it may come back in time
            route.tried |= {attempt.worker_id}
        if outcome is Outcome.LOST:
            route.losses += 1
            if route.losses >= POISON_LOSSES:
                self.poison.suspect((*route.queue, route.ask.body_hash), now_s)
                return refusals.poisoned(route.drawn)
        view = self.pools.get(route.pool_uid)
        if view is not None and may_retry(route, outcome, view.budget, now_s, trial=attempt.trial):
            if is_last(route, outcome):
                self._rescue(route, view, now_s)
            return Step.RETRY
        return refusals.exhausted(route, outcome)

    def release(self, attempt: Attempt) -> None:
        """Free the slot, once the worker has stopped working on the attempt."""
        slot = attempt.slot
        if slot is None:
            return
        attempt.slot = None
        slot.in_flight -= 1
        if attempt.stream:
            slot.streams -= 1
        if self.holds.parked:
            self.holds.wake_first((attempt.pool_uid, attempt.revision, attempt.model))

    def finish(self, route: Route, now_s: float) -> None:
        """Count the request's end as its client saw it; once per route."""
        if route.finished:
            return
        route.finished = True
        view = self.pools.get(route.pool_uid)
        if view is None or route.ask.call is _INQUIRY:
            return
        started_s = route.started_s
        if started_s >= view.since_s:  # an older one was counted by a table that went away
            view.in_flight -= 1
        series = route.slot.series if route.slot and route.revision == route.drawn else None
        if series is None:
            series = self.series.of(making.series_key(route, route.drawn))
        series.count_request(now_s - started_s, answered=route.last_outcome is _OK)

    def explain(self, route: Route, attempt: Attempt) -> str:
        """Return one line that says why this worker: the value of HEADER_EXPLAIN."""
        why = " pinned=true" if route.pinned else ""
        why += f" drawn={route.drawn}" if route.rescued else ""
        return (
            f"pool={route.namespace}/{route.pool} revision={route.revision}{why} "
            f"attempt={attempt.number} chose={attempt.worker_name} {pick.explain(attempt.choice)}"
        )

    def view(self, uid: str, now_s: float) -> PoolView | None:
        """Return a pool's view, rebuilt if it is older than a second."""
        view = self.pools.get(uid)
        if view is not None and now_s >= view.due_s:
            self._look(view, now_s)
        return view

    def _look(self, view: PoolView, now_s: float) -> None:
        """Rebuild a view that is a second old; look at the health of its workers more often."""
        if view.built_s is None or now_s - view.built_s >= REBUILD_S:
            view.rebuild(self._situation(view.table, now_s), self._slots, self.series, now_s)
        self.keeper.survey(view, now_s)
        view.due_s = now_s + SURVEY_S

    def tick(self, now_s: float) -> list[LocalAbort]:
        """Once a second: forget what is gone; return the canaries that broke their guard now."""
        living = {worker.id for view in self.pools.values() for worker in view.table.workers}
        self.endpoints.forget_except(living)
        living |= self.endpoints.pods()
        self.down.forget_except(living)
        self.series.forget_except(set(self.pools))
        self.mirrors.forget_except(set(self.pools))
        self.sequences.forget(now_s)
        self.holds.forget(now_s)
        self.poison.forget(now_s)
        self._slots = {
            key: slot for key, slot in self._slots.items() if key[0] in living or slot.in_flight
        }
        for uid in self.pools:
            self.view(uid, now_s)
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
        workers, leaving = self.endpoints.usable(pool, table, now_s)
        return Situation(
            workers=workers,
            leaving=leaving,
            down=self.down,
            trusts=self.proof.trusts({one.id: one.score_age_s for one in workers}, now_s),
            share=filters.share_of(self.instance, table.routers),
        )

    def _begin(self, route: Route, view: PoolView, choice: Choice, now_s: float) -> Attempt:
        if route.attempts == 0:
            view.budget.note_request(now_s)
            route.queue_s = now_s - route.started_s
            route.deadline_s = min(route.deadline_s, now_s + route.timeout_s)
        attempt = making.attempt(route, choice, now_s)
        candidate = choice.candidate
        if candidate.slot.ejected or candidate.slot.suspect or candidate.health.down:
            making.as_trial(route, attempt, view.group(route.revision, route.ask.model), now_s)
        return attempt

    def _without_candidate(
        self, route: Route, view: PoolView, group: Group, *, woken: bool, now_s: float
    ) -> Wait | Refusal:
        """Nobody can take it now: wait while somebody may soon, else refuse."""
        left = [one for one in group.candidates if one.worker.id not in route.tried]
        if group.candidates and not left:
            refused = refusals.exhausted(route, route.last_outcome)
            return self._give_up(route, refused, now_s, woken=woken)
        up = [one for one in left if not one.health.down]
        waited = bool(route.hold_until_s)
        stayed = self.holds.stay(route, view.table.policy, group, now_s, up=bool(up))
        if stayed is not None:
            return self._give_up(route, stayed, now_s, woken=woken) if waited else stayed
        self.holds.kept(route, woken=woken, room=choosing.room(up))
        back_s = [self.down.back_at_s(one.worker.id) for one in left]
        back_s.append(choosing.slow_from_s(group, route))
        later_s = (at_s for at_s in back_s if at_s is not None and at_s > now_s)
        return Wait(min([route.hold_until_s, *later_s]))

    def _learn(self, route: Route, attempt: Attempt, ending: Ending, now_s: float) -> None:
        """Take an end that is not the plainest."""
        outcome = ending.outcome
        if route.ask.call is _INQUIRY:
            learn.reach(attempt, outcome, now_s)
            self._stir_after_trial(attempt)
            return
        view = self.pools.get(route.pool_uid)
        spent_s = now_s - attempt.started_s if outcome is Outcome.TIMEOUT else ending.latency_s
        self.keeper.learn(view, attempt, outcome, spent_s, now_s)
        self._stir_after_trial(attempt)
        if not (route.pinned or route.rescued):
            self._series_of(route, attempt).count_attempt(outcome, ending.latency_s)

    def _stir_after_trial(self, attempt: Attempt) -> None:
        """A worker that is back has all its other slots free as well."""
        candidate = attempt.choice.candidate
        if attempt.trial and not (candidate.health.down or candidate.slot.shunned):
            self.holds.stir((attempt.pool_uid, attempt.revision, attempt.model))

    def _series_of(self, route: Route, attempt: Attempt) -> Series:
        """Return what an attempt is counted in, and remember it in its slot."""
        series = self.series.of(making.series_key(route, route.revision))
        attempt.choice.candidate.slot.series = series
        return series
