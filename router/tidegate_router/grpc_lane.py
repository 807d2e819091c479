"""The gRPC port over grpc.aio: messages pass as bytes, driven by the same dispatcher as HTTP."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import grpc.aio

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router.adapters.channels import Channels, Metadata, WorkerStream, judge
from tidegate_router.adapters.routes import Routes
from tidegate_router.core import headers, pins, protowire, report
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome, judge_grpc
from tidegate_router.core.path import pool_name
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Call, Ending, Route, Settled, Step
from tidegate_router.core.tensors import GrpcAnswer
from tidegate_router.grpc_lane_inbox import Inbox
from tidegate_router.lane import acquire, clock, request_id
from tidegate_router.mirror import Mirror
from tidegate_router.settings import Settings
from tidegate_router.telemetry import Telemetry

_SERVICE = "/inference.GRPCInferenceService/"
_HEALTH = "/grpc.health.v1.Health/Check"
_STREAM = f"{_SERVICE}ModelStreamInfer"
_INQUIRIES = ("ModelMetadata", "ModelStatistics")  # ModelConfig is one of Triton's guarded APIs
_REPLAY_BYTES = 1024 * 1024
_ROUNDING_S = 0.01  # between a client's deadline and the worker's
Context: TypeAlias = grpc.aio.ServicerContext
Unary = Callable[[bytes, Context], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: metadata, the same by key, what a worker may see of it, and the request's id."""

    pairs: Metadata
    given: dict[str, str | bytes]
    forwarded: Metadata
    identity: str

    def text(self, key: str) -> str:
        """Return one value, empty if it is absent."""
        return str(self.given.get(key, ""))


