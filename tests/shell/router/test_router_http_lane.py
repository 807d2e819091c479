"""Inference over HTTP through a real router to real servers that play workers."""

import asyncio
import gzip
import io
import json
import random
from types import SimpleNamespace

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


async def test_a_binary_tensor_body_arrives_byte_for_byte_with_its_headers(served, worker):
    body = random.Random(1).randbytes(300_001)
    headers = {"Inference-Header-Content-Length": "120", "Content-Type": "application/octet-stream"}
    answer, _ = await served.infer(body, headers=headers)
    [seen] = worker.seen
    assert answer.status == 200
    assert seen.body == body
    assert seen.header("inference-header-content-length") == ["120"]
    assert seen.header("content-type") == ["application/octet-stream"]
    assert seen.header("content-length") == [str(len(body))]
    assert seen.header("transfer-encoding") == []


async def test_a_large_body_arrives_whole_with_its_length(start_router, worker, kit):
    router = await start_router(max_body_bytes=8 * 1024 * 1024)
    router.serve(kit.table(kit.routed(worker)))
    body = random.Random(3).randbytes(3 * 1024 * 1024 + 1)
    answer, _ = await router.infer(io.BytesIO(body))
    assert answer.status == 200
    assert worker.seen[0].body == body
    assert worker.seen[0].header("content-length") == [str(len(body))]
    assert worker.seen[0].header("transfer-encoding") == []


async def test_an_answer_arrives_byte_for_byte_with_its_headers(served, worker, kit):
    body = random.Random(2).randbytes(200_003)
    worker.answer = kit.answering(
        200, body, Content_Type="application/octet-stream", Inference_Header_Content_Length="77"
    )
    answer, got = await served.infer()
    assert got == body
    assert answer.headers["Inference-Header-Content-Length"] == "77"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(body))


async def test_packed_bodies_stay_packed_both_ways(served, worker, kit):
    packed = gzip.compress(b'{"inputs":[]}' * 100)
    worker.answer = kit.answering(200, packed, Content_Encoding="gzip")
    answer, got = await served.infer(packed, headers={"Content-Encoding": "gzip"})
    assert worker.seen[0].body == packed
    assert worker.seen[0].header("content-encoding") == ["gzip"]
    assert got == packed
    assert answer.headers["Content-Encoding"] == "gzip"


async def test_a_chunked_body_is_sent_on_with_a_length(served, worker):
    async def pieces():
        yield b'{"inputs":'
        yield b"[]}"

    await served.infer(pieces())
    assert worker.seen[0].body == b'{"inputs":[]}'
    assert worker.seen[0].header("content-length") == ["13"]


async def test_a_body_over_the_limit_is_413_and_reaches_no_worker(start_router, worker, kit):
    router = await start_router(max_body_bytes=1000)
    router.serve(kit.table(kit.routed(worker)))
    answer, body = await router.infer(b"x" * 1001)
    assert answer.status == 413
    assert answer.headers["x-tidegate-dropped-reason"] == "too-large"
    assert "1000 bytes" in json.loads(body)["error"]
    assert worker.seen == []


async def test_the_answer_says_who_gave_it_and_keeps_the_request_id(served):
    answer, _ = await served.infer(headers={"x-request-id": "mine-1", "x-tidegate-explain": "true"})
    assert answer.headers["x-tidegate-worker"] == "w1"
    assert answer.headers["x-tidegate-revision"] == "r1"
    assert answer.headers["x-tidegate-attempts"] == "1"
    assert answer.headers["x-request-id"] == "mine-1"
    assert "pool=ml/vision revision=r1" in answer.headers["x-tidegate-explain"]


async def test_a_request_without_an_id_gets_one_that_is_its_own(served):
    first, _ = await served.infer()
    second, _ = await served.infer()
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert "x-tidegate-explain" not in first.headers


async def test_headers_that_concern_the_router_or_the_connection_reach_no_worker(served, worker):
    await served.infer(
        headers={
            "x-tidegate-restricted-key": "guess",
            "triton-grpc-protocol-model-repository": "guess",
            "x-tidegate-pool": "ml/vision",
            "x-tidegate-worker": "forged",
            "Connection": "keep-alive, x-private",
            "x-private": "1",
            "Keep-Alive": "3",
            "Proxy-Authorization": "secret",
            "x-kept": "yes",
        }
    )
    names = {name.lower() for name, _ in worker.seen[0].headers}
    assert "x-kept" in names
    forbidden = {"x-private", "keep-alive", "proxy-authorization", "x-tidegate-restricted-key"}
    assert not names & forbidden
    assert not [name for name in names if name.startswith(("triton-grpc", "x-tidegate"))]
    assert worker.seen[0].header("host") == [f"127.0.0.1:{worker.port}"]


