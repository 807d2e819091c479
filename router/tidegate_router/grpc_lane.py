"""The gRPC port over grpc.aio: messages pass as bytes, driven by the same dispatcher as HTTP."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import grpc.aio

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.adapters.channels import Channels, Metadata, judge
from tidegate_router.adapters.routes import Routes
from tidegate_router.core import headers, protowire, report
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome
from tidegate_router.core.path import pool_name
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Call, Ending, Route, Step
from tidegate_router.lane import acquire, clock
from tidegate_router.settings import Settings
from tidegate_router.telemetry import Telemetry

_log = logging.getLogger(__name__)
_SERVICE = "/inference.GRPCInferenceService/"
_HEALTH = "/grpc.health.v1.Health/Check"
_INQUIRIES = frozenset({"ModelMetadata", "ModelConfig", "ModelStatistics"})
_REPLAY_BYTES = 1024 * 1024
Context: TypeAlias = grpc.aio.ServicerContext
Unary = Callable[[bytes, Context], Awaitable[bytes]]


@dataclass(slots=True)
class Inbox:
    """What a client's stream has sent so far; kept until the first answer, so that it can be sent
    to another worker.
    """

    messages: list[bytes] = field(default_factory=list)
    first: int = 0  # number of messages[0]
    done: bool = False
    replayable: bool = True
    moved: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def fill(self, source: AsyncIterator[bytes]) -> None:
        """Read the client's stream to its end."""
        try:
            async for message in source:
                async with self.moved:
                    self.messages.append(message)
                    if sum(map(len, self.messages)) > _REPLAY_BYTES:
                        self.replayable = False
                    self.moved.notify_all()
        finally:
            async with self.moved:
                self.done = True
                self.moved.notify_all()

    async def read(self, *, forget: Callable[[], bool]) -> AsyncIterator[bytes]:
        """Yield every message from the first; drop what is sent once `forget()` says so."""
        number = self.first
        while True:
            async with self.moved:
                while number >= self.first + len(self.messages) and not self.done:
                    await self.moved.wait()
                if number >= self.first + len(self.messages):
                    return
                message = self.messages[number - self.first]
            yield message
            number += 1
            if forget():
                del self.messages[: number - self.first]
                self.first = number


