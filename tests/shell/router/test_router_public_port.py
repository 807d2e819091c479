"""What the public port refuses, byte by byte, and how it answers."""

import asyncio
import json
import logging

import pytest

INFER = b"POST /v2/models/m/infer HTTP/1.1\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
def served(router, worker, kit):
    router.serve(kit.table(kit.routed(worker)))
    return router


async def send(router, data):
    """Return (status, headers, JSON) of the answer to these bytes; None if there is none."""
    async with router.connect() as (reader, writer):
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        named = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(named.get("content-length", 0)))
        return int(lines[0].split()[1]), named, json.loads(body or b"null")


@pytest.mark.parametrize(
    ("request_line", "status", "reason"),
    [
        ("POST /v2/repository/index", 403, "not-allowed"),
        ("POST /v2/repository/models/m/load", 403, "not-allowed"),
        ("POST /v2/models/m/../../repository/index", 403, "not-allowed"),
        ("POST /v2/models/m/./infer", 403, "not-allowed"),
        ("POST //v2/models/m/infer", 403, "not-allowed"),
        ("POST /v2/models/m%2finfer", 403, "not-allowed"),
        ("POST /v2/models/m%5cinfer", 403, "not-allowed"),
        ("POST /v2/models/%6d/infer", 403, "not-allowed"),
        ("POST /v2/models/m\\infer", 403, "not-allowed"),
        ("GET /v2/systemsharedmemory/status", 403, "not-allowed"),
        ("GET /v2/cudasharedmemory/status", 403, "not-allowed"),
        ("POST /v2/trace/setting", 403, "not-allowed"),
        ("POST /v2/models/m/trace/setting", 403, "not-allowed"),
        ("POST /v2/logging", 403, "not-allowed"),
        ("POST /pools/ml/vision/v2/repository/index", 403, "not-allowed"),
        ("POST http://a/v2/models/m/infer", 403, "not-allowed"),
        ("GET /v2/models/m/infer", 405, "bad-request"),
        ("PUT /v2/models/m/infer", 405, "bad-request"),
        ("DELETE /v2/models/m", 405, "bad-request"),
        ("HEAD /v2/models/m", 405, "bad-request"),
        ("GET /metrics", 404, "not-allowed"),
        ("GET /v2/models", 404, "not-allowed"),
        ("GET /", 404, "not-allowed"),
    ],
)
async def test_what_is_not_on_the_list_reaches_no_worker(
    served, worker, request_line, status, reason
):
    async with served.connect() as (reader, writer):
        writer.write(f"{request_line} HTTP/1.1\r\nHost: x\r\n".encode() + EMPTY)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert head.startswith(f"http/1.1 {status} ")
    assert f"x-tidegate-dropped-reason: {reason}\r\n" in head
    assert worker.seen == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(INFER + EMPTY, id="no-host"),
        pytest.param(INFER + b"Host: a\r\nHost: b\r\n" + EMPTY, id="two-hosts"),
        pytest.param(
            INFER + b"Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="two-framings",
        ),
        pytest.param(
            INFER + b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="te-list"
        ),
        pytest.param(
            b"POST /v2/models/m/infer HTTP/1.0\r\nHost: a\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunks-on-1.0",
        ),
        pytest.param(
            INFER + b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            id="two-lengths",
        ),
        pytest.param(INFER + b"Host: a\r\nContent-Length: +1\r\n\r\na", id="signed-length"),
        pytest.param(INFER + b"Host: a\r\ncontent_length: 1\r\n\r\n", id="underscore"),
        pytest.param(
            INFER + b"Host: a\r\nUpgrade: h2c\r\nConnection: upgrade\r\n" + EMPTY, id="upgrade"
        ),
        pytest.param(INFER + b"Host: a\r\nA: b\r\n c\r\n\r\n", id="folded-line"),
        pytest.param(INFER + b"Host: a\r\nx-tidegate-pool: one\r\n" + EMPTY, id="pool-half-named"),
        pytest.param(
            INFER + b"Host: a\r\nx-tidegate-pool: a/b\r\nx-tidegate-pool: a/c\r\n" + EMPTY,
            id="two-pools",
        ),
        pytest.param(
            b"GET /v2/models/m HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\na", id="get-body"
        ),
        pytest.param(b"POST /v2/models/m/infer\r\n\r\n", id="http-0.9"),
        pytest.param(b"SOURCE /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n\r\n", id="odd-method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", id="tls"),
        pytest.param(INFER + b"Host: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", id="40-KB-header"),
        pytest.param(
            INFER + b"Host: a\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(200)) + EMPTY,
            id="200-headers",
        ),
        pytest.param(
            INFER + b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no-chunk-size"
        ),
    ],
)
async def test_heads_that_could_be_read_twice_are_refused(served, worker, data):
    status, headers, body = await send(served, data)
    assert status in {400, 405}
    assert headers["x-tidegate-dropped-reason"] == "bad-request"
    assert body["error"]
    assert worker.seen == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", id="own-answer"),
        pytest.param(INFER + b"Host: a\r\n" + EMPTY, id="workers-answer"),
        pytest.param(b"POST /v2/models/m/infer\r\n\r\n", id="no-http"),
    ],
)
async def test_no_answer_tells_a_librarys_version(served, data):
    async with served.connect() as (reader, writer):
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    assert "\r\nserver: tidegate-router\r\n" in head


