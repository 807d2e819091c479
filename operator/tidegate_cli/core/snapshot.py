"""All that a command looks at, read once from the API server's documents. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from tidegate_api import names
from tidegate_api.pool import InferencePool
from tidegate_api.rollout import ModelRollout
from tidegate_cli.core.documents import Json, mapping, number, records, text
from tidegate_cli.errors import ServerError

_REVISION_SCHEMA = "revision.v1"


@dataclass(frozen=True, slots=True)
class Worker:
    """A pod. `state`: Ready, Draining, or what it waits for."""

    name: str
    ready: bool
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSet:
    """A Deployment: the workers of one revision on one class."""

    name: str
    revision: str
    accelerator: str
    replicas: int
    workers: tuple[Worker, ...] = ()

    @property
    def ready(self) -> int:
        """Workers that are Ready."""
        return sum(worker.ready for worker in self.workers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """A kept template. `number` grows with each version; `models` is {name: source URI}."""

    name: str
    number: int
    image: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    aborted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What is there. `published` is the RouteTable's weights by revision."""

    now_s: float
    rollout: ModelRollout | None = None
    pool: InferencePool | None = None
    revisions: tuple[Revision, ...] = ()  # oldest first
    sets: tuple[WorkerSet, ...] = ()
    published: Mapping[str, int] = field(default_factory=dict)


def read_rollout(document: Json) -> ModelRollout:
    """Return the rollout; ServerError where the API server's is newer than this command."""
    try:
        return ModelRollout.model_validate(document)
    except ValidationError as error:
        raise _unreadable(names.Kind.MODEL_ROLLOUT, document, error) from None


def read_pool(document: Json) -> InferencePool:
    """Return the pool; ServerError where the API server's is newer than this command."""
    try:
        return InferencePool.model_validate(document)
    except ValidationError as error:
        raise _unreadable(names.Kind.INFERENCE_POOL, document, error) from None


def _unreadable(kind: names.Kind, document: Json, error: ValidationError) -> ServerError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ".".join(map(str, first["loc"]))
    return ServerError(
        f"{names.PLURALS[kind]}.{names.GROUP} {text(document, 'metadata', 'name')}: {path}:"
        f" {first['msg']}: this command and the cluster's CRDs are of different versions"
    )


def read_revisions(documents: Iterable[Json]) -> tuple[Revision, ...]:
    """Return the revisions that ControllerRevisions keep, oldest first."""
    found = [
        _revision(item) for item in documents if text(item, "data", "schema") == _REVISION_SCHEMA
    ]
    return tuple(sorted(found, key=lambda revision: revision.number))


def _revision(item: Json) -> Revision:
    models = records(item, "data", "template", "models")
    marked = text(item, "metadata", "annotations", names.ANNOTATION_ABORTED)
    return Revision(
        name=text(item, "metadata", "labels", names.LABEL_REVISION),
        number=number(item, "revision"),
        image=text(item, "data", "image"),
        models={text(model, "name"): text(model, "source", "uri") for model in models},
        aborted=marked == "true",
    )


def read_sets(deployments: Iterable[Json], pods: Iterable[Json]) -> tuple[WorkerSet, ...]:
    """Return the worker sets with their workers, by name."""
    workers: dict[str, list[Worker]] = {}
    for pod in pods:
        of_set = text(pod, "metadata", "labels", names.LABEL_WORKER_SET)
        workers.setdefault(of_set, []).append(read_worker(pod))
    found = [
        WorkerSet(
            name=(name := text(item, "metadata", "name")),
            revision=text(item, "metadata", "labels", names.LABEL_REVISION),
            accelerator=text(item, "metadata", "labels", names.LABEL_CLASS),
            replicas=number(item, "spec", "replicas"),
            workers=tuple(sorted(workers.get(name, ()), key=lambda worker: worker.name)),
        )
        for item in deployments
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def read_worker(pod: Json) -> Worker:
    """Return a pod as a worker, with what keeps it from being Ready."""
    name = text(pod, "metadata", "name")
    if text(pod, "metadata", "deletionTimestamp"):
        return Worker(name, ready=False, state="Draining")
    conditions = {text(one, "type"): one for one in records(pod, "status", "conditions")}
    if text(conditions.get("Ready"), "status") == "True":
        return Worker(name, ready=True, state="Ready")
    return Worker(name, ready=False, state=_waiting(pod, conditions))


def _waiting(pod: Json, conditions: Mapping[str, Json]) -> str:
    kinds = ("initContainerStatuses", "containerStatuses")
    statuses = [status for kind in kinds for status in records(pod, "status", kind)]
    for status in statuses:
        if reason := text(status, "state", "waiting", "reason"):
            restarts = number(status, "restartCount")
            return f"{reason}, {restarts} restarts" if restarts else reason
    scheduled = conditions.get("PodScheduled", {})
    if text(scheduled, "status") == "False":
        return f"{text(scheduled, 'reason')}: {text(scheduled, 'message')}"
    phase = text(pod, "status", "phase") or "Pending"
    return "Not ready" if phase == "Running" else phase


def read_published(table: Json | None) -> dict[str, int]:
    """Return the weights by revision of a RouteTable."""
    weights = records(mapping(table, "spec"), "weights")
    return {text(one, "revision"): number(one, "weight") for one in weights}
