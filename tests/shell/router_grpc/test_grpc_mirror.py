"""Shadow copies over gRPC: the client sees nothing of them, the counts see everything."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import (
    MirrorPolicy,
    PoolIdentity,
    RouteTableSpec,
    RoutingPolicy,
)


def saying(text):
    """Answer with one string."""

    async def infer(_message, _context):
        answer = service_pb2.ModelInferResponse(model_name="m", model_version="1")
        answer.outputs.add(name="text", datatype="BYTES", shape=[1])
        answer.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
        return answer.SerializeToString()

    return infer


@pytest.fixture
async def mirrored(router, start_worker):
    """A router that copies every request of stable to the canary."""
    stable, canary = await start_worker("stable"), await start_worker("canary")
    stable.infer = canary.infer = saying(b"yes")
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="ns", name="p", uid="p"),
        sequence=1,
        workers=[stable.routed(), canary.routed(revision="r2")],
        weights=[
            RevisionWeight(revision="r1", weight=100),
            RevisionWeight(revision="r2", weight=0),
        ],
        mirror=MirrorPolicy(revision="r2", percent=100),
        policy=RoutingPolicy.model_validate({"timeoutSeconds": 0.5}),
    )
    router.lane.routes.restore([table])
    return router, stable, canary


async def counted(router, kit, **wanted):
    """Wait until the comparisons are these."""

    def reached():
        states = router.lane.dispatcher.mirrors.states()
        return any(wanted.items() <= state.model_dump().items() for state in states)

    await kit.eventually(reached)


async def test_the_canary_gets_the_same_message_and_the_client_stables_answer(mirrored, kit):
    router, stable, canary = mirrored
    call = router.call(kit.request(id="7"), metadata=(("x-mine", "1"),))
    await call
    assert dict(await call.trailing_metadata())["x-tidegate-worker"] == "stable"
    await counted(router, kit, revision="r2", compared=1, disagreed=0)
    [one], [other] = stable.seen, canary.seen
    assert one.message == other.message
    assert one.metadata["x-mine"] == other.metadata["x-mine"] == "1"
    assert router.attempts() == {"ok": 1}
    await kit.eventually(lambda: router.in_flight() == 0)


async def test_another_text_is_a_disagreement(mirrored, kit):
    router, _, canary = mirrored
    canary.infer = saying(b"no")
    await router.call()
    await counted(router, kit, compared=1, disagreed=1)


async def test_a_canary_that_refuses_is_counted_and_harms_nobody(mirrored, kit):
    router, _, canary = mirrored
    canary.infer = kit.refusing(grpc.StatusCode.INTERNAL, "no")
    for _ in range(3):
        await router.call()
    await counted(router, kit, failed=3, compared=0)
    assert router.attempts() == {"ok": 3}


async def test_a_canary_that_hangs_hears_of_the_end_of_its_time(mirrored, kit):
    router, _, canary = mirrored
    canary.infer = canary.hang
    await asyncio.wait_for(router.call(), 5)
    await counted(router, kit, failed=1)
    await asyncio.wait_for(canary.cancelled.wait(), 5)
    await kit.eventually(lambda: router.in_flight() == 0)
