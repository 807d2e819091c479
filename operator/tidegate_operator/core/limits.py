"""How many requests a worker may have in flight per model (router.md section 2).

Start: max(instances + 1, 2 x instances x B), where B = maxBatchSize if the loaded config has
dynamic batching, else 1. It adapts here and nowhere else: nothing pending in Triton while
routers queue -> + B; pending > B x instances for 3 scrapes -> x 0.9; within
[instances, 4 x start]. No latency-gradient limiter: with batching, latency rises while
throughput still grows.
"""

from dataclasses import replace

from tidegate_api.state import ModelState, Traits
from tidegate_operator.core.memory import ModelMemory

_PRESSED_SCRAPES = 3
_SHRINK = 0.9


def batch_of(traits: Traits) -> int:
    """Return B, the requests that one instance takes at once."""
    return max(1, traits.max_batch_size) if traits.dynamic_batching else 1


def start_limit(traits: Traits) -> int:
    """Return the limit before anything was observed."""
    instances = max(1, traits.instances)
    return max(instances + 1, 2 * instances * batch_of(traits))


def current_limit(traits: Traits, memory: ModelMemory | None) -> int:
    """Return the limit in force, in whole requests, at least 1."""
    start = start_limit(traits)
    remembered = memory.limit if memory and memory.limit is not None else float(start)
    return max(1, int(_bounded(remembered, traits)))


def adapt(memory: ModelMemory, seen: ModelState, waiting_in_routers: int) -> ModelMemory:
    """Return the memory after one more scrape; what a model is like is known once it is ready."""
    if not seen.ready:
        return replace(memory, limit=None, pressed_scrapes=0)
    traits = seen.traits
    limit = memory.limit if memory.limit is not None else float(start_limit(traits))
    if not seen.queue and waiting_in_routers:
        grown = _bounded(limit + batch_of(traits), traits)
        return replace(memory, limit=grown, pressed_scrapes=0)
    if seen.queue <= batch_of(traits) * max(1, traits.instances):
        return replace(memory, limit=_bounded(limit, traits), pressed_scrapes=0)
    pressed = memory.pressed_scrapes + 1
    if pressed < _PRESSED_SCRAPES:
        return replace(memory, limit=_bounded(limit, traits), pressed_scrapes=pressed)
    shrunk = _bounded(limit * _SHRINK, traits)
    return replace(memory, limit=shrunk, pressed_scrapes=0)


def _bounded(limit: float, traits: Traits) -> float:
    return min(max(limit, float(max(1, traits.instances))), 4.0 * start_limit(traits))
