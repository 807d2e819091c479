"""Connections to workers: made when needed, shared by their streams, closed when nobody asks."""

import asyncio
import socket
from collections.abc import Iterator

from tidegate_router.core.h2 import frames
from tidegate_router.core.h2.ends import ClientLink
from tidegate_router.core.h2.heads import WorkerHead, read_answer
from tidegate_router.core.h2.hpack import literal
from tidegate_router.core.h2.limits import STREAM_WINDOW_BYTES
from tidegate_router.core.h2.link import Stream
from tidegate_router.core.request import Attempt
from tidegate_router.h2.attempt import Try
from tidegate_router.h2.wire import Wire
from tidegate_router.lane import clock

CONNECT_S = 1.5
IDLE_S = 300.0
_SWEEP_S = 10.0
_SETTINGS = {frames.ENABLE_PUSH: 0, frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW_BYTES}
Address = tuple[str, int]


class WorkerConnection(ClientLink[WorkerHead], Wire):
    """One connection; `retired` ones take no new streams."""

    __slots__ = ("_flushing", "_loop", "_transport", "authority", "heard_s", "pending", "retired",
                 "used_s")  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address) -> None:
        super().__init__(clock, read_answer)
        self._loop, self._flushing, self._transport = loop, False, None
        host = f"[{address[0]}]" if ":" in address[0] else address[0]
        self.authority = literal(b":authority", f"{host}:{address[1]}".encode())
        self.pending: dict[Try, None] = {}  # until the connection is there
        self.retired = False
        self.used_s = self.heard_s = clock()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, and send what waits."""
        super().connection_made(transport)
        self.send(frames.PREFACE)
        self.greet(_SETTINGS)
        waiting, self.pending = self.pending, {}
        for one in waiting:
            self.begin(one)

    def begin(self, one: Try) -> None:
        """Send a request, now or once the connection is there."""
        self.used_s = clock()
        if self._transport is None:
            self.pending[one] = None
            one.waiting_at = self.pending
            return
        one.waiting_at = None
        self.open(one)
        one.owner.ready(one)

    def available(self) -> bool:
        """Whether it takes one more."""
        return not self.retired and self.room() and len(self.pending) < self.max_streams

    def data_received(self, data: bytes) -> None:
        """Take bytes."""
        self.heard_s = clock()
        super().data_received(data)

    def answered(self, stream: Stream, head: WorkerHead, *, end: bool) -> None:
        """Hand a head to its try."""
        if isinstance(stream, Try):
            stream.on_head(head, end=end)

    def went_away(self, last: int, code: int) -> None:
        """What the worker did not take never ran."""
        del code
        self.retired = True
        for stream_id in [number for number in self.streams if number > last]:
            stream = self.streams.pop(stream_id)
            stream.sending = stream.receiving = False
            if isinstance(stream, Try):
                stream.lost(never_ran=True)
        self.leave_if_done()

    def forget(self, stream: Stream) -> None:
        """Close after the last stream of a connection that is retired."""
        super().forget(stream)
        if self.retired:
            self.leave_if_done()

    def retire(self) -> None:
        """Take no new streams."""
        self.retired = True
        self.leave_if_done()

    def leave_if_done(self) -> None:
        """Hang up unless something is under way."""
        if not self.streams and not self.pending and self._transport is not None:
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every try."""
        del exc
        self.retired = True
        for stream in self.end_all():
            if isinstance(stream, Try):
                stream.lost()

    def unreachable(self, detail: str) -> None:
        """No connection came to be."""
        self.retired = self.dead = True
        waiting, self.pending = self.pending, {}
        for one in waiting:
            one.waiting_at = None
            one.unreachable(detail)


class Workers:
    """Every connection of one lane, by address and port."""

    __slots__ = ("_closed", "_connecting", "_known", "_loop", "_sweeping")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._known: dict[Address, list[WorkerConnection]] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
        self._closed = False

    def to(self, attempt: Attempt) -> WorkerConnection:
        """Return the connection for an attempt, which may still be on its way."""
        address = (attempt.address, attempt.grpc_port)
        for connection in self._known.get(address, ()):
            if connection.available():
                return connection
        return self._connect(address)

    def count(self) -> int:
        """Return how many connections there are."""
        return sum(1 for _ in self._all())

    def suspect(self, one: Try) -> None:
        """A try timed out: without a byte since it began, its connection may be dead."""
        link = one.link
        if isinstance(link, WorkerConnection) and link.heard_s < one.started_s:
            link.retire()

    async def close(self) -> None:
        """Hang up on all."""
        self._closed = True
        self._sweeping.cancel()
        for task in list(self._connecting):
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in list(self._all()):
            connection.hang_up()
        self._known.clear()

    def _all(self) -> Iterator[WorkerConnection]:
        for connections in self._known.values():
            yield from connections

    def _connect(self, address: Address) -> WorkerConnection:
        connection = WorkerConnection(self._loop, address)
        kept = [one for one in self._known.get(address, ()) if not one.dead]
        self._known[address] = [*kept, connection]
        task = self._loop.create_task(self._dial(connection, address))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return connection

    async def _dial(self, connection: WorkerConnection, address: Address) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await self._loop.create_connection(lambda: connection, *address)
        except TimeoutError:
            connection.unreachable(f"no connection within {CONNECT_S} s")
        except OSError as error:
            connection.unreachable(error.strerror or "no connection")
        except asyncio.CancelledError:
            connection.unreachable("shutting down")
            raise
        else:
            raw = transport.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _sweep(self) -> None:
        """Close what nobody used for IDLE_S: no PING is ever sent to keep it."""
        old_s = clock() - IDLE_S
        for address, connections in list(self._known.items()):
            for connection in connections:
                if connection.used_s < old_s and not connection.streams:
                    connection.retire()
            kept = [one for one in connections if not one.dead]
            if kept:
                self._known[address] = kept
            else:
                del self._known[address]
        self._sweeping = self._loop.call_later(_SWEEP_S, self._sweep)
