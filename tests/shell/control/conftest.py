"""An API server small enough to break on purpose: lists, watches, writes, faults.

Objects live in one dict by URL path; versions count up over all kinds, as etcd's do.
"""

import asyncio
import copy
import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client as kubernetes_client

from tidegate_operator.adapters.client import KubeClient

DEADLINE_S = 8.0


_GROUP = {
    "name": "tidegate.dev",
    "versions": [{"version": "v1alpha1", "groupVersion": "tidegate.dev/v1alpha1"}],
    "preferredVersion": {"version": "v1alpha1", "groupVersion": "tidegate.dev/v1alpha1"},
}
_POOLS = {
    "name": "inferencepools", "singularName": "inferencepool", "kind": "InferencePool",
    "namespaced": True, "verbs": ["get", "list", "watch", "patch"],
}  # fmt: skip
_DISCOVERY = {
    "/version": {"major": "1", "minor": "35"},
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": []},
    "/apis": {"groups": [_GROUP]},
    "/apis/tidegate.dev/v1alpha1": {"resources": [_POOLS]},
}


async def until(condition: Callable[[], object], what: str, timeout_s: float = DEADLINE_S):
    """Poll until `condition()` is true and return its value."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not (value := condition()):
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"waited {timeout_s} s for {what}")
        await asyncio.sleep(0.01)
    return value


@dataclass
class Path:
    """/api/v1/namespaces/NS/PLURAL/NAME/SUB, taken apart."""

    root: str
    namespace: str
    plural: str
    name: str = ""
    subresource: str = ""

    @classmethod
    def parse(cls, path: str) -> "Path":
        parts = path.strip("/").split("/")
        size = 2 if parts[0] == "api" else 3
        root, rest = "/".join(parts[:size]), parts[size:]
        namespace = ""
        if rest and rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        return cls(root, namespace, *rest)

    @property
    def collection(self) -> str:
        return f"{self.root}/{self.plural}"


@dataclass
class FakeApi:
    """`fault(method, path)` may answer a status, "hang" or None; `seen` are all requests."""

    objects: dict[tuple[str, str, str], dict] = field(default_factory=dict)
    log: list[tuple[int, str, dict]] = field(default_factory=list)  # version, collection, event
    compacted: int = 0
    seen: list[tuple[str, str]] = field(default_factory=list)
    fault: Callable[[str, str], int | str | None] = lambda _method, _path: None
    watches: dict[str, list[asyncio.Queue]] = field(default_factory=dict)
    version: itertools.count = field(default_factory=lambda: itertools.count(1))
    latest: int = 0
    page: int = 500
    url: str = ""

    # What tests do to it.

    def put(self, path: str, document: dict) -> dict:
        """Create or replace an object as somebody else would, status included."""
        where = Path.parse(path)
        key = (where.collection, where.namespace, where.name)
        before = self.objects.get(key)
        meta = {"name": where.name, "namespace": where.namespace, **document.get("metadata", {})}
        return self._store(key, {**document, "metadata": meta}, before)

    def drop(self, path: str) -> None:
        """Delete an object."""
        where = Path.parse(path)
        self._remove((where.collection, where.namespace, where.name))

    def get(self, path: str) -> dict | None:
        where = Path.parse(path)
        return self.objects.get((where.collection, where.namespace, where.name))

    def all(self, collection: str) -> dict[str, dict]:
        return {key[2]: item for key, item in self.objects.items() if key[0] == collection}

    def forget_quietly(self, path: str) -> None:
        """Delete an object without any watch hearing of it."""
        where = Path.parse(path)
        del self.objects[where.collection, where.namespace, where.name]

    def send(self, collection: str, line: object) -> None:
        """Send a line to every watch of a collection; None ends the streams."""
        for queue in self.watches.get(collection, []):
            queue.put_nowait(line)

    def count(self, method: str, part: str) -> int:
        return sum(1 for verb, path in self.seen if verb == method and part in path)

    def writes(self, part: str = "") -> list[tuple[str, str]]:
        skip = ("leases", "events")
        return [
            (verb, path)
            for verb, path in self.seen
            if verb not in {"GET", "WATCH"} and part in path and not any(s in path for s in skip)
        ]

    # What it does.

    def _store(self, key: tuple, document: dict, before: dict | None) -> dict:
        document = copy.deepcopy(document)
        meta = document.setdefault("metadata", {})
        old = (before or {}).get("metadata", {})
        meta["uid"] = old.get("uid") or meta.get("uid") or str(uuid.uuid4())
        meta.setdefault("creationTimestamp", old.get("creationTimestamp", "2026-01-01T00:00:00Z"))
        if before is not None and _plain(before) == _plain(document):
            return before
        if key[0] not in {"api/v1/services", "api/v1/pods"}:
            same = before is not None and before.get("spec") == document.get("spec")
            meta["generation"] = old.get("generation", 0) + (not same)
        self.latest = next(self.version)
        meta["resourceVersion"] = str(self.latest)
        self.objects[key] = document
        self._tell(key, "ADDED" if before is None else "MODIFIED", document)
        return document

    def _remove(self, key: tuple) -> None:
        gone = copy.deepcopy(self.objects.pop(key))
        self.latest = next(self.version)
        gone["metadata"]["resourceVersion"] = str(self.latest)
        self._tell(key, "DELETED", gone)

    def _tell(self, key: tuple, kind: str, document: dict) -> None:
        event = {"type": kind, "object": copy.deepcopy(document)}
        self.log.append((self.latest, key[0], event))
        self.send(key[0], event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        watching = request.query.get("watch") == "true"
        self.seen.append(("WATCH" if watching else request.method, request.path))
        fault = self.fault(self.seen[-1][0], request.path)
        if fault == "hang":
            await asyncio.Event().wait()
        if isinstance(fault, int):
            return _failure(fault, "broken on purpose")
        if request.path in _DISCOVERY:
            return web.json_response(_DISCOVERY[request.path])
        where = Path.parse(request.path)
        if watching:
            return await self._watch(request, where)
        if request.method == "GET" and not where.name:
            return self._list(request, where)
        body = await request.json() if request.can_read_body else {}
        return self._object(request, where, body)

    def _list(self, request: web.Request, where: Path) -> web.Response:
        found = [
            item
            for key, item in sorted(self.objects.items())
            if key[0] == where.collection and where.namespace in {"", key[1]}
            if _selected(item, request.query.get("labelSelector", ""))
        ]
        start = int(request.query.get("continue", "0"))
        end = start + self.page
        meta = {"resourceVersion": str(self.latest)}
        if end < len(found):
            meta["continue"] = str(end)
        # Items of typed lists carry no kind.
        items = [{k: v for k, v in item.items() if k != "kind"} for item in found[start:end]]
        return web.json_response({"kind": "List", "metadata": meta, "items": items})

    async def _watch(self, request: web.Request, where: Path) -> web.StreamResponse:
        since = int(request.query["resourceVersion"] or 0)
        queue: asyncio.Queue = asyncio.Queue()
        if since < self.compacted:
            status = {"kind": "Status", "code": 410, "message": "too old resource version"}
            queue.put_nowait({"type": "ERROR", "object": status})
        for version, collection, event in self.log:
            if version > since and collection == where.collection:
                queue.put_nowait(event)
        listeners = self.watches.setdefault(where.collection, [])
        listeners.append(queue)
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while (line := await queue.get()) is not None:
                item = line.get("object", {}) if isinstance(line, dict) else {}
                scoped = where.namespace in {"", item.get("metadata", {}).get("namespace", "")}
                wanted = scoped and _selected(item, request.query.get("labelSelector", ""))
                if not isinstance(line, dict) or line["type"] in {"ERROR", "BOOKMARK"} or wanted:
                    text = line if isinstance(line, str) else json.dumps(line)
                    await response.write(f"{text}\n".encode())
        except ConnectionResetError:
            pass
        finally:
            listeners.remove(queue)
        return response

    def _object(self, request: web.Request, where: Path, body: dict) -> web.Response:
        name = where.name or body["metadata"]["name"]
        key = (where.collection, where.namespace, name)
        before = self.objects.get(key)
        method = request.method
        if before is None:
            applies = "apply-patch" in request.headers.get("Content-Type", "")
            if method != "POST" and not applies:
                return _failure(404, f"{name} not found")
        elif why := _conflict(method, before, body):
            return _failure(409, why)
        if method == "GET":
            return web.json_response(before)
        if method == "DELETE":
            self._remove(key)
            return web.json_response({"kind": "Status", "status": "Success"})
        if method == "PUT":
            body = _replaced(before, body, where.subresource)
        if method == "PATCH":
            body = _merged(before or {}, body)
        body.setdefault("metadata", {}).setdefault("name", name)
        body["metadata"]["namespace"] = where.namespace
        return web.json_response(self._store(key, body, before))


def _conflict(method: str, before: dict, body: dict) -> str:
    meta = before["metadata"]
    if method == "POST":
        return "it exists already"
    if body.get("preconditions", {}).get("uid", meta["uid"]) != meta["uid"]:
        return "another uid"
    version = body.get("metadata", {}).get("resourceVersion", meta["resourceVersion"])
    stale = method == "PUT" and version != meta["resourceVersion"]
    return "the object has been modified" if stale else ""


def _replaced(before: dict, body: dict, subresource: str) -> dict:
    if subresource == "status":
        return {**before, "status": body.get("status")}
    return {**body, "status": before["status"]} if "status" in before else body


def _selected(item: dict, selector: str) -> bool:
    labels = item.get("metadata", {}).get("labels") or {}
    name, equals, value = selector.partition("=")
    return not selector or (name in labels and (not equals or labels[name] == value))


def _plain(item: dict) -> dict:
    meta = {k: v for k, v in item["metadata"].items() if k not in {"resourceVersion", "generation"}}
    return {**item, "metadata": meta}


def _merged(old: dict, new: dict) -> dict:
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        both = isinstance(value, dict) and isinstance(before, dict)
        result[key] = _merged(before, value) if both else copy.deepcopy(value)
    return result


def _failure(status: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": status, "message": message}, status=status)


_DEPLOYMENTS = "apis/apps/v1/deployments"


class Controllers:
    """Deployment controller and kubelet in one: each Deployment has the pods that it asks for."""

    def __init__(self, api):
        self._api = api
        self._names = itertools.count()

    async def run(self):
        while True:
            self.settle()
            await asyncio.sleep(0.02)

    def settle(self):
        deployments = self._api.all(_DEPLOYMENTS)
        for name, deployment in deployments.items():
            self._resize(name, deployment)
        for name, pod in self._api.all("api/v1/pods").items():
            if pod["metadata"]["labels"]["tidegate.dev/worker-set"] not in deployments:
                self._api.drop(f"/api/v1/namespaces/ml/pods/{name}")

    def _resize(self, name, deployment):
        template = deployment["spec"]["template"]
        labels = template["metadata"]["labels"]
        mine = [
            pod
            for pod, item in self._api.all("api/v1/pods").items()
            if item["metadata"]["labels"]["tidegate.dev/worker-set"] == name
        ]
        wanted = deployment["spec"]["replicas"]
        for pod in mine[wanted:]:
            self._api.drop(f"/api/v1/namespaces/ml/pods/{pod}")
        for _ in range(wanted - len(mine)):
            number = next(self._names)
            pod = {"metadata": {"labels": labels}, "status": self._status(number)}
            self._api.put(f"/api/v1/namespaces/ml/pods/{name}-{number}", pod)
        ready = min(wanted, len(mine))
        if deployment.get("status", {}).get("readyReplicas") != ready:
            status = {"readyReplicas": ready, "replicas": wanted}
            path = f"/apis/apps/v1/namespaces/ml/deployments/{name}"
            self._api.put(path, {**deployment, "status": status})

    @staticmethod
    def address(number):
        """Nobody listens there."""
        return f"127.0.9.{number % 250}"

    def _status(self, number):
        ready = {"type": "Ready", "status": "True"}
        return {"phase": "Running", "podIP": self.address(number), "conditions": [ready]}


@pytest.fixture
async def controllers(api, background):
    """Deployment controller and kubelet in one, running; `address(n)` is settable."""
    made = Controllers(api)
    background(made.run())
    return made


@pytest.fixture
async def api():
    fake = FakeApi()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", fake.handle)
    server = TestServer(app)
    await server.start_server(shutdown_timeout=0.1)
    fake.url = str(server.make_url("/")).rstrip("/")
    yield fake
    for collection in list(fake.watches):
        fake.send(collection, None)
    await server.close()


class Background:
    """Tasks that are cancelled at the end of a test, and what is closed after them."""

    def __init__(self):
        self.tasks: list[asyncio.Task] = []
        self.closers: list[Callable[[], Awaitable]] = []

    def __call__(self, work: Awaitable) -> asyncio.Task:
        self.tasks.append(asyncio.ensure_future(work))
        return self.tasks[-1]

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for close in self.closers:
            await close()


@pytest.fixture
async def background():
    """Return `background(coroutine)`: a task that is cancelled at the end of the test."""
    made = Background()
    yield made
    await made.end()


@pytest.fixture
def connect(api, background):
    """Return `connect()`: one more client of the fake API server, closed at the end."""

    def make(url: str = "") -> KubeClient:
        configuration = kubernetes_client.Configuration(host=url or api.url)
        made = KubeClient(kubernetes_client.ApiClient(configuration), lambda _verb, _code: None)
        background.closers.append(made.close)
        return made

    return make


@pytest.fixture
def client(connect) -> KubeClient:
    return connect()


@pytest.fixture(name="until")
def until_fixture():
    return until
