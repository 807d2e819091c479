"""One client's connection: heads, bodies, deadlines, and one request in progress at a time."""

import asyncio
from enum import IntEnum
from typing import TYPE_CHECKING, cast

from tidegate_api.names import DroppedReason
from tidegate_router.core import head as heads
from tidegate_router.core.chunks import ChunkError, Chunks
from tidegate_router.core.head import Head
from tidegate_router.core.refusal import Refusal
from tidegate_router.http1 import answers
from tidegate_router.http1.exchange import Exchange
from tidegate_router.http1.upload import Upload
from tidegate_router.http1.wheel import Timed
from tidegate_router.lane import clock

if TYPE_CHECKING:
    from tidegate_router.http1.lane import FastLane

IDLE_S = 75.0  # longer than tritonclient's pools keep a connection
_DISCARD_S = 1.0
_DISCARD_BYTES = 256 * 1024
_HAND_OVER_S = 0.01
_SLOW_READER_S = 60


class _State(IntEnum):
    HEAD = 0  # between requests, or in a head
    BODY = 1  # collecting a body that is held
    UPLOAD = 2  # passing a body on
    BUSY = 3  # the request is complete, its answer is not
    DISCARD = 4  # answered early: nothing that comes is of interest
    GONE = 5  # closed or handed over


_TAKING = frozenset({_State.BODY, _State.UPLOAD})


