"""Environment variables of the agent, read once at its start.

The operator sets POD_UID, POD_NAME, REVISION, CLASS and DRAIN_TIMEOUT; the image sets TRITON_*;
users may set the rest in spec.template.pod.env. Each name begins with TIDEGATE_.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate_api import names
from tidegate_api.quantity import quantity_bytes
from tidegate_api.workermodels import MODELS_DIRECTORY, MODELS_KEY, STATE_DIRECTORY
from tidegate_worker.core.pressure import Thresholds


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
    """Return the settings; ValueError names a variable that is no number."""

    def text(name: str, default: str) -> str:
        return environment.get(f"TIDEGATE_{name}", default)

    def number(name: str, default: float) -> float:
        value = text(name, str(default))
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"TIDEGATE_{name} is {value!r}: expected a number") from None

    count, _, memory = text("SIMULATED_DEVICES", "0").partition(":")
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
        simulated_devices=int(count or 0),
        simulated_memory_bytes=quantity_bytes(memory or "16Gi"),
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
