import pytest

from tidegate_api.meta import Condition
from tidegate_api.names import ConditionType, Reason
from tidegate_api.pool import InferencePoolStatus, OperatorClaim
from tidegate_api.routetable import PoolIdentity
from tidegate_operator.core.conditions import Verdict, stamp
from tidegate_operator.core.observation import (
    ObservedAutoscaler,
    OtherPool,
    Owned,
    RefusedWrite,
)
from tidegate_operator.core.status import invalid_spec_status


@pytest.fixture
def one(world):
    return world()


@pytest.fixture
def ready(world, make):
    """Returns a pool of two Ready workers."""
    running = world(raw=make.pool(replicas=2))
    running.run(8)
    assert running.condition("Ready") == ("True", "AsDesired")
    return running


def foreign(kind, name, **more):
    return Owned(kind=kind, name=name, uid="x", **{"controller_uid": None, **more})


def test_the_first_status_says_what_is_missing(one):
    one.tick()
    assert one.condition("Ready") == ("False", "WorkersStarting")
    assert one.condition("Reconciling") == ("True", "WorkersStarting")
    assert one.condition("WorkersAvailable") == ("False", "NoWorkers")
    assert one.condition("ModelsLoaded") == ("Unknown", "NoWorkers")


def test_ready_waits_until_routers_were_offered_the_workers(one):
    for router in one.routers:
        router.watches = False
    one.run(8)
    assert one.ready_of(one.status["desiredRevision"]) == 1
    assert one.condition("Ready") == ("False", "RoutersCatchingUp")
    assert one.condition("RouterSynced") == ("False", "RoutersCatchingUp")
    for router in one.routers:
        router.watches = True
    one.run(3)
    assert one.condition("Ready") == ("True", "AsDesired")


def test_an_image_that_cannot_be_pulled_says_so_and_the_old_revision_serves(ready, make):
    old = ready.serving()
    ready.start_s = 1e9
    ready.pod_facts = {"unschedulable_message": "0/1 nodes: 1 Insufficient cpu."}
    ready.edit(template=make.template(uri="pvc://models/resnet50/2"))
    ready.run(5)
    assert ready.condition("Ready") == ("False", "Unschedulable")
    assert "Insufficient cpu" in ready.message("Ready")
    assert f"revision {old} serves on" in ready.message("Ready")
    assert ready.condition("WorkersAvailable") == ("True", "WorkersReady")
    assert ready.condition("Stalled") is None


def test_a_failure_beyond_the_progress_deadline_is_stalled(one):
    one.start_s = 1e9
    one.pod_facts = {"unschedulable_message": "0/1 nodes: 1 Insufficient cpu."}
    one.run(3)
    assert one.condition("Stalled") is None
    one.tick(elapsed_s=600)
    assert one.condition("Stalled") == ("True", "Unschedulable")
    assert one.condition("Reconciling") is None


def test_a_name_that_someone_else_holds_is_stalled_and_never_taken(one):
    one.extra = {"others": (foreign("PodDisruptionBudget", "vision"),)}
    decision = one.tick()
    assert one.condition("Stalled") == ("True", "NameConflict")
    assert one.condition("Ready") == ("False", "NameConflict")
    assert "PodDisruptionBudget vision" in one.message("Ready")
    assert "PodDisruptionBudget" not in {item.kind for item in decision.applies}
    assert "NameConflict" in {event.reason.value for event in decision.events}


def test_what_an_earlier_pool_of_this_name_left_is_waited_for(one):
    leftover = foreign(
        "NetworkPolicy",
        "vision",
        controller_uid="old",
        controller_kind="InferencePool",
        controller_name="vision",
    )
    one.extra = {"others": (leftover,)}
    one.tick()
    assert one.condition("Stalled") is None
    assert "earlier pool" in one.message("Ready")


def test_a_foreign_route_table_is_not_written(one):
    one.extra = {"others": (foreign("RouteTable", "vision"),)}
    assert one.tick().table is None


def test_another_release_owns_the_pool(ready, make):
    ready.settings = make.replace(
        ready.settings, release=OperatorClaim(name="other", namespace="elsewhere")
    )
    decision = ready.tick()
    assert (decision.applies, decision.table, decision.status) == ((), None, None)


def test_a_terminating_pool_is_left_alone(ready):
    ready.raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    decision = ready.tick()
    assert (decision.applies, decision.table, decision.status) == ((), None, None)


def test_a_refused_write_is_named(one):
    text = "exceeded quota: gpu"
    one.extra = {"refused": (RefusedWrite(kind="Deployment", name="x", message=text),)}
    one.tick()
    assert one.condition("Stalled") == ("True", "WriteRefused")
    assert text in one.message("Ready")


