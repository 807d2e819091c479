"""A token bucket, and when a status write is worth one (operator.md section 8). Pure."""

from dataclasses import dataclass, replace

from tidegate_api.pool import InferencePoolStatus

GAUGES = ("queue_depth", "p95_milliseconds", "requests_per_second")
_GAUGE_PERIOD_S = 30.0
_GAUGE_STEP_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens refill at `per_second` up to one second's worth, at least one."""

    per_second: float
    tokens: float
    at_s: float

    def refilled(self, now_s: float) -> "Bucket":
        """Return the bucket as it is at `now_s` of a monotonic clock."""
        gained = max(0.0, now_s - self.at_s) * self.per_second
        return replace(
            self, tokens=min(max(1.0, self.per_second), self.tokens + gained), at_s=now_s
        )

    def take(self, now_s: float) -> "Bucket | None":
        """Return the bucket with a token less, None when there is none."""
        full = self.refilled(now_s)
        return replace(full, tokens=full.tokens - 1) if full.tokens >= 1 else None


def bucket(per_second: float, now_s: float) -> Bucket:
    """Return a full bucket."""
    return Bucket(per_second, max(1.0, per_second), now_s)


def must_write(before: InferencePoolStatus, after: InferencePoolStatus) -> bool:
    """Whether anything but a gauge changed: such a write is due at once."""
    blank = dict.fromkeys(GAUGES)
    return before.model_copy(update=blank) != after.model_copy(update=blank)


def may_write_gauges(
    before: InferencePoolStatus, after: InferencePoolStatus, since_write_s: float
) -> bool:
    """Whether gauges alone are worth a write: 30 s after the last, moved by more than 10 %."""
    if since_write_s < _GAUGE_PERIOD_S:
        return False
    return any(_moved(getattr(before, name), getattr(after, name)) for name in GAUGES)


def _moved(before: float | None, after: float | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs(after - before) > _GAUGE_STEP_RATIO * max(abs(before), abs(after))