async def test_a_workers_own_marks_are_replaced_by_the_routers(served, worker, kit):
    worker.answer = kit.answering(200, b"{}", x_tidegate_worker="forged", Keep_Alive="timeout=1")
    answer, _ = await served.infer()
    assert answer.headers.getall("x-tidegate-worker") == ["w1"]
    assert "Keep-Alive" not in answer.headers


@pytest.mark.parametrize(
    ("path", "target"),
    [
        pytest.param("/v2/models/m", "/v2/models/m", id="metadata"),
        pytest.param("/v2/models/m/config", "/v2/models/m/config", id="config"),
        pytest.param("/v2/models/m/stats", "/v2/models/m/stats", id="statistics"),
        pytest.param("/v2/models/m/versions/1", "/v2/models/m/versions/1", id="of-a-version"),
        pytest.param("/pools/ml/vision/v2/models/m", "/v2/models/m", id="pool-prefix-is-cut"),
    ],
)
async def test_inquiries_are_answered_by_a_worker(served, worker, path, target):
    answer, body = await served.ask("GET", path)
    assert answer.status == 200
    assert json.loads(body)["worker"] == "w1"
    assert worker.seen[0].target == target


async def test_a_query_is_passed_on_as_it_was_written(served, worker):
    await served.ask("POST", "/v2/models/m/infer?a=%20b&a=1", data=b"{}")
    assert worker.seen[0].target.endswith("/infer?a=%20b&a=1")


async def test_what_concerns_the_router_itself_is_answered_without_a_worker(served, worker):
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        answer, _ = await served.ask("GET", path)
        assert answer.status == 200, path
    _, body = await served.ask("GET", "/v2")
    assert json.loads(body)["name"] == "tidegate-router"
    assert "binary_tensor_data" in json.loads(body)["extensions"]
    assert worker.seen == []


async def test_before_any_table_the_router_lives_but_is_not_ready(router):
    assert (await router.ask("GET", "/healthz"))[0].status == 200
    assert (await router.ask("GET", "/readyz"))[0].status == 503
    assert (await router.ask("GET", "/v2/health/ready"))[0].status == 503


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/v2/models/m/ready", 200, id="served"),
        pytest.param("/v2/models/m/versions/1/ready", 200, id="version-served"),
        pytest.param("/v2/models/m/versions/9/ready", 503, id="version-unknown"),
        pytest.param("/v2/models/other/ready", 404, id="model-unknown"),
    ],
)
async def test_readiness_of_a_model(served, path, status):
    assert (await served.ask("GET", path))[0].status == status


async def test_a_model_whose_workers_are_not_ready_is_not_ready(router, worker, kit):
    router.serve(kit.table(kit.routed(worker, ready=False)))
    assert (await router.ask("GET", "/v2/models/m/ready"))[0].status == 503


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(400, b'{"error":"unexpected shape for input"}', id="400-as-it-is"),
        pytest.param(
            500,
            b'{"error":"failed to parse the request JSON buffer: Invalid value. at 0"}',
            id="malformed-json-is-500-at-triton",
        ),
        pytest.param(500, b'{"error":"model raised"}', id="model-error-is-not-retried"),
        pytest.param(404, b'{"error":"no such output"}', id="another-404"),
    ],
)
async def test_answers_that_no_retry_could_mend_are_passed_on_once(
    router, start_worker, kit, status, body
):
    workers = [await start_worker(name) for name in ("w1", "w2")]
    for one in workers:
        one.answer = kit.answering(status, body)
    router.serve(kit.table(*map(kit.routed, workers)))
    answer, got = await router.infer()
    assert (answer.status, got) == (status, body)
    assert sum(len(one.seen) for one in workers) == 1
    assert "x-tidegate-dropped-reason" not in answer.headers


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(503, b"", id="503"),
        pytest.param(
            404, b'{"error":"Request for unknown model: \'m\' is not found"}', id="unknown-model"
        ),
        pytest.param(
            400,
            b'{"error":"Request for unknown model: \'m\' has no available versions"}',
            id="no-version-yet",
        ),
    ],
)
async def test_what_never_ran_is_sent_to_another_worker(router, start_worker, kit, status, body):
    bad, good = await start_worker("bad"), await start_worker("good")
    bad.answer = kit.answering(status, body)
    router.serve(kit.table(kit.routed(bad), kit.routed(good)))
    for _ in range(12):
        answer, _ = await router.infer()
        assert answer.status == 200
        assert answer.headers["x-tidegate-worker"] == "good"
    assert bad.seen


