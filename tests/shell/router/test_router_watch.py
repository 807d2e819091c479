"""Tables, endpoints and the Lease from an API server: a fake one that really lists and watches."""

import asyncio
import json

import pytest
import yaml
from aiohttp import web

from tidegate_api.routetable import split
from tidegate_router.adapters import kube
from tidegate_router.adapters.routes import KubernetesRoutes, keep_snapshot

TABLES = "/apis/tidegate.dev/v1alpha1/routetables"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/tidegate-system/leases"


class FakeApi:
    """Collections by path. A watch sends what changed after the version that it asks for."""

    def __init__(self):
        self.port, self.version, self.runner = 0, 100, None
        self.objects = {}  # path: {(namespace, name): object}
        self.events = {}  # path: [(version, type, object)]
        self.lists, self.queries = [], []
        self.broken = self.expired = False
        self.watches = {}
        self.changed = asyncio.Condition()

    async def start(self):
        app = web.Application()
        app.router.add_get("/{path:.*}", self._get)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", self.port).start()
        self.port = self.runner.addresses[0][1]

    async def stop(self):
        runner, self.runner = self.runner, None
        if runner is not None:
            self.cut()
            await runner.cleanup()

    def cut(self):
        """Break every watch."""
        cut, self.watches = self.watches, {}
        for request in cut.values():
            if request.transport is not None:
                request.transport.abort()

    async def put(self, path, item, kind=None):
        key = (item["metadata"].get("namespace"), item["metadata"]["name"])
        known = self.objects.setdefault(path, {})
        await self._send(path, kind or ("MODIFIED" if key in known else "ADDED"), item)
        known[key] = item

    async def delete(self, path, namespace, name):
        item = self.objects[path].pop((namespace, name))
        await self._send(path, "DELETED", item)

    async def _send(self, path, kind, item):
        async with self.changed:
            self.version += 1
            self.events.setdefault(path, []).append((self.version, kind, item))
            self.changed.notify_all()

    async def _get(self, request):
        path = request.path
        self.queries.append((path, dict(request.query)))
        if self.broken:
            return web.Response(status=500)
        if request.query.get("watch"):
            return await self._watch(request, path, int(request.query["resourceVersion"]))
        self.lists.append(path)
        found = list(self.objects.get(path, {}).values())
        start = int(request.query.get("continue", 0))
        page = found[start : start + 2]  # small pages, so that paging is used
        metadata = {"resourceVersion": str(self.version)}
        if start + 2 < len(found):
            metadata["continue"] = str(start + 2)
        return web.json_response({"items": page, "metadata": metadata})

    async def _watch(self, request, path, version):
        if self.expired:
            self.expired = False
            return web.Response(status=410)
        answer = web.StreamResponse()
        await answer.prepare(request)
        self.watches[id(request)] = request
        try:
            while True:
                for at, kind, item in self.events.get(path, []):
                    if at > version:
                        version = at
                        await answer.write(
                            json.dumps({"type": kind, "object": item}).encode() + b"\n"
                        )
                async with self.changed:
                    await self.changed.wait()
        finally:
            self.watches.pop(id(request), None)


@pytest.fixture
async def api():
    one = FakeApi()
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def kubeconfig(api, tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    return str(path)


@pytest.fixture
async def follow(router, kubeconfig):
    """Start following; the router's Routes come back."""
    reader = await kube.connect(kubeconfig)
    tasks = []

    def start(*namespaces):
        source = KubernetesRoutes(
            router.routes, reader, namespaces, "tidegate-system", lost_after_s=0.3
        )
        tasks.append(asyncio.create_task(source.run()))
        return router.routes

    yield start
    for task in tasks:
        task.cancel()
        await asyncio.wait({task})
    await reader.close()


def as_object(spec, name=None):
    metadata = {"namespace": spec.pool.namespace, "name": name or spec.pool.name}
    return {"metadata": metadata, "spec": spec.to_wire()}


def a_slice(*entries, name="s", pool="vision", revision="r1"):
    labels = {
        "tidegate.dev/pool": pool,
        "tidegate.dev/revision": revision,
        "tidegate.dev/class": "cpu",
    }
    return {
        "metadata": {"namespace": "ml", "name": name, "labels": labels},
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": [
            {
                "targetRef": {"uid": uid, "name": uid},
                "addresses": ["127.0.0.1"],
                "conditions": {"serving": not terminating, "terminating": terminating},
            }
            for uid, terminating in entries
        ],
    }


def sequences(routes):
    return {uid: table.sequence for uid, table in routes.book.applied.items()}


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


async def test_the_router_is_ready_with_the_first_list_even_an_empty_one(api, follow, kit, router):
    assert (await router.ask("GET", "/readyz"))[0].status == 503
    routes = follow()
    await kit.eventually(lambda: routes.ready and routes.synced)
    assert (await router.ask("GET", "/readyz"))[0].status == 200
    assert TABLES in api.lists


