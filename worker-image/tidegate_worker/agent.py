"""The whole agent: serves its port, runs Triton and the models, ends on SIGTERM after a drain."""

import asyncio
import logging
import signal
import time
from collections.abc import Iterable

import aiohttp
from aiohttp import web

from tidegate_worker.adapters.nvml import DeviceSource, Nvml
from tidegate_worker.adapters.simulated import SimulatedDevices
from tidegate_worker.app import make_app
from tidegate_worker.core.drain import Draining, may_stop
from tidegate_worker.loader import Loader
from tidegate_worker.settings import Settings, read_models
from tidegate_worker.supervisor import ServerGaveUpError, Supervisor
from tidegate_worker.watcher import Watcher
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)
_DRAIN_POLL_S = 0.1
_LINGER_S = 1.5  # long enough for one more scrape to see why the worker failed


async def run(settings: Settings) -> int:
    """Run until SIGTERM; return the exit status, 0 after a drain, 1 if Triton gave up."""
    worker = Worker(settings, read_models(settings.models_file))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    runner = web.AppRunner(make_app(worker), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=settings.agent_port).start()
        return await _serve(worker, stop)
    finally:
        await runner.cleanup()


async def _serve(worker: Worker, stop: asyncio.Event) -> int:
    gave_up = False
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        supervisor = Supervisor(worker, session)
        try:
            async with asyncio.TaskGroup() as group:
                server = group.create_task(supervisor.run())
                watcher = Watcher(worker, supervisor, _device_source(worker))
                loops = [group.create_task(watcher.run()), group.create_task(watcher.run_probes())]
                loader = group.create_task(Loader(worker, supervisor).run())
                await _first(stop, server)
                loader.cancel()  # what is not loaded by now never will be
                await _drain(worker, supervisor)
                _cancel(loops)
        except* ServerGaveUpError as errors:
            _log.error("three crashes in a minute: %s", errors.exceptions[0])
            gave_up = True
    if gave_up:
        await asyncio.sleep(_LINGER_S)
    return int(gave_up)


def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()


def _device_source(worker: Worker) -> DeviceSource:
    settings = worker.settings
    if not settings.simulated_devices:
        return Nvml()
    return SimulatedDevices(
        settings.simulated_devices,
        settings.simulated_memory_bytes,
        lambda: (worker.in_flight(), worker.declared_bytes()),
    )


async def _first(stop: asyncio.Event, server: asyncio.Task[None]) -> None:
    """Wait for SIGTERM; a server that gave up cancels this through its group."""
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((waiting, server), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _drain(worker: Worker, supervisor: Supervisor) -> None:
    """Be not ready at once, wait until routers let go and work ended, stop Triton."""
    worker.state()
    began_s = worker.draining_since_s = time.monotonic()
    _log.info("draining: not ready, waiting for the routers to let go")
    stops = False
    while not stops:
        await asyncio.sleep(_DRAIN_POLL_S)
        stops = may_stop(_drained(worker, began_s), time.monotonic())
    _log.info("stopping tritonserver after %.1f s", time.monotonic() - began_s)
    await supervisor.stop()


def _drained(worker: Worker, began_s: float) -> Draining:
    return Draining(
        began_s=began_s,
        timeout_s=worker.settings.drain_timeout_s,
        acknowledged=worker.acknowledged,
        scraped_s=worker.scraped_s,
        busy_s=worker.busy_s,
        was_ready=worker.was_ready,
        idle_s=max(1.0, *(model.sequence_idle_s for model in worker.models.values()), 1.0),
    )
