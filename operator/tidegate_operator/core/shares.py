"""Which part of every worker's limit each router may use (router.md section 1)."""

from collections.abc import Mapping, Sequence

from tidegate_api.pool import InferencePool
from tidegate_api.routetable import RouterShare
from tidegate_operator.core.memory import RouterReading
from tidegate_operator.core.observation import RouterMember
from tidegate_operator.core.windows import queued, recent_requests

_EVEN_PART = 0.2  # of all shares is split evenly, so that an idle router can start at once

_MAX_ROUTERS = 64
_INSTANCE_CHARACTERS = 128


def router_shares(
    routers: Sequence[RouterMember], readings: Sequence[RouterReading], pool: InferencePool
) -> list[RouterShare]:
    """Return shares that sum to 1: by demand of the last 5 s, a fifth of all evenly.

    Demand = requests of the last 5 s + waiting + in flight. Routers without a reading, and all
    when there is no demand, count evenly.
    """
    demand = _demand(routers, readings, pool)
    total, count = sum(demand.values()), len(demand)
    if not total:
        return [RouterShare(instance=name, share=round(1 / count, 3)) for name in sorted(demand)]
    return [
        RouterShare(
            instance=name,
            share=round(_EVEN_PART / count + (1 - _EVEN_PART) * demand[name] / total, 3),
        )
        for name in sorted(demand)
    ]


def _demand(
    routers: Sequence[RouterMember], readings: Sequence[RouterReading], pool: InferencePool
) -> Mapping[str, float]:
    recent = recent_requests(readings)
    live = [m.state for m in routers if m.state is not None and m.left_s_ago is None]
    known = [recent[state.instance] for state in live if state.instance in recent]
    typical = sum(known) / len(known) if known else 0.0
    return {
        state.instance[:_INSTANCE_CHARACTERS]: max(
            0.0, recent.get(state.instance, typical) + sum(queued(state, pool))
        )
        for state in live[:_MAX_ROUTERS]
    }
