"""The pod template of a worker set. Rendered once, when the set is made, and then kept."""

from collections.abc import Iterable, Mapping

from tidegate_api import names
from tidegate_api.pool import AcceleratorClass, InferencePool
from tidegate_api.quantity import duration_s
from tidegate_api.template import JsonObject, PodSettings, PodVolume, WorkerTemplate
from tidegate_api.workermodels import MODELS_DIRECTORY, STATE_DIRECTORY
from tidegate_operator.core.identity import models_object_name
from tidegate_operator.core.sources import (
    SourceMount,
    credential_mounts,
    plan_sources,
    restricted_container,
    tools_container,
    tools_volume,
)
from tidegate_operator.core.workermodels import effective_models

_USER = 65532
_GRACE_BEYOND_DRAIN_S = 40
_STARTUP_FAILURES = 60  # x 5 s until the agent answers; models are fetched after that
_POD_FIELDS = (
    "tolerations",
    "affinity",
    "topology_spread_constraints",
    "runtime_class_name",
    "priority_class_name",
    "service_account_name",
    "image_pull_secrets",
)


def pod_template(
    *,
    pool: InferencePool,
    template: WorkerTemplate,
    accelerator: AcceleratorClass,
    image: str,
    revision: str,
    set_name: str,
) -> JsonObject:
    """Return a PodTemplateSpec under the Pod Security Standard "restricted".

    The drain timeout is baked in, so a later change of it restarts no worker.
    """
    pod = template.pod or PodSettings()
    labels = {**(pod.labels or {}), **set_labels(pool, revision, accelerator.name, set_name)}
    metadata: JsonObject = {"labels": labels}
    if pod.annotations:
        metadata["annotations"] = dict(pod.annotations)
    models = effective_models(template, accelerator)
    sources = plan_sources(models)
    mounts = [*sources.mounts, *credential_mounts(models)]
    spec: JsonObject = {
        **_pod_spec(pool, pod, accelerator),
        "containers": [
            _worker(pool, pod, accelerator, image=image, revision=revision, mounts=mounts)
        ],
        "volumes": _volumes(pod, set_name, mounts),
    }
    if sources.init_containers:
        spec["initContainers"] = [tools_container(image), *sources.init_containers]
        spec["volumes"] = [*_volumes(pod, set_name, mounts), tools_volume()]
    return {"metadata": metadata, "spec": spec}


def set_labels(
    pool: InferencePool, revision: str, class_name: str, set_name: str
) -> dict[str, str]:
    """Return the labels of a set's objects and pods; they select its workers."""
    return {
        "app.kubernetes.io/name": "tidegate-worker",
        "app.kubernetes.io/managed-by": names.FIELD_MANAGER,
        names.LABEL_POOL: pool.metadata.name,
        names.LABEL_REVISION: revision,
        names.LABEL_CLASS: class_name,
        names.LABEL_WORKER_SET: set_name,
    }


def drain_timeout_s(pool: InferencePool) -> float:
    """Return spec.drain.timeout in seconds."""
    return duration_s(pool.spec.drain.timeout)


def _pod_spec(pool: InferencePool, pod: PodSettings, accelerator: AcceleratorClass) -> JsonObject:
    wire = pod.to_wire()
    chosen = {_camel(name): wire[_camel(name)] for name in _POD_FIELDS if _camel(name) in wire}
    selector = {**(pod.node_selector or {}), **(accelerator.node_selector or {})}
    return {
        **chosen,
        **({"nodeSelector": selector} if selector else {}),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": int(drain_timeout_s(pool)) + _GRACE_BEYOND_DRAIN_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _worker(
    pool: InferencePool,
    pod: PodSettings,
    accelerator: AcceleratorClass,
    *,
    image: str,
    revision: str,
    mounts: Iterable[SourceMount],
) -> JsonObject:
    resources = merged_resources(pod, accelerator)
    return {
        "name": "worker",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "env": _environment(pool, pod, accelerator, revision),
        **({"envFrom": pod.env_from} if pod.env_from else {}),
        "ports": [
            {"name": "http", "containerPort": names.PORT_WORKER_HTTP, "protocol": "TCP"},
            {"name": "grpc", "containerPort": names.PORT_WORKER_GRPC, "protocol": "TCP"},
            {"name": "agent", "containerPort": names.PORT_WORKER_AGENT, "protocol": "TCP"},
        ],
        **({"resources": resources} if resources else {}),
        "securityContext": restricted_container(),
        **_probes(),
        "volumeMounts": [*_own_mounts(), *(item.mount for item in mounts), *_user_mounts(pod)],
    }


