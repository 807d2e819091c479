import json
import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.utils import triton_to_np_dtype

from tidegate_cli.core.loadtest.payload import (
    Shape,
    binary_body,
    headers_of,
    http_request,
    infer_path,
    json_body,
    made_up,
    raw,
    shape_of,
    sized,
)
from tidegate_cli.core.tensors import Declared, Tensor
from tidegate_cli.errors import InputError

NUMBERS = [
    "BOOL", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FP16",
    "FP32", "FP64",
]  # fmt: skip


def made(*declared, seed=1):
    return made_up(declared, random.Random(seed).random)


@pytest.mark.parametrize(
    ("argument", "shape"),
    [
        pytest.param("IN=1,16", Shape("IN", "", (1, 16)), id="a size for a declared input"),
        pytest.param("IN:FP32=4", Shape("IN", "FP32", (4,)), id="with its type"),
        pytest.param("T:BYTES=2,1", Shape("T", "BYTES", (2, 1)), id="texts"),
    ],
)
def test_a_shape_is_read(argument, shape):
    assert shape_of(argument) == shape


@pytest.mark.parametrize(
    "argument",
    [
        pytest.param("IN", id="no size"),
        pytest.param("=1", id="no name"),
        pytest.param("IN=1,-1", id="a free dimension is no size"),
        pytest.param("IN=1,", id="an empty size"),
        pytest.param("IN:FLOAT=1", id="a type that OIP does not have"),
    ],
)
def test_a_wrong_shape_is_named(argument):
    with pytest.raises(InputError, match="--shape"):
        shape_of(argument)


def test_free_dimensions_are_one_unless_given():
    declared = [Declared("A", "FP32", (-1, 3)), Declared("B", "INT8", (-1, -1))]
    found = sized(declared, [Shape("B", "", (2, 5))])
    assert found == [Declared("A", "FP32", (1, 3)), Declared("B", "INT8", (2, 5))]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        pytest.param(Shape("C", "", (1,)), "no such input", id="an unknown input"),
        pytest.param(Shape("A", "", (2,)), "expected", id="another rank"),
        pytest.param(Shape("A", "", (2, 4)), "expected", id="a fixed dimension"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(shape, words):
    with pytest.raises(InputError, match=words):
        sized([Declared("A", "FP32", (-1, 3))], [shape])


@pytest.mark.parametrize("datatype", NUMBERS)
def test_raw_values_are_what_triton_reads(datatype):
    (tensor,) = made(Declared("IN", datatype, (2, 3)))
    read = np.frombuffer(raw(tensor), dtype=triton_to_np_dtype(datatype))
    assert read.tolist() == pytest.approx([*tensor.values], rel=1e-3, abs=1e-6)


def test_raw_texts_have_their_lengths():
    tensor = Tensor("T", "BYTES", (2, 1), (b"a", b"\xff\x00"))
    assert raw(tensor) == struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + b"\xff\x00"


def test_given_raw_values_stay():
    assert raw(Tensor("T", "FP32", (1,), raw=b"abcd")) == b"abcd"


@given(st.sampled_from([*NUMBERS, "BYTES"]), st.integers(1, 4), st.integers(1, 4))
def test_a_json_body_is_what_was_made_up(datatype, rows, columns):
    (tensor,) = made(Declared("IN", datatype, (rows, columns)))
    (read,) = json.loads(json_body([tensor]))["inputs"]
    plain = [one.decode() if isinstance(one, bytes) else one for one in tensor.values]
    assert read == {"name": "IN", "datatype": datatype, "shape": [rows, columns], "data": plain}


@given(st.lists(st.sampled_from([*NUMBERS, "BYTES"]), min_size=1, max_size=4))
def test_a_binary_body_splits_at_its_json_length(datatypes):
    tensors = made(*(Declared(f"I{at}", one, (2, 2)) for at, one in enumerate(datatypes)))
    body, json_bytes = binary_body(tensors)
    document, rest = json.loads(body[:json_bytes]), body[json_bytes:]
    assert document["parameters"] == {"binary_data_output": True}
    for tensor, described in zip(tensors, document["inputs"], strict=True):
        size = described["parameters"]["binary_data_size"]
        assert rest[:size] == raw(tensor)
        rest = rest[size:]
    assert rest == b""


def test_a_seed_makes_the_same_values_again():
    declared = Declared("IN", "FP32", (8,))
    assert made(declared, seed=5) == made(declared, seed=5)
    assert made(declared, seed=5) != made(declared, seed=6)


def test_a_request_has_its_length_and_given_headers_go_first():
    request = http_request("/p", "h:1", {"content-type": "text/x", "x-a": "b"}, b"body")
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == b"body"
    assert head.split(b"\r\n") == [
        b"POST /p HTTP/1.1", b"host: h:1", b"content-type: text/x", b"x-a: b", b"content-length: 4",
    ]  # fmt: skip


@pytest.mark.parametrize("path", ["p", "/a b", "/a\r\nx: y", ""])
def test_a_path_that_breaks_the_request_line_is_refused(path):
    with pytest.raises(InputError, match="--path"):
        http_request(path, "h", {}, b"")


def test_headers_are_read():
    assert headers_of(["X-A: b", "c:d:e"]) == {"x-a": "b", "c": "d:e"}


@pytest.mark.parametrize("argument", ["none", ": value", "a: b\r\nc: d"])
def test_a_wrong_header_is_named(argument):
    with pytest.raises(InputError, match="--header"):
        headers_of([argument])


def test_a_version_is_part_of_the_path():
    assert infer_path("m", "") == "/v2/models/m/infer"
    assert infer_path("m", "3") == "/v2/models/m/versions/3/infer"
