"""Clients that are slow on purpose, while others are not: the slow are cut, the others served.

`tests/bench/bench_hostile.py` measures what the others notice of it.
"""

import asyncio

import pytest
from aiohttp import web

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"
DRIP_S = 0.05  # between two bytes: far less than a deadline, so that no idle time is what cuts
DEADLINE_S = 0.5
MIB = 1024 * 1024
EACH, HALF_OPEN, GOOD = 10, 100, 60


async def drip(writer, data):
    for byte in data:
        writer.write(bytes((byte,)))
        await asyncio.sleep(DRIP_S)


async def slow(port, begun, rest):
    """Send `rest` byte by byte; return what the router said before it closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begun)
    dripping = asyncio.create_task(drip(writer, rest))
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        dripping.cancel()
        writer.transport.abort()


async def unread(port, left):
    """Ask for a large answer and read nothing of it until told."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(HEAD + b"Content-Length: 2\r\nx-large: 1\r\n\r\n{}")
    await left.wait()
    writer.transport.abort()
    return reader


async def answer(request, _body):
    return web.Response(body=b"x" * (8 * MIB if "x-large" in request.headers else 10))


@pytest.fixture
async def scene(start_router, start_worker, kit):
    worker = await start_worker("w1", answer=answer)
    router = await start_router(head_s=DEADLINE_S, body_s=DEADLINE_S)
    router.serve(kit.table(kit.routed(worker, limit=200)))
    return router


async def test_good_requests_succeed_while_slow_clients_are_cut_by_the_deadlines(scene, kit):
    left = asyncio.Event()
    heads = [slow(scene.port, HEAD, b"A: " + b"b" * 1000) for _ in range(EACH)]
    heads += [slow(scene.port, HEAD, b"") for _ in range(HALF_OPEN)]
    bodies = []
    for _ in range(EACH):
        bodies.append(slow(scene.port, HEAD + b"Content-Length: 999\r\n\r\n", b"x" * 999))
        bodies.append(slow(scene.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"))
    async with asyncio.TaskGroup() as group, asyncio.timeout(15):
        readers = [group.create_task(unread(scene.port, left)) for _ in range(EACH)]
        cut_heads = [group.create_task(one) for one in heads]
        cut_bodies = [group.create_task(one) for one in bodies]
        await kit.eventually(lambda: len(scene.fast.connections) > HALF_OPEN)
        good = [(await scene.infer())[0].status for _ in range(GOOD)]
        await asyncio.wait([*cut_heads, *cut_bodies])
        good += [(await scene.infer())[0].status for _ in range(GOOD)]
        left.set()
    assert good == [200] * 2 * GOOD
    assert {one.result() for one in cut_heads} == {b""}
    assert {one.result()[:12] for one in cut_bodies} == {b"HTTP/1.1 408"}
    assert len(readers) == EACH
    await kit.eventually(lambda: len(scene.fast.connections) <= 1)  # the good client's
    await kit.eventually(lambda: scene.in_flight("w1") == 0)
