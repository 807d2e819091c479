"""Which model a message names, against the real protobuf library."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tidegate_router.core.protowire import (
    MAX_NAME_BYTES,
    SCAN_BYTES,
    Named,
    WireError,
    bool_message,
    encode_varint,
    scan,
    stream_error,
    string_field,
)

NAMES = st.text(max_size=40)
UNKNOWN = st.one_of(
    st.tuples(st.integers(20, 2**20), st.binary(max_size=50)).map(
        lambda field: encode_varint(field[0] << 3 | 2) + encode_varint(len(field[1])) + field[1]
    ),
    st.tuples(st.integers(20, 2**20), st.integers(0, 2**64 - 1)).map(
        lambda field: encode_varint(field[0] << 3) + encode_varint(field[1])
    ),
    st.tuples(st.integers(20, 2**20), st.binary(min_size=8, max_size=8)).map(
        lambda field: encode_varint(field[0] << 3 | 1) + field[1]
    ),
    st.tuples(st.integers(20, 2**20), st.binary(min_size=4, max_size=4)).map(
        lambda field: encode_varint(field[0] << 3 | 5) + field[1]
    ),
)


@given(NAMES, NAMES, st.text(max_size=20), st.lists(st.binary(max_size=2000), max_size=3))
def test_an_infer_request_names_its_model(model, version, identity, contents):
    message = service_pb2.ModelInferRequest(
        model_name=model, model_version=version, id=identity, raw_input_contents=contents
    )
    assert scan(message.SerializeToString()) == Named(model, version)


@given(st.lists(st.one_of(UNKNOWN, st.tuples(st.sampled_from([1, 2, 3]), NAMES)), max_size=12))
def test_fields_in_any_order_repeated_or_unknown_read_as_protobuf_reads_them(parts):
    message = b"".join(
        part if isinstance(part, bytes) else string_field(part[0], part[1]) for part in parts
    )
    parsed = service_pb2.ModelInferRequest.FromString(message)
    assert scan(message) == Named(parsed.model_name, parsed.model_version)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_protobuf_reads_them_or_refused(message):
    try:
        found = scan(message)
    except WireError:
        return
    try:
        parsed = service_pb2.ModelMetadataRequest.FromString(message)
    except DecodeError:
        return  # protobuf also checks what routing does not need
    assert found == Named(parsed.name, parsed.version)


@given(NAMES, st.binary(min_size=1, max_size=100), st.data())
def test_a_message_that_was_cut_is_refused_or_names_a_model_before_the_cut(model, content, data):
    message = service_pb2.ModelInferRequest(
        model_name=model, raw_input_contents=[content]
    ).SerializeToString()
    cut = message[: data.draw(st.integers(0, len(message) - 1))]
    try:
        assert scan(cut).model in {model, ""}
    except WireError:
        return


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"\x00\x00", "field number 0"),
        (b"\x0a", "ends inside a number"),
        (b"\x0a\x05abc", "longer than its message"),
        (b"\x0d\x00", "ends inside a field"),
        (b"\x0b", "wire type 3"),
        (b"\xff" * 11, "longer than 10 bytes"),
        (b"\x0a\x01\xff", "no UTF-8"),
        (string_field(1, "m" * (MAX_NAME_BYTES + 1)), "a name is longer than 256 bytes"),
    ],
)
def test_what_is_no_request_is_refused(message, complaint):
    with pytest.raises(WireError, match=complaint):
        scan(message)


def test_a_name_behind_megabytes_of_tensors_is_not_searched_for():
    tensors = service_pb2.ModelInferRequest(raw_input_contents=[bytes(SCAN_BYTES)])
    name = string_field(1, "late")
    assert scan(tensors.SerializeToString() + name) == Named()
    assert scan(name + tensors.SerializeToString()) == Named("late")


@given(st.booleans())
def test_a_local_answer_is_a_message_that_clients_read(value):
    message = bool_message(value=value)
    assert service_pb2.ServerReadyResponse.FromString(message).ready is value


@given(NAMES, st.binary(max_size=100))
def test_an_answer_of_a_stream_carries_an_error_or_none(text, content):
    answer = service_pb2.ModelInferResponse(raw_output_contents=[content])
    message = service_pb2.ModelStreamInferResponse(error_message=text, infer_response=answer)
    assert stream_error(message.SerializeToString()) == text


def test_an_answer_that_is_no_protobuf_carries_no_error():
    assert stream_error(b"\x0a\x05abc") == ""
