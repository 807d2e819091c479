"""`python -m tidegate_router`: one process, one core; Kubernetes scales it by replicas."""

import asyncio
import logging
import random
import signal
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack

import uvloop

from tidegate_router import admin, settings, telemetry
from tidegate_router.adapters import kube
from tidegate_router.adapters.kube import KubeError, KubeReader
from tidegate_router.adapters.routes import KubernetesRoutes, Routes, follow_file, keep_snapshot
from tidegate_router.adapters.server import listen
from tidegate_router.adapters.upstream import Upstream
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.h2.lane import GrpcLane
from tidegate_router.http1 import lane as http1
from tidegate_router.http1.lane import FastLane
from tidegate_router.http_lane import HttpLane
from tidegate_router.settings import Settings

_log = logging.getLogger("tidegate_router")
_LAST_REQUESTS_S = 35.0  # what is in flight when a drain ends may take this long


class _Stop(Exception):  # noqa: N818  # not an error: the way out of a task group
    """SIGTERM or SIGINT arrived and the drain is over."""


def main() -> int:
    """Return the exit code: 0 after a drain, 1 for an unusable configuration."""
    read = settings.read(sys.argv[1:])
    telemetry.configure_logging(read.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_run(read))
        except KubeError as error:
            _log.error("%s", error)
            return 1
    return 0


async def _run(read: Settings) -> None:
    dispatcher = Dispatcher(
        instance=f"{read.pod_uid or read.pod_name}/{time.time():.3f}",
        uniform=random.random,
        bare_names=read.bare_model_names,
    )
    routes, metrics = Routes(dispatcher), telemetry.Telemetry()
    async with AsyncExitStack() as stack:
        reader = await _connect(stack, read)
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        lane = HttpLane(dispatcher, routes, upstream, metrics, read.max_body_bytes)
        stack.push_async_callback(lane.mirror.close)
        grpc = GrpcLane(dispatcher, routes, metrics, read)
        await listen(stack, admin.make_app(lane), read.host, read.admin_port, 1.0)
        await http1.listen(stack, FastLane(lane, _LAST_REQUESTS_S), read.host, read.http_port)
        if read.grpc_port >= 0:
            await grpc.start()
            stack.push_async_callback(grpc.stop)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_drain(read, lane, grpc))
                group.create_task(_tick(routes, metrics))
                for following in _follow(read, routes, reader):
                    group.create_task(following)
        except* _Stop:
            _log.info("drained")


async def _connect(stack: AsyncExitStack, read: Settings) -> KubeReader | None:
    """Return access to the API server; None when a routes file replaces it."""
    if read.routes_file is not None:
        return None
    reader = await kube.connect(read.kubeconfig)
    stack.push_async_callback(reader.close)
    return reader


def _follow(
    read: Settings, routes: Routes, reader: KubeReader | None
) -> Iterator[Coroutine[None, None, None]]:
    """Yield what keeps the routes true."""
    if read.routes_file is not None:
        yield follow_file(routes, read.routes_file)
    if reader is not None:
        yield KubernetesRoutes(routes, reader, read.namespaces, read.operator_namespace).run()
        if read.snapshot_file is not None:
            yield keep_snapshot(routes, read.snapshot_file)


async def _drain(read: Settings, lane: HttpLane, grpc: GrpcLane) -> None:
    """On SIGTERM: not ready at once, accept for `drain_s` more, then let work in flight end."""
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    await told.wait()
    _log.info("draining for %.0f s", read.drain_s)
    lane.draining = grpc.draining = True
    await asyncio.sleep(read.drain_s)
    raise _Stop


async def _tick(routes: Routes, metrics: telemetry.Telemetry) -> None:
    while True:
        for abort in routes.tick():
            metrics.local_aborts.labels(abort.namespace, abort.pool, abort.revision).inc()
        await asyncio.sleep(1.0)


if __name__ == "__main__":
    sys.exit(main())
