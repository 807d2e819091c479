"""The HTTP/2 relay: any bytes of a client or of a worker end in answers, resets or a closed door.

Input: a byte that says who talks nonsense and how workers answer, then pieces. A piece is a frame
whose kind, flags and stream are given, or raw bytes. Everything runs on a loop without sockets.
"""

import asyncio
import random
import struct
from collections.abc import Callable

import hpack
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, Ports, RoutedWorker, RouteTableSpec, Served
from tidegate_router.adapters.routes import Routes
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.h2 import frames, limits
from tidegate_router.core.h2.hpack import MAX_LIST_BYTES, encode
from tidegate_router.core.request import Attempt
from tidegate_router.h2.lane import GrpcLane
from tidegate_router.h2.server import ClientConnection
from tidegate_router.h2.workers import WorkerConnection
from tidegate_router.settings import Settings
from tidegate_router.telemetry import Telemetry

MAX_BYTES = 1024
_SERVICE = b"/inference.GRPCInferenceService/"
_TELEMETRY = Telemetry()
_SETTINGS = Settings(host="127.0.0.1", grpc_port=0, max_body_bytes=256 * 1024)
_GREETING = frames.PREFACE + frames.settings({})
_MOST_OUT_BYTES = 1024 * 1024  # of one connection, whatever 4 KiB of input ask for
_HEAD = [
    (b":method", b"POST"), (b":scheme", b"http"), (b":path", _SERVICE + b"ModelInfer"),
    (b":authority", b"a"), (b"content-type", b"application/grpc"), (b"te", b"trailers"),
]  # fmt: skip
_ALLOWED_PATHS = {
    _SERVICE + name for name in (b"ModelInfer", b"ModelStreamInfer", b"ModelMetadata",
                                 b"ModelStatistics")
}  # fmt: skip
_FORBIDDEN = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}


class Loop(asyncio.AbstractEventLoop):
    """What the lane needs of a loop: callbacks in their order; timers that never come."""

    def __init__(self) -> None:
        self.soon: list[asyncio.Handle] = []

    def get_debug(self) -> bool:
        """Be quiet."""
        return False

    def call_exception_handler(self, context: dict[str, object]) -> None:
        """A callback raised: so does the check."""
        raise context["exception"]

    def call_soon(self, callback: Callable[..., object], *args: object) -> asyncio.Handle:
        """Keep for `run`."""
        handle = asyncio.Handle(callback, args, self)
        self.soon.append(handle)
        return handle

    def call_later(self, delay: float, callback: Callable[..., object], *args: object):
        """Keep for ever."""
        return asyncio.TimerHandle(delay, callback, args, self)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """There is no queue of them."""

    def run(self) -> None:
        """Run what is due, and what comes of it."""
        for _ in range(1000):
            if not self.soon:
                return
            due, self.soon = self.soon, []
            for handle in due:
                handle._run()
        raise AssertionError("callbacks without end")


class Transport(asyncio.Transport):
    """Keeps what is written; `taken` is what of it was looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = bytearray(), False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There are none."""

    def write(self, data: bytes) -> None:
        """Keep it."""
        assert not self.closed, "written after the end"
        self.written += data

    def is_closing(self) -> bool:
        """Whether it is over."""
        return self.closed

    def close(self) -> None:
        """End."""
        self.closed = True

    abort = close


