"""A queue of keys: each key once, never twice at a time, later again when asked meanwhile."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
_log = logging.getLogger(__name__)


class WorkQueue(Generic[Key]):
    """`add` now or after a delay; `run` hands keys to a worker with bounded concurrency."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: dict[Key, float] = {}  # since when, loop time
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def oldest_wait_s(self) -> float:
        """Return how long the longest waiting key has waited for a worker."""
        now_s = asyncio.get_running_loop().time()
        return now_s - min(self._waiting.values(), default=now_s)

    def add(self, key: Key) -> None:
        """Ask for `key` as soon as possible; repeated asking counts once."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().time()
            self._queue.put_nowait(key)

    def add_after(self, key: Key, delay_s: float) -> None:
        """Ask for `key` in `delay_s` seconds, or earlier if that was asked before."""
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if known is not None and known.when() <= loop.time() + delay_s:
            return
        if known is not None:
            known.cancel()
        self._timers[key] = loop.call_later(delay_s, self._due, key)

    def armed(self, key: Key) -> bool:
        """Whether `key` will come by itself: it waits, is being worked on, or has a timer."""
        return key in self._waiting or key in self._running or key in self._timers

    async def run(self, work: Callable[[Key], Awaitable[None]], concurrency: int) -> None:
        """Work for ever; an error of `work` ends the whole queue."""
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._worker(work))

    async def _worker(self, work: Callable[[Key], Awaitable[None]]) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.pop(key, None)
            self._running.add(key)
            if timer := self._timers.pop(key, None):
                timer.cancel()
            try:
                await work(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)
