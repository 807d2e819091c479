"""The gRPC port: what every call of it shares, from the listening socket to the counters."""

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from tidegate_api import names
from tidegate_router.adapters.routes import Routes
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.core.h2 import messages, status
from tidegate_router.core.h2.heads import ClientHead, HeadReader, WorkerHead, encode_timeout
from tidegate_router.core.h2.hpack import literal
from tidegate_router.core.refusal import Refusal
from tidegate_router.core.request import Ask, Attempt, Route
from tidegate_router.core.tensors import GrpcAnswer
from tidegate_router.h2.attempt import Try
from tidegate_router.h2.call import KEPT_BYTES, Rpc
from tidegate_router.h2.copies import Shadow
from tidegate_router.h2.methods import Methods
from tidegate_router.h2.respond import OK_HEAD, error_trailers
from tidegate_router.h2.server import ClientConnection
from tidegate_router.h2.timers import Wheel
from tidegate_router.h2.workers import WorkerConnection, Workers
from tidegate_router.mirror import Mirror
from tidegate_router.settings import Settings
from tidegate_router.telemetry import Telemetry

_BACKLOG = 1024
_POST_HTTP = b"\x83\x86"  # :method POST, :scheme http, by the static table
_TE = literal(b"te", b"trailers")
_MAX_REMEMBERED = 4096


class _Counter(Protocol):
    def inc(self) -> None: ...


class _Timing(Protocol):
    def observe(self, seconds: float) -> None: ...


