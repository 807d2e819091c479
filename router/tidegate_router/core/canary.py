"""Draw of the revision: shuffled blocks of 100 tickets per pool (router.md section 5).

Every block of 100 requests holds exactly the weights; a periodic choice would lock onto clients
that alternate, a plain random draw strays by sqrt(n).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

BLOCK = 100
Uniform = Callable[[], float]


@dataclass(slots=True)
class TicketDraw:
    """The draw of one pool in one router."""

    _weights: dict[str, int] = field(default_factory=dict)
    _tickets: list[str] = field(default_factory=list)

    def draw(
        self, weights: Mapping[str, int], servable: Collection[str], uniform: Uniform
    ) -> str | None:
        """Return the revision of the next request; None when no revision has weight.

        `weights` in percent. A revision without any worker for the model gives its ticket to the
        others by their weights; when none is servable, the ticket counts and the request waits. A
        revision of weight 0 is never drawn.
        """
        wanted = {revision: weight for revision, weight in weights.items() if weight > 0}
        if not wanted:
            return None
        if wanted != self._weights or not self._tickets:
            self._weights, self._tickets = wanted, shuffled(tickets(wanted), uniform)
        revision = self._tickets.pop()
        if revision in servable:
            return revision
        return pick_by_weight(wanted, servable, uniform) or revision


def pick_by_weight(
    weights: Mapping[str, int], servable: Collection[str], uniform: Uniform
) -> str | None:
    """Return a servable revision in proportion to its weight without spending a ticket.

    For requests that no analysis counts (a version is pinned, metadata): they leave the blocks
    exact for those that it does. None when no servable revision has weight.
    """
    left = {name: weight for name, weight in weights.items() if weight > 0 and name in servable}
    return _proportional(left, uniform) if left else None


def tickets(weights: Mapping[str, int]) -> list[str]:
    """Return BLOCK tickets in proportion to positive weights, by largest remainder."""
    total = sum(weights.values())
    shares = {revision: weight * BLOCK / total for revision, weight in weights.items()}
    counts = {revision: int(share) for revision, share in shares.items()}
    by_rest = sorted(shares, key=lambda name: (counts[name] - shares[name], name))
    for revision in by_rest[: BLOCK - sum(counts.values())]:
        counts[revision] += 1
    return [revision for revision, count in counts.items() for _ in range(count)]


def shuffled(items: list[str], uniform: Uniform) -> list[str]:
    """Return a random order of `items` (Fisher-Yates)."""
    mixed = list(items)
    for last in range(len(mixed) - 1, 0, -1):
        other = min(int(uniform() * (last + 1)), last)
        mixed[last], mixed[other] = mixed[other], mixed[last]
    return mixed


def _proportional(weights: Mapping[str, int], uniform: Uniform) -> str:
    point = uniform() * sum(weights.values())
    for revision, weight in weights.items():
        point -= weight
        if point < 0:
            return revision
    return next(reversed(list(weights)))
