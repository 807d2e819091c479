"""Inference answers, HTTP or gRPC, read into values that can be compared. Pure.

Sources: Open Inference Protocol v2, Triton's binary tensor data extension (JSON, then the tensors'
bytes in order, little-endian) and generate extension, inference.GRPCInferenceService's protobuf.
BYTES elements have a length of 4 bytes before them.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from tidegate_router.core import protowire
from tidegate_router.core.headers import Pairs
from tidegate_router.core.rename import head_size

MAX_UNPACKED_BYTES = 4 * 1024 * 1024
FLOATS = frozenset({"FP16", "FP32", "FP64", "BF16"})
_FORMATS = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
    "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_NOT_OUTPUTS = frozenset({"model_name", "model_version", "id"})  # of an answer of generate
Value = float | bytes  # int and bool are floats to the type checker, and stay what they are


class AnswerError(ValueError):
    """The bytes are no complete inference answer."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One output; `values` are its elements, row by row."""

    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Value]


Tensors = Mapping[str, Tensor]  # by output name


class Answer(Protocol):
    """An answer as it came."""

    @property
    def body(self) -> bytes:
        """Its bytes."""

    def tensors(self) -> Tensors:
        """Read it; AnswerError."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """The complete answer to an inference or generate request over HTTP."""

    headers: Pairs
    body: bytes

    def tensors(self) -> Tensors:
        """Read JSON and binary tensors; AnswerError."""
        body = _unpacked(self.headers, self.body)
        size = head_size(self.headers, body)
        try:
            document = orjson.loads(body[:size])
        except orjson.JSONDecodeError:
            raise AnswerError("no JSON") from None
        if not isinstance(document, dict):
            raise AnswerError("no JSON object")
        if "outputs" not in document:
            return _generated(document)
        return dict(_http_outputs(document["outputs"], body[size:]))


def _unpacked(headers: Pairs, body: bytes) -> bytes:
    packed = [value for name, value in headers if name.lower() == "content-encoding"]
    if not packed or packed == ["identity"]:
        return body
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # gzip or deflate, by its head
    try:
        plain = unpacking.decompress(body, MAX_UNPACKED_BYTES)
    except zlib.error:
        raise AnswerError("an unknown content encoding") from None
    if unpacking.unconsumed_tail or not unpacking.eof:
        raise AnswerError("too large, or cut off")
    return plain


def _http_outputs(outputs: object, binary: bytes) -> Iterator[tuple[str, Tensor]]:
    at = 0
    for output in _records(outputs):
        datatype, shape = str(output.get("datatype")), _shape(output.get("shape"))
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, Mapping) else None
        if isinstance(size, int):
            if not 0 <= size <= len(binary) - at:
                raise AnswerError(f"{size} bytes of a tensor where {len(binary) - at} are left")
            values = from_bytes(datatype, binary[at : at + size])
            at += size
        else:
            values = [_value(datatype, one) for one in _flat(output.get("data"))]
        yield str(output.get("name")), _checked(datatype, shape, values)


def _generated(document: Mapping[str, object]) -> Tensors:
    """Read an answer of generate: each member is an output, its type is that of its value."""
    found: dict[str, Tensor] = {}
    for name, value in document.items():
        if name not in _NOT_OUTPUTS:
            items = list(_flat(value)) if isinstance(value, list) else [value]
            datatype = _json_type(items)
            values = [_value(datatype, one) for one in items]
            found[name] = Tensor(datatype, (len(values),), values)
    return found


def _json_type(items: Sequence[object]) -> str:
    if all(isinstance(one, bool) for one in items):
        return "BOOL"
    if all(isinstance(one, int) for one in items):
        return "INT64"
    return "FP64" if all(isinstance(one, int | float) for one in items) else "BYTES"


def _records(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise AnswerError("no list of outputs")
    return value


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(type(one) is int and one >= 0 for one in value):
        raise AnswerError("an output without shape")
    return tuple(value)


def _flat(data: object) -> Iterator[object]:
    """Yield the elements of nested lists; a worker may nest deeper than Python calls itself."""
    if not isinstance(data, list):
        raise AnswerError("an output without data")
    left = [iter(data)]
    while left:
        for one in left[-1]:
            if isinstance(one, list):
                left.append(iter(one))
                break
            yield one
        else:
            left.pop()


def _value(datatype: str, value: object) -> Value:
    if datatype == "BYTES":
        return value.encode() if isinstance(value, str) else orjson.dumps(value)
    if not isinstance(value, int | float):
        raise AnswerError(f"an element of {datatype} is no number")
    return float(value) if datatype in FLOATS else value


def from_bytes(datatype: str, data: bytes) -> Sequence[Value]:
    """Return the elements of a tensor's raw bytes; AnswerError."""
    if datatype == "BYTES":
        return list(_strings(data))
    if datatype == "BF16":  # the upper half of an FP32
        halves = (data[at : at + 2] for at in range(0, len(data), 2))
        datatype, data = "FP32", b"".join(b"\0\0" + half for half in halves)
    code = _FORMATS.get(datatype)
    if code is None or len(data) % struct.calcsize(code):
        raise AnswerError(f"{len(data)} bytes are no {datatype}")
    return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data)


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise AnswerError("a string is longer than its tensor")
        yield data[at + 4 : end]
        at = end


