"""The response cache through a real socket."""

import asyncio

import aiohttp
import pytest
from aiohttp import web

BODY = b'{"inputs":[{"name":"X","datatype":"INT32","shape":[1],"data":[7]}]}'


class Counting:
    """A worker's answers: numbered, and held back until `gate` opens."""

    def __init__(self, status=200, body=None, **headers):
        self.status, self.body, self.headers = status, body, headers
        self.count, self.gate = 0, asyncio.Event()
        self.gate.set()

    async def __call__(self, _request, _body):
        self.count += 1
        text = self.body if self.body is not None else b'{"n":%d}' % self.count
        await self.gate.wait()
        return web.Response(status=self.status, body=text, headers=self.headers)


@pytest.fixture
def counting():
    return Counting


@pytest.fixture
async def worker(start_worker):
    return await start_worker()


@pytest.fixture
def cached(router, worker, kit):
    worker.answer = Counting(X_Of_Worker="1")
    router.serve(kit.table(kit.routed(worker, cache_ttl_s=60.0)))
    return router


def told(answer):
    return answer.headers.get("x-tidegate-cache")


async def test_an_equal_request_is_answered_from_memory(cached, worker):
    first, one = await cached.infer(BODY)
    second, two = await cached.infer(BODY)
    assert (told(first), told(second)) == ("miss", "hit")
    assert (one, two) == (b'{"n":1}', b'{"n":1}')
    assert second.status == 200
    assert second.headers["X_Of_Worker"] == "1"
    assert second.headers["x-tidegate-revision"] == "r1"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert (second.headers["Age"], "x-tidegate-worker" in second.headers) == ("0", False)
    assert len(worker.seen) == 1
    metrics = (await cached.admin("/metrics"))[1].decode()
    labels = 'model="m",namespace="ml",pool="vision"'
    for result in ("hit", "miss"):
        wanted = f'tidegate_router_cache_requests_total{{{labels},result="{result}"}} 1.0'
        assert wanted in metrics
    assert "tidegate_router_cache_bytes 0.0" not in metrics


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"body": BODY.replace(b"7", b"8")}, id="the-body"),
        pytest.param({"headers": {"Accept-Encoding": "gzip"}}, id="the-encodings-it-accepts"),
        pytest.param({"headers": {"Inference-Header-Content-Length": "12"}}, id="where-json-ends"),
        pytest.param({"headers": {"Content-Encoding": "gzip"}}, id="its-encoding"),
        pytest.param({"path": "/v2/models/m/infer?x=1"}, id="the-query"),
        pytest.param({"path": "/v2/models/m/versions/1/infer"}, id="a-version"),
    ],
)
async def test_another_question_is_asked_again(cached, worker, changed):
    path = changed.pop("path", "/v2/models/m/infer")
    body = changed.pop("body", BODY)
    await cached.infer(BODY, headers={"Accept-Encoding": "identity"})
    changed.setdefault("headers", {"Accept-Encoding": "identity"})
    answer, _ = await cached.ask("POST", path, data=body, **changed)
    assert told(answer) == "miss"
    assert len(worker.seen) == 2


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        pytest.param(BODY[:-1] + b',"id":"1"}', {}, id="with-an-id"),
        pytest.param(BODY[:-1] + b',"\\u0069d":"1"}', {}, id="with-a-disguised-id"),
        pytest.param(BODY, {"Cache-Control": "max-age=0, No-Store"}, id="told-not-to-store"),
        pytest.param(BODY, {"Cache-Control": "no-cache"}, id="told-to-ask"),
    ],
)
async def test_some_requests_are_never_cached(cached, worker, body, headers):
    for _ in range(2):
        answer, _ = await cached.infer(body, headers=headers)
        assert (answer.status, told(answer)) == (200, None)
    assert len(worker.seen) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"status": 400}, id="a-client-error"),
        pytest.param({"status": 500}, id="a-model-error"),
        pytest.param({"status": 204}, id="no-content"),
        pytest.param({"Cache_Control": "no-store"}, id="one-that-the-worker-forbids"),
        pytest.param({"body": b"x" * (1024 * 1024 + 1)}, id="more-than-a-mebibyte"),
    ],
)
async def test_some_answers_are_never_kept(cached, worker, answer):
    headers = {key.replace("_", "-"): answer.pop(key) for key in list(answer) if key[0].isupper()}
    worker.answer = Counting(**answer, **headers)
    await cached.infer(BODY)
    await cached.infer(BODY)
    assert len(worker.seen) == 2