class Upstream:
    """One worker's side of a connection, which checks every frame and answers whole calls."""

    def __init__(self, loop: Loop, mode: int) -> None:
        self.transport, self.mode, self.at = Transport(), mode, len(frames.PREFACE)
        self.link = WorkerConnection(loop, ("10.0.0.1", 8001))
        self.link.connection_made(self.transport)
        self.link.data_received(frames.settings({}))
        self.decoder, self.calls, self.last = hpack.Decoder(), {}, -1
        self.decoder.max_header_list_size = 4 * MAX_LIST_BYTES

    def read(self) -> list[int]:
        """Check what came since the last time; return the calls that it made whole."""
        out, whole = self.transport.written, []
        assert bytes(out[: len(frames.PREFACE)]) == frames.PREFACE[: len(out)]
        while len(out) - self.at >= frames.HEADER_BYTES:
            high, low, kind, flags, number = frames.unpack_head(out, self.at)
            start = self.at + frames.HEADER_BYTES
            self.at = start + (high << 8 | low)
            assert self.at <= len(out), "half a frame was written"
            assert high << 8 | low <= frames.MAX_FRAME_BYTES, "a frame is too large"
            payload = bytes(out[start : self.at])
            if self._frame(kind, flags, number, payload):
                whole.append(number)
        return whole

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> bool:
        assert kind != frames.PUSH_PROMISE
        if kind == frames.HEADERS:
            assert number > self.last, "a stream's number came again, or its head did"
            assert number % 2 == 1
            assert not flags & (frames.PADDED | frames.WITH_PRIORITY)
            self.last, self.calls[number] = number, [b"", payload, bool(flags & 1)]
        elif kind == frames.CONTINUATION:
            self.calls[number][1] += payload
        elif kind == frames.RST_STREAM:
            assert number <= self.last, "a reset of nothing"
            self.calls.pop(number, None)
        elif kind == frames.DATA:
            call = self.calls[number]
            call[0] += payload
            assert len(call[0]) <= frames.INITIAL_WINDOW_BYTES, "beyond the window"
        if kind in {frames.HEADERS, frames.CONTINUATION} and flags & frames.END_HEADERS:
            fields = self.decoder.decode(self.calls[number][1], raw=True)
            self.calls[number][1] = _check_head(fields)
        return bool(kind in {frames.DATA, frames.HEADERS} and flags & frames.END_STREAM)

    def answer(self, number: int) -> None:
        """Answer a call that was asked whole, as the mode says."""
        message, path, _ = self.calls.pop(number)
        _check_message(path, message)
        head = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
        good, reply = encode([(b"grpc-status", b"0")]), b"\0\0\0\0\x03\x0a\x01m"
        last = frames.END_HEADERS | frames.END_STREAM
        status = (b"14", b"5", b"13")[self.mode % 3]
        bad = encode([(b":status", b"200"), (b"grpc-status", status), (b"grpc-message", b"x")])
        frame = frames.frame
        answers = (
            frames.head_frames(number, head, end=False) + frame(frames.DATA, 0, number, reply)
            + frame(frames.HEADERS, last, number, good),
            frames.head_frames(number, head, end=False)
            + frame(frames.DATA, frames.END_STREAM, number, reply),
            frame(frames.HEADERS, last, number, bad),
            frames.rst_stream(number, frames.Code.REFUSED_STREAM),
            frames.rst_stream(number, frames.Code.INTERNAL_ERROR),
            frames.goaway(max(0, number - 2), frames.Code.NO_ERROR),
            b"",
        )  # fmt: skip
        self.link.data_received(answers[self.mode % len(answers)])


class Workers:
    """Gives each attempt a connection to a worker of this file."""

    def __init__(self, loop: Loop, mode: int) -> None:
        self._loop, self._mode, self.all = loop, mode, []

    def to(self, attempt: Attempt) -> WorkerConnection:
        """Return a connection that is up."""
        assert attempt.model == "m"
        for one in self.all:
            if one.link.available():
                return one.link
        self.all.append(Upstream(self._loop, self._mode))
        return self.all[-1].link

    def suspect(self, one: object) -> None:
        """Nothing."""


def _routed(name: str) -> RoutedWorker:
    served = Served(revision="r1", model="m", limit=64)
    return RoutedWorker(
        id=name, name=name, address="10.0.0.1", ports=Ports(grpc=8001), revision="r1",
        serves=[served],
    )  # fmt: skip


_TABLE = RouteTableSpec(
    pool=PoolIdentity(namespace="ns", name="p", uid="u"),
    sequence=1,
    workers=[_routed("w1"), _routed("w2")],
    weights=[RevisionWeight(revision="r1", weight=100)],
)


