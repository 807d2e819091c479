"""Triton's own gRPC clients, unchanged, through a real lane."""

import asyncio
import queue

import numpy as np
import pytest
import tritonclient.grpc as blocking
import tritonclient.grpc.aio as asynchronous
from tritonclient.utils import InferenceServerException

VALUES = np.array([1.5, -2.25], dtype=np.float32)


def inputs():
    tensor = blocking.InferInput("X", list(VALUES.shape), "FP32")
    tensor.set_data_from_numpy(VALUES)
    return [tensor]


@pytest.fixture
def address(router, worker):
    router.serve(worker.routed())
    return router.address


async def test_the_blocking_client_infers_asks_and_streams(address):
    def use():
        done = queue.Queue()
        with blocking.InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("m")
            assert client.get_server_metadata().name == "tidegate-router"
            assert client.get_model_metadata("m").name == "m"
            answers = [client.infer("m", inputs(), compression_algorithm="gzip")]
            client.async_infer(
                "m", inputs(), callback=lambda result, error: done.put((result, error))
            )
            client.start_stream(callback=lambda result, error: done.put((result, error)))
            for _ in range(4):
                client.async_stream_infer("m", inputs())
            got = [done.get(timeout=10) for _ in range(5)]
            client.stop_stream()
        assert [error for _, error in got] == [None] * 5
        return [answer.as_numpy("X").tolist() for answer in (*answers, *(r for r, _ in got))]

    assert await asyncio.to_thread(use) == [VALUES.tolist()] * 6


async def test_the_asynchronous_client_infers_and_streams(address):
    async def requests():
        for _ in range(3):
            yield {"model_name": "m", "inputs": inputs()}

    async with asynchronous.InferenceServerClient(address) as client:
        found = await asyncio.gather(*(client.infer("m", inputs()) for _ in range(8)))
        streamed = [item async for item in client.stream_infer(requests())]
    assert all(one.as_numpy("X").tolist() == VALUES.tolist() for one in found)
    assert [(r.as_numpy("X").tolist(), error) for r, error in streamed] == [
        (VALUES.tolist(), None)
    ] * 3


async def test_a_refusal_is_told_as_the_client_tells_tritons(address):
    async with asynchronous.InferenceServerClient(address) as client:
        with pytest.raises(InferenceServerException, match="no pool serves model 'other'"):
            await client.infer("other", inputs())
        with pytest.raises(InferenceServerException, match="control APIs"):
            await client.unload_model("m")
