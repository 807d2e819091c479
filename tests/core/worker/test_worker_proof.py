"""When a model must prove itself, what an inference says, and how it is asked."""

import json
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.template import Warmup
from tidegate_worker.core.inference import SEQUENCE_ID, encode, fill, is_refusal
from tidegate_worker.core.probe import (
    Outcome,
    Proof,
    Tensor,
    conclude,
    due,
    note_counter,
    readiness_inputs,
)

READY = Proof(ready=True, strength="Strong", proven_s=100.0)


DUE = [
    ("after a load", Proof(), 0.0, True),
    ("right after a proof", READY, 100.5, False),
    ("9.9 s after a proof", READY, 109.9, False),
    ("10 s after a proof", READY, 110.0, True),
    ("at once again where not ready", Proof(proven_s=100.0, ready=False), 101.0, True),
    ("not before the pause after a try", Proof(next_try_s=5.0), 4.9, False),
    ("after the pause", Proof(next_try_s=5.0), 5.0, True),
]


@pytest.mark.parametrize(
    ("proof", "now_s", "expected"), [d[1:] for d in DUE], ids=[d[0] for d in DUE]
)
def test_an_inference_runs_when_proof_is_old(proof, now_s, expected):
    assert due(proof, now_s) is expected


CONCLUSIONS = [
    ("a success is a strong proof", Proof(), Outcome.SUCCESS, 0, (True, "Strong")),
    ("a refusal is a weak proof", Proof(), Outcome.REFUSED, 0, (True, "Weak")),
    ("a failure unmakes readiness", READY, Outcome.FAILURE, 0, (False, "Strong")),
    ("a failure under load unmakes it too", READY, Outcome.FAILURE, 9, (False, "Strong")),
    ("a timeout while idle: it hangs", READY, Outcome.TIMEOUT, 0, (False, "Strong")),
    ("a timeout with work pending: overload", READY, Outcome.TIMEOUT, 1, (True, "Strong")),
    ("a timeout never makes ready", Proof(), Outcome.TIMEOUT, 5, (False, "None")),
]


@pytest.mark.parametrize(
    ("proof", "outcome", "pending", "expected"),
    [c[1:] for c in CONCLUSIONS],
    ids=[c[0] for c in CONCLUSIONS],
)
def test_an_outcome_decides_readiness(proof, outcome, pending, expected):
    found = conclude(proof, outcome, now_s=200.0, pending=pending, message="words")
    assert (found.ready, found.strength) == expected
    assert found.message == ("" if outcome is Outcome.SUCCESS else "words")


def test_a_timeout_is_not_tried_again_soon_because_it_may_still_wait_in_triton():
    found = conclude(READY, Outcome.TIMEOUT, now_s=200.0, pending=4)
    assert not due(found, 209.9)
    assert due(found, 210.0)


def test_a_failure_is_tried_again_after_a_second():
    found = conclude(READY, Outcome.FAILURE, now_s=200.0, pending=0)
    assert not due(found, 200.9)
    assert due(found, 201.0)


def test_real_traffic_is_proof_and_strengthens_a_weak_one():
    weak = conclude(Proof(), Outcome.REFUSED, now_s=1.0, pending=0, message="refused")
    found = note_counter(weak, 1, 2.0)
    assert (found.ready, found.strength, found.message) == (True, "Strong", "")
    assert not due(found, 11.9)


def test_a_counter_that_stands_still_proves_nothing():
    found = note_counter(note_counter(Proof(), 5, 1.0), 5, 50.0)
    assert found.proven_s == 1.0
    assert due(found, 50.0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*Outcome, "traffic"]),
            st.floats(0.01, 20),
            st.integers(0, 3),
        ),
        max_size=30,
    )
)
def test_readiness_is_lost_only_by_a_failure_or_an_idle_timeout(events):
    proof, now_s, successes = Proof(), 0.0, 0
    history = [proof]
    for event, elapsed_s, pending in events:
        now_s += elapsed_s
        if event == "traffic":
            successes += 1
            proof = note_counter(proof, successes, now_s)
        else:
            proof = conclude(proof, event, now_s=now_s, pending=pending)
        history.append(proof)
    for (before, after), (event, _, pending) in zip(pairwise(history), events, strict=True):
        if before.ready and not after.ready:
            assert event is Outcome.FAILURE or (event is Outcome.TIMEOUT and pending == 0)
        if after.ready and not before.ready:
            assert event in {Outcome.SUCCESS, Outcome.REFUSED, "traffic"}


