"""What may be sent again (router.md section 7): budget, poison, and the decision itself."""

from collections import deque
from dataclasses import dataclass, field

from tidegate_router.core.faults import NEVER_RAN, Outcome
from tidegate_router.core.request import Call, Route

FREE_RETRIES = 3
WINDOW_S = 10.0
FLOOR_PER_S = 3.0
POISON_LOSSES = 2
POISON_S = 30.0
_MAX_POISON = 10_000


@dataclass(slots=True)
class RetryBudget:
    """Retries of one pool: at most `percent` of the requests of the last 10 s, and 3/s anyway."""

    _requests: deque[tuple[int, int]] = field(default_factory=deque)  # (second, count)
    _retries: deque[tuple[int, int]] = field(default_factory=deque)

    def note_request(self, now_s: float) -> None:
        """Count a request."""
        _count(self._requests, now_s)

    def take(self, percent: int, now_s: float) -> bool:
        """Spend one retry if the budget has it."""
        allowed = max(percent / 100 * _total(self._requests, now_s), FLOOR_PER_S * WINDOW_S)
        if percent == 0 or _total(self._retries, now_s) + 1 > allowed:
            return False
        _count(self._retries, now_s)
        return True


def _count(window: deque[tuple[int, int]], now_s: float) -> None:
    _expire(window, now_s)
    second = int(now_s)
    if window and window[-1][0] == second:
        window[-1] = (second, window[-1][1] + 1)
    else:
        window.append((second, 1))


def _total(window: deque[tuple[int, int]], now_s: float) -> int:
    _expire(window, now_s)
    return sum(count for _, count in window)


def _expire(window: deque[tuple[int, int]], now_s: float) -> None:
    while window and window[0][0] <= now_s - WINDOW_S:
        window.popleft()


@dataclass(slots=True)
class PoisonBook:
    """Bodies that were in flight at two connection losses: refused for 30 s."""

    _until_s: dict[str, float] = field(default_factory=dict)

    @property
    def anyone(self) -> bool:
        """Whether a body may be suspected: without any, no request's hash is needed."""
        return bool(self._until_s)

    def suspect(self, body_hash: str, now_s: float) -> None:
        """Refuse this body from now on."""
        if not body_hash:
            return
        self._until_s = {key: end for key, end in self._until_s.items() if end > now_s}
        if len(self._until_s) < _MAX_POISON:
            self._until_s[body_hash] = now_s + POISON_S

    def suspected(self, body_hash: str, now_s: float) -> bool:
        """Whether this body is refused now."""
        return bool(self._until_s) and self._until_s.get(body_hash, 0.0) > now_s


def may_retry(route: Route, outcome: Outcome, budget: RetryBudget, now_s: float) -> bool:
    """Decide, and count the retry in the route and the budget.

    What never ran goes to up to three further workers for free. What may have run is sent again
    only if it is idempotent, within the pool's attempts and budget.
    """
    ask = route.ask
    sent = outcome is not Outcome.UNREACHABLE
    if route.answered or now_s >= route.deadline_s or (sent and not ask.replayable):
        return False
    if outcome in NEVER_RAN:
        route.free_retries += 1
        return route.free_retries <= FREE_RETRIES
    if outcome not in {Outcome.LOST, Outcome.TIMEOUT} or not route.idempotent:
        return False
    if ask.call is Call.STREAM or route.losses >= POISON_LOSSES:
        return False
    if route.paid_retries >= route.retry.attempts:
        return False
    if not budget.take(route.retry.budget_percent, now_s):
        return False
    route.paid_retries += 1
    return True


def is_last(route: Route, outcome: Outcome) -> bool:
    """Whether the retry that `may_retry` just granted for `outcome` is the last of its kind."""
    if outcome in NEVER_RAN:
        return route.free_retries >= FREE_RETRIES
    return route.paid_retries >= route.retry.attempts
