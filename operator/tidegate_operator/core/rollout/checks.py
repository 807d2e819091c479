"""The checks of one analysis window: each gives a verdict with the numbers that decided it.

The statistics are tidegate_api.verdict's. A check fails on the window or on everything since the
step began; it has no opinion (Inconclusive) where it has nothing to compare.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_api import histogram as tg1
from tidegate_api import verdict as statistics
from tidegate_api.rollout import CheckResult, Verdict
from tidegate_operator.core.observation import QueryResult
from tidegate_operator.core.rollout.model import AnalysisPlan, PrometheusPlan
from tidegate_operator.core.rollout.readings import Counts, Totals

_EVERYTHING = 100
_LEAST_CLIENT_RATIO = 0.01  # a share of client errors below this is never held against a canary
_CLIENT_MARGIN = 1.25
# Fewer samples have no order statistic two sigmas above the 95th percentile.
_LEAST_STABLE_SAMPLES = math.ceil(4 * 0.95 / 0.05)
_STALE_INTERVALS = 3
_STALE_S = 30.0
_MOST_WORDS = 1000
_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one judgement looks at. `step` is everything since the step began."""

    now_s: float
    stable: str
    canary: str
    weight: int  # percent of requests that the canary has
    window: Totals
    step: Totals
    queries: Mapping[str, QueryResult] = field(default_factory=dict)  # by PromQL
    unreadable: tuple[str, ...] = ()  # routers whose counts cannot be used


class _Limit(NamedTuple):
    """A share that may be bad, and how the result is to be told."""

    name: str
    allowed_ratio: float
    value: float | None
    limit: float
    words: str


_Check = Callable[[AnalysisPlan, Evidence, Totals], CheckResult | None]


def run_checks(plan: AnalysisPlan, evidence: Evidence) -> tuple[CheckResult, ...]:
    """Return a result per check that applies at this weight."""
    results = [_worse(check, plan, evidence) for check in _CHECKS]
    found = [result for result in results if result is not None]
    found.extend(_query(item, plan, evidence) for item in plan.prometheus)
    if evidence.unreadable:
        names = ", ".join(evidence.unreadable)[:_MOST_WORDS]
        words = f"routers of another version, whose counts cannot be added: {names}"
        found.append(CheckResult(name="routers", verdict="Inconclusive", message=words))
    return tuple(found)


def _worse(check: _Check, plan: AnalysisPlan, evidence: Evidence) -> CheckResult | None:
    """The window's result, unless only the whole step's data shows a failure."""
    now = check(plan, evidence, evidence.window)
    if now is None or now.verdict == "Fail":
        return now
    whole = check(plan, evidence, evidence.step)
    if whole is None or whole.verdict != "Fail":
        return now
    return whole.model_copy(update={"message": f"{whole.message} since the step began"})


def _judge(limit: _Limit, bad: int, total: int) -> CheckResult:
    verdict: Verdict = "Pass" if total else "Inconclusive"
    if statistics.too_many(bad, total, limit.allowed_ratio):
        verdict = "Fail"
    return CheckResult(
        name=limit.name,
        verdict=verdict,
        requests=total,
        bad=bad,
        value=_rounded(limit.value),
        limit=_rounded(limit.limit),
        message=limit.words if total else "no attempts yet",
    )


def _rounded(value: float | None) -> float | None:
    """Few digits: a status that changes in the 15th one would be written again."""
    return None if value is None else round(value, _DIGITS)


def _success(plan: AnalysisPlan, evidence: Evidence, data: Totals) -> CheckResult | None:
    if plan.min_success_rate is None or not evidence.weight:
        return None
    counts, least = data.all_of(evidence.canary), plan.min_success_rate
    total = counts.judged
    rate = counts.ok / total if total else None
    words = (
        f"success rate {rate or 0:.2%} {_sign(rate or 0, least)} {least:.2%}:"
        f" {counts.failed} of {total} attempts failed"
    )
    return _judge(_Limit("successRate", 1 - least, rate, least, words), counts.failed, total)


def _clients(plan: AnalysisPlan, evidence: Evidence, data: Totals) -> CheckResult | None:
    """A canary that refuses what stable takes shows as client errors.

    Without anything to compare it has no say: nobody asked for this check.
    """
    if plan.min_success_rate is None or not 0 < evidence.weight < _EVERYTHING:
        return None
    pairs = _common(data, evidence, lambda counts: counts.answered)
    bad = sum(canary.client for canary, _ in pairs)
    total = sum(canary.answered for canary, _ in pairs)
    if not total:
        return None
    allowed = sum(_client_limit(stable) * canary.answered for canary, stable in pairs) / total
    words = (
        f"client errors {bad / total:.2%} {_sign(bad / total, allowed)} {allowed:.2%}"
        f" (by stable's): {bad} of {total} attempts"
    )
    return _judge(_Limit("clientErrors", allowed, bad / total, allowed, words), bad, total)


def _client_limit(stable: Counts) -> float:
    upper = statistics.ratio_upper(stable.client, stable.answered)
    return min(1.0, _LEAST_CLIENT_RATIO + _CLIENT_MARGIN * upper)


def _common(
    data: Totals, evidence: Evidence, size: Callable[[Counts], int]
) -> list[tuple[Counts, Counts]]:
    """Return (canary, stable) of each stratum where both have enough to compare."""
    stable = data.of(evidence.stable)
    return [
        (counts, stable[stratum])
        for stratum, counts in data.of(evidence.canary).items()
        if size(counts) > 0 and stratum in stable and size(stable[stratum]) > _LEAST_STABLE_SAMPLES
    ]


