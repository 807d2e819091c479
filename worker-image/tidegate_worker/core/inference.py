"""The readiness inference as an HTTP request of the KServe v2 protocol. Pure.

Tensors travel as raw bytes (extension "binary tensor data"): JSON cannot carry FP16 or BF16.
Made-up values depend on the input's name alone, so that every run asks the same.
"""

import hashlib
import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_worker.core.probe import Tensor

_SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2,
    "INT32": 4, "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
    "BYTES": 4,  # an empty string is its length alone
}  # fmt: skip
_FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d"}
_CLIENT_ERRORS = frozenset({400, 413, 415, 501})
SEQUENCE_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Request:
    """Headers and body of POST /v2/models/NAME/infer."""

    headers: Mapping[str, str]
    body: bytes


def encode(tensors: Sequence[Tensor], files: Mapping[str, bytes], *, sequence: bool) -> Request:
    """Return the request; `files` holds what inputs with fill File are filled from."""
    blobs = [fill(tensor, files) for tensor in tensors]
    parameters: dict[str, object] = {"binary_data_output": True}
    if sequence:
        parameters |= {"sequence_id": SEQUENCE_ID, "sequence_start": True, "sequence_end": True}
    inputs = [
        {
            "name": tensor.name,
            "datatype": tensor.data_type,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(blob)},
        }
        for tensor, blob in zip(tensors, blobs, strict=True)
    ]
    head = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return Request(headers, b"".join((head, *blobs)))


def fill(tensor: Tensor, files: Mapping[str, bytes]) -> bytes:
    """Return a tensor's bytes: zeros, a file's content, or repeatable made-up values."""
    count = math.prod(tensor.shape)
    if tensor.fill == "File":
        return files[tensor.file]
    if tensor.fill != "Random" or tensor.data_type == "BYTES":
        return bytes(count * _SIZES[tensor.data_type])
    return _made_up(tensor, count)


def _made_up(tensor: Tensor, count: int) -> bytes:
    size = _SIZES[tensor.data_type]
    noise = hashlib.shake_128(tensor.name.encode())
    if tensor.data_type == "BOOL":
        return bytes(byte & 1 for byte in noise.digest(count))
    if tensor.data_type in _FLOATS or tensor.data_type == "BF16":
        words = struct.unpack(f"<{count}I", noise.digest(count * 4))
        return _floats([word / 2**32 for word in words], tensor.data_type)
    return noise.digest(count * size)


def _floats(values: Sequence[float], data_type: str) -> bytes:
    """Pack values of [0, 1]; BF16 is the upper half of FP32."""
    if data_type == "BF16":
        packed = struct.pack(f"<{len(values)}f", *values)
        return b"".join(packed[at + 2 : at + 4] for at in range(0, len(packed), 4))
    return struct.pack(f"<{len(values)}{_FLOATS[data_type]}", *values)


def is_refusal(status: int, body: str) -> bool:
    """Whether an answer blames the request (router.md section 7): the model itself answers."""
    parse_error = body.startswith('{"error":"failed to parse') or "Unable to parse '" in body[:40]
    return status in _CLIENT_ERRORS or (status == 500 and parse_error)
