"""What became of each canary: the load generator's log joined with statuses and events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.rollout import ModelRolloutStatus
from tidegate_e2e.canarylog import (
    Event,
    Request,
    Trial,
    events_of,
    instant,
    parse_instant,
    report,
    requests_of,
    verdict,
)
from tidegate_e2e.loadgen import bodies, judge

OLD, BAD, GOOD = "11111111", "22222222", "33333333"
BEGAN_S = parse_instant("2026-01-01T00:00:10Z")


def status(**fields):
    return ModelRolloutStatus.model_validate(fields)


def window(start, end, result):
    at = "2026-01-01T00:00:"
    return {
        "step": 0,
        "startedAt": f"{at}{start:02}Z",
        "endedAt": f"{at}{end:02}Z",
        "verdict": result,
    }


def condition(kind, reason):
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


PROMOTED = status(
    phase="Healthy", askedRevision=GOOD, stableRevision=GOOD, conditions=[
        condition("Promoted", "Completed")
    ],
)  # fmt: skip
ABORTED = status(
    phase="Degraded", askedRevision=BAD, stableRevision=OLD, abortedRevision=BAD,
    conditions=[condition("Degraded", "AnalysisFailed")],
    analysis={"windows": [window(15, 20, "Pass"), window(20, 25, "Fail"), window(2, 7, "Fail")]},
)  # fmt: skip
MOVING = status(
    phase="Progressing", askedRevision=BAD, stableRevision=OLD, canaryRevision=BAD,
    canaryWeight=25, verifiedWeight=25,
)  # fmt: skip

VERDICTS = [
    ("the asked revision is stable", PROMOTED, "Promoted"),
    ("it is stable while the old one still drains",
     PROMOTED.model_copy(update={"phase": "Progressing"}), "Unsettled"),
    ("aborted and nothing is sent to it", ABORTED, "RolledBack"),
    ("aborted while routers still send",
     ABORTED.model_copy(update={"verified_weight": 25}), "Unsettled"),
    ("on its way", MOVING, "Unsettled"),
    ("nothing is known", status(), "Unsettled"),
    ("another revision was aborted before", MOVING.model_copy(
        update={"aborted_revision": OLD, "verified_weight": 0, "canary_weight": 0}), "Unsettled"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "expected"), [v[1:] for v in VERDICTS], ids=[v[0] for v in VERDICTS]
)
def test_a_status_tells_how_an_edit_ended(seen, expected):
    assert verdict(seen) == expected


def bad_trial(*seen):
    steps = seen or (MOVING, ABORTED)
    timed = [(BEGAN_S + 5 + 10 * index, item) for index, item in enumerate(steps)]
    return Trial(version="v3", began_s=BEGAN_S, seen=timed)


def test_a_rolled_back_canary_is_told_by_events_and_its_own_requests():
    events = [
        Event(BEGAN_S + 1, "TrafficWeightVerified", f"every live router sends 0 % to {BAD}"),
        Event(BEGAN_S + 5, "TrafficWeightVerified", f"every live router sends 25 % to {BAD}"),
        Event(BEGAN_S + 14.5, "TrafficWeightVerified", f"every live router sends 0 % to {BAD}"),
    ]
    requests = [
        Request(BEGAN_S + 6, "ok", BAD),
        Request(BEGAN_S + 7, "500 labelled", BAD),
        Request(BEGAN_S + 8, "ok", OLD),
    ]
    (row,) = report(requests, [bad_trial()], events)["rollouts"]
    assert row == {
        "version": "v3",
        "revision": BAD,
        "verdict": "RolledBack",
        "reason": "AnalysisFailed",
        "firstBadInterval": {
            "startedAt": "2026-01-01T00:00:20Z",
            "endedAt": "2026-01-01T00:00:25Z",
        },
        "weightZeroAt": "2026-01-01T00:00:24.500Z",
        "highestWeight": 25,
        "requests": 2,
        "failed": 1,
        "lastAnswerAt": "2026-01-01T00:00:17.000Z",
    }


def test_an_event_that_was_dropped_is_replaced_by_the_first_status_that_shows_it():
    (row,) = report([], [bad_trial()], [])["rollouts"]
    assert row["weightZeroAt"] == "2026-01-01T00:00:25.000Z"


def test_a_canary_that_never_started_has_no_time_of_weight_zero():
    never = ABORTED.model_copy(update={"analysis": status().analysis})
    (row,) = report([], [bad_trial(never)], [])["rollouts"]
    assert (row["weightZeroAt"], row["firstBadInterval"], row["highestWeight"]) == (None, None, 0)


def test_a_promoted_one_has_neither_a_bad_interval_nor_a_time_of_weight_zero():
    trial = Trial(version="v2", began_s=BEGAN_S, seen=[(BEGAN_S + 9, PROMOTED)])
    (row,) = report([], [trial], [])["rollouts"]
    assert (row["verdict"], row["reason"], row["weightZeroAt"]) == ("Promoted", "Completed", None)


BLAME = [
    ("by the canary under test", Request(BEGAN_S + 6, "500 x", BAD), 0),
    ("by stable", Request(BEGAN_S + 6, "500 x", OLD), 1),
    ("by nobody known", Request(BEGAN_S + 6, "ClientError()", ""), 1),
    ("by that revision before the edit", Request(BEGAN_S - 1, "500 x", BAD), 1),
]


@pytest.mark.parametrize(("request_", "counted"), [b[1:] for b in BLAME], ids=[b[0] for b in BLAME])
def test_a_failure_is_stables_unless_the_canary_under_test_gave_it(request_, counted):
    found = report([request_, Request(BEGAN_S, "ok", OLD)], [bad_trial()], [])
    assert (found["requests"], found["failed"], found["failedOnStable"]) == (2, 1, counted)


def test_a_failure_of_a_version_that_was_promoted_is_stables():
    trial = Trial(version="v2", began_s=BEGAN_S, seen=[(BEGAN_S + 9, PROMOTED)])
    found = report([Request(BEGAN_S + 5, "500 x", GOOD)], [trial], [])
    assert found["failedOnStable"] == 1


ENTRIES = st.lists(
    st.tuples(st.floats(0, 2e9), st.sampled_from(["ok", "500 x"]), st.sampled_from([OLD, BAD, ""]))
)


@given(ENTRIES)
def test_a_log_is_read_as_it_was_written_but_for_a_line_cut_off(entries):
    lines = [json.dumps({"at": a, "outcome": o, "revision": r}) for a, o, r in entries]
    found = requests_of("".join(f"{line}\n" for line in lines) + '{"at": 17')
    assert [(item.at_s, item.outcome, item.revision) for item in found] == entries


def test_events_are_read_with_their_finest_time_in_order():
    listed = {
        "items": [
            {"reason": "B", "message": "b", "firstTimestamp": "2026-01-01T00:00:11Z"},
            {"reason": "A", "message": "a", "eventTime": "2026-01-01T00:00:10.250000Z",
             "firstTimestamp": "2026-01-01T00:00:12Z"},
        ]
    }  # fmt: skip
    found = events_of(listed)
    assert [item.reason for item in found] == ["A", "B"]
    assert found[0].at_s == pytest.approx(BEGAN_S + 0.25)


@given(st.integers(0, 4_000_000_000_000))
def test_an_instant_survives_its_text_to_the_millisecond(milliseconds):
    assert round(parse_instant(instant(milliseconds / 1000)) * 1000) == milliseconds


ANSWERS = [
    ("a label", 200, '{"outputs": [{"name": "LABEL", "data": ["python"]}]}', "ok"),
    ("no label", 200, '{"outputs": [{"name": "SCORE", "data": [1]}]}', "no label"),
    ("no JSON", 200, "<html>", "no answer"),
    ("a list", 200, "[]", "no answer"),
    ("a refusal", 503, "no-workers", "503 no-workers"),
]


@pytest.mark.parametrize(
    ("code", "text", "expected"), [a[1:] for a in ANSWERS], ids=[a[0] for a in ANSWERS]
)
def test_an_answer_is_ok_only_with_a_label(code, text, expected):
    assert judge(code, text).startswith(expected)


def test_the_requests_hold_real_files():
    sent = [json.loads(body)["inputs"][0]["data"][0] for body in bodies()]
    assert len(sent) > 10
    assert all(isinstance(text, str) for text in sent)
