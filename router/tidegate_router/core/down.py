"""Workers that cannot be reached at all (router.md section 7).

Down is never ignored, however few workers remain. A worker is down when a connect fails, or when
three connections in a row broke before any byte of an answer. After a backoff of 0.5 s, doubling
to 5 s, one real request tries it; only an answer brings it back.
"""

from dataclasses import dataclass, field

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 5.0
LOSSES = 3


@dataclass(slots=True, eq=False)
class Health:
    """Whether one worker can be reached. `down` and `losses` are read on the hot path."""

    down: bool = False
    losses: int = 0  # connections in a row that broke
    until_s: float = 0.0  # while down: when one request may try it
    backoff_s: float = 0.0
    trial: bool = False

    def usable(self, now_s: float) -> bool:
        """Whether a request may go there: up, or due for its one trial."""
        return not self.down or (now_s >= self.until_s and not self.trial)

    def begin(self) -> bool:
        """Note that a request goes there; True when it is the trial of a worker that is down."""
        if self.down:
            self.trial = True
        return self.down

    def answered(self) -> None:
        """An answer, of whatever status: the worker is up."""
        self.down = self.trial = False
        self.losses, self.backoff_s = 0, 0.0

    def unreachable(self, now_s: float) -> None:
        """No connection: down, for twice as long as the last time."""
        if self.down and now_s < self.until_s and not self.trial:
            return  # several requests found out about the same failure
        doubled_s = self.backoff_s * 2 if self.down else FIRST_BACKOFF_S
        self.backoff_s = min(MAX_BACKOFF_S, max(FIRST_BACKOFF_S, doubled_s))
        self.until_s = now_s + self.backoff_s
        self.down, self.trial = True, False

    def lost(self, now_s: float) -> None:
        """A connection broke before an answer; the third in a row is as bad as no connection."""
        self.losses += 1
        if self.losses >= LOSSES or self.trial:
            self.unreachable(now_s)

    def ended_otherwise(self) -> None:
        """A trial ended without saying anything (timeout, client gone): another may follow."""
        self.trial = False


@dataclass(slots=True)
class DownBook:
    """Health by worker id; an unknown worker is up."""

    _workers: dict[str, Health] = field(default_factory=dict)

    def of(self, worker: str) -> Health:
        """Return a worker's health, the same object as long as the worker lives."""
        health = self._workers.get(worker)
        if health is None:
            health = self._workers[worker] = Health()
        return health

    def usable(self, worker: str, now_s: float) -> bool:
        """Whether a request may go there: up, or due for its one trial."""
        health = self._workers.get(worker)
        return health is None or health.usable(now_s)

    def is_down(self, worker: str) -> bool:
        """Whether the worker waits for a trial that succeeds."""
        health = self._workers.get(worker)
        return health is not None and health.down

    def back_at_s(self, worker: str) -> float | None:
        """Return when a worker that is down may be tried; None while up or on trial."""
        health = self._workers.get(worker)
        return None if health is None or health.trial or not health.down else health.until_s

    def begin(self, worker: str) -> bool:
        """Note that a request goes there; True when it is the trial of a worker that is down."""
        return self.of(worker).begin()

    def answered(self, worker: str) -> None:
        """An answer, of whatever status: the worker is up."""
        self.of(worker).answered()

    def unreachable(self, worker: str, now_s: float) -> None:
        """No connection: down, for twice as long as the last time."""
        self.of(worker).unreachable(now_s)

    def lost(self, worker: str, now_s: float) -> None:
        """A connection broke before an answer; the third in a row is as bad as no connection."""
        self.of(worker).lost(now_s)

    def forget_except(self, living: set[str]) -> None:
        """Drop the state of workers that no table has any more."""
        self._workers = {name: state for name, state in self._workers.items() if name in living}
