"""Phase, readiness and reason of models and of the whole worker. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from tidegate_api.names import Reason
from tidegate_api.state import Phase, Traits
from tidegate_worker.core.errors import one_line
from tidegate_worker.core.probe import Proof


class Stage(StrEnum):
    """How far a model is on its way into Triton."""

    FETCHING = "Fetching"
    LOADING = "Loading"  # files are in place: waits for Triton, or Triton loads it
    LOADED = "Loaded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One copy of a model; `reason` stays while a failed step is tried again, until it succeeds."""

    name: str  # in Triton
    model: str = ""  # the one that clients know, where that is another
    revision: str = ""
    version: int = 1
    stage: Stage = Stage.FETCHING
    admitted: bool = False  # its declared memory is taken
    reason: Reason | None = None
    message: str = "waits to be fetched"
    traits: Traits = field(default_factory=Traits)
    proof: Proof = field(default_factory=Proof)
    sequence_idle_s: float = 0.0  # after which Triton itself ends a sequence

    @property
    def served_as(self) -> str:
        """The name that clients use."""
        return self.model or self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """The tritonserver process."""

    running: bool = False
    version: str = ""
    backends: tuple[str, ...] = ()
    restarts: int = 0
    last_crash: str = ""  # how it ended, in words; kept until it runs again
    gave_up: bool = False
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the worker says of itself."""

    phase: Phase
    reason: str = ""
    message: str = ""

    @property
    def ready(self) -> bool:
        """Whether requests may come."""
        return self.phase is Phase.READY


def is_ready(model: ModelStatus) -> bool:
    """Whether a model serves: loaded, and proven by an inference."""
    return model.stage is Stage.LOADED and model.proof.ready


def is_on_its_way(model: ModelStatus) -> bool:
    """Whether a model is neither in Triton nor in trouble."""
    return model.stage is not Stage.LOADED and model.reason is None


def trouble(model: ModelStatus) -> tuple[str, str]:
    """Return (reason, message) of a model that cannot serve, empty while it is only starting."""
    if model.reason is not None:
        return model.reason.value, model.message
    if model.stage is Stage.LOADED and not model.proof.ready and model.proof.message:
        return Reason.MODEL_NOT_READY.value, one_line(model.proof.message)
    return "", "" if is_ready(model) else model.message


def judge(
    models: Sequence[ModelStatus], server: ServerStatus, *, draining: bool, was_ready: bool
) -> Verdict:
    """Return the worker's phase: what ends it goes before what ails it."""
    if server.gave_up:
        return Verdict(Phase.FAILED, Reason.SERVER_CRASHED, server.last_crash)
    if draining:
        phase = Phase.STOPPED if server.stopped else Phase.DRAINING
        return Verdict(phase)
    if server.last_crash:
        return Verdict(Phase.NOT_READY, Reason.SERVER_CRASHED, server.last_crash)
    for model in models:
        reason, message = trouble(model)
        if reason:
            return Verdict(Phase.NOT_READY, reason, f"model {model.served_as}: {message}")
    if server.running and all(map(is_ready, models)):
        return Verdict(Phase.READY)
    if was_ready:
        return Verdict(Phase.NOT_READY)
    fetching = any(model.stage is Stage.FETCHING for model in models)
    return Verdict(Phase.FETCHING if fetching else Phase.STARTING)
