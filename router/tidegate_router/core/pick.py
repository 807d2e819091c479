"""Choice of a worker (router.md section 3).

Draw topK distinct candidates by effective weight, then choose one of them at random with weight
1 / cost^3, cost = (in flight + 1) x peak EWMA / w. Published scores thus shift the odds and never
decide alone: choosing the best of scores that are 1 s old is worse than choosing at random.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate_api.routetable import RoutedWorker, Served
from tidegate_router.core.alias import AliasTable
from tidegate_router.core.request import Considered, Pick, Slot

_SCAN_UP_TO = 8  # groups this small are looked through whole
_TRIES_PER_DRAW = 4
_EXPONENT = 3
_SHORTEST_S = 50e-6
Uniform = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker that may serve a model of a revision, ready to be drawn."""

    worker: RoutedWorker
    served: Served
    limit: int
    slot: Slot
    weight: float
    median_s: float  # of its revision and class: what a worker without samples counts as


Allowed = Callable[[Candidate], bool]


@dataclass(frozen=True, slots=True)
class Tier:
    """Candidates up to one soft level, with the table that draws from them."""

    level: int
    candidates: tuple[Candidate, ...]
    alias: AliasTable


def choose(
    tiers: Sequence[Tier], allowed: Allowed, top_k: int, uniform: Uniform, now_s: float
) -> tuple[Candidate, Pick] | None:
    """Return the choice from the strictest tier that has an allowed candidate, and why."""
    for tier in tiers:
        drawn = _draw(tier, allowed, top_k, uniform)
        if drawn:
            return _among(tier, drawn, uniform, now_s)
    return None


def _draw(tier: Tier, allowed: Allowed, top_k: int, uniform: Uniform) -> list[Candidate]:
    if len(tier.candidates) <= _SCAN_UP_TO:
        return _scan(tier, allowed, top_k, uniform)
    drawn: dict[int, Candidate] = {}
    for _ in range(_TRIES_PER_DRAW * top_k):
        index = tier.alias.draw(uniform())
        if index not in drawn and allowed(tier.candidates[index]):
            drawn[index] = tier.candidates[index]
            if len(drawn) == top_k:
                return list(drawn.values())
    return _scan(tier, allowed, top_k, uniform)


def _scan(tier: Tier, allowed: Allowed, top_k: int, uniform: Uniform) -> list[Candidate]:
    """Draw without replacement by weight: keys u^(1/w), Efraimidis and Spirakis 2006."""
    free = [candidate for candidate in tier.candidates if allowed(candidate)]
    if len(free) <= top_k:
        return free
    free.sort(key=lambda candidate: uniform() ** (1 / candidate.weight), reverse=True)
    return free[:top_k]


def cost(candidate: Candidate, now_s: float) -> float:
    """Return the expected burden of one more request, in seconds over weight."""
    return _consider(candidate, now_s).cost


def _consider(candidate: Candidate, now_s: float) -> Considered:
    slot = candidate.slot
    latency_s = slot.latency.estimate_s(candidate.median_s, slot.in_flight, now_s)
    burden_s = (slot.in_flight + 1) * max(latency_s, _SHORTEST_S)
    name = candidate.worker.name or candidate.worker.id
    cost_s = burden_s / candidate.weight
    return Considered(name, candidate.weight, slot.in_flight, latency_s, cost_s)


def _among(
    tier: Tier, drawn: Sequence[Candidate], uniform: Uniform, now_s: float
) -> tuple[Candidate, Pick]:
    considered = tuple(_consider(candidate, now_s) for candidate in drawn)
    cheapest = min(one.cost for one in considered)
    odds = [(cheapest / one.cost) ** _EXPONENT for one in considered]
    point = uniform() * sum(odds)
    chosen = drawn[-1]
    for candidate, odd in zip(drawn, odds, strict=True):
        point -= odd
        if point < 0:
            chosen = candidate
            break
    return chosen, Pick(chosen.worker.id, tier.level, len(tier.candidates), considered)


def explain(pick: Pick) -> str:
    """Return a pick as one header-safe line."""
    parts = [
        f"{item.worker}(w={item.weight:.4f},inflight={item.in_flight},"
        f"latency={item.latency_s * 1000:.3f}ms,cost={item.cost:.5f})"
        for item in pick.considered
    ]
    return f"relaxed={pick.relaxed} candidates={pick.candidates} drew {' '.join(parts)}"