class Scene:
    """A lane, one client of it and its workers."""

    def __init__(self, mode: int) -> None:
        self.loop = Loop()
        dispatcher = Dispatcher("me", random.Random(1).random)
        self.lane = GrpcLane(dispatcher, Routes(dispatcher), _TELEMETRY, _SETTINGS)
        asyncio._set_running_loop(self.loop)
        try:
            self._start()
        finally:
            asyncio._set_running_loop(None)
        self.workers = self.lane.workers = Workers(self.loop, mode)
        self.lane.routes.restore([_TABLE])
        self.link, self.transport = self.lane._connection(), Transport()
        self.link.connection_made(self.transport)

    def _start(self) -> None:
        from tidegate_router.h2.timers import Wheel  # noqa: PLC0415  # needs a loop, as here

        self.lane.loop, self.lane.wheel = self.loop, Wheel()

    def feed(self, link: ClientConnection | WorkerConnection, data: bytes) -> None:
        """Give bytes to a connection, as a loop would, and let workers answer."""
        transport = link._transport
        if transport is not None and not transport.is_closing():
            link.data_received(data)
        self._turn()
        for _ in range(8):
            whole = [(one, number) for one in self.workers.all for number in one.read()]
            for one, number in whole:
                if number in one.calls and not one.transport.closed:
                    one.answer(number)
            self._turn()
            if not whole:
                break
        self._check()

    def _turn(self) -> None:
        asyncio._set_running_loop(self.loop)
        try:
            self.loop.run()
        finally:
            asyncio._set_running_loop(None)

    def _check(self) -> None:
        """Memory is bounded; who was refused is out."""
        for link in (self.link, *(one.link for one in self.workers.all)):
            closed = link._transport is None or link._transport.is_closing()
            assert not link.dead or closed, "refused, but not closed"
            assert len(link.streams) <= limits.MAX_STREAMS
            assert len(link.dying) <= 512, "streams that were reset are kept"
            assert len(link._rest) < frames.HEADER_BYTES + frames.MAX_FRAME_BYTES
            assert len(link._waiting) <= limits.MAX_STREAMS, "streams that are over wait"
        assert len(self.transport.written) <= _MOST_OUT_BYTES, "much for little"

    def end(self) -> None:
        """The client is gone: nothing of it is left."""
        self.link.connection_lost(None)
        self._turn()
        lane = self.lane
        assert not lane.connections
        in_flight = [
            one.slot.in_flight
            for view in lane.dispatcher.pools.values()
            for group in view.groups.values()
            for one in group.candidates
        ]
        assert not any(in_flight), "a slot is still taken"
        assert not any(lane.wheel._due.values()), "a deadline is left"


def check(data: bytes) -> None:
    """Raise where the relay raises, keeps too much, or asks a worker what is no call."""
    if len(data) < 2:
        return
    scene = Scene(data[0] & 0x0F)
    to_worker, at = data[0] & 0x10, 1
    if data[0] & 0x20:
        scene.feed(scene.link, data[1:])
        scene.end()
        return
    scene.feed(scene.link, _GREETING)
    if to_worker:
        scene.feed(scene.link, _call(1))
        scene.feed(scene.link, frames.head_frames(3, encode(_STREAM), end=False))
        scene.feed(scene.link, frames.frame(frames.DATA, 0, 3, _message()))
    while at + 3 <= len(data):
        piece, at = _piece(data, at)
        upstream = scene.workers.all
        scene.feed(upstream[-1].link if to_worker and upstream else scene.link, piece)
    scene.end()


