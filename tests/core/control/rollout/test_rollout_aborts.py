"""What ends a canary, what brings it back, and what a kill -9 must not change."""

import itertools
from dataclasses import replace

import pytest

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.machine import advance
from tidegate_operator.core.rollout.model import (
    Assessment,
    Policy,
    Progress,
    Sight,
    State,
    StepPlan,
    Track,
)
from tidegate_operator.core.rollout.persist import status_of

BAD = {"bad": True, "message": "p95 312 ms > 200 ms: 41 of 180 attempts above it"}
GATED = (StepPlan(weight=5), StepPlan())
STEPPED = (StepPlan(weight=5), StepPlan(pause_s=10.0), StepPlan())
WITH_WEIGHT = [State.SHIFTING, State.HOLDING, State.PAUSED]


@pytest.mark.parametrize("state", WITH_WEIGHT)
def test_a_bad_verdict_takes_all_weight_at_once_in_every_state(canary, kinds, state):
    steps = {State.PAUSED: GATED}.get(state, STEPPED)
    world = canary(state, analysis={"starting_step": 0}, steps=steps)
    world.say(**BAD)
    outcome = world.tick()
    assert outcome.weights == {"r1": 100}
    assert outcome.progress.state is State.ABORTING
    assert outcome.mark_aborted == "r2"
    assert {"RolloutAborted", "AnalysisRunFailed"} <= set(kinds(outcome))
    assert any("312 ms" in note.message for note in outcome.notes)


def test_a_bad_verdict_while_everything_is_promoted_aborts(make_world):
    world = make_world(analysis={}, steps=(StepPlan(weight=5), StepPlan()))
    world.tick()
    world.edit("r2")
    world.until(State.PAUSED)
    world.slow = True
    world.verb("promote", "r2/1")
    world.until(State.PROMOTING)
    world.say(**BAD)
    assert world.tick().weights == {"r1": 100}


def test_failure_limit_bad_windows_are_tolerated_per_step(canary):
    world = canary(State.PAUSED, analysis={"failure_limit": 2}, steps=GATED)
    for expected in (1, 2):
        world.say(**BAD)
        assert world.tick().progress.failed_checks == expected
        assert world.state is State.PAUSED
    world.say(**BAD)
    assert world.tick().progress.state is State.ABORTING


def test_dry_run_tells_and_changes_nothing(canary, kinds):
    world = canary(State.PAUSED, analysis={"dry_run": True}, steps=GATED)
    world.say(**BAD)
    outcome = world.tick()
    assert outcome.progress.state is State.PAUSED
    assert outcome.progress.failed_checks == 0
    assert kinds(outcome) == ["AnalysisRunFailed"]


def test_steps_before_starting_step_are_not_judged(canary):
    world = canary(State.PAUSED, analysis={"starting_step": 9}, steps=GATED)
    world.say(**BAD)
    assert world.tick().progress.state is State.PAUSED


def test_without_automatic_rollback_a_bad_verdict_pauses(canary):
    world = canary(analysis={}, automatic_rollback=False)
    world.say(**BAD)
    outcome = world.tick()
    assert outcome.progress.state is State.PAUSED
    assert outcome.progress.reason is RolloutReason.ANALYSIS_FAILED
    assert outcome.weights == {"r1": 95, "r2": 5}
    assert "312 ms" in outcome.progress.message
    assert "312 ms" in world.tick().progress.message
    world.verb("promote", f"r2/{world.progress.step_index}")
    assert world.tick().progress.state is State.STARTING


def test_a_step_waits_for_a_whole_good_window(canary):
    world = canary(analysis={})
    for _ in range(300):
        world.tick()
    assert world.progress.step_index == 1
    assert world.progress.reason is RolloutReason.AWAITING_DATA
    world.say(passed=True)
    assert world.tick().progress.step_index == 2


def test_a_pass_counts_for_the_step_it_was_made_in_only(canary):
    steps = (StepPlan(weight=5), StepPlan(pause_s=1.0), StepPlan(pause_s=0.0), StepPlan(weight=50))
    world = canary(analysis={}, steps=steps)
    world.tick(5.0)
    world.say(passed=True)
    assert world.tick().progress.step_index == 2


