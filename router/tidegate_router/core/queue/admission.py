"""How long a request may wait, and whether that is enough (router.md section 6)."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_api.names import DroppedReason
from tidegate_api.routetable import RoutingPolicy, TierPolicy

_SHORTEST_WAIT_S = 1.0
_SERVICES = 4.0
_DISTRUST = 10.0
_CAUTION = 1.2  # a rate of the last seconds errs by a tenth or two: late refusals cost more
ONLY_TIER = TierPolicy(name="")  # of a pool without tiers


def tier_of(policy: RoutingPolicy, claimed: str) -> TierPolicy:
    """Return the tier of a request. No claim, an unknown one, or no trust in claims: the last."""
    tiers: Sequence[TierPolicy] = policy.tiers
    if not tiers:
        return ONLY_TIER
    if claimed and policy.trust_tier_header:
        return next((tier for tier in tiers if tier.name == claimed), tiers[-1])
    return tiers[-1]


def rank_of(policy: RoutingPolicy, claimed: str) -> int:
    """Return the place of a request's tier in the pool's list; 0 is the first, and the only one."""
    chosen = tier_of(policy, claimed)
    return next((at for at, tier in enumerate(policy.tiers) if tier is chosen), 0)


def patient_wait_s(policy: RoutingPolicy, _: TierPolicy, p50_s: float) -> float:
    """Return the pool's maxWait, whatever the tier; by default max(1 s, 4 x p50 service)."""
    configured = policy.queue.max_wait_s
    return max(_SHORTEST_WAIT_S, _SERVICES * p50_s) if configured is None else configured


def longest_wait_s(policy: RoutingPolicy, tier: TierPolicy, p50_s: float) -> float:
    """Return how long a tier's request may wait: its p99 target, never above a given maxWait."""
    if tier.p99_target_s is None:
        return patient_wait_s(policy, tier, p50_s)
    configured = policy.queue.max_wait_s
    return tier.p99_target_s if configured is None else min(tier.p99_target_s, configured)


@dataclass(frozen=True, slots=True)
class Patience:
    """Until when a request waits for a worker, and what ends it then."""

    until_s: float
    reason: DroppedReason


def patience(wait_s: float, p50_s: float, deadline_s: float, now_s: float) -> Patience:
    """Return the earlier of now + `wait_s` and the last moment at which an answer is in time."""
    hopeless_s = deadline_s - p50_s
    if hopeless_s < now_s + wait_s:
        return Patience(hopeless_s, DroppedReason.DEADLINE)
    return Patience(now_s + wait_s, DroppedReason.SATURATED)


def predicted_wait_s(before: int, rate_per_s: float, *, overloaded: bool) -> float:
    """Return the time until a slot is free for one with `before` others before it.

    While more give up than should, the prediction is known to be wrong and the newest goes first:
    ten times as long keeps newcomers out until those who wait are gone.
    """
    wait_s = _CAUTION * (before + 1) / rate_per_s
    return wait_s * _DISTRUST if overloaded else wait_s
