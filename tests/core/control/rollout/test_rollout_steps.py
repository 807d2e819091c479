"""Steps, weights, pauses and promotion as Argo Rollouts' users expect them."""

import pytest

from tidegate_api.names import RolloutReason
from tidegate_operator.core.rollout.model import State, StepPlan
from tidegate_operator.core.rollout.view import capable, needed


def test_the_first_deploy_takes_everything_without_steps(make_world):
    world = make_world(stable=None)
    world.edit("r1")
    outcome = world.tick()
    assert outcome.progress.state is State.FIRST_DEPLOY
    assert outcome.weights == {"r1": 100}
    assert outcome.scale == {"r1": {"a10g": 4}}
    assert world.until(State.HEALTHY) is State.HEALTHY
    assert world.progress.step_index == len(world.policy.steps)


def test_an_edit_of_a_first_deploy_that_never_was_ready_needs_no_canary(make_world):
    world = make_world(stable=None)
    world.edit("r1")
    world.broken.add("r1")
    world.tick()
    world.edit("r2")
    outcome = world.tick()
    assert outcome.progress.stable == "r2"
    assert outcome.scale == {"r2": {"a10g": 4}}
    assert outcome.weights == {"r2": 100}


def test_an_edit_of_a_first_deploy_with_ready_workers_is_a_canary(make_world):
    world = make_world(stable=None)
    world.edit("r1")
    world.slow = True
    world.tick()
    world.ready["r1"] = {"a10g": 1}
    world.edit("r2")
    outcome = world.tick()
    assert outcome.progress.stable == "r1"
    assert outcome.progress.canary == "r2"


def test_a_pool_of_no_workers_takes_a_new_revision_at_once(make_world):
    world = make_world(counts={"a10g": 0})
    world.tick()
    world.edit("r2")
    outcome = world.tick()
    assert outcome.progress.state is State.HEALTHY
    assert outcome.weights == {"r2": 100}


def test_a_canary_that_has_weight_is_not_promoted_by_scaling_to_zero(canary):
    world = canary()
    world.counts = {"a10g": 0}
    world.tick()
    assert world.progress.stable == "r1"


@pytest.mark.parametrize(
    ("counts", "weight", "expected"),
    [
        ({"a10g": 4}, 5, {"a10g": 1}),
        ({"a10g": 4}, 50, {"a10g": 2}),
        ({"a10g": 10}, 33, {"a10g": 4}),
        ({"a10g": 4, "cpu": 20}, 25, {"a10g": 1, "cpu": 5}),
        ({"a10g": 4, "cpu": 0}, 25, {"a10g": 1}),
        ({"a10g": 3}, 0, {"a10g": 1}),
        ({"a10g": 3}, 100, {"a10g": 3}),
        ({"a10g": -1}, 100, {}),
    ],
    ids=[
        "at least one worker",
        "half of four is two",
        "a part of a worker is a worker",
        "each class by itself",
        "none where the pool runs none",
        "weight 0 has a worker all the same",
        "everything",
        "a negative count is none",
    ],
)
def test_workers_for_a_weight(counts, weight, expected):
    assert needed(counts, weight) == expected


@pytest.mark.parametrize(
    ("ready", "expected"),
    [({"a": 2, "b": 2}, 50), ({"a": 1, "b": 2}, 37), ({"a": 9, "b": 0}, 25), ({}, 0)],
    ids=["all are there", "three of four", "one class cannot stand in for another", "none"],
)
def test_only_ready_workers_carry_weight(ready, expected):
    assert capable({"a": 2, "b": 2}, ready, 50) == expected


def test_a_canary_gets_no_weight_before_its_workers_are_ready(make_world):
    world = make_world()
    world.tick()
    world.slow = True
    world.edit("r2")
    for _ in range(5):
        outcome = world.tick()
        assert outcome.weights == {"r1": 100}
        assert outcome.scale == {"r1": {"a10g": 4}, "r2": {"a10g": 1}}
    world.bring_up("r2")
    assert world.tick().weights == {"r1": 95, "r2": 5}


