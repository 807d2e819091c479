"""Workers that cannot be reached at all (router.md section 7).

Down is never ignored, however few workers remain. A worker is down when a connect fails, or when
three connections in a row broke before any byte of an answer. After a backoff of 0.5 s, doubling
to 5 s, one real request tries it; only an answer brings it back.
"""

from dataclasses import dataclass, field

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 5.0
LOSSES = 3


@dataclass(slots=True)
class _Health:
    losses: int = 0
    until_s: float | None = None  # None: up
    backoff_s: float = 0.0
    trial: bool = False


@dataclass(slots=True)
class DownBook:
    """State per worker id; an unknown worker is up."""

    _workers: dict[str, _Health] = field(default_factory=dict)

    def usable(self, worker: str, now_s: float) -> bool:
        """Whether a request may go there: up, or due for its one trial."""
        health = self._workers.get(worker)
        if health is None or health.until_s is None:
            return True
        return now_s >= health.until_s and not health.trial

    def is_down(self, worker: str) -> bool:
        """Whether the worker waits for a trial that succeeds."""
        health = self._workers.get(worker)
        return health is not None and health.until_s is not None

    def back_at_s(self, worker: str) -> float | None:
        """Return when a worker that is down may be tried; None while up or on trial."""
        health = self._workers.get(worker)
        return None if health is None or health.trial else health.until_s

    def begin(self, worker: str) -> bool:
        """Note that a request goes there; True when it is the trial of a worker that is down."""
        health = self._workers.get(worker)
        if health is None or health.until_s is None:
            return False
        health.trial = True
        return True

    def answered(self, worker: str) -> None:
        """An answer, of whatever status: the worker is up."""
        self._workers.pop(worker, None)

    def unreachable(self, worker: str, now_s: float) -> None:
        """No connection: down, for twice as long as the last time."""
        health = self._workers.setdefault(worker, _Health())
        if health.until_s is not None and now_s < health.until_s and not health.trial:
            return  # several requests found out about the same failure
        doubled_s = health.backoff_s * 2 if health.until_s is not None else FIRST_BACKOFF_S
        health.backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, doubled_s))
        health.until_s = now_s + health.backoff_s
        health.trial = False

    def lost(self, worker: str, now_s: float) -> None:
        """A connection broke before an answer; the third in a row is as bad as no connection."""
        health = self._workers.setdefault(worker, _Health())
        health.losses += 1
        if health.losses >= LOSSES or health.trial:
            self.unreachable(worker, now_s)

    def ended_otherwise(self, worker: str) -> None:
        """A trial ended without saying anything (timeout, client gone): another may follow."""
        health = self._workers.get(worker)
        if health is not None:
            health.trial = False

    def forget_except(self, living: set[str]) -> None:
        """Drop the state of workers that no table has any more."""
        self._workers = {name: state for name, state in self._workers.items() if name in living}
