"""Pins and rescues as a client sees them over HTTP."""

import json

from tidegate_api.routetable import Pin


async def test_a_header_sends_a_request_to_the_canary_and_reaches_it(router, start_worker, kit):
    stable, canary = await start_worker("stable"), await start_worker("canary")
    table = kit.table(
        kit.routed(stable, revision="old"),
        kit.routed(canary, revision="new"),
        weights={"old": 100, "new": 0},
    )
    pin = Pin(revision="new", headers={"x-canary": "always"})
    router.serve(table.model_copy(update={"pins": [pin]}))
    for _ in range(5):
        answer, _ = await router.infer(headers={"X-Canary": "always"})
        assert answer.headers["x-tidegate-revision"] == "new"
        answer, _ = await router.infer(headers={"X-Canary": "never"})
        assert answer.headers["x-tidegate-revision"] == "old"
    assert canary.seen[0].header("x-canary") == ["always"]
    state = json.loads((await router.admin("/v1/state"))[1])
    counts = {one["revision"]: sum(one["attempts"].values()) for one in state["series"]}
    assert counts["old"] == 5
    assert counts.get("new", 0) == 0


async def test_a_canary_that_is_gone_loses_no_request(router, start_worker, kit):
    stable, canary = await start_worker("stable"), await start_worker("canary")
    router.serve(
        kit.table(
            kit.routed(stable, revision="old"),
            kit.routed(canary, revision="new"),
            weights={"old": 75, "new": 25},
        )
    )
    await canary.stop()
    for _ in range(100):
        answer, _ = await router.infer()
        assert (answer.status, answer.headers["x-tidegate-revision"]) == (200, "old")
    state = json.loads((await router.admin("/v1/state"))[1])
    counts = {one["revision"]: one["attempts"] for one in state["series"]}
    assert counts["old"] == dict.fromkeys(counts["old"], 0) | {"ok": 75}
    assert counts["new"]["workerFault"] == 25
