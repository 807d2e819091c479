"""ModelRollouts on the real cluster, with real Triton, two routers and live requests (tier K)."""

import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest

from tidegate_e2e.access import until
from tidegate_e2e.load import Load, by_revision, outcomes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

ROLLOUT = "modelrollouts.tidegate.dev/knobs"
POOL = "inferencepools.tidegate.dev/knobs"
BODY = json.dumps(
    {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
)


@pytest.fixture
def knobs(release, namespace):
    """Pool and rollout `knobs`, their first revision Ready."""
    shell = release.into(namespace.namespace)
    shell.kubectl("apply", "-f", "e2e/manifests/rollout.yaml")
    shell.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=120s")
    shell.kubectl("wait", "--for=condition=Promoted", ROLLOUT, "--timeout=30s")
    return shell


@asynccontextmanager
async def traffic(shell, router):
    """Live requests; no answer may be anything but right, except by a canary under test."""
    load = Load(
        f"http://{router.http}/v2/models/knobs/infer",
        BODY,
        {"x-tidegate-pool": f"{shell.namespace}/knobs"},
        expected=[1.0, 2.0],
        pause_s=0.01,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(clients=4))  # as many as two workers take at once
        try:
            yield load
        finally:
            load.stop()


def edit(shell, **env: str) -> None:
    """Change what the rollout's template sets, as an edit of its manifest would."""
    pairs = [{"name": name, "value": value} for name, value in env.items()]
    patch = {"spec": {"template": {"pod": {"env": pairs}}}}
    shell.kubectl("patch", ROLLOUT, "--type=merge", "-p", json.dumps(patch))


def status(shell) -> dict:
    return shell.get(ROLLOUT).get("status", {})


def condition(shell, kind: str) -> dict:
    found = status(shell).get("conditions", [])
    return next((item for item in found if item["type"] == kind), {})


def settled_on(shell, phase: str, before: str) -> dict:
    """Return the status once the phase is reached for another revision than `before`."""

    def look():
        seen = status(shell)
        known = shell.get(ROLLOUT)["metadata"]["generation"]
        fresh = seen.get("observedGeneration") == known and seen.get("askedRevision") != before
        moving = phase != "Paused" and seen.get("verifiedWeight", 0) != 0
        return seen if fresh and seen.get("phase") == phase and not moving else None

    try:
        return until(look, timeout_s=90, what=f"phase {phase}")
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {json.dumps(status(shell))[:3000]}") from error


async def begin(shell, phase: str, **env: str) -> dict:
    before = status(shell)["askedRevision"]
    await asyncio.to_thread(edit, shell, **env)
    return await asyncio.to_thread(settled_on, shell, phase, before)


async def test_a_good_edit_is_promoted_and_bad_ones_roll_back_under_load(knobs, router):
    first = status(knobs)["stableRevision"]
    async with traffic(knobs, router) as load:
        promoted = await begin(knobs, "Healthy", VERSION="2")
        second = promoted["stableRevision"]
        assert second != first
        assert outcomes(load.log).keys() == {"ok"}
        assert by_revision(load.log)[second] > 0
        for cause in (
            {"DELAY_MS": "400"}, {"FAIL_PERCENT": "10"}, {"BROKEN": "1"}, {"CRASH_AFTER": "40"},
        ):  # fmt: skip
            began_s = time.time()
            rolled_back = await begin(knobs, "Degraded", VERSION="3", **cause)
            bad = rolled_back["abortedRevision"]
            assert rolled_back["stableRevision"] == second
            assert rolled_back["verifiedWeight"] == 0
            assert condition(knobs, "Stalled")["status"] == "True"
            of_others = [a for a in load.since(began_s) if a.revision != bad]
            assert outcomes(of_others).keys() == {"ok"}, (cause, outcomes(of_others))
    reasons = {event["reason"] for event in knobs.get("events")["items"]}
    assert {
        "RolloutUpdated", "TrafficWeightUpdated", "RolloutStepCompleted", "RolloutCompleted",
        "RolloutAborted", "AnalysisRunFailed",
    } <= reasons  # fmt: skip


async def test_wrong_answers_under_a_mirror_roll_back_without_a_single_wrong_answer(knobs, router):
    spec = {
        "mirror": {"percent": 100},
        "steps": [{"setWeight": 0}, {"pause": {"duration": "6s"}}, {"setWeight": 50}],
        "analysis": {"shadow": {"maxDisagreement": 0.01}, "onNoData": "Pause"},
    }
    knobs.kubectl("patch", ROLLOUT, "--type=merge", "-p", json.dumps({"spec": spec}))
    async with traffic(knobs, router) as load:
        rolled_back = await begin(knobs, "Degraded", SIGN="-1")
        assert outcomes(load.log).keys() == {"ok"}
    assert "shadow" in json.dumps(rolled_back)


async def test_verbs_pause_promote_abort_retry_and_undo(knobs, router):
    steps = {"spec": {"steps": [{"setWeight": 50}, {"pause": {}}], "analysis": None}}
    knobs.kubectl("patch", ROLLOUT, "--type=merge", "-p", json.dumps(steps))
    first = status(knobs)["stableRevision"]
    async with traffic(knobs, router) as load:
        paused = await begin(knobs, "Paused", VERSION="2")
        canary, step = paused["canaryRevision"], paused["currentStepIndex"]
        assert paused["verifiedWeight"] == 50
        assert condition(knobs, "Ready")["reason"] == "PausedByStep"
        assert condition(knobs, "Promoted")["status"] == "False"
        await verb(knobs, "abort", canary)
        aborted = await reached(knobs, "Degraded")
        assert aborted["stableRevision"] == first
        await verb(knobs, "retry", canary)
        paused = await reached(knobs, "Paused")
        await verb(knobs, "promote", f"{canary}/{paused['currentStepIndex']}")
        await asyncio.to_thread(
            knobs.kubectl, "wait", "--for=condition=Promoted", ROLLOUT, "--timeout=60s"
        )
        await reached(knobs, "Healthy")
        assert status(knobs)["stableRevision"] == canary
        undo_at_s = time.time()
        await verb(knobs, "undo", f"{first}@2026-01-01T00:00:00Z")
        pinned = await reached(knobs, "Degraded")
        assert pinned["stableRevision"] == first
        assert condition(knobs, "Pinned")["status"] == "True"
        assert time.time() - undo_at_s < 60
        assert outcomes(load.log).keys() == {"ok"}
    assert step is not None
    listed = knobs.kubectl("get", "tgro").stdout
    assert "Degraded" in listed


async def test_a_batching_edit_in_place_is_a_canary_without_a_new_pod(knobs, router):
    knobs.kubectl("patch", ROLLOUT, "--type=merge", "-p", '{"spec":{"surge":"InPlace"}}')
    before = pods(knobs)
    batching = {"name": "knobs", "dynamicBatching": {"maxQueueDelay": "300us"}}
    patch = {"spec": {"template": {"models": [batching]}}}
    async with traffic(knobs, router) as load:
        asked = status(knobs)["askedRevision"]
        await asyncio.to_thread(
            knobs.kubectl, "patch", ROLLOUT, "--type=merge", "-p", json.dumps(patch)
        )
        done = await asyncio.to_thread(settled_on, knobs, "Healthy", asked)
        second = done["stableRevision"]
        assert second == done["askedRevision"]
        assert pods(knobs) == before
        began_s = time.time()
        await asyncio.to_thread(
            until, lambda: by_revision(load.since(began_s))[second] > 50, what="answers of it"
        )
        assert outcomes(load.log).keys() == {"ok"}
    until(lambda: not any(m.get("loadedAs") is None for m in loaded(knobs)), what="one copy left")


def pods(shell) -> set[str]:
    listed = shell.get("pods", "-l", "tidegate.dev/pool=knobs")["items"]
    return {pod["metadata"]["uid"] for pod in listed}


def loaded(shell) -> list[dict]:
    """What the routers are told that each worker has loaded."""
    table = shell.get("routetables.tidegate.dev/knobs")["spec"]
    return [served for worker in table["workers"] for served in worker["serves"]]


async def verb(shell, name: str, value: str) -> None:
    await asyncio.to_thread(
        shell.kubectl, "annotate", "--overwrite", ROLLOUT, f"tidegate.dev/{name}={value}"
    )


async def reached(shell, phase: str) -> dict:
    def look():
        seen = status(shell)
        return seen if seen.get("phase") == phase else None

    return await asyncio.to_thread(
        until, look, timeout_s=60, what=f"{phase}: {json.dumps(status(shell))[:1500]}"
    )


async def test_a_killed_leader_changes_neither_result_nor_answers(release, knobs, router):
    async with traffic(knobs, router) as load:
        before = status(knobs)["askedRevision"]
        await asyncio.to_thread(edit, knobs, VERSION="2")
        await asyncio.to_thread(until, lambda: status(knobs).get("verifiedWeight") == 20)
        await asyncio.to_thread(
            release.kubectl, "delete", "pods", "-l", "app.kubernetes.io/name=tidegate-operator",
            "--force", "--grace-period=0",
        )  # fmt: skip
        done = await asyncio.to_thread(settled_on, knobs, "Healthy", before)
        assert done["stableRevision"] == done["askedRevision"]
        assert outcomes(load.log).keys() == {"ok"}


def test_a_revert_in_git_goes_back_at_once(knobs):
    first = status(knobs)["stableRevision"]
    long = {"spec": {"steps": [{"setWeight": 10}, {"pause": {"duration": "10m"}}]}}
    knobs.kubectl("patch", ROLLOUT, "--type=merge", "-p", json.dumps(long))
    edit(knobs, VERSION="2")
    until(lambda: status(knobs).get("verifiedWeight") == 10, what="the canary at 10 %")
    knobs.kubectl(
        "patch", ROLLOUT, "--type=json", "-p", '[{"op":"remove","path":"/spec/template/pod"}]'
    )
    until(lambda: status(knobs).get("phase") == "Healthy", what="healthy again")
    assert status(knobs)["stableRevision"] == first
    assert condition(knobs, "Promoted")["status"] == "True"


def test_a_deleted_rollout_keeps_what_is_stable(knobs):
    edit(knobs, VERSION="2")
    until(lambda: status(knobs).get("verifiedWeight", 0) > 0, what="a canary with weight")
    stable = status(knobs)["stableRevision"]
    knobs.kubectl("delete", ROLLOUT, "--timeout=30s")
    until(
        lambda: [w["weight"] for w in knobs.get(POOL)["status"]["weights"] if w["weight"]] == [100],
        what="one revision serves",
    )
    pool = knobs.get(POOL)["status"]
    assert pool["stableRevision"] == stable
    assert any(c["type"] == "TemplateOverridden" for c in pool["conditions"])


BAD = {
    "of a missing pool": ({"poolRef": {"name": "absent"}}, "Ready", "PoolNotFound"),
    "a second one for the pool": ({"poolRef": {"name": "knobs"}}, "Conflict", "PoolHasRollout"),
}


@pytest.mark.parametrize(("spec", "kind", "reason"), BAD.values(), ids=BAD.keys())
def test_a_rollout_that_cannot_work_says_why(knobs, spec, kind, reason):
    document = {
        "apiVersion": "tidegate.dev/v1alpha1", "kind": "ModelRollout",
        "metadata": {"name": "later"}, "spec": spec,
    }  # fmt: skip
    knobs.kubectl("apply", "-f", "-", stdin=json.dumps(document))

    def look():
        found = knobs.get("modelrollouts.tidegate.dev/later").get("status", {})
        return [c for c in found.get("conditions", []) if c["type"] == kind]

    assert until(look, what=f"condition {kind}")[0]["reason"] == reason
    assert condition(knobs, "Ready")["status"] == "True"


REFUSED = {
    "steps that go down": ({"steps": [{"setWeight": 50}, {"setWeight": 10}]}, "must not go down"),
    "weight 101": ({"steps": [{"setWeight": 101}]}, "100"),
    "a step of both kinds": (
        {"steps": [{"setWeight": 5, "pause": {"duration": "1s"}}]}, "exactly one of",
    ),
    "a shadow without a mirror": (
        {"analysis": {"shadow": {"maxDisagreement": 0.1}}}, "mirror.percent",
    ),
    "another pool": ({"poolRef": {"name": "other"}}, "cannot change"),
}  # fmt: skip


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_the_api_server_refuses_what_makes_no_sense(standing_rollout, spec, words):
    patch = json.dumps({"spec": spec})
    answer = standing_rollout.kubectl(
        "patch", ROLLOUT, "--type=merge", "--dry-run=server", "-p", patch, check=False
    )
    assert answer.returncode != 0
    assert words in answer.stderr


@pytest.fixture(scope="module")
def standing_rollout(release):
    """A rollout that nothing acts on: only the API server judges it."""
    name = f"e2e-refused-{int(time.time())}"
    shell = release.into(name)
    shell.kubectl("create", "namespace", name)
    shell.kubectl("apply", "-f", "e2e/manifests/rollout.yaml")
    yield shell
    shell.kubectl("delete", "namespace", name, "--wait=false")


def test_an_unknown_model_is_an_invalid_spec_and_stable_serves_on(knobs):
    before = knobs.get(POOL)["status"]["stableRevision"]
    patch = {"spec": {"template": {"models": [{"name": "nobody", "maxBatchSize": 2}]}}}
    knobs.kubectl("patch", ROLLOUT, "--type=merge", "-p", json.dumps(patch))
    until(lambda: condition(knobs, "InvalidSpec").get("status") == "True", what="InvalidSpec")
    assert "nobody" in condition(knobs, "InvalidSpec")["message"]
    assert knobs.get(POOL)["status"]["stableRevision"] == before
