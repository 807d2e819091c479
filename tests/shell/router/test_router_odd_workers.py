"""Workers that answer oddly, and names and clients that look odd but are right."""

import asyncio
import json
import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiohttp import web

HEAD = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def raw_worker(*pieces):
    """A server that reads one request and sends these bytes, then closes."""
    asked = []

    async def talk(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        asked.append(head)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield SimpleNamespace(name="raw", port=port, asked=asked)
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing-at-all"),
        pytest.param(b"no HTTP\r\n\r\n", id="no-http"),
        pytest.param(HEAD + b"Content-Le", id="half-a-head"),
        pytest.param(HEAD + b"Content-Length: 10\r\n\r\n{}", id="less-than-it-promised"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", id="no-last-chunk"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", id="no-chunk-size"),
        pytest.param(HEAD + b"X: " + b"a" * 100_000 + b"\r\n\r\n", id="a-head-without-end"),
    ],
)
async def test_a_broken_answer_costs_no_request(router, start_worker, kit, answer):
    good = await start_worker("good")
    async with raw_worker(answer) as raw:
        router.serve(kit.table(kit.routed(raw), kit.routed(good)))

        async def reached():
            found, body = await router.infer(random.randbytes(8))
            assert (found.status, json.loads(body)["worker"]) == (200, "good")
            return raw.asked

        await kit.eventually(reached)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        pytest.param(HEAD + b"Content-Length: 2\r\n\r\n{}", b"{}", id="with-a-length"),
        pytest.param(
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", b"{}",
            id="in-chunks",
        ),
        pytest.param(HEAD + b"Connection: close\r\n\r\n{}", b"{}", id="until-it-closes"),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\n{}", b"{}",
            id="after-100",
        ),
        pytest.param(HEAD + b"Content-Length: 0\r\n\r\n", b"", id="empty"),
    ],
)  # fmt: skip
async def test_any_right_framing_is_answered_with_a_length(router, kit, answer, body):
    async with raw_worker(answer) as raw:
        router.serve(kit.table(kit.routed(raw)))
        found, got = await router.infer()
    assert (found.status, got) == (200, body)
    assert found.headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in found.headers


async def test_headers_that_occur_twice_arrive_twice_and_those_of_the_hop_do_not(router, kit):
    head = b"X-A: 1\r\nX-A: 2\r\nX-Hop: 1\r\nConnection: X-Hop\r\nContent-Length: 0\r\n\r\n"
    async with raw_worker(HEAD + head) as raw:
        router.serve(kit.table(kit.routed(raw)))
        found, _ = await router.infer()
    assert found.headers.getall("X-A") == ["1", "2"]
    assert "X-Hop" not in found.headers


async def test_a_redirect_is_passed_on_and_not_followed(router, start_worker, kit):
    worker, elsewhere = await start_worker("w1"), await start_worker("elsewhere")
    worker.answer = kit.answering(307, Location=f"http://127.0.0.1:{elsewhere.port}/v2")
    router.serve(kit.table(kit.routed(worker)))
    found, _ = await router.infer(allow_redirects=False)
    assert found.status == 307
    assert elsewhere.seen == []


async def test_an_answer_of_eight_megabytes_arrives_whole(router, start_worker, kit):
    worker, body = await start_worker(), random.Random(5).randbytes(8 * 1024 * 1024 + 3)
    worker.answer = kit.answering(200, body)
    router.serve(kit.table(kit.routed(worker)))
    _, got = await router.infer()
    assert got == body


async def test_a_restarted_worker_costs_not_even_what_may_not_be_repeated(
    router, start_worker, kit
):
    worker = await start_worker()
    router.serve(kit.table(kit.routed(worker, idempotent=False)))
    for _ in range(3):
        assert (await router.infer())[0].status == 200
        await worker.stop()
        await worker.start()
    assert (await router.infer())[0].status == 200
    assert len(worker.seen) == 4


@pytest.mark.parametrize("model", ["ks", "desk-sketch", "KS.kiss_S", "sick@k+s=s,k", "7", "v2"])
async def test_names_of_models_are_taken_as_they_are(router, start_worker, kit, model):
    worker = await start_worker()
    router.serve(kit.table(kit.routed(worker, model=model), name="sks-kks"))
    assert (await router.infer(model=model))[0].status == 200
    path = f"/pools/ml/sks-kks/v2/models/{model}/versions/1/infer"
    assert (await router.ask("POST", path, data=b"{}"))[0].status == 200
    assert worker.seen[0].target == f"/v2/models/{model}/infer"
    assert worker.seen[1].target == f"/v2/models/{model}/versions/1/infer"


async def test_a_client_of_http_1_0_is_answered_and_its_connection_closed(
    router, start_worker, kit
):
    router.serve(kit.table(kit.routed(await start_worker())))
    async with router.connect() as (reader, writer):
        writer.write(b"POST /v2/models/m/infer HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        answer = await reader.read()
    assert answer.split(b"\r\n")[0].endswith(b" 200 OK")
    assert answer.endswith(b'"worker": "w1"}')


async def test_an_error_instead_of_a_stream_is_passed_on_once(router, start_worker, kit):
    workers = [await start_worker(name) for name in ("w1", "w2")]
    for one in workers:
        one.answer = kit.answering(400, b'{"error":"no such parameter"}')
    router.serve(kit.table(*map(kit.routed, workers)))
    found, body = await router.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
    assert (found.status, body) == (400, b'{"error":"no such parameter"}')
    assert sum(len(one.seen) for one in workers) == 1


async def test_a_stream_without_a_piece_is_an_empty_answer(router, start_worker, kit):
    worker = await start_worker()
    worker.answer = kit.answering(200, b"", Content_Type="text/event-stream")
    router.serve(kit.table(kit.routed(worker)))
    found, body = await router.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
    assert (found.status, body) == (200, b"")
    assert found.headers["x-tidegate-worker"] == "w1"
    assert router.in_flight("w1") == 0


async def test_a_stream_whose_first_piece_is_late_is_a_timeout(router, start_worker, kit):
    gate = asyncio.Event()

    async def late(_request, _body):
        await gate.wait()
        return web.Response()

    worker = await start_worker()
    worker.answer = late
    router.serve(kit.table(kit.routed(worker), policy={"timeoutSeconds": 0.2}))
    found, _ = await router.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
    gate.set()
    assert found.status == 504
    assert found.headers["x-tidegate-dropped-reason"] == "deadline"
    assert router.in_flight("w1") == 0


async def test_a_stream_goes_on_beyond_the_time_for_its_first_piece(router, start_worker, kit):
    gate = asyncio.Event()

    async def long(request, _body):
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"1")
        await gate.wait()
        await answer.write(b"2")
        return answer

    worker = await start_worker()
    worker.answer = long
    router.serve(kit.table(kit.routed(worker), policy={"timeoutSeconds": 0.2}))
    async with router.open("POST", "/v2/models/m/generate_stream", data=b"{}") as found:
        assert await found.content.readany() == b"1"
        asyncio.get_running_loop().call_later(0.4, gate.set)
        assert await found.content.read() == b"2"
