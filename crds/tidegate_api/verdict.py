"""Whether counts say that a canary is worse than allowed; operator and router judge alike.

One rule for every check: of `total` attempts `bad` lie beyond a limit where a share of
`allowed_ratio` may. That is a failure when chance alone would give as many with a probability
below ALPHA: P(Binomial(total, allowed_ratio) >= bad) < 0.001. Comparing two measured p95 of 100
samples instead fails 12-77 % of canaries that equal stable.
"""

import math
from collections.abc import Mapping

from tidegate_api import histogram as tg1
from tidegate_api.routetable import Guard

ALPHA = 0.001
P95_ALLOWED_RATIO = 0.05  # by definition 5 % of attempts lie beyond the 95th percentile
_CONFIDENCE_SIGMAS = 2.0
_TINY = 1e-300
_PRECISION = 1e-14
_MAX_TERMS = 200_000  # the fraction needs about sqrt(n) terms; n = 1e7 takes a few thousand


def binomial_tail(at_least: int, trials: int, probability: float) -> float:
    """Return P(Binomial(trials, probability) >= at_least), to 1e-6 relative up to 1e7 trials.

    It equals the regularised incomplete beta function I_p(k, n - k + 1) (DLMF 8.17.5), computed
    by its continued fraction (DLMF 8.17.22).
    """
    if at_least <= 0 or (probability >= 1 and at_least <= trials):
        return 1.0
    if at_least > trials or probability <= 0:
        return 0.0
    a, b = float(at_least), float(trials - at_least + 1)
    if probability < (a + 1) / (a + b + 2):
        return min(1.0, _beta_part(probability, a, b))
    return max(0.0, 1.0 - _beta_part(1 - probability, b, a))


def _beta_part(x: float, a: float, b: float) -> float:
    """I_x(a, b) where x lies below the distribution's mean, so that the fraction converges."""
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    return math.exp(min(0.0, log_front + math.log(_fraction(x, a, b))))


def _fraction(x: float, a: float, b: float) -> float:
    """Modified Lentz evaluation of DLMF 8.17.22."""
    c, d = 1.0, 1 / _not_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1 / _not_zero(1 + term * d)
            c = _not_zero(1 + term / c)
            value *= c * d
        if abs(c * d - 1) < _PRECISION:
            break
    return value


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def too_many(bad: int, total: int, allowed_ratio: float, alpha: float = ALPHA) -> bool:
    """Return whether `bad` of `total` is more than chance gives where `allowed_ratio` may be bad.

    A share that is not above the allowed one is never too many.
    """
    if total <= 0 or bad <= allowed_ratio * total:
        return False
    return binomial_tail(bad, total, allowed_ratio) < alpha


def attempts_above(histogram: Mapping[int, int], limit_s: float) -> int:
    """Return how many attempts of a tg1 histogram surely took longer than `limit_s`.

    A bucket counts only when its whole range lies above: the doubt is the canary's benefit.
    """
    edge = limit_s * (1 - 1e-9)
    return sum(
        count
        for bucket, count in histogram.items()
        if bucket > 0 and tg1.upper_bound_s(bucket - 1) >= edge
    )


def quantile_upper_s(histogram: Mapping[int, int], q: float) -> float | None:
    """Return an upper 97.7 % confidence bound of the q-quantile in seconds, None without data.

    It is the order statistic at q + 2 sqrt(q (1 - q) / n), at most the largest value seen.
    Stable's p95 as a limit needs it. Measured with two equal tracks (lognormal, sigma = ln 2, 100
    samples of stable): its p95 is more than 10 % off in half of the cases. As a limit (ratio 1) it
    fails 1.7 % of canaries with 100 samples and 17 % with 1000; this bound failed none of 3000.
    """
    total = sum(histogram.values())
    if total <= 0:
        return None
    rank = q + _CONFIDENCE_SIGMAS * math.sqrt(q * (1 - q) / total)
    needed, seen = min(total, math.ceil(rank * total)), 0
    for bucket in sorted(histogram):
        seen += histogram[bucket]
        if seen >= needed:
            return tg1.upper_bound_s(bucket)
    return None


def ratio_upper(bad: int, total: int) -> float:
    """Return the Wilson upper bound (2 sigma) of the share bad/total; 1 without data."""
    if total <= 0:
        return 1.0
    share, square = min(1.0, bad / total), _CONFIDENCE_SIGMAS**2
    spread = _CONFIDENCE_SIGMAS * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return min(1.0, (share + square / (2 * total) + spread) / (1 + square / total))


def guard_broken(guard: Guard, ok: int, failed: int, latency: Mapping[int, int]) -> str:
    """Return why a router's own counts of a canary break its guard; empty: they do not.

    `failed` = modelError + workerFault + timeout, `latency` = tg1 of attempts, both of the
    revision's last `interval_s` in this router. As for the operator, a failure needs no
    minRequests: the test asks for more evidence where there are fewer attempts.
    """
    return _rate_broken(guard, ok, failed) or _latency_broken(guard, latency)


def _rate_broken(guard: Guard, ok: int, failed: int) -> str:
    total = ok + failed
    if guard.min_success_rate is None or not too_many(failed, total, 1 - guard.min_success_rate):
        return ""
    return (
        f"success rate {ok / total:.2%} < {guard.min_success_rate:.2%}:"
        f" {failed} of {total} attempts failed"
    )


def _latency_broken(guard: Guard, latency: Mapping[int, int]) -> str:
    total = sum(latency.values())
    if guard.max_p95_s is None:
        return ""
    above = attempts_above(latency, guard.max_p95_s)
    if not too_many(above, total, P95_ALLOWED_RATIO):
        return ""
    return (
        f"p95 {milliseconds(tg1.quantile_s(latency, 0.95) or 0.0)} >"
        f" {milliseconds(guard.max_p95_s)}: {above} of {total} attempts above it"
    )


def milliseconds(seconds: float) -> str:
    """Return a duration for people: whole ms, below 10 ms with a decimal."""
    value = seconds * 1000
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"
