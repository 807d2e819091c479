"""When a worker that was told to end may stop Triton (router.md section 12). Pure."""

from dataclasses import dataclass

_SILENCE_S = 3.0
_UNSCRAPED_IDLE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """What is seen while draining; times are of a monotonic clock."""

    began_s: float
    timeout_s: float
    acknowledged: bool  # a scrape said that every live router let go
    scraped_s: float | None  # when the operator last asked
    busy_s: float  # when work was last pending, in flight or newly done
    was_ready: bool  # else no router ever sent anything here
    idle_s: float = 1.0  # how long nothing must have come; sequences need longer


def may_stop(seen: Draining, now_s: float) -> bool:
    """Whether Triton may be stopped.

    After the acknowledgement and `idle_s` without work; without scrapes for 3 s, after 5 s without
    work; at the timeout in any case.
    """
    if not seen.was_ready or now_s - seen.began_s >= seen.timeout_s:
        return True
    idle_s = now_s - seen.busy_s
    if seen.acknowledged:
        return idle_s >= seen.idle_s
    heard_s = max(seen.began_s, seen.scraped_s or seen.began_s)
    return now_s - heard_s >= _SILENCE_S and idle_s >= max(seen.idle_s, _UNSCRAPED_IDLE_S)
