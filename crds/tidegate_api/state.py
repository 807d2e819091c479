"""Worker state v1: what an agent answers at /v1/state and the operator scrapes.

A worker without a device has an empty device list and no pressure or thermal level: absence
is said by absence, never by zeros.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tidegate_api.meta import ApiModel

WORKER_STATE_SCHEMA: Literal["worker-state.v1"] = "worker-state.v1"


class Phase(StrEnum):
    """Life of a worker, in order; Failed ends the pod."""

    FETCHING = "Fetching"
    STARTING = "Starting"
    READY = "Ready"
    NOT_READY = "NotReady"
    DRAINING = "Draining"
    STOPPED = "Stopped"
    FAILED = "Failed"


class Pressure(StrEnum):
    """Device memory pressure: Low < 0.5 <= Normal < 0.7 <= High < 0.85 <= Critical."""

    LOW = "Low"
    NORMAL = "Normal"
    HIGH = "High"
    CRITICAL = "Critical"


class Thermal(StrEnum):
    """Device heat in Celsius: Normal < 65 <= Warning < 80 <= Throttling < 85 <= Critical."""

    NORMAL = "Normal"
    WARNING = "Warning"
    THROTTLING = "Throttling"
    CRITICAL = "Critical"


class Traits(ApiModel):
    """What Triton's loaded config says of a model, as far as routing must know."""

    decoupled: bool = False
    sequence: bool = False
    ensemble: bool = False
    dynamic_batching: bool = False
    max_batch_size: int = 0
    instances: int = 1
    text: bool = Field(default=False, description="takes text_input, gives text_output")


class ModelState(ApiModel):
    """One copy of a model on this worker; latencies are of Triton's requests, in milliseconds."""

    name: str
    revision: str = ""
    loaded_as: str | None = Field(
        default=None,
        description="its name in Triton where that is another: a second revision in one worker",
    )
    version: str = "1"
    ready: bool = False
    reason: str = ""
    message: str = ""
    probe: Literal["Strong", "Weak", "None"] = "None"
    traits: Traits = Field(default_factory=Traits)
    queue: int = Field(default=0, ge=0, description="pending in Triton")
    in_flight: int = Field(default=0, ge=0)
    successes: int = Field(default=0, ge=0, description="since the server started")
    failures: int = Field(default=0, ge=0, description="since the server started")
    success_ratio: float | None = Field(default=None, ge=0, le=1, description="last 30 s")
    requests_per_second: float | None = None
    mean_batch_size: float | None = None
    p50_ms: float | None = Field(default=None, alias="p50Milliseconds")
    p95_ms: float | None = Field(default=None, alias="p95Milliseconds")
    p99_ms: float | None = Field(default=None, alias="p99Milliseconds")


class DeviceState(ApiModel):
    """One accelerator as NVML (or the labelled simulation) reports it."""

    uuid: str
    name: str = ""
    simulated: bool = False
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilization_ratio: float | None = Field(default=None, ge=0, le=1)
    temperature_celsius: float | None = None
    power_watts: float | None = None
    throttle_reasons: list[str] = Field(default_factory=list)
    ecc_errors: int | None = None
    xid: int | None = None


class WindowState(ApiModel):
    """Means over the rolling window of device and queue samples (at most 100, one a second)."""

    samples: int = 0
    utilization_ratio: float | None = None
    memory_ratio: float | None = None
    temperature_celsius: float | None = None
    queue: float | None = None


class ServerState(ApiModel):
    """The tritonserver process."""

    name: str = "triton"
    version: str = ""
    backends: list[str] = Field(default_factory=list)
    restarts: int = 0
    running: bool = False
    below_security_floor: bool = False


class WorkerState(ApiModel):
    """The whole document."""

    schema_: Literal["worker-state.v1"] = Field(default=WORKER_STATE_SCHEMA, alias="schema")
    uid: str = Field(description="pod UID")
    name: str = Field(default="", description="pod name")
    revision: str = Field(default="", description="the main one: `ready` is about its models")
    models_generation: int = Field(
        default=0, ge=0, description="generation of the models document that is acted upon"
    )
    accelerator: str = Field(default="", description="class name")
    instance: str = Field(default="", description="uid + start time: a change means counters reset")
    phase: Phase
    ready: bool = False
    draining: bool = False
    reason: str = ""
    message: str = ""
    server: ServerState = Field(default_factory=ServerState)
    models: list[ModelState] = Field(default_factory=list)
    devices: list[DeviceState] = Field(default_factory=list)
    memory_pressure: Pressure | None = None
    thermal: Thermal | None = None
    window: WindowState = Field(default_factory=WindowState)
    measurement_age_s: float = Field(default=0.0, ge=0, alias="measurementAgeSeconds")
