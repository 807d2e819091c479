"""Admission, tiers and holds through a real socket."""

import asyncio
import json
import time

import pytest
from aiohttp import web


class Gated:
    """Answers that wait for a gate; notes the order of bodies."""

    def __init__(self):
        self.gate, self.order = asyncio.Event(), []

    async def __call__(self, _request, body):
        self.order.append(body)
        await self.gate.wait()
        return web.json_response({})


@pytest.fixture
async def worker(start_worker):
    worker = await start_worker()
    worker.answer = Gated()
    return worker


def waiting(router):
    return router.dispatcher.holds.parked


async def test_a_wait_that_is_too_long_is_refused_at_once(router, worker, kit):
    policy = {"queue": {"maxWaitSeconds": 0.005}}
    router.serve(kit.table(kit.routed(worker, limit=1), policy=policy))
    first = asyncio.create_task(router.infer())
    await kit.eventually(lambda: worker.seen)
    began_s = time.monotonic()
    answer, body = await router.infer()
    assert time.monotonic() - began_s < 0.5
    assert answer.status == 429
    assert answer.headers["x-tidegate-dropped-reason"] == "saturated"
    assert int(answer.headers["Retry-After"]) >= 1
    assert "at its limit" in json.loads(body)["error"]
    assert len(worker.seen) == 1
    worker.answer.gate.set()
    assert (await first)[0].status == 200


async def test_the_memory_bound_of_the_queue_counts_bodies(router, worker, kit):
    policy = {"queue": {"maxWaitSeconds": 10, "maxBytes": 6000}}
    router.serve(kit.table(kit.routed(worker, limit=1), policy=policy))
    asked = [asyncio.create_task(router.infer())]
    await kit.eventually(lambda: worker.seen)
    asked.append(asyncio.create_task(router.infer(b"x" * 1500)))
    await kit.eventually(lambda: waiting(router) == 1)
    answer, body = await router.infer(b"x" * 1500)
    assert (answer.status, answer.headers["x-tidegate-dropped-reason"]) == (429, "saturated")
    assert "maxBytes" in json.loads(body)["error"]
    worker.answer.gate.set()
    assert {answer.status for answer, _ in await asyncio.gather(*asked)} == {200}


async def test_gold_goes_before_bronze_that_came_earlier(router, worker, kit):
    tiers = [{"name": "gold", "weight": 8}, {"name": "bronze", "weight": 1}]
    policy = {"tiers": tiers, "trustTierHeader": True, "queue": {"maxWaitSeconds": 10}}
    router.serve(kit.table(kit.routed(worker, limit=1), policy=policy))
    asked = [asyncio.create_task(router.infer(b"first"))]
    await kit.eventually(lambda: worker.seen)
    for number, tier in enumerate(["bronze", "bronze", "unheard-of", "", "gold", "gold"], 1):
        body, given = tier.encode() or b"none", {"x-tidegate-tier": tier} if tier else {}
        asked.append(asyncio.create_task(router.infer(body, headers=given)))
        await kit.eventually(lambda number=number: waiting(router) == number)
    worker.answer.gate.set()
    await asyncio.gather(*asked)
    order = worker.answer.order
    assert sorted(order[1:4]) == [b"bronze", b"gold", b"gold"]
    assert order[4:] == [b"bronze", b"unheard-of", b"none"], "the last tier is the default"
    assert not any(seen.header("x-tidegate-tier") for seen in worker.seen)


async def test_a_claimed_tier_means_nothing_until_it_is_trusted(router, worker, kit):
    tiers = [{"name": "gold", "weight": 8}, {"name": "bronze", "weight": 1}]
    policy = {"tiers": tiers, "queue": {"maxWaitSeconds": 10}}
    router.serve(kit.table(kit.routed(worker, limit=1), policy=policy))
    asked = [asyncio.create_task(router.infer(b"first"))]
    await kit.eventually(lambda: worker.seen)
    for number, tier in enumerate(["bronze", "gold", "gold"], 1):
        given = {"x-tidegate-tier": tier}
        asked.append(asyncio.create_task(router.infer(tier.encode(), headers=given)))
        await kit.eventually(lambda number=number: waiting(router) == number)
    worker.answer.gate.set()
    await asyncio.gather(*asked)
    assert worker.answer.order == [b"first", b"bronze", b"gold", b"gold"]


async def test_a_pool_without_workers_holds_its_requests_until_one_comes(router, worker, kit):
    worker.answer.gate.set()
    router.serve(kit.table(kit.routed(worker)))
    await router.infer()
    empty = kit.table(sequence=2, weights={"r1": 100})
    router.serve(empty)
    asked = [asyncio.create_task(router.infer()) for _ in range(20)]
    await kit.eventually(lambda: waiting(router) == 20)
    [queue] = json.loads((await router.admin("/v1/state"))[1])["queues"]
    assert (queue["waiting"], queue["held"], queue["inFlight"]) == (20, 20, 0)
    assert queue["waitingBytes"] > 0
    router.serve(kit.table(kit.routed(worker, limit=2), sequence=3))
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer, _ in answers} == {200}
    [queue] = json.loads((await router.admin("/v1/state"))[1])["queues"]
    assert (queue["waiting"], queue["held"], queue["waitingBytes"]) == (0, 0, 0)


async def test_a_router_that_starts_while_a_pool_is_at_zero_holds_its_requests(router, worker, kit):
    worker.answer.gate.set()
    empty = kit.table(weights={"r1": 100}).model_copy(update={"models": ["m"]})
    router.serve(empty)
    asked = asyncio.create_task(router.infer())
    await kit.eventually(lambda: waiting(router) == 1)
    assert (await router.infer(model="x"))[0].status == 404
    router.serve(kit.table(kit.routed(worker), sequence=2))
    assert (await asked)[0].status == 200


async def test_without_a_worker_in_time_it_is_503(router, worker, kit):
    worker.answer.gate.set()
    router.serve(kit.table(kit.routed(worker)))
    policy = {"queue": {"noWorkersTtlSeconds": 0.05}}
    router.serve(kit.table(sequence=2, weights={"r1": 100}, policy=policy))
    answer, _ = await router.infer()
    assert (answer.status, answer.headers["x-tidegate-dropped-reason"]) == (503, "no-workers")
    assert answer.headers["Retry-After"] == "1"
    assert waiting(router) == 0
