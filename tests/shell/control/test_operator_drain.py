"""A worker leaves in order: marked, let go by every router, idle; told by header, then removed.

Agents and routers are real HTTP servers on loopback addresses of their own.
"""

import pytest
from aiohttp import web

from tidegate_api.names import HEADER_DRAIN_ACK, PORT_ROUTER_ADMIN, PORT_WORKER_AGENT
from tidegate_api.routerstate import AppliedTable, RouterState
from tidegate_api.state import ModelState, Phase, WorkerState
from tidegate_operator.leader import assemble, lead
from tidegate_operator.settings import read
from tidegate_operator.telemetry import Telemetry

POOL = "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferencepools/vision"
TABLE = "/apis/tidegate.dev/v1alpha1/namespaces/ml/routetables/vision"
SLICE = "/apis/discovery.k8s.io/v1/namespaces/system/endpointslices/router-1"
ROUTER = "127.0.8.1"
AGENTS = [f"127.0.8.{number}" for number in (11, 12)]


async def listen(app, host, port, closers):
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    closers.append(runner.cleanup)


class Agent:
    """One worker's agent; `busy` requests are in flight."""

    def __init__(self, api, address):
        self._api = api
        self._address = address
        self.busy = 0
        self.told = False  # whether a scrape carried the acknowledgement

    def pod(self):
        pods = self._api.all("api/v1/pods").values()
        return next((p for p in pods if p["status"]["podIP"] == self._address), None)

    async def state(self, request):
        self.told = self.told or request.headers.get(HEADER_DRAIN_ACK) == "1"
        pod = self.pod() or {"metadata": {"uid": "gone"}}
        model = ModelState(name="resnet50", ready=True, in_flight=self.busy, successes=5)
        state = WorkerState(
            uid=pod["metadata"]["uid"], phase=Phase.READY, ready=True, models=[model]
        )
        return web.json_response(state.to_wire())


class Router:
    """A router that applies tables only when told to."""

    def __init__(self, api):
        self._api = api
        self.follows = True
        self._applied = None

    async def state(self, _request):
        table = self._api.get(TABLE)
        if self.follows and table is not None:
            spec = table["spec"]
            self._applied = AppliedTable(
                namespace="ml", pool="vision", uid=spec["pool"]["uid"],
                applied_sequence=spec["sequence"], age_s=0.0,
            )  # fmt: skip
        tables = [self._applied] if self._applied else []
        return web.json_response(RouterState(instance="r", synced=True, tables=tables).to_wire())


@pytest.fixture
async def agents(api, controllers, background):
    controllers.address = lambda number: AGENTS[number % 2]
    made = [Agent(api, address) for address in AGENTS]
    for agent, address in zip(made, AGENTS, strict=True):
        app = web.Application()
        app.router.add_get("/v1/state", agent.state)
        await listen(app, address, PORT_WORKER_AGENT, background.closers)
    return made


@pytest.fixture
async def router(api, background):
    made = Router(api)
    app = web.Application()
    app.router.add_get("/v1/state", made.state)
    await listen(app, ROUTER, PORT_ROUTER_ADMIN, background.closers)
    endpoint = {
        "addresses": [ROUTER], "conditions": {"ready": True}, "targetRef": {"name": "router-0"},
    }  # fmt: skip
    labels = {"kubernetes.io/service-name": "router"}
    api.put(SLICE, {"metadata": {"labels": labels}, "endpoints": [endpoint]})
    return made


def status(api, name):
    return (api.get(POOL).get("status") or {}).get(name)


@pytest.fixture
async def serving(api, agents, router, connect, background, until):
    """A pool of two measured workers, known to its router."""
    flags = {
        "worker-image": "worker:1", "router-service": "system/router", "scrape-interval": "0.1",
        "score-writes-per-second": "50",
    }  # fmt: skip
    settings = read([f"--{flag}={value}" for flag, value in flags.items()], {})
    model = {"name": "resnet50", "source": {"uri": "file:///opt/models/resnet50"}}
    spec = {
        "replicas": 2, "template": {"models": [model]},
        "accelerators": [{"name": "cpu", "kind": "CPU"}], "drain": {"timeout": "30s"},
    }  # fmt: skip
    api.put(POOL, {"spec": spec})
    parts = assemble(settings, connect(), lambda: True, Telemetry())
    background(lead(parts))
    await until(lambda: status(api, "readyReplicas") == 2, "two Ready workers")
    await until(
        lambda: all("score" in w for w in workers(api)) and len(workers(api)) == 2, "two scores"
    )
    assert [agents, router]
    return parts


def workers(api):
    return (api.get(TABLE) or {"spec": {}})["spec"].get("workers", [])


def scale(api, count):
    document = api.get(POOL)
    api.put(POOL, {**document, "spec": {**document["spec"], "replicas": count}})


def draining(api):
    return {worker["id"] for worker in workers(api) if worker.get("draining")}


@pytest.mark.usefixtures("serving")
async def test_a_victim_waits_for_the_router_then_for_its_requests(api, agents, router, until):
    for agent in agents:
        agent.busy = 1
    router.follows = False
    scale(api, 1)
    (victim_uid,) = await until(lambda: draining(api), "the mark in the table")
    victim = next(a for a in agents if a.pod()["metadata"]["uid"] == victim_uid)
    other = next(a for a in agents if a is not victim)

    # The router has not applied the mark: nobody is told, nothing is removed.
    seen = sequence(api)
    await until(lambda: status(api, "workers")["draining"] == 1, "the count in the status")
    assert (victim.told, len(api.all("api/v1/pods"))) == (False, 2)
    assert sequence(api) >= seen

    router.follows = True
    await until(lambda: victim.told, "the header of the next scrape")
    assert len(api.all("api/v1/pods")) == 2, "its request still runs"
    costs = {p["metadata"]["uid"]: p["metadata"].get("annotations") for p in pods(api)}
    assert costs[victim_uid], "the ReplicaSet controller is told whom to remove"

    victim.busy = 0
    await until(lambda: len(api.all("api/v1/pods")) == 1, "the removal")
    assert not other.told


def pods(api):
    return list(api.all("api/v1/pods").values())


def sequence(api):
    return api.get(TABLE)["spec"]["sequence"]


@pytest.mark.usefixtures("serving")
async def test_a_scale_down_that_is_taken_back_keeps_the_worker(api, agents, router, until):
    router.follows = False
    for agent in agents:
        agent.busy = 1
    scale(api, 1)
    await until(lambda: draining(api), "the mark in the table")
    scale(api, 2)
    await until(lambda: not draining(api), "the mark to be taken back")
    router.follows = True
    assert len(pods(api)) == 2
    assert not any(agent.told for agent in agents)