class ClientConnection(asyncio.Protocol, Timed):
    """A connection of the public port. Nothing here assumes a plain socket."""

    __slots__ = (
        "_blocked", "_body", "_body_bytes", "_chunks", "_discarded", "_exchange", "_head",
        "_head_begun", "_keep", "_lane", "_left", "_limit_bytes", "_must_close", "_paused",
        "_rest", "_state", "_transport", "_upload",
    )  # fmt: skip

    def __init__(self, lane: "FastLane") -> None:
        super().__init__(lane.wheel)
        self._lane = lane
        self._transport: asyncio.Transport
        self._state = _State.HEAD
        self._rest = b""  # raw bytes that no request has taken yet
        self._head: Head | None = None  # of the request in progress
        self._exchange: Exchange | None = None
        self._upload: Upload | None = None
        self._chunks: Chunks | None = None
        self._body: list[bytes] = []
        self._body_bytes = self._left = self._limit_bytes = self._discarded = 0
        self._blocked = self._paused = self._keep = self._must_close = self._head_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a head."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by name
        self._lane.connections.add(self)
        self.set_due(clock() + IDLE_S)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # whatever it was
        """Whoever answers learns that nobody listens."""
        self._state = _State.GONE
        self._lane.connections.discard(self)
        self._lane.wheel.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_left()

    def data_received(self, data: bytes) -> None:
        """Go on with what is in progress."""
        state = self._state
        if state is _State.HEAD:
            if self._rest:
                data, self._rest = self._rest + data, b""
            self._read(data)
        elif state is _State.BODY or state is _State.UPLOAD:
            self._take(data)
        elif state is _State.BUSY:
            self._rest += data
            self._pause()
        elif state is _State.DISCARD:
            self._discarded += len(data)
            if self._discarded > _DISCARD_BYTES:
                self._transport.abort()

    def pause_writing(self) -> None:
        """The client does not read its answers: give it no more of them."""
        self._blocked = True
        if self._exchange is not None:
            self._exchange.pause()
        elif self._state is _State.HEAD:
            self._pause()

    def resume_writing(self) -> None:
        """It does again."""
        self._blocked = False
        if self._exchange is not None:
            self._exchange.resume()
        elif self._state is _State.HEAD:
            self._go_on()

    def on_due(self, now_s: float) -> None:
        """A deadline is over; which one depends on what is waited for."""
        if self._state is _State.BODY:
            self._refuse(self._lane.late_body())
        elif self._exchange is not None:
            self._exchange.on_due(now_s)
        elif self._state is _State.DISCARD and self._transport.get_write_buffer_size():
            self.set_due(now_s + _DISCARD_S)  # it still reads its answer
            self._discarded += _DISCARD_BYTES // _SLOW_READER_S
            if self._discarded > _DISCARD_BYTES:
                self._transport.abort()
        else:
            self._transport.abort()  # idle, a late head, or what was answered early

    def close_idle(self) -> None:
        """Close if no request is in progress, nor the beginning of one."""
        if self._state is _State.HEAD and not self._rest:
            self._transport.close()

    def lines(self, *, closing: bool = False) -> bytes:
        """Return what every answer ends with; decides whether the connection stays."""
        head, lane = self._head, self._lane
        if head is None or closing or lane.draining or self._state is not _State.BUSY:
            self._keep = False
        else:
            self._keep = head.keep_alive and not self._must_close
        if not self._keep:
            return answers.CLOSE + lane.stamp.lines
        if head is not None and head.http11:
            return lane.stamp.lines
        return answers.KEEP + lane.stamp.lines

    def write(self, data: bytes) -> None:
        """Send a part of an answer."""
        self._transport.write(data)

    def respond(self, data: bytes) -> None:
        """Send a whole answer; the request is over."""
        head = self._head
        if head is not None and head.method == b"HEAD":
            data = data[: data.find(b"\r\n\r\n") + 4]
        self._transport.write(data)
        self.complete()

    def complete(self) -> None:
        """The request is over."""
        self._exchange = self._upload = self._chunks = None
        if not self._keep:
            self._half_close()
            return
        self._state, self._head = _State.HEAD, None
        self.set_due(clock() + IDLE_S)
        if self._rest or self._paused or self._blocked:
            self._go_on()

    def abort(self) -> None:
        """Break the connection: a proper end would call a truncated answer complete."""
        self._exchange = None
        self._transport.abort()

    def expects(self) -> None:
        """Ask for the body if the client waits to be asked."""
        if self._head is not None and self._head.expects and not self._body_bytes:
            self._transport.write(answers.CONTINUE)

    def must_close(self) -> None:
        """The answer's end can only be told by closing."""
        self._must_close = True

    def _read(self, data: bytes) -> None:
        """Take a head and what follows it."""
        end = data.find(b"\r\n\r\n") + 4
        if end == 3:
            self._wait_for_head(data)
            return
        head = self._lane.heads.read(data[:end])
        if isinstance(head, Refusal):
            if data.startswith(b"\r\n") and not data.startswith(b"\r\n\r\n"):
                self._read(data[2:])  # one empty line before a request is ignored: RFC 9112 2.2
            else:
                self._refuse(head)
            return
        self._head_begun = False
        self._head = head
        body = data[end:]
        if head.relayed and len(body) == head.length and head.length <= self._lane.held_bytes(head):
            self._state = _State.BUSY  # the usual case: whole, in one piece
            exchange = self._exchange = Exchange(self._lane, self, head, body, None)
            exchange.start()
        else:
            self._accept(head, data, body)

    def _wait_for_head(self, data: bytes) -> None:
        if data == b"\r\n":
            return
        if not self._head_begun:
            self._head_begun = True
            self.set_due(clock() + self._lane.head_s)
        self._rest = data
        refusal = heads.unfinished(data)
        if refusal is not None:
            self._refuse(refusal)
        else:
            self._resume()

    def _accept(self, head: Head, data: bytes, body: bytes) -> None:
        if head.foreign:
            self._hand_over(data)
        elif head.refusal is not None:
            self._without_body(head, body)
            self._refuse(head.refusal)
        elif head.parsed is not None and not head.relayed:
            self._without_body(head, body)
            self._lane.answer_itself(self, head, head.parsed)
        else:
            self._open_body(head, body)

    def _without_body(self, head: Head, rest: bytes) -> None:
        """A request that has none is complete; the body of another is discarded."""
        if not head.has_body:
            self._state, self._rest = _State.BUSY, rest

    def _open_body(self, head: Head, data: bytes) -> None:
        length, self._body, self._body_bytes = head.length, [], 0
        if length is not None and length > self._lane.max_body_bytes:
            self._refuse(self._lane.too_large())
            return
        self._limit_bytes = self._lane.held_bytes(head)
        self._chunks = Chunks() if length is None else None
        self._left = length or 0
        if length is not None and length > self._limit_bytes:
            self._open_upload(head)
        else:
            self._state = _State.BODY
            self.set_due(clock() + self._lane.body_s)
            self._resume()
            if head.expects and not data:
                refusal = self._lane.unknown(head.ask)
                if refusal is not None:
                    self._refuse(refusal)
                    return
                self._transport.write(answers.CONTINUE)
        if (data or length == 0) and self._state in _TAKING:
            self._take(data)

    def _open_upload(self, head: Head) -> None:
        """Send on what is too large to hold; the client is read once a worker takes it."""
        self._state = _State.UPLOAD
        self._pause()
        upload = self._upload = Upload(head.length, self._pause, self._resume)
        held, self._body = self._body, []
        for piece in held:
            upload.feed(piece)
        exchange = self._exchange = Exchange(self._lane, self, head, b"", upload)
        exchange.start()

    def _take(self, data: bytes) -> None:
        """Take a part of the body."""
        rest, done = b"", False
        if self._chunks is None:
            data, rest = data[: self._left], data[self._left :]
            self._left -= len(data)
            done = self._left == 0
        else:
            try:
                data = self._chunks.feed(data)
            except ChunkError as error:
                self._refuse(Refusal(DroppedReason.BAD_REQUEST, str(error)))
                return
            done = self._chunks.done
            rest = self._chunks.rest if done else b""
        self._body_bytes += len(data)
        if self._body_bytes > self._lane.max_body_bytes:
            self._refuse(self._lane.too_large())
        elif self._upload is not None:
            self._upload.feed(data)
        else:
            self._hold(data, done)
        if done and self._state in _TAKING:
            self._rest = rest
            self._body_complete()

    def _hold(self, data: bytes, done: bool) -> None:
        if data:
            self._body.append(data)
        if self._body_bytes > self._limit_bytes and not done and self._head is not None:
            self._open_upload(self._head)

    def _body_complete(self) -> None:
        head, upload = self._head, self._upload
        self._state = _State.BUSY
        if upload is not None:
            upload.end()
        elif head is not None:
            body, self._body = b"".join(self._body), []
            replayable = len(body) <= self._limit_bytes
            exchange = self._exchange = Exchange(
                self._lane, self, head, body, None, replayable=replayable
            )
            exchange.start()

    def _refuse(self, refusal: Refusal) -> None:
        exchange = self._exchange
        if exchange is not None:
            exchange.refuse_body(refusal)
        else:
            head = self._head
            given = head.request_id if head is not None else b""
            identity = given or self._lane.new_identity()
            self._lane.refuse(self, refusal, identity, None)

    def _half_close(self) -> None:
        """Say no more, and let what the client still sends not destroy the answer on its way."""
        self._state, self._rest, self._discarded, self._body = _State.DISCARD, b"", 0, []
        if self._transport.is_closing():
            return
        self._resume()
        self.set_due(clock() + _DISCARD_S)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _go_on(self) -> None:
        """Look at the raw rest, in a turn of its own: others wait too."""
        if self._blocked:
            self._pause()
        elif self._rest:
            self._lane.loop.call_soon(self._again)
        else:
            self._resume()

    def _again(self) -> None:
        if self._state is _State.HEAD and self._rest and not self._blocked:
            data, self._rest = self._rest, b""
            self._read(data)

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def _hand_over(self, data: bytes) -> None:
        """Give the connection to aiohttp, with every byte since the first of this request.

        Only with nothing left to write: its `resume_writing` asserts that it paused.
        """
        if self._transport.is_closing():
            return
        if self._blocked or self._transport.get_write_buffer_size():
            self._rest = data
            self._pause()
            self._lane.loop.call_later(_HAND_OVER_S, self._again)
            return
        self._resume()
        self._state = _State.GONE
        self._lane.wheel.forget(self)
        self._lane.connections.discard(self)
        protocol = self._lane.foreign_protocol()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(data)
