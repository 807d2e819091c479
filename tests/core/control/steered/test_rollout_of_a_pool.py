"""Whole rollouts of a pool on the production core: from an edit to the last old worker's end."""

import json

import pytest

WEIGHT_STEPS = [20, 50, 100]


def canary_shares(one, canary):
    """Return the canary's published weights in order, repetitions left out."""
    shares = [weights.get(canary, 0) for weights in one.history]
    return [share for at, share in enumerate(shares) if at == 0 or share != shares[at - 1]]


def test_the_first_deploy_skips_the_steps(rolled):
    assert rolled.rollout.phase == "Healthy"
    assert rolled.shares() == {rolled.rollout.stable_revision: 100}
    assert rolled.told("Promoted") == ("True", "Completed")
    assert rolled.condition("Ready") == ("True", "AsDesired")
    assert rolled.status["rollout"]["name"] == "vision"


def test_a_rollout_that_comes_before_the_first_worker_is_not_promoted_yet(steered, make):
    one = steered(raw=make.pool(replicas=2))
    one.tick()
    assert one.shares(), "the table names the revision before any worker is Ready"
    one.add_rollout(steps=[])
    one.tick()
    assert one.told("Promoted") == ("False", "FirstDeploy")
    one.until("Healthy")
    assert one.told("Promoted")[0] == "True"


def test_an_edit_goes_step_by_step_and_ends_with_one_set(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    assert rolled.told("Promoted")[0] == "False"
    assert rolled.condition("Ready") == ("True", "AsDesired")
    rolled.until("Healthy")
    second = rolled.rollout.stable_revision
    assert second == rolled.rollout.asked_revision != first
    assert [s for s in canary_shares(rolled, second) if s] == WEIGHT_STEPS
    rolled.run(30)
    assert len(rolled.deployments) == 1
    assert len(rolled.pods) == 4
    assert rolled.status["stableRevision"] == second


def test_stable_keeps_its_size_and_the_canary_has_its_share_of_workers(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    while rolled.rollout.verified_weight != 50:
        rolled.tick()
        assert rolled.ready_of(first) == 4
    assert rolled.ready_of(rolled.rollout.canary_revision) == 2
    assert rolled.status["replicas"] == 4, "the surge does not count: an HPA would ratchet"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param({"errors": 0.1}, "success", id="ten-percent-errors"),
        pytest.param({"slow": 1.0}, "p95", id="five-times-slower"),
    ],
)
def test_a_bad_canary_is_aborted_and_stays_so(rolled, fault, words):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    canary = rolled.rollout.canary_revision
    for name, value in fault.items():
        getattr(rolled, name)[canary] = value
    rolled.until("Degraded")
    assert rolled.shares() == {first: 100}
    assert rolled.rollout.aborted_revision == canary
    assert rolled.told("Stalled") == ("True", "AnalysisFailed")
    rolled.run(30)
    assert rolled.rollout.phase == "Degraded"
    assert rolled.ready_of(canary) == 0
    assert words in json.dumps([note.message for note in rolled.notes])
    assert rolled.rollout.analysis.windows[-1].verdict == "Fail"
    assert words in rolled.rollout.analysis.message
    assert rolled.condition("Ready") == ("True", "AsDesired"), "the pool is as good as before"
    record = rolled.revisions[f"vision-{canary}"]["metadata"]
    assert record["annotations"] == {"tidegate.dev/aborted": "true"}


def test_an_aborted_revision_stays_aborted_without_its_status(rolled):
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    canary = rolled.rollout.canary_revision
    rolled.errors[canary] = 0.5
    rolled.until("Degraded")
    rolled.statuses.clear()
    rolled.status = {}
    rolled.history.clear()
    rolled.run(20, forget=True)
    assert rolled.rollout.phase == "Degraded"
    assert all(canary not in weights for weights in rolled.history)
    assert canary not in rolled.shares()


def test_retry_tries_the_aborted_revision_again(rolled):
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    canary = rolled.rollout.canary_revision
    rolled.errors[canary] = 0.5
    rolled.until("Degraded")
    rolled.errors.clear()
    rolled.annotate("retry", canary)
    rolled.until("Healthy")
    assert rolled.rollout.stable_revision == canary
    assert not rolled.revisions[f"vision-{canary}"]["metadata"].get("annotations")


def test_another_edit_leaves_an_abort_behind(rolled):
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    rolled.errors[rolled.rollout.canary_revision] = 0.5
    rolled.until("Degraded")
    rolled.edit_rollout(template=rolled.model(3))
    rolled.until("Healthy")
    assert rolled.rollout.stable_revision == rolled.rollout.asked_revision


