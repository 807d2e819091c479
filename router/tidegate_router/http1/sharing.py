"""The response cache in the fast lane: answers from memory, and one request for many equal ones."""

from typing import TYPE_CHECKING

from tidegate_api import names
from tidegate_router.adapters.upstream import WorkerAnswer
from tidegate_router.cached import question
from tidegate_router.core import headers
from tidegate_router.core.answer import AnswerHead, block, status_line
from tidegate_router.core.cache import Flight, Follow, Hit, Lead, Notify
from tidegate_router.core.head import Head
from tidegate_router.core.request import Route
from tidegate_router.http1 import renamed
from tidegate_router.http1.wheel import Timed, Wheel
from tidegate_router.http_cached import HttpCached, keep

if TYPE_CHECKING:
    from tidegate_router.http1.exchange import Exchange

MISS = b"%b: miss\r\n" % names.HEADER_CACHE.encode()
_REVISION, _CACHE = names.HEADER_REVISION.encode(), names.HEADER_CACHE.encode()


class Share:
    """One request among equal ones: it leads, or follows under a number."""

    __slots__ = ("_cached", "_flight", "_number")

    def __init__(self, cached: HttpCached, flight: Flight[WorkerAnswer], number: int) -> None:
        self._cached, self._flight, self._number = cached, flight, number

    @property
    def follows(self) -> bool:
        """Whether another one asks the worker."""
        return self._number > 0

    @property
    def needed(self) -> bool:
        """Whether others wait for this one's answer."""
        return not self._number and bool(self._flight.followers)

    def keep(self, route: Route, answer: AnswerHead, body: bytes) -> None:
        """Give a leader's whole answer to its followers, and keep it, if it is one to repeat."""
        given = WorkerAnswer(answer.status, renamed.texts(answer.pairs), body, 0.0)
        keep(self._cached, route, self._flight, given)

    def end(self) -> None:
        """Follow no more; or let the followers of a leader without an answer go on alone."""
        if self._number:
            self._cached.cache.leave(self._flight, self._number)
        else:
            self._cached.cache.fail(self._flight)


def look(
    cached: HttpCached, route: Route, head: Head, body: bytes, notify: Notify[WorkerAnswer]
) -> Hit[WorkerAnswer] | Share | None:
    """Say how to go on: with a kept answer, as one of several, or as if there were no cache."""

    def values(name: str) -> list[str]:
        wanted = name.encode()
        return [value.decode("latin-1") for key, value in head.pairs if key.lower() == wanted]

    asked = question(route, head.target.decode("ascii"), values, body)
    found = cached.look(route, asked) if asked is not None else None
    if isinstance(found, Follow):
        return Share(cached, found.flight, cached.follow(route, found.flight, notify))
    return Share(cached, found.flight, 0) if isinstance(found, Lead) else found


def repeated(route: Route, answer: WorkerAnswer, how: str, age_s: float) -> bytes:
    """Return the head of an answer that is given again, without its last lines."""
    pairs = tuple(
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.strip_response(answer.headers)
    )
    return b"%b%b%b: %b\r\n%b: %b\r\nAge: %d\r\nContent-Length: %d\r\n" % (
        status_line(answer.status), block(pairs), _REVISION, route.revision.encode(),
        _CACHE, how.encode(), age_s, len(answer.body),
    )  # fmt: skip


class Absent(Timed):
    """Stands in for a client that left while others wait for the answer to its request."""

    __slots__ = ("_exchange",)

    def __init__(self, wheel: Wheel, exchange: "Exchange") -> None:
        super().__init__(wheel)
        self._exchange = exchange

    def on_due(self, now_s: float) -> None:
        """A deadline of the request is over."""
        self._exchange.on_due(now_s)

    def lines(self, *, closing: bool = False) -> bytes:  # noqa: ARG002  # the interface's
        """Nothing is written."""
        return b""

    def respond(self, data: bytes) -> None:  # noqa: ARG002  # the interface's
        """The request is over."""
        self.complete()

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def complete(self) -> None:
        """The request is over."""
        self._wheel.forget(self)

    def abort(self) -> None:
        """The request is over."""
        self._wheel.forget(self)

    def expects(self) -> None:
        """The body came already."""

    def must_close(self) -> None:
        """Nothing is open."""
