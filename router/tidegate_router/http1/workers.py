"""Connections to workers: pooled by address and port, one answer parsed at a time.

A connection is used again only after an answer whose end was stated and whose request had left
whole. Bytes that nobody asked for close it: whose answer they are cannot be known.
"""

import asyncio
import logging
import re
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from math import inf
from typing import cast

from tidegate_router.core.answer import MAX_HEAD_BYTES, UNTIL_CLOSE, AnswerBook, AnswerError
from tidegate_router.core.answer import AnswerHead as Answer
from tidegate_router.core.chunks import ChunkError, Chunks
from tidegate_router.http1.wheel import Timed, Wheel
from tidegate_router.lane import clock

_log = logging.getLogger(__name__)
_CONNECT_S = 1.5
_IDLE_S = 30.0
_ADDRESS = re.compile(r"[0-9A-Za-z.:-]+")


class Sink:
    """Who gets the answer to one request: `answered`, or `opened`, pieces and `ended`."""

    __slots__ = ()

    @abstractmethod
    def held_bytes(self, answer: Answer) -> int:
        """How much of a body to hold until it is whole; a larger one is given in pieces."""

    @abstractmethod
    def answered(self, answer: Answer, body: bytes) -> None:
        """Take a whole answer. The connection is free already."""

    @abstractmethod
    def opened(self, answer: Answer) -> None:
        """Take the head of an answer whose body follows in pieces."""

    @abstractmethod
    def piece(self, data: bytes) -> None:
        """Take a part of the body."""

    @abstractmethod
    def ended(self) -> None:
        """The body is complete. The connection is free already."""

    @abstractmethod
    def broken(self, detail: str) -> None:
        """No complete answer will come. `detail` quotes nothing."""

    def pause_upload(self) -> None:
        """The worker does not keep up with what it is sent."""

    def resume_upload(self) -> None:
        """It does again."""


