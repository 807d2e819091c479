"""Answers of two revisions: how they are read, and when they differ."""

import contextlib
import gzip
import json
import math
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tidegate_router.core import compare
from tidegate_router.core.compare import Comparison
from tidegate_router.core.tensors import (
    MAX_UNPACKED_BYTES,
    AnswerError,
    GrpcAnswer,
    HttpAnswer,
    Tensor,
    from_bytes,
)

NAN, INF = float("nan"), float("inf")
NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
ANY32 = st.floats(width=32, allow_nan=True, allow_infinity=True)


def tensor(values, datatype="FP32", shape=None):
    return Tensor(datatype, tuple(shape or (1, len(values))), values)


def differs(stable, canary):
    return bool(compare.compare({"y": stable}, {"y": canary}).reason)


@pytest.mark.parametrize(
    ("stable", "canary", "differ"),
    [
        pytest.param([0.1, 0.9], [0.4, 0.6], False, id="the-same-top-1"),
        pytest.param([0.1, 0.9], [0.6, 0.4], True, id="another-top-1"),
        pytest.param([0.5, 0.5], [0.4, 0.6], False, id="stables-two-highest-are-equal"),
        pytest.param([0.4, 0.6], [0.5, 0.5], True, id="the-canarys-first-highest-counts"),
        pytest.param([NAN, 1.0], [NAN, 2.0], False, id="no-number-in-the-same-place"),
        pytest.param([NAN, 1.0], [0.0, 1.0], True, id="no-number-in-one"),
        pytest.param([1.0, 0.0], [1.0, NAN], True, id="no-number-in-the-canary"),
        pytest.param([NAN, NAN], [NAN, NAN], False, id="no-number-at-all"),
        pytest.param([-INF, 1.0], [-INF, 1.0], False, id="infinite-logits"),
        pytest.param([INF, 1.0], [1.0, INF], True, id="infinity-elsewhere"),
    ],
)
def test_floats_of_two_columns_are_compared_by_top_1(stable, canary, differ):
    assert differs(tensor(stable), tensor(canary)) is differ


@pytest.mark.parametrize(
    ("stable", "canary", "differ"),
    [
        pytest.param(100.0, 100.09, False, id="within-a-thousandth"),
        pytest.param(100.0, 100.11, True, id="beyond-it"),
        pytest.param(0.0, 1e-7, False, id="both-next-to-nothing"),
        pytest.param(0.0, 1e-3, True, id="something-for-nothing"),
        pytest.param(-1.0, 1.0, True, id="another-sign"),
        pytest.param(NAN, NAN, False, id="both-no-number"),
        pytest.param(1.0, NAN, True, id="one-no-number"),
        pytest.param(INF, INF, False, id="both-infinite"),
        pytest.param(INF, 1.0, True, id="one-infinite"),
    ],
)
@pytest.mark.parametrize("shape", [(1,), (1, 1), ()], ids=str)
def test_a_single_column_is_compared_within_a_tolerance(stable, canary, differ, shape):
    one, other = Tensor("FP32", shape, [stable]), Tensor("FP32", shape, [canary])
    assert differs(one, other) is differ


def test_every_row_has_its_top_1():
    stable = tensor([0, 1, 1, 0, 0, 1], shape=(3, 2))
    assert not differs(stable, tensor([0, 2, 2, 0, 0, 2], shape=(3, 2)))
    assert differs(stable, tensor([0, 1, 1, 0, 1, 0], shape=(3, 2)))


@pytest.mark.parametrize(
    ("stable", "canary", "differ"),
    [
        pytest.param(tensor([1, 2], "INT64"), tensor([1, 2], "INT64"), False, id="ints"),
        pytest.param(tensor([1, 2], "INT64"), tensor([1, 3], "INT64"), True, id="another-int"),
        pytest.param(tensor([True], "BOOL"), tensor([False], "BOOL"), True, id="another-bool"),
        pytest.param(tensor([b"a"], "BYTES"), tensor([b"a"], "BYTES"), False, id="text"),
        pytest.param(tensor([b"a"], "BYTES"), tensor([b"A"], "BYTES"), True, id="another-text"),
        pytest.param(tensor([1.0]), tensor([1.0], "FP64"), True, id="another-datatype"),
        pytest.param(tensor([1, 2]), tensor([1, 2], shape=(2, 1)), True, id="another-shape"),
        pytest.param(tensor([], shape=(0,)), tensor([], shape=(0,)), False, id="nothing"),
    ],
)
def test_other_values_are_compared_exactly(stable, canary, differ):
    assert differs(stable, canary) is differ


@pytest.mark.parametrize(
    ("stable", "canary"), [({"a"}, {"a", "b"}), ({"a", "b"}, {"a"}), ({"a"}, {"b"}), ({"a"}, set())]
)
def test_a_missing_or_further_output_is_a_difference(stable, canary):
    one, other = ({name: tensor([1.0]) for name in names} for names in (stable, canary))
    assert compare.compare(one, other).reason == "other outputs"


