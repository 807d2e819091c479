"""Deadlines of many connections with one timer.

A connection has one deadline at a time and moves it with every request. It is looked at when the
earliest one it ever had is due, and put back if it moved later: in the common case a new deadline
costs a comparison, where a timer of the loop costs a heap and an object.
"""

import asyncio
from abc import abstractmethod
from math import inf

from tidegate_router.lane import clock

TICK_S = 0.02


class Timed:
    """What has one deadline: `due_s`, `inf` for none."""

    __slots__ = ("_wheel", "due_s", "looked_at", "seen_s")

    def __init__(self, wheel: "Wheel") -> None:
        self._wheel = wheel
        self.due_s = inf
        self.seen_s = inf  # a deadline from then on needs nothing but to be noted
        self.looked_at = -1  # the wheel's slot that holds it; -1: none

    def set_due(self, due_s: float) -> None:
        """Replace the deadline."""
        self.due_s = due_s
        if due_s < self.seen_s:
            self._wheel.put(self)

    @abstractmethod
    def on_due(self, now_s: float) -> None:
        """The deadline is over; it is `inf` again unless this sets another."""


class Wheel:
    """The deadlines of one process. Nothing is called before its time, nor 2 TICK_S after it."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[Timed, None]] = {}
        self._turned = int(clock() / TICK_S)
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to turn, in the running loop."""
        self._turn()

    def stop(self) -> None:
        """Call nothing any more."""
        if self._handle is not None:
            self._handle.cancel()

    def put(self, timed: Timed) -> None:
        """Look at it when its deadline is due."""
        if timed.looked_at >= 0:
            self._slots[timed.looked_at].pop(timed, None)
        at = timed.looked_at = max(int(timed.due_s / TICK_S), self._turned) + 1
        timed.seen_s = (at - 1) * TICK_S
        slot = self._slots.get(at)
        if slot is None:
            slot = self._slots[at] = {}
        slot[timed] = None

    def forget(self, timed: Timed) -> None:
        """Drop what ended."""
        timed.due_s = inf
        if timed.looked_at >= 0:
            self._slots[timed.looked_at].pop(timed, None)
            _unseen(timed)

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(TICK_S, self._turn)
        now_s = clock()
        until = int(now_s / TICK_S)
        if until - self._turned > len(self._slots):
            slots = sorted(at for at in self._slots if at <= until)
        else:
            slots = list(range(self._turned + 1, until + 1))
        self._turned = max(until, self._turned)
        for at in slots:
            for timed in self._slots.pop(at, ()):
                _unseen(timed)
                self._look(timed, now_s)

    def _look(self, timed: Timed, now_s: float) -> None:
        if timed.due_s <= now_s:
            timed.due_s = inf
            timed.on_due(now_s)
        elif timed.due_s != inf:
            self.put(timed)


def _unseen(timed: Timed) -> None:
    timed.looked_at, timed.seen_s = -1, inf
