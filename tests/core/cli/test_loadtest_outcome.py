import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_cli.core.loadtest.outcome import Outcome, lost, of_code, of_status

REASON = "saturated"


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        pytest.param(200, "", Outcome.OK, id="200 is good"),
        pytest.param(204, "", Outcome.OK, id="every 2xx is good"),
        pytest.param(302, "", Outcome.ERROR, id="a redirect is no answer"),
        pytest.param(400, "", Outcome.CLIENT, id="400 is the client's fault"),
        pytest.param(404, REASON, Outcome.CLIENT, id="a reason makes no refusal of a 404"),
        pytest.param(429, REASON, Outcome.REFUSED, id="429 with a reason is a refusal"),
        pytest.param(503, REASON, Outcome.REFUSED, id="503 with a reason is a refusal"),
        pytest.param(429, "", Outcome.ERROR, id="429 without a reason is nobody's decision"),
        pytest.param(503, "", Outcome.ERROR, id="503 without a reason is an error"),
        pytest.param(504, REASON, Outcome.ERROR, id="504 is an error whatever it says"),
        pytest.param(500, "", Outcome.ERROR, id="500 is an error"),
    ],
)
def test_a_status_is_judged(status, reason, outcome):
    assert of_status(status, reason) is outcome


@pytest.mark.parametrize(
    ("code", "reason", "outcome"),
    [
        pytest.param("OK", "", Outcome.OK, id="OK is good"),
        pytest.param("INVALID_ARGUMENT", "", Outcome.CLIENT, id="the client's fault"),
        pytest.param("NOT_FOUND", REASON, Outcome.CLIENT, id="an unknown model"),
        pytest.param("RESOURCE_EXHAUSTED", REASON, Outcome.REFUSED, id="full, and said so"),
        pytest.param("UNAVAILABLE", REASON, Outcome.REFUSED, id="no workers, and said so"),
        pytest.param("UNAVAILABLE", "", Outcome.ERROR, id="a broken connection"),
        pytest.param("DEADLINE_EXCEEDED", "", Outcome.TIMEOUT, id="our own deadline"),
        pytest.param("INTERNAL", REASON, Outcome.ERROR, id="an error with a reason"),
    ],
)
def test_a_code_is_judged(code, reason, outcome):
    assert of_code(code, reason) is outcome


@pytest.mark.parametrize(
    ("client_meant", "refused_meant", "expected"),
    [
        pytest.param(False, False, 1234567, id="all but good ones are lost"),
        pytest.param(True, False, 1234567 - 20, id="bad requests sent on purpose are not lost"),
        pytest.param(False, True, 1234567 - 300, id="refusals above capacity are not lost"),
        pytest.param(True, True, 1234567 - 320, id="both"),
    ],
)
def test_lost_is_what_the_run_did_not_mean(client_meant, refused_meant, expected):
    counts = {
        Outcome.OK: 9_999_999, Outcome.CLIENT: 20, Outcome.REFUSED: 300, Outcome.ERROR: 7,
        Outcome.WRONG: 40, Outcome.TIMEOUT: 4200, Outcome.RESET: 30_000, Outcome.CONNECT: 1_200_000,
    }  # fmt: skip
    assert lost(counts, client_meant=client_meant, refused_meant=refused_meant) == expected


@given(st.integers(min_value=100, max_value=599), st.text(max_size=5))
def test_only_a_2xx_is_good(status, reason):
    assert (of_status(status, reason) is Outcome.OK) == (200 <= status < 300)
