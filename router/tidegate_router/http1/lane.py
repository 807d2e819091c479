"""The public port: what its connections share, and what needs no worker."""

import asyncio
import json
import logging
import os
import random
from contextlib import AsyncExitStack
from itertools import count

from aiohttp import web

from tidegate_api.names import DroppedReason
from tidegate_router.adapters.server import BACKLOG, HEAD_S, Connection
from tidegate_router.adapters.upstream import WorkerAnswer, WorkerRequest
from tidegate_router.core import report
from tidegate_router.core.answer import AnswerHead
from tidegate_router.core.head import Head, HeadBook
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.record import Trace, trace_of
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Route
from tidegate_router.http1 import answers, renamed
from tidegate_router.http1.client import ClientConnection
from tidegate_router.http1.contract import Client
from tidegate_router.http1.exchange import HELD_BYTES
from tidegate_router.http1.wheel import Wheel
from tidegate_router.http1.workers import Workers
from tidegate_router.http_lane import METADATA, HttpLane
from tidegate_router.lane import clock
from tidegate_router.telemetry import Tally, Times

_log = logging.getLogger(__name__)
_TICK_S = 1.0
_LEAST_HOLD_S = 0.05


class FastLane:
    """Everything that the connections of one public port share.

    `slow` answers what is no path of the inference protocol, over aiohttp.
    """

    def __init__(self, slow: HttpLane, shutdown_s: float, head_s: float = HEAD_S) -> None:
        self.slow, self.head_s, self._shutdown_s = slow, head_s, shutdown_s
        self.dispatcher, self.telemetry = slow.dispatcher, slow.telemetry
        self.max_body_bytes, self.body_s = slow.max_body_bytes, slow.body_s
        self.loop = asyncio.get_running_loop()
        self.wheel, self.heads, self.stamp = Wheel(), HeadBook(), answers.Stamp()
        self.workers = Workers(self.wheel)
        self.connections: set[ClientConnection] = set()
        self._identities = (
            os.urandom(8).hex().encode(),
            count(int.from_bytes(os.urandom(6), "big")),
        )
        # What most requests share, found by one look-up; forgotten every second.
        self._held_bytes: dict[tuple[str, str], int] = {}
        self._waits: dict[tuple[str, str], Times] = {}
        self._ends: dict[tuple[str, str, str, int], tuple[Tally, Times]] = {}
        self._marks: dict[tuple[str, str, int], bytes] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self._runner = web.AppRunner(slow.make_app(), shutdown_timeout=shutdown_s)

    @property
    def draining(self) -> bool:
        """Whether connections end with their next answer."""
        return self.slow.draining

    async def start(self) -> None:
        """Begin with what happens regularly, and make aiohttp ready."""
        await self._runner.setup()
        self.wheel.start()
        self._tick()

    async def stop(self) -> None:
        """Close what is idle, let requests in flight end, then break them off."""
        await asyncio.gather(self._end_own(), self._runner.cleanup())
        if self._ticking is not None:
            self._ticking.cancel()
        self.wheel.stop()
        self.workers.close()

    async def _end_own(self) -> None:
        until_s = clock() + self._shutdown_s
        while self.connections and clock() < until_s:
            for one in list(self.connections):
                one.close_idle()
            await asyncio.sleep(0.02)
        for one in list(self.connections):
            one.abort()

    def _tick(self) -> None:
        self.stamp.renew()
        self.workers.sweep()
        for memo in (self._held_bytes, self._waits, self._ends, self._marks):
            memo.clear()
        self._ticking = self.loop.call_later(_TICK_S, self._tick)

    def foreign_protocol(self) -> Connection:
        """Return what goes on with a connection that asks for something else."""
        server = self._runner.server
        if server is None:
            raise RuntimeError("the lane was not started")
        return Connection(server, self.loop, self.head_s)

    def new_identity(self) -> bytes:
        """Return an id that no other request of any router has."""
        prefix, numbers = self._identities
        return b"%b%016x" % (prefix, next(numbers))

    def held_bytes(self, head: Head) -> int:
        """Return how large a body may be that is held whole to be sent again; a second old."""
        ask = head.ask
        key = (ask.pool, ask.model)
        found = self._held_bytes.get(key)
        if found is None:
            most = HELD_BYTES if self.unknown(ask) else self.slow.replay_limit(*key)
            found = min(HELD_BYTES, most, self.max_body_bytes)
            self._held_bytes[key] = found
        return found

    def unknown(self, ask: Ask) -> Refusal | None:
        """Refuse what no pool answers, before its body is asked for."""
        dispatcher = self.dispatcher
        found = dispatcher.names.find(ask.pool, ask.model, bare_names=dispatcher.bare_names)
        return found if isinstance(found, Refusal) else None

    def too_large(self) -> Refusal:
        """The body is over the limit."""
        text = f"the body is larger than {self.max_body_bytes} bytes"
        return Refusal(DroppedReason.TOO_LARGE, text)

    def late_body(self) -> Refusal:
        """The client is too slow."""
        text = f"the body did not arrive within {self.body_s:g} s"
        return Refusal(DroppedReason.BAD_REQUEST, text, http_override=408)

    def refuse(
        self, client: Client, refusal: Refusal, identity: bytes, route: Route | None
    ) -> None:
        """Answer with a reason. `route` has had its revision drawn: failures are that one's."""
        self.telemetry.shed.labels(refusal.reason.value).inc()
        if route is None and self.slow.records is not None:
            self.slow.records.note(
                identity.decode("latin-1"), None, str(refusal.http_status), "http",
                refusal.reason.value,
            )  # fmt: skip
        lines = client.lines(closing=refusal.http_status in answers.CLOSING)
        drawn, attempts = refusal.revision, 0
        if route is not None:
            drawn, attempts = route.drawn, route.attempts
        client.respond(answers.refused(refusal, identity, drawn, attempts, lines))

    def answer_itself(self, client: Client, head: Head, parsed: Parsed) -> None:
        """Answer what needs no worker."""
        identity, status, body = head.request_id or self.new_identity(), 200, b""
        if parsed.target in {Target.READYZ, Target.SERVER_READY}:
            status = 200 if self.slow.routes.ready and not self.draining else 503
        elif parsed.target is Target.SERVER:
            body = json.dumps(METADATA).encode()
        elif parsed.target is Target.MODEL_READY:
            ask = head.ask
            known = report.model_ready(self.dispatcher, ask.pool, ask.model, ask.version, clock())
            if known is None:
                text = f"no pool serves model '{ask.model}'"
                self.refuse(client, Refusal(DroppedReason.UNKNOWN_MODEL, text), identity, None)
                return
            status = 200 if known else 503
        client.respond(answers.plain(status, identity, client.lines(), body))

    def count_wait(self, route: Route, now_s: float) -> None:
        """Count the time before the first attempt."""
        key = (route.pool_uid, route.ask.model)
        times = self._waits.get(key)
        if times is None:
            labels = (route.namespace, route.pool, route.ask.model)
            times = self._waits[key] = self.telemetry.queue_wait.labels(*labels)
        times.observe(now_s - route.started_s)

    def count_retry(self, route: Route) -> None:
        """Count an attempt after the first."""
        self.telemetry.retries.labels(route.namespace, route.pool, route.ask.model).inc()

    def count(self, route: Route, status: int, now_s: float) -> None:
        """Count a request's end."""
        key = (route.pool_uid, route.ask.model, route.revision, status)
        counters = self._ends.get(key)
        if counters is None:
            labels = (route.namespace, route.pool, route.ask.model, route.revision)
            counters = self._ends[key] = (
                self.telemetry.requests.labels(*labels, str(status)),
                self.telemetry.request_duration.labels(*labels),
            )
        counters[0].inc()
        counters[1].observe(now_s - route.started_s)

    def trace(self, head: Head, identity: bytes) -> Trace:
        """Return the trace that a request belongs to, with a span of our own."""
        records = self.slow.records
        sampled = records is not None and records.sampled(identity.decode("latin-1"))
        return trace_of(head.traceparents, random.getrandbits, sampled=sampled)

    def record(
        self, route: Route, identity: bytes, trace: Trace, status: int, reason: str = ""
    ) -> None:
        """Record a routed request's end, if it is one of those that are."""
        records = self.slow.records
        if records is not None:
            text = identity.decode("latin-1")
            records.note(
                text, route, str(status), "http", reason, trace.trace, forced=trace.sampled
            )

    def marks(self, attempt: Attempt, attempts: int) -> bytes:
        """Return what `answers.marks` returns."""
        key = (attempt.worker_name, attempt.revision, attempts)
        found = self._marks.get(key)
        if found is None:
            found = self._marks[key] = answers.marks(attempt, attempts)
        return found

    def p95_s(self, attempt: Attempt, now_s: float) -> float:
        """Return how long the slot of an attempt is held whose request left in part."""
        view = self.dispatcher.view(attempt.pool_uid, now_s)
        found = view.group(attempt.revision, attempt.model).p95_s if view is not None else 0.0
        return max(_LEAST_HOLD_S, found)

    def mirrors(self, route: Route) -> bool:
        """Whether the pool wants copies of requests."""
        view = self.dispatcher.pools.get(route.pool_uid)
        return view is not None and view.table.mirror is not None

    def copy(
        self,
        route: Route,
        attempt: Attempt,
        head: Head,
        identity: bytes,
        body: bytes,
        answer: AnswerHead,
        answer_body: bytes,
    ) -> None:
        """Offer a request that was answered well for a shadow copy."""
        work = WorkerRequest(
            method=head.method.decode(),
            target=head.target.decode(),
            headers=[*renamed.texts(head.pairs), ("x-request-id", identity.decode())],
            body=body or None,
        )
        given = WorkerAnswer(answer.status, renamed.texts(answer.pairs), answer_body, 0.0)
        self.slow.copy(route, attempt, work, given)


async def listen(stack: AsyncExitStack, lane: FastLane, host: str, port: int) -> int:
    """Serve until `stack` unwinds. Returns the port, which the system chose if 0 was asked for."""
    await lane.start()
    stack.push_async_callback(lane.stop)
    server = await lane.loop.create_server(
        lambda: ClientConnection(lane), host, port, backlog=BACKLOG
    )
    stack.callback(server.close)
    bound: int = server.sockets[0].getsockname()[1]
    return bound
