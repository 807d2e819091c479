"""What the agent knows at this moment, in one place; every loop writes here, handlers read."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tidegate_api.quantity import quantity_bytes
from tidegate_api.state import DeviceState, WorkerState
from tidegate_api.template import Model
from tidegate_api.workermodels import WorkerModels
from tidegate_worker.core.inference import Request
from tidegate_worker.core.lifecycle import ModelStatus, ServerStatus
from tidegate_worker.core.measure import Reading, rates
from tidegate_worker.core.view import Identity, Observation, worker_state
from tidegate_worker.core.window import Sample
from tidegate_worker.settings import Settings


@dataclass(slots=True)
class Worker:
    """Times are of the monotonic clock, in seconds."""

    settings: Settings
    desired: WorkerModels
    models: dict[str, ModelStatus] = field(init=False)
    probes: dict[str, Request] = field(default_factory=dict)  # of loaded models
    server: ServerStatus = field(default_factory=ServerStatus)
    readings: deque[Reading] = field(default_factory=deque)
    devices: list[DeviceState] = field(default_factory=list)
    devices_read: asyncio.Event = field(default_factory=asyncio.Event)  # set once and for all
    window: tuple[Sample, ...] = ()
    measured_s: float = field(default_factory=time.monotonic)
    busy_s: float = field(default_factory=time.monotonic)
    draining_since_s: float | None = None
    acknowledged: bool = False
    scraped_s: float | None = None
    was_ready: bool = False
    exposition: str = ""  # Triton's metrics as last read
    batches: Mapping[str, Mapping[int, int]] = field(default_factory=dict)  # executions by size
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        """Begin with every desired model unfetched."""
        own = self.settings
        self.models = {d.model.name: ModelStatus(name=d.model.name) for d in self.desired.models}
        self.identity = Identity(
            uid=own.pod_uid,
            name=own.pod_name,
            revision=own.revision or self.desired.revision,
            accelerator=own.accelerator,
            instance=f"{own.pod_uid}/{time.time():.3f}",
            security_floor=own.security_floor,
        )

    def update(self, name: str, **changes: object) -> None:
        """Replace fields of one model's status."""
        self.models[name] = replace(self.models[name], **changes)  # type: ignore[arg-type]  # checked by replace at run time

    def update_server(self, **changes: object) -> None:
        """Replace fields of the server's status."""
        self.server = replace(self.server, **changes)  # type: ignore[arg-type]  # checked by replace at run time

    def heard_scrape(self, *, acknowledged: bool) -> None:
        """Note that the operator asked; an acknowledgement counts only while draining."""
        self.scraped_s = time.monotonic()
        if acknowledged and self.draining_since_s is not None:
            self.acknowledged = True

    def state(self) -> WorkerState:
        """Return the document of /v1/state."""
        found = worker_state(
            Observation(
                identity=self.identity,
                models=list(self.models.values()),
                server=self.server,
                draining=self.draining_since_s is not None,
                was_ready=self.was_ready,
                readings=self.readings,
                devices=self.devices,
                window=self.window,
                thresholds=self.settings.thresholds,
                measurement_age_s=time.monotonic() - self.measured_s,
            )
        )
        self.was_ready = self.was_ready or found.ready
        return found

    def in_flight(self) -> int:
        """Return the requests in Triton now, over all models."""
        return sum(rates(self.readings, name).in_flight for name in self.models)

    def declared_bytes(self) -> int:
        """Return the device memory that loaded models declare."""
        return sum(quantity_bytes(model.memory) for model in self.admitted() if model.memory)

    def admitted(self) -> list[Model]:
        """Return the models that Triton holds or loads now."""
        wanted = (item.model for item in self.desired.models)
        return [model for model in wanted if self.models[model.name].admitted]
