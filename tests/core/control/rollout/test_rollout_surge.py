"""How a canary gets its workers: beside stable's, in their place, or inside them."""

import pytest

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.model import State, StepPlan

ONE_STEP = (StepPlan(weight=50), StepPlan())


def test_auto_runs_workers_beside_stables_where_there_is_room(canary):
    world = canary(surge="Auto")
    assert world.progress.strategy == "Surge"
    assert world.outcome.scale == {"r1": {"a10g": 4}, "r2": {"a10g": 1}}


def test_auto_without_room_goes_in_place_where_possible_and_says_why(make_world, kinds):
    world = make_world(surge="Auto")
    world.tick()
    world.no_room, world.obstacle = True, ""
    world.edit("r2")
    world.tick()
    outcome = world.tick()
    assert outcome.progress.strategy == "InPlace"
    assert "nvidia.com/gpu" in outcome.progress.strategy_message
    assert "SurgeChosen" in kinds(outcome)
    assert outcome.scale == {"r1": {"a10g": 4}}


def test_auto_without_room_and_without_in_place_waits_and_leaves_stable_alone(make_world):
    world = make_world(surge="Auto", progress_deadline_s=100.0)
    world.tick()
    world.no_room = True
    world.edit("r2")
    for _ in range(90):
        outcome = world.tick()
        assert outcome.scale["r1"] == {"a10g": 4}
        assert outcome.weights == {"r1": 100}
    assert outcome.progress.reason is RolloutReason.INSUFFICIENT_ACCELERATOR
    assert "nvidia.com/gpu" in outcome.waiting_for_capacity
    assert not outcome.deadline_exceeded
    for _ in range(20):
        outcome = world.tick()
    assert outcome.deadline_exceeded
    assert outcome.progress.state is State.STARTING


def test_auto_never_picks_terminate_first(make_world):
    world = make_world(surge="Auto")
    world.tick()
    world.no_room = True
    world.edit("r2")
    for _ in range(2000):
        world.tick()
    assert world.progress.strategy == "Surge"


def test_in_place_that_is_not_possible_stalls_at_once_and_names_the_field(make_world):
    world = make_world(surge="InPlace")
    world.tick()
    world.obstacle = "template.image"
    world.edit("r2")
    outcome = world.tick()
    assert outcome.deadline_exceeded
    assert outcome.progress.reason is RolloutReason.IN_PLACE_NOT_POSSIBLE
    assert "template.image" in outcome.progress.message
    assert outcome.weights == {"r1": 100}
    assert "r2" not in outcome.scale


def test_in_place_counts_readiness_inside_stables_workers(make_world):
    world = make_world(surge="InPlace", steps=ONE_STEP)
    world.tick()
    world.obstacle = ""
    world.edit("r2")
    world.tick()
    assert world.state is State.STARTING
    world.replicas["r2"], world.ready["r2"] = {}, {"a10g": 4}
    world.slow = True
    sight, outcome = world.decide()
    assert outcome.weights == {"r1": 50, "r2": 50}
    assert sight.tracks["r2"].ready_total == 4


def test_terminate_first_starts_the_canary_in_stables_place(make_world):
    world = make_world(surge="TerminateFirst", steps=ONE_STEP)
    world.tick()
    world.edit("r2")
    outcome = world.tick()
    assert outcome.scale["r1"] == {"a10g": 2}
    assert outcome.scale["r2"] == {"a10g": 0}
    outcome = world.tick()
    assert outcome.scale == {"r1": {"a10g": 2}, "r2": {"a10g": 2}}
    assert world.until(State.PAUSED) is State.PAUSED
    assert world.outcome.weights == {"r1": 50, "r2": 50}


@pytest.mark.parametrize("steps", [ONE_STEP, ()], ids=["with steps", "without steps"])
def test_terminate_first_with_one_worker_asks_before_the_outage(make_world, steps):
    world = make_world(surge="TerminateFirst", steps=steps, counts={"a10g": 1})
    world.tick()
    world.edit("r2")
    for _ in range(100):
        outcome = world.tick()
        assert outcome.scale == {"r1": {"a10g": 1}}
        assert outcome.weights == {"r1": 100}
    assert outcome.progress.reason is RolloutReason.OUTAGE_NEEDS_CONFIRMATION
    world.verb("promote", "r2/0")
    outcome = world.tick()
    assert outcome.scale["r1"] == {"a10g": 0}


def test_after_the_confirmation_the_canary_takes_over(make_world):
    world = make_world(surge="TerminateFirst", steps=(), counts={"a10g": 1})
    world.tick()
    world.edit("r2")
    world.tick()
    world.verb("promote-full", "r2")
    world.until(State.HEALTHY)
    assert world.published == {"r2": 100}


def test_an_abort_under_terminate_first_gives_the_workers_back_at_once(make_world):
    world = make_world(surge="TerminateFirst", steps=ONE_STEP)
    world.tick()
    world.edit("r2")
    world.until(State.PAUSED)
    world.verb("abort", "r2")
    outcome = world.tick()
    assert outcome.weights == {"r1": 100}
    assert outcome.scale == {"r1": {"a10g": 4}}


def test_under_dynamic_stable_scale_an_abort_moves_weight_as_stable_comes_back(canary):
    world = canary(State.PAUSED, dynamic_stable_scale=True, steps=ONE_STEP)
    world.tick()
    assert world.replicas["r1"] == {"a10g": 2}
    world.slow = True
    world.verb("abort", "r2")
    outcome = world.tick()
    assert outcome.scale["r1"] == {"a10g": 4}
    assert outcome.weights == {"r1": 50, "r2": 50}
    world.ready["r1"] = {"a10g": 3}
    assert world.tick().weights == {"r1": 75, "r2": 25}
    world.bring_up("r1")
    assert world.tick().weights == {"r1": 100}
    assert world.until(State.ABORTED) is State.ABORTED


def test_a_bad_canary_does_not_wait_for_stable_for_ever(canary):
    world = canary(
        State.PAUSED, dynamic_stable_scale=True, steps=ONE_STEP, progress_deadline_s=100.0
    )
    world.tick()
    world.slow = True
    world.verb("abort", "r2")
    for _ in range(102):
        outcome = world.tick()
    assert outcome.weights == {"r1": 100}


def test_undo_without_room_under_terminate_first_makes_room(make_world):
    world = make_world(surge="TerminateFirst", steps=ONE_STEP, scale_down_delay_s=0.0)
    world.tick()
    world.edit("r2")
    world.until(State.PAUSED)
    world.verb("promote-full", "r2")
    world.until(State.HEALTHY)
    world.no_room = True
    world.verb("undo", "r1@2026-01-01T00:00:00Z")
    world.tick()
    assert world.tick().progress.strategy == "TerminateFirst"
