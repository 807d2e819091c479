"""Shadow copies: which requests are copied to a canary, within which bounds, and what was found.

A copy never delays or fails its request: it takes a slot only if one is free, waits for nothing,
is sent once, and is dropped (`skipped`) rather than queued. Analysis of traffic counts none of it.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_api.routerstate import ShadowState
from tidegate_router.core.canary import BLOCK, TicketDraw, Uniform

MAX_IN_FLIGHT = 16  # per pool
MAX_HELD_BYTES = 64 * 1024 * 1024  # request bodies of all copies
MAX_BODY_BYTES = 1024 * 1024
_COPY, _LEAVE = "copy", "leave"


class Judged(StrEnum):
    """What became of a copy."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    FAILED = "failed"  # no good answer where the other revision gave one
    SKIPPED = "skipped"  # not sent, too large, or nothing to compare with


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowKey:
    """What comparisons are counted for; `revision` is the one that gets the copies."""

    uid: str
    namespace: str
    pool: str
    revision: str
    model: str


@dataclass(slots=True)
class _Counts:
    judged: dict[Judged, int] = field(default_factory=dict)
    max_abs_difference: float = 0.0

    def of(self, *judged: Judged) -> int:
        return sum(self.judged.get(one, 0) for one in judged)


@dataclass(slots=True)
class MirrorBook:
    """Draws, bounds and counts of all copies of this router."""

    _draws: dict[str, TicketDraw] = field(default_factory=dict)  # by pool UID
    _in_flight: dict[str, int] = field(default_factory=dict)
    _held_bytes: int = 0
    _counts: dict[ShadowKey, _Counts] = field(default_factory=dict)

    def drawn(self, uid: str, percent: int, uniform: Uniform) -> bool:
        """Whether the next request of a pool is copied: exactly `percent` of each 100."""
        weights = {_COPY: percent, _LEAVE: BLOCK - percent}
        return self._draws.setdefault(uid, TicketDraw()).draw(weights, weights, uniform) == _COPY

    def room(self, uid: str, size_bytes: int) -> bool:
        """Whether one more copy is within the bounds."""
        return (
            size_bytes <= MAX_BODY_BYTES
            and self._in_flight.get(uid, 0) < MAX_IN_FLIGHT
            and self._held_bytes + size_bytes <= MAX_HELD_BYTES
        )

    def begin(self, uid: str, size_bytes: int) -> None:
        """A copy is on its way."""
        self._in_flight[uid] = self._in_flight.get(uid, 0) + 1
        self._held_bytes += size_bytes

    def end(self, uid: str, size_bytes: int) -> None:
        """Its worker has stopped."""
        left = self._in_flight.pop(uid, 0) - 1
        if left > 0:
            self._in_flight[uid] = left
        self._held_bytes -= size_bytes

    def count(self, key: ShadowKey, judged: Judged, difference: float = 0.0) -> None:
        """Count what became of a copy."""
        counts = self._counts.setdefault(key, _Counts())
        counts.judged[judged] = counts.of(judged) + 1
        counts.max_abs_difference = max(counts.max_abs_difference, difference)

    def states(self) -> list[ShadowState]:
        """Return all counts as /v1/state shows them."""
        return [
            ShadowState(
                namespace=key.namespace,
                pool=key.pool,
                uid=key.uid,
                revision=key.revision,
                model=key.model,
                compared=counts.of(Judged.AGREED, Judged.DISAGREED),
                disagreed=counts.of(Judged.DISAGREED),
                failed=counts.of(Judged.FAILED),
                skipped=counts.of(Judged.SKIPPED),
                max_abs_difference=counts.max_abs_difference,
            )
            for key, counts in self._counts.items()
        ]

    def forget_except(self, uids: set[str]) -> None:
        """Drop what is known of pools that are gone."""
        self._counts = {key: one for key, one in self._counts.items() if key.uid in uids}
        self._draws = {uid: draw for uid, draw in self._draws.items() if uid in uids}