def _checked(datatype: str, shape: tuple[int, ...], values: Sequence[Value]) -> Tensor:
    if math.prod(shape) != len(values):
        raise AnswerError(f"{len(values)} elements do not fill shape {list(shape)}")
    return Tensor(datatype, shape, values)


@dataclass(slots=True)
class _Output:
    """InferOutputTensor."""

    name: str = ""
    datatype: str = ""
    shape: list[int] = field(default_factory=list)
    contents: bytes | None = None


@dataclass(frozen=True, slots=True)
class GrpcAnswer:
    """A ModelInferResponse."""

    body: bytes

    def tensors(self) -> Tensors:
        """Read outputs (field 5) and raw contents (field 6); AnswerError."""
        outputs: list[_Output] = []
        raw: list[bytes] = []
        try:
            for one in protowire.fields(self.body):
                if one.number == 5 and one.is_bytes:
                    outputs.append(_output(one.data))
                elif one.number == 6 and one.is_bytes:
                    raw.append(one.data)
            return dict(_grpc_outputs(outputs, raw))
        except protowire.WireError as error:
            raise AnswerError(str(error)) from None


def _output(message: bytes) -> _Output:
    found = _Output()
    for one in protowire.fields(message):
        match one.number:
            case 1:
                found.name = one.data.decode("utf-8", "replace")
            case 2:
                found.datatype = one.data.decode("utf-8", "replace")
            case 3:
                found.shape += protowire.varints(one.data) if one.is_bytes else [one.varint]
            case 5:
                found.contents = one.data
            case _:
                pass
    return found


def _grpc_outputs(outputs: list[_Output], raw: list[bytes]) -> Iterator[tuple[str, Tensor]]:
    """Raw contents are given for every output or for none."""
    if raw and len(raw) != len(outputs):
        raise AnswerError(f"{len(raw)} raw contents for {len(outputs)} outputs")
    for number, output in enumerate(outputs):
        if raw:
            values = from_bytes(output.datatype, raw[number])
        else:
            values = _contents(output.datatype, output.contents or b"")
        yield output.name, _checked(output.datatype, tuple(output.shape), values)


def _contents(datatype: str, message: bytes) -> Sequence[Value]:
    """InferTensorContents: one repeated field per kind of number, packed or not."""
    values: list[Value] = []
    for one in protowire.fields(message):
        if datatype == "BYTES":
            values.append(one.data)
        elif datatype in FLOATS:
            values += from_bytes("FP64" if one.number == 7 else "FP32", one.data)
        else:
            found = protowire.varints(one.data) if one.is_bytes else [one.varint]
            values += [_signed(number, datatype) for number in found]
    return values


def _signed(number: int, datatype: str) -> int:
    """Negative numbers are varints of 64 bits in two's complement."""
    if datatype == "BOOL":
        return bool(number)
    return number - 2**64 if datatype.startswith("INT") and number >= 2**63 else number