def test_it_waits_for_ready_workers_in_every_class(make_world):
    world = make_world(counts={"a10g": 4, "cpu": 4})
    world.tick()
    world.slow = True
    world.edit("r2")
    world.tick()
    world.ready["r2"] = {"a10g": 1, "cpu": 0}
    assert world.tick().progress.state is State.STARTING
    world.ready["r2"] = {"a10g": 1, "cpu": 1}
    assert world.tick().progress.state is State.SHIFTING


def test_a_step_is_not_done_before_every_router_acknowledged(make_world):
    world = make_world()
    world.tick()
    world.edit("r2")
    world.routers_answer = False
    for _ in range(30):
        outcome = world.tick()
    assert outcome.progress.state is State.SHIFTING
    assert outcome.progress.verified == 0
    world.routers_answer = True
    world.tick()
    outcome = world.tick()
    assert outcome.progress.state is State.HOLDING
    assert outcome.progress.verified == 5


def test_a_weight_never_rises_while_the_one_before_is_not_acknowledged(canary):
    world = canary()
    world.routers_answer = False
    world.acknowledged = {}
    for _ in range(20):
        outcome = world.tick()
        assert outcome.weights == {"r1": 95, "r2": 5}
    assert outcome.progress.state is State.SHIFTING or outcome.progress.step_index >= 1


def test_a_timed_pause_ends_by_itself(canary):
    world = canary()
    assert world.progress.step_index == 1
    for _ in range(9):
        world.tick()
    assert world.progress.step_index == 1
    world.tick()
    assert world.progress.step_index == 2


def test_a_pause_without_duration_waits_for_promote(canary):
    world = canary(State.PAUSED)
    for _ in range(2000):
        world.tick()
    assert world.state is State.PAUSED
    assert world.progress.reason is RolloutReason.PAUSED_BY_STEP
    world.verb("promote", "r2/3")
    world.tick()
    assert world.state is State.PROMOTING


def test_a_first_step_that_is_a_pause_waits_with_a_ready_worker_and_no_weight(make_world):
    world = make_world(steps=(StepPlan(), StepPlan(weight=100)))
    world.tick()
    world.edit("r2")
    world.until(State.PAUSED)
    assert world.outcome.weights == {"r1": 100}
    assert world.outcome.scale["r2"] == {"a10g": 1}
    world.verb("promote", "r2/0")
    assert world.until(State.HEALTHY) is State.HEALTHY


def test_without_steps_it_is_promoted_once_everything_is_ready(make_world, kinds):
    world = make_world(steps=())
    world.tick()
    world.slow = True
    world.edit("r2")
    assert world.tick().scale["r2"] == {"a10g": 4}
    world.ready["r2"] = {"a10g": 3}
    assert world.tick().weights == {"r1": 100}
    world.ready["r2"] = {"a10g": 4}
    assert world.tick().weights == {"r2": 100}
    assert "RolloutCompleted" in kinds(world.tick())


def test_after_the_last_step_the_old_workers_stay_for_scale_down_delay(canary):
    world = canary(State.PAUSED, scale_down_delay_s=30.0)
    world.verb("promote-full", "r2")
    world.until(State.SCALING_DOWN)
    for _ in range(29):
        outcome = world.tick()
        assert outcome.scale == {"r2": {"a10g": 4}, "r1": {"a10g": 4}}
        assert outcome.weights == {"r2": 100}
    outcome = world.tick()
    assert outcome.progress.state is State.HEALTHY
    assert outcome.scale == {"r2": {"a10g": 4}}


def test_promotion_waits_for_all_workers_at_the_weight_reached(canary):
    world = canary(State.PAUSED)
    world.slow = True
    world.verb("promote", "r2/3")
    for _ in range(5):
        outcome = world.tick()
        assert outcome.progress.state is State.PROMOTING
        assert outcome.weights == {"r1": 50, "r2": 50}
        assert outcome.scale["r2"] == {"a10g": 4}
    world.bring_up("r2")
    assert world.tick().weights == {"r2": 100}


def test_a_lost_worker_takes_its_part_of_the_weight_at_once(canary):
    world = canary(State.PAUSED)
    world.slow = True
    world.ready["r2"] = {"a10g": 1}
    assert world.tick().weights == {"r1": 75, "r2": 25}
    world.ready["r2"] = {"a10g": 0}
    assert world.tick().weights == {"r1": 100}
    world.bring_up("r2")
    assert world.tick().weights == {"r1": 50, "r2": 50}
    assert world.state is State.PAUSED


