"""Which Triton backend a model needs, and whether the image has it. Pure."""

import posixpath
from collections.abc import Iterable

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as proto

from tidegate_api.names import Reason
from tidegate_worker.core.errors import ModelError

_BY_FILE = {
    "model.onnx": "onnxruntime",
    "model.plan": "tensorrt",
    "model.pt": "pytorch",
    "model.py": "python",
    "model.xml": "openvino",
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.dali": "dali",
}
_BY_PLATFORM = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
}


def needed(config_text: str, files: Iterable[str]) -> str | None:
    """Return the backend of a rendered config.pbtxt, or the one its version's files imply.

    None: an ensemble needs none, or only Triton can tell.
    """
    config = text_format.Parse(config_text, proto.ModelConfig())
    if config.backend:
        return str(config.backend)
    if config.platform:
        return _BY_PLATFORM.get(config.platform)
    implied = (_BY_FILE.get(posixpath.basename(file)) for file in sorted(files))
    return next((backend for backend in implied if backend), None)


def brings_its_own(backend: str, files: Iterable[str]) -> bool:
    """Whether the model's folder holds the backend's library, which Triton prefers."""
    return f"libtriton_{backend}.so" in set(map(posixpath.basename, files))


def check(backend: str | None, installed: Iterable[str]) -> None:
    """Raise ModelError unless the image has the backend; the message names both."""
    have = sorted(installed)
    if backend is not None and backend not in have:
        raise ModelError(
            Reason.BACKEND_NOT_IN_IMAGE,
            f"backend {backend} is not in the worker image, which has "
            f"{', '.join(have) or 'none'}: name an image that has it in template.image",
        )
