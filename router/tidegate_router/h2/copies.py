"""A shadow copy of a call: sent whole to one worker, its answer awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tidegate_router.core.faults import Outcome
from tidegate_router.core.h2 import messages
from tidegate_router.core.h2.messages import MessageError
from tidegate_router.core.mirror import MAX_BODY_BYTES
from tidegate_router.core.request import Attempt
from tidegate_router.h2.attempt import Try
from tidegate_router.lane import clock

if TYPE_CHECKING:
    from tidegate_router.h2.call import Rpc
    from tidegate_router.h2.lane import GrpcLane


class Shadow:
    """Asks a worker the same again. Its time is watched by who awaits it."""

    def __init__(self, lane: GrpcLane, rpc: Rpc, sent: bytes) -> None:
        self._lane, self._rpc, self._sent = lane, rpc, sent
        self._parts: list[bytes] = []
        self._done: asyncio.Future[bytes | None] = lane.loop.create_future()

    async def ask(self, attempt: Attempt) -> bytes | None:
        """Return the answer's message once the worker has stopped; None without a good one."""
        trying = Try(self, attempt, clock())
        try:
            async with asyncio.timeout(attempt.timeout_s):
                self._lane.workers.to(attempt).begin(trying)
                return await self._done
        except TimeoutError:
            return None
        finally:
            if not trying.over:
                trying.give_up()

    def ready(self, attempt: Try) -> None:
        """Send the request."""
        renamed = bool(attempt.attempt.loaded_as)
        block = self._lane.request_block(self._rpc, attempt, renamed=renamed)
        client = self._rpc.client
        if renamed:
            limit_bytes = self._lane.settings.max_body_bytes
            attempt.rename(self._rpc.method.path, client.encoding, limit_bytes)
        attempt.start(block)
        try:
            attempt.send(self._sent, end=True)
        except MessageError:
            attempt.give_up()
            self.ended(attempt, Outcome.CLIENT, "unreadable")

    def forwarded(self, size_bytes: int) -> None:
        """Nobody waits for room."""

    def answer(self, attempt: Try, data: bytes) -> None:
        """Take some of the answer; one that is too large to compare is not kept for nothing."""
        self._parts.append(data)
        attempt.credit(len(data))
        if sum(map(len, self._parts)) > MAX_BODY_BYTES:
            attempt.give_up()
            self.ended(attempt, Outcome.CLIENT, "too large")

    def ended(self, attempt: Try, outcome: Outcome, detail: str) -> None:
        """Say what came."""
        del attempt, detail
        well = outcome is Outcome.OK
        if not self._done.done():
            self._done.set_result(messages.unwrap(b"".join(self._parts)) if well else None)
