"""Who may get a request (router.md section 2).

Hard filters are never skipped: revision, model and version, not draining, address known, below the
limit, not down. Soft filters are dropped in this order when nothing is left: Critical device
(level 1), stale score (2), ejected (3, a later feature), published as not ready (4).
"""

import math

from tidegate_api.routetable import RoutedWorker, RouterShare, Served
from tidegate_api.state import Pressure, Thermal

CRITICAL, STALE, NOT_READY = 1, 2, 4


def soft_level(worker: RoutedWorker, served: Served, trust: float) -> int:
    """Return how many soft filters must be dropped before this worker is used, 0 to 4."""
    if not (worker.ready and served.ready):
        return NOT_READY
    if trust <= 0:
        return STALE
    critical = worker.pressure is Pressure.CRITICAL or worker.thermal is Thermal.CRITICAL
    return CRITICAL if critical else 0


def repeatable(served: Served) -> bool:
    """Whether a second run of a request does no harm."""
    return served.idempotent and not (served.traits.sequence or served.traits.decoupled)


def cache_ttl_s(served: Served) -> float:
    """Return for how long its answers may be repeated; 0 where a second run could differ."""
    return served.cache_ttl_s if repeatable(served) else 0.0


def usable(worker: RoutedWorker, *, gone: bool) -> bool:
    """Whether a worker passes the hard filters that do not depend on the request."""
    return bool(worker.address) and not worker.draining and not gone


def share_of(instance: str, routers: list[RouterShare]) -> float:
    """Return this router's part, 0..1, of every worker's limit.

    A router that the table does not know yet takes an equal part beside those it knows.
    """
    for router in routers:
        if router.instance == instance:
            return router.share
    return 1 / (len(routers) + 1)


def limit_here(served: Served, share: float) -> int:
    """Return how many requests this router may have at (worker, model): at least 1."""
    return max(1, math.floor(served.limit * share + 1e-9))