def test_the_largest_difference_is_over_all_outputs_and_decides_nothing():
    stable = {"a": tensor([0.0, 5.0]), "b": tensor([1.0, 9.0]), "n": tensor([1], "INT64")}
    canary = {"a": tensor([0.5, 5.0]), "b": tensor([1.0, 11.5]), "n": tensor([1], "INT64")}
    assert compare.compare(stable, canary) == Comparison("", 2.5)


@given(st.lists(ANY32, min_size=1, max_size=12))
def test_every_answer_agrees_with_itself(values):
    for shape in ((len(values),), (len(values), 1)):
        found = compare.compare(
            {"y": tensor(values, shape=shape)}, {"y": tensor(values, shape=shape)}
        )
        assert found == Comparison()


@given(st.lists(st.tuples(ANY32, ANY32), min_size=1, max_size=12))
def test_the_difference_is_finite_and_the_same_both_ways(pairs):
    one, other = [a for a, _ in pairs], [b for _, b in pairs]
    found = compare.largest_difference(one, other)
    assert 0 <= found <= sys.float_info.max
    assert found == compare.largest_difference(other, one)
    assert all(abs(a - b) <= found for a, b in pairs if math.isfinite(a - b))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=8), st.sampled_from([0.25, 2, 1024]))
def test_scaling_all_logits_is_no_disagreement(values, factor):
    assert not differs(tensor(values), tensor([value * factor for value in values]))


@given(st.sampled_from(sorted(NUMPY)), st.binary(max_size=64))
def test_raw_bytes_are_read_as_numpy_reads_them(datatype, data):
    width = np.dtype(NUMPY[datatype]).itemsize
    data = data[: len(data) // width * width]
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    wanted = np.frombuffer(data, dtype=np.dtype(NUMPY[datatype]).newbyteorder("<"))
    np.testing.assert_array_equal(np.array(from_bytes(datatype, data), wanted.dtype), wanted)


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=5))
def test_a_bf16_is_the_upper_half_of_an_fp32(values):
    data = b"".join(struct.pack("<f", value)[2:] for value in values)
    halves = [struct.unpack("<f", b"\0\0" + struct.pack("<f", value)[2:])[0] for value in values]
    assert list(from_bytes("BF16", data)) == halves


@given(st.lists(st.binary(max_size=20), max_size=5))
def test_strings_have_their_length_before_them(texts):
    data = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    assert from_bytes("BYTES", data) == texts


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        pytest.param("FP32", b"abc", id="half-a-number"),
        pytest.param("BF16", b"a", id="half-a-bf16"),
        pytest.param("NONSENSE", b"abcd", id="unknown-type"),
        pytest.param("BYTES", b"\x09\0\0\0a", id="a-string-cut-off"),
        pytest.param("BYTES", b"\x01\0", id="a-length-cut-off"),
    ],
)
def test_bytes_that_are_no_tensor_are_refused(datatype, data):
    with pytest.raises(AnswerError):
        from_bytes(datatype, data)


def output(name="y", datatype="FP32", shape=(1, 2), **fields):
    return {"name": name, "datatype": datatype, "shape": list(shape), **fields}


def http(document, binary=b"", **headers):
    head = document if isinstance(document, bytes) else json.dumps(document).encode()
    pairs = [("Inference-Header-Content-Length", str(len(head)))] if binary else []
    return HttpAnswer([*pairs, *headers.items()], head + binary)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        pytest.param(
            http({"model_name": "m", "outputs": [output(data=[1, 2.5])]}),
            {"y": tensor([1.0, 2.5])},
            id="json",
        ),
        pytest.param(
            http({"outputs": [output(data=[[1, 2]])]}), {"y": tensor([1.0, 2.0])}, id="nested"
        ),
        pytest.param(
            http({"outputs": [output(datatype="BYTES", data=["a", "é"])]}),
            {"y": tensor([b"a", "é".encode()], "BYTES")},
            id="text",
        ),
        pytest.param(
            http(
                {
                    "outputs": [
                        output("a", parameters={"binary_data_size": 8}),
                        output("b", "INT64", (1,), data=[7]),
                        output("c", "BYTES", (1,), parameters={"binary_data_size": 6}),
                    ]
                },
                struct.pack("<ff", 1.5, -2) + b"\x02\0\0\0hi",
            ),
            {
                "a": tensor((1.5, -2.0)),
                "b": tensor([7], "INT64", (1,)),
                "c": tensor([b"hi"], "BYTES", (1,)),
            },
            id="binary-beside-json",
        ),
        pytest.param(
            http({"model_name": "m", "id": "7", "text_output": "hello", "n": 3, "p": [0.5, 1]}),
            {
                "text_output": tensor([b"hello"], "BYTES", (1,)),
                "n": tensor([3], "INT64", (1,)),
                "p": tensor([0.5, 1], "FP64", (2,)),
            },
            id="generate",
        ),
        pytest.param(http({"outputs": []}), {}, id="no-outputs"),
    ],
)  # fmt: skip
def test_http_answers_are_read(answer, found):
    assert answer.tensors() == found


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_packed_answers_are_unpacked(pack):
    name = "gzip" if pack is gzip.compress else "deflate"
    body = pack(json.dumps({"outputs": [output(data=[1, 2])]}).encode())
    answer = HttpAnswer([("Content-Encoding", name)], body)
    assert answer.tensors() == {"y": tensor([1.0, 2.0])}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(b"nonsense"), id="no-json"),
        pytest.param(http(b"[1]"), id="no-object"),
        pytest.param(http({"outputs": {}}), id="outputs-no-list"),
        pytest.param(http({"outputs": [1]}), id="output-no-object"),
        pytest.param(http({"outputs": [output(data=[1])]}), id="too-few-elements"),
        pytest.param(http({"outputs": [output()]}), id="no-data"),
        pytest.param(http({"outputs": [output(data=["a", "b"])]}), id="text-for-numbers"),
        pytest.param(http({"outputs": [{"name": "y", "data": []}]}), id="no-shape"),
        pytest.param(
            http({"outputs": [output(parameters={"binary_data_size": 8})]}, b"abc"),
            id="binary-cut-off",
        ),
        pytest.param(HttpAnswer([("Content-Encoding", "br")], b"x"), id="unknown-packing"),
        pytest.param(
            HttpAnswer([("Content-Encoding", "gzip")], gzip.compress(b"{}")[:-4]), id="cut-off"
        ),
        pytest.param(
            HttpAnswer(
                [("Content-Encoding", "gzip")], gzip.compress(bytes(MAX_UNPACKED_BYTES + 1))
            ),
            id="a-packing-bomb",
        ),
    ],
)
def test_what_is_no_http_answer_is_refused(answer):
    with pytest.raises(AnswerError):
        answer.tensors()


