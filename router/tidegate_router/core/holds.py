"""Requests that wait in the router: admission, their order, and whose turn it is.

One line per (pool UID, revision, model). A request joins by `stay`, which decides and sets until
when, and `park`. A free slot gives one of its line a turn (`wake_first`), which it uses (`served`)
or hands on (`kept`, `gave_up`). The turn is charged to its tier when it is given.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import RoutingPolicy
from tidegate_router.core import refusals
from tidegate_router.core.pools import Group
from tidegate_router.core.queue import admission
from tidegate_router.core.queue.drain import DrainRate
from tidegate_router.core.queue.fair import FairQueue, Waiting, Wake
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Queue, Route

DEFAULT_MAX_BYTES = 256 * 1024 * 1024
ENTRY_BYTES = 2048  # of a waiting request beside its body
_FORGET_S = 60.0


@dataclass(slots=True)
class Load:
    """What waits in one pool. `held`: for whom no worker exists, so one must be started."""

    requests: int = 0
    size_bytes: int = 0
    held: int = 0


@dataclass(slots=True)
class Line:
    """One queue. `spare`: more slots may be free, so whoever uses a turn gives the next one.

    `blocked` counts those who had their chance in this turn: the free slots are none for them
    (another version, a worker that failed them), so newcomers need not wait behind them.
    """

    fair: FairQueue = field(default_factory=FairQueue)
    drain: DrainRate = field(default_factory=DrainRate)
    p50_s: float = 0.01
    turn: int = 0
    blocked: int = 0
    spare: bool = False
    used_s: float = 0.0

    def new_turn(self) -> None:
        """Slots came free: everybody has a chance again. Those that blocked ones left still are."""
        self.spare = self.spare or self.blocked > 0
        self.turn += 1
        self.blocked = 0

    def wake_next(self) -> bool:
        """Give a turn to the next one; False when nobody is left for it."""
        one = self.fair.choose(self.turn, self.p50_s)
        if one is not None:
            one.wake()
        return one is not None


@dataclass(slots=True)
class HoldBook:
    """Everybody who waits in this router. `parked` is 0 while nobody does: the fast path's test."""

    max_bytes: int = DEFAULT_MAX_BYTES
    parked: int = 0
    size_bytes: int = 0
    _lines: dict[Queue, Line] = field(default_factory=dict)
    _loads: dict[str, Load] = field(default_factory=dict)

    def ahead(self, route: Route) -> bool:
        """Whether a newcomer must wait because somebody in its line could use a slot as well."""
        line = self._lines.get(route.queue)
        return line is not None and len(line.fair) > line.blocked

    def anyone(self, queue: Queue) -> bool:
        """Whether somebody waits."""
        line = self._lines.get(queue)
        return line is not None and len(line.fair) > 0

    def stay(
        self, route: Route, policy: RoutingPolicy, group: Group, now_s: float, *, up: bool = True
    ) -> Refusal | None:
        """Decide whether a request that has no worker waits on; set until when.

        Without any worker in existence it is held for noWorkersTTL. A retried request was admitted
        before, and one whose workers are all unreachable (not `up`) cannot be predicted: they wait
        for as long as they may.
        """
        route.held = not group.candidates
        if route.held:
            return self._hold(route, policy, now_s)
        if not route.hold_until_s:
            return self._admit(route, policy, group, now_s, up=up)
        if now_s < route.hold_until_s:
            return None
        if not up:
            return refusals.no_workers(route)
        late = route.deadline_s - group.p50_s <= route.hold_until_s
        reason = DroppedReason.DEADLINE if late else DroppedReason.SATURATED
        return refusals.crowded(route, reason, now_s - route.started_s)

    def _hold(self, route: Route, policy: RoutingPolicy, now_s: float) -> Refusal | None:
        new = not route.hold_until_s
        until_s = min(route.started_s + policy.queue.no_workers_ttl_s, route.deadline_s)
        route.hold_until_s = max(route.hold_until_s, until_s)
        if now_s >= route.hold_until_s:
            return refusals.no_workers(route)
        if not new:
            return None
        tier = admission.tier_of(policy, route.ask.tier)
        route.tier, route.weight = tier.name, tier.weight
        return self._guard(route, policy)

    def _admit(
        self, route: Route, policy: RoutingPolicy, group: Group, now_s: float, *, up: bool
    ) -> Refusal | None:
        tier = admission.tier_of(policy, route.ask.tier)
        route.tier, route.weight = tier.name, tier.weight
        predictable = up and route.attempts == 0
        measure = admission.longest_wait_s if predictable else admission.patient_wait_s
        wait_s = measure(policy, tier, group.p50_s)
        patience = admission.patience(wait_s, group.p50_s, route.deadline_s, now_s)
        route.hold_until_s = patience.until_s
        predicted_s = self._predicted_s(route, group, now_s) if predictable else 0.0
        if now_s + predicted_s > patience.until_s:
            return refusals.crowded(route, patience.reason, predicted_s)
        return self._guard(route, policy)

    def _predicted_s(self, route: Route, group: Group, now_s: float) -> float:
        """Return the wait: work ahead in the tier over the rate at which the tier is served."""
        line = self._measured(route, group, now_s)
        tier = line.fair.tier(route.tier, route.weight)
        if not (tier.members and tier.drain.opened):
            tier.drain.open(line.drain.per_s(now_s) * line.fair.share_ratio(tier), now_s)
        before = tier.before(route.hold_until_s)
        return admission.predicted_wait_s(
            before, tier.drain.per_s(now_s), overloaded=tier.departures.overloaded
        )

    def _measured(self, route: Route, group: Group, now_s: float) -> Line:
        """Return the line; the one who begins to wait begins the measurement of its drain."""
        line = self._lines.get(route.queue)
        if line is None:
            line = self._lines[route.queue] = Line()
        line.p50_s, line.used_s = group.p50_s, now_s
        if not (len(line.fair) and line.drain.opened):
            line.drain.open(group.slots / max(group.p50_s, 1e-6), now_s)
        return line

    def _guard(self, route: Route, policy: RoutingPolicy) -> Refusal | None:
        """Refuse what memory has no room for."""
        size_bytes = _size_bytes(route)
        load = self._loads.get(route.pool_uid) or Load()
        limits = policy.queue
        if (
            load.requests >= limits.max_requests
            or load.size_bytes + size_bytes > limits.max_bytes
            or self.size_bytes + size_bytes > self.max_bytes
        ):
            return refusals.queue_full(route, load.requests, load.size_bytes)
        return None

    def park(self, route: Route, wake: Wake) -> None:
        """Let a request wait; `wake` is called at most once, with route.woken set before."""
        line = self._lines.get(route.queue)
        if line is None:
            line = self._lines[route.queue] = Line()
        route.woken = False

        def turn() -> None:
            route.woken = True
            wake()

        one = Waiting(
            number=route.number,
            tier=route.tier,
            expires_s=route.hold_until_s,
            wake=turn,
            turn=route.blocked_turn,
        )
        line.fair.join(one, route.weight)
        line.blocked += one.turn == line.turn
        self._count(route, 1)

    def unpark(self, route: Route) -> None:
        """Take a request out, woken or not; twice is once."""
        line = self._lines.get(route.queue)
        one = line.fair.leave(route.tier, route.number) if line else None
        if line is None or one is None:
            return
        line.blocked -= one.turn == line.turn
        self._count(route, -1)

    def move(self, route: Route, policy: RoutingPolicy, group: Group, now_s: float) -> None:
        """Take a waiting request into the tier that its ask names now; its patience stays."""
        line = self._lines.get(route.queue)
        one = line.fair.find(route.tier, route.number) if line else None
        if line is None or one is None:
            return
        tier = admission.tier_of(policy, route.ask.tier)
        wait_s = admission.longest_wait_s(policy, tier, group.p50_s)
        line.fair.move(one, tier.name, tier.weight, now_s + wait_s)
        route.tier, route.weight = tier.name, tier.weight

    def _count(self, route: Route, change: int) -> None:
        load = self._loads.get(route.pool_uid)
        if load is None:
            load = self._loads[route.pool_uid] = Load()
        size_bytes = change * _size_bytes(route)
        load.requests += change
        load.size_bytes += size_bytes
        load.held += change if route.held else 0
        self.parked += change
        self.size_bytes += size_bytes

    def served(self, route: Route, now_s: float, *, woken: bool, took_slot: bool) -> None:
        """One who waited, and left, goes to a worker."""
        route.hold_until_s, route.blocked_turn, route.held = 0.0, -1, False
        line = self._lines.get(route.queue)
        if line is None:
            return
        line.drain.departed(now_s)
        line.fair.note(route.tier, now_s, served=True)
        if not woken:
            line.fair.charge(route.tier, line.p50_s)
        self._closed(line, now_s)
        if line.spare or not took_slot:
            line.spare = line.wake_next() and line.spare

    def kept(self, route: Route, *, woken: bool, room: bool) -> None:
        """One finds no slot and will park (again). `room`: some are free, but none for it."""
        line = self._lines.get(route.queue)
        if line is None:
            return
        route.blocked_turn = line.turn if room else -1
        if woken:
            line.fair.charge(route.tier, -line.p50_s)
            line.spare = room and line.wake_next() and line.spare

    def gave_up(self, route: Route, now_s: float, *, woken: bool) -> None:
        """One who waited is refused; a turn that it had goes to the next."""
        line = self._lines.get(route.queue)
        if line is None:
            return
        line.fair.note(route.tier, now_s, served=False)
        self._closed(line, now_s)
        if woken:
            self._hand_on(line, route)

    def abandoned(self, route: Route) -> None:
        """The client of one that had a turn left: the next one has it."""
        line = self._lines.get(route.queue)
        if line is not None:
            self._hand_on(line, route)

    def _hand_on(self, line: Line, route: Route) -> None:
        line.fair.charge(route.tier, -line.p50_s)
        line.wake_next()

    def _closed(self, line: Line, now_s: float) -> None:
        if not len(line.fair):
            line.drain.close(now_s)

    def wake_first(self, queue: Queue) -> None:
        """A slot is free: the next one may ask again."""
        line = self._lines.get(queue)
        if line is not None and len(line.fair):
            line.new_turn()
            line.wake_next()

    def wake_next(self, queue: Queue) -> None:
        """Go on with a turn: whoever had it left the line without using a slot."""
        line = self._lines.get(queue)
        if line is not None:
            line.wake_next()

    def stir(self, queue: Queue) -> None:
        """Several slots may be free: one asks after the other, until one finds none."""
        line = self._lines.get(queue)
        if line is not None and len(line.fair):
            line.new_turn()
            line.spare = True
            line.wake_next()

    def stir_all(self) -> None:
        """Tables or endpoints changed."""
        if self.parked:
            for queue in list(self._lines):
                self.stir(queue)

    def loads(self) -> Iterator[tuple[str, Load]]:
        """Yield what waits, by pool UID."""
        yield from ((uid, load) for uid, load in self._loads.items() if load.requests)

    def waiting(self) -> dict[str, int]:
        """Return how many wait, by pool UID."""
        return {uid: load.requests for uid, load in self.loads()}

    def forget(self, now_s: float) -> None:
        """Drop lines that nobody used for a minute."""
        self._lines = {
            queue: line
            for queue, line in self._lines.items()
            if len(line.fair) or now_s - line.used_s < _FORGET_S
        }
        self._loads = dict(self.loads())


def _size_bytes(route: Route) -> int:
    return route.size_bytes + ENTRY_BYTES
