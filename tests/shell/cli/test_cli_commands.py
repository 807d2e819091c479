"""The command as a user runs it: its own process, against servers that speak OIP v2."""

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import grpc.aio
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

ROOT = Path(__file__).parents[3]
INPUTS = [("TEXT", "BYTES", [-1, 1]), ("ADD", "INT32", [-1, 1])]


def joined(texts, numbers):
    """What the fake model answers: text and number, written together."""
    return [text + str(number).encode() for text, number in zip(texts, numbers, strict=True)]


class GrpcModel(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self):
        self.pools = []

    async def ModelMetadata(self, request, context):  # noqa: N802 - the protocol's name
        if request.name != "join":
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model '{request.name}'")
        self.pools.append(dict(context.invocation_metadata()).get("x-tidegate-pool"))
        return service_pb2.ModelMetadataResponse(
            name="join",
            inputs=[
                service_pb2.ModelMetadataResponse.TensorMetadata(name=n, datatype=d, shape=s)
                for n, d, s in INPUTS
            ],
        )

    async def ModelInfer(self, request, _context):  # noqa: N802 - the protocol's name
        text, add = request.raw_input_contents
        numbers = np.frombuffer(add, np.int32)
        texts, at = [], 0
        while at < len(text):
            size = int.from_bytes(text[at : at + 4], "little")
            texts.append(text[at + 4 : at + 4 + size])
            at += 4 + size
        values = np.array(joined(texts, numbers), dtype=np.object_).reshape(-1, 1)
        answer = service_pb2.ModelInferResponse(model_name="join")
        answer.outputs.add(name="JOINED", datatype="BYTES", shape=values.shape)
        answer.raw_output_contents.append(serialize_byte_tensor(values).item())
        return answer


@pytest.fixture
async def grpc_model():
    model, server = GrpcModel(), grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(model, server)
    model.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield model
    await server.stop(None)


@pytest.fixture
async def http_model():
    async def metadata(_request):
        inputs = [{"name": n, "datatype": d, "shape": s} for n, d, s in INPUTS]
        return web.json_response({"name": "join", "inputs": inputs, "outputs": []})

    async def infer(request):
        size = int(request.headers["Inference-Header-Content-Length"])
        body = await request.read()
        head, binary = json.loads(body[:size]), body[size:]
        length = head["inputs"][0]["parameters"]["binary_data_size"]
        texts = [binary[4:length]]
        values = [v.decode() for v in joined(texts, np.frombuffer(binary[length:], np.int32))]
        output = {"name": "JOINED", "datatype": "BYTES", "shape": [1, 1], "data": values}
        return web.json_response({"model_name": "join", "outputs": [output]})

    async def workers(_request):
        model = {"model": "join", "inFlight": 1, "limit": 32, "weight": 0.9}
        return web.json_response([
            {"pool": "ml/join", "worker": "join-cpu-1", "ready": True, "eligible": True,
             "draining": False, "down": False, "score": 0.5, "models": [model]}
        ])  # fmt: skip

    app = web.Application()
    app.router.add_get("/v2/models/join", metadata)
    app.router.add_post("/v2/models/join/infer", infer)
    app.router.add_get("/workers", workers)
    async with TestServer(app) as server:
        yield f"127.0.0.1:{server.port}"


