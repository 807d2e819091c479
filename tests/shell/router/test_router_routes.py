"""Routes over several namespaces, and a snapshot whose folder fails."""

import asyncio

import pytest

from tidegate_api.names import LABEL_POOL, LABEL_REVISION
from tidegate_router.adapters import snapshot
from tidegate_router.adapters.kube import KubeError
from tidegate_router.adapters.routes import KubernetesRoutes, keep_snapshot


def document(spec, namespace, name="vision"):
    return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}


@pytest.fixture
def table_in(kit):
    """Return `table_in(namespace)`: a table of pool `vision` there, as JSON."""

    def make(namespace, sequence=1):
        spec = kit.table(sequence=sequence).to_wire()
        spec["pool"] |= {"namespace": namespace, "uid": f"uid-{namespace}"}
        return document(spec, namespace)

    return make


@pytest.fixture
def routes(router):
    return router.routes


def served(routes):
    return sorted(routes.book.applied)


def test_a_router_of_two_namespaces_is_ready_when_both_were_listed(routes, table_in):
    routes.tables_listed("a", [table_in("a")], 2)
    assert (routes.ready, served(routes)) == (False, [])
    routes.tables_listed("b", [], 2)
    assert (routes.ready, routes.synced, served(routes)) == (True, True, ["uid-a"])


def test_a_list_of_one_namespace_leaves_the_other_alone(routes, table_in):
    routes.tables_listed("a", [table_in("a")], 2)
    routes.tables_listed("b", [table_in("b")], 2)
    routes.tables_listed("b", [], 2)
    assert served(routes) == ["uid-a"]


def test_an_unreadable_table_keeps_its_pool_when_another_namespace_is_listed(routes, table_in, kit):
    snapshot_of_a = kit.table()
    pool = snapshot_of_a.pool.model_copy(update={"namespace": "a", "uid": "uid-a"})
    routes.restore([snapshot_of_a.model_copy(update={"pool": pool})])
    routes.tables_listed("a", [document({"schema": "of a later version"}, "a")], 2)
    routes.tables_listed("b", [table_in("b")], 2)
    assert served(routes) == ["uid-a", "uid-b"]
    routes.tables_listed("b", [], 2)
    assert served(routes) == ["uid-a"]
    routes.tables_listed("a", [], 2)
    assert served(routes) == []


def test_an_unreadable_table_is_said_once_a_list(routes, caplog):
    routes.tables_listed("", [document({"schema": "of a later version"}, "a")], 1)
    assert caplog.text.count("RouteTable a/vision is left aside") == 1


def a_slice(pool, *, terminating=False):
    entry = {
        "addresses": ["127.0.0.1"],
        "targetRef": {"uid": "w", "name": "w"},
        "conditions": {"serving": True, "terminating": terminating},
    }
    labels = {LABEL_POOL: pool, LABEL_REVISION: "r1"}
    meta = {"namespace": "ml", "name": "slice-1", "labels": labels}
    return {"metadata": meta, "endpoints": [entry]}


def test_a_slice_that_moves_to_another_pool_leaves_the_first(routes):
    routes.slice_event("ADDED", a_slice("one"))
    routes.slice_event("MODIFIED", a_slice("two"))
    assert routes.dispatcher.endpoints.pools() == {("ml", "two")}
    routes.slice_event("DELETED", a_slice("two"))
    assert routes.dispatcher.endpoints.pools() == set()


def test_a_list_of_slices_drops_what_is_gone_in_its_namespace_only(routes):
    other = a_slice("far")
    other["metadata"]["namespace"] = "else"
    routes.slices_listed("", [a_slice("one"), other])
    routes.slices_listed("ml", [])
    assert routes.dispatcher.endpoints.pools() == {("else", "far")}


class Reader:
    """An API server of two namespaces, of which one may be away; watches end at once."""

    def __init__(self, items):
        self.items, self.away, self.lists = items, set(), []

    async def list(self, path, _query):
        await asyncio.sleep(0)
        self.lists.append(path)
        if any(f"/{namespace}/" in path for namespace in self.away):
            raise KubeError(path)
        return self.items if path.endswith("routetables") else [], "1"

    async def watch(self, _path, _query, _version):
        await asyncio.sleep(0)
        for nothing in ():
            yield nothing


@pytest.fixture
async def follow(routes):
    tasks = []

    def start(reader, *namespaces):
        source = KubernetesRoutes(routes, reader, namespaces, "system", lost_after_s=0.3)
        tasks.append(asyncio.create_task(source.run()))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_one_namespace_that_cannot_be_listed_makes_the_whole_unsynced(routes, follow, kit):
    reader = Reader([])
    follow(reader, "a", "b")
    await kit.eventually(lambda: routes.synced)
    reader.away.add("a")
    await kit.eventually(lambda: not routes.synced)
    lists = len(reader.lists)
    tables_of_b = "/apis/tidegate.dev/v1alpha1/namespaces/b/routetables"
    await kit.eventually(lambda: tables_of_b in reader.lists[lists:])
    assert not routes.synced, "a list of b says nothing about a"
    reader.away.clear()
    await kit.eventually(lambda: routes.synced)


async def test_watches_that_end_at_once_do_not_become_a_storm_of_lists(follow, kit):
    reader = Reader([])
    follow(reader)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await kit.eventually(lambda: len(reader.lists) >= 3 * 4)
    # Pauses of 0.2, 0.4 and 0.8 s lie between four lists of each of three paths.
    assert loop.time() - began_s >= 1.3


async def test_a_snapshot_that_could_not_be_written_is_written_later(router, kit, tmp_path, caplog):
    folder = tmp_path / "state"
    keeping = asyncio.create_task(
        keep_snapshot(router.routes, folder / "tables.json", after_s=0.0, period_s=0.05)
    )
    try:
        router.serve(kit.table())
        await kit.eventually(lambda: "was not written" in caplog.text)
        folder.mkdir()
        await kit.eventually((folder / "tables.json").exists)
    finally:
        keeping.cancel()
    found = snapshot.read(folder / "tables.json")
    assert [table.pool.name for table in found] == ["vision"]
