"""Whole replacements, scale changes and pauses, simulated to the end on the production core."""

import pytest


@pytest.fixture
def running(world, make):
    """Returns a pool of two Ready workers that serves."""
    one = world(raw=make.pool(replicas=2, drain={"timeout": "20s"}))
    one.run(8)
    return one


def test_a_new_pool_becomes_ready(running):
    assert running.condition("Ready") == ("True", "AsDesired")
    assert running.condition("Reconciling") is None
    assert running.condition("Stalled") is None
    assert running.condition("RouterSynced") == ("True", "RoutersSynced")
    assert running.status["replicas"] == 2
    assert running.status["stableRevision"] == running.status["desiredRevision"]
    assert list(running.weights().values()) == [100]


def test_an_idle_pool_writes_nothing_more(running):
    for _ in range(5):
        decision = running.tick()
        assert decision.table is None
        assert decision.deletes == ()
        assert decision.events == ()


def test_a_template_edit_replaces_the_revision_in_order(running, make):
    old = running.status["desiredRevision"]
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    order = []
    for _ in range(30):
        running.tick()
        new = running.status["desiredRevision"]
        order.append(
            (
                running.serving() == new,
                any(w.draining for w in running.listed().values() if w.revision == old),
                running.ready_of(old),
            )
        )
    moved = next(at for at, (weight, _, _) in enumerate(order) if weight)
    marked = next(at for at, (_, draining, _) in enumerate(order) if draining)
    gone = next(at for at, (_, _, ready) in enumerate(order) if not ready)
    assert moved < marked < gone
    assert running.condition("Ready") == ("True", "AsDesired")
    assert len(running.deployments) == 1
    assert len(running.pods) == 2
    assert {name.rsplit("-", 1)[0] for name in running.revisions} == {"vision", "vision-cpu"}
    assert len(running.revisions) == 3, "two revisions for the history, one set"


def test_the_old_revision_serves_on_when_the_new_one_cannot_start(running, make):
    old = running.serving()
    running.start_s = 1e9
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.run(60)
    assert running.serving() == old
    assert running.ready_of(old) == 2
    assert running.condition("Ready")[0] == "False"
    assert running.condition("WorkersAvailable") == ("True", "WorkersReady")


def test_an_edit_back_reuses_the_old_workers(running, make):
    before = set(running.pods)
    first = running.raw["spec"]["template"]
    running.start_s = 1e9
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.run(10)
    running.edit(template=first)
    running.start_s = 3.0
    running.run(20)
    assert set(running.pods) == before
    assert running.condition("Ready") == ("True", "AsDesired")


def test_a_broken_intermediate_revision_goes_when_a_third_arrives(running, make):
    running.start_s = 1e9
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.run(10)
    running.start_s = 3.0
    running.edit(template=make.template(uri="pvc://models/resnet50/3"))
    running.run(40)
    assert len(running.deployments) == 1
    assert running.condition("Ready") == ("True", "AsDesired")


def test_a_first_revision_that_never_ran_is_replaced_at_once(world, make):
    one = world(start_s=1e9)
    one.run(5)
    one.start_s = 3.0
    one.edit(template=make.template(uri="pvc://models/resnet50/2"))
    one.run(12)
    assert one.condition("Ready") == ("True", "AsDesired")
    assert len(one.deployments) == 1


def test_a_class_edit_replaces_its_workers_within_the_revision(running, make):
    revision = running.serving()
    running.edit(accelerators=[make.accelerator(resources={"cpu": "2"})])
    seen = []
    for _ in range(30):
        running.tick()
        seen.append(running.ready_of(revision))
    assert min(seen) >= 2
    assert running.serving() == revision
    assert len(running.deployments) == 1
    assert running.status["replicas"] == 2


def test_scale_down_drains_the_least_busy_worker_first(running):
    busy, idle = sorted(pod.name for pod in running.pods.values())
    running.busy[busy] = 3
    running.edit(replicas=1)
    running.tick()
    assert running.listed()[idle].draining
    assert not running.listed()[busy].draining
    running.run(6)
    assert [pod.name for pod in running.pods.values()] == [busy]
    assert running.condition("Reconciling") is None


