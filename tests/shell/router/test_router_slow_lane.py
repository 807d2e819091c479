"""The aiohttp path, from the first byte: what the fast lane hands over is served like there."""

import asyncio
import json
import random

import aiohttp
import pytest
from aiohttp import web


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
async def served(start_router, worker, kit):
    router = await start_router(slow_lane=True)
    router.serve(kit.table(kit.routed(worker)))
    return router


async def test_a_body_arrives_byte_for_byte_and_the_answer_says_who_gave_it(served, worker):
    body = random.Random(1).randbytes(300_001)
    answer, _ = await served.infer(body, headers={"x-request-id": "mine-1"})
    assert answer.status == 200
    assert worker.seen[0].body == body
    assert answer.headers["x-tidegate-worker"] == "w1"
    assert answer.headers["x-tidegate-revision"] == "r1"
    assert answer.headers["x-tidegate-attempts"] == "1"
    assert answer.headers["x-request-id"] == "mine-1"


async def test_what_never_ran_goes_to_another_worker(start_router, start_worker, kit):
    router = await start_router(slow_lane=True)
    bad, good = await start_worker("bad"), await start_worker("good")
    bad.answer = kit.answering(503)
    router.serve(kit.table(kit.routed(bad), kit.routed(good)))
    for _ in range(8):
        answer, _ = await router.infer()
        assert answer.headers["x-tidegate-worker"] == "good"
    assert bad.seen


async def test_a_refusal_names_the_revision_that_was_drawn(start_router, start_worker, kit):
    router, worker = await start_router(slow_lane=True), await start_worker()
    worker.answer = kit.answering(503)
    router.serve(kit.table(kit.routed(worker, revision="r7")))
    answer, _ = await router.infer()
    assert (answer.status, answer.headers["x-tidegate-revision"]) == (503, "r7")


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


async def test_a_body_over_the_limit_is_413(start_router, worker, kit):
    router = await start_router(slow_lane=True, max_body_bytes=1000)
    router.serve(kit.table(kit.routed(worker)))
    answer, body = await router.infer(b"x" * 1001)
    assert answer.headers["x-tidegate-dropped-reason"] == "too-large"
    assert (answer.status, "1000 bytes" in json.loads(body)["error"]) == (413, True)
    assert worker.seen == []


@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"A_B: c"])
async def test_a_head_that_could_be_read_twice_is_refused(served, worker, framing):
    async with served.connect() as (reader, writer):
        writer.write(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n{}")
        assert b" 400 " in await reader.readuntil(b"\r\n")
    assert worker.seen == []


async def test_a_client_that_leaves_frees_the_slot_only_when_the_worker_ends(served, worker, kit):
    gate = asyncio.Event()

    async def slow(_request, _body):
        await gate.wait()
        return web.Response()

    worker.answer = slow
    with pytest.raises(TimeoutError):
        await served.infer(timeout=aiohttp.ClientTimeout(total=0.2))
    assert served.in_flight("w1") == 1
    gate.set()
    await kit.eventually(lambda: served.in_flight("w1") == 0)


async def test_a_draining_router_is_not_ready_and_closes_connections(served):
    served.lane.draining = True
    assert (await served.ask("GET", "/readyz"))[0].status == 503
    answer, _ = await served.infer()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
