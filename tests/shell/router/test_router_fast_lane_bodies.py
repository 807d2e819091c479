"""Bodies that are passed on rather than held, and answers that come before their end."""

import asyncio
import io
import json
import os
import random
import socket

import pytest

INFER = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
MIB = 1024 * 1024


@pytest.fixture
async def worker(start_worker):
    return await start_worker("w1")


@pytest.fixture
def served(router, worker, kit):
    router.serve(kit.table(kit.routed(worker)))
    return router


@pytest.mark.parametrize("chunked", [False, True], ids=["with-a-length", "in-chunks"])
async def test_a_large_body_is_passed_on_and_its_framing_is_our_own(
    start_router, worker, kit, chunked
):
    router = await start_router(max_body_bytes=64 * MIB)
    router.serve(kit.table(kit.routed(worker)))
    body = random.Random(3).randbytes(5 * MIB + 7)

    async def pieces():
        for at in range(0, len(body), 100_003):
            yield body[at : at + 100_003]

    answer, _ = await router.infer(pieces() if chunked else io.BytesIO(body))
    assert answer.status == 200
    [seen] = worker.seen
    assert seen.body == body
    assert seen.header("content-length") == ([] if chunked else [str(len(body))])
    assert seen.header("transfer-encoding") == (["chunked"] if chunked else [])
    await kit.eventually(lambda: router.in_flight("w1") == 0)


async def test_a_worker_that_does_not_read_stops_its_client(start_router, kit):
    router, gate, body = await start_router(max_body_bytes=256 * MIB), asyncio.Event(), 96 * MIB

    async def slow(reader, writer, _number):
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        left = body
        while left:
            left -= len(await reader.read(MIB))
        writer.write(OK + b"Content-Length: 0\r\n\r\n")
        await writer.drain()

    async with kit.raw_worker(slow) as raw:
        router.serve(kit.table(kit.routed(raw)))
        async with router.connect() as (reader, writer):
            writer.write(INFER + b"Content-Length: %d\r\n\r\n" % body)
            sent = await kit.until_stuck(writer, body)
            assert sent < body // 2  # what the sockets of the system hold
            gate.set()
            await writer.drain()
            for _ in range(sent, body, MIB):
                writer.write(b"x" * MIB)
                await writer.drain()
            assert (await kit.answer_of(reader))[0] == 200


async def test_a_client_that_does_not_read_stops_its_worker(served, kit):
    size, stuck = 96 * MIB, asyncio.get_running_loop().create_future()

    async def fast(reader, writer, _number):
        await kit.read_request(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % size)
        sent = await kit.until_stuck(writer, size)
        stuck.set_result(sent)
        await writer.drain()
        for _ in range(sent, size, MIB):
            writer.write(b"x" * MIB)
            await writer.drain()

    async with kit.raw_worker(fast) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=MIB)
        writer.write(kit.asking(b"{}"))
        assert await stuck < size // 2
        await reader.readuntil(b"\r\n\r\n")
        left = size
        while left:
            piece = await reader.read(MIB)
            assert piece
            left -= len(piece)
        writer.close()


async def test_a_client_that_leaves_in_mid_upload_ends_the_workers_request(start_router, kit):
    router, ended = await start_router(max_body_bytes=64 * MIB), asyncio.Event()

    async def reading(reader, _writer, _number):
        while await reader.read(MIB):
            pass
        ended.set()

    async with kit.raw_worker(reading) as raw:
        router.serve(kit.table(kit.routed(raw)))
        async with router.connect() as (_, writer):
            writer.write(INFER + b"Content-Length: %d\r\n\r\n" % (4 * MIB) + b"x" * 2 * MIB)
            await kit.eventually(lambda: raw.opened)
            assert router.in_flight("raw") == 1
        async with asyncio.timeout(5):
            await ended.wait()
        await kit.eventually(lambda: router.in_flight("raw") == 0)


async def test_a_slow_upload_is_the_clients_fault(start_router, kit):
    router = await start_router(max_body_bytes=64 * MIB)

    async def reading(reader, _writer, _number):
        while await reader.read(MIB):
            pass

    async with kit.raw_worker(reading) as raw:
        router.serve(kit.table(kit.routed(raw), policy={"timeoutSeconds": 0.3}))
        async with router.connect() as (reader, writer):
            writer.write(INFER + b"Content-Length: %d\r\n\r\n" % (4 * MIB) + b"x" * 1000)
            status, headers, _ = await kit.answer_of(reader)
        assert (status, headers["connection"]) == (408, "close")
        await kit.eventually(lambda: router.in_flight("raw") == 0)
        series = json.loads((await router.admin("/v1/state"))[1])["series"][0]
        assert series["attempts"].get("timeout", 0) == 0


