"""What the lanes (HTTP, gRPC) share: the clock, a request's id, and waiting for a worker."""

import asyncio
import re
import time
import uuid

from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Attempt, Route, Wait

clock = time.monotonic  # `now_s` of every call to the dispatcher; the loop's clock has only ms
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id(given: str) -> str:
    """Return a request's id: the client's if it is printable and short, else a new one."""
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


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