def _probes() -> JsonObject:
    """Readiness decides traffic within a second; liveness only ends an agent that hangs."""
    return {
        "startupProbe": _probe("/healthz", period_s=5, timeout_s=5, failures=_STARTUP_FAILURES),
        "livenessProbe": _probe("/healthz", period_s=10, timeout_s=5, failures=6),
        "readinessProbe": _probe("/readyz", period_s=1, timeout_s=2, failures=2),
    }


def _probe(path: str, *, period_s: int, timeout_s: int, failures: int) -> JsonObject:
    return {
        "httpGet": {"path": path, "port": names.PORT_WORKER_AGENT, "scheme": "HTTP"},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    }


def _environment(
    pool: InferencePool, pod: PodSettings, accelerator: AcceleratorClass, revision: str
) -> list[JsonObject]:
    """Our variables win: a name twice would be refused by server-side apply."""
    simulated = (pod.annotations or {}).get(
        names.ANNOTATION_SIMULATED_DEVICES,
        pool.metadata.annotations.get(names.ANNOTATION_SIMULATED_DEVICES, ""),
    )
    own: list[JsonObject] = [
        _downward("TIDEGATE_POD_UID", "metadata.uid"),
        _downward("TIDEGATE_POD_NAME", "metadata.name"),
        _downward("TIDEGATE_POD_NAMESPACE", "metadata.namespace"),
        _downward("TIDEGATE_POD_IP", "status.podIP"),
        {"name": "TIDEGATE_POOL", "value": pool.metadata.name},
        {"name": "TIDEGATE_REVISION", "value": revision},
        {"name": "TIDEGATE_CLASS", "value": accelerator.name},
        {"name": "TIDEGATE_DRAIN_TIMEOUT", "value": f"{drain_timeout_s(pool):g}"},
    ]
    if simulated:
        own.append({"name": "TIDEGATE_SIMULATED_DEVICES", "value": simulated})
    taken = {item["name"] for item in own}
    return [*own, *(item for item in pod.env or [] if item.get("name") not in taken)]


def _downward(name: str, path: str) -> JsonObject:
    return {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def merged_resources(pod: PodSettings, accelerator: AcceleratorClass) -> JsonObject:
    """Return pod.resources with the class's resources as requests and limits.

    CPU is requested only: a limit would throttle a server that its node has room for.
    """
    shared: Mapping[str, object] = pod.resources or {}
    owned = {name: str(value) for name, value in (accelerator.resources or {}).items()}
    merged: JsonObject = dict(shared)
    for kind in ("requests", "limits"):
        base = shared.get(kind)
        added = {n: v for n, v in owned.items() if kind == "requests" or n != "cpu"}
        values = {**(base if isinstance(base, Mapping) else {}), **added}
        if values:
            merged[kind] = values
    return merged


def _volumes(pod: PodSettings, set_name: str, mounts: Iterable[SourceMount]) -> list[JsonObject]:
    memory: JsonObject = {"medium": "Memory"}
    if pod.shm_size:
        memory["sizeLimit"] = pod.shm_size
    return [
        {"name": "tidegate-models", "configMap": {"name": models_object_name(set_name)}},
        {"name": "tidegate-state", "emptyDir": {}},
        {"name": "tidegate-tmp", "emptyDir": {}},
        {"name": "tidegate-shm", "emptyDir": memory},
        *(item.volume for item in mounts),
        *(_user_volume(volume) for volume in pod.volumes or []),
    ]


def _own_mounts() -> list[JsonObject]:
    return [
        {"name": "tidegate-models", "mountPath": MODELS_DIRECTORY, "readOnly": True},
        {"name": "tidegate-state", "mountPath": STATE_DIRECTORY},
        {"name": "tidegate-tmp", "mountPath": "/tmp"},  # noqa: S108 - a mount point of the pod
        {"name": "tidegate-shm", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point of the pod
    ]


def _user_volume(volume: PodVolume) -> JsonObject:
    wire = volume.to_wire()
    return {key: value for key, value in wire.items() if key not in {"mountPath", "readOnly"}}


def _user_mounts(pod: PodSettings) -> list[JsonObject]:
    return [
        {
            "name": volume.name,
            "mountPath": volume.mount_path,
            **({"readOnly": True} if volume.read_only else {}),
        }
        for volume in pod.volumes or []
    ]
