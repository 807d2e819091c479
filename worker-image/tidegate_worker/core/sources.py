"""How a source's files become Triton's model folder: 1/<files>, or what the user laid out.

Three layouts (docs/reference): (a) a file; (b) a folder without config.pbtxt or numeric folders;
(c) a Triton model folder, of which one numeric folder is served.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
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
    """Which source paths go where in the model's folder, and the version that is served.

    `files` are (path relative to the source, path relative to the model's folder); for a file
    source the first is "".
    """

    version: int
    files: tuple[tuple[str, str], ...]


def scheme(uri: str) -> str:
    """Return a source's scheme."""
    return urlsplit(uri).scheme


def place_file(model: Model, name: str) -> Placement:
    """Return layout (a): the file becomes <version>/<the backend's default file name>."""
    default = _DEFAULT_FILES.get(model.backend or "") or _BY_SUFFIX.get(PurePosixPath(name).suffix)
    if default is None:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"model {model.name}: source.uri names the file {name}, and neither backend nor its "
            "suffix tells Triton's file name: set backend, or name a folder",
        )
    version = model.source.version or 1
    return Placement(version, (("", f"{version}/{default}"),))


def place_folder(model: Model, paths: Iterable[str]) -> Placement:
    """Return layout (b) or (c) for the relative paths of a folder's files."""
    files = sorted(paths)
    if not files:
        raise ModelError(
            Reason.MODEL_FETCH_FAILED, f"model {model.name}: {model.source.uri} holds no files"
        )
    versions = sorted({int(top) for top in map(_top, files) if top.isdigit()})
    if not versions and CONFIG_FILE not in files:
        version = model.source.version or 1
        return Placement(version, tuple((path, f"{version}/{path}") for path in files))
    return _triton_folder(model, files, versions)


def _triton_folder(model: Model, files: list[str], versions: list[int]) -> Placement:
    wanted = model.source.version
    if wanted is None and len(versions) > 1:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"model {model.name}: {model.source.uri} holds versions "
            f"{', '.join(map(str, versions))}: set source.version to one of them",
        )
    version = wanted or (versions[0] if versions else 1)
    if versions and version not in versions:
        raise ModelError(
            Reason.MODEL_CONFIG_INVALID,
            f"model {model.name}: source.version is {version}, but {model.source.uri} holds "
            f"{', '.join(map(str, versions))}",
        )
    kept = [path for path in files if _top(path) == str(version) or not _top(path).isdigit()]
    return Placement(version, tuple((path, path) for path in kept if path != CONFIG_FILE))


def _top(path: str) -> str:
    head, _, rest = path.partition("/")
    return head if rest else ""
