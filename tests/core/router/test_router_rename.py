"""A model that one Triton holds under another name: what its requests and answers carry."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from tidegate_router.core import protowire
from tidegate_router.core.rename import Renamed, RenamedStream, head_size

NAMES = Renamed("m", "m--0a1b2c3d")
SERVICE = "/inference.GRPCInferenceService/"
TEXT = st.text(max_size=20)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        pytest.param("/v2/models/m/infer", "/v2/models/m--0a1b2c3d/infer", id="infer"),
        pytest.param("/v2/models/m", "/v2/models/m--0a1b2c3d", id="metadata"),
        pytest.param("/v2/models/m?a=1", "/v2/models/m--0a1b2c3d?a=1", id="with-a-query"),
        pytest.param(
            "/v2/models/m/versions/3/infer",
            "/v2/models/m--0a1b2c3d/versions/3/infer",
            id="with-a-version",
        ),
        pytest.param("/v2/models/m2/infer", "/v2/models/m2/infer", id="another-model"),
        pytest.param("/v2", "/v2", id="no-model"),
        pytest.param(
            "/v2/models/m/infer?x=/v2/models/m/",
            "/v2/models/m--0a1b2c3d/infer?x=/v2/models/m/",
            id="once",
        ),
    ],
)
def test_the_path_names_what_the_worker_loaded(target, sent):
    assert NAMES.target(target) == sent


@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        pytest.param(
            200, b'{"model_name":"m--0a1b2c3d","outputs":[]}', b'{"model_name":"m","outputs":[]}',
            id="infer",
        ),
        pytest.param(
            200, b'{ "model_name" : "m--0a1b2c3d" }', b'{ "model_name" : "m" }', id="with-spaces"
        ),
        pytest.param(200, b'{"name":"m--0a1b2c3d"}', b'{"name":"m"}', id="metadata"),
        pytest.param(
            200, b'{"model_name":"m--0a1b2c3d4"}', b'{"model_name":"m--0a1b2c3d4"}',
            id="a-longer-name-is-another",
        ),
        pytest.param(
            200, b'{"data":["m--0a1b2c3d"]}', b'{"data":["m--0a1b2c3d"]}', id="data-stays",
        ),
        pytest.param(
            404, b'{"error":"unknown model: \'m--0a1b2c3d\'"}', b'{"error":"unknown model: \'m\'"}',
            id="an-error-names-the-clients-model",
        ),
    ],
)  # fmt: skip
def test_the_answer_has_the_name_that_the_client_asked_for(status, body, seen):
    assert NAMES.answer(status, [("A", "b")], body) == ([("A", "b")], seen)


@given(st.binary(max_size=200))
def test_binary_tensors_stay_as_they_are_and_the_head_keeps_its_stated_length(tensors):
    head = json.dumps({"model_name": "m--0a1b2c3d", "outputs": []}).encode()
    given_headers = [("Inference-Header-Content-Length", str(len(head)))]
    headers, body = NAMES.answer(200, given_headers, head + tensors)
    size = head_size(headers, body)
    assert json.loads(body[:size]) == {"model_name": "m", "outputs": []}
    assert body[size:] == tensors


def test_a_name_inside_binary_tensors_is_no_name():
    head = b'{"model_name":"m--0a1b2c3d"}'
    tensors = b'{"model_name":"m--0a1b2c3d"}'
    headers = [("inference-header-content-length", str(len(head)))]
    _, body = NAMES.answer(200, headers, head + tensors)
    assert body == b'{"model_name":"m"}' + tensors


@pytest.mark.parametrize("value", ["-1", "x", "", "9999"])
def test_an_absurd_head_length_means_that_all_is_json(value):
    assert head_size([("Inference-Header-Content-Length", value)], b"{}") == 2


def test_a_packed_answer_would_hide_its_name_so_none_is_asked_for():
    headers = [("Accept-Encoding", "gzip"), ("Content-Type", "a")]
    assert NAMES.request_headers(headers) == [("Content-Type", "a")]


@given(
    st.lists(st.sampled_from([b'data: {"model_name":"m--0a1b2c3d"}\n\n', b": x\n", b"end"])),
    st.integers(1, 30),
)
def test_a_stream_is_renamed_however_it_is_cut(events, size):
    whole, stream = b"".join(events), RenamedStream(NAMES)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    got = b"".join(stream.feed(piece) for piece in pieces) + stream.end()
    assert got == whole.replace(b"m--0a1b2c3d", b"m")


def test_whole_lines_of_a_stream_are_not_held_back():
    stream = RenamedStream(NAMES)
    assert stream.feed(b'data: {"model_name":"m--0a1b2c3d"}\n\nda') == (
        b'data: {"model_name":"m"}\n\n'
    )
    assert stream.end() == b"da"


@given(TEXT, TEXT, st.lists(st.binary(max_size=50), max_size=3))
def test_a_grpc_request_names_what_the_worker_loaded_and_nothing_else_changes(model, ident, raw):
    message = service_pb2.ModelInferRequest(model_name=model, id=ident, raw_input_contents=raw)
    sent = service_pb2.ModelInferRequest.FromString(NAMES.message(message.SerializeToString()))
    assert sent.model_name == "m--0a1b2c3d"
    message.model_name = sent.model_name
    assert sent == message


@given(TEXT, st.lists(st.binary(max_size=50), max_size=3))
def test_a_grpc_answer_names_the_model_and_nothing_else_changes(ident, raw):
    answer = service_pb2.ModelInferResponse(
        model_name="m--0a1b2c3d", id=ident, raw_output_contents=raw
    )
    seen = NAMES.grpc_answer(f"{SERVICE}ModelInfer", answer.SerializeToString())
    parsed = service_pb2.ModelInferResponse.FromString(seen)
    answer.model_name = "m"
    assert parsed == answer


def test_metadata_names_the_model():
    answer = service_pb2.ModelMetadataResponse(name="m--0a1b2c3d", versions=["1"], platform="p")
    seen = NAMES.grpc_answer(f"{SERVICE}ModelMetadata", answer.SerializeToString())
    answer.name = "m"
    assert service_pb2.ModelMetadataResponse.FromString(seen) == answer


@given(st.lists(st.integers(0, 2**63 - 1), max_size=3))
def test_statistics_of_each_version_name_the_model(counts):
    answer = service_pb2.ModelStatisticsResponse()
    for number, count in enumerate(counts):
        answer.model_stats.add(name="m--0a1b2c3d", version=str(number), inference_count=count)
    seen = NAMES.grpc_answer(f"{SERVICE}ModelStatistics", answer.SerializeToString())
    for one in answer.model_stats:
        one.name = "m"
    assert service_pb2.ModelStatisticsResponse.FromString(seen) == answer


def test_a_streams_answers_name_the_model_and_its_errors_stay_errors():
    answer = service_pb2.ModelStreamInferResponse()
    answer.infer_response.model_name, answer.infer_response.id = "m--0a1b2c3d", "7"
    seen = NAMES.grpc_answer(f"{SERVICE}ModelStreamInfer", answer.SerializeToString())
    answer.infer_response.model_name = "m"
    assert service_pb2.ModelStreamInferResponse.FromString(seen) == answer
    error = service_pb2.ModelStreamInferResponse(error_message="no").SerializeToString()
    assert NAMES.grpc_answer(f"{SERVICE}ModelStreamInfer", error) == error


@pytest.mark.parametrize(
    ("named", "sent"), [("m", "m--0a1b2c3d"), ("", "m--0a1b2c3d"), ("other", "other")]
)
def test_a_stream_message_about_another_model_keeps_its_name(named, sent):
    message = service_pb2.ModelInferRequest(model_name=named).SerializeToString()
    assert protowire.scan(NAMES.streamed(message)).model == sent


@pytest.mark.parametrize("broken", [b"\x0a\xff", b"\x00", b"\xff" * 11])
def test_what_is_no_protobuf_passes_as_it_is(broken):
    assert NAMES.grpc_answer(f"{SERVICE}ModelStatistics", broken) == broken
    assert NAMES.streamed(broken) == broken


@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(1, 2**20), st.just(0), st.integers(0, 2**64 - 1)),
            st.tuples(st.integers(1, 2**20), st.just(2), st.binary(max_size=300)),
            st.tuples(st.integers(1, 2**20), st.just(5), st.binary(min_size=4, max_size=4)),
            st.tuples(st.integers(1, 2**20), st.just(1), st.binary(min_size=8, max_size=8)),
        )
    )
)
def test_every_field_is_read_and_its_bytes_make_the_message_again(written):
    parts = []
    for number, kind, value in written:
        tag = protowire.encode_varint(number << 3 | kind)
        length = protowire.encode_varint(len(value)) if kind == 2 else b""
        parts.append(tag + length + (protowire.encode_varint(value) if kind == 0 else value))
    found = list(protowire.fields(b"".join(parts)))
    assert [one.raw for one in found] == parts
    values = [one.varint if one.kind == 0 else one.data for one in found]
    assert values == [value for _, _, value in written]
    assert [one.number for one in found] == [number for number, _, _ in written]


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x0a\x05ab", id="a-string-cut-off"),
        pytest.param(b"\x0d\x01\x02", id="four-bytes-cut-off"),
        pytest.param(b"\x09\x01", id="eight-bytes-cut-off"),
        pytest.param(b"\x08\x80", id="a-number-cut-off"),
        pytest.param(b"\x0b", id="a-group"),
    ],
)
def test_a_field_beyond_the_end_is_refused(message):
    with pytest.raises(protowire.WireError):
        list(protowire.fields(message))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(protowire.WireError):
        assert b"".join(one.raw for one in protowire.fields(data)) == data
