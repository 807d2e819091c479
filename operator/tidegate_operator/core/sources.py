"""Where each model's files lie in the container, and the volumes and init containers for that.

oci: an init container of the worker image puts a static busybox into an emptyDir, then one of
the model image runs it to copy the path (a model image may be FROM scratch). pvc and configmap
are mounted read-only, each claim or ConfigMap once. file is in the worker image. https, s3 and
gs are fetched by the agent and have no path here.
"""

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_api.template import JsonObject, Model
from tidegate_api.workermodels import CREDENTIALS_DIRECTORY, SOURCES_DIRECTORY

REMOTE_SCHEMES = ("https", "s3", "gs")
BUSYBOX_SOURCE = "/bin/busybox"  # in the worker image
_TOOLS_VOLUME = "tidegate-tools"
_TOOLS_DIRECTORY = "/mnt/tools"
_DEFAULT_OCI_PATH = "/model"  # of oci://IMAGE without #/path
_INIT_RESOURCES: JsonObject = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"cpu": "1", "memory": "256Mi"},
}
_RESTRICTED: JsonObject = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
}


@dataclass(frozen=True, slots=True)
class SourceMount:
    """A volume, and where the worker container mounts it."""

    volume: JsonObject
    mount: JsonObject
    init: JsonObject | None = None  # the container that fills it


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlan:
    """What the models' sources add to a pod; `paths` are per model, None if fetched."""

    paths: tuple[str | None, ...]
    mounts: tuple[SourceMount, ...]

    @property
    def init_containers(self) -> list[JsonObject]:
        """The copies, in order; empty when no source is an image."""
        return [mount.init for mount in self.mounts if mount.init is not None]


def restricted_container() -> JsonObject:
    """Return the securityContext of every container: Pod Security Standard "restricted"."""
    return dict(_RESTRICTED)


def split_uri(uri: str) -> tuple[str, str]:
    """Return (scheme, rest) of a source uri."""
    scheme, _, rest = uri.partition("://")
    return scheme, rest


def plan_sources(models: Sequence[Model]) -> SourcePlan:
    """Return paths and mounts; a claim, ConfigMap or image path used twice is mounted once."""
    mounts: dict[tuple[str, str], SourceMount] = {}
    paths = [_place(model.source.uri, mounts) for model in models]
    return SourcePlan(paths=tuple(paths), mounts=tuple(mounts.values()))


def _place(uri: str, mounts: dict[tuple[str, str], SourceMount]) -> str | None:
    scheme, rest = split_uri(uri)
    if scheme in REMOTE_SCHEMES:
        return None
    if scheme == "file":
        return rest
    key, inner = _mount_key(scheme, rest)
    known = list(mounts)
    index = known.index(key) if key in mounts else len(known)
    if key not in mounts:
        mounts[key] = _mount(index, scheme, key[1])
    return posixpath.join(SOURCES_DIRECTORY, str(index), inner).rstrip("/")


def _mount_key(scheme: str, rest: str) -> tuple[tuple[str, str], str]:
    """Return (what is mounted, the path inside the mount)."""
    if scheme == "oci":
        image, _, path = rest.partition("#")
        normal = posixpath.normpath("/" + (path or _DEFAULT_OCI_PATH).lstrip("/"))
        return (scheme, f"{image}#{normal}"), posixpath.basename(normal)
    name, _, inner = rest.partition("/")
    return (scheme, name), inner.lstrip("/")


def _mount(index: int, scheme: str, name: str) -> SourceMount:
    volume = f"tidegate-source-{index}"
    mount: JsonObject = {"name": volume, "mountPath": f"{SOURCES_DIRECTORY}/{index}"}
    read_only: JsonObject = {**mount, "readOnly": True}
    if scheme == "pvc":
        claim: JsonObject = {"claimName": name, "readOnly": True}
        return SourceMount({"name": volume, "persistentVolumeClaim": claim}, read_only)
    if scheme == "configmap":
        return SourceMount({"name": volume, "configMap": {"name": name}}, read_only)
    image, _, path = name.partition("#")
    return SourceMount(
        {"name": volume, "emptyDir": {}}, read_only, _copy_container(index, image, path, mount)
    )


def _copy_container(index: int, image: str, path: str, mount: JsonObject) -> JsonObject:
    """The model image runs busybox: `cp -rL PATH DIRECTORY/`, a file or a folder alike."""
    return {
        "name": f"copy-model-{index}",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [f"{_TOOLS_DIRECTORY}/busybox", "cp", "-rL", path, f"{mount['mountPath']}/"],
        "resources": _INIT_RESOURCES,
        "securityContext": restricted_container(),
        "volumeMounts": [
            {"name": _TOOLS_VOLUME, "mountPath": _TOOLS_DIRECTORY, "readOnly": True},
            mount,
        ],
    }


def tools_container(worker_image: str) -> JsonObject:
    """Return the init container that puts busybox where the model images find it."""
    return {
        "name": "tools",
        "image": worker_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [BUSYBOX_SOURCE, "cp", BUSYBOX_SOURCE, f"{_TOOLS_DIRECTORY}/busybox"],
        "resources": _INIT_RESOURCES,
        "securityContext": restricted_container(),
        "volumeMounts": [{"name": _TOOLS_VOLUME, "mountPath": _TOOLS_DIRECTORY}],
    }


def tools_volume() -> JsonObject:
    """Return the volume that holds busybox."""
    return {"name": _TOOLS_VOLUME, "emptyDir": {}}


def credentials_path(model: Model) -> str | None:
    """Return where a model's Secret is mounted."""
    credentials = model.source.credentials
    return f"{CREDENTIALS_DIRECTORY}/{credentials.secret_name}" if credentials else None


def credential_mounts(models: Sequence[Model]) -> list[SourceMount]:
    """Return one read-only mount per Secret; the kubelet keeps it up to date."""
    secrets = sorted({m.source.credentials.secret_name for m in models if m.source.credentials})
    return [
        SourceMount(
            {"name": f"tidegate-credentials-{index}", "secret": {"secretName": name}},
            {
                "name": f"tidegate-credentials-{index}",
                "mountPath": f"{CREDENTIALS_DIRECTORY}/{name}",
                "readOnly": True,
            },
        )
        for index, name in enumerate(secrets)
    ]
