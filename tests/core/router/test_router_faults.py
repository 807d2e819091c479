"""Whose fault an answer is, and what a refusal says."""

import pytest

from tidegate_api.names import DroppedReason
from tidegate_router.core.faults import Outcome, judge_grpc, judge_http
from tidegate_router.core.refusal import ANSWERS, Refusal


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        pytest.param(200, b"", Outcome.OK, id="200-is-ok"),
        pytest.param(302, b"", Outcome.OK, id="a-redirect-is-an-answer"),
        pytest.param(503, b"", Outcome.NEVER_RAN, id="503-never-ran"),
        pytest.param(
            404,
            b"""{"error":"Request for unknown model: 'm' is not found"}""",
            Outcome.NEVER_RAN,
            id="unknown-model-is-the-workers-fault",
        ),
        pytest.param(
            400,
            b"""{"error":"Request for unknown model: 'm' has no available versions"}""",
            Outcome.NEVER_RAN,
            id="no-version-yet-is-the-workers-fault",
        ),
        pytest.param(404, b"not found", Outcome.CLIENT, id="another-404-is-the-clients"),
        pytest.param(400, b"unexpected shape", Outcome.CLIENT, id="400-is-the-clients"),
        pytest.param(413, b"", Outcome.CLIENT, id="413-is-the-clients"),
        pytest.param(415, b"", Outcome.CLIENT, id="415-is-the-clients"),
        pytest.param(501, b"", Outcome.CLIENT, id="501-is-the-clients"),
        pytest.param(
            500,
            b'{"error":"failed to parse the request JSON buffer: Missing a name for object"}',
            Outcome.CLIENT,
            id="malformed-json-is-the-clients-though-triton-says-500",
        ),
        pytest.param(
            500, b'{"error":"Unable to parse \'inputs\'"}', Outcome.CLIENT, id="unable-to-parse"
        ),
        pytest.param(
            500,
            b'{"error":"backend says: failed to parse the request JSON buffer"}',
            Outcome.MODEL_ERROR,
            id="a-model-that-only-quotes-tritons-words-is-a-model-error",
        ),
        pytest.param(500, b'{"error":"CUDA out of memory"}', Outcome.MODEL_ERROR, id="model-error"),
        pytest.param(500, b"\xff\xfe", Outcome.MODEL_ERROR, id="no-text-at-all"),
    ],
)
def test_http_answers(status, body, outcome):
    assert judge_http(status, body) is outcome


@pytest.mark.parametrize(
    ("code", "message", "outcome"),
    [
        pytest.param("OK", "", Outcome.OK, id="ok"),
        pytest.param("UNAVAILABLE", "", Outcome.NEVER_RAN, id="unavailable-never-ran"),
        pytest.param(
            "NOT_FOUND", "Request for unknown model: 'm'", Outcome.NEVER_RAN, id="unknown-model"
        ),
        pytest.param("NOT_FOUND", "no such output", Outcome.CLIENT, id="another-not-found"),
        pytest.param("INVALID_ARGUMENT", "shape", Outcome.CLIENT, id="invalid-argument"),
        pytest.param("UNIMPLEMENTED", "", Outcome.CLIENT, id="unimplemented"),
        pytest.param("INTERNAL", "cuda", Outcome.MODEL_ERROR, id="internal"),
        pytest.param("UNKNOWN", "", Outcome.MODEL_ERROR, id="unknown"),
        pytest.param("DEADLINE_EXCEEDED", "", Outcome.TIMEOUT, id="deadline"),
        pytest.param("CANCELLED", "", Outcome.CANCELLED, id="cancelled"),
    ],
)
def test_grpc_answers(code, message, outcome):
    assert judge_grpc(code, message) is outcome


def test_every_reason_has_an_answer_in_both_protocols():
    assert set(ANSWERS) == set(DroppedReason)
    for answer in ANSWERS.values():
        assert 400 <= answer.http_status < 600
        assert answer.grpc_code.isupper()


@pytest.mark.parametrize(
    ("reason", "status", "code"),
    [
        (DroppedReason.SATURATED, 429, "RESOURCE_EXHAUSTED"),
        (DroppedReason.NO_WORKERS, 503, "UNAVAILABLE"),
        (DroppedReason.DEADLINE, 504, "DEADLINE_EXCEEDED"),
        (DroppedReason.UNKNOWN_MODEL, 404, "NOT_FOUND"),
    ],
)
def test_refusals_speak_both_protocols(reason, status, code):
    refusal = Refusal(reason, "text")
    assert (refusal.http_status, refusal.grpc_code) == (status, code)
