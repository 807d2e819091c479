"""`python3 -m tidegate_worker`: PID 1 of a worker container. See settings.py for its variables."""

import asyncio
import logging
import signal
import sys

from aiohttp import web
from pydantic import ValidationError

from tidegate_api.workermodels import WorkerModels
from tidegate_worker import settings, telemetry
from tidegate_worker.adapters.nvml import Nvml
from tidegate_worker.adapters.simulated import SimulatedDevices
from tidegate_worker.agent import Agent, ServerGaveUpError
from tidegate_worker.app import make_app
from tidegate_worker.settings import Settings

_log = logging.getLogger("tidegate_worker")


def main() -> int:
    """Return the exit code: 0 after a drain, 1 when the server gave up or nothing can start."""
    read = settings.read()
    telemetry.configure_logging(read.log_level)
    try:
        models = WorkerModels.model_validate_json(read.models_file.read_bytes())
    except (OSError, ValidationError) as error:
        _log.error(
            "%s: expected models.json as the operator writes it: %s", read.models_file, error
        )
        return 1
    return asyncio.run(_run(read, models))


async def _run(read: Settings, models: WorkerModels) -> int:
    if read.simulated_devices:
        simulated = SimulatedDevices(read.simulated_devices, read.simulated_memory_bytes)
        agent = Agent(read, models, simulated)
        simulated.load = lambda: (agent.in_flight(), agent.declared_bytes())
    else:
        agent = Agent(read, models, Nvml())
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    runner = web.AppRunner(make_app(agent), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=read.agent_port).start()
    try:
        return await _serve(agent, told)
    finally:
        await agent.stop()
        await runner.cleanup()


async def _serve(agent: Agent, told: asyncio.Event) -> int:
    """Run until told to end (then drain) or until Triton gives up."""
    work, waiting = asyncio.create_task(agent.run()), asyncio.create_task(told.wait())
    await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        waiting.cancel()
        try:
            await work
        except* ServerGaveUpError as broken:
            _log.error("%s", broken.exceptions[0])
        return 1
    await agent.drain()
    await agent.stop()
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
