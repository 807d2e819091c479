"""What may be sent again (router.md section 7): budget, poison, and the decision itself."""

from dataclasses import dataclass, field

from tidegate_router.core.faults import NEVER_RAN, Outcome
from tidegate_router.core.request import Call, Route
from tidegate_router.core.tally import WINDOW_S, Tally

FREE_RETRIES = 3
FLOOR_PER_S = 3.0
POISON_LOSSES = 2
POISON_S = 30.0
_MAX_POISON = 10_000


@dataclass(slots=True)
class RetryBudget:
    """Retries of one pool: at most `percent` of the requests of the last 10 s, and 3/s anyway.

    `tally` counts requests as `ok` and paid retries as `failed`.
    """

    tally: Tally = field(default_factory=Tally)

    def note_request(self, now_s: float) -> None:
        """Count a request."""
        self.tally.good(now_s)

    def take(self, percent: int, now_s: float) -> bool:
        """Spend one retry if the budget has it."""
        requests, retries = self.tally.lately(now_s)
        allowed = max(percent / 100 * requests, FLOOR_PER_S * WINDOW_S)
        if percent == 0 or retries + 1 > allowed:
            return False
        self.tally.fail(now_s)
        return True


Suspect = tuple[str, str, str, str]  # pool UID, revision, model, hash of the body


@dataclass(slots=True)
class PoisonBook:
    """Bodies that were in flight at two connection losses: refused for 30 s.

    A suspicion is of one revision's model: a canary that crashes on everything must not take a
    body away from stable, which answers it.
    """

    _until_s: dict[Suspect, float] = field(default_factory=dict)

    @property
    def anyone(self) -> bool:
        """Whether a body may be suspected: without any, no request's hash is needed."""
        return bool(self._until_s)

    def suspect(self, suspect: Suspect, now_s: float) -> None:
        """Refuse this body from now on; one without a hash never is."""
        if not suspect[-1]:
            return
        self.forget(now_s)
        if len(self._until_s) < _MAX_POISON:
            self._until_s[suspect] = now_s + POISON_S

    def forget(self, now_s: float) -> None:
        """Drop suspicions that are over; while any is left, every body's hash is made."""
        if self._until_s:
            self._until_s = {key: end for key, end in self._until_s.items() if end > now_s}

    def suspected(self, suspect: Suspect, now_s: float) -> bool:
        """Whether this body is refused now."""
        return bool(self._until_s) and self._until_s.get(suspect, 0.0) > now_s


def may_retry(
    route: Route, outcome: Outcome, budget: RetryBudget, now_s: float, *, trial: bool = False
) -> bool:
    """Decide, and count the retry in the route and the budget.

    What never ran goes to up to three further workers for free. What may have run is sent again
    only if it is idempotent, within the pool's attempts and budget; who lost it as a `trial` of an
    ejected worker pays nothing. A request of a sequence never goes elsewhere.
    """
    ask = route.ask
    sent = outcome is not Outcome.UNREACHABLE
    if (
        route.sequence
        or route.answered
        or now_s >= route.deadline_s
        or (sent and not ask.replayable)
    ):
        return False
    if outcome in NEVER_RAN:
        route.free_retries += 1
        return route.free_retries <= FREE_RETRIES
    if outcome not in {Outcome.LOST, Outcome.TIMEOUT} or not route.idempotent:
        return False
    if ask.call is Call.STREAM or route.losses >= POISON_LOSSES:
        return False
    if trial and outcome is Outcome.TIMEOUT:
        return True
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
