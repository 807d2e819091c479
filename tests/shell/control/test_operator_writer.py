"""What the writer applies, leaves alone and remembers, against the fake API server."""

import asyncio

import pytest

from tidegate_api.names import LABEL_POOL
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.decision import Deletion, Manifest
from tidegate_operator.core.reading import DELETION_COST
from tidegate_operator.writer import NotLeadingError, Writer

KEY, UID = PoolKey("ml", "vision"), "pool-1"
SERVICE = "/api/v1/namespaces/ml/services/vision"
CONFIG = "/api/v1/namespaces/ml/configmaps/vision-models"
OWNER = {"kind": "InferencePool", "name": "vision", "uid": UID, "controller": True}


def manifest(kind="Service", name="vision", **fields):
    version = "v1"
    meta = {"name": name, "labels": {LABEL_POOL: "vision"}, "ownerReferences": [OWNER]}
    body = {"apiVersion": version, "kind": kind, "metadata": meta, **fields}
    return Manifest(kind=kind, name=name, body=body)


@pytest.fixture
async def caches(client, background):
    made = Caches(client, (), "", lambda _key: None)
    for cache in made.all:
        background(cache.run())
    await asyncio.wait_for(made.synced(), 8)
    return made


@pytest.fixture
def leading():
    return [True]


@pytest.fixture
def writer(client, caches, leading):
    return Writer(client, caches, lambda: leading[0])


async def apply(writer, *manifests):
    for one in manifests:
        await writer.apply(KEY, UID, one)


def patches(api, part="services"):
    return api.count("PATCH", part)


async def test_what_is_as_applied_is_not_applied_again(api, writer):
    await apply(writer, manifest(spec={"a": 1}), manifest(spec={"a": 1}), manifest(spec={"a": 1}))
    assert patches(api) == 1
    await apply(writer, manifest(spec={"a": 2}))
    assert patches(api) == 2
    assert api.get(SERVICE)["spec"] == {"a": 2}


async def test_a_config_map_that_no_cache_holds_is_not_applied_again_either(api, writer):
    one = manifest("ConfigMap", "vision-models", data={"a": "1"})
    await apply(writer, one, one)
    assert patches(api, "configmaps") == 1
    assert [owned.name for owned in writer.unlisted(UID)] == ["vision-models"]


async def test_a_name_that_somebody_else_took_meanwhile_is_not_taken_back(
    api, caches, writer, until
):
    await apply(writer, manifest(spec={"a": 1}))
    api.drop(SERVICE)
    api.put(SERVICE, {"spec": {"theirs": 1}})
    await until(lambda: caches.get("Service", KEY) is None, "the deletion")
    await apply(writer, manifest(spec={"a": 1}), manifest(spec={"a": 2}))
    assert api.get(SERVICE)["spec"] == {"theirs": 1}
    assert [(o.kind, o.name, o.controller_uid) for o in writer.unlisted(UID)] == [
        ("Service", "vision", None)
    ]


async def test_a_config_map_that_somebody_else_put_in_place_of_ours_is_left_alone(api, writer):
    await apply(writer, manifest("ConfigMap", "vision-models", data={"a": "1"}))
    api.drop(CONFIG)
    api.put(CONFIG, {"data": {"theirs": "1"}})
    await apply(writer, manifest("ConfigMap", "vision-models", data={"a": "2"}))
    assert api.get(CONFIG)["data"] == {"theirs": "1"}


async def test_an_own_object_whose_owner_was_edited_is_repaired(api, caches, writer, until):
    await apply(writer, manifest(spec={"a": 1}))
    meta = {**api.get(SERVICE)["metadata"], "ownerReferences": []}
    edited = api.put(SERVICE, {"metadata": meta, "spec": {"a": 1}})["metadata"]["resourceVersion"]
    await until(
        lambda: caches.get("Service", KEY)["metadata"]["resourceVersion"] == edited, "the edit"
    )
    await apply(writer, manifest(spec={"a": 1}))
    assert api.get(SERVICE)["metadata"]["ownerReferences"] == [OWNER]


