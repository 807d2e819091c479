"""One HTTP/2 connection without its socket: frames in, frames out, windows, limits (RFC 9113).

The shell feeds `receive` and writes what gathers in `out`, all of one turn at once; `wake` is
called when the first frame comes there. `ends` has the two sides, which say what HEADERS mean.

Flow control: the connection's window is credited on receipt, so that one slow stream blocks no
other; a stream's when its owner calls `credit`, which it does when the bytes went on. Memory is
thus bounded by the streams' windows.

ConnectionFault leaves `receive`; the shell then calls `fail`, writes and closes.
"""

from collections import deque
from collections.abc import Callable
from typing import ClassVar

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.frames import (  # by name: they are used for every frame
    DATA,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    LAST_STREAM,
    PADDED,
    Code,
    ConnectionFault,
    StreamFault,
    unpack_head,
)
from tidegate_router.core.h2.stream import Stream

_MAX_DYING = 256
_CREDIT_AT_BYTES = limits.CONNECTION_WINDOW_BYTES // 4
_NOT_PLAIN = frames.END_HEADERS | frames.PADDED | frames.WITH_PRIORITY
_HIGH_OF_MAX = frames.MAX_FRAME_BYTES >> 8
_NO_TABLE = b"\x20"  # "my table has 0 bytes", owed once to who allows less than 4096


