"""The API server's JSON -> what decisions read. Pure; absent fields become neutral values.

Nothing here raises on a document that the API server could have served: unknown shapes read as
absent, because an operator must survive objects that others wrote.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidegate_api.names import (
    ANNOTATION_MODELS_GENERATION,
    LABEL_CLASS,
    LABEL_REVISION,
    LABEL_WORKER_SET,
)
from tidegate_api.template import JsonObject
from tidegate_operator.core.observation import (
    ContainerProblem,
    ObservedAutoscaler,
    ObservedDeployment,
    ObservedPod,
    ObservedRevision,
    Owned,
)

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_INTEGER = re.compile(r"-?[0-9]{1,10}")


def at(item: object, *path: str) -> object:
    """Return the value below a path of keys, None where the path ends early."""
    for key in path:
        if not isinstance(item, Mapping):
            return None
        item = item.get(key)
    return item


def text(item: object, *path: str) -> str:
    """Return a string below a path, "" where there is none."""
    value = at(item, *path)
    return "" if value is None else str(value)


def number(item: object, *path: str) -> int:
    """Return an integer below a path, 0 where there is none."""
    value = at(item, *path)
    return int(value) if isinstance(value, int | float) else 0


def mapping(item: object, *path: str) -> JsonObject:
    """Return an object below a path, {} where there is none."""
    value = at(item, *path)
    return value if isinstance(value, dict) else {}


def records(item: object, *path: str) -> Sequence[JsonObject]:
    """Return a list of objects below a path, () where there is none."""
    value = at(item, *path)
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else ()


def texts(item: object, *path: str) -> dict[str, str]:
    """Return a map of strings (labels, annotations) below a path."""
    return {key: str(value) for key, value in mapping(item, *path).items()}


def epoch_s(rfc3339: str) -> float:
    """Return epoch seconds of an RFC 3339 time, 0 for none."""
    try:
        return dt.datetime.fromisoformat(rfc3339).timestamp()
    except ValueError:
        return 0.0


def read_owned(item: JsonObject) -> Owned:
    """Return an object's identity and its controlling owner."""
    owners = records(item, "metadata", "ownerReferences")
    controller = next((owner for owner in owners if owner.get("controller") is True), None)
    return Owned(
        kind=text(item, "kind"),
        name=text(item, "metadata", "name"),
        uid=text(item, "metadata", "uid"),
        controller_uid=text(controller, "uid") if controller else None,
        controller_kind=text(controller, "kind"),
        controller_name=text(controller, "name"),
        labels=texts(item, "metadata", "labels"),
        annotations=texts(item, "metadata", "annotations"),
        terminating=bool(text(item, "metadata", "deletionTimestamp")),
    )


def read_deployment(item: JsonObject) -> ObservedDeployment:
    """Return one worker set as the API server has it."""
    failure = _condition(item, "ReplicaFailure")
    failed = text(failure, "status") == "True"
    return ObservedDeployment(
        meta=read_owned(item),
        replicas=number(item, "spec", "replicas"),
        ready=number(item, "status", "readyReplicas"),
        pod_template=mapping(item, "spec", "template"),
        replica_failure=text(failure, "message") if failed else "",
    )


def read_revision(item: JsonObject) -> ObservedRevision:
    """Return one ControllerRevision."""
    return ObservedRevision(
        meta=read_owned(item),
        data=mapping(item, "data"),
        number=number(item, "revision"),
        created_at=text(item, "metadata", "creationTimestamp"),
    )


def read_pod(item: JsonObject) -> ObservedPod:
    """Return one worker."""
    scheduled = _condition(item, "PodScheduled")
    unscheduled = text(scheduled, "status") == "False"
    cost = text(item, "metadata", "annotations", DELETION_COST)
    return ObservedPod(
        uid=text(item, "metadata", "uid"),
        name=text(item, "metadata", "name"),
        worker_set=text(item, "metadata", "labels", LABEL_WORKER_SET),
        revision=text(item, "metadata", "labels", LABEL_REVISION),
        accelerator=text(item, "metadata", "labels", LABEL_CLASS),
        ip=text(item, "status", "podIP"),
        node=text(item, "spec", "nodeName"),
        phase=text(item, "status", "phase") or "Pending",
        phase_reason=text(item, "status", "reason"),
        phase_message=text(item, "status", "message"),
        ready=text(_condition(item, "Ready"), "status") == "True",
        terminating=bool(text(item, "metadata", "deletionTimestamp")),
        created_s=epoch_s(text(item, "metadata", "creationTimestamp")),
        problems=tuple(_problems(item)),
        unschedulable_message=text(scheduled, "message") if unscheduled else "",
        deletion_cost=int(cost) if _INTEGER.fullmatch(cost) else 0,
        models_generation=text(item, "metadata", "annotations", ANNOTATION_MODELS_GENERATION),
    )


def read_autoscaler(item: JsonObject) -> ObservedAutoscaler:
    """Return a HorizontalPodAutoscaler's aim."""
    return ObservedAutoscaler(
        name=text(item, "metadata", "name"),
        target_kind=text(item, "spec", "scaleTargetRef", "kind"),
        target_name=text(item, "spec", "scaleTargetRef", "name"),
    )


def ready_endpoints(slices: Iterable[JsonObject]) -> dict[str, str]:
    """Return {pod name: address} of the ready endpoints in some EndpointSlices."""
    found: dict[str, str] = {}
    for endpoint in (e for item in slices for e in records(item, "endpoints")):
        addresses = at(endpoint, "addresses")
        ready = at(endpoint, "conditions", "ready") is True
        if ready and isinstance(addresses, list) and addresses:
            found[text(endpoint, "targetRef", "name") or str(addresses[0])] = str(addresses[0])
    return found


def _problems(item: JsonObject) -> Iterator[ContainerProblem]:
    """Containers that wait, or whose present or last run ended badly."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in records(item, "status", key):
            ended = mapping(status, "state", "terminated") or mapping(
                status, "lastState", "terminated"
            )
            waiting = mapping(status, "state", "waiting")
            if waiting or number(ended, "exitCode"):
                yield ContainerProblem(
                    container=text(status, "name"),
                    waiting_reason=text(waiting, "reason"),
                    waiting_message=text(waiting, "message"),
                    terminated_reason=text(ended, "reason"),
                    terminated_message=text(ended, "message"),
                    exit_code=number(ended, "exitCode") if ended else None,
                    restarts=number(status, "restartCount"),
                )


def _condition(item: JsonObject, kind: str) -> JsonObject:
    found = records(item, "status", "conditions")
    return next((entry for entry in found if entry.get("type") == kind), {})
