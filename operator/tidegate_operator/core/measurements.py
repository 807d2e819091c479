"""From scrapes to running values, scores and limits of every worker."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tidegate_api.pool import ScoreWeights
from tidegate_api.state import ModelState, WorkerState
from tidegate_operator.core.limits import adapt, current_limit
from tidegate_operator.core.memory import ModelMemory, WorkerMemory
from tidegate_operator.core.observation import ObservedPod, PoolObservation
from tidegate_operator.core.score import Reading, Score, score_workers

_LATENCY_TAU_S = 10.0


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores by pod UID, and the memory to keep."""

    scores: Mapping[str, Score]
    memory: Mapping[str, WorkerMemory]


def measure_workers(
    observation: PoolObservation,
    before: Mapping[str, WorkerMemory],
    weights: ScoreWeights,
    waiting_in_routers: int,
) -> Measured:
    """Take each new scrape once and score all workers that were ever measured."""
    states = {
        pod.uid: (scrape.scraped_s, scrape.state)
        for pod in observation.pods
        if (scrape := observation.scrapes.get(pod.uid)) is not None
        and scrape.state is not None
        and scrape.scraped_s is not None
    }
    memory = {
        uid: _remember(before.get(uid), scraped_s, state, waiting_in_routers)
        for uid, (scraped_s, state) in states.items()
    }
    readings = [
        _reading(pod, states[pod.uid][1], memory[pod.uid])
        for pod in observation.pods
        if pod.uid in states
    ]
    return Measured(score_workers(readings, weights), memory)


def _remember(
    before: WorkerMemory | None, scraped_s: float, state: WorkerState, waiting: int
) -> WorkerMemory:
    if before is not None and scraped_s <= before.scraped_s:
        return before
    old: Mapping[str, ModelMemory] = before.models if before else {}
    elapsed_s = scraped_s - before.scraped_s if before else 0.0
    models = {
        name: adapt(_latency(old.get(name), model, elapsed_s), model, waiting)
        for model in state.models
        for name in (model.loaded_as or model.name,)
    }
    return WorkerMemory(scraped_s, models)


def _latency(before: ModelMemory | None, seen: ModelState, elapsed_s: float) -> ModelMemory:
    """Exponentially weighted mean with tau 10 s; without a sample the old value stays."""
    kept = before or ModelMemory()
    if seen.p50_ms is None or not math.isfinite(seen.p50_ms) or seen.p50_ms < 0:
        return kept
    if kept.latency_ms is None:
        return replace(kept, latency_ms=seen.p50_ms)
    part = elapsed_s / (_LATENCY_TAU_S + elapsed_s)
    return replace(kept, latency_ms=kept.latency_ms + part * (seen.p50_ms - kept.latency_ms))


def _reading(pod: ObservedPod, state: WorkerState, memory: WorkerMemory) -> Reading:
    limits = (
        current_limit(model.traits, memory.models.get(model.loaded_as or model.name))
        for model in state.models
        if not model.traits.ensemble
    )
    latency = {
        name: item.latency_ms for name, item in memory.models.items() if item.latency_ms is not None
    }
    return Reading(
        uid=pod.uid,
        peers=f"{pod.revision}/{pod.accelerator}",
        state=state,
        limit=_total(limits),
        latency_ms=latency,
    )


def _total(limits: Iterable[int]) -> int:
    return max(1, sum(limits))