async def test_what_is_no_http_is_never_logged(served, caplog):
    caplog.set_level(logging.DEBUG)
    await send(served, INFER + b"Host: a\r\nAuthorization : Bearer s3cret\r\n\r\n")
    assert "s3cret" not in caplog.text


async def test_a_head_that_never_ends_is_cut_off(start_router):
    router = await start_router(head_s=0.2)
    async with router.connect() as (reader, writer):
        writer.write(INFER + b"Host: a\r\n")
        assert await reader.read() == b""


async def test_a_body_that_never_ends_is_408(start_router, worker, kit):
    router = await start_router(body_s=0.2)
    router.serve(kit.table(kit.routed(worker)))
    data = INFER + b"Host: a\r\nContent-Length: 4\r\n\r\n{"
    status, headers, _ = await send(router, data)
    assert (status, headers["x-tidegate-dropped-reason"]) == (408, "bad-request")
    assert worker.seen == []


async def test_a_slow_body_is_no_slow_head(start_router, worker, kit):
    router = await start_router(head_s=0.05)
    router.serve(kit.table(kit.routed(worker)))
    async with router.connect() as (reader, writer):
        writer.write(INFER + b"Host: a\r\nContent-Length: 4\r\n\r\n{")
        for piece in (b" ", b" ", b"}"):
            await asyncio.sleep(0.06)  # longer than a head may take
            writer.write(piece)
        assert b" 200 " in await reader.readuntil(b"\r\n")
    assert worker.seen[0].body == b"{  }"


async def test_expect_100_continue_is_answered_and_not_forwarded(served, worker):
    async with served.connect() as (reader, writer):
        writer.write(INFER + b"Host: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"{}")
        assert b" 200 " in await reader.readuntil(b"\r\n")
    assert worker.seen[0].header("expect") == []


async def test_pipelined_requests_are_answered_in_order(served, worker, kit):
    async def echo(_request, body):
        return await kit.answering(200, body)(_request, body)

    worker.answer = echo
    one = INFER + b"Host: a\r\nContent-Length: 1\r\n\r\n"
    async with served.connect() as (reader, writer):
        writer.write(one + b"1" + one + b"2")
        for expected in (b"1", b"2"):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(1) == expected


async def test_a_client_that_leaves_in_mid_body_reaches_no_worker(served, worker):
    async with served.connect() as (_, writer):
        writer.write(INFER + b"Host: a\r\nContent-Length: 9\r\n\r\n{}")
        await writer.drain()
    await served.infer(b"after")
    assert [seen.body for seen in worker.seen] == [b"after"]
    assert served.in_flight("w1") == 0


async def test_a_draining_router_is_not_ready_serves_on_and_closes_connections(served):
    served.lane.draining = True
    assert (await served.ask("GET", "/readyz"))[0].status == 503
    assert (await served.ask("GET", "/healthz"))[0].status == 200
    answer, _ = await served.infer()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    assert json.loads((await served.admin("/v1/state"))[1])["draining"] is True