async def test_an_answer_before_the_end_of_an_upload_reaches_the_client(start_router, kit):
    router = await start_router(max_body_bytes=64 * MIB)

    async def early(reader, writer, _number):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()
        await reader.read()

    async with kit.raw_worker(early) as raw:
        router.serve(kit.table(kit.routed(raw)))
        async with router.connect() as (reader, writer):
            writer.write(INFER + b"Content-Length: %d\r\n\r\n" % (4 * MIB) + b"x" * 1000)
            status, headers, body = await kit.answer_of(reader)
            assert (status, body, headers["connection"]) == (400, b"no", "close")
            assert await reader.read() == b""


async def test_a_body_over_the_limit_in_chunks_is_413_in_mid_way(start_router, worker, kit):
    router = await start_router(max_body_bytes=3 * MIB)
    router.serve(kit.table(kit.routed(worker)))
    async with router.connect() as (reader, writer):
        writer.write(INFER + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            writer.write(b"100000\r\n" + b"x" * MIB + b"\r\n")
        writer.write(b"1\r\nx\r\n")
        status, headers, _ = await kit.answer_of(reader)
    assert (status, headers["x-tidegate-dropped-reason"]) == (413, "too-large")
    await kit.eventually(lambda: router.in_flight("w1") == 0)
    assert worker.seen == []


async def test_after_an_early_answer_what_still_comes_is_read_for_a_while(served, kit):
    async with served.connect() as (reader, writer):
        writer.write(INFER + b"Content-Length: 99999999\r\n\r\n")
        assert (await kit.answer_of(reader))[0] == 413
        [connection] = served.fast.connections
        writer.write(b"x" * 100_000)
        await kit.eventually(lambda: connection._discarded == 100_000)
        assert await reader.read() == b""
        await kit.eventually(lambda: not served.fast.connections)  # a second later


async def test_100_continue_is_said_after_admission_only(kit, served, worker):
    async with served.connect() as (reader, writer):
        writer.write(
            INFER.replace(b"/m/", b"/none/") + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        status, headers, _ = await kit.answer_of(reader)
    assert (status, headers["connection"]) == (404, "close")
    assert worker.seen == []


async def test_100_continue_of_a_large_body_is_said_when_a_worker_takes_it(
    start_router, worker, kit
):
    router = await start_router(max_body_bytes=64 * MIB)
    router.serve(kit.table(kit.routed(worker)))
    async with router.connect() as (reader, writer):
        writer.write(INFER + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (2 * MIB))
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        assert router.in_flight("w1") == 1
        writer.write(b"x" * 2 * MIB)
        assert (await kit.answer_of(reader))[0] == 200
    assert worker.seen[0].header("expect") == []


async def slow_client(served, kit):
    """Connect so that next to nothing of an answer is on its way while nobody reads it."""
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect(("127.0.0.1", served.port))
        one.setblocking(False)  # noqa: FBT003  # the library's
        reader, writer = await asyncio.open_connection(sock=one.dup(), limit=64 * 1024)
    [connection] = await kit.eventually(lambda: list(served.fast.connections))
    number = connection._transport.get_extra_info("socket").fileno()
    with socket.socket(fileno=os.dup(number)) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return reader, writer, connection


async def test_a_worker_that_a_slow_client_stopped_serves_the_next(served, kit):
    body = bytes(MIB + 1000)  # its last bytes are those that make it too large to hold

    async def talk(reader, writer, _number):
        while True:
            await kit.read_request(reader)
            writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body))
            writer.write(body + b"\r\n0\r\n\r\n")
            await writer.drain()

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        _, writer, connection = await slow_client(served, kit)
        writer.write(kit.asking(b"{}"))
        await kit.eventually(lambda: connection._blocked)
        assert (await served.infer())[1] == body
        assert (await served.infer())[1] == body
        assert len(raw.opened) == 1
        writer.close()


async def test_who_does_not_read_answers_is_asked_no_further_questions(served, worker, kit):
    worker.answer = kit.answering(200, bytes(MIB))
    _, writer, connection = await slow_client(served, kit)
    for _ in range(5):
        writer.write(kit.asking(b"{}"))
    await kit.eventually(lambda: connection._blocked)
    for _ in range(50):
        await served.ask("GET", "/healthz")  # a turn for everybody
    assert len(worker.seen) == 1
    writer.close()