@pytest.mark.parametrize(
    ("on_no_data", "rollback", "expected"),
    [
        ("Pass", True, State.STARTING),
        ("Pause", True, State.PAUSED),
        ("Fail", True, State.ABORTING),
        ("Fail", False, State.PAUSED),
    ],
    ids=["Pass goes on", "Pause waits for promote", "Fail aborts", "Fail without rollback waits"],
)
def test_a_step_without_data(canary, on_no_data, rollback, expected):
    world = canary(analysis={"on_no_data": on_no_data}, automatic_rollback=rollback)
    world.tick(60.0)
    world.say(data_missing=True)
    assert world.tick().progress.state is expected


def test_the_abort_verb_takes_weight_at_once_and_keeps_stable_whole(canary):
    world = canary()
    world.verb("abort", "r2")
    outcome = world.tick()
    assert outcome.weights == {"r1": 100}
    assert outcome.scale["r1"] == {"a10g": 4}
    assert world.until(State.ABORTED) is State.ABORTED
    assert world.progress.reason is RolloutReason.ABORTED_BY_USER


def test_an_abort_is_told_in_every_later_look(canary):
    world = canary(analysis={})
    world.say(**BAD)
    world.tick()
    world.until(State.ABORTED)
    for _ in range(5):
        assert "312 ms" in world.tick().progress.message


def test_an_abort_is_sticky(canary):
    world = canary()
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    for _ in range(2000):
        assert world.tick().weights == {"r1": 100}
    assert world.state is State.ABORTED


def test_aborted_workers_leave_after_scale_down_delay(canary):
    world = canary(scale_down_delay_s=20.0)
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    assert world.outcome.scale["r2"] == {"a10g": 1}
    for _ in range(21):
        world.tick()
    assert "r2" not in world.outcome.scale


def test_a_routers_guard_aborts_for_good(canary):
    world = canary()
    world.local_aborts = {"r2": "router-0: 9 of 20 attempts failed"}
    outcome = world.tick()
    assert outcome.progress.reason is RolloutReason.LOCAL_ABORT
    assert outcome.weights == {"r1": 100}
    assert outcome.mark_aborted == "r2"


def test_a_canary_that_cannot_start_is_aborted_after_ten_seconds(make_world):
    world = make_world()
    world.tick()
    world.broken.add("r2")
    world.failing["r2"] = world.now_s
    world.edit("r2")
    world.tick()
    for _ in range(9):
        world.tick()
        assert world.state is State.STARTING
    assert world.tick(2.0).progress.reason is RolloutReason.CANARY_CANNOT_START


def test_a_failure_with_weight_waits_for_the_interval(canary):
    world = canary(State.PAUSED, analysis={"interval_s": 30.0}, steps=GATED)
    world.failing["r2"] = world.now_s
    world.tick(29.0)
    assert world.state is State.PAUSED
    world.tick(1.0)
    assert world.state is State.ABORTING


def test_the_deadline_with_weight_aborts(canary):
    world = canary(State.HOLDING, progress_deadline_s=100.0)
    world.slow = True
    world.until(State.STARTING)
    for _ in range(99):
        world.tick()
    assert world.state is State.STARTING
    outcome = world.tick(2.0)
    assert outcome.progress.reason is RolloutReason.PROGRESS_DEADLINE_EXCEEDED
    assert outcome.weights == {"r1": 100}


def test_the_deadline_without_weight_stalls_and_leaves_stable_alone(make_world):
    world = make_world(progress_deadline_s=100.0)
    world.tick()
    world.slow = True
    world.edit("r2")
    for _ in range(102):
        outcome = world.tick()
    assert outcome.deadline_exceeded
    assert outcome.progress.state is State.STARTING
    assert outcome.weights == {"r1": 100}
    world.slow = False
    world.tick()
    assert not world.tick().deadline_exceeded


def test_one_more_ready_worker_is_progress(make_world):
    world = make_world(progress_deadline_s=100.0, steps=())
    world.tick()
    world.slow = True
    world.edit("r2")
    world.tick()
    world.tick(90.0)
    world.ready["r2"] = {"a10g": 1}
    world.tick(5.0)
    assert not world.tick(90.0).deadline_exceeded
    assert world.tick(20.0).deadline_exceeded


def test_a_long_timed_pause_is_no_lack_of_progress(canary):
    world = canary(progress_deadline_s=60.0, steps=(StepPlan(weight=5), StepPlan(pause_s=3600.0)))
    for _ in range(350):
        assert not world.tick(10.0).deadline_exceeded


