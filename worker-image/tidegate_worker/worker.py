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
from tidegate_worker.core.copies import Copy, Main, first_copies
from tidegate_worker.core.inference import Request
from tidegate_worker.core.lifecycle import ModelStatus, ServerStatus, is_on_its_way, is_ready
from tidegate_worker.core.measure import Reading, rates
from tidegate_worker.core.view import Identity, Observation, worker_state
from tidegate_worker.core.window import Sample
from tidegate_worker.settings import Settings


@dataclass(slots=True)
class Worker:
    """Times are of the monotonic clock, in seconds; models go by their names in Triton."""

    settings: Settings
    desired: WorkerModels
    copies: dict[str, Copy] = field(default_factory=dict)
    models: dict[str, ModelStatus] = field(default_factory=dict)
    main: Main = field(init=False)
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
        """Begin with every model of the main revision unfetched."""
        own = self.settings
        for copy in first_copies(self.desired):
            self.add(copy)
        self.main = Main(self.desired.revision, frozenset(self.copies))
        self.identity = Identity(
            uid=own.pod_uid,
            name=own.pod_name,
            accelerator=own.accelerator,
            instance=f"{own.pod_uid}/{time.time():.3f}",
            security_floor=own.security_floor,
        )

    def add(self, copy: Copy) -> None:
        """Begin with a copy of a model, unfetched."""
        self.copies[copy.loaded_as] = copy
        self.models[copy.loaded_as] = ModelStatus(
            name=copy.loaded_as, model=copy.wanted.model.name, revision=copy.revision
        )

    def drop(self, name: str) -> None:
        """Forget a copy that Triton no longer holds."""
        for known in (self.copies, self.models, self.probes):
            known.pop(name, None)

    def ready_names(self) -> set[str]:
        """Return which copies serve."""
        return {name for name, status in self.models.items() if is_ready(status)}

    def main_is_on_its_way(self) -> bool:
        """Whether a model of the main revision is neither in Triton nor in trouble."""
        return any(is_on_its_way(self.models[name]) for name in self.main.names)

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
                generation=self.desired.generation,
                main=self.main,
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
        """Return the models that Triton holds or loads now, by their names there."""
        return [copy.model for name, copy in self.copies.items() if self.models[name].admitted]
