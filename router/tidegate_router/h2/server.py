"""Connections of clients."""

import asyncio
import random
from collections.abc import Callable

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.ends import ServerLink
from tidegate_router.core.h2.frames import Code, ConnectionFault
from tidegate_router.core.h2.heads import ClientHead
from tidegate_router.core.h2.hpack import MAX_LIST_BYTES, Fields
from tidegate_router.core.h2.link import Stream
from tidegate_router.h2.wire import Wire
from tidegate_router.lane import clock

PREFACE_S = 10.0
AGE_S = 600.0
_AGE_SPREAD = 0.1
_SECOND_GOAWAY_S = 0.25  # longer than a round trip: what was on its way when the first came
_LEFT_S = 60.0  # what is left of a connection that grew old
_SETTINGS = {
    frames.MAX_CONCURRENT_STREAMS: limits.MAX_STREAMS,
    frames.INITIAL_WINDOW_SIZE: limits.STREAM_WINDOW_BYTES,
    frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
}
Opened = Callable[[ClientHead], Stream]


class ClientConnection(ServerLink[ClientHead], Wire):
    """One connection: `make` gives the stream of each request, `begin` starts it."""

    __slots__ = ("_all", "_flushing", "_loop", "_make", "_timers", "_transport", "leaving")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        derive: Callable[[Fields], ClientHead],
        make: Opened,
        everyone: "set[ClientConnection]",
    ) -> None:
        super().__init__(clock, derive)
        self._loop, self._flushing, self._transport = loop, False, None
        self._make, self._all = make, everyone
        self._timers: list[asyncio.TimerHandle] = []
        self.leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet; whoever does not greet back in time is cut off."""
        super().connection_made(transport)
        self._all.add(self)
        self.greet(_SETTINGS)
        age_s = AGE_S * random.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)  # noqa: S311  # no secret
        self._timers = [
            self._loop.call_later(PREFACE_S, self._check_greeting),
            self._loop.call_later(age_s, self._grow_old),
        ]

    def opened(self, head: ClientHead, stream_id: int, *, end: bool) -> None:
        """Begin a request."""
        stream = self._make(head)
        self.adopt(stream, stream_id)
        stream.begin(end=end)

    def last_taken(self) -> int:
        """Return the last stream that was taken on."""
        return self.last_id

    def drain(self) -> None:
        """Let what is under way end; new requests go to another connection."""
        if self.leaving or self.dead:
            return
        self.leaving = True
        self.announce_end()
        self._timers.append(self._loop.call_later(_SECOND_GOAWAY_S, self._close_door))

    def _close_door(self) -> None:
        if self.dead:
            return
        self.refuse_new()
        self._leave_if_done()

    def _leave_if_done(self) -> None:
        if self.leaving and not self.streams and not self.accepts():
            self.hang_up()

    def forget(self, stream: Stream) -> None:
        """Close after the last stream of a connection that leaves."""
        super().forget(stream)
        if self.leaving:
            self._leave_if_done()

    def drop(self, stream: Stream, code: Code) -> None:
        """The same."""
        super().drop(stream, code)
        if self.leaving:
            self._leave_if_done()

    def _check_greeting(self) -> None:
        if not self.started:
            self.broken(ConnectionFault(Code.SETTINGS_TIMEOUT, "no greeting"))

    def _grow_old(self) -> None:
        self.drain()
        self._timers.append(self._loop.call_later(_LEFT_S, self.cut))

    def cut(self) -> None:
        """Close at once."""
        self.dead = True
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End every request."""
        del exc
        self._all.discard(self)
        for timer in self._timers:
            timer.cancel()
        for stream in self.end_all():
            stream.on_reset(Code.CANCEL)
        self._transport = None
