"""kill -9 before any write of a rollout changes neither its end nor the weights (tier S)."""

import os

import pytest

STRIDE = int(os.environ.get("TIDEGATE_TEST_KILL_STRIDE", "5"))  # 1: before every write


def outcome(one):
    """What must be equal whatever happened on the way."""
    status = one.rollout
    return (
        status.phase, status.stable_revision, status.aborted_revision, status.canary_revision,
        one.shares(), sorted(one.deployments), len(one.uids),
    )  # fmt: skip


def run(steered, make, story, dies_at, bad=""):
    one = steered(raw=make.pool(replicas=2, drain={"timeout": "20s"}))
    steps = [{"setWeight": 20}, {"pause": {"duration": "4s"}}, {"setWeight": 50}]
    analysis = {
        "interval": "2s", "initialDelay": "0s", "minRequests": 20, "successRate": {"min": 0.99},
    }  # fmt: skip
    one.add_rollout(steps=steps, analysis=analysis, scaleDownDelay="3s", **story.get("spec", {}))
    one.dies_at = dies_at
    one.run(20)
    one.edit_rollout(template=one.model(2))
    one.errors[bad] = story.get("errors", 0.0)
    for _ in range(70):
        one.tick()
        weights = one.weights()
        assert sum(weights.values()) == 100, weights
        if one.rollout.aborted_revision and one.rollout.verified_weight == 0:
            assert weights.get(one.rollout.aborted_revision, 0) == 0
    return one


STORIES = {"promotion": {}, "rollback": {"errors": 0.2}}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.timeout(120)
def test_the_end_is_the_same_wherever_it_was_killed(steered, make, story):
    asked = run(steered, make, story, None).rollout.asked_revision
    undisturbed = run(steered, make, story, None, asked)
    expected = outcome(undisturbed)
    assert expected[0] == ("Degraded" if story else "Healthy")
    assert undisturbed.writes >= 30
    for point in range(1, undisturbed.writes + 1, STRIDE):
        assert outcome(run(steered, make, story, point, asked)) == expected, (
            f"killed at write {point}"
        )