def test_retry_begins_at_step_0_once_the_mark_is_gone(canary):
    world = canary()
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    world.verb("retry", "r2")
    outcome = world.tick()
    assert outcome.unmark_aborted == "r2"
    assert outcome.weights == {"r1": 100}
    outcome = world.tick()
    assert outcome.progress.step_index == 0
    assert outcome.progress.aborted is None
    assert world.until(State.PAUSED) is State.PAUSED


def test_the_same_verb_acts_again_with_another_time(canary):
    world = canary()
    for at in ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"):
        world.verb("abort", f"r2@{at}")
        world.until(State.ABORTED)
        world.verb("retry", f"r2@{at}")
        world.until(State.HOLDING)
    assert world.progress.aborted is None


def test_an_edit_leaves_aborted_and_forgets_the_mark(canary):
    world = canary()
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    world.edit("r3")
    outcome = world.tick()
    assert outcome.progress.canary == "r3"
    assert outcome.unmark_aborted == "r2"
    world.edit("r2")
    assert world.until(State.HOLDING) is State.HOLDING


def test_going_back_to_stable_needs_no_steps(canary):
    world = canary(State.PAUSED)
    world.edit("r1")
    outcome = world.tick()
    assert outcome.progress.state is State.HEALTHY
    assert outcome.weights == {"r1": 100}
    assert outcome.scale == {"r1": {"a10g": 4}}


def test_an_edit_on_the_way_begins_at_step_0_against_the_same_stable(canary):
    world = canary(State.PAUSED)
    world.edit("r3")
    outcome = world.tick()
    assert outcome.weights == {"r1": 100}
    assert outcome.scale == {"r1": {"a10g": 4}, "r3": {"a10g": 1}}
    assert outcome.progress.stable == "r1"
    assert outcome.progress.step_index == 0


def test_other_steps_begin_again_with_the_same_canary(canary):
    world = canary(State.PAUSED)
    world.policy = replace(world.policy, steps=(StepPlan(weight=80),), step_hash="h2")
    outcome = world.tick()
    assert outcome.progress.step_index == 0
    assert outcome.weights == {"r1": 100}
    assert outcome.progress.canary == "r2"


def test_rollback_window_skips_steps_but_not_readiness(make_world):
    world = make_world(rollback_window=1, stable="r3")
    world.kept = ["r1", "r2", "r3"]
    world.tick()
    world.edit("r1")
    assert world.tick().progress.step_index == 0
    world.edit("r2")
    outcome = world.tick()
    assert outcome.progress.step_index == len(world.policy.steps)
    assert outcome.weights == {"r3": 100}
    assert outcome.scale["r2"] == {"a10g": 4}
    assert world.tick().weights == {"r2": 100}


def test_undo_to_a_warm_revision_moves_everything_in_one_look(canary):
    world = canary(State.PAUSED, scale_down_delay_s=600.0)
    world.verb("promote-full", "r2")
    world.until(State.SCALING_DOWN)
    world.verb("undo", "r1@2026-01-01T00:00:00Z")
    assert world.tick().weights == {"r1": 100}
    outcome = world.tick()
    assert outcome.progress.state is State.PINNED
    assert outcome.progress.stable == "r1"
    assert outcome.mark_aborted == "r2"


def test_undo_stays_until_retry_or_an_edit(canary):
    world = canary(State.PAUSED, scale_down_delay_s=0.0)
    world.verb("promote-full", "r2")
    world.until(State.HEALTHY)
    world.verb("undo", "r1@2026-01-01T00:00:00Z")
    world.until(State.PINNED)
    for _ in range(500):
        world.tick()
    assert world.state is State.PINNED
    world.verb("retry", "r2")
    world.until(State.PAUSED)
    assert (world.progress.stable, world.progress.canary) == ("r1", "r2")


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        ("promote", "r9/1"),
        ("promote", "r2/0"),
        ("promote", "nonsense"),
        ("promote-full", "r1"),
        ("abort", "r1"),
        ("retry", "r2"),
        ("undo", "r1@2026-01-01T00:00:00Z"),
        ("undo", "r9@2026-01-01T00:00:00Z"),
        ("undo", "r2@2026-01-01T00:00:00Z"),
        ("abort", "x" * 5000),
    ],
    ids=[
        "promote of another revision",
        "promote of a step that is done",
        "promote of nothing",
        "promote-full of stable",
        "abort of stable",
        "retry of what is not aborted",
        "undo to stable",
        "undo to a revision that is not kept",
        "undo to the canary",
        "a value longer than status keeps",
    ],
)
def test_a_verb_that_fits_nothing_is_refused_once(canary, kinds, verb, value):
    world = canary()
    world.verb(verb, value)
    before = world.progress
    assert kinds(world.tick()) == ["VerbIgnored"]
    assert kinds(world.tick()) == []
    assert world.progress.state is before.state


