"""Where the requests of a sequence go: always to the worker that holds its state.

A new sequence draws revision and worker by rendezvous hashing (Thaler and Ravishankar 1998), so
every router chooses the same without talking; weighted for revisions, where a changed weight then
moves only the share that it must. What was chosen is remembered, so neither new weights nor new
workers move a sequence that runs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

IDLE_S = 60.0  # a sequence that rests for longer may go elsewhere
MAX_KNOWN = 100_000
Key = tuple[str, str, str]  # pool UID, model, sequence id
_BITS = 64


@dataclass(slots=True, eq=False)
class Place:
    """Where one sequence lives; without worker until its first request went to one."""

    revision: str
    worker: str = ""
    seen_s: float = 0.0


@dataclass(slots=True)
class SequenceBook:
    """The sequences that this router saw lately, the longest unseen first."""

    _places: dict[Key, Place] = field(default_factory=dict)

    def place(self, key: Key, now_s: float) -> Place | None:
        """Return where a sequence lives, and note that it goes on."""
        place = self._places.pop(key, None)
        if place is None or now_s - place.seen_s > IDLE_S:
            return None
        place.seen_s = now_s
        self._places[key] = place
        return place

    def settle(self, key: Key, revision: str, now_s: float) -> Place:
        """Note a new sequence; the one unseen for longest makes room."""
        if len(self._places) >= MAX_KNOWN:
            del self._places[next(iter(self._places))]
        place = self._places[key] = Place(revision, seen_s=now_s)
        return place

    def count(self) -> int:
        """Return how many are known."""
        return len(self._places)

    def forget(self, now_s: float) -> None:
        """Drop sequences that rest for too long."""
        for key, place in list(self._places.items()):
            if now_s - place.seen_s <= IDLE_S:
                return
            del self._places[key]


def by_weight(weights: Mapping[str, int], sequence: str) -> str | None:
    """Return the revision for a new sequence; None when none has weight."""
    drawn = {name: weight for name, weight in weights.items() if weight > 0}
    if not drawn:
        return None
    return max(drawn, key=lambda name: (-drawn[name] / math.log(_unit(name, sequence)), name))


def in_order(workers: Iterable[str], revision: str, sequence: str) -> list[str]:
    """Return workers in the order in which a new sequence tries them."""
    return sorted(workers, key=lambda one: (_hash(one, revision, sequence), one))


def _unit(*parts: str) -> float:
    """Return a number in (0, 1) for some texts."""
    return float((_hash(*parts) + 0.5) / 2**_BITS)


def _hash(*parts: str) -> int:
    text = "\0".join(parts).encode()
    return int.from_bytes(blake2b(text, digest_size=_BITS // 8).digest())