async def test_tables_that_are_listed_and_watched_are_applied(api, follow, kit, router, worker):
    for number in range(5):  # more than one page
        await api.put(TABLES, as_object(kit.table(name=f"p{number}")))
    routes = follow()
    await kit.eventually(lambda: len(sequences(routes)) == 5)
    await api.put(TABLES, as_object(kit.table(kit.routed(worker), name="p3", sequence=2)))
    await kit.eventually(lambda: sequences(routes)["uid-p3"] == 2)
    assert (await router.infer())[0].status == 200
    await api.delete(TABLES, "ml", "p3")
    await kit.eventually(lambda: "uid-p3" not in sequences(routes))
    assert (await router.infer())[0].status == 404


async def test_a_lower_sequence_in_a_watch_event_is_refused(api, follow, kit):
    await api.put(TABLES, as_object(kit.table(sequence=9)))
    routes = follow()
    await kit.eventually(lambda: sequences(routes))
    await api.put(TABLES, as_object(kit.table(sequence=4)))
    await api.put(TABLES, as_object(kit.table(name="later")))
    await kit.eventually(lambda: "uid-later" in sequences(routes))
    assert sequences(routes)["uid-vision"] == 9


async def test_a_table_in_parts_is_applied_when_all_are_there(api, follow, kit, router, worker):
    models = [kit.routed(worker, model=model) for model in ("m", "n", "o")]
    index, parts = split(kit.table(*models, sequence=3), max_bytes=400)
    assert len(parts) == 3
    routes = follow()
    await kit.eventually(lambda: routes.ready)
    await api.put(TABLES, as_object(index))
    documents = [as_object(part, name) for name, part in parts.items()]
    for document in documents[:-1]:
        await api.put(TABLES, document)
    assert sequences(routes) == {}
    await api.put(TABLES, documents[-1])
    await kit.eventually(lambda: sequences(routes) == {"uid-vision": 3})
    assert (await router.infer())[0].status == 200


async def test_a_broken_watch_is_followed_by_a_list(api, follow, kit):
    routes = follow()
    await kit.eventually(lambda: len(api.watches) == 3)
    before = len(api.lists)
    api.objects.setdefault(TABLES, {})["ml", "vision"] = as_object(kit.table(sequence=5))
    api.cut()
    await kit.eventually(lambda: sequences(routes) == {"uid-vision": 5})
    assert len(api.lists) > before
    assert routes.synced


async def test_an_expired_version_is_followed_by_a_list(api, follow, kit):
    api.expired = True
    routes = follow()
    await kit.eventually(lambda: routes.ready)
    await kit.eventually(lambda: len(api.watches) == 3)
    await api.put(TABLES, as_object(kit.table()))
    await kit.eventually(lambda: sequences(routes) == {"uid-vision": 1})


async def test_without_the_api_server_the_tables_stay_and_synced_is_false(
    api, follow, kit, router, worker
):
    await api.put(TABLES, as_object(kit.table(kit.routed(worker))))
    routes = follow()
    await kit.eventually(lambda: sequences(routes))
    await api.stop()
    await kit.eventually(lambda: not routes.synced)
    assert routes.ready
    assert (await router.infer())[0].status == 200
    await api.start()
    await kit.eventually(lambda: routes.synced)


async def test_an_unreadable_table_leaves_the_last_good_one(api, follow, kit):
    await api.put(TABLES, as_object(kit.table(sequence=5)))
    routes = follow()
    await kit.eventually(lambda: sequences(routes))
    newer = as_object(kit.table(sequence=6))
    newer["spec"]["schema"] = "routetable.v9"
    await api.put(TABLES, newer)
    await api.put(TABLES, as_object(kit.table(name="later")))
    await kit.eventually(lambda: "uid-later" in sequences(routes))
    assert sequences(routes)["uid-vision"] == 5
    api.cut()  # also a list that shows it
    lists = len(api.lists)
    await kit.eventually(lambda: api.lists[lists:].count(TABLES))
    await kit.eventually(lambda: len(api.watches) == 3)
    assert sequences(routes)["uid-vision"] == 5


async def test_only_the_chosen_namespaces_are_read(api, follow, kit):
    routes = follow("ml", "web")
    await kit.eventually(lambda: routes.ready)
    root = "/apis/tidegate.dev/v1alpha1/namespaces"
    paths = {path for path, _ in api.queries}
    assert {f"{root}/ml/routetables", f"{root}/web/routetables"} < paths
    assert TABLES not in paths


