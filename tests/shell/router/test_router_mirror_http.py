"""Shadow copies over HTTP: the client sees nothing of them, the counts see everything."""

import asyncio
import json
import time

import pytest
from aiohttp import web

from tidegate_api.routetable import MirrorPolicy


def classified(*scores, **more):
    """An answer with one row of scores."""
    output = {"name": "y", "datatype": "FP32", "shape": [1, len(scores)], "data": list(scores)}
    return json.dumps({"model_name": "m", "outputs": [output], **more}).encode()


@pytest.fixture
async def mirrored(router, start_worker, kit):
    """A router that copies every request of stable to the canary."""
    stable, canary = await start_worker("stable"), await start_worker("canary")
    stable.answer = kit.answering(200, classified(0.2, 0.8))
    canary.answer = kit.answering(200, classified(0.3, 0.7))

    def serve(policy=None, **canary_fields):
        table = kit.table(
            kit.routed(stable, revision="old"),
            kit.routed(canary, revision="new", **canary_fields),
            weights={"old": 100, "new": 0},
            policy=policy,
        )
        mirror = MirrorPolicy(revision="new", percent=100)
        router.serve(table.model_copy(update={"mirror": mirror}))

    serve()
    router.serve_mirror = serve
    return router, stable, canary


async def shadow(router, kit, **wanted):
    """Wait until the counts of /v1/state are these; return them all."""

    async def reached():
        state = json.loads((await router.admin("/v1/state"))[1])
        [found] = state["shadows"] or [None]
        return found if found and wanted.items() <= found.items() else None

    return await kit.eventually(reached)


async def test_the_canary_gets_the_same_request_and_the_client_stables_answer(mirrored, kit):
    router, stable, canary = mirrored
    answer, body = await router.infer(b'{"inputs":[1]}', headers={"x-mine": "1"})
    assert body == classified(0.2, 0.8)
    assert answer.headers["x-tidegate-worker"] == "stable"
    found = await shadow(router, kit, compared=1)
    assert (found["pool"], found["revision"], found["model"]) == ("vision", "new", "m")
    assert (found["disagreed"], found["failed"], found["skipped"]) == (0, 0, 0)
    assert found["maxAbsDifference"] == pytest.approx(0.1)
    [one], [other] = stable.seen, canary.seen
    assert (one.target, one.body) == (other.target, other.body)
    assert one.header("x-mine") == other.header("x-mine") == ["1"]
    assert router.in_flight("canary") == 0


async def test_another_top_1_is_a_disagreement(mirrored, kit):
    router, _, canary = mirrored
    canary.answer = kit.answering(200, classified(0.9, 0.1))
    for _ in range(3):
        await router.infer()
    await shadow(router, kit, compared=3, disagreed=3)
    _, metrics = await router.admin("/metrics")
    assert b'tidegate_router_mirrored_total{result="disagreed"} 3.0' in metrics


async def test_binary_tensors_are_compared_too(mirrored, kit):
    router, stable, canary = mirrored
    head = json.dumps({
        "outputs": [
            {"name": "y", "datatype": "INT32", "shape": [1], "parameters": {"binary_data_size": 4}}
        ]
    }).encode()  # fmt: skip
    length = {"Inference_Header_Content_Length": str(len(head))}
    stable.answer = kit.answering(200, head + b"\x01\0\0\0", **length)
    canary.answer = kit.answering(200, head + b"\x02\0\0\0", **length)
    await router.infer()
    await shadow(router, kit, compared=1, disagreed=1)


async def test_large_answers_are_compared_as_well(mirrored, kit):
    router, stable, canary = mirrored
    stable.answer = kit.answering(200, classified(*[0.0] * 9000, 1.0))
    canary.answer = kit.answering(200, classified(*[0.0] * 9000, 2.0))
    await router.infer()
    await shadow(router, kit, compared=1, disagreed=0, maxAbsDifference=1.0)


async def test_answers_beyond_a_mebibyte_are_not_compared(mirrored, kit):
    router, stable, canary = mirrored
    stable.answer = kit.answering(200, classified(0.1, 0.9, x="y" * 1024 * 1024))
    canary.answer = kit.answering(200, classified(0.9, 0.1))
    answer, _ = await router.infer()
    assert answer.status == 200
    await shadow(router, kit, compared=0, skipped=1)


@pytest.mark.parametrize("how", ["error", "busy", "cut", "unreachable"])
async def test_a_canary_that_fails_is_counted_and_harms_nobody(mirrored, kit, how):
    router, _, canary = mirrored
    if how == "unreachable":
        await canary.stop()
    else:
        canary.answer = {
            "error": kit.answering(500, b"{}"),
            "busy": kit.answering(503),
            "cut": kit.breaking,
        }[how]
    for _ in range(5):
        answer, body = await router.infer()
        assert (answer.status, body) == (200, classified(0.2, 0.8))
    await shadow(router, kit, failed=5, compared=0)
    state = json.loads((await router.admin("/v1/state"))[1])
    assert {series["revision"] for series in state["series"]} == {"old"}
    assert not router.dispatcher.down.is_down("uid-canary")
    await kit.eventually(lambda: router.in_flight("canary") == 0)


async def test_a_canary_that_hangs_delays_nobody_and_holds_no_more_than_its_bound(mirrored, kit):
    router, _, canary = mirrored
    router.serve_mirror(policy={"timeoutSeconds": 0.4}, limit=100)
    let_go = asyncio.Event()

    async def hanging(_request, _body):
        await let_go.wait()
        return web.Response(body=classified(0.2, 0.8))

    canary.answer = hanging
    began_s = time.monotonic()
    for _ in range(40):
        answer, _ = await router.infer()
        assert answer.status == 200
    assert time.monotonic() - began_s < 5, "no answer waited for a copy of 0.4 s"
    await shadow(router, kit, failed=16, skipped=24)
    assert router.in_flight("canary") == 16, "their worker computes on"
    let_go.set()
    await kit.eventually(lambda: router.in_flight("canary") == 0)
    await router.infer()
    await shadow(router, kit, failed=16, compared=1)


async def test_what_failed_at_stable_is_not_copied(mirrored, kit):
    router, stable, canary = mirrored
    for status in (400, 500):
        stable.answer = kit.answering(status, b"{}")
        assert (await router.infer())[0].status == status
    stable.answer = None
    await router.ask("GET", "/v2/models/m/stats")
    await router.infer()
    await shadow(router, kit)
    assert len(canary.seen) == 1


async def test_a_copy_to_a_second_revision_in_one_worker_is_renamed(router, start_worker, kit):
    worker = await start_worker("w1")
    both = kit.routed(worker, revision="old")
    [served] = both.serves
    second = served.model_copy(update={"revision": "new", "loaded_as": "m--new"})
    both.serves.append(second)
    table = kit.table(both, weights={"old": 100, "new": 0})
    mirror = MirrorPolicy(revision="new", percent=100)
    router.serve(table.model_copy(update={"mirror": mirror}))
    await router.infer()
    await shadow(router, kit, compared=1, disagreed=0)
    targets = {seen.target for seen in worker.seen}
    assert targets == {"/v2/models/m/infer", "/v2/models/m--new/infer"}
