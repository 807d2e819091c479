"""The whole loop, from an InferencePool to its objects and back, against the fake API server.

A stand-in for Deployment controller and kubelet makes pods; no agent and no router answers.
"""

import asyncio

import pytest

from tidegate_api.names import LABEL_POOL, EventReason
from tidegate_operator.leader import assemble, lead
from tidegate_operator.settings import read
from tidegate_operator.telemetry import Telemetry

POOLS = "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferencepools"
TABLE = "/apis/tidegate.dev/v1alpha1/namespaces/ml/routetables/vision"
DEPLOYMENTS = "apis/apps/v1/deployments"


def pool(uri="file:///opt/models/resnet50", **spec):
    model = {"name": "resnet50", "source": {"uri": uri}}
    return {
        "apiVersion": "tidegate.dev/v1alpha1",
        "kind": "InferencePool",
        "metadata": {"name": "vision", "namespace": "ml"},
        "spec": {
            "replicas": 2,
            "drain": {"timeout": "1s"},
            "template": {"models": [model]},
            "accelerators": [{"name": "cpu", "kind": "CPU"}],
            **spec,
        },
    }


@pytest.fixture(autouse=True)
def cluster(controllers):
    return controllers


@pytest.fixture
def settings():
    flags = {"worker-image": "worker:1", "pod-namespace": "system", "score-writes-per-second": "50"}
    return read([f"--{flag}={value}" for flag, value in flags.items()], {})


@pytest.fixture
def start(connect, background, settings):
    """Return `start()`: an operator that leads, and its parts."""

    def begin(leads=lambda: True):
        parts = assemble(settings, connect(), leads, Telemetry())
        return parts, background(lead(parts))

    return begin


def verdict(api, kind="Ready"):
    status = api.get(f"{POOLS}/vision").get("status") or {}
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def condition(api, kind="Ready"):
    found = verdict(api, kind)
    return (found["status"], found["reason"]) if found else None


@pytest.fixture
async def serving(api, start, until):
    """A pool with two Ready workers, all said about it, and the operator's parts."""
    api.put(f"{POOLS}/vision", pool())
    parts, _ = start()
    await until(lambda: condition(api) == ("True", "AsDesired"), "a Ready pool")
    return parts


def reconciles(parts, result="ok"):
    return parts.reconciler._telemetry.reconciles.labels(result)._value.get()


def only(items):
    (item,) = items.values()
    return item


@pytest.mark.usefixtures("serving")
async def test_a_pool_becomes_all_its_objects(api):
    kinds = {key[0] for key in api.objects}
    assert kinds >= {
        DEPLOYMENTS, "api/v1/services", "api/v1/configmaps", "apis/apps/v1/controllerrevisions",
        "apis/policy/v1/poddisruptionbudgets", "apis/networking.k8s.io/v1/networkpolicies",
        "apis/tidegate.dev/v1alpha1/routetables",
    }  # fmt: skip
    uid = api.get(f"{POOLS}/vision")["metadata"]["uid"]
    for key, item in api.objects.items():
        if key[0] not in {
            "api/v1/pods",
            "api/v1/events",
            "apis/tidegate.dev/v1alpha1/inferencepools",
        }:
            (owner,) = item["metadata"]["ownerReferences"]
            assert (owner["uid"], owner["controller"]) == (uid, True), key
            assert item["metadata"]["labels"][LABEL_POOL] == "vision", key
    assert only(api.all(DEPLOYMENTS))["spec"]["replicas"] == 2


@pytest.mark.usefixtures("serving")
async def test_the_table_names_the_workers_and_the_status_counts_them(api, until):
    spec = await until(
        lambda: len((s := api.get(TABLE)["spec"])["workers"]) == 2 and s, "both workers"
    )
    pods = {pod["metadata"]["uid"] for pod in api.all("api/v1/pods").values()}
    assert {worker["id"] for worker in spec["workers"]} == pods
    status = api.get(f"{POOLS}/vision")["status"]
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert status["operator"] == {"name": "tidegate", "namespace": "system"}


