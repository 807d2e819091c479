"""Typed fields -> config.pbtxt, and traits from what Triton loaded."""

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2 as proto

from tidegate_api.names import Reason
from tidegate_api.state import Traits
from tidegate_api.template import Model
from tidegate_worker.core.backends import brings_its_own, check, needed
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.modelconfig import render, sequence_idle_s, traits


def rendered(fields, base="", kind="CPU", version=1):
    document = {"name": "m", "source": {"uri": "pvc://c/m"}, **fields}
    text = render(Model.model_validate(document), version, kind, base)
    return text_format.Parse(text, proto.ModelConfig())


FIELDS = [
    ("a backend replaces the base's platform",
     {"backend": "python"}, 'platform: "onnxruntime_onnx"',
     lambda c: (c.backend, c.platform), ("python", "")),
    ("an omitted backend keeps the base's",
     {}, 'backend: "onnxruntime"', lambda c: c.backend, "onnxruntime"),
    ("the batch size replaces the base's",
     {"maxBatchSize": 32}, "max_batch_size: 4", lambda c: c.max_batch_size, 32),
    ("a batch size of 0 is written, not taken as absent",
     {"maxBatchSize": 0}, "max_batch_size: 4", lambda c: c.max_batch_size, 0),
    ("absent batching leaves the base's",
     {}, "dynamic_batching { }", lambda c: c.HasField("dynamic_batching"), True),
    ("an empty batching switches it on",
     {"dynamicBatching": {}}, "", lambda c: c.HasField("dynamic_batching"), True),
    ("batching replaces the base's whole",
     {"dynamicBatching": {"preferredBatchSizes": [8, 16], "maxQueueDelay": "500us"}},
     "dynamic_batching { preferred_batch_size: 2 preserve_ordering: true }",
     lambda c: (list(c.dynamic_batching.preferred_batch_size),
                c.dynamic_batching.max_queue_delay_microseconds,
                c.dynamic_batching.preserve_ordering), ([8, 16], 500, False)),
    ("Triton's own queue is limited",
     {"dynamicBatching": {"queue": {"maxSize": 9, "timeout": "2s", "timeoutAction": "Delay"}}}, "",
     lambda c: (c.dynamic_batching.default_queue_policy.max_queue_size,
                c.dynamic_batching.default_queue_policy.default_timeout_microseconds,
                c.dynamic_batching.default_queue_policy.timeout_action), (9, 2_000_000, 1)),
    ("instances take the class's kind",
     {"instances": [{"count": 2}]}, "",
     lambda c: [(g.count, g.kind) for g in c.instance_group],
     [(2, proto.ModelInstanceGroup.KIND_CPU)]),
    ("an explicit kind goes before the class's",
     {"instances": [{"count": 1, "kind": "GPU"}]}, "instance_group { count: 9 }",
     lambda c: [(g.count, g.kind) for g in c.instance_group],
     [(1, proto.ModelInstanceGroup.KIND_GPU)]),
    ("another field of Triton's goes last",
     {"maxBatchSize": 8, "config": {"parameters": {"k": {"stringValue": "v"}}}}, "",
     lambda c: c.parameters["k"].string_value, "v"),
    ("another field replaces the base's whole",
     {"config": {"output": [{"name": "NEW", "dims": ["1"]}]}},
     'output { name: "OLD" dims: 1 }', lambda c: [o.name for o in c.output], ["NEW"]),
    ("name and version policy are ours",
     {"config": {"default_model_filename": "x"}},
     'name: "theirs" version_policy { latest { num_versions: 3 } }',
     lambda c: (c.name, list(c.version_policy.specific.versions)), ("m", [1])),
    ("warmups are filled as written",
     {"warmup": [{"inputs": {"A": {"dataType": "FP32", "dims": [2]},
                             "B": {"dataType": "BYTES", "dims": [1], "fill": "Random"},
                             "C": {"dataType": "INT8", "dims": [1], "fill": "File",
                                   "file": "c.bin"}}}]}, "",
     lambda c: [(n, i.WhichOneof("input_data_type"), i.random_data, i.data_type)
                for n, i in sorted(c.model_warmup[0].inputs.items())],
     [("A", "zero_data", False, proto.TYPE_FP32), ("B", "random_data", True, proto.TYPE_STRING),
      ("C", "input_data_file", False, proto.TYPE_INT8)]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "base", "look", "expected"), [f[1:] for f in FIELDS], ids=[f[0] for f in FIELDS]
)
def test_typed_fields_over_base_then_config(fields, base, look, expected):
    assert look(rendered(fields, base)) == expected


