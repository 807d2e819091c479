"""How a source's files become Triton's model folder: 1/<files>, or what the user laid out.

Three layouts (docs/reference): (a) a file; (b) a folder without config.pbtxt or numeric folders;
(c) a Triton model folder, of which one numeric folder is served.
"""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from tidegate_api.names import Reason
from tidegate_api.template import Model
from tidegate_worker.core.errors import ModelError

REMOTE_SCHEMES = frozenset({"https", "s3", "gs"})
CONFIG_FILE = "config.pbtxt"
_DEFAULT_FILES = {
    "onnxruntime": "model.onnx",
    "tensorrt": "model.plan",
    "pytorch": "model.pt",
    "openvino": "model.xml",
    "python": "model.py",
    "dali": "model.dali",
    "fil": "xgboost.json",
}
_BY_SUFFIX = {".onnx": "model.onnx", ".plan": "model.plan", ".pt": "model.pt", ".py": "model.py"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Which entries of a source go where in the model's folder, and the version that is served.

    `entries` are (path relative to the source, path relative to the model's folder), files or
    whole folders; "" is the source itself.
    """

    version: int
    entries: tuple[tuple[str, str], ...]


def is_remote(uri: str) -> bool:
    """Whether the agent fetches this source; others lie in the container."""
    return urlsplit(uri).scheme in REMOTE_SCHEMES


def place_file(model: Model, name: str) -> Placement:
    """Return layout (a): the file becomes <version>/<the backend's default file name>."""
    default = _DEFAULT_FILES.get(model.backend or "") or _BY_SUFFIX.get(posixpath.splitext(name)[1])
    if default is None:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"source.uri names the file {name}, and neither backend nor its suffix tells "
            "Triton's file name: set backend, or name a folder",
        )
    version = model.source.version or 1
    return Placement(version, (("", f"{version}/{default}"),))


def place_folder(model: Model, names: Iterable[str]) -> Placement:
    """Return layout (b) or (c) for the names of a folder's entries (not of deeper ones)."""
    entries = sorted(names)
    if not entries:
        raise ModelError(Reason.MODEL_FETCH_FAILED, f"{model.source.uri} holds no files")
    versions = sorted(int(name) for name in entries if is_version(name))
    if not versions and CONFIG_FILE not in entries:
        return _plain_folder(model, entries)
    return _triton_folder(model, entries, versions)


def _plain_folder(model: Model, entries: list[str]) -> Placement:
    """All of it is the version, but for the files that warmups are filled from."""
    version = model.source.version or 1
    if not any(item.file for warmup in model.warmup or [] for item in warmup.inputs.values()):
        return Placement(version, (("", str(version)),))
    places = ((name, name if name == "warmup" else f"{version}/{name}") for name in entries)
    return Placement(version, tuple(places))


def is_version(name: str) -> bool:
    """Whether Triton takes a folder of this name as a version: digits, no leading zero."""
    return name.isascii() and name.isdigit() and not name.startswith("0")


def _triton_folder(model: Model, entries: list[str], versions: list[int]) -> Placement:
    wanted = model.source.version
    listed = ", ".join(map(str, versions))
    if wanted is None and len(versions) > 1:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"{model.source.uri} holds versions {listed}: set source.version to one of them",
        )
    version = wanted or (versions[0] if versions else 1)
    if versions and version not in versions:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"source.version is {version}, but {model.source.uri} holds {listed}",
        )
    kept = [name for name in entries if name == str(version) or not is_version(name)]
    return Placement(version, tuple((name, name) for name in kept if name != CONFIG_FILE))


def safe_relative(path: str) -> str:
    """Return a fetched object's path below its source; one that would leave it is refused."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts or path.startswith("/") or ".." in parts:
        raise ModelError(
            Reason.MODEL_FETCH_FAILED, f'the source holds an object named "{path}": refused'
        )
    return "/".join(parts)
