"""Order of those who wait for one (pool, model, revision).

Between tiers: start-time fair queueing (Goyal, Vin, Cheng 1996). Each tier with somebody waiting
has a start tag; the smallest is served, and grows by cost / weight. A tier that nobody waited in
begins at the virtual time, so it earns nothing by having been away. Over any span in which two
tiers wait all the time, cost served / weight differs by at most cost / weight of one request each:
no tier with a weight starves.

Inside a tier: the earliest end of patience first; while more than a tenth of those who leave do so
unserved (the workers became slower than admission thought), the newest first: the oldest are about
to give up anyway, and serving them last-minute would make all of them late.
"""

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate_router.core.queue.drain import DrainRate

Wake = Callable[[], None]
_FORGET_S = 1.0
_UNSERVED_RATIO = 0.1
_FEW = 4.0


@dataclass(slots=True, eq=False, kw_only=True)
class Waiting:
    """One who waits. `turn`: the last turn in which it had its chance and could not use it."""

    number: int  # order of arrival
    tier: str
    expires_s: float
    wake: Wake
    turn: int = -1
    woken: bool = False


@dataclass(slots=True)
class Departures:
    """How many left a tier lately, served or not."""

    served: float = 0.0
    unserved: float = 0.0
    _at_s: float = 0.0

    def note(self, now_s: float, *, served: bool) -> None:
        """Count one."""
        keep = math.exp(-max(0.0, now_s - self._at_s) / _FORGET_S)
        self.served = self.served * keep + served
        self.unserved = self.unserved * keep + (not served)
        self._at_s = now_s

    @property
    def overloaded(self) -> bool:
        """Whether more than a tenth leave unserved."""
        total = self.served + self.unserved
        return self.unserved >= _FEW and self.unserved > _UNSERVED_RATIO * total


@dataclass(slots=True)
class TierLine:
    """Those of one tier. `order` holds who may be woken, `members` everybody by number."""

    weight: float
    start: float = 0.0
    order: list[tuple[float, int]] = field(default_factory=list)
    members: dict[int, Waiting] = field(default_factory=dict)
    departures: Departures = field(default_factory=Departures)
    drain: DrainRate = field(default_factory=DrainRate)

    def before(self, expires_s: float) -> int:
        """Return how many go before a newcomer with this patience."""
        return bisect_left(self.order, (expires_s, math.inf))

    def first(self, turn: int) -> Waiting | None:
        """Return who is next of those that had no chance in this turn."""
        if self.departures.overloaded:
            newest = reversed(self.members.values())
            return next((one for one in newest if not one.woken and one.turn != turn), None)
        earliest = (self.members[number] for _, number in self.order)
        return next((one for one in earliest if one.turn != turn), None)


@dataclass(slots=True)
class FairQueue:
    """Who waits, over all tiers."""

    tiers: dict[str, TierLine] = field(default_factory=dict)
    virtual: float = 0.0
    _size: int = 0

    def __len__(self) -> int:
        """Return how many wait, woken ones included until they leave."""
        return self._size

    def join(self, one: Waiting, weight: float) -> None:
        """Add one to its tier, which has this weight from now on."""
        line = self.tier(one.tier, weight)
        if not line.members:
            line.start = max(line.start, self.virtual)
        line.members[one.number] = one
        insort(line.order, (one.expires_s, one.number))
        self._size += 1

    def leave(self, tier: str, number: int) -> Waiting | None:
        """Remove one, for whatever reason; None when it does not wait."""
        line = self.tiers.get(tier)
        one = line.members.pop(number, None) if line else None
        if line is None or one is None:
            return None
        self._size -= 1
        if not one.woken:
            self._drop_from_order(line, one)
        return one

    def move(self, one: Waiting, tier: str, weight: float, expires_s: float) -> None:
        """Let one wait in another tier, at the latest where its patience there ends."""
        self.leave(one.tier, one.number)
        one.tier, one.expires_s = tier, min(one.expires_s, expires_s)
        self.join(one, weight)

    def find(self, tier: str, number: int) -> Waiting | None:
        """Return one that waits and was not woken."""
        line = self.tiers.get(tier)
        one = line.members.get(number) if line else None
        return None if one is None or one.woken else one

    def choose(self, turn: int, cost_s: float) -> Waiting | None:
        """Mark the next one as woken and charge its tier; None when nobody is left to wake."""
        for line in sorted(self.tiers.values(), key=_start):
            one = line.first(turn) if line.order else None
            if one is not None:
                one.woken = True
                self._drop_from_order(line, one)
                self.virtual = max(self.virtual, line.start)
                line.start += cost_s / line.weight
                return one
        return None

    def charge(self, tier: str, cost_s: float) -> None:
        """Let a tier pay for one that was served out of turn, or (negative) get it back."""
        line = self.tiers.get(tier)
        if line is not None:
            line.start += cost_s / line.weight

    def note(self, tier: str, now_s: float, *, served: bool) -> None:
        """Count one that left."""
        line = self.tiers.get(tier)
        if line is None:
            return
        line.departures.note(now_s, served=served)
        if served:
            line.drain.departed(now_s)
        if not line.members:
            line.drain.close(now_s)

    def tier(self, name: str, weight: float) -> TierLine:
        """Return a tier, which has this weight from now on."""
        line = self.tiers.get(name)
        if line is None:
            line = self.tiers[name] = TierLine(weight)
        line.weight = weight
        return line

    def share_ratio(self, line: TierLine) -> float:
        """Return the part of the turns that a tier gets beside those that wait now."""
        others = sum(one.weight for one in self.tiers.values() if one.members and one is not line)
        return line.weight / (line.weight + others)

    def _drop_from_order(self, line: TierLine, one: Waiting) -> None:
        del line.order[bisect_left(line.order, (one.expires_s, one.number))]


def _start(line: TierLine) -> float:
    return line.start