FIELDS = {
    "BOOL": ("bool_contents", st.booleans()),
    "INT32": ("int_contents", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", st.integers(-(2**63), 2**63 - 1)),
    "UINT32": ("uint_contents", st.integers(0, 2**32 - 1)),
    "UINT64": ("uint64_contents", st.integers(0, 2**64 - 1)),
    "FP32": ("fp32_contents", st.floats(width=32, allow_nan=False)),
    "FP64": ("fp64_contents", st.floats(allow_nan=False)),
    "BYTES": ("bytes_contents", st.binary(max_size=20)),
}


@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_typed_contents_are_read_as_protobuf_wrote_them(data, datatype):
    field, values = FIELDS[datatype]
    wanted = data.draw(st.lists(values, max_size=6))
    message = service_pb2.ModelInferResponse(model_name="m", id="7")
    one = message.outputs.add(name="y", datatype=datatype, shape=[len(wanted)])
    getattr(one.contents, field).extend(wanted)
    found = GrpcAnswer(message.SerializeToString()).tensors()
    assert found["y"].shape == (len(wanted),)
    assert list(found["y"].values) == wanted


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=4), max_size=4))
def test_raw_contents_belong_to_outputs_in_order(outputs):
    message = service_pb2.ModelInferResponse()
    for number, values in enumerate(outputs):
        message.outputs.add(name=f"y{number}", datatype="FP32", shape=[1, len(values)])
        message.raw_output_contents.append(struct.pack(f"<{len(values)}f", *values))
    found = GrpcAnswer(message.SerializeToString()).tensors()
    assert {name: list(one.values) for name, one in found.items()} == {
        f"y{number}": values for number, values in enumerate(outputs)
    }


def test_raw_contents_for_some_outputs_only_are_refused():
    message = service_pb2.ModelInferResponse(raw_output_contents=[b"abcd"])
    message.outputs.add(name="a", datatype="FP32", shape=[1])
    message.outputs.add(name="b", datatype="FP32", shape=[1])
    with pytest.raises(AnswerError):
        GrpcAnswer(message.SerializeToString()).tensors()


@given(st.binary(max_size=80))
def test_any_bytes_are_an_answer_or_refused(data):
    for answer in (GrpcAnswer(data), HttpAnswer([], data)):
        with contextlib.suppress(AnswerError):
            answer.tensors()


def test_a_canary_that_cannot_be_read_differs_and_a_stable_one_says_nothing():
    good, bad = http({"outputs": [output(data=[1, 2])]}), http(b"nonsense")
    assert compare.judge(good, bad).reason
    assert compare.judge(bad, good) is None
    assert compare.judge(good, http({"outputs": [output(data=[1, 3])]})) == Comparison("", 1.0)


def test_equal_bytes_agree_without_being_read():
    assert compare.judge(http(b"nonsense"), http(b"nonsense")) == Comparison()


def test_names_of_model_and_version_are_no_difference():
    one = http({"model_name": "m", "model_version": "1", "outputs": [output(data=[1, 2])]})
    other = http({"model_name": "m", "model_version": "2", "outputs": [output(data=[1, 2])]})
    assert compare.judge(one, other) == Comparison()
