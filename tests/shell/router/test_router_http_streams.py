"""Streams over HTTP through a real router to real servers that play workers."""

import asyncio

import aiohttp
import pytest
from aiohttp import web


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
def served(router, worker, kit):
    router.serve(kit.table(kit.routed(worker)))
    return router


async def test_a_stream_is_relayed_piece_by_piece(served, worker):
    second = asyncio.Event()

    async def streaming(request, _body):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        await second.wait()
        await answer.write(b"data: 2\n\n")
        return answer

    worker.answer = streaming
    path = "/v2/models/m/generate_stream"
    async with served.open("POST", path, data=b"{}") as answer:
        assert await answer.content.readany() == b"data: 1\n\n"
        second.set()
        assert await answer.content.read() == b"data: 2\n\n"
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["x-tidegate-worker"] == "w1"
    assert "x-request-id" in answer.headers


async def test_a_stream_that_breaks_is_not_called_complete(served, worker):
    async def broken(request, _body):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        request.transport.close()
        return answer

    worker.answer = broken
    with pytest.raises(aiohttp.ClientPayloadError):
        await served.ask("POST", "/v2/models/m/generate_stream", data=b"{}")


async def test_a_stream_that_never_began_is_tried_elsewhere(router, start_worker, kit):
    bad, good = await start_worker("bad"), await start_worker("good")
    bad.answer = kit.answering(503)
    router.serve(kit.table(kit.routed(bad), kit.routed(good)))
    for _ in range(8):
        answer, _ = await router.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
        assert answer.headers["x-tidegate-worker"] == "good"
    assert bad.seen


async def test_a_worker_hears_within_a_second_that_a_streams_client_left(served, worker, kit):
    gone = asyncio.Event()

    async def endless(request, _body):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"data: 1\n\n")
        await kit.eventually(lambda: request.transport is None)
        gone.set()
        return answer

    worker.answer = endless
    async with served.open("POST", "/v2/models/m/generate_stream", data=b"{}") as answer:
        await answer.content.readany()
        answer.close()
    async with asyncio.timeout(1.5):
        await gone.wait()
    await kit.eventually(lambda: served.in_flight("w1") == 0)