@dataclass(slots=True)
class Answer:
    """What one attempt at a worker came to."""

    outcome: Outcome = Outcome.CANCELLED
    message: bytes = b""
    error: grpc.aio.AioRpcError | None = None
    trailers: Metadata = ()
    first_s: float | None = None  # when a stream's first answer came

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        """Take a status that is not OK."""
        self.error, self.outcome = error, judge(error)
        self.trailers = tuple(error.trailing_metadata() or ())


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
    mirror: Mirror = field(init=False)

    def __post_init__(self) -> None:
        """Make what sends copies."""
        self.mirror = Mirror(self.dispatcher, self.telemetry)

    async def start(self) -> None:
        """Listen; OSError if the port is taken."""
        limits = [
            ("grpc.max_receive_message_length", self.settings.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=limits)
        server.add_generic_rpc_handlers((_Handlers(self.handlers(), self._forbidden),))
        address = f"{self.settings.host}:{self.settings.grpc_port}"
        try:
            self.port = server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from error
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """Refuse new calls, let those in flight end within the drain time."""
        if self._server is not None:
            await self._server.stop(self.settings.drain_s)
        await self.mirror.close()
        await self._channels.close()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Return what answers each method; all others are refused."""
        unary: dict[str, Unary] = {
            _HEALTH: self._health,
            f"{_SERVICE}ServerLive": self._live,
            f"{_SERVICE}ServerReady": self._ready,
            f"{_SERVICE}ServerMetadata": self._metadata,
            f"{_SERVICE}ModelReady": self._model_ready,
            f"{_SERVICE}ModelInfer": self._relayed(f"{_SERVICE}ModelInfer", Call.INFER),
            **{
                f"{_SERVICE}{name}": self._relayed(f"{_SERVICE}{name}", Call.INQUIRY)
                for name in _INQUIRIES
            },
        }
        made = {name: grpc.unary_unary_rpc_method_handler(call) for name, call in unary.items()}
        return {**made, _STREAM: grpc.stream_stream_rpc_method_handler(self._stream)}

    def _relayed(self, method: str, kind: Call) -> Unary:
        async def call(message: bytes, context: Context) -> bytes:
            return await self._call(method, kind, message, context)

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
        caller = _caller(context)
        ask = _ask(message, Call.INQUIRY, caller, None)
        if isinstance(ask, Refusal):
            return await self._refuse(ask, context, caller)
        ready = report.model_ready(self.dispatcher, ask.pool, ask.model, ask.version, clock())
        if ready is None:
            text = f"no pool serves model '{ask.model}'"
            return await self._refuse(Refusal(DroppedReason.UNKNOWN_MODEL, text), context, caller)
        return protowire.bool_message(value=ready)

    async def _forbidden(self, _message: bytes, context: Context) -> bytes:
        text = "control APIs of a worker are not reachable through the router"
        refusal = Refusal(DroppedReason.NOT_ALLOWED, text)
        return await self._refuse(refusal, context, _caller(context))

    async def _call(self, method: str, kind: Call, message: bytes, context: Context) -> bytes:
        caller = _caller(context)
        ask = _ask(message, kind, caller, context.time_remaining())
        route = ask if isinstance(ask, Refusal) else self.dispatcher.plan(ask, clock())
        if isinstance(route, Refusal):
            return await self._refuse(route, context, caller)
        try:
            return await self._attempts(route, method, message, context, caller)
        finally:
            self.dispatcher.finish(route, clock())

    async def _attempts(
        self, route: Route, method: str, message: bytes, context: Context, caller: Caller
    ) -> bytes:
        while True:
            attempt = await self._acquire(route)
            if isinstance(attempt, Refusal):
                return await self._refuse(attempt, context, caller, route)
            call = self._channels.unary(attempt, method, message, caller.forwarded)
            answer, started_s = Answer(), clock()
            try:
                answer.message = await call
                answer.outcome = Outcome.OK
                answer.trailers = tuple(await call.trailing_metadata() or ())
            except grpc.aio.AioRpcError as failed:
                answer.failed(failed)
            finally:  # also when the client left: the worker hears of it at once
                step = self._settle(route, attempt, answer, started_s)
            if isinstance(step, Refusal):
                return await self._refuse(step, context, caller, route)
            if step is Step.FORWARD:
                if answer.outcome is Outcome.OK:
                    self._copy(route, attempt, method, message, caller, answer)
                return await self._pass_on(route, attempt, answer, context, caller)
            self._count_retry(route)

    def _copy(
        self, route: Route, attempt: Attempt, method: str, message: bytes, caller: Caller,
        answer: Answer,
    ) -> None:  # fmt: skip
        """Offer a request that was answered well for a shadow copy."""

        async def ask(shadow: Attempt) -> GrpcAnswer | None:
            try:
                call = self._channels.unary(shadow, method, message, caller.forwarded)
                return GrpcAnswer(await call)
            except grpc.aio.AioRpcError:
                return None

        self.mirror.offer(route, attempt, len(message), GrpcAnswer(answer.message), ask)

    async def _stream(self, source: AsyncIterator[bytes], context: Context) -> AsyncIterator[bytes]:
        """Pin a stream, by its first message, to one worker and revision."""
        inbox, caller = Inbox(_REPLAY_BYTES), _caller(context)
        filling = asyncio.create_task(inbox.fill(source))
        filling.add_done_callback(_looked_at)
        try:
            first = await inbox.first()
            if first is None:
                return
            ask = _ask(first, Call.STREAM, caller, context.time_remaining())
            route = ask if isinstance(ask, Refusal) else self.dispatcher.plan(ask, clock())
            if isinstance(route, Refusal):
                await self._refuse(route, context, caller)
                return
            try:
                async with aclosing(self._relay(route, inbox, context, caller)) as answers:
                    async for message in answers:
                        yield message
            finally:
                self.dispatcher.finish(route, clock())
        finally:
            filling.cancel()

    async def _relay(
        self, route: Route, inbox: Inbox, context: Context, caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """Relay a stream; it moves to another worker only until its first answer."""
        while True:
            attempt = await self._acquire(route)
            if isinstance(attempt, Refusal):
                await self._refuse(attempt, context, caller, route)
                return
            answer, started_s = Answer(), clock()
            requests = inbox.read(answered=lambda: route.answered)
            call = self._channels.stream(attempt, _STREAM, requests, caller.forwarded)
            try:
                async with aclosing(_answers(call, answer, attempt.timeout_s)) as messages:
                    async for message in messages:
                        if not route.answered:
                            route.answered = True
                            marks = self._marks(route, attempt, caller)
                            await context.send_initial_metadata(marks)
                        yield message
            finally:
                call.cancel()
                step = self._settle(route, attempt, answer, started_s)
            if isinstance(step, Refusal):
                await self._refuse(step, context, caller, route)
                return
            if step is Step.FORWARD or not inbox.replayable:
                await self._pass_on(route, attempt, answer, context, caller)
                return
            self._count_retry(route)

    async def _acquire(self, route: Route) -> Attempt | Refusal:
        began_s, first = clock(), route.attempts == 0
        attempt = await acquire(self.dispatcher, route)
        if first:
            labels = (route.namespace, route.pool, route.ask.model)
            self.telemetry.queue_wait.labels(*labels).observe(clock() - began_s)
        return attempt

    def _settle(self, route: Route, attempt: Attempt, answer: Answer, started_s: float) -> Settled:
        """Free the slot and decide what follows.

        A client's deadline cancels its call at the moment when the worker's time is over too:
        that is a timeout, not a client that left.
        """
        self.dispatcher.release(attempt)
        now_s = clock()
        late = answer.first_s is None and now_s >= started_s + attempt.timeout_s - _ROUNDING_S
        if answer.outcome is Outcome.CANCELLED and late:
            answer.outcome = Outcome.TIMEOUT
        ending = Ending(
            outcome=answer.outcome,
            latency_s=(answer.first_s or now_s) - started_s,
            detail=answer.error.code().name if answer.error is not None else "",
        )
        return self.dispatcher.settle(route, attempt, ending, now_s)

    async def _pass_on(
        self, route: Route, attempt: Attempt, answer: Answer, context: Context, caller: Caller
    ) -> bytes:
        trailers = (*_visible(answer.trailers), *self._marks(route, attempt, caller))
        if answer.error is not None:
            self._count(route, answer.error.code().name)
            details = answer.error.details() or ""
            if attempt.loaded_as:
                details = details.replace(attempt.loaded_as, attempt.model)
            await context.abort(answer.error.code(), details, trailers)
        self._count(route, "OK")
        context.set_trailing_metadata(trailers)
        return answer.message

    def _marks(self, route: Route, attempt: Attempt, caller: Caller) -> Metadata:
        marks = [
            (names.HEADER_WORKER, attempt.worker_name),
            (names.HEADER_REVISION, attempt.revision),
            (names.HEADER_ATTEMPTS, str(route.attempts)),
            (names.HEADER_REQUEST_ID, caller.identity),
        ]
        if caller.text(names.HEADER_EXPLAIN) == "true":
            marks.append((names.HEADER_EXPLAIN, self.dispatcher.explain(route, attempt)))
        return tuple(marks)

    async def _refuse(
        self, refusal: Refusal, context: Context, caller: Caller, route: Route | None = None
    ) -> bytes:
        self.telemetry.shed.labels(refusal.reason.value).inc()
        trailers = [
            (names.HEADER_DROPPED_REASON, refusal.reason.value),
            (names.HEADER_REQUEST_ID, caller.identity),
        ]
        if route is not None:
            self._count(route, refusal.grpc_code)
        if revision := route.drawn if route is not None else refusal.revision:
            trailers.append((names.HEADER_REVISION, revision))
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
    """Known methods by name; those of Triton's service that are none of them are refused."""

    def __init__(self, known: dict[str, grpc.RpcMethodHandler], forbidden: Unary) -> None:
        self._known = known
        self._forbidden = grpc.unary_unary_rpc_method_handler(forbidden)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        found = self._known.get(details.method)
        if found is None and details.method.startswith(_SERVICE):
            return self._forbidden
        return found


async def _answers(
    call: WorkerStream, answer: Answer, timeout_s: float
) -> AsyncGenerator[bytes, None]:
    """Yield a worker's answers and note in `answer` how it ended.

    The attempt's time runs until the first answer. A first answer that says that the worker does
    not serve the model is not yielded: the request did not run.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            async for message in call.answers():
                if answer.first_s is None:
                    text = protowire.stream_error(message)
                    if text and judge_grpc("UNKNOWN", text) is Outcome.NEVER_RAN:
                        answer.outcome = Outcome.NEVER_RAN
                        return
                    answer.first_s = clock()
                    limit.reschedule(None)
                yield message
        answer.outcome = Outcome.OK
        answer.trailers = await call.trailers()
    except grpc.aio.AioRpcError as failed:
        answer.failed(failed)
    except TimeoutError:
        answer.outcome = Outcome.TIMEOUT


def _ask(message: bytes, call: Call, caller: Caller, timeout_s: float | None) -> Ask | Refusal:
    try:
        named = protowire.scan(message)
    except protowire.WireError as error:
        return Refusal(DroppedReason.BAD_REQUEST, f"the message is no request: {error}")
    model = named.model or caller.text(names.HEADER_MODEL)
    if not model:
        text = "the message names no model (field 1, or metadata x-tidegate-model)"
        return Refusal(DroppedReason.BAD_REQUEST, text)
    pool = caller.text(names.HEADER_POOL)
    if pool and isinstance(refused := pool_name(pool), Refusal):
        return refused
    replayable = len(message) <= _REPLAY_BYTES
    hashed = replayable and call is not Call.INQUIRY
    return Ask(
        model=model,
        version=named.version,
        pool=pool,
        call=call,
        timeout_s=timeout_s,
        replayable=replayable,
        body_hash=hashlib.blake2b(message, digest_size=16).hexdigest() if hashed else "",
        given=pins.given(caller.pairs),
    )


def _caller(context: Context) -> Caller:
    """Read a client's metadata; binary values pass as they are."""
    pairs = [(key.lower(), value) for key, value in context.invocation_metadata() or ()]
    given = dict(pairs)
    identity = request_id(str(given.get(names.HEADER_REQUEST_ID, "")))
    kept = {key for key, _ in headers.strip_request([(key, "") for key in given])}
    forwarded = [
        (key, value)
        for key, value in pairs
        if key in kept and not key.startswith("grpc-") and key != "user-agent"
    ]
    return Caller(tuple(pairs), given, (*forwarded, (names.HEADER_REQUEST_ID, identity)), identity)


def _visible(trailers: Metadata) -> Metadata:
    """Return a worker's trailers as a client may see them."""
    kept = {key for key, _ in headers.strip_response([(key, "") for key, _ in trailers])}
    return tuple((key, v) for key, v in trailers if key in kept and not key.startswith("grpc-"))


def _looked_at(task: asyncio.Task[None]) -> None:
    """A client's broken stream is told by its call's own end."""
    if not task.cancelled():
        task.exception()