async def test_an_own_object_that_was_deleted_comes_back(api, caches, writer, until):
    await apply(writer, manifest(spec={"a": 1}))
    api.drop(SERVICE)
    await until(lambda: caches.get("Service", KEY) is None, "the deletion")
    await apply(writer, manifest(spec={"a": 1}))
    assert api.get(SERVICE)["spec"] == {"a": 1}


async def test_an_object_of_a_deleted_pool_of_this_name_is_foreign(api, writer):
    former = {"metadata": {"ownerReferences": [{**OWNER, "uid": "pool-0"}]}, "spec": {"a": 0}}
    api.put(SERVICE, former)
    await apply(writer, manifest(spec={"a": 1}))
    assert api.get(SERVICE)["spec"] == {"a": 0}
    assert writer.unlisted(UID)[0].controller_uid == "pool-0"
    assert patches(api) == 0


async def test_a_refused_write_is_remembered_and_not_repeated(api, writer):
    api.fault = lambda method, path: 422 if method == "PATCH" and "services" in path else None
    await apply(
        writer, manifest(spec={"a": 1}), manifest(spec={"a": 1}), manifest("ConfigMap", "x")
    )
    assert patches(api) == 1
    assert patches(api, "configmaps/x") == 1
    (refused,) = writer.refused(UID)
    assert (refused.kind, refused.name) == ("Service", "vision")
    assert "broken on purpose" in refused.message
    assert writer.refused("another pool") == []


async def test_nothing_is_written_without_the_lease(api, writer, leading):
    leading[0] = False
    gone = Deletion(kind="Service", name="vision", uid="u")
    for work in (
        writer.apply(KEY, UID, manifest()),
        writer.delete(KEY, UID, gone),
        writer.annotate(KEY, "pod", DELETION_COST, "1"),
    ):
        with pytest.raises(NotLeadingError):
            await work
    assert api.writes() == []


async def test_only_the_object_that_was_decided_on_is_deleted(api, writer):
    await apply(writer, manifest(spec={"a": 1}))
    await writer.delete(KEY, UID, Deletion(kind="Service", name="vision", uid="an earlier one"))
    assert api.get(SERVICE) is not None
    uid = api.get(SERVICE)["metadata"]["uid"]
    await writer.delete(KEY, UID, Deletion(kind="Service", name="vision", uid=uid))
    assert api.get(SERVICE) is None
    await writer.delete(KEY, UID, Deletion(kind="Service", name="vision", uid=uid))


async def test_the_cost_of_a_worker_that_is_gone_is_nobodys(api, writer):
    await writer.annotate(KEY, "gone", DELETION_COST, "-1")
    assert api.count("PATCH", "pods/gone") == 1
    assert api.get("/api/v1/namespaces/ml/pods/gone") is None


async def test_the_cost_of_a_worker_is_all_that_changes(api, caches, writer):
    pod = "/api/v1/namespaces/ml/pods/w1"
    api.put(pod, {"metadata": {"labels": {LABEL_POOL: "vision"}, "annotations": {"a": "b"}}})
    await writer.annotate(KEY, "w1", DELETION_COST, "-7")
    wanted = {"a": "b", "controller.kubernetes.io/pod-deletion-cost": "-7"}
    assert api.get(pod)["metadata"]["annotations"] == wanted
    assert api.get(pod)["metadata"]["labels"] == {LABEL_POOL: "vision"}
    assert caches.get("Pod", KEY, "w1")["metadata"]["annotations"] == wanted


async def test_what_was_applied_for_a_pool_that_is_gone_is_forgotten(api, writer):
    await apply(writer, manifest("ConfigMap", "vision-models", data={}))
    writer.forget({UID})
    assert writer.unlisted(UID)
    writer.forget({"another"})
    assert writer.unlisted(UID) == []
    assert patches(api, "configmaps") == 1
