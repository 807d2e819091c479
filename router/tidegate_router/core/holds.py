"""Requests that wait because every candidate is at its limit: small bounded FIFOs."""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, field

from tidegate_router.core.request import Queue, Route

MAX_WAITING = 1000  # per (pool, revision, model)
MAX_HOLD_S = 1.0
Wake = Callable[[], None]


@dataclass(order=True, slots=True)
class _Waiting:
    number: int
    route: Route = field(compare=False)
    wake: Wake = field(compare=False)


@dataclass(slots=True)
class HoldBook:
    """Who waits, in order of arrival.

    A woken request asks again at once; whoever comes later lets those wait who were not woken yet.
    """

    _queues: dict[Queue, list[_Waiting]] = field(default_factory=dict)

    def full(self, queue: Queue) -> bool:
        """Whether one more would be too many."""
        return len(self._queues.get(queue, ())) >= MAX_WAITING

    def ahead(self, route: Route) -> bool:
        """Whether somebody who came before this request still waits for a wake-up."""
        waiting = self._queues.get(route.queue, ())
        return any(not item.route.woken for item in waiting if item.number < route.number)

    def anyone(self, queue: Queue) -> bool:
        """Whether somebody waits."""
        return queue in self._queues

    def park(self, route: Route, wake: Wake) -> None:
        """Let a request wait; `wake` is called at most once."""
        route.woken = False
        insort(self._queues.setdefault(route.queue, []), _Waiting(route.number, route, wake))

    def unpark(self, route: Route) -> None:
        """Take a request out, woken or not."""
        waiting = self._queues.get(route.queue, ())
        left = [item for item in waiting if item.route is not route]
        if left:
            self._queues[route.queue] = left
        else:
            self._queues.pop(route.queue, None)

    def wake_first(self, queue: Queue) -> None:
        """A slot is free: the one who waits longest may ask again."""
        for item in self._queues.get(queue, ()):
            if not item.route.woken:
                _wake(item)
                return

    def wake_all(self) -> None:
        """Tables changed: everybody may ask again."""
        for waiting in list(self._queues.values()):
            for item in list(waiting):
                if not item.route.woken:
                    _wake(item)

    def waiting(self) -> dict[str, int]:
        """Return how many wait, by pool UID."""
        counts: dict[str, int] = {}
        for (uid, _, _), waiting in self._queues.items():
            counts[uid] = counts.get(uid, 0) + len(waiting)
        return counts


def _wake(item: _Waiting) -> None:
    item.route.woken = True
    item.wake()
