"""`python -m tidegate_operator` as a process: it leads, answers, restarts, and lets go."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import unused_port

pytestmark = pytest.mark.timeout(60)  # each test starts up to three interpreters
LEASE = "/apis/coordination.k8s.io/v1/namespaces/system/leases/tidegate-operator"
ROUTES = LEASE.replace("tidegate-operator", "tidegate-routes")
POOL = "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferencepools/vision"
FOLDERS = [str(Path(__file__).parents[3] / name) for name in ("crds", "operator")]


class Operator:
    """The parent process, and its port."""

    def __init__(self, process, port):
        self.process = process
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path):
        async with aiohttp.ClientSession() as session, session.get(self.url + path) as answer:
            return answer.status, await answer.text()

    async def answers(self, path, part):
        try:
            status, text = await self.get(path)
        except aiohttp.ClientError:
            return False
        return status == 200 and part in text

    def child(self):
        pid = self.process.pid
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return int(text.split()[0]) if text.strip() else None


@pytest.fixture
async def start(api, tmp_path):
    """Return `start()`: the operator against the fake API server; ended at the end."""
    started = []
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fake",
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        "clusters": [{"name": "fake", "cluster": {"server": api.url}}],
        "users": [{"name": "fake", "user": {"token": "none"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))

    async def begin(name="one"):
        port = unused_port()
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(FOLDERS),
            "KUBECONFIG": str(tmp_path / "config"),
            "TIDEGATE_POD_NAME": name,
            "TIDEGATE_POD_NAMESPACE": "system",
            "TIDEGATE_WORKER_IMAGE": "worker:1",
            "TIDEGATE_PORT": str(port),
        }
        with (tmp_path / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tidegate_operator", env=environment, cwd=tmp_path,
                stdout=log, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        started.append(Operator(process, port))
        return started[-1]

    yield begin
    for operator in started:
        if operator.process.returncode is None:
            operator.process.terminate()
        await operator.process.wait()


def holder(api):
    return (api.get(LEASE) or {"spec": {}})["spec"].get("holderIdentity") or ""


async def eventually(check, what, timeout_s=12):
    deadline = asyncio.get_running_loop().time() + timeout_s
    while not await check():
        assert asyncio.get_running_loop().time() < deadline, f"waited {timeout_s} s for {what}"
        await asyncio.sleep(0.05)


def leads(operator):
    return lambda: operator.answers("/metrics", "tidegate_operator_leader 1.0")


async def test_it_leads_dates_the_tables_and_lets_go_when_told_to(api, start, until):
    model = {"name": "resnet50", "source": {"uri": "file:///opt/models/resnet50"}}
    spec = {"template": {"models": [model]}, "accelerators": [{"name": "cpu", "kind": "CPU"}]}
    api.put(POOL, {"spec": spec})
    operator = await start()
    await eventually(leads(operator), "leading")
    assert holder(api).startswith("one_")
    await until(lambda: api.all("apis/apps/v1/deployments"), "the pool's Deployment")
    await until(lambda: api.get(ROUTES), "the Lease of routes")
    await until(lambda: api.get(POOL).get("status"), "a status")
    assert await operator.answers("/healthz", "ok")
    assert await operator.answers("/readyz", "ok")
    assert await operator.answers("/v1/state", '"leader": true')
    assert await operator.answers("/v1/state", '"pool": "vision"')
    assert await operator.answers("/metrics", 'tidegate_operator_reconcile_total{result="ok"}')
    assert "finalizers" not in api.get(POOL)["metadata"]

    operator.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(operator.process.wait(), 4) == 0
    assert holder(api) == ""


async def test_a_killed_child_is_restarted_and_leads_again_at_once(api, start, until):
    operator = await start()
    await eventually(leads(operator), "leading")
    first, child = holder(api), operator.child()
    # A child that dies within its first two seconds counts as broken and is given a pause.
    await until(lambda: api.count("PUT", "leases/tidegate-operator") >= 2, "some renewals")
    os.kill(child, signal.SIGKILL)
    await until(lambda: operator.child() not in {None, child}, "another child")
    renewals = api.count("PUT", "leases/tidegate-operator")
    await until(lambda: api.count("PUT", "leases/tidegate-operator") > renewals, "leading again")
    assert holder(api) == first


async def test_a_lost_lease_restarts_the_child_and_a_lost_parent_ends_it(api, start, until):
    operator = await start()
    await eventually(leads(operator), "leading")
    child, lease = operator.child(), api.get(LEASE)
    api.put(LEASE, {**lease, "spec": {**lease["spec"], "holderIdentity": "two"}})
    await until(lambda: operator.child() not in {None, child}, "another child")
    assert holder(api) == "two"
    child = operator.child()
    operator.process.kill()
    await until(lambda: not Path(f"/proc/{child}").exists(), "the end of the orphan")


async def test_a_standby_is_ready_and_writes_nothing(api, start, until):
    operator = await start()
    await eventually(leads(operator), "leading")
    standby = await start("two")
    await eventually(lambda: standby.answers("/readyz", "ok"), "a Ready standby")
    assert await standby.answers("/v1/state", '"leader": false')
    assert await standby.answers("/metrics", "tidegate_operator_leader 0.0")
    operator.process.send_signal(signal.SIGTERM)
    await until(lambda: holder(api).startswith("two_"), "the standby to take over at once")