@dataclass(slots=True)
class GrpcLane:
    """The server. `draining` makes it not ready."""

    dispatcher: Dispatcher
    routes: Routes
    telemetry: Telemetry
    settings: Settings
    port: int = 0
    mirror: Mirror = field(init=False)
    methods: Methods = field(init=False)
    loop: asyncio.AbstractEventLoop = field(init=False)
    wheel: Wheel = field(init=False)
    workers: Workers = field(init=False)
    own_head: bytes = OK_HEAD
    ok_trailer: bytes = literal(b"grpc-status", b"0")
    connections: set[ClientConnection] = field(default_factory=set)
    _reader: HeadReader = field(default_factory=HeadReader)
    _server: asyncio.Server | None = None
    _identity: bytes = b""
    _calls: int = 0
    _marks: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    _timeouts: dict[int, bytes] = field(default_factory=dict)
    _ended: dict[tuple[str, ...], tuple[_Counter, _Timing]] = field(default_factory=dict)
    _waited: dict[tuple[str, ...], _Timing] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what needs no loop."""
        self.mirror = Mirror(self.dispatcher, self.telemetry)
        self.methods = Methods(self.dispatcher, self.routes)
        sample = secrets.token_hex(8).encode()
        whole = literal(names.HEADER_REQUEST_ID.encode(), sample + b"0" * 16)
        self._identity = whole[:-16]

    @property
    def draining(self) -> bool:
        """Whether it says that it is not ready."""
        return self.methods.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self.methods.draining = value

    async def start(self) -> None:
        """Listen; OSError if the port is taken."""
        self.loop = asyncio.get_running_loop()
        self.wheel, self.workers = Wheel(), Workers()
        host, port = self.settings.host, self.settings.grpc_port
        try:
            self._server = await self.loop.create_server(
                self._connection, host, port, backlog=_BACKLOG
            )
        except OSError as error:
            raise OSError(f"gRPC cannot listen on {host}:{port}: {error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    def _connection(self) -> ClientConnection:
        return ClientConnection(self.loop, self._reader.read, self._rpc, self.connections)

    def _rpc(self, client: ClientHead) -> Rpc:
        return Rpc(self, client, self.methods.find(client.path))

    async def stop(self) -> None:
        """Refuse new calls, let those in flight end within the drain time."""
        if self._server is not None:
            self._server.close()
            for connection in list(self.connections):
                connection.drain()
            until_s = self.loop.time() + self.settings.drain_s
            while self.connections and self.loop.time() < until_s:
                await asyncio.sleep(0.01)
            for connection in list(self.connections):
                connection.cut()
            await self.mirror.close()
            await self.workers.close()
            self.wheel.close()

    def next_identity(self) -> bytes:
        """Return the encoded id of a request that has none."""
        self._calls += 1
        return self._identity + b"%016x" % self._calls

    def request_block(self, rpc: Rpc, trying: Try, *, renamed: bool) -> bytes:
        """Return the head of what a worker is asked."""
        link, client = trying.link, rpc.client
        authority = link.authority if isinstance(link, WorkerConnection) else b""
        timeout = b""
        if rpc.method.unary or client.timeout_s is not None:
            timeout = self._timeout(trying.attempt.timeout_s)
        forwarded = client.plain if renamed else client.forwarded
        return b"".join((
            _POST_HTTP, rpc.method.encoded, authority, _TE, timeout, forwarded, rpc.identity,
        ))  # fmt: skip

    def _timeout(self, seconds: float) -> bytes:
        milliseconds = int(seconds * 1000)
        known = self._timeouts.get(milliseconds)
        if known is None:
            if len(self._timeouts) >= _MAX_REMEMBERED:
                self._timeouts.clear()
            known = literal(b"grpc-timeout", encode_timeout(seconds))
            self._timeouts[milliseconds] = known
        return known

    def marks(self, rpc: Rpc, attempt: Attempt) -> bytes:
        """Return the metadata that says who answered, encoded."""
        route = rpc.route
        attempts = route.attempts if route is not None else 1
        key = (attempt.worker_name, attempt.revision, attempts)
        known = self._marks.get(key)
        if known is None:
            if len(self._marks) >= _MAX_REMEMBERED:
                self._marks.clear()
            pairs = zip(
                (names.HEADER_WORKER, names.HEADER_REVISION, names.HEADER_ATTEMPTS),
                (*key[:2], str(attempts)),
                strict=True,
            )
            known = b"".join(literal(name.encode(), value.encode()) for name, value in pairs)
            self._marks[key] = known
        if rpc.client.explain and route is not None:
            why = self.dispatcher.explain(route, attempt).encode()
            return known + rpc.identity + literal(names.HEADER_EXPLAIN.encode(), why)
        return known + rpc.identity

    def own_trailers(self, rpc: Rpc) -> bytes:
        """Return the end of an answer of the router's own."""
        return self.ok_trailer + rpc.identity

    def refusal_trailers(self, rpc: Rpc, refusal: Refusal, revision: str) -> bytes:
        """Return a refusal's status and what says why."""
        code = status.NUMBERS[refusal.grpc_code]
        reason = literal(names.HEADER_DROPPED_REASON.encode(), refusal.reason.value.encode())
        parts = [error_trailers(code, refusal.message.encode()), reason, rpc.identity]
        if revision:
            parts.append(literal(names.HEADER_REVISION.encode(), revision.encode()))
        if refusal.retry_after_s is not None:
            pushback = b"%d" % int(refusal.retry_after_s * 1000)
            parts.append(literal(b"grpc-retry-pushback-ms", pushback))
        return b"".join(parts)

    def without_type(self, trailers: WorkerHead) -> bytes:
        """Return what a worker said in a single block, less its content-type, which we add."""
        return trailers.visible.replace(OK_HEAD[1:], b"")

    def kept_bytes(self, ask: Ask) -> int:
        """Return how large a message the pool of a request keeps for another try."""
        found = self.dispatcher.names.find(ask.pool, ask.model, bare_names=True)
        view = None if isinstance(found, Refusal) else self.dispatcher.pools.get(found)
        return KEPT_BYTES if view is None else view.table.policy.retry.max_body_bytes

    def count(self, route: Route, code: str, now_s: float) -> None:
        """Count a request's end as its client saw it."""
        labels = (route.namespace, route.pool, route.ask.model, route.revision)
        key = (*labels, code)
        known = self._ended.get(key)
        if known is None:
            ended = self.telemetry.requests.labels(*key)
            known = self._ended[key] = (ended, self.telemetry.request_duration.labels(*labels))
        known[0].inc()
        known[1].observe(now_s - route.started_s)

    def count_wait(self, route: Route, seconds: float) -> None:
        """Count the time from arrival to the first worker."""
        key = (route.namespace, route.pool, route.ask.model)
        known = self._waited.get(key)
        if known is None:
            known = self._waited[key] = self.telemetry.queue_wait.labels(*key)
        known.observe(seconds)

    def count_refusal(self, refusal: Refusal) -> None:
        """Count what the router refused."""
        self.telemetry.shed.labels(refusal.reason.value).inc()

    def count_retry(self, route: Route) -> None:
        """Count an attempt after the first."""
        labels = (route.namespace, route.pool, route.ask.model)
        self.telemetry.retries.labels(*labels).inc()

    def offer_copy(
        self, rpc: Rpc, route: Route, attempt: Attempt, sent: bytes, answered: bytes
    ) -> None:
        """Offer a request that was answered well for a shadow copy."""
        view = self.dispatcher.pools.get(route.pool_uid)
        if view is None or view.table.mirror is None:
            return
        answer = messages.unwrap(answered)
        if answer is None:
            return

        async def ask(shadow: Attempt) -> GrpcAnswer | None:
            found = await Shadow(self, rpc, sent).ask(shadow)
            return None if found is None else GrpcAnswer(found)

        self.mirror.offer(route, attempt, len(sent), GrpcAnswer(answer), ask)