async def test_a_worker_that_refuses_connections_costs_no_request(router, start_worker, kit):
    good = await start_worker("good")
    dead = kit.routed(SimpleNamespace(name="dead"), port=kit.free_port())
    router.serve(kit.table(dead, kit.routed(good)))
    answers = await asyncio.gather(*(router.infer() for _ in range(8)))
    assert [answer.status for answer, _ in answers] == [200] * 8
    assert router.dispatcher.down.is_down("uid-dead")


@pytest.mark.parametrize("address", ["no host", "10.0.0.1/x#", "x@y", "[", "nowhere.invalid"])
async def test_an_absurd_address_costs_no_request(router, start_worker, kit, address):
    good = kit.routed(await start_worker("good"))
    absurd = kit.routed(SimpleNamespace(name="absurd"), port=kit.free_port())
    router.serve(kit.table(absurd.model_copy(update={"address": address}), good))
    answers = [await router.infer() for _ in range(8)]
    assert {answer.status for answer, _ in answers} == {200}
    assert router.dispatcher.down.is_down("uid-absurd")


async def test_with_nobody_reachable_the_answer_is_503_within_the_hold(router, kit):
    router.serve(kit.table(kit.routed(SimpleNamespace(name="dead"), port=kit.free_port())))
    answer, body = await router.infer()
    assert answer.status == 503
    assert answer.headers["x-tidegate-dropped-reason"] == "no-workers"
    assert answer.headers["Retry-After"] == "1"
    assert "ml/vision" in json.loads(body)["error"]


async def test_a_worker_killed_in_mid_request_costs_no_request(router, start_worker, kit):
    killed, good = await start_worker("killed"), await start_worker("good")
    killed.answer = kit.breaking
    router.serve(kit.table(kit.routed(killed), kit.routed(good)))
    await kit.eventually(lambda: _sent(router, killed))
    answers = [await router.infer(b'{"id":"%d"}' % number) for number in range(5)]
    assert {answer.status for answer, _ in answers} == {200}


async def _sent(router, worker):
    answer, _ = await router.infer()
    assert answer.status == 200
    return worker.seen


async def test_a_model_that_is_not_idempotent_is_never_sent_twice(router, start_worker, kit):
    workers = [await start_worker(name) for name in ("w1", "w2")]
    for one in workers:
        one.answer = kit.breaking
    router.serve(kit.table(*(kit.routed(one, idempotent=False) for one in workers)))
    answer, _ = await router.infer()
    assert answer.status == 503
    assert answer.headers["x-tidegate-dropped-reason"] == "retries-exhausted"
    assert sum(len(one.seen) for one in workers) == 1


async def test_a_body_that_broke_two_workers_is_refused_and_others_are_not(
    router, start_worker, kit
):
    async def choke(request, body):
        return await kit.breaking(request, body) if b"poison" in body else web.Response()

    workers = [await start_worker(name) for name in ("w1", "w2", "w3", "w4")]
    for one in workers:
        one.answer = choke
    router.serve(kit.table(*map(kit.routed, workers)))
    for _ in range(3):
        answer, _ = await router.infer(b"poison")
        assert answer.headers["x-tidegate-dropped-reason"] == "suspected-poison"
    assert sum(len(one.seen) for one in workers) == 2
    assert (await router.infer(b"food"))[0].status == 200


async def test_a_slow_try_is_repeated_elsewhere_and_its_slot_stays_taken(router, start_worker, kit):
    ended = asyncio.Event()

    async def slow(_request, _body):
        await ended.wait()
        return web.Response()

    frozen, good = await start_worker("frozen"), await start_worker("good")
    frozen.answer = slow
    policy = {"retry": {"perTryTimeoutSeconds": 0.15}}
    router.serve(kit.table(kit.routed(frozen), kit.routed(good), policy=policy))
    await kit.eventually(lambda: _sent(router, frozen))
    assert router.in_flight("frozen") == len(frozen.seen)
    ended.set()
    await kit.eventually(lambda: router.in_flight("frozen") == 0)


async def test_a_deadline_covers_everything(router, start_worker, kit):
    gate = asyncio.Event()

    async def slow(_request, _body):
        await gate.wait()
        return web.Response()

    worker = await start_worker()
    worker.answer = slow
    router.serve(kit.table(kit.routed(worker), policy={"timeoutSeconds": 0.2}))
    answer, _ = await router.infer()
    gate.set()
    assert answer.status == 504
    assert answer.headers["x-tidegate-dropped-reason"] == "deadline"


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