def _piece(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the bytes that the input asks for at a place, and where it goes on.

    kind < 10: a frame of that kind, its payload from the input; 10..15: a whole good call or a
    part of one; else raw bytes.
    """
    kind, flags, size = data[at] & 0x1F, data[at + 1], data[at + 2]
    stream, start = data[at] >> 5 << 1 | 1, at + 3
    payload = data[start : start + size]
    good = {
        10: lambda: _call(stream),
        11: lambda: frames.head_frames(stream, encode(_HEAD), end=bool(flags & 1)),
        12: lambda: frames.frame(frames.DATA, flags & 9, stream, _message()),
        13: lambda: frames.head_frames(stream, encode(_STREAM), end=False),
        14: lambda: frames.frame(frames.DATA, flags & 1, stream, _message()[: size % 16]),
        15: lambda: frames.head_frames(stream, encode(_HEAD) + payload, end=bool(flags & 1)),
    }.get(kind)
    if good is not None:
        return good(), start + (size if kind == 15 else 0)
    if kind <= frames.CONTINUATION:
        number = 0 if kind in _OF_CONNECTION and not flags & 0x40 else stream
        made = frames.frame(kind, flags & 0x3F, number, payload)
        return made * (1 + (flags >> 7) * (size % 128)), start + size
    return payload, start + size


_OF_CONNECTION = {frames.SETTINGS, frames.PING, frames.GOAWAY, frames.WINDOW_UPDATE}
_STREAM = [
    (name, _SERVICE + b"ModelStreamInfer" if name == b":path" else value) for name, value in _HEAD
]


def _message() -> bytes:
    body = service_pb2.ModelInferRequest(model_name="m", id="1").SerializeToString()
    return struct.pack(">BL", 0, len(body)) + body


def _call(stream: int) -> bytes:
    head = frames.head_frames(stream, encode(_HEAD), end=False)
    return head + frames.frame(frames.DATA, frames.END_STREAM, stream, _message())


def _check_head(fields: list[tuple[bytes, bytes]]) -> bytes:
    """A worker is asked by a well-formed head of a path that is allowed; return that."""
    names = [bytes(name) for name, _ in fields]
    pseudo = {bytes(name): bytes(value) for name, value in fields if name[:1] == b":"}
    count = len(pseudo)
    assert set(names[:count]) == {b":method", b":scheme", b":path", b":authority"}
    assert not any(name[:1] == b":" for name in names[count:]), "a pseudo-header later"
    assert pseudo[b":method"] == b"POST"
    assert pseudo[b":path"] in _ALLOWED_PATHS, pseudo
    assert (b"te", b"trailers") in [(bytes(name), bytes(value)) for name, value in fields]
    for name, value in fields:
        assert bytes(name) == bytes(name).lower(), name
        assert bytes(name) not in _FORBIDDEN, name
        assert not set(b"\0\r\n") & set(bytes(value)), value
    return pseudo[b":path"]


def _check_message(path: bytes, data: bytes) -> None:
    """What a worker gets of a unary call is one message, of the model that it was chosen for."""
    if path.endswith(b"ModelStreamInfer"):
        return
    flag, size = struct.unpack_from(">BL", data)
    assert size == len(data) - 5, "not one message"
    if flag:
        return
    kind = service_pb2.ModelInferRequest
    if not path.endswith(b"ModelInfer"):
        kind = service_pb2.ModelMetadataRequest
    try:
        message = kind.FromString(data[5:])
    except DecodeError:
        return  # the worker refuses it
    named = message.model_name if path.endswith(b"ModelInfer") else message.name
    assert named in {"m", ""}, "another model than the router read"


def _piece_bytes(kind: int, flags: int = 0, payload: bytes = b"", stream: int = 1) -> bytes:
    return bytes((kind | stream >> 1 << 5, flags, len(payload))) + payload


_FIELDS = encode([(b"x-tidegate-model", b"m"), (b"grpc-timeout", b"1S"), (b"x", b"y")])
_TALK = [
    _piece_bytes(10), _piece_bytes(10, stream=3), _piece_bytes(15, payload=_FIELDS, stream=5),
    _piece_bytes(12, 1, stream=5), _piece_bytes(6, payload=b"12345678"),
    _piece_bytes(8, payload=b"\0\0\xff\xff"), _piece_bytes(4, payload=b"\0\4\0\0\0\0"),
    _piece_bytes(3, payload=b"\0\0\0\x08"), _piece_bytes(13, stream=7),
    _piece_bytes(12, 0, stream=7), _piece_bytes(14, 1, b"", stream=7),
    _piece_bytes(7, payload=b"\0\0\0\0\0\0\0\0"), _piece_bytes(9, 4, b"\x88"),
    _piece_bytes(1, 5, b"\x88\x40\x01a\x01b\xbe"), _piece_bytes(1, 0x2D, b"\x01\0\0\0\0\x10\x88\0"),
    _piece_bytes(0, 9, b"\x01\0\0"), _piece_bytes(2, 0, b"\0\0\0\0\0"), _piece_bytes(16, 0, b"abc"),
]  # fmt: skip
SEEDS = [
    *(bytes((mode,)) + b"".join(_TALK[:count]) for mode in range(7) for count in (1, 3, 9, 18)),
    *(bytes((mode,)) + b"".join(_TALK[at:] + _TALK[:at]) for mode in (0, 16) for at in range(18)),
    *(bytes((0x10 | mode,)) + b"".join(reversed(_TALK)) for mode in range(4)),
    b"\x20" + _GREETING + _call(1) + _call(3), b"\x20GET / HTTP/1.1\r\n\r\n", b"\x20" + b"PRI",
    b"\x10" + _piece_bytes(1, 4, encode([(b":status", b"200")])) + _piece_bytes(12, 1),
]  # fmt: skip
