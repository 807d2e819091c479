"""The list+watch cache against an API server that breaks its watches in every known way."""

import asyncio

import pytest

from tidegate_api.names import LABEL_POOL
from tidegate_operator.adapters.watch import ObjectCache, Selection, WatchTimes
from tidegate_operator.caches import PODS

PODS_PATH = "/api/v1/namespaces/ml/pods"
COLLECTION = "api/v1/pods"


def labelled(pool="vision", **more):
    return {"metadata": {"labels": {LABEL_POOL: pool}}, **more}


@pytest.fixture
def changes():
    return []


@pytest.fixture
async def cache(api, client, background, until, changes):
    """A running cache that has seen pods a and b."""
    api.put(f"{PODS_PATH}/a", labelled())
    api.put(f"{PODS_PATH}/b", labelled())
    made = ObjectCache(
        client,
        Selection(PODS, labels=LABEL_POOL),
        lambda item: changes.append(item["metadata"]["name"]),
    )
    background(made.run())
    await until(lambda: api.watches.get(COLLECTION), "a watch")
    changes.clear()
    return made


def held(cache, pool="vision"):
    return sorted(item["metadata"]["name"] for item in cache.of_pool("ml", pool))


async def test_a_list_in_pages_is_taken_whole(api, client, background):
    api.page = 2
    for number in range(5):
        api.put(f"{PODS_PATH}/p{number}", labelled())
    cache = ObjectCache(client, Selection(PODS, labels=LABEL_POOL), lambda _: None)
    background(cache.run())
    await asyncio.wait_for(cache.synced.wait(), 5)
    assert held(cache) == ["p0", "p1", "p2", "p3", "p4"]
    assert {item["kind"] for item in cache} == {"Pod"}


async def test_objects_without_the_label_are_not_held(api, cache, until):
    api.put(f"{PODS_PATH}/stranger", {"metadata": {}})
    api.put(f"{PODS_PATH}/c", labelled())
    await until(lambda: cache.get("ml", "c"), "the new pod")
    assert cache.get("ml", "stranger") is None


async def test_events_come_in_at_once_and_are_told(api, cache, until, changes):
    api.put(f"{PODS_PATH}/c", labelled())
    await until(lambda: held(cache) == ["a", "b", "c"], "the new pod")
    api.drop(f"{PODS_PATH}/a")
    await until(lambda: held(cache) == ["b", "c"], "the deletion")
    assert changes == ["c", "a"]


async def test_a_pod_deleted_while_the_watch_was_away_leaves_no_ghost(api, cache, until, changes):
    api.forget_quietly(f"{PODS_PATH}/a")
    api.send(COLLECTION, None)
    await until(lambda: held(cache) == ["b"], "the re-list")
    assert "a" in changes, "who looks after a's pool must hear that it is gone"


async def test_a_410_within_the_stream_lists_again(api, cache, until):
    api.forget_quietly(f"{PODS_PATH}/a")
    status = {"kind": "Status", "code": 410, "message": "too old resource version"}
    api.send(COLLECTION, {"type": "ERROR", "object": status})
    await until(lambda: held(cache) == ["b"], "the re-list")


async def test_a_watch_from_a_compacted_version_lists_again(api, cache, until):
    api.compacted = api.latest + 1
    api.send(COLLECTION, None)
    await until(lambda: api.count("GET", "/pods") >= 3, "a list after each refused watch")
    api.compacted = 0
    api.put(f"{PODS_PATH}/c", labelled())
    await until(lambda: held(cache) == ["a", "b", "c"], "the watch to be back")


@pytest.mark.usefixtures("cache")
async def test_an_error_500_in_every_stream_does_not_become_a_storm_of_lists(api, until):
    api.compacted = api.latest + 1_000_000
    api.send(COLLECTION, None)
    began = asyncio.get_running_loop().time()
    await until(lambda: api.count("GET", "/pods") >= 4, "three more lists")
    assert asyncio.get_running_loop().time() - began > 0.2 + 0.4


async def test_a_refused_watch_and_an_absent_server_are_tried_again(api, cache, until):
    api.fault = lambda method, _path: 503 if method in {"WATCH", "GET"} else None
    api.send(COLLECTION, None)
    await until(lambda: api.count("GET", "/pods") >= 2, "an attempt")
    assert held(cache) == ["a", "b"], "what is known is kept meanwhile"
    api.fault = lambda _method, _path: None
    api.put(f"{PODS_PATH}/c", labelled())
    await until(lambda: held(cache) == ["a", "b", "c"], "recovery")


