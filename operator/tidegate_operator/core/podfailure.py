"""Why a worker does not become Ready, as a Reason and the text of the kubelet or the agent.

RULES are asked in order; the first that recognises the pod answers. None: it is just starting.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate_api.names import Reason
from tidegate_api.pool import AcceleratorClass
from tidegate_api.state import Phase
from tidegate_operator.core.observation import ContainerProblem, ObservedPod, Scrape

_IMAGE_REASONS = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
_CONFIG_REASONS = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
)
_SLOW_CREATION_S = 60.0
_MESSAGE_CHARACTERS = 1000
_CREATING = frozenset({"ContainerCreating", "PodInitializing"})


@dataclass(frozen=True, slots=True)
class Failure:
    """One pod's trouble."""

    reason: Reason
    message: str
    pod: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """A pod that is not Ready, with what is known of it."""

    pod: ObservedPod
    accelerator: AcceleratorClass | None
    scrape: Scrape
    now_s: float


Finding = tuple[Reason, str]


def unschedulable(patient: Patient) -> Finding | None:
    """No node takes it; InsufficientAccelerator when devices or the class's nodes are missing."""
    message = patient.pod.unschedulable_message
    if not message:
        return None
    item = patient.accelerator
    devices = [name for name in (item.resources or {}) if "/" in name] if item else []
    lacks_device = any(f"Insufficient {name}" in message for name in devices)
    lacks_node = bool(item and item.node_selector) and "node affinity/selector" in message
    if lacks_device or lacks_node:
        return Reason.INSUFFICIENT_ACCELERATOR, f"class {patient.pod.accelerator}: {message}"
    return Reason.UNSCHEDULABLE, message


def image_pull(patient: Patient) -> Finding | None:
    """The image of a container, the worker's or a model's, cannot be had."""
    for item in patient.pod.problems:
        if item.waiting_reason in _IMAGE_REASONS:
            return Reason.IMAGE_PULL_FAILED, _waiting(item)
    return None


def container_config(patient: Patient) -> Finding | None:
    """The kubelet cannot make the container: a missing ConfigMap, Secret, command or user."""
    for item in patient.pod.problems:
        if item.waiting_reason in _CONFIG_REASONS:
            return Reason.CONTAINER_CONFIG_INVALID, _waiting(item)
    return None


def agent_report(patient: Patient) -> Finding | None:
    """What the agent says of its models, its server or itself, in that order."""
    state = patient.scrape.state
    if state is None or patient.scrape.error:
        return None
    for model in state.models:
        if not model.ready and model.reason:
            words = model.message or model.reason
            named = words.startswith(f"model {model.name}:")
            return _reason(model.reason), words if named else f"model {model.name}: {words}"
    if state.reason:
        return _reason(state.reason), state.message or state.reason
    if state.phase is Phase.FAILED:
        return Reason.SERVER_CRASHED, state.message or "the agent gave up"
    return None


def container_crash(patient: Patient) -> Finding | None:
    """A container ended with an error; the text is the last of its run."""
    for item in patient.pod.problems:
        failed = item.exit_code not in {None, 0}
        if item.waiting_reason == "CrashLoopBackOff" or failed:
            return Reason.CONTAINER_CRASHED, _crashed(item)
    return None


def pod_ended(patient: Patient) -> Finding | None:
    """The pod as a whole failed: evicted, or refused by the node."""
    pod = patient.pod
    if pod.phase != "Failed":
        return None
    return Reason.CONTAINER_CRASHED, pod.phase_message or pod.phase_reason or "the pod failed"


def slow_creation(patient: Patient) -> Finding | None:
    """Containers that are not created for a minute wait for a volume or the network."""
    age_s = patient.now_s - patient.pod.created_s
    waits = [item for item in patient.pod.problems if item.waiting_reason in _CREATING]
    if not waits or age_s < _SLOW_CREATION_S or patient.pod.phase != "Pending":
        return None
    text = (
        f"container {waits[0].container} waits in {waits[0].waiting_reason} for over a minute; "
        "kubectl describe pod tells which volume or image it waits for"
    )
    return Reason.CONTAINER_CONFIG_INVALID, text


RULES: Sequence[Callable[[Patient], Finding | None]] = (
    unschedulable,
    image_pull,
    container_config,
    agent_report,
    container_crash,
    pod_ended,
    slow_creation,
)


def diagnose(patient: Patient) -> Failure | None:
    """Return what is wrong with a pod that is not Ready, None while it just starts."""
    for rule in RULES:
        finding = rule(patient)
        if finding is not None:
            reason, text = finding
            pod = patient.pod.name
            return Failure(reason, f"pod {pod}: {text}"[:_MESSAGE_CHARACTERS], pod)
    return None


def _reason(text: str) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.MODEL_NOT_READY


def _waiting(item: ContainerProblem) -> str:
    text = item.waiting_message or item.waiting_reason
    return f"container {item.container}: {item.waiting_reason}: {text}"


def _crashed(item: ContainerProblem) -> str:
    exit_text = f"exit code {item.exit_code}" if item.exit_code is not None else "crashed"
    parts = [
        f"container {item.container} {item.terminated_reason or 'ended'} ({exit_text}",
        f", {item.restarts} restarts)" if item.restarts else ")",
        f": {item.terminated_message.strip()}" if item.terminated_message.strip() else "",
    ]
    return "".join(parts)