async def test_a_settled_pool_is_not_written_any_more(api, serving, until):
    seen = (0, -1)

    def quiet():
        nonlocal seen
        if len(api.writes()) != seen[1]:
            seen = (reconciles(serving), len(api.writes()))
        return reconciles(serving) - seen[0] >= 3

    await until(quiet, "three reconciles without a write")


@pytest.mark.usefixtures("serving")
async def test_an_edit_of_a_childs_spec_is_repaired(api, until):
    item = only(api.all(DEPLOYMENTS))
    path = f"/apis/apps/v1/namespaces/ml/deployments/{item['metadata']['name']}"
    api.put(path, {**item, "spec": {**item["spec"], "replicas": 7}})
    await until(lambda: only(api.all(DEPLOYMENTS))["spec"]["replicas"] == 2, "the repair")


@pytest.mark.usefixtures("serving")
async def test_a_deleted_service_comes_back(api, until):
    name = only(api.all("api/v1/services"))["metadata"]["name"]
    api.drop(f"/api/v1/namespaces/ml/services/{name}")
    await until(lambda: api.get(f"/api/v1/namespaces/ml/services/{name}"), "the service")


@pytest.mark.usefixtures("serving")
async def test_an_edited_label_of_a_child_is_repaired(api, until):
    item = only(api.all(DEPLOYMENTS))
    path = f"/apis/apps/v1/namespaces/ml/deployments/{item['metadata']['name']}"
    labels = {**item["metadata"]["labels"], "tidegate.dev/class": "wrong"}
    api.put(path, {**item, "metadata": {**item["metadata"], "labels": labels}})
    await until(
        lambda: only(api.all(DEPLOYMENTS))["metadata"]["labels"]["tidegate.dev/class"] == "cpu",
        "the repair",
    )


@pytest.mark.usefixtures("serving")
async def test_a_pool_scaled_up_and_down_follows(api, until):
    document = api.get(f"{POOLS}/vision")
    api.put(f"{POOLS}/vision", {**document, "spec": {**document["spec"], "replicas": 4}})
    await until(lambda: len(api.get(TABLE)["spec"]["workers"]) == 4, "four workers offered")
    document = api.get(f"{POOLS}/vision")
    api.put(f"{POOLS}/vision", {**document, "spec": {**document["spec"], "replicas": 1}})
    await until(lambda: len(api.all("api/v1/pods")) == 1, "one worker left", 15)
    await until(lambda: api.get(f"{POOLS}/vision")["status"]["replicas"] == 1, "the status")


@pytest.mark.usefixtures("serving")
async def test_a_new_template_replaces_the_workers_by_new_ones(api, until):
    (old,) = api.all(DEPLOYMENTS)
    document = api.get(f"{POOLS}/vision")
    spec = {**document["spec"], "template": pool("file:///opt/models/other")["spec"]["template"]}
    api.put(f"{POOLS}/vision", {**document, "spec": spec})
    await until(lambda: set(api.all(DEPLOYMENTS)) - {old}, "the new worker set")
    await until(lambda: old not in api.all(DEPLOYMENTS), "the end of the old one", 15)
    workers = await until(
        lambda: len(w := api.get(TABLE)["spec"]["workers"]) == 2 and w, "two workers"
    )
    revision = only(api.all(DEPLOYMENTS))["metadata"]["labels"]["tidegate.dev/revision"]
    assert {worker["revision"] for worker in workers} == {revision}


@pytest.mark.usefixtures("serving")
async def test_an_invalid_pool_says_which_field_and_touches_no_worker(api, until):
    document = api.get(f"{POOLS}/vision")
    spec = {**document["spec"], "template": {"models": [{"name": "resnet50", "source": {}}]}}
    api.put(f"{POOLS}/vision", {**document, "spec": spec})
    await until(lambda: condition(api) == ("False", "InvalidSpec"), "the condition")
    assert condition(api, "Stalled") == ("True", "InvalidSpec")
    messages = {e["message"] for e in api.all("api/v1/events").values()}
    assert any("spec.template.models[0].source" in text for text in messages)
    assert len(api.all("api/v1/pods")) == 2


