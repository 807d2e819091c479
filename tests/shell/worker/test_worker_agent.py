"""The agent around a real tritonserver: what it serves, reports and survives."""

import asyncio
import json
import os
import signal
import time
from pathlib import Path

import aiohttp
import pytest
import tritonclient.grpc.aio as triton_grpc
from tritonclient.utils import InferenceServerException

from tidegate_api.state import Phase

BROKEN = """
class TritonPythonModel:
    def initialize(self, arguments):
        raise ValueError("no weights\\nhere")
"""


@pytest.fixture
def models(tmp_path, conftest):
    return lambda name, *more, **fields: conftest.python_model(tmp_path, name, *more, **fields)


def by_name(state):
    return {model.name: model for model in state.models}


async def test_one_good_model_serves_while_each_bad_one_says_why(start, models, conftest, tmp_path):
    warmup = [{"inputs": {"X": {"dataType": "FP32", "dims": [1]}}}]
    agent = start(
        models("echo", dynamicBatching={}, warmup=warmup),
        models("broken", BROKEN),
        models("plan", backend="tensorrt"),
        models("changed", sha256="0" * 64),
        models("odd", config={"colour": "red"}),
        conftest.entry("absent", "pvc://claim/nowhere", path=str(tmp_path / "nowhere")),
    )  # fmt: skip
    state = await agent.until(lambda s: sum(bool(m.reason) or m.ready for m in s.models) == 6)
    found = by_name(state)
    assert found["echo"].ready
    assert found["echo"].probe == "Strong"
    assert found["echo"].traits.dynamic_batching
    assert found["echo"].traits.max_batch_size == 4
    reasons = {name: (model.reason, model.message) for name, model in found.items()}
    assert reasons["broken"][0] == "ModelLoadFailed"
    assert "no weights here" in reasons["broken"][1]
    assert reasons["plan"][0] == "BackendNotInImage"
    assert "tensorrt" in reasons["plan"][1]
    assert "python" in reasons["plan"][1]
    assert reasons["changed"][0] == "ModelDigestMismatch"
    assert reasons["odd"][0] == "ModelConfigInvalid"
    assert "colour" in reasons["odd"][1]
    assert reasons["absent"][0] == "ModelFetchFailed"
    assert "pvc://claim/nowhere" in reasons["absent"][1]
    assert (state.phase, state.ready) == (Phase.NOT_READY, False)
    assert state.message
    assert all("\n" not in model.message for model in state.models)
    assert (await agent.get("/readyz"))[0] == 503
    assert (await agent.get("/healthz"))[0] == 200
    assert (await agent.ask("echo", 0.0))[0] == 200
    await agent.until(lambda s: s.draining is False and by_name(s)["echo"].successes >= 2)
    metrics = (await agent.get("/metrics"))[1]
    assert 'nv_inference_request_success{model="echo",version="1"}' in metrics
    assert 'tidegate_worker_batch_size_bucket{le="1.0",model="echo"}' in metrics
    assert 'tidegate_worker_model_ready{model="broken"} 0.0' in metrics


async def test_a_ready_worker_tells_who_it_is_and_guards_its_control_apis(start, models):
    agent = start(models("echo"))
    state = await agent.until(lambda s: s.ready)
    assert (await agent.get("/readyz"))[0] == 200
    assert (state.uid, state.name, state.revision) == ("uid-1", "worker-1", "r1")
    assert (state.accelerator, state.phase, state.devices) == ("cpu", Phase.READY, [])
    assert state.server.version == "2.51.0"
    assert state.server.below_security_floor
    assert state.server.backends == ["python"]
    assert state.memory_pressure is None
    key = key_of(agent)
    assert len(key) == 64
    assert key not in agent.log
    for path in ("repository/index", "repository/models/echo/unload", "logging"):
        assert await status(agent, path, {}) == 403
        assert await status(agent, path, {"x-tidegate-restricted-key": "wrong"}) == 403
    async with triton_grpc.InferenceServerClient(f"127.0.0.1:{agent.grpc_port}") as client:
        assert await client.is_model_ready("echo")
        with pytest.raises(InferenceServerException, match="restricted"):
            await client.unload_model("echo")
        with pytest.raises(InferenceServerException, match="restricted"):
            await client.get_system_shared_memory_status()
    assert (await agent.ask("echo", 0.0))[0] == 200


def key_of(agent) -> str:
    flags = Path(f"/proc/{agent.server_pid()}/cmdline").read_text().split("\0")
    (flag,) = [flag for flag in flags if flag.startswith("--http-restricted-api=")]
    return flag.rpartition("=")[2]


async def status(agent, path, headers) -> int:
    url = f"{agent.inference}/v2/{path}"
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers) as answer:
        return answer.status


async def test_every_line_of_the_log_is_json_with_level_and_revision(start, models):
    agent = start(models("echo"))
    await agent.until(lambda s: s.ready)
    lines = [json.loads(line) for line in agent.log.splitlines()]
    assert {"tritonserver", "tidegate_worker.models"} <= {line["logger"] for line in lines}
    assert all(line["revision"] == "r1" for line in lines)
    assert all({"ts", "level", "msg"} <= set(line) for line in lines)


async def test_a_killed_server_is_started_again_with_its_models(start, models):
    agent = start(models("echo"))
    before = await agent.until(lambda s: s.ready)
    regions = regions_of(agent)
    assert regions
    os.kill(agent.server_pid(), signal.SIGKILL)
    crashed = await agent.until(lambda s: not s.ready)
    assert (crashed.reason, crashed.server.running) == ("ServerCrashed", False)
    assert "SIGKILL" in crashed.message
    after = await agent.until(lambda s: s.ready)
    assert (after.server.restarts, after.reason) == (1, "")
    assert after.instance == before.instance
    assert (await agent.ask("echo", 0.0))[0] == 200
    assert not [region for region in regions if region.exists()]