def test_a_revert_in_the_middle_goes_back_at_once(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    while rolled.rollout.verified_weight != 20:
        rolled.tick()
    rolled.edit_rollout(template={})
    rolled.tick()
    assert rolled.shares() == {first: 100}
    rolled.until("Healthy")
    rolled.run(30)
    assert len(rolled.deployments) == 1


def test_a_worker_that_cannot_load_ends_the_rollout_before_any_request(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    rolled.tick()
    rolled.broken.add(rolled.rollout.canary_revision)
    rolled.pod_facts = {"unschedulable_message": "0/1 nodes are available: no nvidia.com/gpu"}
    rolled.run(30)
    assert rolled.rollout.phase == "Progressing"
    assert "available" in rolled.rollout.message
    assert rolled.shares() == {first: 100}


def test_a_paused_pool_or_rollout_begins_nothing(rolled):
    rolled.edit_rollout(template=rolled.model(2), paused=True)
    rolled.run(20)
    assert len(rolled.deployments) == 1
    rolled.edit_rollout(paused=False)
    rolled.until("Healthy")


def test_a_template_that_does_not_fit_is_told_and_stable_serves_on(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template={"models": [{"name": "nobody", "maxBatchSize": 2}]})
    rolled.run(10)
    assert rolled.told("InvalidSpec") == ("True", "InvalidSpec")
    assert rolled.shares() == {first: 100}
    rolled.edit_rollout(template={})
    rolled.until("Healthy")
    assert rolled.told("InvalidSpec") is None


def test_the_older_of_two_rollouts_is_in_charge(rolled):
    rolled.add_rollout("younger", template=rolled.model(9))
    rolled.run(5)
    assert rolled.told("Conflict", "younger") == ("True", "PoolHasRollout")
    assert rolled.rollout.phase == "Healthy"
    assert len(rolled.deployments) == 1


def test_a_deleted_rollout_leaves_the_stable_revision_until_the_template_changes(rolled, make):
    rolled.edit_rollout(template=rolled.model(2))
    rolled.until("Healthy")
    second = rolled.rollout.stable_revision
    rolled.rollouts.clear()
    rolled.run(20)
    assert rolled.condition("TemplateOverridden") == ("True", "RolloutDeleted")
    assert rolled.shares() == {second: 100}
    assert rolled.status["stableRevision"] == second
    rolled.edit(template=make.template(uri="https://models.example/resnet50/5"))
    rolled.run(40)
    assert rolled.condition("TemplateOverridden") is None
    assert rolled.status["stableRevision"] != second
    assert rolled.condition("Ready") == ("True", "AsDesired")


def test_a_rollout_deleted_in_the_middle_gives_all_requests_to_stable(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    while rolled.rollout.verified_weight != 50:
        rolled.tick()
    rolled.rollouts.clear()
    rolled.tick()
    assert rolled.shares() == {first: 100}
    rolled.run(40)
    assert len(rolled.deployments) == 1


def test_undo_serves_the_older_revision_and_says_so(rolled):
    first = rolled.rollout.stable_revision
    rolled.edit_rollout(template=rolled.model(2))
    rolled.until("Healthy")
    rolled.annotate("undo", f"{first}@2026-01-03T00:00:00Z")
    rolled.until("Degraded")
    assert rolled.shares() == {first: 100}
    assert rolled.told("Pinned")[0] == "True"
    rolled.run(30)
    assert len(rolled.pods) == 4


def test_a_restart_renders_the_same_revision_anew_without_losing_a_worker(rolled, make):
    first, before = rolled.rollout.stable_revision, rolled.uids
    newer = make.replace(rolled.settings, worker_image="registry.example/worker:2")
    rolled.settings = newer
    rolled.run(5)
    assert rolled.uids == before, "a new operator restarts nothing"
    rolled.annotate("restartedAt", "2026-02-01T00:00:00Z")
    for _ in range(40):
        rolled.tick()
        assert rolled.ready_of(first) >= 4
    assert not rolled.uids & before
    assert rolled.rollout.phase == "Healthy"
    (only,) = rolled.deployments.values()
    image = only["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "registry.example/worker:2"
    after = rolled.uids
    del rolled.rollouts["vision"]["metadata"]["annotations"]["tidegate.dev/restartedAt"]
    rolled.run(10)
    assert rolled.uids == after, "taking the annotation away restarts nothing"
