"""Inference-Header-Content-Length: where JSON ends, which bytes each tensor has, and renaming.

Input: a first line with the header's value, then the body.
"""

import json
import math
import struct

import orjson

from tidegate_router.core.rename import Renamed, head_size
from tidegate_router.core.tensors import AnswerError, HttpAnswer

MAX_BYTES = 4096
_HEADER = "Inference-Header-Content-Length"
_NAMES = Renamed("m", "m--r2")
_CODES = {
    "BOOL": "?", "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q", "UINT8": "B",
    "UINT16": "H", "UINT32": "I", "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip


def _seed(document: object, binary: bytes = b"", length: str | None = None) -> bytes:
    text = json.dumps(document).encode()
    stated = str(len(text)) if length is None else length
    return stated.encode() + b"\n" + text + binary


def _binary(datatype: str, size: int, shape: list[int]) -> dict[str, object]:
    parameters = {"binary_data_size": size}
    return {"name": "Y", "datatype": datatype, "shape": shape, "parameters": parameters}


_PLAIN = {"name": "Y", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.5]]}
SEEDS = [
    _seed({"model_name": "m--r2", "model_version": "1", "outputs": [_PLAIN]}),
    _seed({"outputs": [_PLAIN]}, length=""),
    _seed({"outputs": [_binary("FP32", 8, [2])]}, struct.pack("<2f", 1, 2)),
    _seed({"outputs": [_binary("BYTES", 9, [2])]}, b"\x01\0\0\0a\0\0\0\0"),
    _seed({"outputs": [_binary("BF16", 2, [1]), _binary("BOOL", 1, [1])]}, b"\x80\x3f\x01"),
    _seed({"outputs": [_binary("INT8", -1, [1]), _binary("INT8", 2, [2])]}, b"ab"),
    _seed({"outputs": [_binary("INT8", 10**9, [1])]}, b"a"),
    _seed({"outputs": [{"name": "Y", "datatype": "BYTES", "shape": [2], "data": ["a", 1]}]}),
    _seed({"model_name": "m--r2", "text_output": "x", "n": [1, True, None, {"a": []}]}),
    _seed({"error": "m--r2"}), _seed([1]), _seed({"outputs": {}}), _seed({"outputs": [1]}),
    _seed({"outputs": [_PLAIN]}, length="9" * 5000), _seed({"outputs": []}, length="0"),
    _seed({"outputs": [_PLAIN]}, length="-1"), _seed({"outputs": [_PLAIN]}, length="\xb2"),
    b"\n" + b'{"outputs":[{"name":"Y","datatype":"INT8","shape":[1],"data":' + b"[" * 1000,
    b"\n" + b'{"outputs":[{"name":"Y","datatype":"INT8","shape":[0],"data":'
    + b"[" * 1000 + b"]" * 1000 + b"}]}",
    b"\n" + b'{"Y":' + b"[" * 1000 + b"]" * 1000 + b"}",
]  # fmt: skip


def check(data: bytes) -> None:
    """Raise where an answer is split otherwise than its header says, or breaks its reader."""
    line, _, body = data.partition(b"\n")
    value = line.decode("latin-1")
    headers = [("Content-Type", "application/json"), (_HEADER, value)]
    size = head_size(headers, body)
    stated = line.isdigit() and len(line) <= 15
    assert size == (min(int(line), len(body)) if stated else len(body)), "the split moved"
    _check_renamed(headers, body, size)
    try:
        tensors = HttpAnswer(headers, body).tensors()
    except AnswerError:
        return
    document = orjson.loads(body[:size])
    for tensor in tensors.values():
        assert math.prod(tensor.shape) == len(tensor.values), "elements do not fill the shape"
    if "outputs" in document:
        _check_outputs(document["outputs"], body[size:], tensors)


def _check_renamed(headers: list[tuple[str, str]], body: bytes, size: int) -> None:
    """The tensors stay byte for byte, the header gives the new length, nothing else moves."""
    changed, renamed = _NAMES.answer(200, headers, body)
    length = len(renamed) - (len(body) - size)
    assert renamed[length:] == body[size:], "a tensor moved"
    assert dict(changed)[_HEADER] == str(length), "the header gives another length"
    assert changed[0] == headers[0]
    restored = renamed[:length].replace(b'"m"', b'"m--r2"')
    assert restored == body[:size].replace(b'"m"', b'"m--r2"'), "other text moved"


def _check_outputs(outputs: list[dict[str, object]], binary: bytes, tensors: object) -> None:
    """Each binary tensor is the bytes after its predecessors', and no others."""
    at, expected = 0, {}
    for output in outputs:
        parameters = output.get("parameters")
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if isinstance(size, int):
            assert 0 <= size <= len(binary) - at, "a tensor of bytes that did not come"
            expected[str(output.get("name"))] = (output["datatype"], binary[at : at + size])
            at += size
        else:
            expected.pop(str(output.get("name")), None)
    for name, (datatype, raw) in expected.items():
        assert _bytes(datatype, tensors[name].values) == _canonical(datatype, raw), "other bytes"


def _bytes(datatype: str, values: list[object]) -> bytes:
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(one)) + one for one in values)
    if datatype == "BF16":
        return b"".join(struct.pack("<f", one)[2:] for one in values)
    return struct.pack(f"<{len(values)}{_CODES[datatype]}", *values)


def _canonical(datatype: str, raw: bytes) -> bytes:
    """Return bytes that differ in nothing that a value shows: true is 1, a NaN is any NaN."""
    if datatype == "BOOL":
        return bytes(bool(one) for one in raw)
    if datatype == "BF16":
        halves = (raw[at : at + 2] for at in range(0, len(raw), 2))
        return b"".join(struct.pack("<f", *struct.unpack("<f", b"\0\0" + h))[2:] for h in halves)
    code = _CODES.get(datatype, "")
    if code and code in "efd":
        count = len(raw) // struct.calcsize(code)
        return struct.pack(f"<{count}{code}", *struct.unpack(f"<{count}{code}", raw))
    return raw