def regions_of(agent) -> set[Path]:
    """The Python backend's shared memory of the first server."""
    return set(Path("/dev/shm").glob(f"tidegate-{agent.process.pid}-0-*"))  # noqa: S108  # not ours to choose


async def test_sigterm_lets_running_work_end_and_new_work_go_elsewhere(
    start, models, conftest, tmp_path
):
    flag = tmp_path / "executes"
    text = conftest.MODEL.replace("time.sleep(", f"open({str(flag)!r}, 'w').close(); time.sleep(")
    agent = start(models("echo", text))
    await agent.until(lambda s: s.ready)
    flag.unlink()
    running = asyncio.create_task(agent.ask("echo", 2.0))
    await agent.until(lambda _: flag.exists())
    agent.process.send_signal(signal.SIGTERM)
    state = await agent.until(lambda s: s.draining)
    assert (state.phase, state.ready) == (Phase.DRAINING, False)
    assert (await agent.get("/readyz"))[0] == 503
    assert (await agent.ask("echo", 0.0))[0] == 200, "a router that has not heard is still served"
    began_s = time.monotonic()
    while agent.process.poll() is None and time.monotonic() - began_s < 15:
        await agent.get("/v1/state", **{"x-tidegate-drain-ack": "1"})
        await asyncio.sleep(0.05)
    assert await agent.ended() == 0
    code, answer = await running
    assert (code, answer["outputs"][0]["data"]) == (200, [2.0])
    assert time.monotonic() - began_s < 9


async def test_without_an_acknowledgement_a_drain_waits_for_its_timeout(start, models):
    agent = start(models("echo"), DRAIN_TIMEOUT=2)
    await agent.until(lambda s: s.ready)
    agent.process.send_signal(signal.SIGTERM)
    began_s = time.monotonic()
    while agent.process.poll() is None and time.monotonic() - began_s < 15:
        await agent.get("/v1/state")  # an operator that never says that routers let go
        await asyncio.sleep(0.05)
    assert await agent.ended() == 0
    assert 2 <= time.monotonic() - began_s < 10


async def test_a_worker_that_never_served_ends_at_once(start, models):
    agent = start(models("broken", BROKEN))
    await agent.until(lambda s: s.reason == "ModelLoadFailed")
    agent.process.send_signal(signal.SIGTERM)
    assert await agent.ended(8) == 0


async def test_a_server_that_keeps_crashing_fails_the_pod_with_its_words(start, models, tmp_path):
    server = tmp_path / "tritonserver"
    server.write_text('#!/bin/sh\necho "E1121 08:00:00.0 1 main.cc:1] no such flag" >&2\nexit 7\n')
    server.chmod(0o755)
    agent = start(models("echo"), TRITON_SERVER=server)
    state = await agent.until(lambda s: s.phase is Phase.FAILED)
    assert (state.reason, state.server.restarts) == ("ServerCrashed", 3)
    assert "status 7" in state.message
    assert "no such flag" in state.message
    assert await agent.ended() == 1


async def test_a_server_that_cannot_be_started_is_named(start, models, tmp_path):
    agent = start(models("echo"), TRITON_SERVER=tmp_path / "absent")
    state = await agent.until(lambda s: s.phase is Phase.FAILED)
    assert "absent" in state.message
    assert await agent.ended() == 1


WRONG = [
    ("a port that is no number", {"AGENT_PORT": "many"}, "TIDEGATE_AGENT_PORT"),
    ("models that are not there", {"MODELS_FILE": "/nowhere.json"}, "/nowhere.json"),
    ("devices that cannot be counted", {"SIMULATED_DEVICES": "x:1"}, "TIDEGATE_SIMULATED_DEVICES"),
]


@pytest.mark.parametrize(
    ("environment", "named"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
async def test_an_unusable_configuration_is_named(start, models, environment, named):
    agent = start(models("echo"), **environment)
    assert await agent.ended() == 2
    assert named in json.loads(agent.log.splitlines()[-1])["msg"]


async def test_simulated_devices_are_labelled_react_and_guard_memory(start, models):
    agent = start(
        models("small", memory="2Gi"), models("large", memory="3Gi"), SIMULATED_DEVICES="1:6Gi"
    )
    state = await agent.until(
        lambda s: any(m.ready for m in s.models) and any(m.reason for m in s.models)
    )
    (refused,) = [model for model in state.models if model.reason]
    assert refused.reason == "InsufficientDeviceMemory"
    (device,) = state.devices
    assert device.simulated
    assert device.memory_total_bytes == 6 * 2**30
    assert state.memory_pressure is not None


async def test_a_hanging_model_is_not_ready_and_recovers(start, models):
    text = """
import os, time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "X", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "Y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        while os.path.exists("HANG"):
            time.sleep(0.05)
        tensors = [pb_utils.get_input_tensor_by_name(r, "X").as_numpy() for r in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", t)]) for t in tensors]
"""
    flag = Path(models("other")["path"]) / "hang"
    flag.touch()
    agent = start(models("stuck", text.replace("HANG", str(flag))), PROBE_TIMEOUT=0.5)
    state = await agent.until(lambda s: s.reason == "ModelNotReady")
    assert "longer than 0.5 s" in state.message
    flag.unlink()
    assert (await agent.until(lambda s: s.ready)).phase is Phase.READY
