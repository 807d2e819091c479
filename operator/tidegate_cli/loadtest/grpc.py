"""ModelInfer over grpc.aio: messages stay bytes, so what is measured is not protobuf."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

import grpc
from tritonclient.grpc import service_pb2

from tidegate_api import names
from tidegate_cli.core.loadtest.outcome import of_code
from tidegate_cli.core.loadtest.payload import raw
from tidegate_cli.core.loadtest.tally import Answered
from tidegate_cli.core.tensors import Tensor
from tidegate_cli.errors import ServerError
from tidegate_cli.loadtest.shot import Answers, Finished, Shot

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else all channels to one address are one connection
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)
_STREAMS = 32  # in flight on each connection


def message(model: str, version: str, tensors: Iterable[Tensor]) -> bytes:
    """Return a ModelInferRequest with raw contents."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=version)
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(raw(tensor))
    return bytes(request.SerializeToString())


def _ignore(_shot: Shot, _answered: object) -> None:
    """Stand in until a loop says where answers go."""


class GrpcClient:
    """A few connections; every request is a stream of one of them in turn."""

    def __init__(
        self,
        address: str,
        metadata: Mapping[str, str],
        answers: Answers,
        *,
        tls: bool,
        timeout_s: float,
    ) -> None:
        self.finished: Finished = _ignore
        self._address, self._tls, self._timeout_s = address, tls, timeout_s
        self._metadata = tuple(metadata.items())
        self._answers = answers
        self._channels: list[grpc.aio.Channel] = []
        self._calls: list[grpc.aio.UnaryUnaryMultiCallable] = []
        self._limit = 0
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, connections: int) -> None:
        """Make a connection for each 32 requests at once, and wait for the first of them."""
        self._limit = connections
        for _ in range(-(-connections // _STREAMS)):
            channel = (
                grpc.aio.secure_channel(self._address, grpc.ssl_channel_credentials(), _OPTIONS)
                if self._tls
                else grpc.aio.insecure_channel(self._address, _OPTIONS)
            )
            self._channels.append(channel)
            self._calls.append(channel.unary_unary(METHOD))
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._channels[0].channel_ready()
        except TimeoutError as error:
            text = f"{self._address} cannot be reached over grpc in {self._timeout_s:g} s"
            raise ServerError(text) from error

    def send(self, shot: Shot) -> bool:
        """Start a call; False when as many are in flight as were asked for."""
        if len(self._tasks) >= self._limit:
            return False
        shot.sent_s = time.monotonic()
        self._number += 1
        call = self._calls[self._number % len(self._calls)]
        task = asyncio.get_running_loop().create_task(self._call(call, shot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def sweep(self, now_s: float) -> None:
        """Calls have deadlines of their own."""

    async def close(self) -> None:
        """Cancel what is in flight and close the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels:
            await channel.close()

    async def _call(self, method: grpc.aio.UnaryUnaryMultiCallable, shot: Shot) -> None:
        call = method(shot.payload.wire, timeout=self._timeout_s, metadata=self._metadata)
        try:
            body = await call
            answered = self._judged("OK", await call.initial_metadata(), shot, body)
        except grpc.aio.AioRpcError as error:
            both = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
            answered = self._judged(error.code().name, both, shot, b"")
        task = asyncio.current_task()
        if task is not None:
            self._tasks.discard(task)  # its place is free for what `finished` sends
        self.finished(shot, answered)

    def _judged(
        self, code: str, metadata: Sequence[tuple[str, str | bytes]], shot: Shot, body: bytes
    ) -> Answered:
        noted = {name: str(value) for name, value in metadata}
        reason = noted.get(names.HEADER_DROPPED_REASON, "")
        outcome = self._answers.checked(of_code(code, reason), shot.payload, body)
        return self._answers.of(
            outcome,
            "" if outcome == "ok" else f"{code} {reason}".rstrip(),
            noted.get(names.HEADER_REVISION, ""),
            noted.get(names.HEADER_WORKER, ""),
        )
