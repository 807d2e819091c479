"""Looks at Triton and the devices once a second, and proves models by real inferences."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_worker.adapters.nvml import DeviceSource
from tidegate_worker.adapters.triton import TritonClient, TritonUnreachableError, samples
from tidegate_worker.core import measure, probe, window
from tidegate_worker.core.batches import executions_by_model
from tidegate_worker.core.lifecycle import Stage
from tidegate_worker.core.measure import Counters, Reading
from tidegate_worker.supervisor import Supervisor
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)
_INTERVAL_S = 1.0
_PROBE_INTERVAL_S = 0.2
_DEVICES_S = 3.0


@dataclass(slots=True)
class Watcher:
    """The measuring loop and the readiness inferences of all models."""

    worker: Worker
    supervisor: Supervisor
    devices: DeviceSource
    _device_task: asyncio.Task[None] | None = None
    _probing: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Measure once a second."""
        while True:
            began_s = time.monotonic()
            await self._measure_devices()
            await self._measure_server()
            self._add_sample()
            await asyncio.sleep(max(0.05, _INTERVAL_S - (time.monotonic() - began_s)))

    async def run_probes(self) -> None:
        """Start each readiness inference when it is due."""
        while True:
            self._start_probes()
            self.worker.state()  # notes the first moment of readiness
            await asyncio.sleep(_PROBE_INTERVAL_S)

    async def _measure_server(self) -> None:
        generation = self.supervisor.current
        if generation is None:
            return
        try:
            text = await generation.client.metrics()
            counters = measure.read(samples(text))
            statistics = await generation.client.statistics()
        except (TritonUnreachableError, ValueError) as error:
            _log.debug("Triton's metrics: %s", error)
            return
        if self.supervisor.current is generation:
            self.worker.batches = executions_by_model(statistics)
            self.worker.exposition = text
            self._take_in(counters, time.monotonic())

    def _take_in(self, counters: Mapping[str, Counters], now_s: float) -> None:
        worker = self.worker
        before = worker.readings[-1].models if worker.readings else {}
        if any(measure.busy(before.get(name), now) for name, now in counters.items()):
            worker.busy_s = now_s
        worker.readings = measure.remember(worker.readings, Reading(now_s, counters))
        worker.measured_s = now_s
        for name, status in worker.models.items():
            if status.stage is Stage.LOADED and name in counters:
                proof = probe.note_counter(status.proof, counters[name].successes, now_s)
                worker.update(name, proof=proof)

    async def _measure_devices(self) -> None:
        """Read the devices; a driver that hangs must not stop the rest."""
        if self._device_task is None or self._device_task.done():
            self._device_task = asyncio.create_task(self._read_devices())
        await asyncio.wait((self._device_task,), timeout=_DEVICES_S)
        if not self._device_task.done():
            self.worker.devices = []  # what was said before is no longer true
        self.worker.devices_read.set()

    async def _read_devices(self) -> None:
        self.worker.devices = await asyncio.to_thread(self.devices.read)

    def _add_sample(self) -> None:
        counters = self.worker.readings[-1].models.values() if self.worker.readings else ()
        newest = window.sample(self.worker.devices, sum(item.pending for item in counters))
        self.worker.window = window.add(self.worker.window, newest)

    def _start_probes(self) -> None:
        generation = self.supervisor.current
        if generation is None or self.worker.draining_since_s is not None:
            return
        now_s = time.monotonic()
        for name, status in self.worker.models.items():
            running = self._probing.get(name)
            idle = running is None or running.done()
            if idle and status.stage is Stage.LOADED and probe.due(status.proof, now_s):
                self._probing[name] = asyncio.create_task(self._probe(generation.client, name))

    async def _probe(self, client: TritonClient, name: str) -> None:
        """Run one readiness inference and take in what it says."""
        request = self.worker.probes[name]
        outcome, words = await client.infer(name, request, self.worker.settings.probe_timeout_s)
        pending = 0
        try:
            if outcome is probe.Outcome.REFUSED and not await client.is_model_ready(name):
                outcome = probe.Outcome.FAILURE
            if outcome is probe.Outcome.TIMEOUT:
                pending = (
                    measure.read(samples(await client.metrics())).get(name, Counters()).pending
                )
        except (TritonUnreachableError, ValueError) as error:
            outcome, words = probe.Outcome.FAILURE, f"the readiness inference failed: {error}"
        status = self.worker.models.get(name)
        if status is None or status.stage is not Stage.LOADED:
            return
        proof = probe.conclude(
            status.proof, outcome, now_s=time.monotonic(), pending=pending, message=words
        )
        if proof.ready != status.proof.ready:
            _log.info("ready" if proof.ready else words, extra={"object": name})
        self.worker.update(name, proof=proof)
