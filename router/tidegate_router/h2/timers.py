"""Deadlines of many calls on one timer: a call costs two dictionary look-ups, not a loop's timer.

They come up to TICK_S late, never early.
"""

import asyncio
from typing import Protocol

from tidegate_router.lane import clock

TICK_S = 0.01


class Timed(Protocol):
    """What has a deadline; `tick` is the wheel's own."""

    tick: int

    def on_due(self) -> None:
        """The deadline is over."""


class Wheel:
    """The deadlines of one lane."""

    __slots__ = ("_due", "_last", "_loop", "_timer")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[int, set[Timed]] = {}
        self._last = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, item: Timed, due_s: float) -> None:
        """Set or move a deadline, in seconds of the lane's clock."""
        tick = int(due_s / TICK_S) + 1
        if item.tick:
            self.drop(item)
        bucket = self._due.get(tick)
        if bucket is None:
            bucket = self._due[tick] = set()
            if self._timer is None:
                self._last = int(clock() / TICK_S) - 1
                self._timer = self._loop.call_later(TICK_S, self._turn)
        bucket.add(item)
        item.tick = tick

    def drop(self, item: Timed) -> None:
        """Take a deadline away."""
        bucket = self._due.get(item.tick)
        if bucket is not None:
            bucket.discard(item)
        item.tick = 0

    def close(self) -> None:
        """Forget everything."""
        self._due.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        now = int(clock() / TICK_S)
        due = self._due
        span = range(self._last + 1, now + 1)
        ticks = [tick for tick in due if tick <= now] if len(span) > len(due) else span
        self._last = now
        for tick in ticks:
            for item in due.pop(tick, ()):
                item.tick = 0
                item.on_due()
        self._timer = self._loop.call_later(TICK_S, self._turn) if due else None
