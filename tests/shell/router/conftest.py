"""Stub workers that speak HTTP for real, and a router in front of them."""

import asyncio
import json
import os
import random
import signal
import socket
import sys
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import pytest
import uvloop
from aiohttp import web

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    PoolIdentity,
    Ports,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)
from tidegate_router import admin
from tidegate_router.adapters.routes import Routes
from tidegate_router.adapters.server import listen
from tidegate_router.adapters.upstream import Upstream
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.http1 import lane as http1
from tidegate_router.http_lane import HttpLane
from tidegate_router.telemetry import Telemetry

ROOT = Path(__file__).parents[3]
DEADLINE_S = 10.0
_INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"
_MIB = 1024 * 1024


_ON_BOTH_LOOPS = {
    "test_router_fast_lane.py",
    "test_router_fast_lane_bodies.py",
    "test_router_corpus.py",
    "test_router_fast_lane_chaos.py",
}


def pytest_asyncio_loop_factories(item):
    """Run what is about transports on uvloop too: production's differ at their ends."""
    loops = {"asyncio": asyncio.new_event_loop}
    if item.path.name in _ON_BOTH_LOOPS:
        loops["uvloop"] = uvloop.new_event_loop
    return loops


async def eventually(condition):
    """Wait until `condition()`, which may be a coroutine, is true; its value is returned."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            value = condition()
            value = await value if asyncio.iscoroutine(value) else value
            if value:
                return value
            await asyncio.sleep(0.01)  # polls; nothing is timed by it


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@dataclass
class Seen:
    """A request as a worker got it."""

    method: str
    target: str
    headers: list
    body: bytes

    def header(self, name):
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class StubWorker:
    """A worker whose answers a test chooses: `answer(request, body)` is awaited for each."""

    name: str
    port: int = 0
    seen: list = field(default_factory=list)
    answer: object = None
    _runner: object = None

    async def start(self):
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, auto_decompress=False, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self):
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _handle(self, request):
        body = await request.read()
        headers = [(key.decode(), value.decode("latin-1")) for key, value in request.raw_headers]
        self.seen.append(Seen(request.method, request.raw_path, headers, body))
        if self.answer is not None:
            return await self.answer(request, body)
        return web.json_response({"outputs": [], "worker": self.name})


def answering(status, body=b"", **headers):
    """Return an answer that is always the same."""

    async def answer(_request, _body):
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return answer


async def breaking(request, _body):
    """Take a request, then break the connection without an answer."""
    request.transport.abort()
    return web.Response()


async def answer_of(reader):
    """Return (status, headers, body) of the next answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    named = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(named.get("content-length", 0)))
    return int(head[0].split()[1]), named, body