async def test_only_what_the_permissions_allow_is_asked_for(api, follow, kit):
    routes = follow()
    await kit.eventually(lambda: routes.ready and len(api.watches) == 3)
    assert {path for path, _ in api.queries} == {TABLES, SLICES, LEASES}
    asked = [query for path, query in api.queries if path == LEASES]
    assert all(query["fieldSelector"] == "metadata.name=tidegate-routes" for query in asked)
    asked = [query for path, query in api.queries if path == SLICES]
    assert all(query["labelSelector"] == "tidegate.dev/pool" for query in asked)


async def test_a_terminating_worker_gets_no_new_request_whatever_the_table_says(
    api, follow, kit, router, start_worker
):
    going, staying = await start_worker("going"), await start_worker("staying")
    await api.put(SLICES, a_slice(("uid-going", False), ("uid-staying", False)))
    await api.put(TABLES, as_object(kit.table(kit.routed(going), kit.routed(staying))))
    follow()
    await kit.eventually(lambda: _asked(router, going))
    await api.put(SLICES, a_slice(("uid-going", True), ("uid-staying", False)))
    await kit.eventually(lambda: _barred(router, "going"))
    before = len(going.seen)
    for _ in range(12):
        assert (await router.infer())[0].headers["x-tidegate-worker"] == "staying"
    assert len(going.seen) == before


async def _asked(router, worker):
    await router.infer()
    return worker.seen


async def _barred(router, name):
    rows = json.loads((await router.admin("/workers"))[1])
    return [row["eligible"] for row in rows if row["worker"] == name] == [False]


async def test_a_worker_that_left_its_service_gets_no_new_request(
    api, follow, kit, router, start_worker
):
    gone, staying = await start_worker("gone"), await start_worker("staying")
    await api.put(SLICES, a_slice(("uid-gone", False), ("uid-staying", False)))
    await api.put(TABLES, as_object(kit.table(kit.routed(gone), kit.routed(staying))))
    follow()
    await kit.eventually(lambda: _asked(router, gone))
    await api.put(SLICES, a_slice(("uid-staying", False)))
    await kit.eventually(lambda: _barred(router, "gone"))
    assert (await router.infer())[0].headers["x-tidegate-worker"] == "staying"


async def test_a_renewed_lease_proves_that_the_scores_live(api, follow, kit, router):
    def lease(renewed, lag):
        annotations = {"tidegate.dev/score-lag-ms": lag}
        metadata = {"namespace": "tidegate-system", "name": "tidegate-routes"}
        return {
            "metadata": {**metadata, "annotations": annotations},
            "spec": {"renewTime": renewed},
        }

    await api.put(LEASES, lease("t1", "0"))
    follow()
    proof = router.dispatcher.proof
    await kit.eventually(lambda: len(api.watches) == 3)
    assert proof.proven_s is None
    await api.put(LEASES, lease("t2", "1500"))
    await kit.eventually(lambda: proof.proven_s is not None)
    assert proof.lag_s == 1.5


@pytest.fixture
async def keep(tmp_path):
    """Keep a snapshot of a router's tables; its path comes back."""
    tasks, path = [], tmp_path / "snapshot.json"

    def start(routes):
        tasks.append(asyncio.create_task(keep_snapshot(routes, path, after_s=0.2)))
        return path

    yield start
    for task in tasks:
        task.cancel()
        await asyncio.wait({task})


async def test_a_router_that_starts_without_the_api_server_serves_its_snapshot(
    api, follow, keep, kit, start_router, worker
):
    await api.put(TABLES, as_object(kit.table(kit.routed(worker), sequence=7)))
    await kit.eventually(keep(follow()).exists)
    restarted = await start_router()
    keep(restarted.routes)
    assert (await restarted.ask("GET", "/readyz"))[0].status == 503
    await kit.eventually(lambda: restarted.routes.ready)
    assert (await restarted.infer())[0].headers["x-tidegate-worker"] == "w1"
    state = json.loads((await restarted.admin("/v1/state"))[1])
    assert (state["synced"], state["tables"][0]["appliedSequence"]) == (False, 7)
    [row] = json.loads((await restarted.admin("/workers"))[1])
    assert row["trust"] == 0, "scores of a snapshot are worth nothing"


async def test_a_damaged_snapshot_is_left_aside(router, keep, kit, follow, caplog):
    keep(router.routes).write_text("[{half a")
    await kit.eventually(lambda: "is not a list of route tables" in caplog.text)
    assert not router.routes.ready
    routes = follow()
    await kit.eventually(lambda: routes.synced)


async def test_a_list_goes_before_the_snapshot(api, follow, keep, kit):
    old = kit.table(name="old").to_wire()
    await api.put(TABLES, as_object(kit.table(name="new")))
    routes = follow()
    await kit.eventually(lambda: routes.ready)
    path = keep(routes)
    path.write_text(json.dumps([old]))
    await kit.eventually(lambda: "new" in path.read_text())
    assert sequences(routes) == {"uid-new": 1}