class WorkerConnection(asyncio.Protocol, Timed):
    """One connection; `sink` is None while it is idle."""

    __slots__ = (
        "_answer", "_chunks", "_held", "_held_bytes", "_left", "_limit_bytes", "_paused",
        "_place", "_rest", "_streams", "idle_since_s", "sending", "sink", "transport",
    )  # fmt: skip

    def __init__(self, place: "Place") -> None:
        super().__init__(place.workers.wheel)
        self._place = place
        self.sink: Sink | None = None
        self.sending = False  # a part of the request has still to come from the client
        self.idle_since_s = 0.0
        self.transport: asyncio.Transport
        self._rest = b""
        self._answer: Answer | None = None
        self._chunks: Chunks | None = None
        self._held: list[bytes] = []
        self._held_bytes = self._left = self._limit_bytes = 0
        self._streams = self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._place.connections += 1

    @property
    def host(self) -> bytes:
        """Our own Host header for this worker."""
        return self._place.host

    def ask(self, sink: Sink, data: bytes, *, sending: bool = False) -> None:
        """Send a request, or its beginning if `sending`; its answer goes to `sink`."""
        self.sink, self.sending = sink, sending
        self.transport.write(data)

    def pause(self) -> None:
        """Read no more of the answer for now."""
        if not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def unsent(self) -> bool:
        """Whether a part of the request has not left this process."""
        return self.sending or self.transport.get_write_buffer_size() > 0

    def close(self) -> None:
        """Give the connection up; its sink hears nothing more."""
        self.sink = None
        self._place.workers.wheel.forget(self)
        self.transport.abort()

    def keep(self) -> None:
        """Put an unused connection where the next request finds it."""
        self.idle_since_s = self._place.workers.now_s
        self._place.idle.append(self)

    def on_due(self, now_s: float) -> None:  # noqa: ARG002  # the interface's
        """What was left behind never ended."""
        self._fail("no end of an answer that nobody waits for")

    def data_received(self, data: bytes) -> None:
        """Parse."""
        sink = self.sink
        if sink is None:
            self._desync()
            return
        if self._answer is not None:
            self._body(data)
            return
        if self._rest:
            data, self._rest = self._rest + data, b""
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            self._rest = data
            if len(data) > MAX_HEAD_BYTES:
                self._fail("a head without end")
            return
        try:
            answer = self._place.workers.book.read(data[:end])
        except AnswerError as error:
            self._fail(str(error))
            return
        if answer.length == len(data) - end and answer.status >= 200:
            self._free(answer.reusable)  # the usual case: whole, in one piece
            sink.answered(answer, data[end:])
            return
        self._begin(sink, answer, data[end:])

    def pause_writing(self) -> None:
        """Pass it on."""
        if self.sink is not None:
            self.sink.pause_upload()

    def resume_writing(self) -> None:
        """Pass it on."""
        if self.sink is not None:
            self.sink.resume_upload()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits, or leave the pool."""
        self._place.connections -= 1
        self._place.workers.wheel.forget(self)
        sink, self.sink = self.sink, None
        if sink is None:
            if self in self._place.idle:
                self._place.idle.remove(self)
            return
        answer = self._answer
        if answer is not None and answer.length == UNTIL_CLOSE and exc is None:
            self._finish(sink, answer)
        else:
            where = "before an answer" if answer is None else "within an answer"
            sink.broken(f"closed {where}")

    def _begin(self, sink: Sink, answer: Answer, rest: bytes) -> None:
        if answer.status < 200:
            if answer.status == 101:
                self._fail("switched protocols")
            elif rest:
                self.data_received(rest)
            return
        self._answer, self._left = answer, answer.length
        self._limit_bytes = sink.held_bytes(answer)
        self._chunks = Chunks() if answer.chunked else None
        self._streams = answer.length > self._limit_bytes or self._limit_bytes == 0
        if self._streams:
            sink.opened(answer)
        if rest:
            self._body(rest)

    def _body(self, data: bytes) -> None:
        done, extra = False, b""
        if self._chunks is not None:
            try:
                data = self._chunks.feed(data)
            except ChunkError as error:
                self._fail(str(error))
                return
            done = self._chunks.done
            extra = self._chunks.rest if done else b""
        elif self._left >= 0:
            data, extra = data[: self._left], data[self._left :]
            self._left -= len(data)
            done = self._left == 0
        if data:
            self._take(data)
        if done:
            self._end(extra)

    def _take(self, data: bytes) -> None:
        sink, answer = self.sink, self._answer
        if sink is None or answer is None:
            return
        if self._streams:
            sink.piece(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._limit_bytes:
            self._streams = True
            held, self._held = b"".join(self._held), []
            sink.opened(answer)
            sink.piece(held)

    def _end(self, extra: bytes) -> None:
        sink, answer = self.sink, self._answer
        if sink is None or answer is None:  # given up while it took the last piece
            return
        if extra:
            _log.warning("desync: a worker sent more than its answer")
        self._free(answer.reusable and not extra)
        self._finish(sink, answer)

    def _finish(self, sink: Sink, answer: Answer) -> None:
        streams, self._streams, self._answer, self._chunks = self._streams, False, None, None
        held, self._held, self._held_bytes = self._held, [], 0
        if streams:
            sink.ended()
        else:
            sink.answered(answer, b"".join(held))

    def _free(self, reusable: bool) -> None:
        self.sink = None
        if self.due_s != inf:
            self._place.workers.wheel.forget(self)
        if self._paused:  # by the client of the answer that has just ended
            self.resume()
        if reusable and not self.sending and not self.transport.is_closing():
            self.keep()
        else:
            self.transport.close()

    def _fail(self, detail: str) -> None:
        sink = self.sink
        self.close()
        if sink is not None:
            sink.broken(detail)

    def _desync(self) -> None:
        if not self.transport.is_closing():
            _log.warning("desync: an idle connection to a worker got bytes")
        self.transport.abort()


class Place:
    """The idle connections to one address and port; `connections` counts the busy ones too."""

    __slots__ = ("address", "connections", "host", "idle", "port", "workers")

    def __init__(self, workers: "Workers", address: str, port: int) -> None:
        self.workers, self.address, self.port = workers, address, port
        named = f"[{address}]" if ":" in address else address
        self.host = f"{named}:{port}".encode("latin-1", "replace")
        self.idle: list[WorkerConnection] = []
        self.connections = 0

    def take(self) -> WorkerConnection | None:
        """Return the connection that was used last."""
        while self.idle:
            found = self.idle.pop()
            if not found.transport.is_closing():
                return found
        return None

    def connect(
        self, ready: Callable[[WorkerConnection], None], failed: Callable[[str], None]
    ) -> None:
        """Make a new connection; calls one of both, later."""
        self.workers.begin(self._connect(ready, failed))

    async def _connect(
        self, ready: Callable[[WorkerConnection], None], failed: Callable[[str], None]
    ) -> None:
        loop = asyncio.get_running_loop()
        if not _ADDRESS.fullmatch(self.address):
            failed("no address")
            return
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, made = await loop.create_connection(
                    lambda: WorkerConnection(self), self.address, self.port
                )
        except (OSError, TimeoutError, ValueError) as error:
            failed(type(error).__name__)
        else:
            ready(made)


class Workers:
    """All connections to workers of one process."""

    def __init__(self, wheel: Wheel) -> None:
        self.wheel, self.book = wheel, AnswerBook()
        self.now_s = clock()  # of the last sweep: exact enough for what is idle
        self._places: dict[tuple[str, int], Place] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def place(self, address: str, port: int) -> Place:
        """Return the pool of one worker."""
        found = self._places.get((address, port))
        if found is None:
            found = self._places[address, port] = Place(self, address, port)
        return found

    def begin(self, connecting: Coroutine[None, None, None]) -> None:
        """Run until it ends."""
        task = asyncio.ensure_future(connecting)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sweep(self) -> None:
        """Once a second: close what was idle for too long; the oldest come first."""
        self.now_s = clock()
        for key, place in list(self._places.items()):
            while place.idle and self.now_s - place.idle[0].idle_since_s > _IDLE_S:
                place.idle.pop(0).transport.close()
            if not place.connections:
                del self._places[key]

    def close(self) -> None:
        """Close what is idle and stop connecting."""
        for task in self._tasks:
            task.cancel()
        for place in self._places.values():
            for one in place.idle:
                one.transport.abort()
            place.idle.clear()