class Link:
    """What both sides share. `clock` gives monotonic seconds."""

    __slots__ = (
        "_controls",
        "_empties",
        "_initial_bytes",
        "_owed_bytes",
        "_partial",
        "_pinged_at",
        "_plain_flags",
        "_resets",
        "_rest",
        "_waiting",
        "blocked",
        "clock",
        "control_count",
        "dead",
        "dying",
        "moved",
        "out",
        "owes_size",
        "started",
        "streams",
        "window_bytes",
    )  # fmt: skip

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.out: list[bytes] = []
        self.streams: dict[int, Stream] = {}
        self.dying: dict[int, int] = {}  # reset by us: what may still be on its way, in bytes
        self.window_bytes = self._initial_bytes = frames.INITIAL_WINDOW_BYTES
        self.blocked = False  # the socket takes no more for now
        self.dead = False
        self.control_count = 0  # frames in `out` that the other side made us send
        self.owes_size = False
        self.moved = 0  # how often DATA left
        self._pinged_at = 0
        self._rest = b""
        self._partial: _Partial | None = None
        self.started = False  # the other side's first SETTINGS came
        self._plain_flags = 0  # END_HEADERS while nothing but whole frames may come, else 0
        self._owed_bytes = 0
        self._waiting: deque[Stream] = deque()  # with something unsent
        self._controls = limits.Rate(limits.MAX_CONTROLS, "PING or SETTINGS")
        self._resets = limits.Rate(limits.MAX_RESETS, "resets")
        self._empties = limits.Rate(limits.MAX_EMPTY, "empty frames")

    def wake(self) -> None:
        """`out` has something to write."""

    def last_taken(self) -> int:
        """Return the other side's last stream that was taken on."""
        return 0

    def went_away(self, last: int, code: int) -> None:
        """The other side takes no streams above `last`."""

    def take_block(self, stream_id: int, block: bytes, *, end: bool) -> None:
        """Take a whole header block, which must be decoded whatever becomes of it."""

    def is_idle(self, stream_id: int) -> bool:
        """Whether a stream of this number was never opened."""
        raise NotImplementedError

    def greet(self, settings: dict[int, int]) -> None:
        """Send our SETTINGS and open the connection's window."""
        self.send(frames.settings(settings))
        more_bytes = limits.CONNECTION_WINDOW_BYTES - frames.INITIAL_WINDOW_BYTES
        self.send(frames.window_update(0, more_bytes))

    def receive(self, data: bytes) -> None:
        """Take bytes as they come. Plain HEADERS and DATA, nearly all there is, go straight on."""
        if self._rest:
            data = self._rest + data
        at, size_bytes = 0, len(data)
        while size_bytes - at >= HEADER_BYTES:
            high, low, kind, flags, stream_id = unpack_head(data, at)
            if high >= _HIGH_OF_MAX:
                _check_size(high << 8 | low)
            start = at + HEADER_BYTES
            after = start + (high << 8 | low)
            if after > size_bytes:
                break
            payload = data[start:after]
            at = after
            stream_id &= LAST_STREAM
            try:
                if kind == HEADERS and flags & _NOT_PLAIN == self._plain_flags:
                    self.take_block(stream_id, payload, end=flags & END_STREAM != 0)
                elif kind == DATA and self._plain_flags:
                    self._take_data(flags, stream_id, payload)
                else:
                    self._take(kind, flags, stream_id, payload)
            except StreamFault as fault:
                self._resets.note(self.clock())
                self.reset(stream_id, fault.code)
            if self.dead:
                return
        self._rest = data[at:]

    def _take(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if self._partial is not None and (
            kind != frames.CONTINUATION or stream_id != self._partial.stream_id
        ):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a header block was interrupted")
        if not self.started and (kind != frames.SETTINGS or flags & frames.ACK):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind <= frames.CONTINUATION:
            self._TAKERS[kind](self, flags, stream_id, payload)

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size_bytes = len(payload)
        self._owed_bytes += size_bytes
        if self._owed_bytes >= _CREDIT_AT_BYTES:
            self._credit_all()
        if flags & PADDED:
            payload = frames.without_padding(payload)
        stream = self.streams.get(stream_id)
        if stream is None:
            self._take_late_data(stream_id, size_bytes)
            return
        if not stream.receiving:
            raise StreamFault(Code.STREAM_CLOSED, "DATA after the end")
        stream.room_bytes -= size_bytes
        if stream.room_bytes < 0:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "beyond the stream's window")
        if flags & END_STREAM:
            stream.receiving = False
            stream.on_data(payload, end=True)
            return
        if len(payload) < size_bytes:
            stream.credit(size_bytes - len(payload))
        if payload:
            stream.on_data(payload, end=False)
        else:
            self._empties.note(self.clock())

    def _credit_all(self) -> None:
        """Credit the connection's window: with each receipt, so nobody can overrun it."""
        self.send(frames.window_update(0, self._owed_bytes))
        self._owed_bytes = 0

    def _take_late_data(self, stream_id: int, size_bytes: int) -> None:
        """DATA without a stream: on its way when we reset it, or a fault."""
        if self.is_idle(stream_id):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "DATA on a stream that was never opened")
        left_bytes = self.dying.get(stream_id, -1) - size_bytes
        if left_bytes < 0:
            raise StreamFault(Code.STREAM_CLOSED, "DATA on a closed stream")
        self.dying[stream_id] = left_bytes
        if not size_bytes:
            self._empties.note(self.clock())

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & frames.PADDED:
            payload = frames.without_padding(payload)
        if flags & frames.WITH_PRIORITY:
            payload = frames.without_priority(stream_id, payload)
        end = bool(flags & frames.END_STREAM)
        if flags & frames.END_HEADERS:
            self.take_block(stream_id, payload, end=end)
            return
        self._partial = _Partial(stream_id, [payload], len(payload), end=end)
        self._plain_flags = 0

    def _take_continuation(self, flags: int, _stream_id: int, payload: bytes) -> None:
        partial = self._partial
        if partial is None:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        partial.parts.append(payload)
        partial.size_bytes += len(payload)
        limits.check_block(partial.size_bytes, len(partial.parts) - 1)
        if flags & frames.END_HEADERS:
            self._partial = None
            self._plain_flags = frames.END_HEADERS
            self.take_block(partial.stream_id, b"".join(partial.parts), end=partial.end)

    def _take_priority(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            if self.is_idle(stream_id):  # which must not be reset
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes long")
            raise StreamFault(Code.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes long")
        frames.check_dependency(stream_id, payload)
        self._empties.note(self.clock())

    def _take_reset(self, _flags: int, stream_id: int, payload: bytes) -> None:
        code = frames.read_long(payload, "RST_STREAM")
        if self.is_idle(stream_id):
            raise ConnectionFault(Code.PROTOCOL_ERROR, "RST_STREAM on a stream never opened")
        stream = self.streams.pop(stream_id, None)
        if stream is None:
            self.dying.pop(stream_id, None)
            return
        stream.sending = stream.receiving = False
        if stream.on_reset(code):
            self._resets.note(self.clock())

    def _take_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS ACK with content")
            return
        self._controls.note(self.clock())
        self.started = True
        self._plain_flags = frames.END_HEADERS
        for key, value in frames.read_settings(payload):
            self.take_setting(key, value)
        self.send_control(frames.SETTINGS_ACK)

    def take_setting(self, key: int, value: int) -> None:
        """Take one of the other side's settings."""
        if key == frames.HEADER_TABLE_SIZE and value < 4096:
            self.owes_size = True
        if key != frames.INITIAL_WINDOW_SIZE:
            return
        change_bytes, self._initial_bytes = value - self._initial_bytes, value
        for stream in self.streams.values():
            stream.window_bytes += change_bytes
            if stream.window_bytes > frames.MAX_WINDOW_BYTES:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
        self.pump()

    def _take_push(self, _flags: int, _stream_id: int, _payload: bytes) -> None:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody may send")

    def _take_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Answer; one after DATA of ours is free, as in gRPC (A8): clients measure by PING.

        grpc-go sends one per round trip while answers come.
        """
        if stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(Code.FRAME_SIZE_ERROR, "PING is not 8 bytes long")
        if self.moved == self._pinged_at:
            self._controls.note(self.clock())
        self._pinged_at = self.moved
        if flags & frames.ACK:
            self.ponged(payload)
        else:
            self.send_control(frames.ping(payload, ack=True))

    def ponged(self, opaque: bytes) -> None:
        """A PING was answered."""

    def _take_goaway(self, _flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "GOAWAY on a stream")
        self.went_away(*frames.read_goaway(payload))

    def _take_window_update(self, _flags: int, stream_id: int, payload: bytes) -> None:
        more_bytes = frames.read_long(payload, "WINDOW_UPDATE") & frames.LAST_STREAM
        if stream_id == 0:
            if more_bytes == 0:
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self.window_bytes += more_bytes
            if self.window_bytes > frames.MAX_WINDOW_BYTES:
                raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
            self.pump()
            return
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE before HEADERS")
            return
        if more_bytes == 0:
            raise StreamFault(Code.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        stream.window_bytes += more_bytes
        if stream.window_bytes > frames.MAX_WINDOW_BYTES:
            raise StreamFault(Code.FLOW_CONTROL_ERROR, "a window beyond 2^31-1")
        if stream.unsent is not None:
            self.pump()

    _TAKERS: ClassVar = (
        _take_data, _take_headers, _take_priority, _take_reset, _take_settings, _take_push,
        _take_ping, _take_goaway, _take_window_update, _take_continuation,
    )  # fmt: skip

    def send(self, data: bytes) -> None:
        """Put whole frames out."""
        if not self.out:
            self.wake()
        self.out.append(data)

    def send_control(self, data: bytes) -> None:
        """Answer a control frame; too many answers that nobody reads are a fault."""
        self.control_count += 1
        if self.control_count > limits.MAX_QUEUED_CONTROLS:
            raise ConnectionFault(Code.ENHANCE_YOUR_CALM, "control frames are not read")
        self.send(data)

    def adopt(self, stream: Stream, stream_id: int) -> None:
        """Make `stream` the one of this number."""
        stream.link, stream.id = self, stream_id
        stream.window_bytes = self._initial_bytes
        self.streams[stream_id] = stream

    def send_head(self, stream: Stream, block: bytes, *, end: bool) -> None:
        """Send HEADERS."""
        if self.owes_size is True:
            self.owes_size = False
            block = _NO_TABLE + block
        self.send(frames.head_frames(stream.id, block, end=end))
        if end:
            self.half_ended(stream)

    def send_data(self, stream: Stream, data: bytes, tail: bytes | None) -> None:
        """Send DATA and what follows it (see Stream.tail); `on_sent` tells what of it left."""
        size_bytes = len(data)
        if (
            stream.unsent is None
            and size_bytes <= frames.MAX_FRAME_BYTES
            and size_bytes <= stream.window_bytes
            and size_bytes <= self.window_bytes
            and not self.blocked
        ):
            stream.window_bytes -= size_bytes
            self.window_bytes -= size_bytes
            self.moved += 1
            flags = frames.END_STREAM if tail == b"" else 0
            if size_bytes or flags:
                self.send(frames.frame(frames.DATA, flags, stream.id, data))
            stream.on_sent(size_bytes)
            if tail is not None:
                self._finish(stream, tail)
            return
        if stream.unsent is None:
            stream.unsent = deque()
            self._waiting.append(stream)
        if data:
            stream.unsent.append(data)
        stream.tail = tail
        self.pump()

    def _finish(self, stream: Stream, tail: bytes) -> None:
        if tail:
            self.send_head(stream, tail, end=True)
        else:
            self.half_ended(stream)

    def half_ended(self, stream: Stream) -> None:
        """Our half is over."""
        stream.sending = False
        if not stream.receiving:
            self.forget(stream)

    def forget(self, stream: Stream) -> None:
        """Both halves are over."""
        self.streams.pop(stream.id, None)

    def pump(self) -> None:
        """Send what waits, one frame of each stream in turn, as far as windows have room."""
        waiting = self._waiting
        stuck = 0
        while waiting and stuck < len(waiting) and self.can_pump():
            stream = waiting.popleft()
            if not stream.sending or stream.unsent is None:
                stream.unsent = None
                continue
            moved = self._pump_one(stream)
            if stream.unsent is None:
                stuck = 0
                continue
            waiting.append(stream)
            stuck = 0 if moved else stuck + 1

    def can_pump(self) -> bool:
        """Whether anything may leave at all."""
        return not self.blocked and not self.dead

    def _pump_one(self, stream: Stream) -> bool:
        """Send one frame; clear `unsent` after the last."""
        unsent = stream.unsent
        if unsent is None:
            return False
        if not unsent:
            if stream.tail == b"":
                self.send(frames.frame(frames.DATA, frames.END_STREAM, stream.id))
            stream.unsent = None
            if stream.tail is not None:
                self._finish(stream, stream.tail)
            return True
        data = unsent[0]
        room_bytes = min(stream.window_bytes, self.window_bytes, frames.MAX_FRAME_BYTES)
        if room_bytes <= 0:
            return False
        if len(data) > room_bytes:
            unsent[0] = data[room_bytes:]
            data = data[:room_bytes]
        else:
            unsent.popleft()
        stream.window_bytes -= len(data)
        self.window_bytes -= len(data)
        self.moved += 1
        self.send(frames.frame(frames.DATA, 0, stream.id, data))
        if not unsent and stream.tail is None:
            stream.unsent = None
        stream.on_sent(len(data))
        return True

    def reset(self, stream_id: int, code: Code) -> None:
        """Give a stream up, telling the other side."""
        stream = self.streams.pop(stream_id, None)
        if stream is not None:
            if stream.receiving:
                self._expect_late(stream)
            stream.sending = stream.receiving = False
            stream.on_reset(code)
        self.send_control(frames.rst_stream(stream_id, code))

    def drop(self, stream: Stream, code: Code) -> None:
        """As `reset`, for who owns the stream: its `on_reset` is not called."""
        if self.streams.pop(stream.id, None) is None:
            return
        if stream.receiving:
            self._expect_late(stream)
        stream.sending = stream.receiving = False
        self.send(frames.rst_stream(stream.id, code))

    def _expect_late(self, stream: Stream) -> None:
        self.dying[stream.id] = max(0, stream.room_bytes)
        if len(self.dying) > _MAX_DYING:
            del self.dying[next(iter(self.dying))]

    def fail(self, fault: ConnectionFault) -> None:
        """Say why the connection ends."""
        if not self.dead:
            self.send(frames.goaway(self.last_taken(), fault.code, str(fault)))
        self.dead = True

    def end_all(self) -> list[Stream]:
        """The connection is gone: return its streams, which are told by the caller."""
        self.dead = True
        left = list(self.streams.values())
        self.streams.clear()
        self._waiting.clear()
        for stream in left:
            stream.sending = stream.receiving = False
        return left


class _Partial:
    """A header block of which not all came yet."""

    __slots__ = ("end", "parts", "size_bytes", "stream_id")

    def __init__(self, stream_id: int, parts: list[bytes], size_bytes: int, *, end: bool) -> None:
        limits.check_block(size_bytes, 0)
        self.stream_id, self.parts, self.size_bytes, self.end = stream_id, parts, size_bytes, end


def _check_size(size_bytes: int) -> None:
    if size_bytes > frames.MAX_FRAME_BYTES:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "a frame beyond 16 KiB")
