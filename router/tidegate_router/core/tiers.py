"""The tier of a request whose answer others wait for."""

from dataclasses import replace

from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.queue import admission
from tidegate_router.core.request import Route


def rank(dispatcher: Dispatcher, route: Route) -> int:
    """Return the place of a request's tier in the pool's list; 0 is the first."""
    view = dispatcher.pools.get(route.pool_uid)
    return admission.rank_of(view.table.policy, route.ask.tier) if view else 0


def promote(dispatcher: Dispatcher, route: Route, claimed: str, now_s: float) -> None:
    """Let a request that no worker has yet wait in another tier: one of that follows it."""
    view = dispatcher.pools.get(route.pool_uid)
    if view is None or route.attempts:
        return
    route.ask = replace(route.ask, tier=claimed)
    if route.hold_until_s:
        group = view.group(route.revision, route.ask.model)
        dispatcher.holds.move(route, view.table.policy, group, now_s)
