"""The fast lane on real sockets: framing, hand-over, and who holds a slot."""

import asyncio
import json
import random

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


async def test_of_pipelined_requests_one_is_in_progress_at_a_time(served, worker, kit):
    busy, most = 0, []

    async def echo(request, body):
        nonlocal busy
        busy += 1
        most.append(busy)
        await asyncio.sleep(0.01)
        busy -= 1
        return await kit.answering(200, body)(request, body)

    worker.answer = echo
    async with served.connect() as (reader, writer):
        writer.write(b"".join(kit.asking(b"%d" % number) for number in range(10)))
        bodies = [(await kit.answer_of(reader))[2] for _ in range(10)]
    assert bodies == [b"%d" % number for number in range(10)]
    assert max(most) == 1


async def test_thousands_of_pipelined_probes_are_answered_one_by_one(kit, served):
    async with served.connect() as (reader, writer):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 3000)
        for _ in range(3000):
            assert (await kit.answer_of(reader))[0] == 200


async def test_a_head_may_come_byte_by_byte_and_a_body_in_any_pieces(kit, served, worker):
    raw = kit.asking(b'{"a":1}', b"X-A: 1") + kit.asking(b"[]")
    async with served.connect() as (reader, writer):
        for at in range(len(raw)):
            writer.write(raw[at : at + 1])
            await writer.drain()
        assert (await kit.answer_of(reader))[0] == 200
        assert (await kit.answer_of(reader))[0] == 200
    assert [one.body for one in worker.seen] == [b'{"a":1}', b"[]"]


async def test_another_path_is_handed_over_and_inference_goes_on_there(kit, served, worker):
    async with served.connect() as (reader, writer):
        writer.write(kit.asking(b"1"))
        assert (await kit.answer_of(reader))[0] == 200
        assert len(served.fast.connections) == 1
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        status, headers, _ = await kit.answer_of(reader)
        assert (status, headers["x-tidegate-dropped-reason"]) == (404, "not-allowed")
        assert len(served.fast.connections) == 0
        writer.write(kit.asking(b"2"))
        status, headers, _ = await kit.answer_of(reader)
        assert (status, headers["x-tidegate-worker"]) == (200, "w1")
    assert [one.body for one in worker.seen] == [b"1", b"2"]


async def test_a_hand_over_waits_for_the_answer_before_it(kit, served, worker):
    other = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    async with served.connect() as (reader, writer):
        writer.write(kit.asking(b"1") + other + kit.asking(b"2"))
        found = [await kit.answer_of(reader) for _ in range(3)]
    assert [status for status, _, _ in found] == [200, 404, 200]
    assert [one.body for one in worker.seen] == [b"1", b"2"]