def test_a_verb_acts_once(make_world):
    world = make_world(steps=(StepPlan(weight=5), StepPlan(), StepPlan()))
    world.tick()
    world.edit("r2")
    world.until(State.PAUSED)
    world.verb("promote", "r2/1")
    for _ in range(20):
        world.tick()
    assert world.progress.step_index == 2


def test_a_promote_that_comes_too_early_waits_for_the_weight(make_world):
    world = make_world(steps=(StepPlan(weight=5), StepPlan()), analysis={})
    world.tick()
    world.edit("r2")
    world.verb("promote", "r2/0")
    world.slow = True
    world.tick()
    assert world.progress.handled == {}
    world.slow = False
    world.until(State.PAUSED)
    assert world.progress.step_index == 1


@pytest.mark.parametrize("writes", range(5))
@pytest.mark.parametrize("table_first", [True, False])
@pytest.mark.parametrize("kill_at", range(12))
def test_a_lost_write_changes_no_end(make_world, violations, writes, table_first, kill_at):
    world = make_world(analysis={}, steps=(StepPlan(weight=5), StepPlan(pause_s=1.0)))
    world.tick()
    world.edit("r2")
    for tick in itertools.count():
        if world.state is State.HEALTHY and world.progress.stable == "r2":
            break
        assert tick < 100, world.progress
        sight, outcome = world.decide()
        assert violations(world, sight, world.progress, outcome) == []
        world.say(passed=True)
        world.tick(table_first=table_first, writes=writes if tick == kill_at else 9)


@pytest.mark.parametrize("writes", range(1, 5))
@pytest.mark.parametrize("table_first", [True, False])
def test_an_abort_whose_status_was_lost_is_still_an_abort(canary, writes, table_first):
    world = canary(analysis={})
    world.say(**BAD)
    world.tick(table_first=table_first, writes=writes)
    for _ in range(5):
        assert world.tick().weights == {"r1": 100}
    assert world.until(State.ABORTED) is State.ABORTED


def test_a_restore_without_status_keeps_an_abort(canary):
    world = canary()
    world.verb("abort", "r2")
    world.until(State.ABORTED)
    world.status = status_of({})
    assert world.tick().weights == {"r1": 100}
    assert world.until(State.ABORTED) is State.ABORTED
    assert world.progress.aborted == "r2"


def test_a_restore_without_status_begins_a_canary_again(canary):
    world = canary(State.PAUSED)
    world.status = status_of({})
    outcome = world.tick()
    assert outcome.progress.stable == "r1"
    assert outcome.progress.canary == "r2"
    assert outcome.progress.step_index == 0
    assert outcome.weights == {"r1": 95, "r2": 5}


def test_a_restore_without_status_ignores_old_verbs(canary):
    world = canary(State.PAUSED, scale_down_delay_s=0.0)
    world.verb("promote-full", "r2")
    world.until(State.HEALTHY)
    world.verbs = {"tidegate.dev/undo": "r1@2020-01-01T00:00:00Z"}
    world.status = status_of({})
    for _ in range(10):
        assert world.tick().weights == {"r2": 100}


def test_a_restore_of_nothing_but_a_table_takes_the_heaviest_as_stable(make_world):
    world = make_world()
    world.was_stable = None
    world.kept = ["r1", "r2"]
    world.published = world.acknowledged = {"r1": 80, "r2": 20}
    world.asked = "r2"
    assert world.tick().progress.stable == "r1"


def test_garbage_in_raises_nothing():
    for state in State:
        before = Progress(state=state, stable="x", canary="y", asked="z", step_index=-7)
        sight = Sight(
            now_s=-1.0,
            asked="",
            counts={"a": -3},
            tracks={"x": Track(ready={"a": -1})},
            assessment=Assessment(bad=True, passed=True, data_missing=True),
            published={"x": 5, "q": 900},
        )
        outcome = advance(Policy(steps=(StepPlan(),)), sight, before)
        assert sum(outcome.weights.values()) in {0, 100}