@given(
    st.integers(0, 65536),
    st.lists(st.integers(1, 64), max_size=4),
    st.sampled_from(["", "dynamic_batching { priority_levels: 3 default_priority_level: 1 }"]),
)
def test_typed_batching_never_writes_priority_levels(size, preferred, base):
    batching = {"preferredBatchSizes": preferred}
    config = rendered({"maxBatchSize": size, "dynamicBatching": batching}, base)
    assert config.dynamic_batching.priority_levels == 0


UNUSABLE = [
    ("a base that is no config", {}, "this is { not", "config.pbtxt does not parse"),
    ("a field that Triton does not know", {"config": {"colour": "red"}}, "", "no field named"),
    ("a value of another type", {"config": {"optimization": 3}}, "", "ModelConfig"),
]


@pytest.mark.parametrize(
    ("fields", "base", "words"), [u[1:] for u in UNUSABLE], ids=[u[0] for u in UNUSABLE]
)
def test_what_is_no_config_is_refused_by_reason(fields, base, words):
    with pytest.raises(ModelError, match=words) as refused:
        rendered(fields, base)
    assert refused.value.reason is Reason.MODEL_CONFIG_INVALID


LOADED = [
    ("nothing special", {}, Traits()),
    ("batching and two groups",
     {"max_batch_size": 8, "dynamic_batching": {}, "instance_group": [{"count": 2}, {"count": 1}]},
     Traits(dynamic_batching=True, max_batch_size=8, instances=3)),
    ("decoupled", {"model_transaction_policy": {"decoupled": True}}, Traits(decoupled=True)),
    ("a text model", {"input": [{"name": "text_input"}], "output": [{"name": "text_output"}]},
     Traits(text=True)),
    ("text that goes in alone", {"input": [{"name": "text_input"}]}, Traits()),
    ("a sequence", {"sequence_batching": {}}, Traits(sequence=True)),
    ("an ensemble", {"platform": "ensemble", "ensemble_scheduling": {"step": []}},
     Traits(ensemble=True)),
    ("an ensemble by its platform alone", {"platform": "ensemble"}, Traits(ensemble=True)),
    ("fields of a newer Triton are ignored", {"fields_of_tomorrow": 1}, Traits()),
]  # fmt: skip


@pytest.mark.parametrize(("config", "found"), [x[1:] for x in LOADED], ids=[x[0] for x in LOADED])
def test_traits_come_from_the_loaded_config(config, found):
    assert traits(config) == found


IDLE = [
    ("no sequences", {}, 0.0),
    ("Triton's default", {"sequence_batching": {}}, 1.0),
    (
        "as configured, as Triton writes int64",
        {"sequence_batching": {"max_sequence_idle_microseconds": "2500000"}},
        2.5,
    ),
]


@pytest.mark.parametrize(("config", "seconds"), [i[1:] for i in IDLE], ids=[i[0] for i in IDLE])
def test_a_sequence_is_waited_for_as_long_as_triton_does(config, seconds):
    assert sequence_idle_s(config) == seconds


NEEDS = [
    ("the backend named", {"backend": "python"}, ["1/model.onnx"], "python"),
    ("a platform's backend", {"platform": "tensorrt_plan"}, [], "tensorrt"),
    ("an ensemble needs none", {"platform": "ensemble"}, ["1/model.py"], None),
    ("its file tells", {}, ["1/model.onnx", "labels.txt"], "onnxruntime"),
    ("nothing tells", {}, ["1/weights.bin"], None),
]


@pytest.mark.parametrize(
    ("config", "files", "backend"), [n[1:] for n in NEEDS], ids=[n[0] for n in NEEDS]
)
def test_the_needed_backend_is_told_by_config_or_files(config, files, backend):
    text = text_format.MessageToString(json_format.ParseDict(config, proto.ModelConfig()))
    assert needed(text, files) == backend


def test_a_missing_backend_names_it_and_those_there():
    with pytest.raises(ModelError, match=r"tensorrt is not .* which has onnxruntime, python") as no:
        check("tensorrt", ["python", "onnxruntime"])
    assert no.value.reason is Reason.BACKEND_NOT_IN_IMAGE


@pytest.mark.parametrize("backend", [None, "python"], ids=["unknown", "there"])
def test_a_backend_that_is_there_or_unknown_is_left_to_triton(backend):
    check(backend, ["python"])


def test_a_model_may_bring_its_backend():
    assert brings_its_own("mine", ["1/libtriton_mine.so"])
    assert not brings_its_own("mine", ["1/libtriton_other.so"])
