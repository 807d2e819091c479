"""The response cache in the aiohttp lane."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from aiohttp import web

from tidegate_router.adapters.upstream import WorkerAnswer, WorkerRequest
from tidegate_router.cached import Cached, question
from tidegate_router.core.cache import Flight, Follow, Hit, forbids
from tidegate_router.core.request import Route

HttpCached = Cached[WorkerAnswer]
HttpFlight = Flight[WorkerAnswer]
Alone = Callable[[HttpFlight | None], Awaitable[web.Response]]


class Repeated(NamedTuple):
    """An answer that is given again. `how`: the value of header x-tidegate-cache."""

    answer: WorkerAnswer
    how: str
    age_s: float


async def through_cache(
    cached: HttpCached, route: Route, work: WorkerRequest, request: web.Request, alone: Alone
) -> web.Response | Repeated:
    """Answer from memory, with an equal request's answer, or by `alone(flight)`, which keeps it."""
    body = work.body or b""
    asked = question(route, work.target, lambda name: request.headers.getall(name, ()), body)
    found = cached.look(route, asked) if asked is not None else None
    if isinstance(found, Hit):
        return Repeated(found.answer, "hit", found.age_s)
    if isinstance(found, Follow):
        answer = await _follow(cached, route, found.flight)
        return await alone(None) if answer is None else Repeated(answer, "coalesced", 0.0)
    if found is None:
        return await alone(None)
    try:
        return await alone(found.flight)
    finally:
        cached.cache.fail(found.flight)


async def _follow(cached: HttpCached, route: Route, flight: HttpFlight) -> WorkerAnswer | None:
    landed: asyncio.Future[WorkerAnswer | None] = asyncio.get_running_loop().create_future()

    def notify(answer: WorkerAnswer | None) -> None:
        if not landed.done():
            landed.set_result(answer)

    number = cached.follow(route, flight, notify)
    try:
        return await landed
    finally:
        cached.cache.leave(flight, number)


def keep(cached: HttpCached, route: Route, flight: HttpFlight, answer: WorkerAnswer) -> None:
    """Give a leader's answer to its followers, and keep it, if it is one to repeat."""
    told = [value for name, value in answer.headers if name.lower() == "cache-control"]
    if answer.status == 200 and not forbids(told):
        size_bytes = len(answer.body) + sum(len(n) + len(v) for n, v in answer.headers)
        cached.answered(route, flight, answer, size_bytes)
