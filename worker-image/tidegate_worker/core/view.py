"""All that the agent knows -> the document at /v1/state. Pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_api.state import DeviceState, ModelState, ServerState, WorkerState
from tidegate_worker.core.copies import Main
from tidegate_worker.core.lifecycle import ModelStatus, ServerStatus, is_ready, judge, trouble
from tidegate_worker.core.measure import Counters, Reading, rates
from tidegate_worker.core.pressure import Thresholds, memory_pressure, thermal
from tidegate_worker.core.versions import below
from tidegate_worker.core.window import Sample, summarize


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What never changes while the agent runs."""

    uid: str
    name: str
    accelerator: str
    instance: str
    security_floor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One moment; ages are in seconds."""

    identity: Identity
    generation: int  # of the models document
    main: Main
    models: Sequence[ModelStatus]
    server: ServerStatus
    draining: bool
    was_ready: bool
    readings: deque[Reading]
    devices: Sequence[DeviceState]
    window: Sequence[Sample]
    thresholds: Thresholds
    measurement_age_s: float


def worker_state(seen: Observation) -> WorkerState:
    """Return the worker's state; its readiness is that of the main revision's models."""
    own_models = [model for model in seen.models if model.name in seen.main.names]
    verdict = judge(own_models, seen.server, draining=seen.draining, was_ready=seen.was_ready)
    own = seen.identity
    return WorkerState(
        uid=own.uid,
        name=own.name,
        revision=seen.main.revision,
        models_generation=seen.generation,
        accelerator=own.accelerator,
        instance=own.instance,
        phase=verdict.phase,
        ready=verdict.ready,
        draining=seen.draining,
        reason=verdict.reason,
        message=verdict.message,
        server=_server(seen.server, own.security_floor),
        models=[model_state(model, seen.readings) for model in seen.models],
        devices=list(seen.devices),
        memory_pressure=memory_pressure(seen.devices, seen.thresholds),
        thermal=thermal(seen.devices, seen.thresholds),
        window=summarize(seen.window),
        measurement_age_s=max(0.0, round(seen.measurement_age_s, 3)),
    )


def _server(server: ServerStatus, floor: str) -> ServerState:
    return ServerState(
        version=server.version,
        backends=sorted(server.backends),
        restarts=server.restarts,
        running=server.running,
        below_security_floor=bool(server.version) and below(server.version, floor),
    )


def model_state(model: ModelStatus, readings: deque[Reading]) -> ModelState:
    """Return one model's part, with its load from Triton's counters."""
    counters = readings[-1].models.get(model.name, Counters()) if readings else Counters()
    load = rates(readings, model.name)
    reason, message = trouble(model)
    return ModelState(
        name=model.served_as,
        revision=model.revision,
        loaded_as=None if model.served_as == model.name else model.name,
        version=str(model.version),
        ready=is_ready(model),
        reason=reason,
        message=message,
        probe=model.proof.strength,
        traits=model.traits,
        queue=counters.pending,
        in_flight=load.in_flight,
        successes=counters.successes,
        failures=counters.failures,
        success_ratio=load.success_ratio,
        requests_per_second=load.requests_per_second,
        mean_batch_size=load.mean_batch_size,
        **_latencies(counters.quantiles_ms),
    )


def _latencies(quantiles_ms: Mapping[float, float]) -> dict[str, float]:
    names = {0.5: "p50_ms", 0.95: "p95_ms", 0.99: "p99_ms"}
    return {names[q]: value for q, value in quantiles_ms.items() if q in names}
