from dataclasses import replace

import pytest

from tidegate_api.names import RolloutReason
from tidegate_cli.core.explain import explain


def told(snapshot):
    return [*explain(snapshot, snapshot.rollout)]


def condition(kind, status, reason="R", message="m"):
    return {
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def test_a_running_step_tells_its_weight_and_what_comes_next(snapshot):
    assert told(snapshot()) == [
        "Progressing, step 2/4 (pause 2m), canary 5 %",
        "r2 has 5 %, step 1 asks for 5 %.",
        "Next is step 3, setWeight 50; at least 1m30s until step 4 waits for promote.",
    ]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (RolloutReason.PAUSED_BY_STEP, "`tidegate promote` ends it"),
        (RolloutReason.PAUSED_BY_USER, "`tidegate resume`"),
        (RolloutReason.NO_DATA, "goes on without data"),
        (RolloutReason.OUTAGE_NEEDS_CONFIRMATION, "accepts the outage"),
        (RolloutReason.AWAITING_DATA, "goes on by itself"),
    ],
)
def test_a_pause_says_since_when_and_what_ends_it(snapshot, reason, words):
    pause = {"reason": reason, "startTime": "2025-12-31T23:50:00Z"}
    line = told(snapshot({"phase": "Paused", "pauseConditions": [pause]}))[1]
    assert line.startswith(f"It stands still for 10m, {reason}: ")
    assert words in line


def test_a_pause_of_a_newer_operator_is_told_in_its_own_words(snapshot):
    pause = {"reason": "SolarFlare", "startTime": "?"}
    status = {"phase": "Paused", "pauseConditions": [pause], "message": "the sun is too bright"}
    assert told(snapshot(status))[1] == "It stands still, SolarFlare: the sun is too bright."


def test_a_weight_below_the_step_s_says_what_it_follows(snapshot):
    line = told(snapshot({"currentStepIndex": 2, "canaryWeight": 25}))[1]
    assert line == (
        "r2 has 25 %, step 3 asks for 50 %; a weight follows Ready workers and the routers'"
        " acknowledgement."
    )


def test_an_unverified_weight_names_the_router_that_is_missing(snapshot, pool):
    missing = condition("RouterSynced", "False", "RouterUnreachable", "router-1 is silent")
    status = pool.status.model_copy(
        update={"conditions": [type(pool.status.conditions[0]).model_validate(missing)]}
    )
    seen = replace(snapshot({"verifiedWeight": 0}), pool=pool.model_copy(update={"status": status}))
    lines = told(seen)
    assert "Not every router has acknowledged that: 0 % is verified." in lines
    assert "The pool's RouterSynced is False, RouterUnreachable: router-1 is silent." in lines


def test_a_table_that_differs_from_status_is_said(snapshot):
    lines = told(replace(snapshot(), published={"r1": 100}))
    assert "The RouteTable gives it 0 %" not in " ".join(lines), "it does not name r2 at all"
    lines = told(replace(snapshot(), published={"r1": 90, "r2": 10}))
    assert "The RouteTable gives it 10 %: one of the two is a moment older." in lines


def test_an_abort_is_told_once_with_the_revision_that_has_it_all(snapshot):
    lines = told(snapshot({"phase": "Degraded", "abortedRevision": "r2"}))
    assert "r2 has no weight: it was aborted, and r1 has it all." in lines
    assert not [line for line in lines if "asks for" in line]


def test_a_pin_tells_what_spec_asks_for(snapshot):
    status = {"phase": "Degraded", "pinnedRevision": "r0", "stableRevision": "r0"}
    lines = told(snapshot({**status, "canaryRevision": None}))
    assert "r0 serves since an undo, although spec asks for r2." in lines


@pytest.mark.parametrize("kind", ["Stalled", "Conflict", "InvalidSpec"])
def test_a_trouble_is_told_with_its_reason(snapshot, kind):
    lines = told(snapshot({"conditions": [condition(kind, "True", "Because", "of that")]}))
    assert f"{kind} is True, Because: of that." in lines


def test_a_missing_pool_is_told(snapshot):
    assert "Its pool vision does not exist." in told(replace(snapshot(), pool=None))


def test_the_last_step_is_followed_by_everything(snapshot):
    lines = told(snapshot({"currentStepIndex": 3}))
    assert lines[-1] == "Next it takes over everything; waits for promote at step 4."


def test_the_verdict_of_analysis_is_told(snapshot):
    analysis = {"verdict": "Pass", "message": "180 requests"}
    assert any(
        line.startswith("Analysis says Pass: 180 requests, 0 bad windows")
        for line in told(snapshot({"analysis": analysis}))
    )
