"""Schemathesis against a live router: our OpenAPI document and the Open Inference Protocol's.

    .venv/bin/python tests/bench/fuzz_apis.py [--examples 1000] [--seed 1] [--document oip]

A router process, a stub worker that judges what it gets as Triton would, and schemathesis' command
line, which prints each failure with a curl command. The exit status is schemathesis' own.
"""

import argparse
import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import aiohttp
from aiohttp import web
from jsonschema import Draft202012Validator

from tidegate_api.names import HEADER_MODEL
from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, Ports, RoutedWorker, RouteTableSpec, Served
from tidegate_api.state import Traits

ROOT = Path(__file__).parents[2]
DOCUMENTS = {"own": "docs/reference/openapi.json", "oip": "docs/reference/oip.openapi.json"}
MODELS = ("story", "classes")  # text in and out; tensors
_KNOWN = {
    "model": (*MODELS, "nobody"),
    "version": ("1", "7"),
    "x-tidegate-pool": ("ml/fuzz", "ml/nothing"),
}
_METADATA = {"platform": "python", "versions": ["1"], "inputs": [], "outputs": []}


def main() -> int:
    """Run one document or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="cases per operation and phase")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--document", choices=(*DOCUMENTS, "both"), default="both")
    arguments = parser.parse_args()
    wanted = DOCUMENTS if arguments.document == "both" else (arguments.document,)
    return asyncio.run(_run(list(wanted), arguments.examples, arguments.seed))


async def _run(documents: list[str], examples: int, seed: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder, worker = Path(name), web.AppRunner(_stub_worker(), access_log=None)
        await worker.setup()
        await web.TCPSite(worker, "127.0.0.1", 0).start()
        router, url = await _start_router(folder, worker.addresses[0][1])
        try:
            results = [await _fuzz(folder, one, url, examples, seed) for one in documents]
        finally:
            router.terminate()
            await router.wait()
            await worker.cleanup()
    return max(results)


async def _start_router(folder: Path, worker_port: int) -> tuple[asyncio.subprocess.Process, str]:
    routes, port = folder / "routes.json", _free_port()
    routes.write_text(json.dumps([_table(worker_port).to_wire()]))
    settings = {"HTTP_PORT": port, "GRPC_PORT": -1, "ADMIN_PORT": 0, "DRAIN_SECONDS": 0}
    environment = {f"TIDEGATE_{key}": str(value) for key, value in settings.items()}
    environment["TIDEGATE_ROUTES_FILE"] = str(routes)
    environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / one) for one in ("crds", "router"))
    with (folder / "router.log").open("wb") as log:
        router = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tidegate_router", env={**os.environ, **environment},
            stdout=log, stderr=log,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    await _until_ready(f"{url}/readyz")
    return router, url


async def _until_ready(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            try:
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _table(port: int) -> RouteTableSpec:
    serves = [
        Served(revision="r1", model=model, limit=8, traits=Traits(text=model == "story"))
        for model in MODELS
    ]
    worker = RoutedWorker(
        id="w1", name="w1", address="127.0.0.1", ports=Ports(http=port), revision="r1",
        serves=serves,
    )  # fmt: skip
    return RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name="fuzz", uid="u1"), sequence=1,
        weights=[RevisionWeight(revision="r1", weight=100)], workers=[worker],
    )  # fmt: skip


async def _fuzz(folder: Path, document: str, url: str, examples: int, seed: int) -> int:
    """Run schemathesis on a document whose free names are ones that the router knows."""
    described = json.loads((ROOT / DOCUMENTS[document]).read_text())
    # 503 is this path's word for a version that no worker has; every 5xx is a failure to the tool.
    described["paths"].pop("/v2/models/{model}/versions/{version}/ready", None)
    for operation in (one for path in described["paths"].values() for one in path.values()):
        # With the body's, it must be the same name, which a schema cannot say.
        if isinstance(operation, dict) and "requestBody" in operation:
            operation["parameters"] = [
                one for one in operation.get("parameters", []) if one["name"] != HEADER_MODEL
            ]
    for place, known in _names(described):
        allowed = [*known, *([None] if "anyOf" in place else [])]
        place.clear()
        place["enum"] = allowed
    file = folder / f"{document}.json"
    file.write_text(json.dumps(described))
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", str(file), "--url", url,
        "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure",
        "--request-timeout", "20", "--warnings", "off",
    ]  # fmt: skip
    print(f"== {document}: {' '.join(command[1:])}", flush=True)
    program = await asyncio.create_subprocess_exec(*command, cwd=folder)
    return await program.wait()


def _names(document: object) -> Iterator[tuple[dict[str, object], Sequence[str]]]:
    """Yield each schema that a name is checked by, with the names that mean something here."""
    if isinstance(document, list):
        for one in document:
            yield from _names(one)
    elif isinstance(document, dict):
        if "in" in document and document.get("name") in _KNOWN:
            yield document["schema"], _KNOWN[document["name"]]
        properties = document.get("properties")
        if isinstance(properties, dict) and properties.keys() & {"prompt", "text_input"}:
            yield properties["model"], _KNOWN["model"]
        for one in document.values():
            yield from _names(one)


def _stub_worker() -> web.Application:
    """Return what plays Triton: it refuses what the protocol's own schema refuses."""
    tensors, texts = _judge("oip", "InferenceRequest"), _judge("own", "GenerateRequest")

    async def infer(request: web.Request) -> web.Response:
        body = await _json(request)
        if not tensors.is_valid(body):
            return _refused("this is no inference request")
        about = {"model_name": request.match_info["model"], "model_version": "1"}
        return web.json_response({**about, "outputs": []})

    async def generate(request: web.Request) -> web.StreamResponse:
        body = await _json(request)
        if not texts.is_valid(body):
            return _refused("this is no generate request")
        told = {"model_name": request.match_info["model"], "text_output": "so it goes"}
        if request.path.endswith("/generate"):
            return web.json_response(told)
        text = f"data: {json.dumps(told)}\n\n" * 3
        return web.Response(text=text, content_type="text/event-stream")

    async def metadata(request: web.Request) -> web.Response:
        return web.json_response({"name": request.match_info["model"], **_METADATA})

    app = web.Application(client_max_size=0)
    for version in ("", "/versions/1"):
        path = f"/v2/models/{{model}}{version}"
        app.router.add_post(f"{path}/infer", infer)
        app.router.add_post(f"{path}/generate", generate)
        app.router.add_post(f"{path}/generate_stream", generate)
        app.router.add_get(path, metadata)
    return app


def _judge(document: str, schema: str) -> Draft202012Validator:
    components = json.loads((ROOT / DOCUMENTS[document]).read_text())["components"]
    return Draft202012Validator(
        {"$ref": f"#/components/schemas/{schema}", "components": components}
    )


async def _json(request: web.Request) -> object:
    try:
        return json.loads(await request.read())
    except ValueError:
        return None


def _refused(text: str) -> web.Response:
    return web.json_response({"error": text}, status=400)


if __name__ == "__main__":
    sys.exit(main())
