"""One stream on its way from a worker to a client; subclasses translate it."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import ClassVar

from aiohttp import web

from tidegate_api import names
from tidegate_router.adapters.upstream import WorkerAnswer
from tidegate_router.core.faults import Outcome
from tidegate_router.core.request import Ending
from tidegate_router.lane import clock, request_id

_LOOK_S = 0.25
_IDENTITY = web.RequestKey("identity", str)


def identity(request: web.Request) -> str:
    """Return the request's id: the client's, or a new one."""
    known = request.get(_IDENTITY)
    if known is None:
        known = request_id(request.headers.get(names.HEADER_REQUEST_ID, ""))
        request[_IDENTITY] = known
    return known


@dataclass(slots=True)
class Relay:
    """One attempt's stream: either `response` has begun, or `answer` is a whole one.

    `live`: its first byte goes to the client, so nothing can be retried after it, and the attempt's
    time runs only until then.
    """

    live: ClassVar[bool] = True

    request: web.Request
    started_s: float = field(default_factory=clock)
    response: web.StreamResponse | None = None
    answer: WorkerAnswer | None = None
    first_byte_s: float | None = None

    async def begin(self, response: web.StreamResponse) -> None:
        """Send the head."""
        self.response = response
        await response.prepare(self.request)

    async def write(self, piece: bytes) -> bool:
        """Send a piece of the body; False when no more is wanted of the worker."""
        if self.response is not None:
            await self.response.write(piece)
        return True

    async def complete(self) -> Outcome:
        """Take note that the worker's stream is whole, or no longer wanted; return how it went."""
        return Outcome.OK

    def cut(self) -> None:
        """Break the connection: a proper end would call a truncated stream complete."""
        if self.response is not None and self.request.transport is not None:
            self.request.transport.abort()

    def ended(self, outcome: Outcome, detail: str = "") -> Ending:
        """Return the attempt's end; its latency is the time to the first byte."""
        until_s = clock() if self.first_byte_s is None else self.first_byte_s
        return Ending(outcome=outcome, latency_s=until_s - self.started_s, detail=detail)


async def while_client_stays(relay: Relay, relaying: Coroutine[None, None, Ending]) -> Ending:
    """Relay until the end, or until _LOOK_S after the client left: the worker then hears of it."""
    task = asyncio.create_task(relaying)
    try:
        while relay.request.transport is not None:
            done, _ = await asyncio.wait({task}, timeout=_LOOK_S)
            if done:
                return task.result()
    finally:
        task.cancel()
    await asyncio.wait({task})
    return relay.ended(Outcome.CANCELLED)
