"""Workers that are many times slower than their peers: better waited past than used.

A free slot of a slow worker is no gain while a fast one comes free sooner: with two servers of
different speed the best rule is a threshold on the queue (Lin and Kumar 1984). So a worker whose
latency is FACTOR times that of its revision and class gets only trials, one at a time and at most
one in PACE requests, and whoever waited for a slot as long as a usual request takes. GOOD trials
in a row, and it counts as one that was never asked.
"""

from collections.abc import Iterable, Mapping
from statistics import median_low

from tidegate_router.core.candidate import Candidate
from tidegate_router.core.ewma import PeakLatency
from tidegate_router.core.slot import Slot

FACTOR = 4.0
_GOOD_FACTOR = 2.0
GOOD = 3
PACE = 200
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 10.0
_LEAST_S = 0.001  # below that a difference is noise
_FEWEST = 2


def typical_s(candidates: Iterable[Candidate]) -> dict[str, float]:
    """Return the usual latency of each class of which two workers or more were measured."""
    known: dict[str, list[float]] = {}
    for one in candidates:
        value_s = one.slot.latency.value_s
        if value_s is not None:
            known.setdefault(one.worker.accelerator, []).append(value_s)
    return {
        accelerator: max(_LEAST_S, median_low(values))
        for accelerator, values in known.items()
        if len(values) >= _FEWEST
    }


def mark(candidates: Iterable[Candidate], usual_s: Mapping[str, float]) -> None:
    """Mark who is slow now. Who was marked gets out by its trials, or by slower peers."""
    for one in candidates:
        slot, usual = one.slot, usual_s.get(one.worker.accelerator)
        value_s = slot.latency.value_s
        if usual is None or value_s is None:
            slot.slow = False
        elif value_s > FACTOR * usual:
            slot.slow = True
        elif value_s <= _GOOD_FACTOR * usual:
            slot.slow = False


def pause_s(requests: int, window_s: float) -> float:
    """Return the time between two trials where so many requests came within a window."""
    if requests <= 0:
        return _LONGEST_PAUSE_S
    return min(_LONGEST_PAUSE_S, max(_SHORTEST_PAUSE_S, PACE * window_s / requests))


def note(slot: Slot, latency_s: float, usual_s: float | None) -> None:
    """Take a good answer of a slow worker."""
    good = usual_s is not None and latency_s <= _GOOD_FACTOR * usual_s
    slot.good_trials = slot.good_trials + 1 if good else 0
    if slot.good_trials >= GOOD:
        slot.slow, slot.good_trials = False, 0
        slot.latency = PeakLatency()
