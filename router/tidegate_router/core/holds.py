"""Requests that wait because every candidate is at its limit: small bounded FIFOs."""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

MAX_WAITING = 1000  # per (pool, revision, model)
MAX_HOLD_S = 1.0
Queue = tuple[str, str, str]  # pool UID, revision, model
Wake = Callable[[], None]


@dataclass(order=True, slots=True)
class _Waiting:
    number: int
    wake: Wake = field(compare=False)


@dataclass(slots=True)
class HoldBook:
    """Who waits, in order of arrival. A woken request that finds no slot takes its place again."""

    _queues: dict[Queue, list[_Waiting]] = field(default_factory=dict)

    def full(self, queue: Queue) -> bool:
        """Whether one more would be too many."""
        return len(self._queues.get(queue, ())) >= MAX_WAITING

    def ahead(self, queue: Queue, number: int) -> bool:
        """Whether somebody who came before `number` still waits."""
        waiting = self._queues.get(queue, ())
        return len(waiting) > 0 and waiting[0].number < number

    def park(self, queue: Queue, number: int, wake: Wake) -> None:
        """Let a request wait; `wake` is called at most once."""
        insort(self._queues.setdefault(queue, []), _Waiting(number, wake))

    def unpark(self, queue: Queue, number: int) -> None:
        """Take a request out, woken or not."""
        left = [item for item in self._queues.get(queue, ()) if item.number != number]
        if left:
            self._queues[queue] = left
        else:
            self._queues.pop(queue, None)

    def wake_first(self, queue: Queue) -> None:
        """A slot is free: the one who waits longest may ask again."""
        waiting = self._queues.get(queue)
        if waiting:
            waiting[0].wake()

    def wake_all(self) -> None:
        """Tables changed: everybody may ask again."""
        for waiting in list(self._queues.values()):
            for item in list(waiting):
                item.wake()

    def waiting(self) -> dict[str, int]:
        """Return how many wait, by pool UID."""
        counts: dict[str, int] = {}
        for (uid, _, _), waiting in self._queues.items():
            counts[uid] = counts.get(uid, 0) + len(waiting)
        return counts
