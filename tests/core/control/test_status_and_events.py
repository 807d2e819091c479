import pytest


@pytest.fixture
def ready(world, make):
    running = world(
        raw=make.pool(
            replicas=3,
            accelerators=[
                make.accelerator(costPerHour="0.5", replicas={"max": 2}),
                make.accelerator(name="spare", costPerHour="2"),
            ],
        )
    )
    running.run(8)
    return running


def reasons(events):
    return [event.reason.value for event in events]


def test_the_cost_is_that_of_the_running_workers(ready):
    assert ready.status["costPerHour"] == "3.00"
    assert ready.decision.costs_per_hour == {"cpu": 1.0, "spare": 2.0}


def test_the_scale_subresource_gets_size_and_selector(ready):
    assert ready.status["replicas"] == 3
    assert ready.status["readyReplicas"] == 3
    assert ready.status["desiredReplicas"] == 3
    assert ready.status["selector"] == "tidegate.dev/pool=vision"


def test_a_worker_counts_as_ejected_once_however_many_routers_and_models(ready):
    assert ready.status["workers"]["ejected"] == 0
    workers = [worker.id for worker in ready.published.spec.workers]
    ready.routers[0].ejected = (workers[0], "of-a-pod-that-is-gone")
    ready.routers.append(type(ready.routers[0])("router-2", ejected=(workers[0],)))
    ready.run(2)
    assert ready.status["workers"]["ejected"] == 1
    ready.routers[1].ejected = (workers[1],)
    ready.run(2)
    assert ready.status["workers"]["ejected"] == 2


def test_the_surge_of_a_replacement_is_no_size(ready, make):
    ready.edit(template=make.template(uri="pvc://models/resnet50/2"))
    sizes, totals = set(), set()
    for _ in range(30):
        ready.tick()
        sizes.add(ready.status["replicas"])
        totals.add(ready.status["workers"]["total"])
    assert sizes == {3}
    assert max(totals) == 6


def test_status_tells_where_to_send_requests_and_who_reconciles(ready):
    assert ready.status["address"]["url"].startswith("http://router")
    assert ready.status["operator"] == {"name": "tidegate", "namespace": "tidegate-system"}


def test_weights_are_verified_only_when_routers_applied_them(ready, make):
    old = ready.serving()
    for router in ready.routers:
        router.watches = False
    ready.edit(template=make.template(uri="pvc://models/resnet50/2"))
    ready.run(10)
    new = ready.status["desiredRevision"]
    assert {w["revision"]: w["weight"] for w in ready.status["weights"]} == {new: 100, old: 0}
    assert ready.status["verifiedWeights"] == [{"revision": old, "weight": 100}]
    for router in ready.routers:
        router.watches = True
    ready.run(3)
    assert ready.status["verifiedWeights"] == [{"revision": new, "weight": 100}]
    assert ready.status["stableRevision"] == new


def test_the_life_of_a_pool_is_told_in_events(world, make):
    one = world(raw=make.pool(replicas=1))
    one.run(8)
    assert reasons(one.events) == [
        "RevisionCreated",
        "WorkerSetCreated",
        "RevisionPromoted",
        "PoolReady",
    ]
    one.events.clear()
    one.edit(template=make.template(uri="pvc://models/resnet50/2"))
    one.run(30)
    told = reasons(one.events)
    order = [
        "RevisionCreated",
        "WorkerSetCreated",
        "TrafficWeightUpdated",
        "WorkersDraining",
        "ScalingWorkerSet",
        "WorkerSetRemoved",
    ]
    assert [told.index(reason) for reason in order] == sorted(told.index(r) for r in order)
    assert "RevisionPromoted" in told
    assert not any(event.warning for event in one.events)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        pytest.param({"uri": "https://h/m.onnx"}, True, id="fetched-without-digest"),
        pytest.param({"uri": "s3://b/m", "sha256": ""}, True, id="an-empty-digest-is-none"),
        pytest.param({"uri": "s3://b/m", "sha256": "0" * 64}, False, id="fetched-with-digest"),
        pytest.param({"uri": "pvc://c/m"}, False, id="mounted-sources-are-the-clusters"),
    ],
)
def test_unverified_sources_are_told_once_per_revision(world, make, source, told):
    one = world(
        raw=make.pool(template={"models": [{"name": "resnet50", "source": source}]}),
    )
    one.run(8)
    assert reasons(one.events).count("SourceUnverified") == int(told)


def test_a_failing_worker_is_an_event_with_its_text(world):
    one = world(start_s=1e9)
    one.pod_facts = {"unschedulable_message": "0/1 nodes: 1 Insufficient cpu."}
    one.run(3)
    found = [event for event in one.events if event.reason == "WorkerFailed"]
    assert "Insufficient cpu" in found[0].message
    assert found[0].warning
