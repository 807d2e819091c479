"""Draw of the revision: shuffled blocks of 100 tickets per pool (router.md section 5).

Every block of 100 requests holds exactly the weights; a periodic choice would lock onto clients
that alternate, a plain random draw strays by sqrt(n). What a block that is cut short by new
weights left undone goes into the next block, as far as the new weights have room for it: weights
that move often add up to no drift, and a small weight never pays for a larger one before it with
more than one block.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

BLOCK = 100
Uniform = Callable[[], float]


@dataclass(slots=True)
class TicketDraw:
    """The draw of one pool in one router."""

    _weights: dict[str, int] = field(default_factory=dict)
    _tickets: list[str] = field(default_factory=list)
    _rounded: dict[str, float] = field(default_factory=dict)  # off the block's tickets
    _source: Mapping[str, int] | None = None  # what `_weights` was read from

    def draw(
        self, weights: Mapping[str, int], servable: Collection[str], uniform: Uniform
    ) -> str | None:
        """Return the revision of the next request; None when no revision has weight.

        `weights` in percent; one object never changes its content. A revision without any worker
        for the model gives its ticket to the others by their weights; when none is servable, the
        ticket counts and the request waits. A revision of weight 0 is never drawn.
        """
        if (weights is not self._source or not self._tickets) and not self._ready(weights, uniform):
            return None
        revision = self._tickets.pop()
        if revision in servable:
            return revision
        return pick_by_weight(weights, servable, uniform) or revision

    def _ready(self, weights: Mapping[str, int], uniform: Uniform) -> bool:
        """Have tickets of these weights; False when nobody has weight."""
        wanted = {revision: weight for revision, weight in weights.items() if weight > 0}
        if wanted and (wanted != self._weights or not self._tickets):
            self._refill(wanted, uniform)
        self._source = weights if wanted else None
        return bool(wanted)

    def _refill(self, wanted: dict[str, int], uniform: Uniform) -> None:
        due = _shares(wanted, self._owed())
        block = tickets(wanted, self._owed())
        self._rounded = {revision: due[revision] - block.count(revision) for revision in due}
        self._weights = wanted
        self._tickets = shuffled(block, uniform) if len(wanted) > 1 else block

    def _owed(self) -> dict[str, float]:
        """Return the tickets that each revision got too few of in the block that is cut short."""
        left = len(self._tickets) / BLOCK
        total = sum(self._weights.values())
        return {
            revision: self._tickets.count(revision)
            - weight * BLOCK / total * left
            + self._rounded.get(revision, 0.0)
            for revision, weight in self._weights.items()
        }


def pick_by_weight(
    weights: Mapping[str, int], servable: Collection[str], uniform: Uniform
) -> str | None:
    """Return a servable revision in proportion to its weight without spending a ticket.

    For requests that no analysis counts (a version is pinned, metadata): they leave the blocks
    exact for those that it does. None when no servable revision has weight.
    """
    left = {name: weight for name, weight in weights.items() if weight > 0 and name in servable}
    return _proportional(left, uniform) if left else None


def tickets(weights: Mapping[str, int], owed: Mapping[str, float] | None = None) -> list[str]:
    """Return BLOCK tickets in proportion to positive weights, by largest remainder.

    `owed` tickets are added first; nobody gets fewer than none.
    """
    shares = _shares(weights, owed or {})
    counts = {revision: int(share) for revision, share in shares.items()}
    by_rest = sorted(shares, key=lambda name: (counts[name] - shares[name], name))
    for revision in by_rest[: BLOCK - sum(counts.values())]:
        counts[revision] += 1
    return [revision for revision, count in counts.items() for _ in range(count)]


def _shares(weights: Mapping[str, int], owed: Mapping[str, float]) -> dict[str, float]:
    """Return what each revision is due of the next block, summing to BLOCK."""
    return _scaled(
        {
            revision: max(0.0, share + owed.get(revision, 0.0))
            for revision, share in _scaled(weights).items()
        }
    )


def _scaled(shares: Mapping[str, float]) -> dict[str, float]:
    """Return shares that sum to BLOCK; what sums to nothing stays even."""
    total = sum(shares.values())
    if total <= 0:
        return {revision: BLOCK / len(shares) for revision in shares}
    return {revision: share * BLOCK / total for revision, share in shares.items()}


def shuffled(items: list[str], uniform: Uniform) -> list[str]:
    """Return a random order of `items` (Fisher-Yates)."""
    mixed = list(items)
    for last in range(len(mixed) - 1, 0, -1):
        other = min(int(uniform() * (last + 1)), last)
        mixed[last], mixed[other] = mixed[other], mixed[last]
    return mixed


def is_canary(revision: str, weights: Mapping[str, int], guarded: Collection[str]) -> bool:
    """Whether a revision is on trial: a guard names it, or another has more weight."""
    return revision in guarded or weights.get(revision, 0) < max(weights.values(), default=0)


def rescuer(revision: str, weights: Mapping[str, int], guarded: Collection[str]) -> str | None:
    """Return the revision that may take the last attempt of a failed request of a canary.

    That of the highest other weight; None for a request of no canary, or where no other revision
    gets requests: what has no weight may have been aborted.
    """
    others = {name: weight for name, weight in weights.items() if weight > 0 and name != revision}
    if not others or not is_canary(revision, weights, guarded):
        return None
    return max(others, key=lambda name: (others[name], name))


def without(weights: Mapping[str, int], dropped: Iterable[str]) -> dict[str, int]:
    """Return the weights once some revisions were dropped: 0 for these, as before for the others.

    Where nothing would be left, the one other revision takes all; without exactly one nothing
    changes: dropping a canary must be no outage.
    """
    gone = set(dropped)
    left = {name: 0 if name in gone else weight for name, weight in weights.items()}
    if any(left.values()) or not any(weights.values()):
        return left
    others = [name for name in weights if name not in gone]
    return {**left, others[0]: BLOCK} if len(others) == 1 else dict(weights)


def _proportional(weights: Mapping[str, int], uniform: Uniform) -> str:
    point = uniform() * sum(weights.values())
    for revision, weight in weights.items():
        point -= weight
        if point < 0:
            return revision
    return next(reversed(list(weights)))
