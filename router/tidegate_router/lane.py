"""What the lanes (HTTP, gRPC) share: the clock, and waiting for a worker."""

import asyncio
import time

from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Route, Wait

clock = time.monotonic  # `now_s` of every call to the dispatcher; the loop's clock has only ms


async def acquire(dispatcher: Dispatcher, route: Route) -> Attempt | Refusal:
    """Return the next attempt of a request, after waiting in its queue if need be."""
    while True:
        found = dispatcher.next_attempt(route, clock())
        if not isinstance(found, Wait):
            return found
        await _wait(dispatcher, route, found.until_s)


async def _wait(dispatcher: Dispatcher, route: Route, until_s: float) -> None:
    woken = asyncio.Event()
    dispatcher.park(route, woken.set)
    try:
        async with asyncio.timeout(max(0.0, until_s - clock())):
            await woken.wait()
    except TimeoutError:
        pass
    except asyncio.CancelledError:
        dispatcher.abandon(route)
        raise
    dispatcher.unpark(route)
