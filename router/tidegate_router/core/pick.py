"""Choice of a worker (router.md section 3), by the pool's strategy.

Scored, the default: draw topK distinct candidates by effective weight, then choose one of them at
random with weight 1 / cost^3, cost = (in flight + 1) x peak EWMA / w. Published scores thus shift
the odds and never decide alone: choosing the best of scores that are 1 s old is worse than
choosing at random.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tidegate_api.names import Strategy
from tidegate_router.core.alias import AliasTable
from tidegate_router.core.candidate import Candidate
from tidegate_router.core.request import Choice, Considered, Pick

_SCAN_UP_TO = 8  # groups this small are looked through whole
_TRIES_PER_DRAW = 4
_SHORTEST_S = 50e-6
_HALF = 0.5
Uniform = Callable[[], float]
Allowed = Callable[[Candidate], bool]


@dataclass(slots=True)
class Turn:
    """Whose turn it is; outlives rebuilds."""

    number: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """Candidates up to one soft level, with the table that draws from them."""

    level: int
    candidates: tuple[Candidate, ...]
    alias: AliasTable
    turn: Turn = field(default_factory=Turn)


def choose(
    tiers: Sequence[Tier],
    allowed: Allowed | None,
    top_k: int,
    uniform: Uniform,
    now_s: float,
    strategy: Strategy = Strategy.SCORED,
) -> Choice | None:
    """Return the choice from the strictest tier that has an allowed candidate, and why.

    Without `allowed`, everybody is who has a free slot and is neither down nor shunned.
    """
    for tier in tiers:
        if strategy is _SCORED:
            chosen = _scored(tier, allowed, top_k, uniform, now_s)
        else:
            chosen = _OTHERS[strategy](tier, allowed, uniform, now_s)
        if chosen is not None:
            return chosen
    return None


def _scored(
    tier: Tier, allowed: Allowed | None, top_k: int, uniform: Uniform, now_s: float
) -> Choice | None:
    """Draw by weight, then by cost. The formula of `cost` is written out: it is the hot path."""
    if allowed is None and len(tier.candidates) <= _SCAN_UP_TO:
        drawn = _keyed(_free(tier.candidates, None), top_k, uniform)
    else:
        drawn = _draw(tier, allowed, top_k, uniform)
    if not drawn:
        return None
    loads, costs, odds, total = [], [], [], 0.0
    for candidate in drawn:
        slot = candidate.slot
        load, latency_s = slot.in_flight, slot.latency.value_s
        if latency_s is None or not load:
            latency_s = slot.latency.estimate_s(candidate.median_s, load, now_s)
        latency_s = max(latency_s, _SHORTEST_S)
        loads.append(load)
        cost_s = (load + 1) * latency_s * candidate.inverse
        costs.append(cost_s)
        total += 1 / (cost_s * cost_s * cost_s)
        odds.append(total)
    point = uniform() * total
    made = Choice.__new__(Choice)  # a third of its constructor's time
    made.candidate = drawn[min(bisect_right(odds, point), len(drawn) - 1)]
    made.level = tier.level
    made.among = len(tier.candidates)
    made.drawn, made.loads, made.costs = drawn, loads, costs
    return made


def _draw(tier: Tier, allowed: Allowed | None, top_k: int, uniform: Uniform) -> list[Candidate]:
    """Draw up to `top_k` distinct allowed candidates by weight."""
    candidates = tier.candidates
    count = len(candidates)
    if count <= _SCAN_UP_TO:
        return _keyed(_free(candidates, allowed), top_k, uniform)
    keep, other = tier.alias.keep, tier.alias.other
    drawn: list[Candidate] = []
    for _ in range(_TRIES_PER_DRAW * top_k):
        scaled = uniform() * count
        column = int(scaled)
        candidate = candidates[column if scaled - column < keep[column] else other[column]]
        if candidate in drawn:
            continue
        if allowed is None:
            slot = candidate.slot
            if slot.in_flight >= candidate.limit or slot.shunned or candidate.health.down:
                continue
        elif not allowed(candidate):
            continue
        drawn.append(candidate)
        if len(drawn) == top_k:
            return drawn
    return _keyed(_free(candidates, allowed), top_k, uniform)


def _free(candidates: Sequence[Candidate], allowed: Allowed | None) -> list[Candidate]:
    if allowed is not None:
        return [one for one in candidates if allowed(one)]
    return [
        one
        for one in candidates
        if (slot := one.slot).in_flight < one.limit and not slot.shunned and not one.health.down
    ]


def _keyed(free: list[Candidate], top_k: int, uniform: Uniform) -> list[Candidate]:
    """Draw without replacement by weight: keys u^(1/w), Efraimidis and Spirakis 2006."""
    extra = len(free) - top_k
    if extra <= 0:
        return free
    keys = [uniform() ** one.inverse for one in free]
    if extra == 1:
        del free[keys.index(min(keys))]
        return free
    order = sorted(range(len(free)), key=keys.__getitem__, reverse=True)
    return [free[index] for index in order[:top_k]]


def cost(candidate: Candidate, now_s: float) -> float:
    """Return the expected burden of one more request, in seconds over weight."""
    slot = candidate.slot
    latency_s = slot.latency.estimate_s(candidate.median_s, slot.in_flight, now_s)
    return (slot.in_flight + 1) * max(latency_s, _SHORTEST_S) * candidate.inverse


def _weighted(tier: Tier, allowed: Allowed | None, uniform: Uniform, now_s: float) -> Choice | None:
    """Return one by effective weight alone."""
    drawn = _draw(tier, allowed, 1, uniform)
    return _alone(tier, drawn[0], drawn, now_s) if drawn else None


def _random(tier: Tier, allowed: Allowed | None, uniform: Uniform, now_s: float) -> Choice | None:
    """Return anyone, all alike."""
    drawn = _draw_evenly(tier, allowed, 1, uniform)
    return _alone(tier, drawn[0], drawn, now_s) if drawn else None


def _power_of_two(
    tier: Tier, allowed: Allowed | None, uniform: Uniform, now_s: float
) -> Choice | None:
    """Return the one with fewer requests in flight of two that are drawn evenly."""
    drawn = _draw_evenly(tier, allowed, 2, uniform)
    if not drawn:
        return None
    one, other = drawn[0], drawn[-1]
    ahead = _load(other) - _load(one)
    chosen = one if ahead > 0 or (ahead == 0 and uniform() < _HALF) else other
    return _alone(tier, chosen, drawn, now_s)


def _least_loaded(
    tier: Tier, allowed: Allowed | None, uniform: Uniform, now_s: float
) -> Choice | None:
    """Return the one that uses the least part of its limit; anyone of those that are equal."""
    free = _free(tier.candidates, allowed)
    if not free:
        return None
    least = min(map(_load, free))
    equal = [one for one in free if _load(one) == least]
    chosen = equal[int(uniform() * len(equal))]
    return _alone(tier, chosen, [chosen], now_s)


def _round_robin(
    tier: Tier, allowed: Allowed | None, uniform: Uniform, now_s: float
) -> Choice | None:
    """Return the next one that is allowed. Routers begin at random places."""
    candidates, turn = tier.candidates, tier.turn
    count = len(candidates)
    if not turn.number:
        turn.number = 1 + int(uniform() * count)
    for step in range(count):
        chosen = candidates[(turn.number + step) % count]
        if _free((chosen,), allowed):
            turn.number += step + 1
            return _alone(tier, chosen, [chosen], now_s)
    return None


def _draw_evenly(
    tier: Tier, allowed: Allowed | None, wanted: int, uniform: Uniform
) -> list[Candidate]:
    """Draw up to `wanted` distinct allowed candidates, all alike."""
    candidates, drawn = tier.candidates, list[Candidate]()
    if len(candidates) > _SCAN_UP_TO:
        for _ in range(_TRIES_PER_DRAW * wanted):
            one = candidates[int(uniform() * len(candidates))]
            if one not in drawn and _free((one,), allowed):
                drawn.append(one)
                if len(drawn) == wanted:
                    return drawn
    free = _free(candidates, allowed)
    if len(free) <= wanted:
        return free
    return [free.pop(int(uniform() * len(free))) for _ in range(wanted)]


def _load(candidate: Candidate) -> float:
    return candidate.slot.in_flight / candidate.limit


def _alone(tier: Tier, chosen: Candidate, drawn: list[Candidate], now_s: float) -> Choice:
    loads = [one.slot.in_flight for one in drawn]
    costs = [cost(one, now_s) for one in drawn]
    return Choice(chosen, tier.level, len(tier.candidates), drawn, loads, costs)


def pick_of(choice: Choice) -> Pick:
    """Return what a choice was made of, for people."""
    considered = tuple(
        Considered(one.name, one.weight, load, cost_s * one.weight / (load + 1), cost_s)
        for one, load, cost_s in zip(choice.drawn, choice.loads, choice.costs, strict=True)
    )
    return Pick(choice.candidate.worker.id, choice.level, choice.among, considered)


def explain(choice: Choice) -> str:
    """Return a choice as one header-safe line."""
    found = pick_of(choice)
    parts = [
        f"{item.worker}(w={item.weight:.4f},inflight={item.in_flight},"
        f"latency={item.latency_s * 1000:.3f}ms,cost={item.cost:.5f})"
        for item in found.considered
    ]
    return f"relaxed={found.relaxed} candidates={found.candidates} drew {' '.join(parts)}"


_SCORED = Strategy.SCORED
_OTHERS = {
    Strategy.WEIGHTED: _weighted,
    Strategy.RANDOM: _random,
    Strategy.POWER_OF_TWO: _power_of_two,
    Strategy.LEAST_LOADED: _least_loaded,
    Strategy.ROUND_ROBIN: _round_robin,
}