async def test_a_refused_object_is_named_and_holds_up_nothing_else(api, start, until):
    api.fault = lambda verb, path: 403 if verb == "PATCH" and "networkpolicies" in path else None
    api.put(f"{POOLS}/vision", pool())
    start()
    words = "NetworkPolicy vision was refused"
    await until(lambda: words in verdict(api).get("message", ""), "the refusal in the status")
    await until(lambda: len(api.all("api/v1/pods")) == 2, "workers all the same")
    assert api.count("PATCH", "networkpolicies") == 1, "refused for good: not asked again at once"


async def test_a_refused_table_does_not_hold_up_the_workers(api, start, until):
    api.fault = lambda verb, path: 403 if verb == "POST" and "routetables" in path else None
    api.put(f"{POOLS}/vision", pool())
    start()
    await until(lambda: len(api.all("api/v1/pods")) == 2, "workers all the same")
    await until(lambda: condition(api), "a verdict")
    assert api.count("POST", "routetables") == 1


async def test_an_object_of_somebody_else_is_never_taken_over(api, start, until):
    theirs = {"metadata": {"labels": {"theirs": "yes"}}, "spec": {"maxUnavailable": 0}}
    path = "/apis/policy/v1/namespaces/ml/poddisruptionbudgets/vision"
    api.put(path, theirs)
    api.put(f"{POOLS}/vision", pool())
    start()
    await until(lambda: condition(api, "Stalled") == ("True", "NameConflict"), "the condition")
    assert api.get(path)["spec"] == {"maxUnavailable": 0}
    assert "ownerReferences" not in api.get(path)["metadata"]


async def test_the_table_of_an_earlier_pool_of_this_name_is_not_taken_over(api, start, until):
    owner = {"kind": "InferencePool", "name": "vision", "uid": "gone", "controller": True}
    old = {"kind": "RouteTable", "metadata": {"ownerReferences": [owner]}, "spec": {}}
    api.put(TABLE, old)
    api.put(f"{POOLS}/vision", pool())
    start()
    await until(lambda: len(api.all("api/v1/pods")) == 2, "workers")
    assert api.get(TABLE)["metadata"]["ownerReferences"] == [owner]
    api.drop(TABLE)  # as the garbage collector will
    await until(lambda: (api.get(TABLE) or {"spec": {}})["spec"].get("workers"), "a new table")


async def test_a_terminating_pool_is_left_alone(api, serving, until):
    document = api.get(f"{POOLS}/vision")
    meta = {**document["metadata"], "deletionTimestamp": "2026-01-02T00:00:00Z"}
    api.put(f"{POOLS}/vision", {**document, "metadata": meta})
    count = reconciles(serving)
    await until(lambda: reconciles(serving) >= count + 2, "two reconciles")
    writes = len(api.writes())
    name = only(api.all("api/v1/services"))["metadata"]["name"]
    api.drop(f"/api/v1/namespaces/ml/services/{name}")
    count = reconciles(serving)
    await until(lambda: reconciles(serving) >= count + 3, "three more reconciles")
    assert len(api.writes()) == writes


async def test_a_deleted_pool_is_forgotten(api, serving, until):
    api.drop(f"{POOLS}/vision")
    await until(lambda: not serving.reconciler.records, "nothing to be left of it")


async def test_a_pool_of_another_release_is_left_alone(api, start, until):
    claim = {"operator": {"name": "other", "namespace": "elsewhere"}}
    api.put(f"{POOLS}/theirs", {**pool(), "metadata": {"name": "theirs"}, "status": claim})
    broken = {**pool(), "metadata": {"name": "broken"}, "status": claim}
    broken["spec"] = {**broken["spec"], "template": {"models": []}}
    api.put(f"{POOLS}/broken", broken)
    api.put(f"{POOLS}/vision", pool())
    start()
    await until(lambda: condition(api) == ("True", "AsDesired"), "our own pool")
    assert not [path for _, path in api.writes() if "theirs" in path or "broken" in path]