def test_a_foreign_autoscaler_is_named_and_not_fought(ready):
    name = next(iter(ready.deployments))
    ready.extra = {
        "autoscalers": (ObservedAutoscaler(name="hpa", target_kind="Deployment", target_name=name),)
    }
    ready.deployments[name]["spec"]["replicas"] = 4
    ready.run(10)
    assert ready.deployments[name]["spec"]["replicas"] == 4
    assert ready.condition("ScalingActive") == ("False", "ForeignAutoscaler")
    assert ready.condition("Ready") == ("True", "AsDesired")


def test_an_autoscaler_of_the_pool_is_fine(ready):
    ready.extra = {
        "autoscalers": (
            ObservedAutoscaler(name="hpa", target_kind="InferencePool", target_name="vision"),
        )
    }
    ready.tick()
    assert ready.condition("ScalingActive") == ("True", "ReplicasFixed")


def test_without_an_autoscaler_a_hand_edit_of_replicas_is_repaired(ready):
    name = next(iter(ready.deployments))
    ready.deployments[name]["spec"]["replicas"] = 4
    ready.run(20)
    assert ready.deployments[name]["spec"]["replicas"] == 2
    assert len(ready.pods) == 2


@pytest.mark.parametrize(
    ("created_at", "namespace", "taken"),
    [
        pytest.param("2025-01-01T00:00:00Z", "zz", True, id="an-older-pool-owns-the-name"),
        pytest.param("2026-06-01T00:00:00Z", "aa", False, id="a-newer-one-does-not"),
        pytest.param("2026-01-01T00:00:00Z", "aa", True, id="then-the-namespace-decides"),
        pytest.param("2026-01-01T00:00:00Z", "zz", False, id="and-both-ways"),
    ],
)
def test_a_bare_model_name_belongs_to_the_oldest_pool(one, created_at, namespace, taken):
    identity = PoolIdentity(namespace=namespace, name="other", uid="o", created_at=created_at)
    one.extra = {"other_pools": (OtherPool(identity=identity, models=("x", "resnet50")),)}
    one.tick()
    found = one.condition("NameTaken")
    assert found == (("True", "OlderPoolOwnsName") if taken else None)
    if taken:
        assert f"{namespace}/other" in one.message("NameTaken")


def test_class_bounds_that_limit_are_a_condition(one, make):
    one.edit(replicas=3, accelerators=[make.accelerator(replicas={"max": 1})])
    one.run(8)
    assert one.condition("ScalingLimited") == ("True", "TooManyReplicas")
    assert one.condition("Ready") == ("True", "AsDesired")


def test_metrics_come_from_routers(ready):
    assert ready.condition("MetricsAvailable") == ("True", "MetricsFound")
    for router in ready.routers:
        router.reachable = False
    ready.run(12)
    assert ready.condition("MetricsAvailable") == ("False", "MetricsStale")
    ready.routers = []
    ready.tick()
    assert ready.condition("MetricsAvailable") == ("False", "MetricsMissing")


def test_every_condition_carries_the_generation(ready):
    ready.edit(replicas=2)
    ready.tick()
    seen = {item["observedGeneration"] for item in ready.status["conditions"]}
    assert seen == {2} == {ready.status["observedGeneration"]}


def old_condition(status="True"):
    return Condition(type="Ready", status=status, reason="X", last_transition_time="then")


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        pytest.param([old_condition()], "then", id="same-status-keeps-the-time"),
        pytest.param([old_condition("False")], "1970-01-01T00:01:00Z", id="a-flip-moves-it"),
        pytest.param([], "1970-01-01T00:01:00Z", id="new-conditions-start-now"),
    ],
)
def test_the_transition_time_moves_only_with_the_status(before, expected):
    verdicts = {ConditionType.READY: Verdict("True", Reason.AS_DESIRED, "other text")}
    assert stamp(verdicts, before, 1, 60.0)[0].last_transition_time == expected


def test_an_invalid_spec_is_stalled_and_leaves_the_rest(ready):
    before = InferencePoolStatus.model_validate(ready.status)
    after = invalid_spec_status(
        before,
        release=OperatorClaim(name="t", namespace="n"),
        generation=9,
        message="spec.template.models[0].source.uri: expected oci://...",
        now_s=60.0,
    )
    found = {item.type: (item.status, item.reason) for item in after.conditions}
    assert found["Ready"] == ("False", "InvalidSpec")
    assert found["Stalled"] == ("True", "InvalidSpec")
    assert found["WorkersAvailable"] == ("True", "WorkersReady")
    assert after.replicas == before.replicas
    assert after.observed_generation == 9
