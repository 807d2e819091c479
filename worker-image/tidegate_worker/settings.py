"""Environment variables of the agent, read once at its start.

SettingsError(ValueError)   a variable, or the models file, is unusable; says which and why

The operator sets POD_UID, POD_NAME, REVISION, CLASS and DRAIN_TIMEOUT; the image sets TRITON_*;
users may set the rest in spec.template.pod.env. Each name begins with TIDEGATE_.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tidegate_api import names
from tidegate_api.quantity import quantity_bytes
from tidegate_api.workermodels import (
    MODELS_DIRECTORY,
    MODELS_KEY,
    STATE_DIRECTORY,
    WorkerModels,
)
from tidegate_worker.core.pressure import Thresholds


class SettingsError(ValueError):
    """The worker cannot start with this configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The agent's configuration. Durations are in seconds."""

    pod_uid: str
    pod_name: str
    revision: str
    accelerator: str
    models_file: Path
    state_directory: Path
    drain_timeout_s: float
    http_port: int
    grpc_port: int
    metrics_port: int
    agent_port: int
    triton_server: Path
    triton_backends: Path
    triton_library_path: str
    security_floor: str
    simulated_devices: int
    simulated_memory_bytes: int
    probe_timeout_s: float
    thresholds: Thresholds
    log_level: str


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; SettingsError names a variable that is no number."""

    def text(name: str, default: str) -> str:
        return environment.get(f"TIDEGATE_{name}", default)

    def number(name: str, default: float) -> float:
        value = text(name, str(default))
        try:
            return float(value)
        except ValueError:
            raise SettingsError(f"TIDEGATE_{name} is {value!r}: expected a number") from None

    count, memory_bytes = simulated_devices(text("SIMULATED_DEVICES", ""))
    return Settings(
        pod_uid=text("POD_UID", "local"),
        pod_name=text("POD_NAME", "local"),
        revision=text("REVISION", ""),
        accelerator=text("CLASS", ""),
        models_file=Path(text("MODELS_FILE", f"{MODELS_DIRECTORY}/{MODELS_KEY}")),
        state_directory=Path(text("STATE_DIRECTORY", STATE_DIRECTORY)),
        drain_timeout_s=number("DRAIN_TIMEOUT", 60),
        http_port=int(number("HTTP_PORT", names.PORT_WORKER_HTTP)),
        grpc_port=int(number("GRPC_PORT", names.PORT_WORKER_GRPC)),
        metrics_port=int(number("METRICS_PORT", 8002)),
        agent_port=int(number("AGENT_PORT", names.PORT_WORKER_AGENT)),
        triton_server=Path(text("TRITON_SERVER", "/opt/tritonserver/bin/tritonserver")),
        triton_backends=Path(text("TRITON_BACKENDS", "/opt/tritonserver/backends")),
        triton_library_path=text("TRITON_LIBRARY_PATH", ""),
        security_floor=text("SECURITY_FLOOR", "2.59.0"),
        simulated_devices=count,
        simulated_memory_bytes=memory_bytes,
        probe_timeout_s=number("PROBE_TIMEOUT", 5),
        thresholds=_thresholds(number),
        log_level=text("LOG_LEVEL", "info"),
    )


def _thresholds(number: Callable[[str, float], float]) -> Thresholds:
    known = Thresholds()
    return Thresholds(
        normal_ratio=number("PRESSURE_NORMAL", known.normal_ratio),
        high_ratio=number("PRESSURE_HIGH", known.high_ratio),
        critical_ratio=number("PRESSURE_CRITICAL", known.critical_ratio),
        stop_ratio=number("PRESSURE_STOP", known.stop_ratio),
        warning_celsius=number("THERMAL_WARNING", known.warning_celsius),
        throttling_celsius=number("THERMAL_THROTTLING", known.throttling_celsius),
        critical_celsius=number("THERMAL_CRITICAL", known.critical_celsius),
        overhead_bytes=int(number("OVERHEAD_BYTES", known.overhead_bytes)),
    )


def simulated_devices(value: str) -> tuple[int, int]:
    """Return (how many, bytes of each) for "N" or "N:MEMORY"."""
    count, _, memory = value.partition(":")
    try:
        return int(count or 0), quantity_bytes(memory or "16Gi")
    except ValueError:
        raise SettingsError(
            f"TIDEGATE_SIMULATED_DEVICES is {value!r}: expected N or N:MEMORY, e.g. 1:24Gi"
        ) from None


def read_models(file: Path) -> WorkerModels:
    """Return what the operator wants served."""
    return parse_models(file, models_text(file))


def models_text(file: Path) -> bytes:
    """Return the document as it lies there."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error


def parse_models(file: Path, text: bytes) -> WorkerModels:
    """Return a document that was read from `file`."""
    try:
        return WorkerModels.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{file}: {where}: {first['msg']}") from error