async def test_a_model_without_the_setting_is_not_cached(router, worker, kit):
    router.serve(kit.table(kit.routed(worker)))
    answers = [(await router.infer(BODY))[0] for _ in range(2)]
    assert [told(answer) for answer in answers] == [None, None]
    assert len(worker.seen) == 2


async def test_a_new_revision_answers_for_itself(cached, worker, kit):
    await cached.infer(BODY)
    cached.serve(kit.table(kit.routed(worker, revision="r2", cache_ttl_s=60.0), sequence=2))
    answer, _ = await cached.infer(BODY)
    assert (told(answer), answer.headers["x-tidegate-revision"]) == ("miss", "r2")


async def test_equal_requests_at_once_are_one_request(cached, worker, kit):
    worker.answer.gate.clear()
    asked = [asyncio.create_task(cached.infer(BODY)) for _ in range(20)]
    await kit.eventually(lambda: _followers(cached) == 19)
    worker.answer.gate.set()
    answers = await asyncio.gather(*asked)
    assert {body for _, body in answers} == {b'{"n":1}'}
    assert sorted(told(answer) for answer, _ in answers) == ["coalesced"] * 19 + ["miss"]
    assert len(worker.seen) == 1


async def test_those_who_follow_a_failure_go_on_alone(cached, worker, kit):
    worker.answer = failing = Counting(status=500)
    failing.gate.clear()
    asked = [asyncio.create_task(cached.infer(BODY)) for _ in range(5)]
    await kit.eventually(lambda: _followers(cached) == 4 and worker.seen)
    worker.answer = Counting()
    failing.gate.set()
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status for answer, _ in answers) == [200] * 4 + [500]
    assert len(worker.seen) == 5


async def test_a_flight_outlives_the_client_that_began_it(cached, worker, kit):
    worker.answer.gate.clear()
    async with aiohttp.ClientSession() as leader:
        url = f"http://127.0.0.1:{cached.port}/v2/models/m/infer"
        first = asyncio.create_task(leader.post(url, data=BODY))
        await kit.eventually(lambda: worker.seen)
        second = asyncio.create_task(cached.infer(BODY))
        await kit.eventually(lambda: _followers(cached) == 1)
        first.cancel()
        await asyncio.wait([first])
    worker.answer.gate.set()
    answer, body = await second
    assert (answer.status, told(answer), body) == (200, "coalesced", b'{"n":1}')
    assert len(worker.seen) == 1


async def test_a_leader_that_left_while_it_waited_still_asks_for_those_who_follow(
    router, worker, kit
):
    busy = worker.answer = Counting()
    busy.gate.clear()
    policy = {"queue": {"maxWaitSeconds": 10}}
    router.serve(kit.table(kit.routed(worker, limit=1, cache_ttl_s=60.0), policy=policy))
    blocking = asyncio.create_task(router.infer(BODY.replace(b"7", b"0")))
    await kit.eventually(lambda: worker.seen)
    async with aiohttp.ClientSession() as leader:
        url = f"http://127.0.0.1:{router.port}/v2/models/m/infer"
        first = asyncio.create_task(leader.post(url, data=BODY))
        await kit.eventually(lambda: router.dispatcher.holds.parked == 1)
        second = asyncio.create_task(router.infer(BODY))
        await kit.eventually(lambda: _followers(router) == 1)
        first.cancel()
        await asyncio.wait([first])
    busy.gate.set()
    assert (await second)[0].status == 200
    assert (await blocking)[0].status == 200


async def test_an_answer_from_memory_counts_as_no_attempt(cached):
    for _ in range(3):
        await cached.infer(BODY)
    counted = cached.dispatcher.series.states()
    assert sum(series.requests for series in counted) == 3
    assert sum(series.attempts.ok for series in counted) == 1
    assert sum(count for series in counted for _, count in series.client_latency) == 1
    [view] = cached.dispatcher.pools.values()
    assert view.in_flight == 0


def _followers(router):
    return sum(len(flight.followers) for flight in router.lane.cache._flights.values())
