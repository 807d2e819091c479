"""Argo CD's script of examples/gitops and Flux' rules, on the statuses that the operator writes."""

from pathlib import Path

import pytest
import yaml
from lupa.lua51 import LuaRuntime  # Argo CD's interpreter speaks Lua 5.1

from tidegate_api.meta import ObjectMeta
from tidegate_api.names import RolloutReason
from tidegate_api.rollout import ModelRolloutStatus
from tidegate_operator.core.observation import ObservedRollout
from tidegate_operator.core.rollout.kstatus import (
    conflict_status,
    invalid_status,
    missing_pool_status,
    rollout_status,
)
from tidegate_operator.core.rollout.model import Outcome, Policy, Progress, Sight, State, Track

ROOT = Path(__file__).parents[2]
GITOPS = ROOT / "examples" / "gitops"
HEALTH = "resource.customizations.health.tidegate.dev_"
NOW_S = 1_700_000_000.0
GENERATION = 7
CANARY_WEIGHT = 25
ALONE = {State.HEALTHY, State.SCALING_DOWN, State.FIRST_DEPLOY, State.ABORTED, State.PINNED}

# state -> what Argo CD shows, what kstatus says
EXPECTED = {
    State.FIRST_DEPLOY: ("Progressing", "InProgress"),
    State.STARTING: ("Progressing", "InProgress"),
    State.SHIFTING: ("Progressing", "InProgress"),
    State.HOLDING: ("Progressing", "InProgress"),
    State.PAUSED: ("Suspended", "Current"),
    State.PROMOTING: ("Progressing", "InProgress"),
    State.SCALING_DOWN: ("Healthy", "Current"),
    State.HEALTHY: ("Healthy", "Current"),
    State.ABORTING: ("Degraded", "InProgress"),
    State.ABORTED: ("Degraded", "Failed"),
    State.UNDOING: ("Progressing", "InProgress"),
    State.PINNED: ("Degraded", "Failed"),
}


@pytest.fixture(scope="module")
def argo():
    """Argo CD's verdict on an object of a kind: (health, message)."""
    data = yaml.safe_load((GITOPS / "argocd-cm.yaml").read_text("utf-8"))["data"]

    def judge(kind, body):
        lua = LuaRuntime(unpack_returned_tuples=True)
        run = lua.eval("function(text, object) obj = object; return loadstring(text)() end")
        health = run(data[HEALTH + kind], lua.table_from(body, recursive=True))
        return health["status"], health["message"]

    return judge


def kstatus(body):
    """The rules of kstatus for a kind that it does not know (sigs.k8s.io/cli-utils)."""
    status = body.get("status", {})
    if status.get("observedGeneration", GENERATION) != body["metadata"]["generation"]:
        return "InProgress"
    found = {item["type"]: item["status"] for item in status.get("conditions", [])}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return "Current" if found.get("Ready", "True") == "True" else "InProgress"


def written(state, *, paused=False, stuck=False, workers=4):
    """The status that the operator writes in a state."""
    progress = Progress(
        state=state,
        since_s=NOW_S,
        stable="r1",
        canary=None if state in ALONE else "r2",
        asked="r1" if state is State.HEALTHY else "r2",
        weight=0 if state in ALONE else CANARY_WEIGHT,
        aborted="r2" if state in {State.ABORTED, State.ABORTING} else None,
        pinned="r1" if state is State.PINNED else None,
        reason=RolloutReason.STARTING_CANARY,
        message=f"told in {state}",
    )
    tracks = {name: Track(ready={"a10g": workers}) for name in ("r1", "r2")}
    sight = Sight(now_s=NOW_S, asked="r2", counts={"a10g": 4}, tracks=tracks, paused=paused)
    weights = {"r1": 100} if state in ALONE else {"r1": 75, "r2": CANARY_WEIGHT}
    outcome = Outcome(progress=progress, weights=weights, scale={}, deadline_exceeded=stuck)
    meta = ObjectMeta(name="vision", generation=GENERATION)
    bound = ObservedRollout(meta=meta, rollout=None, status=ModelRolloutStatus())
    return rollout_status(Policy(), sight, outcome, bound, NOW_S)


def served(status, generation=GENERATION):
    return {"metadata": {"name": "vision", "generation": generation}, "status": status.to_wire()}


