import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.rollout import ModelRollout
from tidegate_cli.core import progress
from tidegate_cli.core.documents import instant_s, rfc3339, span
from tidegate_cli.core.progress import EXIT_CODES, judge


def condition(kind, status):
    return {
        "type": kind, "status": status, "reason": "R", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


PROMOTED = [condition("Promoted", "True")]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({"phase": "Healthy", "conditions": PROMOTED}, 0, id="healthy and promoted"),
        pytest.param({"phase": "Degraded"}, 1, id="degraded"),
        pytest.param(
            {"phase": "Progressing", "conditions": [condition("Stalled", "True")]}, 1,
            id="stalled, whatever its phase says",
        ),
        pytest.param({"phase": "Progressing"}, 3, id="progressing"),
        pytest.param({"phase": "Paused"}, 3, id="paused"),
        pytest.param({}, 3, id="an operator has said no phase"),
        pytest.param(
            {"phase": "Healthy", "conditions": PROMOTED, "observedGeneration": 2}, 3,
            id="healthy before the last edit was seen",
        ),
        pytest.param(
            {"phase": "Degraded", "observedGeneration": 2}, 3,
            id="degraded before the last edit was seen: the edit may be the remedy",
        ),
        pytest.param(
            {"phase": "Healthy", "conditions": [condition("Promoted", "False")]}, 3,
            id="healthy, yet not promoted",
        ),
    ],
)  # fmt: skip
def test_the_exit_code_of_status(rollout, status, expected):
    found = rollout({"phase": None, **status})
    assert EXIT_CODES[judge(found)] == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"currentStepIndex": 0}, "step 1/4 (setWeight 5)"),
        ({"currentStepIndex": 1}, "step 2/4 (pause 2m)"),
        ({"currentStepIndex": 3}, "step 4/4 (pause until promote)"),
        ({"currentStepIndex": 4}, "all 4 steps done"),
        ({"currentStepIndex": 9}, "all 4 steps done"),
        ({"currentStepIndex": None}, ""),
    ],
)
def test_the_step_counts_from_one(rollout, status, expected):
    assert progress.step(rollout(status)) == expected


def test_the_summary_tells_phase_step_weight_and_message(rollout):
    found = rollout({"verifiedWeight": 0, "message": "waits for router router-1"})
    assert progress.summary(found) == (
        "Progressing, step 2/4 (pause 2m), canary 5 % (routers acknowledged 0 %)"
        " - waits for router router-1"
    )


def test_the_summary_of_an_edit_that_nobody_saw_claims_nothing(rollout):
    found = rollout({"observedGeneration": 2, "phase": "Healthy"})
    assert "yet to see the last edit" in progress.summary(found)


@pytest.mark.parametrize(
    ("status", "spec", "expected"),
    [
        pytest.param({}, {}, "at least 1m30s until step 4 waits for promote", id="before a gate"),
        pytest.param({"currentStepIndex": 3}, {}, "waits for promote at step 4", id="at a gate"),
        pytest.param(
            {}, {"steps": [{"setWeight": 5}, {"pause": {"duration": "2m"}}]},
            "at least 1m30s to go", id="timed steps to the end",
        ),
        pytest.param(
            {"stepStartedAt": None}, {"steps": [{"setWeight": 5}, {"pause": {"duration": "2m"}}]},
            "at least 2m to go", id="a step whose start is unknown counts whole",
        ),
        pytest.param(
            {"currentStepIndex": 0, "stepStartedAt": None},
            {"steps": [{"setWeight": 5}, {"setWeight": 50}],
             "analysis": {"interval": "20s", "initialDelay": "5s"}},
            "at least 50s to go", id="weights that wait for an interval of analysis",
        ),
        pytest.param(
            {"currentStepIndex": 0, "stepStartedAt": None},
            {"steps": [{"setWeight": 5}, {"setWeight": 50}],
             "analysis": {"interval": "20s", "initialDelay": "5s", "startingStep": 1}},
            "at least 25s to go", id="steps before startingStep wait for nothing",
        ),
    ],
)  # fmt: skip
def test_the_eta_is_the_time_of_the_steps_that_are_left(rollout, now_s, status, spec, expected):
    assert str(progress.eta(rollout(status, **spec), now_s)) == expected


@pytest.mark.parametrize("status", [{"phase": "Degraded"}, {"canaryRevision": None}])
def test_there_is_no_eta_where_nothing_is_under_way(rollout, now_s, status):
    assert progress.eta(rollout(status), now_s) is None


@given(now_s=st.floats(min_value=0, max_value=4e9))
def test_the_eta_is_never_negative_whatever_the_clocks_say(now_s):
    document = {
        "metadata": {"name": "r"},
        "spec": {"poolRef": {"name": "p"}, "steps": [{"pause": {"duration": "2m"}}]},
        "status": {
            "phase": "Progressing", "canaryRevision": "r2", "currentStepIndex": 0,
            "stepStartedAt": "2026-01-01T00:00:00Z",
        },
    }  # fmt: skip
    left = progress.eta(ModelRollout.model_validate(document), now_s)
    assert 0 <= left.left_s <= 120


def test_analysis_tells_the_numbers_of_the_newest_window(rollout):
    check = {
        "name": "p95Latency", "verdict": "Fail", "requests": 180, "bad": 41, "value": 0.312,
        "limit": 0.2, "message": "p95 312 ms > 200 ms",
    }  # fmt: skip
    window = {"step": 1, "startedAt": "2025-12-31T23:59:00Z", "verdict": "Fail", "checks": [check]}
    older = {"step": 0, "startedAt": "2025-12-31T23:00:00Z", "verdict": "Pass"}
    status = {"analysis": {"verdict": "Fail", "windows": [older, window]}, "failedChecks": 1}
    found = rollout(status, analysis={"failureLimit": 2})
    assert [*progress.analysis(found)] == [
        "Fail, 1 bad windows of 2 tolerated in this step",
        "window of step 2, open: Fail",
        (
            "  p95Latency Fail: 0.312 (limit 0.2), 41 of 180 requests beyond the limit:"
            " p95 312 ms > 200 ms"
        ),
    ]


def test_no_analysis_tells_nothing(rollout):
    assert [*progress.analysis(rollout())] == []


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0s"), (0, "0s"), (59.4, "59s"), (60, "1m"), (150, "2m30s"), (3600, "1h"),
     (11_100, "3h5m"), (86_400, "1d"), (187_200, "2d4h")],
)  # fmt: skip
def test_a_span_has_at_most_two_units(seconds, expected):
    assert span(seconds) == expected


@given(seconds=st.integers(min_value=0, max_value=4_000_000_000))
def test_an_instant_survives_its_text(seconds):
    assert instant_s(rfc3339(seconds)) == seconds


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_instant_is_none(text):
    assert instant_s(text) is None