async def test_a_release_that_loses_the_race_for_a_new_pool_makes_nothing(api, start, until):
    stolen = False

    def steal(method, path):
        nonlocal stolen
        if method == "PUT" and path.endswith("/status") and not stolen:
            stolen = True
            claim = {"operator": {"name": "other", "namespace": "elsewhere"}}
            api.put(f"{POOLS}/vision", {**api.get(f"{POOLS}/vision"), "status": claim})

    api.fault = steal
    parts, _ = start()
    api.put(f"{POOLS}/vision", pool())
    await until(lambda: reconciles(parts, "conflict") == 1, "the lost race")
    await until(lambda: reconciles(parts) >= 2, "two more reconciles")
    assert [path for _, path in api.writes()] == [f"{POOLS}/vision/status"]
    assert set(api.objects) == {("apis/tidegate.dev/v1alpha1/inferencepools", "ml", "vision")}


async def test_nothing_is_written_once_the_lease_is_lost(api, start, until):
    leading = True
    api.put(f"{POOLS}/vision", pool())
    parts, task = start(lambda: leading)
    await until(lambda: condition(api) == ("True", "AsDesired"), "a Ready pool")
    leading = False
    writes = len(api.writes())
    api.drop(TABLE)
    await until(task.done, "the end of the leading work")
    assert task.exception() is not None
    assert len(api.writes()) == writes
    assert parts is not None


@pytest.mark.usefixtures("serving")
async def test_an_api_server_that_fails_for_a_while_is_outlived(api, until):
    api.fault = lambda _verb, _path: 503
    document = api.get(f"{POOLS}/vision")
    api.put(f"{POOLS}/vision", {**document, "spec": {**document["spec"], "replicas": 3}})
    for collection in list(api.watches):
        api.send(collection, None)
    await until(lambda: api.count("GET", "/inferencepools") >= 2, "the watch to be tried")
    api.fault = lambda _verb, _path: None
    await until(lambda: len(api.all("api/v1/pods")) == 3, "the edit to be carried out", 15)


async def test_a_status_written_by_somebody_else_meanwhile_is_read_again(api, serving, until):
    failures = iter([409, 409])
    api.fault = lambda _verb, path: next(failures, None) if path.endswith("/status") else None
    document = api.get(f"{POOLS}/vision")
    api.put(f"{POOLS}/vision", {**document, "spec": {**document["spec"], "replicas": 3}})
    await until(lambda: api.get(f"{POOLS}/vision")["status"]["replicas"] == 3, "the status")
    assert reconciles(serving, "conflict") == 2


async def test_an_event_is_said_once(api, serving, until):
    count = reconciles(serving)
    await until(lambda: reconciles(serving) >= count + 3, "three more reconciles")
    reasons = [event["reason"] for event in api.all("api/v1/events").values()]
    assert reasons.count(EventReason.POOL_READY) == 1


async def test_an_operator_that_takes_over_changes_nothing(api, start, until):
    api.put(f"{POOLS}/vision", pool())
    _, first = start()
    await until(lambda: condition(api) == ("True", "AsDesired"), "a Ready pool")
    await until(lambda: len(api.get(TABLE)["spec"]["workers"]) == 2, "the table")
    await until(lambda: only(api.all(DEPLOYMENTS))["status"]["readyReplicas"] == 2, "the kubelet")
    first.cancel()
    await asyncio.wait([first])
    before = {key: item["metadata"]["resourceVersion"] for key, item in api.objects.items()}
    parts, _ = start()
    await until(lambda: reconciles(parts) >= 3, "three reconciles of the second one")
    after = {key: item["metadata"]["resourceVersion"] for key, item in api.objects.items()}
    changed = {key[0] for key in before if before[key] != after.get(key)}
    assert changed <= {"apis/tidegate.dev/v1alpha1/routetables"}, "scores begin anew, no more"
