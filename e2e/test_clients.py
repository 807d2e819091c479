"""Triton's own clients through the router, unchanged; every answer equals the direct one."""

import asyncio
import queue
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

VALUES = np.array([[1.5, -2.25, 3.0]], dtype=np.float32)


@pytest.fixture
def headers(standing):
    """Two namespaces may serve a model `echo`: say which pool is meant."""
    return {"x-tidegate-pool": f"{standing.namespace}/echo"}


@pytest.fixture
def worker(standing) -> Iterator[str]:
    pods = standing.get("pods", "-l", "tidegate.dev/pool=echo")["items"]
    return pods[0]["status"]["podIP"]


def inputs(library, *, binary: bool | None = None):
    tensor = library.InferInput("INPUT", list(VALUES.shape), "FP32")
    if binary is None:
        tensor.set_data_from_numpy(VALUES)
    else:
        tensor.set_data_from_numpy(VALUES, binary_data=binary)
    return [tensor]


@pytest.mark.parametrize("binary", [False, True], ids=["json-tensors", "binary-tensors"])
def test_http_client_gets_what_a_worker_answers_directly(router, headers, worker, binary):
    outputs = [http_client.InferRequestedOutput("OUTPUT", binary_data=binary)]
    answers = []
    for url, extra in ((router.http, headers), (f"{worker}:8000", None)):
        with http_client.InferenceServerClient(url) as client:
            result = client.infer(
                "echo", inputs(http_client, binary=binary), outputs=outputs, headers=extra
            )
            answers.append((result.get_response(), result.as_numpy("OUTPUT").tolist()))
    assert answers[0] == answers[1]
    assert answers[0][1] == VALUES.tolist()


def test_http_client_async_infer_compression_and_metadata(router, headers, worker):
    with http_client.InferenceServerClient(router.http, concurrency=4) as client:
        handles = [
            client.async_infer("echo", inputs(http_client, binary=True), headers=headers)
            for _ in range(16)
        ]
        assert all(h.get_result().as_numpy("OUTPUT").tolist() == VALUES.tolist() for h in handles)
        packed = client.infer(
            "echo",
            inputs(http_client, binary=True),
            headers=headers,
            request_compression_algorithm="gzip",
            response_compression_algorithm="gzip",
        )
        assert packed.as_numpy("OUTPUT").tolist() == VALUES.tolist()
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo", headers=headers)
        through = client.get_model_metadata("echo", headers=headers)
    with http_client.InferenceServerClient(f"{worker}:8000") as client:
        assert through == client.get_model_metadata("echo")


async def test_http_aio_client(router, headers):
    async with http_aio.InferenceServerClient(router.http) as client:
        results = await asyncio.gather(
            *(client.infer("echo", inputs(http_aio), headers=headers) for _ in range(16))
        )
    assert all(r.as_numpy("OUTPUT").tolist() == VALUES.tolist() for r in results)


def test_grpc_client_unary_async_and_metadata(router, headers, worker):
    done: queue.Queue = queue.Queue()
    with grpc_client.InferenceServerClient(router.grpc) as client:
        unary = client.infer("echo", inputs(grpc_client), headers=headers)
        for _ in range(8):
            client.async_infer(
                "echo",
                inputs(grpc_client),
                callback=lambda result, error: done.put((result, error)),
                headers=headers,
            )
        for _ in range(8):
            result, error = done.get(timeout=20)
            assert error is None
            assert result.as_numpy("OUTPUT").tolist() == VALUES.tolist()
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo", headers=headers)
        through = client.get_model_metadata("echo", headers=headers)
    with grpc_client.InferenceServerClient(f"{worker}:8001") as client:
        direct = client.infer("echo", inputs(grpc_client))
        assert unary.get_response() == direct.get_response()
        assert through == client.get_model_metadata("echo")


def test_grpc_client_stream(router, headers):
    done: queue.Queue = queue.Queue()
    with grpc_client.InferenceServerClient(router.grpc) as client:
        client.start_stream(
            callback=lambda result, error: done.put((result, error)), headers=headers
        )
        for _ in range(8):
            client.async_stream_infer("echo", inputs(grpc_client))
        for _ in range(8):
            result, error = done.get(timeout=20)
            assert error is None
            assert result.as_numpy("OUTPUT").tolist() == VALUES.tolist()
        client.stop_stream()


async def test_grpc_aio_client_unary_and_stream(router, headers):
    async def requests():
        for _ in range(4):
            yield {"model_name": "echo", "inputs": inputs(grpc_aio)}

    async with grpc_aio.InferenceServerClient(router.grpc) as client:
        results = await asyncio.gather(
            *(client.infer("echo", inputs(grpc_aio), headers=headers) for _ in range(16))
        )
        assert all(r.as_numpy("OUTPUT").tolist() == VALUES.tolist() for r in results)
        answers = [item async for item in client.stream_infer(requests(), headers=headers)]
    assert [error for _, error in answers] == [None] * 4


def test_control_apis_are_refused_by_router_and_worker(router, headers, worker):
    refused = http_client.InferenceServerException
    with http_client.InferenceServerClient(f"{worker}:8000") as direct, pytest.raises(refused):
        direct.unload_model("echo")
    with http_client.InferenceServerClient(router.http) as client, pytest.raises(refused):
        client.unload_model("echo", headers=headers)
