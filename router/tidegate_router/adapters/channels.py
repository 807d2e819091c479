"""gRPC to workers: one channel per worker, bytes in and out, errors judged once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import grpc
import grpc.aio

from tidegate_router.core.faults import Outcome, judge_grpc
from tidegate_router.core.rename import Renamed
from tidegate_router.core.request import Attempt

Metadata = tuple[tuple[str, str | bytes], ...]
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1500),  # also how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
]
_NOT_CONNECTED = ("failed to connect", "no route to host", "connection refused")
_BROKEN = (
    "socket closed", "connection reset", "broken pipe", "goaway", "stream removed",
    "transport closed", "end of tcp stream", "connection aborted", "connection timed out",
    "ping timeout", "keepalive", "endpoint closing", "cancelling all calls", "disconnected",
)  # fmt: skip
_MAX_CHANNELS = 2048


@dataclass(slots=True)
class Channels:
    """Open channels by address, the least recently used closed beyond a bound."""

    _open: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    def unary(
        self, attempt: Attempt, method: str, message: bytes, metadata: Metadata
    ) -> grpc.aio.UnaryUnaryCall:
        """Start a unary call; await it for the answer's bytes."""
        names = _names(attempt)
        back = partial(names.grpc_answer, method) if names is not None else None
        start = self._channel(attempt).unary_unary(method, response_deserializer=back)
        if names is not None:
            message = names.message(message)
        return start(message, timeout=attempt.timeout_s, metadata=metadata)

    def stream(
        self,
        attempt: Attempt,
        method: str,
        messages: AsyncIterator[bytes],
        metadata: Metadata,
    ) -> "WorkerStream":
        """Start a stream that sends `messages`. It has no time limit of its own."""
        call = self._channel(attempt).stream_stream(method)(metadata=metadata)
        return WorkerStream(call, messages, method, _names(attempt))

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._open.values():
            await channel.close()
        self._open.clear()

    def _channel(self, attempt: Attempt) -> grpc.aio.Channel:
        host = f"[{attempt.address}]" if ":" in attempt.address else attempt.address
        address = f"{host}:{attempt.grpc_port}"
        channel = self._open.pop(address, None)
        if channel is None:
            channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._open[address] = channel
        while len(self._open) > _MAX_CHANNELS:
            del self._open[next(iter(self._open))]  # closed when its last call ends
        return channel


class WorkerStream:
    """A stream to one worker: what it is sent, and what it answers."""

    def __init__(
        self,
        call: grpc.aio.StreamStreamCall,
        messages: AsyncIterator[bytes],
        method: str,
        names: Renamed | None,
    ) -> None:
        self._call, self._method, self._names = call, method, names
        self._sending = asyncio.create_task(self._send(messages))

    async def answers(self) -> AsyncIterator[bytes]:
        """Yield the worker's answers; AioRpcError if it ends with another status than OK."""
        while (message := await self._call.read()) is not grpc.aio.EOF:
            yield self._names.grpc_answer(self._method, message) if self._names else message

    async def trailers(self) -> Metadata:
        """Return the worker's trailing metadata, once it has ended."""
        return tuple(await self._call.trailing_metadata() or ())

    def cancel(self) -> None:
        """End it from this side; nothing happens if it has ended."""
        self._sending.cancel()
        self._call.cancel()

    async def _send(self, messages: AsyncIterator[bytes]) -> None:
        """Send everything; once the call is over its status, which `answers` raises, says why."""
        try:
            await self._call.wait_for_connection()
            async for message in messages:
                sent = self._names.streamed(message) if self._names else message
                await self._raw.send_serialized_message(sent)
            await self._call.done_writing()
        except (grpc.aio.InternalError, grpc.aio.AioRpcError):
            pass

    @property
    def _raw(self) -> "grpc._cython.cygrpc._AioCall":
        """The call below `grpc.aio`.

        Its own write() replaces the worker's status by INTERNAL when a worker refuses a stream
        while a message is on its way to it: a refusal that could be retried elsewhere is lost.
        """
        return self._call._cython_call  # noqa: SLF001  # see above


def _names(attempt: Attempt) -> Renamed | None:
    return Renamed(attempt.model, attempt.loaded_as) if attempt.loaded_as else None


def judge(error: grpc.aio.AioRpcError) -> Outcome:
    """Tell a status that the worker sent from a connection that was not there or broke."""
    text = (error.details() or "").lower()
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        if any(words in text for words in _NOT_CONNECTED):
            return Outcome.UNREACHABLE
        if any(words in text for words in _BROKEN):
            return Outcome.LOST
    return judge_grpc(error.code().name, text)
