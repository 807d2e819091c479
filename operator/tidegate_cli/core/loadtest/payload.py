"""The bytes of a request: made up tensors in OIP's JSON or binary form, and an HTTP/1.1 head.

Forms: Open Inference Protocol v2 "infer"; Triton's binary tensor data extension (raw values after
the JSON, whose length stands in Inference-Header-Content-Length; BYTES elements have 4-byte
little-endian lengths).
"""

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate_cli.core.tensors import Declared, Scalar, Tensor
from tidegate_cli.errors import InputError

HEADER_LENGTH = "inference-header-content-length"
_FORMATS: Mapping[str, str] = {
    "BOOL": "?", "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i",
    "UINT32": "I", "INT64": "q", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_TEXT = b"tidegate"
_WHOLE_NUMBERS = 100  # made up integers are 0..99: they fit each type


@dataclass(frozen=True, slots=True)
class Shape:
    """One --shape: the size of an input, and its data type where the model is not asked for it."""

    name: str
    datatype: str
    sizes: tuple[int, ...]


def shape_of(argument: str) -> Shape:
    """Read NAME=1,16 or NAME:FP32=1,16."""
    named, sign, sizes = argument.partition("=")
    name, _, datatype = named.partition(":")
    fields = sizes.split(",")
    if not sign or not name or not all(size.isdecimal() for size in fields):
        raise InputError(f"--shape {argument}: expected NAME=1,16 or NAME:FP32=1,16")
    if datatype and datatype not in {*_FORMATS, "BYTES"}:
        known = ", ".join([*_FORMATS, "BYTES"])
        raise InputError(f"--shape {argument}: no data type {datatype}; there are {known}")
    return Shape(name, datatype, tuple(int(size) for size in fields))


def sized(declared: Sequence[Declared], shapes: Sequence[Shape]) -> list[Declared]:
    """Return the inputs with every dimension known; a free one (-1) without --shape is 1."""
    given = {shape.name: shape for shape in shapes}
    unknown = sorted(set(given) - {one.name for one in declared})
    if unknown:
        known = ", ".join(f"{one.name} {list(one.shape)}" for one in declared)
        raise InputError(f"--shape {unknown[0]}: the model has no such input; it has {known}")
    return [_sized(one, given.get(one.name)) for one in declared]


def _sized(declared: Declared, shape: Shape | None) -> Declared:
    if shape is None:
        sizes = tuple(max(size, 1) for size in declared.shape)
        return Declared(declared.name, declared.datatype, sizes)
    fits = len(shape.sizes) == len(declared.shape) and all(
        want in {-1, have} for want, have in zip(declared.shape, shape.sizes, strict=True)
    )
    if not fits:
        raise InputError(
            f"--shape {shape.name}: {list(shape.sizes)} given, {list(declared.shape)} expected"
        )
    return Declared(declared.name, declared.datatype, shape.sizes)


def made_up(inputs: Iterable[Declared], uniform: Callable[[], float]) -> list[Tensor]:
    """Return a tensor of made up values for each input; `uniform` yields numbers in [0, 1)."""
    return [
        Tensor(
            one.name,
            one.datatype,
            one.shape,
            tuple(_value(one.datatype, uniform) for _ in range(math.prod(one.shape))),
        )
        for one in inputs
    ]


def _value(datatype: str, uniform: Callable[[], float]) -> Scalar:
    if datatype == "BYTES":
        return _TEXT
    if datatype == "BOOL":
        return uniform() < 0.5
    if datatype.startswith("FP"):
        return round(uniform(), 3)
    return int(uniform() * _WHOLE_NUMBERS)


def raw(tensor: Tensor) -> bytes:
    """Return a tensor's values as Triton's binary extension and gRPC's raw contents have them."""
    if tensor.raw is not None:
        return tensor.raw
    if tensor.datatype == "BYTES":
        elements = [value for value in tensor.values if isinstance(value, bytes)]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return struct.pack(f"<{len(tensor.values)}{_FORMATS[tensor.datatype]}", *tensor.values)


def json_body(tensors: Iterable[Tensor]) -> bytes:
    """Return the body of an infer request with its values in JSON."""
    inputs = [{**_head(one), "data": [_plain(value) for value in one.values]} for one in tensors]
    return json.dumps({"inputs": inputs}, separators=(",", ":")).encode()


def binary_body(tensors: Iterable[Tensor]) -> tuple[bytes, int]:
    """Return a body with binary values, which asks for such outputs, and its JSON's length."""
    listed = [(one, raw(one)) for one in tensors]
    inputs = [{**_head(one), "parameters": {"binary_data_size": len(data)}} for one, data in listed]
    document = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    head = json.dumps(document, separators=(",", ":")).encode()
    return head + b"".join(data for _, data in listed), len(head)


def _head(tensor: Tensor) -> dict[str, str | list[int]]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _plain(value: Scalar) -> bool | int | float | str:
    return value.decode() if isinstance(value, bytes) else value


def headers_of(arguments: Iterable[str]) -> dict[str, str]:
    """Read each --header NAME:VALUE; names are lower-case then."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, sign, value = argument.partition(":")
        if not sign or not name.strip() or any(end in argument for end in "\r\n"):
            raise InputError(f"--header {argument}: expected NAME:VALUE")
        found[name.strip().lower()] = value.strip()
    return found


def http_request(path: str, host: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a whole POST request; a given header goes before the default of its name."""
    if any(letter in path for letter in " \r\n") or not path.startswith("/"):
        raise InputError(f"--path {path}: expected a path that begins with / and has no space")
    fields = {"host": host, "content-type": "application/json", **headers}
    fields["content-length"] = str(len(body))
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def infer_path(model: str, version: str) -> str:
    """Return OIP's path of an inference."""
    middle = f"/versions/{version}" if version else ""
    return f"/v2/models/{model}{middle}/infer"
