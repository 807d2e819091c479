"""What status says, what a new operator reads back, and the picture of the states."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.names import RolloutCondition, RolloutReason
from tidegate_api.rollout import ModelRolloutSpec, ModelRolloutStatus
from tidegate_operator.core.rollout.kstatus import (
    CONDITIONS,
    conflict_status,
    invalid_status,
    missing_pool_status,
)
from tidegate_operator.core.rollout.model import Policy, Progress, State
from tidegate_operator.core.rollout.persist import progress_of, remembered, status_of
from tidegate_operator.core.rollout.picture import picture, redraw
from tidegate_operator.core.rollout.policy import resolve
from tidegate_operator.core.rollout.transitions import TARGETS, TRANSITIONS, Trigger

ROOT = Path(__file__).parents[4]
GONE = None


def conditions(status):
    return {item.type: item.status for item in status.conditions}


@pytest.mark.parametrize(
    ("reach", "phase", "expected"),
    [
        (
            State.STARTING,
            "Progressing",
            {"Ready": "False", "Reconciling": "True", "Stalled": GONE, "Promoted": "False"},
        ),
        (
            State.HOLDING,
            "Progressing",
            {"Ready": "False", "Reconciling": "True", "Stalled": GONE, "Paused": "False"},
        ),
        (
            State.PAUSED,
            "Paused",
            {
                "Ready": "True",
                "Reconciling": GONE,
                "Stalled": GONE,
                "Paused": "True",
                "Promoted": "False",
            },
        ),
    ],
    ids=["starting", "a timed pause", "a pause without end is Ready and not Reconciling"],
)
def test_conditions_on_the_way(canary, reach, phase, expected):
    status = canary(reach).status
    found = conditions(status)
    assert {key: found.get(key) for key in expected} == expected
    assert status.phase == phase


def test_a_user_pause_reads_as_paused(canary):
    world = canary()
    world.paused = True
    world.tick()
    found = conditions(world.status)
    assert (found["Ready"], found["Paused"], found.get("Reconciling")) == ("True", "True", None)
    assert [item.reason for item in world.status.pause_conditions] == ["PausedByUser"]
    started = world.status.pause_conditions[0].start_time
    world.tick(30.0)
    assert world.status.pause_conditions[0].start_time == started


def test_aborted_is_stalled_and_degraded(canary):
    world = canary()
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    found = conditions(world.status)
    assert (found["Ready"], found["Stalled"], found["Degraded"]) == ("False", "True", "True")
    assert found.get("Reconciling") is None
    assert world.status.phase == "Degraded"


def test_pinned_says_both_revisions(canary):
    world = canary(State.PAUSED, scale_down_delay_s=0.0)
    world.verb("promote-full", "r2")
    world.until(State.HEALTHY)
    world.verb("undo", "r1@2026-01-01T00:00:00Z")
    world.until(State.PINNED)
    world.tick()
    pinned = next(item for item in world.status.conditions if item.type == "Pinned")
    assert pinned.status == "True"
    assert pinned.message == "spec asks r2, serving r1"
    assert world.status.phase == "Degraded"


def test_promoted_is_true_as_soon_as_every_router_acknowledged(canary):
    world = canary(State.PAUSED)
    world.verb("promote-full", "r2")
    world.until(State.SCALING_DOWN)
    found = conditions(world.status)
    assert (found["Ready"], found["Promoted"], found["Completed"]) == ("True", "True", "True")
    assert found.get("Reconciling") is None
    assert world.status.phase == "Healthy"


def test_promoted_is_false_in_the_write_that_starts_a_canary(make_world):
    world = make_world()
    world.tick()
    assert conditions(world.status)["Promoted"] == "True"
    world.edit("r2")
    world.tick()
    assert conditions(world.status)["Promoted"] == "False"


def test_a_stuck_canary_is_stalled_with_the_schedulers_words(make_world):
    world = make_world(progress_deadline_s=20.0)
    world.tick()
    world.no_room = True
    world.edit("r2")
    for _ in range(25):
        world.tick()
    stalled = next(item for item in world.status.conditions if item.type == "Stalled")
    assert stalled.reason == "InsufficientAccelerator"
    assert "nvidia.com/gpu" in stalled.message


def test_without_any_ready_worker_it_is_not_available(make_world):
    world = make_world()
    world.slow = True
    world.lose("r1")
    world.tick()
    found = conditions(world.status)
    assert (found["Available"], found["Ready"]) == ("False", "False")


def test_status_is_not_written_while_nothing_happens(canary):
    world = canary(State.PAUSED)
    world.tick()
    before = world.status.to_wire()
    for _ in range(100):
        world.tick()
    assert world.status.to_wire() == before


def test_every_condition_bears_the_generation(canary):
    assert {item.observed_generation for item in canary().status.conditions} == {1}


def test_the_message_says_step_and_weight(canary):
    assert canary().status.message.startswith("step 2/4: 5 % to r2: pause until 20")


def test_a_rollout_of_a_pool_that_has_one_is_in_conflict():
    status = conflict_status(ModelRolloutStatus(), 3, "older", 1e9)
    found = conditions(status)
    assert (found["Conflict"], found["Ready"], found["Stalled"]) == ("True", "False", "True")
    assert "older" in status.message


def test_a_rollout_without_pool_says_so_and_forgets_nothing(canary):
    before = canary().status
    status = missing_pool_status(before, 1, "vision", 1e9)
    assert conditions(status)["Ready"] == "False"
    assert "vision does not exist" in status.message
    assert progress_of(status).reason is progress_of(before).reason
    assert progress_of(status).step_index == progress_of(before).step_index


def test_a_broken_spec_is_told_and_the_memory_stays(canary):
    before = canary().status
    status = invalid_status(before, 2, "models: no model named x", 1e9)
    found = conditions(status)
    assert (found["InvalidSpec"], found["Stalled"], found.get("Reconciling")) == (
        "True",
        "True",
        None,
    )
    assert progress_of(status).canary == "r2"
    assert progress_of(status).reason is progress_of(before).reason


SECONDS = st.integers(0, 4_000_000_000).map(float)
NAMES = st.none() | st.text("abcdef0123456789", min_size=1, max_size=8)


@given(
    progress=st.builds(
        Progress,
        state=st.sampled_from(State),
        since_s=SECONDS,
        step_index=st.integers(0, 50),
        step_since_s=SECONDS,
        step_hash=st.sampled_from(["", "0a1b2c3d"]),
        progressed_s=SECONDS,
        ready_workers=st.integers(0, 1000),
        stable=NAMES,
        canary=NAMES,
        asked=NAMES,
        weight=st.integers(0, 100),
        verified=st.integers(0, 100),
        failed_checks=st.integers(0, 100),
        aborted=NAMES,
        pinned=NAMES,
        message=st.text(max_size=50),
        strategy=st.sampled_from(["Surge", "TerminateFirst", "InPlace"]),
        strategy_message=st.text(max_size=50),
        handled=st.dictionaries(
            st.sampled_from(["tidegate.dev/promote", "tidegate.dev/undo"]), st.text(max_size=99)
        ),
        reason=st.just(RolloutReason.COMPLETED),
    )
)
@settings(max_examples=200, deadline=None)
def test_what_is_remembered_is_read_back(progress):
    status = remembered(Policy(), progress, ModelRolloutStatus())
    assert progress_of(status_of(status.to_wire())) == progress


@given(
    text=st.text(max_size=40)
    | st.sampled_from(["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:00", "2026-W01-1"])
)
@settings(max_examples=300, deadline=None)
def test_no_instant_breaks_reading(text):
    wire = {"state": "Holding", "stateSince": text, "stepStartedAt": text, "progressedAt": text}
    progress = progress_of(status_of(wire))
    again = status_of(remembered(Policy(), progress, ModelRolloutStatus()).to_wire())
    assert progress_of(again).since_s == pytest.approx(progress.since_s, abs=1e-3)


@pytest.mark.parametrize(
    "document",
    [None, [], "x", {"state": 3}, {"state": "Unheard"}, {"canaryWeight": 900}, {"conditions": 1}],
    ids=repr,
)
def test_a_status_that_cannot_be_read_counts_as_lost(document):
    assert progress_of(status_of(document)).stable is None


def test_a_spec_becomes_numbers():
    spec = ModelRolloutSpec.model_validate(
        {
            "poolRef": {"name": "vision"},
            "steps": [{"setWeight": 5}, {"pause": {"duration": "1m30s"}}, {"pause": {}}],
            "analysis": {
                "interval": "5s",
                "successRate": {"min": 0.99},
                "p95Latency": {"max": "200ms", "maxRatioToStable": 1.25},
                "prometheus": [{"name": "gpu", "query": "up", "max": 1}],
            },
            "progressDeadline": "5m",
            "rollbackWindow": {"revisions": 3},
        }
    )
    policy = resolve(spec)
    assert [(step.weight, step.pause_s) for step in policy.steps] == [
        (5, None),
        (None, 90.0),
        (None, None),
    ]
    plan = policy.analysis
    assert (plan.interval_s, plan.max_p95_s, plan.min_success_rate) == (5.0, 0.2, 0.99)
    assert (policy.progress_deadline_s, policy.rollback_window) == (300.0, 3)
    assert plan.prometheus[0].max == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ([{"pause": {"duration": "60s"}}], [{"pause": {"duration": "1m"}}], True),
        ([{"pause": {}}], [{"pause": {"duration": "1m"}}], False),
        ([{"setWeight": 5}], [{"setWeight": 6}], False),
    ],
    ids=["the same time in other words", "a pause that ends", "another weight"],
)
def test_steps_are_the_same_when_they_mean_the_same(one, other, same):
    hashes = [
        resolve(ModelRolloutSpec.model_validate({"poolRef": {"name": "a"}, "steps": steps}))
        for steps in (one, other)
    ]
    assert (hashes[0].step_hash == hashes[1].step_hash) is same
    assert len(hashes[0].step_hash) <= 16


def test_every_trigger_has_one_target_per_state():
    pairs = [(state, row.trigger) for row in TRANSITIONS for state in row.states]
    assert len(pairs) == len(set(pairs)) == len(TARGETS)
    assert {trigger for _, trigger in pairs} == set(Trigger)


def test_every_state_can_be_reached_and_left():
    assert {row.target for row in TRANSITIONS} == set(State)
    assert {state for state, _ in TARGETS} == set(State)


def test_the_picture_names_every_state():
    drawn = picture()
    assert all(re.search(rf"\b{state}\b", drawn) for state in State)


def test_a_page_without_the_block_is_refused():
    with pytest.raises(ValueError, match="no block"):
        redraw("# Rollouts")


def test_the_page_shows_the_states_as_they_are():
    page = (ROOT / "docs/rollouts.md").read_text("utf-8")
    assert redraw(page) == page


def test_conditions_of_the_api_are_all_judged_or_told():
    told = {RolloutCondition.CONFLICT, RolloutCondition.INVALID_SPEC}
    assert set(CONDITIONS) | told == set(RolloutCondition)
