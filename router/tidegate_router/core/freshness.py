"""How far published scores are trusted (router.md section 3).

A score's age = its age when the table was written + seconds since the last proof that the
operator's score loop lives (a new sequence, or a renewal of the Lease) + the oldest score change
that waited for the write budget (the Lease's annotation). Clocks of two machines are never
compared.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

TRUSTED_S = 15.0
WORTHLESS_S = 45.0


def trust(age_s: float) -> float:
    """Return f, 0..1: 1 up to 15 s, linear to 0 at 45 s, 0 for what is no number."""
    if not age_s >= 0:  # also NaN
        return 0.0
    if age_s <= TRUSTED_S:
        return 1.0
    return max(0.0, (WORTHLESS_S - age_s) / (WORTHLESS_S - TRUSTED_S))


@dataclass(slots=True)
class ProofOfLife:
    """When the score loop last showed that it lives. Without proof scores are worth nothing."""

    proven_s: float | None = None
    lag_s: float = 0.0
    _lease: str = ""

    def sequence_advanced(self, now_s: float) -> None:
        """A pool's table came with a new sequence from the API server."""
        self.proven_s = now_s

    def lease_seen(self, renew_time: str, lag_ms: str, now_s: float) -> bool:
        """Take the Lease's renewTime and score-lag-ms; True when it was renewed since last seen.

        Only a change proves life: the first reading may be of a dead operator.
        """
        renewed = bool(self._lease) and bool(renew_time) and renew_time != self._lease
        self._lease = renew_time or self._lease
        self.lag_s = int(lag_ms) / 1000 if lag_ms.isascii() and lag_ms.isdigit() else 0.0
        if renewed:
            self.proven_s = now_s
        return renewed

    def silence_s(self, now_s: float) -> float:
        """Return seconds since the last proof; infinite without one."""
        return math.inf if self.proven_s is None else max(0.0, now_s - self.proven_s)

    def trusts(
        self, ages_when_written_s: Mapping[str, float | None], now_s: float
    ) -> dict[str, float]:
        """Return f of each worker's score."""
        base_s = self.age_s(0.0, now_s)
        return {
            worker: 1.0
            if 0 <= (age_s := base_s + (written_s or 0.0)) <= TRUSTED_S
            else trust(age_s)
            for worker, written_s in ages_when_written_s.items()
        }

    def age_s(self, age_when_written_s: float | None, now_s: float) -> float:
        """Return the age of one worker's score now."""
        return (age_when_written_s or 0.0) + self.silence_s(now_s) + self.lag_s