def _latency(plan: AnalysisPlan, evidence: Evidence, data: Totals) -> CheckResult | None:
    if plan.max_p95_s is None or not evidence.weight:
        return None
    histogram = data.all_of(evidence.canary).latency
    above = statistics.attempts_above(histogram, plan.max_p95_s)
    return _judge_p95("p95", histogram, above, plan.max_p95_s, "")


def _judge_p95(
    name: str, histogram: Mapping[int, int], above: int, limit_s: float, note: str
) -> CheckResult:
    p95_s = tg1.quantile_s(histogram, 0.95)
    total = sum(histogram.values())
    words = (
        f"p95 {statistics.milliseconds(p95_s or 0)} {_sign(p95_s or 0, limit_s)}"
        f" {statistics.milliseconds(limit_s)}{note}: {above} of {total} attempts above it"
    )
    limit = _Limit(name, statistics.P95_ALLOWED_RATIO, p95_s, limit_s, words)
    return _judge(limit, above, total)


def _latency_ratio(plan: AnalysisPlan, evidence: Evidence, data: Totals) -> CheckResult | None:
    """One limit per stratum, its excesses added up: strata weigh as the canary has attempts."""
    if plan.max_p95_ratio is None or not 0 < evidence.weight < _EVERYTHING:
        return None
    pairs = _common(data, evidence, lambda counts: sum(counts.latency.values()))
    if not pairs:
        words = (
            f"stable has less than {_LEAST_STABLE_SAMPLES + 1} attempts in each model and class "
            "that the canary serves: too few to tell its p95"
        )
        return CheckResult(name="p95Ratio", verdict="Inconclusive", message=words)
    limits = [
        plan.max_p95_ratio * (statistics.quantile_upper_s(stable.latency, 0.95) or math.inf)
        for _, stable in pairs
    ]
    above = sum(
        statistics.attempts_above(canary.latency, limit_s)
        for (canary, _), limit_s in zip(pairs, limits, strict=True)
    )
    histogram = tg1.merge(canary.latency for canary, _ in pairs)
    sizes = [sum(canary.latency.values()) for canary, _ in pairs]
    mean_s = sum(a * b for a, b in zip(limits, sizes, strict=True)) / sum(sizes)
    note = f" ({plan.max_p95_ratio:g} x stable's)"
    return _judge_p95("p95Ratio", histogram, above, mean_s, note)


def _shadow(plan: AnalysisPlan, evidence: Evidence, data: Totals) -> CheckResult | None:
    if plan.max_disagreement is None or evidence.weight >= _EVERYTHING:
        return None
    bad, total, most = data.shadow.bad, data.shadow.compared, plan.max_disagreement
    share = bad / total if total else None
    words = (
        f"disagreement {share or 0:.2%} {_sign(share or 0, most)} {most:.2%}:"
        f" {bad} of {total} mirrored requests"
    )
    found = _judge(_Limit("shadow", most, share, most, words), bad, total)
    if found.verdict == "Pass" and total < plan.min_requests:
        return found.model_copy(
            update={
                "verdict": "Inconclusive",
                "message": f"{total} of {plan.min_requests} mirrored requests compared",
            }
        )
    return found


_CHECKS: tuple[_Check, ...] = (_success, _clients, _latency, _latency_ratio, _shadow)


def _sign(value: float, limit: float) -> str:
    if value == limit:
        return "="
    return "<" if value < limit else ">"


def _query(item: PrometheusPlan, plan: AnalysisPlan, evidence: Evidence) -> CheckResult:
    name = f"prometheus/{item.name}"
    found = evidence.queries.get(item.query)
    problem = _no_answer(found, plan, evidence.now_s)
    if found is None or found.value is None or problem:
        return CheckResult(name=name, verdict="Inconclusive", message=problem[:_MOST_WORDS])
    value, bound = found.value, _broken_bound(item, found.value)
    verdict: Verdict = "Pass" if bound is None else "Fail"
    shown = bound if bound is not None else item.max if item.max is not None else item.min
    words = f"{item.name} {value:g}" + (
        " within bounds" if bound is None else f" {_sign(value, bound)} {bound:g}"
    )
    finite = value if math.isfinite(value) else None  # JSON has no infinity
    return CheckResult(name=name, verdict=verdict, value=finite, limit=shown, message=words)


def _no_answer(found: QueryResult | None, plan: AnalysisPlan, now_s: float) -> str:
    if found is None:
        return "Prometheus was not asked yet"
    if found.error or found.value is None:
        return found.error or "Prometheus gave no number"
    age_s = now_s - found.at_s
    if age_s > max(_STALE_S, _STALE_INTERVALS * plan.interval_s):
        return f"the newest answer of Prometheus is {age_s:.0f} s old"
    return "Prometheus gave NaN" if math.isnan(found.value) else ""


def _broken_bound(item: PrometheusPlan, value: float) -> float | None:
    if item.min is not None and value < item.min:
        return item.min
    return item.max if item.max is not None and value > item.max else None


def overall(checks: Sequence[CheckResult], lack: str) -> Verdict:
    """Return the verdict of a window. `lack`: what keeps it from passing, beside checks."""
    found = {check.verdict for check in checks}
    if "Fail" in found:
        return "Fail"
    return "Inconclusive" if lack or "Inconclusive" in found else "Pass"


def summary(checks: Sequence[CheckResult], lack: str) -> str:
    """Return one line for people: failures first, then what is missing."""
    failed = [check.message for check in checks if check.verdict == "Fail"]
    unknown = [check.message for check in checks if check.verdict == "Inconclusive"]
    words = failed or [text for text in (lack, *unknown) if text]
    return "; ".join(words or [check.message for check in checks])[:_MOST_WORDS]
