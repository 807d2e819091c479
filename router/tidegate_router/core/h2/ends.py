"""The two ends of an HTTP/2 connection: ours to clients, ours to workers (RFC 9113 section 5)."""

from collections.abc import Callable
from typing import Generic, TypeVar

from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.frames import Code, ConnectionFault, StreamFault
from tidegate_router.core.h2.hpack import Fields, Memo
from tidegate_router.core.h2.link import Link, Stream

T = TypeVar("T")
_LAST_ID = frames.LAST_STREAM - 2


class ServerLink(Link, Generic[T]):
    """A client's connection: streams are opened by the other side."""

    __slots__ = ("_goaway_last", "_memo", "_preface", "last_id")

    def __init__(self, clock: Callable[[], float], derive: Callable[[Fields], T]) -> None:
        super().__init__(clock)
        self.last_id = 0
        self._memo: Memo[T] = Memo(derive)
        self._preface = frames.PREFACE
        self._goaway_last = frames.LAST_STREAM

    def opened(self, head: T, stream_id: int, *, end: bool) -> None:
        """A request begins: `adopt` a stream for it, or `refuse`."""
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        """Take bytes as they come, after the preface."""
        if self._preface:
            expected = self._preface[: len(data)]
            if not data.startswith(expected):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "this is no HTTP/2")
            self._preface = self._preface[len(expected) :]
            data = data[len(expected) :]
        super().receive(data)

    def is_idle(self, stream_id: int) -> bool:
        """Whether a stream of this number was never opened."""
        return stream_id > self.last_id or stream_id % 2 == 0

    def take_block(self, stream_id: int, block: bytes, *, end: bool) -> None:
        """Take a request's head or trailers."""
        head = self._memo.read(block)
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._take_trailers(stream, end=end)
            return
        if stream_id % 2 == 0:
            raise ConnectionFault(Code.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if stream_id <= self.last_id:
            if stream_id in self.dying:
                return
            raise ConnectionFault(Code.STREAM_CLOSED, "HEADERS on a closed stream")
        if stream_id > self._goaway_last:
            return
        self.last_id = stream_id
        if len(self.streams) >= limits.MAX_STREAMS:
            self._resets.note(self.clock())
            self.refuse(stream_id, Code.REFUSED_STREAM, end=end)
            return
        self.opened(head, stream_id, end=end)

    def half_ended(self, stream: Stream) -> None:
        """An answer is complete: what its request still has to say is of no use."""
        stream.sending = False
        if stream.receiving:
            self.drop(stream, Code.NO_ERROR)
        else:
            self.forget(stream)

    def refuse(self, stream_id: int, code: Code, *, end: bool) -> None:
        """Reset a stream that is not taken on."""
        if not end:
            self.dying[stream_id] = limits.STREAM_WINDOW_BYTES
        self.send_control(frames.rst_stream(stream_id, code))

    def _take_trailers(self, stream: Stream, *, end: bool) -> None:
        if not stream.receiving:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS after the end")
        if not end:
            raise StreamFault(Code.PROTOCOL_ERROR, "a second head that does not end the stream")
        stream.receiving = False
        stream.on_data(b"", end=True)

    def accepts(self) -> bool:
        """Whether new streams are still taken."""
        return self._goaway_last == frames.LAST_STREAM

    def announce_end(self) -> None:
        """First GOAWAY of a drain: streams that are on their way are still taken."""
        self.send(frames.goaway(frames.LAST_STREAM, Code.NO_ERROR))

    def refuse_new(self) -> None:
        """Final GOAWAY: what comes after the last stream so far never ran."""
        self._goaway_last = self.last_id
        self.send(frames.goaway(self.last_id, Code.NO_ERROR))


class ClientLink(Link, Generic[T]):
    """Our connection to a worker: we open the streams."""

    __slots__ = ("_memo", "max_streams", "next_id")

    def __init__(self, clock: Callable[[], float], derive: Callable[[Fields], T]) -> None:
        super().__init__(clock)
        self.next_id = 1
        self.max_streams = limits.MAX_STREAMS
        self._memo: Memo[T] = Memo(derive)

    def answered(self, stream: Stream, head: T, *, end: bool) -> None:
        """A head or trailers of an answer came."""
        raise NotImplementedError

    def is_idle(self, stream_id: int) -> bool:
        """Whether a stream of this number was never opened."""
        return stream_id >= self.next_id or stream_id % 2 == 0

    def open(self, stream: Stream) -> None:
        """Give a stream its number."""
        self.adopt(stream, self.next_id)
        self.next_id += 2

    def take_setting(self, key: int, value: int) -> None:
        """Take one of the worker's settings."""
        if key == frames.MAX_CONCURRENT_STREAMS:
            self.max_streams = value
        super().take_setting(key, value)

    def take_block(self, stream_id: int, block: bytes, *, end: bool) -> None:
        """Take an answer's head or trailers."""
        head = self._memo.read(block)
        stream = self.streams.get(stream_id)
        if stream is None:
            if self.is_idle(stream_id):
                raise ConnectionFault(Code.PROTOCOL_ERROR, "an answer to nothing")
            return
        if not stream.receiving:
            raise StreamFault(Code.STREAM_CLOSED, "HEADERS after the end")
        if end:
            stream.receiving = False
        self.answered(stream, head, end=end)

    def room(self) -> bool:
        """Whether one more stream may be opened now."""
        return not self.dead and len(self.streams) < self.max_streams and self.next_id < _LAST_ID
