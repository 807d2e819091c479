"""The command over gRPC against a real server that answers by the model's name."""

import asyncio
import json
import sys
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

ROOT = Path(__file__).parents[3]
INITIAL = (("x-tidegate-revision", "r2"), ("x-tidegate-worker", "w9"))
REASON = (("x-tidegate-dropped-reason", "saturated"),)


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with the request's first input; `seen` has every request."""

    def __init__(self):
        self.seen = []
        self.metadata = []

    async def ModelInfer(self, request, context):  # noqa: N802  # protobuf's name
        self.seen.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        await context.send_initial_metadata(INITIAL)
        if request.model_name == "full":
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", REASON)
        if request.model_name == "unknown":
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
        if request.model_name == "slow":
            await asyncio.sleep(30)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name)
        turn = str(len(self.seen) % 2 if request.model_name == "turns" else 0)
        answer.outputs.add(name="OUT", datatype="FP32", shape=[int(turn) + 1])
        return answer

    async def ModelMetadata(self, request, _context):  # noqa: N802  # protobuf's name
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        answer.inputs.add(name="IN", datatype="INT32", shape=[-1, 3])
        return answer


@pytest.fixture
async def triton():
    made, server = Triton(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(made, server)
    made.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield made
    await server.stop(0)


async def run(triton, tmp_path, model, *options):
    file = tmp_path / "result.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate_cli", "loadtest", model,
        "--url", f"grpc://127.0.0.1:{triton.port}", "--json", str(file), *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=ROOT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, json.loads(file.read_text()), said.decode()


@pytest.mark.parametrize(
    ("model", "options", "outcomes"),
    [
        pytest.param("m", [], {"ok": 6}, id="good answers"),
        pytest.param("full", [], {"refused": 6}, id="refusals with a reason"),
        pytest.param("unknown", [], {"client": 6}, id="a model that nobody serves"),
        pytest.param("slow", ["--timeout", "0.4"], {"timeout": 6}, id="answers that do not come"),
        pytest.param("turns", ["--compare"], {"ok": 3, "wrong": 3}, id="answers that differ"),
    ],
)
async def test_every_call_is_classified(triton, tmp_path, model, options, outcomes):
    shape = ["--shape", "IN:FP32=1,4"]
    _, found, said = await run(triton, tmp_path, model, *shape, "--count", "6", *options)
    assert found["outcomes"] == outcomes, said
    assert len(triton.seen) == 6


async def test_the_message_is_made_from_the_models_metadata(triton, tmp_path):
    options = ["--shape", "IN=2,3", "--count", "2", "--pool", "ml/vision", "-H", "x-mine: yes"]
    _, found, said = await run(triton, tmp_path, "m", *options)
    request, metadata = triton.seen[0], triton.metadata[0]
    assert found["revisions"] == {"r2": 2}, said
    assert found["workers"] == {"w9": 2}
    assert (request.model_name, request.inputs[0].datatype) == ("m", "INT32")
    assert list(request.inputs[0].shape) == [2, 3]
    assert len(request.raw_input_contents[0]) == 24
    assert metadata["x-tidegate-pool"] == "ml/vision"
    assert metadata["x-mine"] == "yes"


async def test_an_open_loop_of_calls_keeps_its_rate(triton, tmp_path):
    options = ["--shape", "IN:FP32=1,4", "--rate", "50", "--duration", "1"]
    _, found, said = await run(triton, tmp_path, "m", *options)
    assert found["requests"] == len(triton.seen) == 50, said


async def test_a_body_is_sent_as_it_is(triton, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(service_pb2.ModelInferRequest(model_name="mine").SerializeToString())
    await run(triton, tmp_path, "", "--body", str(body), "--count", "1")
    assert triton.seen[0].model_name == "mine"