def test_scale_down_waits_for_the_victims_work_and_no_longer_than_drain_timeout(running):
    for pod in running.pods.values():
        running.busy[pod.name] = 1
    running.edit(replicas=1)
    running.run(15)
    assert len(running.deployments) == 1
    assert next(iter(running.deployments.values()))["spec"]["replicas"] == 2
    running.run(15)
    assert len(running.pods) == 1


def test_a_cancelled_scale_down_takes_the_mark_away(running):
    for pod in running.pods.values():
        running.busy[pod.name] = 1
    running.edit(replicas=1)
    running.run(3)
    running.edit(replicas=2)
    running.run(2)
    assert not any(worker.draining for worker in running.listed().values())
    assert all(pod.cost == 0 for pod in running.pods.values())


def test_scaled_to_zero_is_ready(running):
    running.edit(replicas=0)
    running.run(10)
    assert running.condition("Ready") == ("True", "ScaledToZero")
    assert running.pods == {}
    running.edit(replicas=1)
    running.run(8)
    assert running.condition("Ready") == ("True", "AsDesired")


def test_a_paused_pool_starts_no_revision_and_does_not_grow(running, make):
    before = running.serving()
    running.edit(paused=True, replicas=5, template=make.template(uri="pvc://models/resnet50/2"))
    running.run(10)
    assert running.serving() == before
    assert len(running.pods) == 2
    assert running.condition("Ready") == ("False", "Paused")
    running.edit(paused=False)
    running.run(30)
    assert len(running.pods) == 5
    assert running.serving() != before


def test_the_pause_annotation_counts_like_the_field(running, make):
    running.raw["metadata"]["annotations"] = {"tidegate.dev/paused": "true"}
    before = running.serving()
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.run(10)
    assert running.serving() == before
    assert running.condition("Ready") == ("True", "Paused")


def test_a_silent_router_holds_the_weight_and_a_gone_one_does_not(running, make):
    old = running.serving()
    running.routers[0].watches = False
    running.routers[0].reachable = False
    running.run(2)
    running.busy[next(iter(running.pods.values())).name] = 50
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.published = make.replace(
        running.published,
        spec=running.published.spec.model_copy(
            update={"sequence": running.published.spec.sequence + 1}
        ),
    )
    running.memory = type(running.memory)()
    running.run(20)
    assert running.serving() == old
    assert running.condition("RouterSynced") == ("False", "RouterUnreachable")
    running.routers[0].ready = False
    running.run(60)
    assert running.serving() != old
    assert len(running.deployments) == 1


def test_without_routers_tables_are_effective_at_once(world, make):
    one = world(routers=[], raw=make.pool(replicas=1))
    one.run(8)
    one.edit(template=make.template(uri="pvc://models/resnet50/2"))
    one.run(20)
    assert one.condition("Ready") == ("True", "AsDesired")
    assert one.condition("RouterSynced") == ("Unknown", "NoRouters")
    assert len(one.deployments) == 1


def test_a_new_operator_image_restarts_no_worker(running, make):
    before = set(running.pods)
    running.settings = make.replace(running.settings, worker_image="registry.example/worker:2")
    running.memory = type(running.memory)()
    running.run(10)
    assert set(running.pods) == before


def test_a_restored_pool_without_status_and_table_keeps_its_workers(running):
    before, revision = set(running.pods), running.serving()
    running.status, running.published = {}, None
    running.memory = type(running.memory)()
    running.run(5)
    assert set(running.pods) == before
    assert running.serving() == revision
    assert running.condition("Ready") == ("True", "AsDesired")


def test_history_beyond_the_limit_is_removed(running, make):
    running.edit(revisionHistoryLimit=2)
    for version in range(2, 8):
        running.edit(template=make.template(uri=f"pvc://models/resnet50/{version}"))
        running.run(25)
    kept = [item for item in running.revisions.values() if item["data"]["schema"] == "revision.v1"]
    assert len(kept) == 3


def test_an_edit_while_scaled_to_zero_still_removes_the_old_workers(running, make):
    running.edit(replicas=0)
    running.tick()
    running.edit(template=make.template(uri="pvc://models/resnet50/2"))
    running.run(30)
    assert running.pods == {}
    assert running.condition("Ready") == ("True", "ScaledToZero")
    running.edit(replicas=1)
    running.run(8)
    assert running.serving() == running.status["desiredRevision"]
    assert running.condition("Ready") == ("True", "AsDesired")