async def test_what_exceeds_the_limit_waits_and_is_then_served(router, start_worker, kit):
    worker = await start_worker()
    gate = asyncio.Event()

    async def gated(_request, _body):
        await gate.wait()
        return web.Response()

    worker.answer = gated
    router.serve(kit.table(kit.routed(worker, limit=2)))
    asked = [asyncio.create_task(router.infer()) for _ in range(6)]
    await kit.eventually(lambda: len(worker.seen) == 2)
    await kit.eventually(lambda: sum(router.dispatcher.holds.waiting().values()) == 4)
    gate.set()
    answers = await asyncio.gather(*asked)
    assert [answer.status for answer, _ in answers] == [200] * 6


async def test_what_waits_for_too_long_is_429_and_says_when_to_come_back(router, start_worker, kit):
    worker = await start_worker()
    gate = asyncio.Event()

    async def gated(_request, _body):
        await gate.wait()
        return web.Response()

    worker.answer = gated
    router.serve(kit.table(kit.routed(worker, limit=1)))
    first = asyncio.create_task(router.infer())
    await kit.eventually(lambda: worker.seen)
    answer, _ = await router.infer()
    gate.set()
    assert answer.status == 429
    assert answer.headers["x-tidegate-dropped-reason"] == "saturated"
    assert answer.headers["Retry-After"] == "1"
    assert (await first)[0].status == 200


async def test_two_pools_with_one_model_are_told_apart_by_header_or_path(router, start_worker, kit):
    one, two = await start_worker("one"), await start_worker("two")
    older = kit.table(kit.routed(one), name="a", created_at="2026-01-01T00:00:00Z")
    newer = kit.table(kit.routed(two), name="b", created_at="2026-02-01T00:00:00Z")
    router.serve(newer, older)
    bare, _ = await router.infer()
    by_header, _ = await router.infer(headers={"x-tidegate-pool": "ml/b"})
    by_path, _ = await router.ask("POST", "/pools/ml/b/v2/models/m/infer", data=b"{}")
    found = [answer.headers["x-tidegate-worker"] for answer in (bare, by_header, by_path)]
    assert found == ["one", "two", "two"]


@pytest.mark.parametrize(
    ("path", "headers", "reason"),
    [
        pytest.param("/v2/models/x/infer", {}, "unknown-model", id="no-pool-serves-it"),
        pytest.param(
            "/v2/models/m/infer", {"x-tidegate-pool": "ml/none"}, "unknown-pool", id="no-such-pool"
        ),
        pytest.param("/pools/ml/none/v2/models/m/infer", {}, "unknown-pool", id="no-such-prefix"),
        pytest.param("/v2/models/m/versions/7/infer", {}, "unknown-model", id="no-such-version"),
    ],
)
async def test_unknown_names_are_404_with_a_reason(served, worker, path, headers, reason):
    answer, _ = await served.ask("POST", path, data=b"{}", headers=headers)
    assert answer.status == 404
    assert answer.headers["x-tidegate-dropped-reason"] == reason
    assert worker.seen == []


async def test_state_shows_what_the_operator_and_a_person_need(served, kit, worker):
    await served.infer()
    worker.answer = kit.answering(400)
    await served.infer()
    state = json.loads((await served.admin("/v1/state"))[1])
    [table], [series] = state["tables"], state["series"]
    assert (table["pool"], table["appliedSequence"]) == ("vision", 1)
    assert series["requests"] == 2
    assert (series["attempts"]["ok"], series["attempts"]["client"]) == (1, 1)
    assert sum(count for _, count in series["attemptLatency"]) == 1
    assert state["queues"][0] == {
        "namespace": "ml", "pool": "vision", "waiting": 0, "inFlight": 0,
    }  # fmt: skip
    [row] = json.loads((await served.admin("/workers"))[1])
    assert (row["worker"], row["models"][0]["limit"]) == ("w1", 8)
    picks = json.loads((await served.admin("/debug/pick?model=m"))[1])
    assert picks["picks"]["r1"]["worker"] == "uid-w1"
    assert (await served.admin("/debug/pick?model=x"))[0] == 404
    metrics = (await served.admin("/metrics"))[1].decode()
    assert 'tidegate_router_requests_total{code="200",model="m",namespace="ml"' in metrics
    assert 'tidegate_router_workers{state="usable"} 1.0' in metrics


async def test_the_admin_paths_are_not_on_the_public_port(served):
    for path in ("/metrics", "/v1/state", "/workers", "/debug/pick?model=m"):
        assert (await served.ask("GET", path))[0].status == 404