async def test_a_line_that_is_no_json_breaks_the_watch_and_not_the_cache(api, cache, until):
    api.forget_quietly(f"{PODS_PATH}/a")
    api.send(COLLECTION, "<html>gateway</html>")
    await until(lambda: held(cache) == ["b"], "the re-list")


async def test_bookmarks_change_nothing_but_count_as_a_sign_of_life(api, cache, until, changes):
    before = cache.heard_at_s
    mark = {"kind": "Pod", "metadata": {"resourceVersion": "99"}}
    api.send(COLLECTION, {"type": "BOOKMARK", "object": mark})
    await until(lambda: cache.heard_at_s > before, "the bookmark")
    assert (held(cache), changes) == (["a", "b"], [])


async def test_the_answer_to_an_own_write_is_known_at_once(cache):
    answer = labelled(kind="Pod")
    answer["metadata"] |= {"name": "c", "namespace": "ml", "resourceVersion": "50"}
    cache.learn(answer)
    assert held(cache) == ["a", "b", "c"]


async def test_a_lagging_watch_does_not_undo_the_answer_to_an_own_write(api, cache, until, changes):
    newer = labelled(kind="Pod", spec={"new": True})
    newer["metadata"] |= {"name": "a", "namespace": "ml", "resourceVersion": "1000"}
    cache.learn(newer)
    api.put(f"{PODS_PATH}/a", labelled(spec={"old": True}))
    await until(lambda: "a" in changes, "the late event")
    assert cache.get("ml", "a")["spec"] == {"new": True}


async def test_a_late_answer_does_not_bring_a_deleted_object_back(api, cache, until):
    late = labelled(kind="Pod")
    late["metadata"] |= {"name": "a", "namespace": "ml", "resourceVersion": str(api.latest)}
    api.drop(f"{PODS_PATH}/a")
    await until(lambda: held(cache) == ["b"], "the deletion")
    cache.learn(late)
    assert held(cache) == ["b"]


async def test_a_changed_label_moves_a_pod_to_the_other_pool(api, cache, until):
    api.put(f"{PODS_PATH}/a", labelled("language"))
    await until(lambda: held(cache, "language") == ["a"], "the move")
    assert held(cache) == ["b"]


async def test_one_namespace_alone_is_listed_where_one_is_named(api, client, background):
    api.put(f"{PODS_PATH}/a", labelled())
    api.put("/api/v1/namespaces/other/pods/z", labelled())
    cache = ObjectCache(client, Selection(PODS, "ml", LABEL_POOL), lambda _: None)
    background(cache.run())
    await asyncio.wait_for(cache.synced.wait(), 5)
    assert [item["metadata"]["name"] for item in cache] == ["a"]
    assert not cache.covers("other")
    assert api.count("GET", "/api/v1/namespaces/ml/pods") == 1


@pytest.fixture
def quick(api, client, background):
    """Return `quick(**times)`: a running cache whose watches count as long after 0 s."""
    api.put(f"{PODS_PATH}/a", labelled())

    def start(**times):
        made = ObjectCache(
            client, Selection(PODS), lambda _: None, WatchTimes(lasted_s=0.0, **times)
        )
        background(made.run())
        return made

    return start


async def test_a_watch_that_ended_in_its_time_is_taken_up_without_a_list(api, quick, until):
    cache = quick()
    await until(lambda: api.watches.get(COLLECTION), "a watch")
    api.put(f"{PODS_PATH}/b", labelled())
    await until(lambda: held(cache) == ["a", "b"], "an event")
    api.send(COLLECTION, None)
    api.put(f"{PODS_PATH}/c", labelled())
    await until(lambda: held(cache) == ["a", "b", "c"], "what happened in between")
    assert (api.count("GET", "/pods"), api.count("WATCH", "/pods")) == (1, 2)


async def test_all_is_listed_again_after_a_while_in_any_case(api, quick, until):
    cache = quick(relist_s=(0.1, 0.2))
    await until(lambda: api.watches.get(COLLECTION), "a watch")
    api.forget_quietly(f"{PODS_PATH}/a")

    def gone():
        api.send(COLLECTION, None)
        return not list(cache)

    await until(gone, "a list after one of the watches")
    assert api.count("WATCH", "/pods") >= 2, "not each end of a watch is a reason to list"


async def test_a_stream_that_hangs_is_given_up(api, quick, until):
    cache = quick(silence_s=0.3)
    await until(lambda: cache.get("ml", "a"), "the list")
    api.forget_quietly(f"{PODS_PATH}/a")
    await until(lambda: not list(cache), "the list after the silence")
