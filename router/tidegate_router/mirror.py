"""Sends shadow copies beside the clients' requests, and counts how their answers compare."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tidegate_router.core import compare
from tidegate_router.core.copies import Copy, end_copy, plan_copy
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.mirror import MAX_BODY_BYTES, Judged
from tidegate_router.core.request import Attempt, Route
from tidegate_router.core.tensors import Answer
from tidegate_router.lane import clock
from tidegate_router.telemetry import Telemetry

_log = logging.getLogger(__name__)
_AT_ONCE_BYTES = 16 * 1024  # answers beyond this are compared in a thread
Ask = Callable[[Attempt], Awaitable[Answer | None]]


@dataclass(slots=True)
class Mirror:
    """The copies of one lane that are on their way."""

    dispatcher: Dispatcher
    telemetry: Telemetry
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    def offer(
        self, route: Route, answered: Attempt, size_bytes: int, stable: Answer, ask: Ask
    ) -> None:
        """Copy a request that was answered well, if the table asks for it; returns at once.

        `ask` sends it to a worker and returns its answer once the worker has stopped, None
        without a good one; it raises nothing.
        """
        copy = plan_copy(self.dispatcher, route, answered, size_bytes, clock())
        if isinstance(copy, Copy):
            task = asyncio.create_task(self._run(copy, stable, ask))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif copy is not None:
            self.telemetry.mirrored.labels(copy.value).inc()

    def skip(self, route: Route, answered: Attempt) -> None:
        """Count a request whose answer was too large to be held, if it would have been copied."""
        copy = plan_copy(self.dispatcher, route, answered, MAX_BODY_BYTES + 1, clock())
        if isinstance(copy, Judged):
            self.telemetry.mirrored.labels(copy.value).inc()

    async def close(self) -> None:
        """Give up what is on its way."""
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, copy: Copy, stable: Answer, ask: Ask) -> None:
        """A copy that is late counts as failed at once, and holds its slot until it ends."""
        asking = asyncio.ensure_future(ask(copy.attempt))
        try:
            done, _ = await asyncio.wait({asking}, timeout=copy.attempt.timeout_s)
            answer = asking.result() if done else None
            if answer is None:
                self._count(copy, Judged.FAILED)
            else:
                await self._compare(copy, stable, answer)
            await asyncio.wait({asking})
        finally:
            asking.cancel()
            end_copy(self.dispatcher, copy)

    async def _compare(self, copy: Copy, stable: Answer, answer: Answer) -> None:
        size_bytes = max(len(stable.body), len(answer.body))
        if size_bytes > MAX_BODY_BYTES:
            self._count(copy, Judged.SKIPPED)
            return
        if size_bytes <= _AT_ONCE_BYTES:
            found = compare.judge(stable, answer)
        else:
            found = await asyncio.to_thread(compare.judge, stable, answer)
        if found is None:
            self._count(copy, Judged.SKIPPED)
            return
        judged = Judged.DISAGREED if found.reason else Judged.AGREED
        self._count(copy, judged, found.difference)
        if found.reason:
            known = {
                "object": f"{copy.key.namespace}/{copy.key.pool}",
                "revision": copy.key.revision,
            }
            _log.debug("a mirrored answer differs: %s", found.reason, extra=known)

    def _count(self, copy: Copy, judged: Judged, difference: float = 0.0) -> None:
        self.dispatcher.mirrors.count(copy.key, judged, difference)
        self.telemetry.mirrored.labels(judged.value).inc()