def test_a_worker_lost_during_a_timed_pause_makes_the_weight_be_verified_again(canary):
    world = canary()
    world.slow = True
    world.lose("r2")
    assert world.tick().progress.state is State.SHIFTING
    for _ in range(20):
        world.tick()
    assert world.progress.step_index == 1
    world.slow = False
    world.until(State.HOLDING)
    assert world.progress.step_index == 1


def test_the_canary_serves_alone_while_stable_has_no_ready_worker(canary):
    world = canary(State.PAUSED)
    world.slow = True
    world.lose("r1")
    assert world.tick().weights == {"r2": 100}
    for _ in range(20):
        world.tick()
    assert world.progress.stable == "r1"
    world.bring_up("r1")
    assert world.tick().weights == {"r1": 50, "r2": 50}


def test_steps_go_on_although_stable_is_broken(canary):
    world = canary(progress_deadline_s=30.0)
    world.broken.add("r1")
    world.lose("r1")
    world.until(State.PAUSED)
    assert world.published == {"r2": 100}
    assert world.progress.stable == "r1"
    world.verb("promote", "r2/3")
    assert world.until(State.HEALTHY) is State.HEALTHY


def test_a_user_pause_stops_steps_and_increases(canary):
    world = canary()
    world.paused = True
    for _ in range(100):
        outcome = world.tick()
    assert outcome.weights == {"r1": 95, "r2": 5}
    assert outcome.progress.step_index == 1
    assert outcome.progress.reason is RolloutReason.PAUSED_BY_USER


def test_a_user_pause_starts_no_workers(make_world):
    world = make_world()
    world.tick()
    world.paused = True
    world.edit("r2")
    for _ in range(3):
        outcome = world.tick()
        assert not sum(outcome.scale.get("r2", {}).values())
    world.paused = False
    assert world.tick().scale["r2"] == {"a10g": 1}


def test_a_user_pause_lets_weight_go_down(canary):
    world = canary()
    world.paused = True
    world.slow = True
    world.lose("r2")
    assert world.tick().weights == {"r1": 100}


def test_the_deadline_does_not_run_during_a_user_pause(canary):
    world = canary(progress_deadline_s=50.0)
    world.paused = True
    for _ in range(200):
        world.tick()
    world.paused = False
    world.tick()
    assert world.progress.aborted is None


def test_promote_full_skips_steps_but_not_readiness(canary):
    world = canary()
    world.slow = True
    world.verb("promote-full", "r2")
    for _ in range(5):
        assert world.tick().weights == {"r1": 95, "r2": 5}
    assert world.outcome.scale["r2"] == {"a10g": 4}
    world.bring_up("r2")
    assert world.tick().weights == {"r2": 100}


def test_dynamic_stable_scale_shrinks_stable_after_the_weight_is_verified(canary):
    world = canary(
        State.SHIFTING, dynamic_stable_scale=True, steps=(StepPlan(weight=50), StepPlan())
    )
    assert world.outcome.scale["r1"] == {"a10g": 4}
    world.until(State.PAUSED)
    assert world.outcome.scale["r1"] == {"a10g": 2}


def test_dynamic_stable_scale_is_off_by_default(canary):
    world = canary(State.PAUSED)
    assert world.outcome.scale["r1"] == {"a10g": 4}


def test_each_weight_and_step_is_told_once(make_world):
    world = make_world()
    world.tick()
    world.edit("r2")
    told = []
    for _ in range(40):
        world.tick()
        told.extend(f"{note.reason.value} {note.message}" for note in world.notes)
    assert len(told) == len(set(told))
    assert [line.split(" ", 1)[0] for line in told] == [
        "RolloutUpdated",
        "TrafficWeightUpdated",
        "TrafficWeightVerified",
        "RolloutStepCompleted",
        "RolloutStepCompleted",
        "TrafficWeightUpdated",
        "TrafficWeightVerified",
        "RolloutStepCompleted",
        "RolloutPaused",
    ]
