"""Use of the response cache by a lane, without tasks: every call returns at once.

if route.cache_ttl_s and (asked := ...):           # one attribute when nothing is cached
    found = cached.look(route, asked)
    Hit:    send found.answer, header names.HEADER_CACHE = hit
    Follow: number = cached.follow(route, found.flight, notify); notify(answer) sends it as
            coalesced, notify(None) goes on alone; a client that leaves, or a deadline that
            ends: cached.cache.leave(found.flight, number)
    Lead:   go on as usual (miss); cached.answered(...) at a complete 200, and in any case
            cached.cache.fail(flight) at the end. While flight.followers is not empty, a client
            that leaves must not end the attempt.
    None:   go on as usual
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from tidegate_router.core import tiers
from tidegate_router.core.cache import (
    Flight,
    Follow,
    Hit,
    Lead,
    Notify,
    Question,
    ResponseCache,
    cache_key,
    forbids,
    names_itself,
)
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.request import Call, Route
from tidegate_router.lane import clock
from tidegate_router.telemetry import Telemetry

AnswerT = TypeVar("AnswerT")
_HEADER_LENGTH = "inference-header-content-length"


def question(
    route: Route, path: str, headers: Callable[[str], Iterable[str]], body: bytes
) -> Question | None:
    """Return what decides an HTTP answer, or None for a request that must not be cached.

    `headers(name)` yields the values of a header, by lower-case name.
    """
    ask = route.ask
    if ask.call is not Call.INFER or not ask.replayable or forbids(headers("cache-control")):
        return None
    encoding = ",".join(headers("content-encoding"))
    header_length = ",".join(headers(_HEADER_LENGTH))
    if not encoding and names_itself(body, header_length):
        return None
    return Question(
        pool_uid=route.pool_uid,
        model=ask.model,
        revision=route.revision,
        version=ask.version,
        path=path,
        header_length=header_length,
        content_encoding=encoding,
        accept_encoding=",".join(headers("accept-encoding")),
        body=body,
    )


@dataclass(slots=True)
class Cached(Generic[AnswerT]):
    """One lane's view of its cache: counts, tiers, deadlines."""

    dispatcher: Dispatcher
    telemetry: Telemetry
    cache: ResponseCache[AnswerT]

    def look(
        self, route: Route, asked: Question
    ) -> Hit[AnswerT] | Lead[AnswerT] | Follow[AnswerT] | None:
        """Say how to go on. A leader's tier rises with its followers'."""
        rank = tiers.rank(self.dispatcher, route)
        found = self.cache.look(cache_key(asked), clock(), rank)
        if isinstance(found, Hit):
            self._count(route, "hit")
        elif isinstance(found, Lead):
            self._count(route, "miss")
            found.flight.raise_tier = lambda tier: tiers.promote(
                self.dispatcher, route, tier, clock()
            )
        elif found is None:
            self._count(route, "miss")
        return found

    def follow(self, route: Route, flight: Flight[AnswerT], notify: Notify[AnswerT]) -> int:
        """Wait for another request's answer; returns the number for `cache.leave`."""
        self._count(route, "coalesced")
        rank = tiers.rank(self.dispatcher, route)
        return self.cache.join(flight, notify, rank, route.ask.tier)

    def answered(
        self, route: Route, flight: Flight[AnswerT], answer: AnswerT, size_bytes: int
    ) -> None:
        """Keep a complete 200. One that another revision than the drawn gave is nobody else's."""
        if route.rescued:
            self.cache.fail(flight)
        else:
            self.cache.fill(flight, answer, size_bytes, route.cache_ttl_s, clock())
        self.telemetry.cache_bytes.set(self.cache.size_bytes)

    def tick(self) -> None:
        """Once a second."""
        self.cache.sweep(clock())
        self.telemetry.cache_bytes.set(self.cache.size_bytes)

    def _count(self, route: Route, result: str) -> None:
        labels = (route.namespace, route.pool, route.ask.model, result)
        self.telemetry.cached.labels(*labels).inc()
