"""`python -m tidegate_router` as a process: routes file, drain, logs, wrong flags."""

import asyncio
import json

import pytest
from aiohttp import web

from tidegate_api.routetable import Guard


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
def routes_file(tmp_path):
    path = tmp_path / "routes.json"

    def write(*tables):
        path.write_text(json.dumps([table.to_wire() for table in tables]))
        return path

    return write


async def test_a_routes_file_is_served_and_read_again_when_it_changes(
    start_process, start_worker, routes_file, kit, worker
):
    other = await start_worker("w2")
    path = routes_file(kit.table(kit.routed(worker)))
    process = await start_process(ROUTES_FILE=path)
    await process.until_ready()
    assert (await process.infer())[0].headers["x-tidegate-worker"] == "w1"
    routes_file(kit.table(kit.routed(other), sequence=2))

    async def moved():
        return (await process.infer())[0].headers["x-tidegate-worker"] == "w2"

    await kit.eventually(moved)
    state = await process.state()
    assert state["instance"].startswith("router-uid/")
    assert state["synced"] is False
    assert state["tables"][0]["appliedSequence"] == 2


async def test_a_damaged_routes_file_changes_nothing(start_process, routes_file, kit, worker):
    path = routes_file(kit.table(kit.routed(worker)))
    process = await start_process(ROUTES_FILE=path)
    await process.until_ready()
    path.write_text("[{half a")
    await kit.eventually(lambda: "is not a list of route tables" in process.log())
    assert (await process.infer())[0].status == 200


async def test_a_routes_file_that_comes_late_makes_the_router_ready(
    start_process, routes_file, kit, worker, tmp_path
):
    process = await start_process(ROUTES_FILE=tmp_path / "routes.json")
    await process.until_ready(503)
    routes_file(kit.table(kit.routed(worker)))
    await process.until_ready()


@pytest.fixture
def api_away(kit, tmp_path):
    """A kubeconfig whose API server does not answer."""
    kubeconfig = tmp_path / "kubeconfig"
    user, cluster = {"token": "t"}, {"server": f"http://127.0.0.1:{kit.free_port()}"}
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    kubeconfig.write_text(json.dumps(config))
    return kubeconfig


async def test_without_the_api_server_it_serves_its_snapshot_after_5_s(
    start_process, routes_file, kit, worker, api_away
):
    snapshot = routes_file(kit.table(kit.routed(worker)))
    process = await start_process(KUBECONFIG=api_away, SNAPSHOT_FILE=snapshot)
    await process.until_ready(503)
    await process.until_ready()
    assert (await process.infer())[0].status == 200
    assert (await process.state())["synced"] is False


async def test_without_operator_and_api_server_a_router_drops_a_bad_canary_by_itself(
    start_process, start_worker, routes_file, kit, worker, api_away
):
    canary = await start_worker("w2")
    canary.answer = kit.answering(500, b'{"error":"the model failed"}')
    table = kit.table(
        kit.routed(worker, revision="old"),
        kit.routed(canary, revision="new"),
        weights={"old": 50, "new": 50},
    )
    guard = Guard(revision="new", min_requests=5, interval_s=10, min_success_rate=0.99)
    snapshot = routes_file(table.model_copy(update={"guards": [guard]}))
    process = await start_process(KUBECONFIG=api_away, SNAPSHOT_FILE=snapshot)
    await process.until_ready()

    async def dropped():
        await process.infer()
        return (await process.state()).get("localAborts")

    [abort] = await kit.eventually(dropped)
    assert (abort["pool"], abort["revision"], abort["sequence"]) == ("vision", "new", 1)
    assert "success rate" in abort["message"]
    answers = [(await process.infer())[0] for _ in range(30)]
    assert {answer.headers["x-tidegate-revision"] for answer in answers} == {"old"}
    _, metrics = await process.get("/metrics", admin=True)
    counted = 'tidegate_router_local_aborts_total{namespace="ml",pool="vision",revision="new"} 1.0'
    assert counted in metrics.decode()
    _, picks = await process.get("/debug/pick?model=m", admin=True)
    assert json.loads(picks)["localAborts"] == {"new": abort["message"]}
    assert '"revision": "new"' in process.log()


async def test_sigterm_drains_and_exits_with_0(start_process, routes_file, kit, worker):
    gate = asyncio.Event()

    async def gated(_request, _body):
        await gate.wait()
        return web.Response(body=b"late")

    process = await start_process(
        ROUTES_FILE=routes_file(kit.table(kit.routed(worker))), DRAIN_SECONDS=1
    )
    await process.until_ready()
    worker.answer = gated
    late = asyncio.create_task(process.infer())
    await kit.eventually(lambda: worker.seen)
    worker.answer = None
    process.terminate()
    await process.until_ready(503)
    answer, _ = await process.infer()  # still accepted
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert (await process.state())["draining"] is True
    await process.until_ready(0)  # nobody listens any more
    assert process.process.returncode is None
    gate.set()
    assert (await late)[1] == b"late"
    async with asyncio.timeout(5):
        assert await process.process.wait() == 0


async def test_the_log_is_json_lines_without_content(start_process, routes_file, kit, worker):
    process = await start_process(
        ROUTES_FILE=routes_file(kit.table(kit.routed(worker))), LOG_LEVEL="debug"
    )
    await process.until_ready()
    worker.answer = kit.answering(500, b"a secret answer")
    await process.infer(b"a secret prompt")
    process.terminate()
    await kit.eventually(lambda: "draining" in process.log())
    lines = [json.loads(line) for line in process.log().splitlines()]
    assert all({"ts", "level", "msg"} <= set(line) for line in lines)
    assert "secret" not in process.log()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({"BARE_MODEL_NAMES": "Newest"}, "expected Oldest or Off", id="odd-choice"),
        pytest.param({"HTTP_PORT": "eighty"}, "--http-port", id="port-that-is-no-number"),
        pytest.param({"LOG_LEVEL": "loud"}, "--log-level", id="odd-level"),
        pytest.param({"KUBECONFIG": "none/such"}, "kubeconfig", id="no-kubeconfig"),
    ],
)
async def test_wrong_settings_end_the_start_with_a_message(
    start_process, kit, environment, expected
):
    process = await start_process(**environment)
    await kit.eventually(lambda: process.process.returncode is not None)
    assert process.process.returncode != 0
    assert expected in process.log()
    assert "Traceback" not in process.log()
