"""The public port over aiohttp: OIP v2, byte-exact, driven by the dispatcher."""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict

from tidegate_api import names
from tidegate_api.names import DroppedReason
from tidegate_router import apis
from tidegate_router.adapters.routes import Routes
from tidegate_router.adapters.server import name_server
from tidegate_router.adapters.upstream import (
    BrokenError,
    OpenAnswer,
    UnreachableError,
    Upstream,
    UpstreamError,
    WorkerAnswer,
    WorkerRequest,
)
from tidegate_router.cached import Cached
from tidegate_router.core import headers, path, pins, record, report, sequence_ids
from tidegate_router.core.cache import ResponseCache
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.faults import Outcome, judge_http
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.record import Trace
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Call, Ending, Route, Step
from tidegate_router.core.tensors import HttpAnswer
from tidegate_router.http_cached import HttpCached, HttpFlight, keep, through_cache
from tidegate_router.http_heads import check, pairs
from tidegate_router.lane import acquire, clock
from tidegate_router.mirror import Mirror
from tidegate_router.records import Records
from tidegate_router.relay import Relay, identity, while_client_stays
from tidegate_router.telemetry import Telemetry

_log = logging.getLogger(__name__)
_ABANDONED_S = 600.0
_NOBODY_LISTENS = WorkerAnswer(499, [], b"", 0.0)  # what a client that left does not get
_BODY_S = 120.0
_ROUTE = web.RequestKey("route", Route)
_TRACE = web.RequestKey("trace", Trace)
_TRANSLATED = frozenset({"accept", "accept-encoding", "content-encoding", "content-type"})
METADATA = {
    "name": "tidegate-router",
    "version": "0.1.0",
    "extensions": ["classification", "binary_tensor_data", "statistics", "generate"],
}


