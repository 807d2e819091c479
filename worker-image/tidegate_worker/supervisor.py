"""Keeps tritonserver running: starts it, restarts it after a crash, gives up after three.

ServerGaveUpError(Exception)   three crashes within a minute: the pod must fail
"""

import asyncio
import logging
import os
import time
from dataclasses import dataclass, field, replace

import aiohttp

from tidegate_worker.adapters import server
from tidegate_worker.adapters.triton import TritonClient, TritonUnreachableError
from tidegate_worker.core import restarts
from tidegate_worker.core.lifecycle import ModelStatus, Stage
from tidegate_worker.core.probe import Proof
from tidegate_worker.core.serverflags import ServerPlan
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_UNLOAD_S = 15.0  # at least; the pod's grace period is 40 s beyond the drain timeout
_EXIT_TIMEOUT_S = 1  # for answers still on their way out; idle connections are not worth more
_KILL_AFTER_S = 10.0


class ServerGaveUpError(Exception):
    """tritonserver crashed three times within a minute; says how it ended last."""


@dataclass(slots=True)
class Generation:
    """One start of tritonserver that answered; `ended` is set when it is gone."""

    client: TritonClient
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def ends_within(self, seconds: float) -> bool:
        """Whether the server is gone before `seconds` have passed."""
        try:
            await asyncio.wait_for(self.ended.wait(), seconds)
        except TimeoutError:
            return False
        return True


@dataclass(slots=True)
class Supervisor:
    """The server's life. `running()` is how the rest waits for it."""

    worker: Worker
    session: aiohttp.ClientSession
    _current: Generation | None = None
    _live: asyncio.Event = field(default_factory=asyncio.Event)
    _process: server.TritonProcess | None = None
    _stopping: bool = False
    _crashes_s: list[float] = field(default_factory=list)

    @property
    def current(self) -> Generation | None:
        """The server that answers now, None while there is none."""
        return self._current

    async def running(self) -> Generation:
        """Wait until a server answers and return it."""
        while self._current is None:
            await self._live.wait()
        return self._current

    def blames_second(self, *, while_loading: bool) -> bool:
        """Whether the server's last end keeps a second revision out."""
        return restarts.blames_second(
            self._crashes_s, time.monotonic(), while_loading=while_loading
        )

    async def run(self) -> None:
        """Start and restart until `stop`, or raise ServerGaveUpError."""
        own = self.worker.settings
        backends = own.state_directory / "backends"
        names = await asyncio.to_thread(server.prepare_backends, own.triton_backends, backends)
        self.worker.update_server(backends=names)
        while not self._stopping:
            words = await self._one_life()
            if not self._stopping:
                await self._crashed(words)

    async def stop(self) -> None:
        """End what runs, then tritonserver; kill it when that hangs.

        Unloading refuses new requests (404, never ran) and waits for running ones, exactly;
        tritonserver itself would wait for idle connections of its clients instead.
        """
        self._stopping = True
        if self._current is not None:
            try:
                async with asyncio.timeout(self._patience_s()):
                    await self._unload_all(self._current.client)
            except (TimeoutError, TritonUnreachableError) as error:
                _log.warning("models were not unloaded: %r", error)
        process = self._process
        if process is not None:
            process.terminate()
            try:
                await asyncio.wait_for(process.exit_code(), _KILL_AFTER_S)
            except TimeoutError:
                _log.warning("tritonserver did not end within %.0f s: killed", _KILL_AFTER_S)
                process.kill()
        self.worker.update_server(stopped=True, running=False)

    async def _unload_all(self, client: TritonClient) -> None:
        for name in list(self.worker.models):
            await client.unload(name)
        left = await client.states()
        while left:
            await asyncio.sleep(_POLL_S)
            left = await client.states()

    def _patience_s(self) -> float:
        """Work may run on until the drain timeout, and a little beyond it."""
        began_s = self.worker.draining_since_s or time.monotonic()
        left_s = began_s + self.worker.settings.drain_timeout_s - time.monotonic()
        return max(_UNLOAD_S, left_s)

    async def _one_life(self) -> str:
        """Start the server, wait for its end, and say how it ended."""
        plan = self._plan()
        try:
            process = await server.start(
                plan, server.environment(self.worker.settings.triton_library_path)
            )
        except OSError as error:
            return f"tritonserver cannot be started: {plan.binary}: {error.strerror}"
        self._process = process
        if self._stopping:  # told to while it was being started
            process.terminate()
        watch = asyncio.create_task(self._watch_start(plan))
        try:
            return await process.wait()
        finally:
            process.kill_group()
            self._process = None
            watch.cancel()
            self._gone()

    def _plan(self) -> ServerPlan:
        own = self.worker.settings
        repository = own.state_directory / "repository"
        repository.mkdir(parents=True, exist_ok=True)
        return ServerPlan(
            binary=str(own.triton_server),
            repository=str(repository),
            backends=str(own.state_directory / "backends"),
            http_port=own.http_port,
            grpc_port=own.grpc_port,
            metrics_port=own.metrics_port,
            exit_timeout_s=_EXIT_TIMEOUT_S,
            key=server.new_key(),
            shm_prefix=f"tidegate-{os.getpid()}-{self.worker.server.restarts}-",
        )

    async def _watch_start(self, plan: ServerPlan) -> None:
        own = self.worker.settings
        client = TritonClient(self.session, own.http_port, own.metrics_port, plan.key)
        live = False
        while not live:
            await asyncio.sleep(_POLL_S)
            live = await client.is_live()
        try:
            version = await client.version()
        except TritonUnreachableError:
            version = ""
        _log.info("tritonserver %s answers", version)
        self.worker.readings.clear()
        self.worker.update_server(running=True, version=version, last_crash="")
        self._current = Generation(client)
        self._live.set()

    def _gone(self) -> None:
        if self._current is not None:
            self._current.ended.set()
        self._current = None
        self._live.clear()
        self.worker.readings.clear()
        self.worker.exposition = ""
        self.worker.update_server(running=False)
        for name, status in self.worker.models.items():
            self.worker.models[name] = _unloaded(status)

    async def _crashed(self, words: str) -> None:
        now_s = time.monotonic()
        self._crashes_s.append(now_s)
        self.worker.update_server(restarts=self.worker.server.restarts + 1, last_crash=words)
        if restarts.gives_up(self._crashes_s, now_s):
            self.worker.update_server(gave_up=True)
            raise ServerGaveUpError(words)
        pause_s = restarts.backoff_s(self._crashes_s, now_s)
        _log.error("%s; starting it again in %.1f s", words, pause_s)
        await asyncio.sleep(pause_s)


def _unloaded(status: ModelStatus) -> ModelStatus:
    """What was loaded must be loaded and proven again."""
    stage = Stage.LOADING if status.stage is Stage.LOADED else status.stage
    return replace(status, stage=stage, proof=Proof(), admitted=False)