@dataclass(slots=True)
class GrpcLane:
    """The server. `draining` makes it not ready."""

    dispatcher: Dispatcher
    routes: Routes
    telemetry: Telemetry
    settings: Settings
    draining: bool = False
    port: int = 0
    _server: grpc.aio.Server | None = None
    _channels: Channels = field(default_factory=Channels)

    async def start(self) -> None:
        """Listen."""
        limits = [
            ("grpc.max_receive_message_length", self.settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        self._server = grpc.aio.server(options=limits)
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        address = f"{self.settings.host}:{self.settings.grpc_port}"
        self.port = self._server.add_insecure_port(address)
        await self._server.start()

    async def stop(self) -> None:
        """Refuse new calls, let those in flight end."""
        if self._server is not None:
            await self._server.stop(self.settings.drain_s)
        await self._channels.close()

    def handler(self, method: str) -> grpc.RpcMethodHandler | None:
        """Return what answers a method; None: unimplemented."""
        if method == _HEALTH:
            return grpc.unary_unary_rpc_method_handler(self._health)
        if not method.startswith(_SERVICE):
            return None
        name = method.removeprefix(_SERVICE)
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        known = self._unary_methods().get(name)
        return grpc.unary_unary_rpc_method_handler(known or self._forbidden)

    def _unary_methods(self) -> dict[str, Unary]:
        return {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            "ModelReady": self._model_ready,
            "ModelInfer": self._caller("ModelInfer", Call.INFER),
            **{name: self._caller(name, Call.INQUIRY) for name in _INQUIRIES},
        }

    def _caller(self, name: str, kind: Call) -> Unary:
        async def call(message: bytes, context: Context) -> bytes:
            return await self._call(f"{_SERVICE}{name}", kind, message, context)

        return call

    async def _live(self, _message: bytes, _context: Context) -> bytes:
        return protowire.bool_message(value=True)

    async def _ready(self, _message: bytes, _context: Context) -> bytes:
        return protowire.bool_message(value=self.routes.ready and not self.draining)

    async def _health(self, _message: bytes, _context: Context) -> bytes:
        serving = self.routes.ready and not self.draining
        return b"\x08\x01" if serving else b"\x08\x02"

    async def _metadata(self, _message: bytes, _context: Context) -> bytes:
        return protowire.string_field(1, "tidegate-router") + protowire.string_field(2, "0.1.0")

    async def _model_ready(self, message: bytes, context: Context) -> bytes:
        ask = self._ask(message, Call.INQUIRY, context)
        if isinstance(ask, Refusal):
            return await self._refuse(ask, context)
        ready = report.model_ready(self.dispatcher, ask.pool, ask.model, ask.version, clock())
        if ready is None:
            text = f"no pool serves model '{ask.model}'"
            return await self._refuse(Refusal(DroppedReason.UNKNOWN_MODEL, text), context)
        return protowire.bool_message(value=ready)

    async def _forbidden(self, _message: bytes, context: Context) -> bytes:
        text = "control APIs of a worker are not reachable through the router"
        return await self._refuse(Refusal(DroppedReason.NOT_ALLOWED, text), context)

    async def _call(self, method: str, call: Call, message: bytes, context: Context) -> bytes:
        ask = self._ask(message, call, context)
        route = ask if isinstance(ask, Refusal) else self.dispatcher.plan(ask, clock())
        if isinstance(route, Refusal):
            return await self._refuse(route, context)
        try:
            return await self._attempts(route, method, message, context)
        finally:
            self.dispatcher.finish(route, clock())

    async def _attempts(self, route: Route, method: str, message: bytes, context: Context) -> bytes:
        metadata = _forwarded(context)
        while True:
            attempt = await acquire(self.dispatcher, route)
            if isinstance(attempt, Refusal):
                return await self._refuse(attempt, context, route)
            started_s = clock()
            call = self._channels.unary(attempt, method, message, metadata)
            answer, error = b"", None
            outcome = Outcome.CANCELLED
            try:
                answer = await call
                outcome = Outcome.OK
            except grpc.aio.AioRpcError as failed:
                error, outcome = failed, judge(failed)
            finally:  # also when the client left: the worker hears of it at once
                self.dispatcher.release(attempt)
                detail = error.code().name if error is not None else ""
                ending = Ending(outcome=outcome, latency_s=clock() - started_s, detail=detail)
                step = self.dispatcher.settle(route, attempt, ending, clock())
            if isinstance(step, Refusal):
                return await self._refuse(step, context, route)
            if step is Step.FORWARD:
                return await self._pass_on(route, attempt, answer, error, context)
            self._count_retry(route)

    async def _pass_on(
        self,
        route: Route,
        attempt: Attempt,
        answer: bytes,
        error: grpc.aio.AioRpcError | None,
        context: Context,
    ) -> bytes:
        trailers = _marks(route, attempt)
        if error is not None:
            self._count(route, error.code().name)
            await context.abort(error.code(), error.details() or "", trailers)
        self._count(route, "OK")
        context.set_trailing_metadata(trailers)
        return answer

    async def _stream(self, source: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Pin a stream, by its first message, to one worker and revision."""
        inbox = Inbox()
        filling = asyncio.create_task(inbox.fill(source))
        try:
            first = await anext(inbox.read(forget=lambda: False), b"")
            ask = self._ask(first, Call.STREAM, context)
            route = ask if isinstance(ask, Refusal) else self.dispatcher.plan(ask, clock())
            if isinstance(route, Refusal):
                await self._refuse(route, context)
                return
            try:
                async for message in self._relay(route, inbox, context):
                    yield message
            finally:
                self.dispatcher.finish(route, clock())
        finally:
            filling.cancel()

    async def _relay(self, route: Route, inbox: Inbox, context: Context) -> AsyncIterator[bytes]:
        metadata = _forwarded(context)
        while True:
            attempt = await acquire(self.dispatcher, route)
            if isinstance(attempt, Refusal):
                await self._refuse(attempt, context, route)
                return
            started_s, outcome, error = clock(), Outcome.CANCELLED, None
            requests = inbox.read(forget=lambda: route.answered or not inbox.replayable)
            call = self._channels.stream(attempt, f"{_SERVICE}ModelStreamInfer", requests, metadata)
            try:
                async for message in call:
                    route.answered = True
                    yield message
                outcome = Outcome.OK
            except grpc.aio.AioRpcError as failed:
                error, outcome = failed, judge(failed)
            finally:
                call.cancel()
                self.dispatcher.release(attempt)
                ending = Ending(outcome=outcome, latency_s=clock() - started_s)
                step = self.dispatcher.settle(route, attempt, ending, clock())
            if isinstance(step, Refusal):
                await self._refuse(step, context, route)
                return
            if step is Step.FORWARD or not inbox.replayable:
                await self._pass_on(route, attempt, b"", error, context)
                return
            self._count_retry(route)

    def _ask(self, message: bytes, call: Call, context: Context) -> Ask | Refusal:
        given = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        try:
            named = protowire.scan(message)
        except protowire.WireError as error:
            return Refusal(DroppedReason.BAD_REQUEST, f"the message is no protobuf: {error}")
        model = named.model or str(given.get(names.HEADER_MODEL, ""))
        if not model:
            text = "the message names no model (field 1, or metadata x-tidegate-model)"
            return Refusal(DroppedReason.BAD_REQUEST, text)
        pool = str(given.get(names.HEADER_POOL, ""))
        if pool and isinstance(refused := pool_name(pool), Refusal):
            return refused
        replayable = len(message) <= _REPLAY_BYTES
        digest = hashlib.blake2b(message, digest_size=16).hexdigest() if replayable else ""
        return Ask(
            model=model,
            version=named.version,
            pool=pool,
            call=call,
            timeout_s=context.time_remaining(),
            replayable=replayable,
            body_hash=digest if call is not Call.INQUIRY else "",
        )

    async def _refuse(
        self, refusal: Refusal, context: Context, route: Route | None = None
    ) -> bytes:
        self.telemetry.shed.labels(refusal.reason.value).inc()
        if route is not None:
            self._count(route, refusal.grpc_code)
        trailers = [(names.HEADER_DROPPED_REASON, refusal.reason.value)]
        if refusal.retry_after_s is not None:
            trailers.append(("grpc-retry-pushback-ms", str(int(refusal.retry_after_s * 1000))))
        await context.abort(grpc.StatusCode[refusal.grpc_code], refusal.message, tuple(trailers))
        return b""

    def _count(self, route: Route, code: str) -> None:
        labels = (route.namespace, route.pool, route.ask.model, route.revision)
        self.telemetry.requests.labels(*labels, code).inc()
        self.telemetry.request_duration.labels(*labels).observe(clock() - route.started_s)

    def _count_retry(self, route: Route) -> None:
        labels = (route.namespace, route.pool, route.ask.model)
        self.telemetry.retries.labels(*labels).inc()


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc ships no types
    def __init__(self, lane: GrpcLane) -> None:
        self._lane = lane

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._lane.handler(details.method)


def _forwarded(context: Context) -> Metadata:
    """Return a client's metadata as a worker may see it; binary values pass as they are."""
    pairs = [(key, value) for key, value in context.invocation_metadata() or ()]
    texts = headers.strip_request([(key, "") for key, _ in pairs])
    kept = {key for key, _ in texts}
    return tuple(
        (key, value)
        for key, value in pairs
        if key in kept and not key.startswith("grpc-") and key != "user-agent"
    )


def _marks(route: Route, attempt: Attempt) -> Sequence[tuple[str, str]]:
    return (
        (names.HEADER_WORKER, attempt.worker_name),
        (names.HEADER_REVISION, attempt.revision),
        (names.HEADER_ATTEMPTS, str(route.attempts)),
    )
