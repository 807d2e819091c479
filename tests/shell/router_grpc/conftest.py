"""A real gRPC lane in front of servers that play Triton on grpc.aio, all in this process."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    PoolIdentity,
    Ports,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)
from tidegate_router.adapters.routes import Routes
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.h2.lane import GrpcLane
from tidegate_router.settings import Settings
from tidegate_router.telemetry import Telemetry

SERVICE = "/inference.GRPCInferenceService/"


def echo(message: bytes, name: str) -> bytes:
    """What the fake Triton answers: each input as output, and who answered."""
    request = service_pb2.ModelInferRequest.FromString(message)
    answer = service_pb2.ModelInferResponse(
        model_name=request.model_name, model_version="1", id=request.id
    )
    answer.parameters["worker"].string_param = name
    for tensor in request.inputs:
        answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
    answer.raw_output_contents.extend(request.raw_input_contents)
    return answer.SerializeToString()


@dataclass
class Worker(grpc.GenericRpcHandler):
    """Plays Triton; `infer` and `stream` may be replaced."""

    name: str
    port: int = 0
    seen: list[SimpleNamespace] = field(default_factory=list)
    infer: Callable[[bytes, object], Awaitable[bytes]] | None = None
    stream: Callable[..., object] | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)  # a unary call
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # a stream, in whatever way

    def service(self, details):
        method = details.method.removeprefix(SERVICE)
        if method == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        if method in {"ModelInfer", "ModelMetadata", "ModelConfig", "ModelStatistics"}:

            async def unary(message, context):
                return await self._unary(method, message, context)

            return grpc.unary_unary_rpc_method_handler(unary)
        return None

    async def _unary(self, method, message, context):
        metadata = dict(context.invocation_metadata())
        self.seen.append(SimpleNamespace(method=method, message=message, metadata=metadata))
        self.arrived.set()
        try:
            if method == "ModelMetadata":
                asked = service_pb2.ModelMetadataRequest.FromString(message).name
                answer = service_pb2.ModelMetadataResponse(name=asked, platform=self.name)
                return answer.SerializeToString()
            if method != "ModelInfer":
                return b""
            return await self.infer(message, context) if self.infer else echo(message, self.name)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _stream(self, messages, context):
        self.arrived.set()
        try:
            if self.stream:
                async for answer in self.stream(messages, context):
                    yield answer
                return
            async for message in messages:
                self.seen.append(SimpleNamespace(method="ModelStreamInfer", message=message))
                yield streamed(message, self.name)
        finally:
            self.ended.set()

    async def hang(self, _message, _context):
        await asyncio.Event().wait()

    def routed(self, **fields):
        revision = fields.pop("revision", "r1")
        served = Served(revision=revision, model="m", limit=fields.pop("limit", 8), **fields)
        return RoutedWorker(
            id=self.name, name=self.name, address="127.0.0.1", ports=Ports(grpc=self.port),
            revision=revision, serves=[served],
        )  # fmt: skip


def streamed(message: bytes, name: str) -> bytes:
    answer = service_pb2.ModelStreamInferResponse()
    answer.infer_response.ParseFromString(echo(message, name))
    return answer.SerializeToString()


def refusing(code, details, trailers=()):
    async def infer(_message, context):
        await context.abort(code, details, trailers)

    return infer


def request(model="m", **fields):
    message = service_pb2.ModelInferRequest(model_name=model, **fields)
    message.inputs.add(name="X", datatype="BYTES", shape=[1])
    message.raw_input_contents.append(b"\x01\x00\x00\x00x")
    return message.SerializeToString()


@dataclass
class Router:
    """A lane, a channel to it, and tables that tests give it."""

    lane: GrpcLane
    channel: grpc.aio.Channel
    sequence: int = 0

    @property
    def address(self):
        return f"127.0.0.1:{self.lane.port}"

    def serve(self, *workers, name="p", policy=None, weight=100):
        self.sequence += 1
        table = RouteTableSpec(
            pool=PoolIdentity(namespace="ns", name=name, uid=name, created_at=name),
            sequence=self.sequence,
            workers=list(workers),
            weights=[RevisionWeight(revision="r1", weight=weight)],
            policy=RoutingPolicy.model_validate(policy or {}),
        )
        others = [one for uid, one in self.lane.routes.book.applied.items() if uid != name]
        self.lane.routes.restore([*others, table])

    def call(self, message=None, method="ModelInfer", **options):
        return self.channel.unary_unary(f"{SERVICE}{method}")(message or request(), **options)

    def open(self, messages=None, **options):
        return self.channel.stream_stream(f"{SERVICE}ModelStreamInfer")(messages, **options)

    def in_flight(self):
        views = self.lane.dispatcher.pools.values()
        return sum(
            one.slot.in_flight
            for view in views
            for group in view.groups.values()
            for one in group.candidates
        )

    def attempts(self):
        """Return the attempts that this router would report, by outcome; zeros left out."""
        states = self.lane.dispatcher.series.states()
        counts = Counter()
        for state in states:
            counts.update(state.attempts.model_dump())
        return {outcome: count for outcome, count in counts.items() if count}


async def eventually(probe, timeout_s=5.0):
    """Poll until a condition holds."""
    for _ in range(int(timeout_s / 0.01)):
        if probe():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not within {timeout_s} s")


def answered_by(answer: bytes) -> str:
    parsed = service_pb2.ModelInferResponse.FromString(answer)
    return parsed.parameters["worker"].string_param


@pytest.fixture
def kit():
    return SimpleNamespace(
        echo=echo, streamed=streamed, refusing=refusing, request=request,
        eventually=eventually, answered_by=answered_by, service=SERVICE,
    )  # fmt: skip


@pytest.fixture
async def start_worker():
    async with AsyncExitStack() as stack:

        async def start(name="w1"):
            worker = Worker(name)
            server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
            server.add_generic_rpc_handlers((worker,))
            worker.port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, None)
            return worker

        yield start


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
async def start_router():
    async with AsyncExitStack() as stack:

        async def start(**settings):
            read = Settings(**{"host": "127.0.0.1", "grpc_port": 0, "drain_s": 0.2} | settings)
            dispatcher = Dispatcher("me", random.Random(1).random)
            lane = GrpcLane(dispatcher, Routes(dispatcher), Telemetry(), read)
            await lane.start()
            stack.push_async_callback(lane.stop)
            options = [("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)]
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{lane.port}", options=options)
            stack.push_async_callback(channel.close)
            return Router(lane, channel)

        yield start


@pytest.fixture
async def router(start_router):
    return await start_router()


@pytest.fixture
async def start_mortal():
    """Starts workers in processes of their own, which tests may kill."""
    async with AsyncExitStack() as stack:

        async def start(name):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(Path(__file__).with_name("mortal_worker.py")),
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            stack.push_async_callback(_end, process)
            mortal = Worker(name, port=int(await process.stdout.readline()))
            mortal.process = process
            return mortal

        yield start


async def _end(process):
    if process.returncode is None:
        process.kill()
    await process.wait()