@asynccontextmanager
async def raw_worker(talk, name="raw"):
    """A server whose connections run `talk(reader, writer, number)`."""
    opened, tasks = [], set()

    async def serve(reader, writer):
        opened.append(writer)
        task = asyncio.current_task()
        tasks.add(task)
        try:
            await talk(reader, writer, len(opened))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield SimpleNamespace(name=name, port=port, opened=opened)
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def read_request(reader):
    """Return head and body of one request with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def asking(body, *lines):
    more = b"".join(line + b"\r\n" for line in lines)
    return _INFER + b"Content-Length: %d\r\n%b\r\n%b" % (len(body), more, body)


async def until_stuck(writer, size):
    """Write until nobody takes more for half a second; return how much was written."""
    sent = 0
    with suppress(TimeoutError):
        while sent < size:
            writer.write(b"x" * _MIB)
            sent += _MIB
            await asyncio.wait_for(writer.drain(), 0.5)
    return sent


def routed(worker, *, model="m", revision="r1", limit=8, port=None, **served):
    more = {key: served.pop(key) for key in ("ready", "draining") if key in served}
    return RoutedWorker(
        id=f"uid-{worker.name}",
        name=worker.name,
        address="127.0.0.1",
        ports=Ports(http=port or worker.port),
        revision=revision,
        accelerator="cpu",
        score=0.9,
        serves=[Served(revision=revision, model=model, limit=limit, **served)],
        **more,
    )


def table_of(*workers, name="vision", sequence=1, weights=None, created_at="", policy=None):
    weights = weights or {worker.revision: 100 for worker in workers}
    return RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name=name, uid=f"uid-{name}", created_at=created_at),
        sequence=sequence,
        weights=[RevisionWeight(revision=key, weight=value) for key, value in weights.items()],
        policy=RoutingPolicy.model_validate(policy or {}),
        workers=list(workers),
    )


@pytest.fixture
def kit():
    """Return what tests build their scenes from."""
    return SimpleNamespace(
        answer_of=answer_of,
        answering=answering,
        asking=asking,
        raw_worker=raw_worker,
        read_request=read_request,
        until_stuck=until_stuck,
        breaking=breaking,
        eventually=eventually,
        free_port=free_port,
        routed=routed,
        table=table_of,
    )


class Router:
    """A router in this process, on real sockets."""

    def __init__(
        self,
        stack,
        session,
        *,
        max_body_bytes=1024 * 1024,
        head_s=10.0,
        body_s=10.0,
        slow_lane=False,
    ):
        self.stack, self.session, self.head_s = stack, session, head_s
        self.slow_lane = slow_lane  # aiohttp from the first byte of each connection
        self.dispatcher = Dispatcher("test/1", random.Random(7).random)
        self.routes = Routes(self.dispatcher)
        self.upstream = Upstream()
        self.lane = HttpLane(
            self.dispatcher, self.routes, self.upstream, Telemetry(), max_body_bytes, body_s
        )
        self.port = self.admin_port = 0

    async def start(self):
        self.stack.push_async_callback(self.upstream.close)
        self.stack.push_async_callback(self.lane.mirror.close)
        self.admin_port = await listen(
            self.stack, admin.make_app(self.lane), "127.0.0.1", 0, shutdown_s=1.0
        )
        if self.slow_lane:
            self.port = await listen(
                self.stack, self.lane.make_app(), "127.0.0.1", 0, shutdown_s=1.0, head_s=self.head_s
            )
        else:
            self.fast = http1.FastLane(self.lane, shutdown_s=1.0, head_s=self.head_s)
            self.port = await http1.listen(self.stack, self.fast, "127.0.0.1", 0)

    def serve(self, *tables):
        self.routes.restore(list(tables))

    @asynccontextmanager
    async def open(self, method, path, **more):
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, **more) as answer:
            yield answer

    async def ask(self, method, path, **more):
        """Return (answer, body)."""
        async with self.open(method, path, **more) as answer:
            return answer, await answer.read()

    async def infer(self, body=b'{"inputs":[]}', model="m", **more):
        return await self.ask("POST", f"/v2/models/{model}/infer", data=body, **more)

    async def admin(self, path):
        async with self.session.get(f"http://127.0.0.1:{self.admin_port}{path}") as answer:
            return answer.status, await answer.read()

    def in_flight(self, name):
        """Return the slots taken at a worker."""
        [view] = self.dispatcher.pools.values()
        found = [one for group in view.groups.values() for one in group.candidates]
        return sum(one.slot.in_flight for one in found if one.worker.name == name)

    @asynccontextmanager
    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield reader, writer
        finally:
            writer.close()


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(auto_decompress=False) as one:
        yield one


@pytest.fixture
async def start_router(session):
    async with AsyncExitStack() as stack:

        async def start(**more):
            router = Router(stack, session, **more)
            await router.start()
            return router

        yield start


@pytest.fixture
async def router(start_router):
    return await start_router()


@pytest.fixture
async def start_worker():
    workers = []

    async def start(name="w1", **more):
        worker = StubWorker(name, **more)
        workers.append(worker)
        await worker.start()
        return worker

    yield start
    for worker in workers:
        await worker.stop()


class RouterProcess:
    """`python -m tidegate_router` as a process."""

    def __init__(self, session, folder, **environment):
        self.session = session
        self.http_port, self.admin_port = free_port(), free_port()
        ports = {"HTTP_PORT": self.http_port, "ADMIN_PORT": self.admin_port, "GRPC_PORT": -1}
        given = {"HOST": "127.0.0.1", "POD_UID": "router-uid", **ports, **environment}
        self.environment = {f"TIDEGATE_{key}": str(value) for key, value in given.items()}
        self.environment["KUBECONFIG"] = self.environment.pop("TIDEGATE_KUBECONFIG", "")
        self.log_file = folder / f"router-{self.http_port}.log"
        self.process = None

    async def start(self):
        paths = os.pathsep.join(str(ROOT / name) for name in ("crds", "router"))
        with self.log_file.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidegate_router",
                env={**os.environ, **self.environment, "PYTHONPATH": paths},
                stdout=log, stderr=log,
            )  # fmt: skip

    def log(self):
        return self.log_file.read_text()

    async def get(self, path, *, admin=False):
        """Return (status, body); (0, b"") while nobody listens."""
        port = self.admin_port if admin else self.http_port
        try:
            async with self.session.get(f"http://127.0.0.1:{port}{path}") as answer:
                return answer.status, await answer.read()
        except aiohttp.ClientConnectionError:
            return 0, b""

    async def infer(self, body=b"{}", model="m"):
        url = f"http://127.0.0.1:{self.http_port}/v2/models/{model}/infer"
        async with self.session.post(url, data=body) as answer:
            return answer, await answer.read()

    async def state(self):
        _, body = await self.get("/v1/state", admin=True)
        return json.loads(body) if body else {}

    async def until_ready(self, status=200):
        async def reached():
            return (await self.get("/readyz"))[0] == status

        await eventually(reached)

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        return await self.process.wait()


@pytest.fixture
async def start_process(session, tmp_path):
    running = []

    async def start(**environment):
        process = RouterProcess(session, tmp_path, **environment)
        running.append(process)
        await process.start()
        return process

    yield start
    for process in running:
        await process.stop()