async def test_a_hand_over_waits_until_a_large_answer_was_read(served, worker, kit):
    body = random.Random(1).randbytes(8 * MIB)
    worker.answer = kit.answering(200, body)
    async with served.connect() as (reader, writer):
        writer.write(kit.asking(b"1") + b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        await kit.eventually(lambda: worker.seen)
        status, _, got = await kit.answer_of(reader)
        assert (status, got == body) == (200, True)
        assert (await kit.answer_of(reader))[0] == 404


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_an_answer_may_come_in_any_pieces_after_interim_ones(served, kit, size):
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    chunks = OK + b"Transfer-Encoding: chunked\r\n\r\n1;x=y\r\n{\r\n1\r\n}\r\n0\r\nT: 1\r\n\r\n"

    async def talk(reader, writer, _number):
        while True:
            await kit.read_request(reader)
            for at in range(0, len(interim + chunks), size):
                writer.write((interim + chunks)[at : at + size])
                await writer.drain()

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        for _ in range(3):
            answer, body = await served.infer()
            assert (answer.status, body) == (200, b"{}")
            assert answer.headers["Content-Length"] == "2"
            assert "Link" not in answer.headers
        assert len(raw.opened) == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", id="101"),
        pytest.param(OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", id="both"),
        pytest.param(OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="two-lengths"),
        pytest.param(OK + b"A: b\nContent-Length: 2\r\n\r\n{}", id="bare-line-feed"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n", id="bad-chunk"),
    ],
)
async def test_an_answer_with_two_readings_is_the_workers_fault(router, start_worker, kit, answer):
    good = await start_worker("good")

    async def talk(reader, writer, _number):
        await kit.read_request(reader)
        writer.write(answer)
        await writer.drain()
        await reader.read()

    async with kit.raw_worker(talk) as raw:
        router.serve(kit.table(kit.routed(raw), kit.routed(good)))

        async def reached():
            found, body = await router.infer(random.randbytes(8))
            assert (found.status, json.loads(body)["worker"]) == (200, "good")
            return raw.opened

        await kit.eventually(reached)


async def test_what_a_worker_sends_behind_its_answer_is_nobodys(served, kit, caplog):
    async def talk(reader, writer, number):
        while True:
            _, body = await kit.read_request(reader)
            answer = OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            writer.write(answer + (OK + b"Content-Length: 6\r\n\r\nforged" if number == 1 else b""))

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        for body in (b"1", b"2", b"3"):
            assert (await served.infer(body))[1] == body
        assert len(raw.opened) == 2
    assert "desync" in caplog.text
    assert "forged" not in caplog.text


async def test_bytes_on_an_idle_connection_close_it(served, kit, caplog):
    async def talk(reader, writer, _number):
        while True:
            _, body = await kit.read_request(reader)
            writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        assert (await served.infer(b"1"))[1] == b"1"
        raw.opened[0].write(OK + b"Content-Length: 6\r\n\r\nforged")
        place = served.fast.workers.place("127.0.0.1", raw.port)
        await kit.eventually(lambda: not place.idle)
        assert (await served.infer(b"2"))[1] == b"2"
        assert len(raw.opened) == 2
    assert "desync" in caplog.text


async def test_a_connection_that_was_idle_for_half_a_minute_is_closed_by_us(served, kit):
    ended = asyncio.Event()

    async def talk(reader, writer, _number):
        _, body = await kit.read_request(reader)
        writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        assert await reader.read() == b""
        ended.set()

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        await served.infer(b"1")
        [idle] = served.fast.workers.place("127.0.0.1", raw.port).idle
        idle.idle_since_s -= 31
        served.fast.workers.sweep()
        async with asyncio.timeout(5):
            await ended.wait()


async def test_a_worker_that_goes_on_alone_holds_its_slot_and_then_its_connection_is_used_again(
    served, kit
):
    gate = asyncio.Event()

    async def talk(reader, writer, _number):
        while True:
            _, body = await kit.read_request(reader)
            await gate.wait()
            writer.write(OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    async with kit.raw_worker(talk) as raw:
        served.serve(kit.table(kit.routed(raw), sequence=2))
        async with served.connect() as (_, writer):
            writer.write(kit.asking(b"left"))
            await kit.eventually(lambda: raw.opened)
        await kit.eventually(lambda: not served.fast.connections)
        assert served.in_flight("raw") == 1
        gate.set()
        await kit.eventually(lambda: served.in_flight("raw") == 0)
        assert (await served.infer(b"next"))[1] == b"next"
        assert len(raw.opened) == 1
        assert "tidegate_router_abandoned_total 1.0" in (await served.admin("/metrics"))[1].decode()
        state = json.loads((await served.admin("/v1/state"))[1])
        assert state["queues"][0]["inFlight"] == 0
        assert state["series"][0]["attempts"]["cancelled"] == 1


async def test_one_who_leaves_while_waiting_gives_up_the_place(router, start_worker, kit):
    worker, gate = await start_worker(), asyncio.Event()

    async def gated(request, body):
        await gate.wait()
        return await kit.answering(200)(request, body)

    worker.answer = gated
    router.serve(kit.table(kit.routed(worker, limit=1)))
    first = asyncio.create_task(router.infer())
    await kit.eventually(lambda: worker.seen)
    async with router.connect() as (_, writer):
        writer.write(kit.asking(b"leaves"))
        await kit.eventually(lambda: sum(router.dispatcher.holds.waiting().values()) == 1)
    await kit.eventually(lambda: not router.dispatcher.holds.waiting())
    gate.set()
    assert (await first)[0].status == 200
    await kit.eventually(lambda: router.in_flight("w1") == 0)
    assert len(worker.seen) == 1


async def test_a_refusal_names_the_revision_that_was_drawn(router, start_worker, kit):
    worker = await start_worker()
    worker.answer = kit.answering(503)
    router.serve(kit.table(kit.routed(worker, revision="r7")))
    answer, _ = await router.infer()
    assert answer.status == 503
    assert answer.headers["x-tidegate-revision"] == "r7"
    unknown, _ = await router.infer(model="x")
    assert "x-tidegate-revision" not in unknown.headers


@pytest.mark.parametrize(
    ("version", "line", "kept"),
    [
        pytest.param(b"1.0", b"X: y", False, id="1.0"),
        pytest.param(b"1.0", b"Connection: keep-alive", True, id="1.0-keep-alive"),
        pytest.param(b"1.1", b"Connection: close", False, id="1.1-close"),
        pytest.param(b"1.1", b"X: y", True, id="1.1"),
    ],
)
async def test_a_connection_ends_when_either_side_says_so(kit, served, version, line, kept):
    async with served.connect() as (reader, writer):
        writer.write(kit.asking(b"{}", line).replace(b"HTTP/1.1", b"HTTP/" + version))
        _, headers, _ = await kit.answer_of(reader)
        if kept:
            writer.write(kit.asking(b"{}"))
            assert (await kit.answer_of(reader))[0] == 200
        else:
            assert await reader.read() == b""
    said = headers.get("connection")
    assert said == ("keep-alive" if kept and version == b"1.0" else None if kept else "close")


async def test_a_stream_to_a_client_of_http_1_0_ends_with_its_connection(served, worker, kit):
    worker.answer = kit.answering(200, b"data: 1\n\n", Content_Type="text/event-stream")
    async with served.connect() as (reader, writer):
        writer.write(b"POST /v2/models/m/generate_stream HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
        answer = await reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"data: 1\n\n"


async def test_a_refused_head_request_has_no_body(kit, served):
    async with served.connect() as (reader, writer):
        writer.write(b"HEAD /v2/models/m HTTP/1.1\r\nHost: a\r\n\r\n" + kit.asking(b"{}"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 405 " in head
        assert (await kit.answer_of(reader))[0] == 200


async def test_at_its_end_the_lane_closes_idle_connections_and_answers_what_is_in_flight(
    served, worker, kit
):
    gate = asyncio.Event()

    async def gated(request, body):
        await gate.wait()
        return await kit.answering(200, b"late")(request, body)

    worker.answer = gated
    async with (
        served.connect() as (idle, _),
        served.connect() as (busy, asks),
        served.connect() as (handed, other),
    ):
        asks.write(kit.asking(b"{}"))
        other.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await kit.answer_of(handed))[0] == 404
        await kit.eventually(lambda: worker.seen)
        served.lane.draining = True
        ending = asyncio.create_task(served.fast.stop())
        assert await idle.read() == b""
        assert await handed.read() == b""
        gate.set()
        status, headers, body = await kit.answer_of(busy)
        assert (status, headers["connection"], body) == (200, "close", b"late")
        await ending


async def test_metrics_count_what_passed(served):
    for _ in range(3):
        await served.infer()
    await served.infer(model="x")
    metrics = (await served.admin("/metrics"))[1].decode()
    labels = 'model="m",namespace="ml",pool="vision",revision="r1"'
    assert f'tidegate_router_requests_total{{code="200",{labels}}} 3.0' in metrics
    assert f"tidegate_router_request_duration_seconds_count{{{labels}}} 3.0" in metrics
    assert f'tidegate_router_request_duration_seconds_bucket{{le="+Inf",{labels}}} 3.0' in metrics
    assert 'tidegate_router_shed_total{reason="unknown-model"} 1.0' in metrics
    assert 'tidegate_router_queue_wait_seconds_count{model="m",namespace="ml"' in metrics
