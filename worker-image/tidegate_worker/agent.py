"""The agent's life: start Triton, bring models up, watch them, drain, stop."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp

from tidegate_api.names import Reason
from tidegate_api.quantity import quantity_bytes
from tidegate_api.state import (
    DeviceState,
    ModelState,
    Phase,
    ServerState,
    Traits,
    WorkerState,
)
from tidegate_api.template import JsonObject
from tidegate_api.workermodels import DesiredModel, WorkerModels
from tidegate_worker.adapters.nvml import DeviceSource
from tidegate_worker.adapters.repository import Repository
from tidegate_worker.adapters.triton import Triton
from tidegate_worker.core import drain as draining
from tidegate_worker.core import measure, modelconfig, pressure, probe, restarts, window
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.versions import below
from tidegate_worker.settings import Settings
from tidegate_worker.telemetry import BatchCounts, exposition

_log = logging.getLogger(__name__)
_RETRY_S = (1.0, 30.0)


class ServerGaveUpError(RuntimeError):
    """tritonserver crashed three times in a minute: the pod fails."""


@dataclass(slots=True)
class Served:
    """What is known of one model."""

    desired: DesiredModel
    version: int = 1
    loaded: bool = False
    reason: str = ""  # empty while nothing is wrong: on its way, or ready
    message: str = "not loaded yet"
    config: JsonObject = field(default_factory=dict)
    traits: Traits = field(default_factory=Traits)
    proof: probe.Proof = field(default_factory=probe.Proof)

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.desired.model.name


class Agent:
    """One worker. `state()` is what the world sees; tasks of `run()` keep it true."""

    def __init__(self, settings: Settings, models: WorkerModels, devices: DeviceSource) -> None:
        self._settings = settings
        self._models = {m.model.name: Served(m) for m in models.models}
        self._devices_source = devices
        self._repository = Repository(settings.state_directory, models.kind)
        self._triton = Triton(settings, self._repository.folder)
        self._server = ServerState(backends=self._triton.backends())
        self._devices: Sequence[DeviceState] = []
        self._readings: deque[measure.Reading] = deque()
        self._window: tuple[window.Sample, ...] = ()
        self._crashes_s: list[float] = []
        self._live = asyncio.Event()
        self._draining_s: float | None = None
        self._scraped_s: float | None = None
        self._acknowledged = False
        self._busy_s = time.monotonic()
        self._phase = Phase.STARTING
        self._instance = f"{settings.pod_uid}/{time.time():.3f}"

    async def run(self) -> None:
        """Serve until cancelled; raises ServerGaveUpError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_server())
            group.create_task(self._measure())
            for served in self._models.values():
                group.create_task(self._bring_up(served))

    async def drain(self) -> None:
        """Stop being ready, wait until routers let go and work has ended, stop Triton."""
        self._draining_s = self._busy_s = time.monotonic()
        self._phase = Phase.DRAINING
        _log.info("draining, at most %.0f s", self._settings.drain_timeout_s)
        while True:
            if draining.may_stop(self._drain_view(self._draining_s), time.monotonic()):
                return
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """End Triton and close connections."""
        self._phase = Phase.STOPPED
        await self._triton.stop()
        await self._triton.close()

    def scraped(self, *, acknowledged: bool) -> None:
        """Note that the operator asked, and whether every live router let go."""
        self._scraped_s = time.monotonic()
        self._acknowledged = self._acknowledged or acknowledged

    def state(self) -> WorkerState:
        """Return the document of /v1/state."""
        models = [self._model_state(served) for served in self._models.values()]
        broken = next((model for model in models if not model.ready), None)
        ready = self._live.is_set() and broken is None and self._draining_s is None
        return WorkerState(
            uid=self._settings.pod_uid,
            name=self._settings.pod_name,
            revision=self._settings.revision,
            accelerator=self._settings.accelerator,
            instance=self._instance,
            phase=self._shown_phase(ready=ready),
            ready=ready,
            draining=self._draining_s is not None,
            reason=broken.reason if broken else "",
            message=broken.message if broken else "",
            server=self._server,
            models=models,
            devices=list(self._devices),
            memory_pressure=pressure.memory_pressure(self._devices, self._settings.thresholds),
            thermal=pressure.thermal(self._devices, self._settings.thresholds),
            window=window.summarize(self._window),
            measurement_age_s=self._measurement_age_s(),
        )

    async def exposition(self) -> bytes:
        """Return Triton's metrics and the agent's own."""
        try:
            theirs = (await self._triton.metrics()).encode()
            batches = _batch_counts(await self._triton.statistics())
        except (aiohttp.ClientError, TimeoutError):
            theirs, batches = b"", {}
        return theirs + exposition(self.state(), batches)

    async def _keep_server(self) -> None:
        """Start Triton, and again with backoff when it ends by itself."""
        while True:
            process = await self._triton.start()
            watch = asyncio.create_task(self._announce())
            code = await process.wait()
            watch.cancel()
            self._live.clear()
            if self._phase is Phase.STOPPED:
                return
            self._note_crash(code)
            await asyncio.sleep(restarts.backoff_s(self._crashes_s, time.monotonic()))

    async def _announce(self) -> None:
        """Set `live` once the server answers."""
        while True:
            if await self._triton.live():
                break
            await asyncio.sleep(0.05)
        version = str((await self._triton.metadata()).get("version", ""))
        self._server = self._server.model_copy(
            update={
                "version": version,
                "running": True,
                "below_security_floor": below(version, self._settings.security_floor),
            }
        )
        self._live.set()

    def _note_crash(self, code: int) -> None:
        now_s = time.monotonic()
        self._crashes_s.append(now_s)
        _log.error("tritonserver ended with %d", code)
        restarted = self._server.restarts + 1
        self._server = self._server.model_copy(update={"restarts": restarted, "running": False})
        self._readings.clear()
        for served in self._models.values():
            served.loaded, served.proof = False, probe.Proof()
            served.reason = Reason.SERVER_CRASHED.value
            served.message = f"tritonserver ended with {code}; starting again"
        if restarts.gives_up(self._crashes_s, now_s):
            raise ServerGaveUpError(f"tritonserver ended {len(self._crashes_s)} times; the last "
                                    f"time with {code}")  # fmt: skip

    async def _bring_up(self, served: Served) -> None:
        """Fetch, load and watch one model; a failing step is tried again for ever."""
        prepared, delay_s = False, _RETRY_S[0]
        while True:
            try:
                if not prepared:
                    await self._prepare(served)
                    prepared = True
                await self._live.wait()
                if not served.loaded:
                    await self._load(served)
                delay_s = _RETRY_S[0]
                await self._prove(served)
                await asyncio.sleep(0.2 if not served.proof.ready else 1.0)
            except ModelError as error:
                self._failed(served, error)
                await asyncio.sleep(delay_s)
                delay_s = min(_RETRY_S[1], delay_s * 2)

    async def _prepare(self, served: Served) -> None:
        model = served.desired.model
        if model.backend is not None and model.backend not in self._server.backends:
            installed = ", ".join(self._server.backends) or "none"
            raise ModelError(
                Reason.BACKEND_NOT_IN_IMAGE,
                f"backend {model.backend} is not in the worker image, which "
                f"has {installed}: use an image that has it",
            )
        others = [s.desired.model for s in self._models.values() if s.loaded]
        devices = await asyncio.to_thread(self._devices_source.read)
        pressure.check_fit(model, others, devices, self._settings.thresholds)
        if not served.reason:
            served.message = f"fetching {model.source.uri.partition('?')[0]}"
        served.version = await asyncio.to_thread(self._repository.prepare, served.desired)

    async def _load(self, served: Served) -> None:
        await self._triton.load(served.name)
        try:
            served.config = await self._triton.config(served.name)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ModelError(
                Reason.MODEL_LOAD_FAILED, f"its config was not told: {error!r}"
            ) from error
        served.traits = modelconfig.traits(served.config)
        served.loaded, served.proof = True, probe.Proof()
        served.reason, served.message = "", "loaded, not proven yet"
        _log.info("loaded", extra={"object": served.name})

    async def _prove(self, served: Served) -> None:
        """Run a real inference where the counters are no proof; decoupled and sequence models
        are proven by being loaded.
        """
        now_s, counters = time.monotonic(), self._counters(served.name)
        if served.traits.decoupled or served.traits.sequence:
            served.proof = replace(served.proof, ready=True, strength="Weak", proven_s=now_s)
            return
        served.proof = probe.note_counter(served.proof, counters.successes, now_s)
        if self._draining_s is not None or not probe.due(served.proof, now_s):
            return
        listed = served.config.get("input")
        tensors = probe.readiness_inputs(
            listed if isinstance(listed, list) else [],
            served.traits.max_batch_size,
            served.desired.model.warmup,
        )
        folder: Path = self._repository.folder / served.name
        outcome, message = await self._triton.infer(
            served.name, tensors, self._settings.probe_timeout_s, folder
        )
        served.proof = probe.conclude(
            served.proof,
            outcome,
            now_s=time.monotonic(),
            pending=self._counters(served.name).pending,
            message=message,
        )
        if not served.proof.ready:
            served.reason = Reason.MODEL_NOT_READY.value
            served.message = f"a real inference failed: {message or outcome}"

    async def _measure(self) -> None:
        """Read Triton's metrics and the devices once a second."""
        while True:
            began_s = time.monotonic()
            self._devices = await asyncio.to_thread(self._devices_source.read)
            if self._live.is_set():
                await self._read_metrics()
            queue = sum(self._counters(name).pending for name in self._models)
            self._window = window.add(self._window, window.sample(self._devices, queue))
            period_s = 0.25 if self._draining_s is not None else 1.0
            await asyncio.sleep(max(0.05, period_s - (time.monotonic() - began_s)))

    async def _read_metrics(self) -> None:
        try:
            found = await self._triton.counters()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.warning("Triton's metrics: %r", error)
            return
        newest = measure.Reading(time.monotonic(), found)
        before = self._readings[-1].models if self._readings else {}
        self._readings = measure.remember(self._readings, newest)
        if any(measure.busy(before.get(name), counters) for name, counters in found.items()):
            self._busy_s = newest.at_s

    def in_flight(self) -> int:
        """Return the requests in Triton now, over all models."""
        return sum(measure.rates(self._readings, name).in_flight for name in self._models)

    def declared_bytes(self) -> int:
        """Return the device memory that loaded models declare."""
        loaded = [s.desired.model for s in self._models.values() if s.loaded]
        return sum(quantity_bytes(m.memory) for m in loaded if m.memory)

    def _counters(self, name: str) -> measure.Counters:
        newest = self._readings[-1].models if self._readings else {}
        return newest.get(name, measure.Counters())

    def _failed(self, served: Served, error: ModelError) -> None:
        if served.message != str(error):
            _log.error("%s", error, extra={"object": served.name})
        served.loaded = False
        served.reason, served.message = error.reason.value, str(error)

    def _model_state(self, served: Served) -> ModelState:
        counters, rates = self._counters(served.name), measure.rates(self._readings, served.name)
        ready = served.loaded and served.proof.ready and self._live.is_set()
        quantiles = counters.quantiles_ms
        return ModelState(
            name=served.name,
            version=str(served.version),
            ready=ready,
            reason="" if ready else served.reason,
            message="" if ready else served.message,
            probe=served.proof.strength,
            traits=served.traits,
            queue=counters.pending,
            in_flight=rates.in_flight,
            successes=counters.successes,
            failures=counters.failures,
            success_ratio=rates.success_ratio,
            requests_per_second=rates.requests_per_second,
            mean_batch_size=rates.mean_batch_size,
            p50_ms=quantiles.get(0.5),
            p95_ms=quantiles.get(0.95),
            p99_ms=quantiles.get(0.99),
        )

    def _shown_phase(self, *, ready: bool) -> Phase:
        if self._phase in {Phase.DRAINING, Phase.STOPPED}:
            return self._phase
        if ready:
            return Phase.READY
        if not self._live.is_set():
            return Phase.STARTING
        return Phase.NOT_READY if any(s.loaded for s in self._models.values()) else Phase.FETCHING

    def _measurement_age_s(self) -> float:
        return time.monotonic() - self._readings[-1].at_s if self._readings else 0.0

    def _drain_view(self, began_s: float) -> draining.Draining:
        return draining.Draining(
            began_s=began_s,
            timeout_s=self._settings.drain_timeout_s,
            acknowledged=self._acknowledged,
            scraped_s=self._scraped_s,
            busy_s=self._busy_s,
        )


def _batch_counts(statistics: JsonObject) -> BatchCounts:
    """Return executions by batch size from Triton's statistics."""
    found: dict[str, dict[int, int]] = {}
    models = statistics.get("model_stats")
    for model in models if isinstance(models, list) else []:
        sizes = found.setdefault(str(model.get("name")), {})
        for entry in model.get("batch_stats", []):
            size = int(entry["batch_size"])
            sizes[size] = sizes.get(size, 0) + int(entry["compute_infer"]["count"])
    return found