async def tidegate(*arguments, stdin=b""):
    """Run the command; return exit code, standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tidegate_cli", *arguments,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, error = await process.communicate(stdin)
    return process.returncode, out.decode(), error.decode()


async def test_infer_over_http_sends_a_file_and_a_number(http_model, tmp_path):
    (tmp_path / "text").write_bytes(b"count ")
    code, out, error = await tidegate(
        "infer", "join", "--url", http_model, "-i", f"TEXT=@{tmp_path}/text", "-i", "ADD=3"
    )
    assert (code, "ms over http" in error) == (0, True), error
    assert [line.split() for line in out.splitlines()] == [
        ["OUTPUT", "TYPE", "SHAPE", "VALUES"],
        ["JOINED", "BYTES", "1x1", "count", "3"],
    ]


async def test_infer_over_grpc_sends_rows_and_names_its_pool(grpc_model):
    code, out, error = await tidegate(
        "infer", "join", "--url", f"grpc://127.0.0.1:{grpc_model.port}", "--pool", "ml/join",
        "-i", "TEXT=a", "-i", "TEXT=[b]", "-i", "ADD=[1, 2]", "--json",
    )  # fmt: skip
    assert code == 0, error
    output = {"name": "JOINED", "datatype": "BYTES", "shape": [2, 1], "data": ["a1", "[b]2"]}
    assert json.loads(out) == {"model": "join", "outputs": [output]}
    assert grpc_model.pools == ["ml/join"]


async def test_infer_reads_standard_input(grpc_model):
    code, out, error = await tidegate(
        "infer", "join", "--protocol", "grpc", "--url", f"127.0.0.1:{grpc_model.port}",
        "-i", "TEXT=@-", "-i", "ADD=7", stdin=b"piped",
    )  # fmt: skip
    assert code == 0, error
    assert "piped7" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["join", "-i", "ADD=1"], "error: no value for input TEXT (BYTES [-1, 1])"),
        (["join", "-i", "NOPE=1"], "error: the model has no input NOPE"),
        (["join", "-i", "TEXT=@/no/such/file"], "No such file or directory: /no/such/file"),
        (["other", "-i", "TEXT=a"], "no model 'other'"),
    ],
)
async def test_infer_says_in_one_line_what_is_wrong(grpc_model, arguments, complaint):
    url = f"grpc://127.0.0.1:{grpc_model.port}"
    code, out, error = await tidegate("infer", *arguments, "--url", url)
    assert (code, out) == (1, "")
    assert complaint in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("scheme", ["http", "grpc"])
async def test_infer_names_the_address_that_does_not_answer(scheme, unused_tcp_port):
    url = f"{scheme}://127.0.0.1:{unused_tcp_port}"
    code, _, error = await tidegate("infer", "join", "--url", url, "-i", "TEXT=a")
    assert code == 1
    assert f"127.0.0.1:{unused_tcp_port}" in error
    assert len(error.splitlines()) == 1


async def test_workers_prints_a_table_or_the_routers_own_json(http_model):
    code, out, _ = await tidegate("workers", "--admin", http_model)
    assert code == 0
    assert out.splitlines()[1].split() == [
        "ml/join", "join-cpu-1", "serving", "0.50", "join", "1/32", "0.9",
    ]  # fmt: skip
    code, out, _ = await tidegate("workers", "--admin", f"http://{http_model}", "--json")
    assert json.loads(out)[0]["worker"] == "join-cpu-1"


async def test_workers_of_something_else_is_an_error(unused_tcp_port):
    code, _, error = await tidegate("workers", "--admin", f"127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert "no router's admin port" in error


async def test_digest_of_a_file_and_a_folder_is_what_the_shell_says(tmp_path):
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"weights")
    (tmp_path / "m" / "config pbtxt").write_bytes(b"")
    shell = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    printed = await asyncio.create_subprocess_shell(
        shell, cwd=tmp_path / "m", stdout=subprocess.PIPE
    )
    listing, _ = await printed.communicate()
    _, folder, _ = await tidegate("digest", str(tmp_path / "m"))
    _, file, _ = await tidegate("digest", str(tmp_path / "m" / "1" / "model.onnx"))
    assert folder.split() == listing.decode().split()[:1]
    assert file.strip() == hashlib.sha256(b"weights").hexdigest()


async def test_wrong_usage_is_exit_code_two():
    code, _, error = await tidegate("digest", "/no/such/path")
    assert code == 2
    assert "does not exist" in error


async def test_the_reference_page_is_generated_from_the_commands(tmp_path):
    page = tmp_path / "cli.md"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "typer", "tidegate_cli.app", "utils", "docs",
        "--name", "tidegate", "--output", str(page), stdout=subprocess.PIPE,
    )  # fmt: skip
    await process.communicate()
    committed = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    assert page.read_text("utf-8") == committed, "run `make generate`"