def test_without_a_warmup_zeros_are_asked_by_the_loaded_config():
    config = [
        {"name": "IMAGE", "data_type": "TYPE_FP32", "dims": ["3", "-1", "-1"]},
        {"name": "TEXT", "data_type": "TYPE_STRING", "dims": [0]},
        {"name": "EXTRA", "data_type": "TYPE_INT8", "dims": [1], "optional": True},
    ]
    assert readiness_inputs(config, 8, None) == (
        Tensor("IMAGE", "FP32", (1, 3, 1, 1)),
        Tensor("TEXT", "BYTES", (1, 0)),
    )


def test_a_model_without_batches_gets_no_batch_dimension():
    config = [{"name": "X", "data_type": "TYPE_BF16", "dims": [4]}]
    assert readiness_inputs(config, 0, None) == (Tensor("X", "BF16", (4,)),)


def test_the_first_warmup_goes_before_the_config():
    first = {"X": {"dataType": "INT32", "dims": [2], "fill": "Random"}}
    second = {"X": {"dataType": "INT32", "dims": [9]}}
    warmups = [Warmup.model_validate({"inputs": inputs}) for inputs in (first, second)]
    found = readiness_inputs([], 4, warmups)
    assert found == (Tensor("X", "INT32", (1, 2), "Random"),)


SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "BF16": 2, "INT32": 4,
    "UINT32": 4, "FP32": 4, "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip


@pytest.mark.parametrize("made", ["Zero", "Random"])
@pytest.mark.parametrize("data_type", SIZES)
def test_a_tensor_has_as_many_bytes_as_its_shape_says(data_type, made):
    found = fill(Tensor("X", data_type, (2, 3), made), {})
    assert len(found) == 6 * SIZES[data_type]
    assert (found == bytes(len(found))) is (made == "Zero")


FLOATS = [("FP16", "<4e"), ("FP32", "<4f"), ("FP64", "<4d")]


@pytest.mark.parametrize(("data_type", "layout"), FLOATS)
def test_made_up_floats_are_harmless_numbers(data_type, layout):
    values = struct.unpack(layout, fill(Tensor("X", data_type, (4,), "Random"), {}))
    assert all(0 <= value <= 1 for value in values)


def test_made_up_values_repeat():
    tensor = Tensor("X", "FP32", (4,), "Random")
    assert fill(tensor, {}) == fill(tensor, {})
    assert fill(tensor, {}) != fill(Tensor("Y", "FP32", (4,), "Random"), {})


def test_strings_are_empty_and_files_are_taken_as_they_are():
    assert fill(Tensor("X", "BYTES", (2,)), {}) == bytes(8)
    assert fill(Tensor("X", "BYTES", (1,), "File", "a"), {"a": b"\3\0\0\0abc"}) == b"\3\0\0\0abc"


def test_a_request_is_a_json_head_and_raw_tensors():
    request = encode([Tensor("A", "FP32", (1, 2)), Tensor("B", "INT8", (1,))], {}, sequence=False)
    length = int(request.headers["Inference-Header-Content-Length"])
    head = json.loads(request.body[:length])
    assert request.body[length:] == bytes(9)
    assert head["inputs"][0] == {
        "name": "A",
        "datatype": "FP32",
        "shape": [1, 2],
        "parameters": {"binary_data_size": 8},
    }
    assert head["parameters"] == {"binary_data_output": True}


def test_a_sequence_model_is_asked_for_a_whole_sequence():
    request = encode([], {}, sequence=True)
    parameters = json.loads(request.body)["parameters"]
    assert parameters["sequence_id"] == SEQUENCE_ID
    assert parameters["sequence_start"] is parameters["sequence_end"] is True


REFUSALS = [
    ("a shape that it does not take", 400, '{"error":"unexpected shape"}', True),
    ("unimplemented", 501, "", True),
    ("JSON that Triton calls its own fault", 500, '{"error":"failed to parse the request', True),
    ("the model raised", 500, '{"error":"ValueError: division by zero"}', False),
    ("not loaded", 404, '{"error":"Request for unknown model"}', False),
    ("unavailable", 503, "", False),
]


@pytest.mark.parametrize(
    ("status", "body", "refused"), [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS]
)
def test_only_a_client_error_is_a_refusal(status, body, refused):
    assert is_refusal(status, body) is refused