@dataclass(slots=True)
class HttpLane:
    """All handlers of the public port. `draining` makes it not ready and closes connections."""

    dispatcher: Dispatcher
    routes: Routes
    upstream: Upstream
    telemetry: Telemetry
    max_body_bytes: int
    body_s: float = _BODY_S
    draining: bool = False
    cache: ResponseCache[WorkerAnswer] = field(default_factory=ResponseCache)
    records: Records | None = None
    mirror: Mirror = field(init=False)
    cached: HttpCached = field(init=False)
    _apis: dict[str, apis.Handler] = field(init=False)
    _abandoned: set[asyncio.Task[WorkerAnswer]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Make what sends copies, and what keeps answers."""
        self.mirror = Mirror(self.dispatcher, self.telemetry)
        self.cached = Cached(self.dispatcher, self.telemetry, self.cache)
        self._apis = apis.handlers(self)

    def make_app(self) -> web.Application:
        """Return the application: one handler, because the path's rules are the core's."""
        app = web.Application(client_max_size=self.max_body_bytes)
        app.router.add_route("*", r"/{anything:[\s\S]*}", self.handle)
        app.on_response_prepare.append(name_server)
        return app

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request; whatever happens is an answer with a reason."""
        answer = await self._answer(request)
        if not answer.prepared:
            answer.headers[names.HEADER_REQUEST_ID] = identity(request)
            if (route := request.get(_ROUTE)) is not None:
                answer.headers[names.HEADER_SERVER_TIMING] = _timing(route, route.upstream_s)
            if self.draining:
                answer.force_close()
        if self.records is not None:
            self._record(self.records, request, answer)
        return answer

    def _record(self, records: Records, request: web.Request, answer: web.StreamResponse) -> None:
        trace = request.get(_TRACE)
        records.note(
            identity(request),
            request.get(_ROUTE),
            str(answer.status),
            "http",
            answer.headers.get(names.HEADER_DROPPED_REASON, ""),
            "" if trace is None else trace.trace,
            forced=trace is not None and trace.sampled,
        )

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parsed = path.parse(request.raw_path.partition("?")[0])
        if isinstance(parsed, Refusal):
            return self.refuse(parsed)
        if (refused := check(request, parsed)) is not None:
            answer = self.refuse(refused)
            if answer.status == 405:
                answer.headers["Allow"] = path.method(parsed)
            return apis.shaped(parsed, answer)
        if (simple := self._simple(parsed, request)) is not None:
            return simple
        if parsed.target is Target.API:
            return await self._apis[parsed.upstream](parsed, request)
        body = await self.read_body(request)
        if isinstance(body, Refusal):
            return self.refuse(body)
        return await self.send(parsed, request, body)

    def _simple(self, parsed: Parsed, request: web.Request) -> web.Response | None:
        """Answer what needs no worker."""
        match parsed.target:
            case Target.HEALTHZ | Target.SERVER_LIVE:
                return web.Response(text="")
            case Target.READYZ | Target.SERVER_READY:
                ready = self.routes.ready and not self.draining
                return web.Response(status=200 if ready else 503)
            case Target.SERVER:
                return web.json_response(METADATA)
            case Target.MODEL_READY:
                pool = parsed.pool or request.headers.get(names.HEADER_POOL, "")
                known = report.model_ready(
                    self.dispatcher, pool, parsed.model, parsed.version, clock()
                )
                if known is None:
                    text = f"no pool serves model '{parsed.model}'"
                    return self.refuse(Refusal(DroppedReason.UNKNOWN_MODEL, text))
                return web.Response(status=200 if known else 503)
            case _:
                return None

    async def read_body(self, request: web.Request) -> bytes | Refusal:
        """Return the whole body."""
        try:
            async with asyncio.timeout(self.body_s):
                return await request.read()
        except TimeoutError:
            text = f"the body did not arrive within {self.body_s:g} s"
            return Refusal(DroppedReason.BAD_REQUEST, text, http_override=408)
        except web.HTTPRequestEntityTooLarge:
            text = f"the body is larger than {self.max_body_bytes} bytes"
            return Refusal(DroppedReason.TOO_LARGE, text)

    async def send(
        self,
        parsed: Parsed,
        request: web.Request,
        body: bytes,
        translate: Callable[[web.Request], Relay] | None = None,
    ) -> web.StreamResponse:
        """Plan a request and have a worker answer it.

        `translate` makes the relay of each attempt of a stream whose body is not the client's own;
        without it the worker gets the client's bytes and the client the worker's.
        """
        pool = parsed.pool or request.headers.get(names.HEADER_POOL, "")
        given = pins.given(pairs(request))
        tier = request.headers.get(names.HEADER_TIER, "")
        route = self.dispatcher.plan(self._ask(parsed, pool, body, given, tier), clock())
        if isinstance(route, Refusal):
            return self.refuse(route)
        request[_ROUTE] = route
        query = "" if translate else request.raw_path.partition("?")[2]
        work = WorkerRequest(
            method=request.method,
            target=f"{parsed.upstream}?{query}" if query else parsed.upstream,
            headers=self._worker_headers(request, translated=translate is not None),
            body=body or None,
        )
        try:
            if parsed.target in path.STREAM_TARGETS:
                return await self._stream(route, work, request, translate or Relay)
            if route.cache_ttl_s:
                return await self._cached(route, work, request)
            return await self._unary(route, work, request)
        finally:
            self.dispatcher.finish(route, clock())

    def _worker_headers(self, request: web.Request, *, translated: bool) -> headers.Pairs:
        """Return what a worker is told beside the body: the client's headers, id and trace."""
        trace = request[_TRACE] = self._trace(request)
        kept = headers.strip_request(pairs(request))
        dropped = {names.HEADER_TRACEPARENT} | (_TRANSLATED if translated else set())
        if not trace.given:
            dropped.add(names.HEADER_TRACESTATE)
        return [
            *(pair for pair in kept if pair[0].lower() not in dropped),
            *([("Content-Type", "application/json")] if translated else []),
            (names.HEADER_REQUEST_ID, identity(request)),
            (names.HEADER_TRACEPARENT, trace.header),
        ]

    def _trace(self, request: web.Request) -> Trace:
        given = request.headers.getall(names.HEADER_TRACEPARENT, [])
        sampled = self.records is not None and self.records.sampled(identity(request))
        return record.trace_of(given, random.getrandbits, sampled=sampled)

    def _ask(self, parsed: Parsed, pool: str, body: bytes, given: pins.Given, tier: str) -> Ask:
        call = Call.INQUIRY if parsed.target is Target.INQUIRY else Call.INFER
        if parsed.target in path.STREAM_TARGETS:
            call = Call.STREAM
        replayable = len(body) <= self.replay_limit(pool, parsed.model)
        digest = hashlib.blake2b(body, digest_size=16).hexdigest() if replayable and body else ""
        return Ask(
            model=parsed.model,
            version=parsed.version,
            pool=pool,
            call=call,
            replayable=replayable,
            body_hash=digest,
            given=given,
            tier=tier,
            size_bytes=len(body),
            sequence=sequence_ids.of_http(body) if call is Call.INFER else "",
        )

    def replay_limit(self, pool: str, model: str) -> int:
        """Return how large a body may be that is sent again, in bytes."""
        found = self.dispatcher.names.find(pool, model, bare_names=self.dispatcher.bare_names)
        view = self.dispatcher.pools.get(found) if isinstance(found, str) else None
        return view.table.policy.retry.max_body_bytes if view else 0

    async def _cached(
        self, route: Route, work: WorkerRequest, request: web.Request
    ) -> web.Response:
        found = await through_cache(
            self.cached, route, work, request, lambda lead: self._unary(route, work, request, lead)
        )
        if isinstance(found, web.Response):
            return found
        visible = headers.strip_response(found.answer.headers)
        response = web.Response(headers=CIMultiDict(visible), body=found.answer.body)
        response.headers[names.HEADER_REVISION] = route.revision
        response.headers[names.HEADER_CACHE] = found.how
        response.headers["Age"] = str(int(found.age_s))
        self._count(route, 200)
        return response

    async def _unary(
        self,
        route: Route,
        work: WorkerRequest,
        request: web.Request,
        flight: HttpFlight | None = None,
    ) -> web.Response:
        while True:
            attempt = await self._acquire(route)
            if isinstance(attempt, Refusal):
                return self.refuse(attempt, route)
            ending, answer = await self._try(attempt, work, request, flight)
            step = self.dispatcher.settle(route, attempt, ending, clock())
            if isinstance(step, Refusal):
                return self.refuse(step, route)
            if step is Step.FORWARD and answer is not None:
                if ending.outcome is Outcome.OK:
                    self.copy(route, attempt, work, answer)
                response = self._pass_on(route, attempt, answer, request)
                if flight is not None:
                    response.headers[names.HEADER_CACHE] = "miss"
                    keep(self.cached, route, flight, answer)
                return response
            self._count_retry(route)

    def copy(
        self, route: Route, attempt: Attempt, work: WorkerRequest, answer: WorkerAnswer
    ) -> None:
        """Offer a request that was answered well for a shadow copy."""

        async def ask(shadow: Attempt) -> HttpAnswer | None:
            try:
                found = await self.upstream.ask(shadow, work)
            except UpstreamError:
                return None
            good = judge_http(found.status, found.body) is Outcome.OK
            return HttpAnswer(found.headers, found.body) if good else None

        size_bytes = len(work.body or b"")
        stable = HttpAnswer(answer.headers, answer.body)
        self.mirror.offer(route, attempt, size_bytes, stable, ask)

    async def _try(
        self,
        attempt: Attempt,
        work: WorkerRequest,
        request: web.Request,
        flight: HttpFlight | None = None,
    ) -> tuple[Ending, WorkerAnswer | None]:
        """Ask one worker. Triton computes on after a timeout: its slot is freed when it ended."""
        gone = request.transport is None or request.transport.is_closing()
        if gone and not (flight is not None and flight.followers):
            self.dispatcher.release(attempt)  # the client left while its request waited
            return _ended(Outcome.CANCELLED, clock()), _NOBODY_LISTENS
        task = asyncio.create_task(self.upstream.ask(attempt, work))
        task.add_done_callback(lambda done: self._worker_stopped(attempt, done))
        started_s = clock()
        try:
            answer = await asyncio.wait_for(asyncio.shield(task), attempt.timeout_s)
        except TimeoutError:
            self._abandon(task)
            self.telemetry.abandoned.inc()
            return Ending(outcome=Outcome.TIMEOUT, latency_s=clock() - started_s), None
        except UnreachableError as error:
            return _ended(Outcome.UNREACHABLE, started_s, str(error)), None
        except BrokenError as error:
            return _ended(Outcome.LOST, started_s, str(error)), None
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        outcome = judge_http(answer.status, answer.body)
        return Ending(outcome=outcome, latency_s=answer.seconds), answer

    def _abandon(self, task: asyncio.Task[WorkerAnswer]) -> None:
        """Let the worker finish; a worker that never does gives its slot back after a while."""
        self._abandoned.add(task)
        asyncio.get_running_loop().call_later(_ABANDONED_S, task.cancel)

    def _worker_stopped(self, attempt: Attempt, task: asyncio.Task[WorkerAnswer]) -> None:
        self.dispatcher.release(attempt)
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # looked at: an abandoned attempt's error is nobody's

    async def _stream(
        self,
        route: Route,
        work: WorkerRequest,
        request: web.Request,
        make_relay: Callable[[web.Request], Relay],
    ) -> web.StreamResponse:
        """Relay an answer piece by piece; retried only until its first byte."""
        while True:
            attempt = await self._acquire(route)
            if isinstance(attempt, Refusal):
                return self.refuse(attempt, route)
            relay = make_relay(request)
            try:
                ending = await while_client_stays(relay, self._relay(relay, route, attempt, work))
            finally:
                self.dispatcher.release(attempt)
            step = self.dispatcher.settle(route, attempt, ending, clock())
            if relay.response is not None:
                self._count(route, relay.response.status)
                return relay.response
            if isinstance(step, Refusal):
                return self.refuse(step, route)
            if step is Step.FORWARD:  # without an answer the client left before it
                return self._pass_on(route, attempt, relay.answer or _NOBODY_LISTENS, request)
            self._count_retry(route)

    async def _relay(
        self, relay: Relay, route: Route, attempt: Attempt, work: WorkerRequest
    ) -> Ending:
        """Pass one worker's stream on; the attempt's time runs until its first byte."""
        try:
            async with (
                asyncio.timeout(attempt.timeout_s) as limit,
                self.upstream.open(attempt, work) as answer,
            ):
                if answer.status >= 400:
                    body = await answer.read()
                    seconds = clock() - relay.started_s
                    relay.answer = WorkerAnswer(answer.status, answer.headers, body, seconds)
                    return relay.ended(judge_http(answer.status, body))
                await self._pump(relay, route, attempt, answer, limit)
                return relay.ended(await relay.complete())
        except UnreachableError as error:
            return relay.ended(Outcome.UNREACHABLE, str(error))
        except BrokenError as error:
            relay.cut()
            return relay.ended(Outcome.LOST, str(error))
        except TimeoutError:
            return relay.ended(Outcome.TIMEOUT)
        except ConnectionError:
            return relay.ended(Outcome.CANCELLED)

    async def _pump(
        self,
        relay: Relay,
        route: Route,
        attempt: Attempt,
        answer: OpenAnswer,
        limit: asyncio.Timeout,
    ) -> None:
        async for piece in answer.pieces():
            if relay.first_byte_s is None:
                relay.first_byte_s = clock()
                if relay.live:
                    route.answered = True
                    limit.reschedule(None)
                await self._begin_stream(relay, route, attempt, answer)
            if not await relay.write(piece):
                return
        if relay.first_byte_s is None:
            await self._begin_stream(relay, route, attempt, answer)

    async def _begin_stream(
        self, relay: Relay, route: Route, attempt: Attempt, answer: OpenAnswer
    ) -> None:
        response = web.StreamResponse(
            status=answer.status,
            headers=CIMultiDict(headers.strip_response(answer.headers)),
        )
        self._mark(response, route, attempt, relay.request)
        upstream_s = route.upstream_s + relay.ended(Outcome.OK).latency_s
        response.headers[names.HEADER_SERVER_TIMING] = _timing(route, upstream_s)
        await relay.begin(response)

    async def _acquire(self, route: Route) -> Attempt | Refusal:
        began_s, first = clock(), route.attempts == 0
        attempt = await acquire(self.dispatcher, route)
        if first:
            labels = (route.namespace, route.pool, route.ask.model)
            self.telemetry.queue_wait.labels(*labels).observe(clock() - began_s)
        return attempt

    def _pass_on(
        self, route: Route, attempt: Attempt, answer: WorkerAnswer, request: web.Request
    ) -> web.Response:
        response = web.Response(
            status=answer.status,
            headers=CIMultiDict(headers.strip_response(answer.headers)),
            body=answer.body,
        )
        self._mark(response, route, attempt, request)
        self._count(route, answer.status)
        return response

    def _mark(
        self, response: web.StreamResponse, route: Route, attempt: Attempt, request: web.Request
    ) -> None:
        response.headers[names.HEADER_WORKER] = attempt.worker_name
        response.headers[names.HEADER_REVISION] = attempt.revision
        response.headers[names.HEADER_ATTEMPTS] = str(route.attempts)
        response.headers[names.HEADER_REQUEST_ID] = identity(request)
        if request.headers.get(names.HEADER_EXPLAIN) == "true":
            response.headers[names.HEADER_EXPLAIN] = self.dispatcher.explain(route, attempt)

    def refuse(self, refusal: Refusal, route: Route | None = None) -> web.Response:
        """Answer for the router itself, with the reason in a header."""
        self.telemetry.shed.labels(refusal.reason.value).inc()
        response = web.json_response({"error": refusal.message}, status=refusal.http_status)
        response.headers[names.HEADER_DROPPED_REASON] = refusal.reason.value
        if route is not None:
            self._count(route, refusal.http_status)
            response.headers[names.HEADER_ATTEMPTS] = str(route.attempts)
        if revision := route.drawn if route is not None else refusal.revision:
            response.headers[names.HEADER_REVISION] = revision
        if refusal.retry_after_s is not None:
            response.headers["Retry-After"] = str(max(1, round(refusal.retry_after_s)))
        if refusal.http_status in {400, 408, 413}:
            response.force_close()
        return response

    def _count(self, route: Route, status: int) -> None:
        labels = (route.namespace, route.pool, route.ask.model, route.revision)
        self.telemetry.requests.labels(*labels, str(status)).inc()
        self.telemetry.request_duration.labels(*labels).observe(clock() - route.started_s)

    def _count_retry(self, route: Route) -> None:
        labels = (route.namespace, route.pool, route.ask.model)
        self.telemetry.retries.labels(*labels).inc()


def _timing(route: Route, upstream_s: float) -> str:
    total_s = clock() - route.started_s
    queue_s = route.queue_s if route.attempts else total_s
    return record.server_timing(queue_s, upstream_s, total_s)


def _ended(outcome: Outcome, started_s: float, detail: str = "") -> Ending:
    return Ending(outcome=outcome, latency_s=clock() - started_s, detail=detail)