def test_every_state_has_an_expectation():
    assert set(EXPECTED) == set(State)


@pytest.mark.parametrize("state", State)
def test_each_state_reads_so_in_argo_cd_and_flux(argo, state):
    body = served(written(state))
    health, message = argo("ModelRollout", body)
    assert (health, kstatus(body)) == EXPECTED[state]
    assert message == f"told in {state}"


@pytest.mark.parametrize(
    ("status", "health", "flux"),
    [
        (written(State.HOLDING, paused=True), "Suspended", "Current"),
        (written(State.STARTING, stuck=True), "Degraded", "Failed"),
        (written(State.HEALTHY, workers=0), "Progressing", "InProgress"),
        (
            conflict_status(written(State.HEALTHY), GENERATION, "elder", NOW_S),
            "Degraded",
            "Failed",
        ),
        (
            missing_pool_status(written(State.HOLDING), GENERATION, "vision", NOW_S),
            "Degraded",
            "Failed",
        ),
        (
            invalid_status(written(State.HOLDING), GENERATION, "weight 101", NOW_S),
            "Degraded",
            "Failed",
        ),
        (
            invalid_status(written(State.PAUSED), GENERATION, "weight 101", NOW_S),
            "Degraded",
            "Failed",
        ),
    ],
    ids=[
        "paused by a user",
        "past progressDeadline",
        "promoted but no worker is Ready",
        "the pool has an older rollout",
        "the pool is missing",
        "nonsense was written in the middle of a canary",
        "nonsense was written during a pause",
    ],
)
def test_what_may_come_on_top_of_a_state(argo, status, health, flux):
    body = served(status)
    assert (argo("ModelRollout", body)[0], kstatus(body)) == (health, flux)


@pytest.mark.parametrize("state", State)
def test_an_edit_that_nobody_has_seen_is_on_its_way(argo, state):
    body = served(written(state), generation=GENERATION + 1)
    assert (argo("ModelRollout", body)[0], kstatus(body)) == ("Progressing", "InProgress")


@pytest.mark.parametrize("kind", ["InferencePool", "ModelRollout"])
@pytest.mark.parametrize(
    "more", [{}, {"status": {}}, {"status": {"observedGeneration": GENERATION}}]
)
def test_without_conditions_argo_cd_waits(argo, kind, more):
    body = {"metadata": {"generation": GENERATION}, **more}
    assert argo(kind, body)[0] == "Progressing"


def conditions(**verdicts):
    return [
        {"type": kind, "status": status, "reason": reason, "message": f"{kind} {reason}"}
        for kind, (status, reason) in verdicts.items()
    ]


@pytest.mark.parametrize(
    ("found", "health", "flux"),
    [
        (conditions(Ready=("True", "AsDesired")), "Healthy", "Current"),
        (conditions(Ready=("True", "ScaledToZero")), "Healthy", "Current"),
        (conditions(Ready=("True", "Paused")), "Suspended", "Current"),
        (
            conditions(Ready=("False", "WorkersStarting"), Reconciling=("True", "WorkersStarting")),
            "Progressing",
            "InProgress",
        ),
        (
            conditions(Ready=("True", "AsDesired"), Reconciling=("True", "Draining")),
            "Progressing",
            "InProgress",
        ),
        (
            conditions(Ready=("False", "ModelLoadFailed"), Stalled=("True", "ModelLoadFailed")),
            "Degraded",
            "Failed",
        ),
    ],
    ids=[
        "all workers are Ready",
        "no workers are asked for",
        "paused",
        "workers start",
        "old workers drain",
        "past its deadline",
    ],
)
def test_a_pool_reads_so_in_argo_cd_and_flux(argo, found, health, flux):
    status = {"observedGeneration": GENERATION, "conditions": found}
    body = {"metadata": {"generation": GENERATION}, "status": status}
    assert (argo("InferencePool", body)[0], kstatus(body)) == (health, flux)


def test_flux_names_objects_of_the_example():
    checks = yaml.safe_load((GITOPS / "flux-kustomization.yaml").read_text("utf-8"))["spec"]
    applied = [
        document
        for path in sorted((ROOT / "examples" / "canary").glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]
    names = {(d["apiVersion"], d["kind"], d["metadata"]["name"]) for d in applied}
    assert {(c["apiVersion"], c["kind"], c["name"]) for c in checks["healthChecks"]} <= names
