"""Unary gRPC through a real lane to real servers that play Triton."""

import asyncio
import time

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tidegate_api.routetable import Pin

Code = grpc.StatusCode
FORBIDDEN = [
    "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings",
    "ModelConfig", "NoSuchMethod",
]  # fmt: skip


async def failure(call):
    """Return code, details and trailers of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details(), dict(caught.value.trailing_metadata())


@pytest.fixture
async def two(router, start_worker):
    """Two workers behind the router."""
    workers = [await start_worker(name) for name in ("w1", "w2")]
    router.serve(*(worker.routed() for worker in workers))
    return workers


@pytest.fixture
def served(router, worker):
    router.serve(worker.routed())
    return router


async def test_a_message_and_its_answer_pass_byte_for_byte(served, worker, kit):
    message = kit.request(id="7") + b"\xa2\x06\x03abc"  # with a field that nobody knows
    answer = await served.call(message)
    assert [one.message for one in worker.seen] == [message]
    assert answer == kit.echo(message, "w1")
    assert served.attempts() == {"ok": 1}
    assert served.in_flight() == 0


async def test_a_message_of_many_megabytes_passes(served, kit):
    message = kit.request(raw_input_contents=[bytes(20_000_000)])
    assert await served.call(message) == kit.echo(message, "w1")


async def test_a_message_beyond_the_limit_is_refused(start_router, worker, kit):
    router = await start_router(max_body_bytes=1_000_000)
    router.serve(worker.routed())
    code, _, _ = await failure(router.call(kit.request(raw_input_contents=[bytes(1_100_000)])))
    assert code is Code.RESOURCE_EXHAUSTED
    assert worker.seen == []


async def test_an_answer_says_who_gave_it(served):
    call = served.call(metadata=(("x-request-id", "abc"), ("x-tidegate-explain", "true")))
    await call
    marks = dict(await call.trailing_metadata())
    assert marks["x-tidegate-worker"] == "w1"
    assert marks["x-tidegate-revision"] == "r1"
    assert marks["x-tidegate-attempts"] == "1"
    assert marks["x-request-id"] == "abc"
    assert "chose=w1" in marks["x-tidegate-explain"]


async def test_metadata_passes_except_what_is_the_routers_or_guards_the_worker(served, worker):
    await served.call(
        metadata=(
            ("authorization", "Bearer x"),
            ("trace-bin", b"\x00\xff"),
            ("x-request-id", "abc"),
            ("x-tidegate-restricted-key", "guess"),
            ("triton-grpc-protocol-x-tidegate-restricted-key", "guess"),
            ("x-tidegate-drain-ack", "1"),
            ("x-tidegate-pool", "ns/p"),
        )
    )
    seen = worker.seen[0].metadata
    assert seen["authorization"] == "Bearer x"
    assert seen["trace-bin"] == b"\x00\xff"
    assert seen["x-request-id"] == "abc"
    assert not [key for key in seen if "tidegate" in key or key.startswith("triton-")]


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelStatistics"])
async def test_an_inquiry_goes_to_a_worker_and_counts_nothing(served, worker, method):
    asked = service_pb2.ModelMetadataRequest(name="m").SerializeToString()
    await served.call(asked, method)
    assert [one.method for one in worker.seen] == [method]
    assert served.attempts() == {}


@pytest.mark.parametrize("method", FORBIDDEN)
async def test_control_methods_are_refused_before_any_worker(served, worker, method):
    code, details, trailers = await failure(served.call(b"\x0a\x01m", method))
    assert code is Code.UNIMPLEMENTED
    assert "control APIs" in details
    assert trailers["x-tidegate-dropped-reason"] == "not-allowed"
    assert worker.seen == []


async def test_another_service_is_unimplemented(router):
    code, _, _ = await failure(router.channel.unary_unary("/some.Service/Call")(b""))
    assert code is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("message", "metadata", "code", "reason"),
    [
        ("unknown", {}, Code.NOT_FOUND, "unknown-model"),
        ("m" * 300, {}, Code.INVALID_ARGUMENT, "bad-request"),
        ("", {}, Code.INVALID_ARGUMENT, "bad-request"),
        (b"\x0a\x7fm", {}, Code.INVALID_ARGUMENT, "bad-request"),
        ("m", {"x-tidegate-pool": "ns/other"}, Code.NOT_FOUND, "unknown-pool"),
        ("m", {"x-tidegate-pool": "nonsense"}, Code.INVALID_ARGUMENT, "bad-request"),
    ],
    ids=["unknown", "long-name", "no-name", "no-protobuf", "unknown-pool", "no-pool-name"],
)
async def test_a_request_for_nobody_is_refused(served, kit, message, metadata, code, reason):
    sent = message if isinstance(message, bytes) else kit.request(message)
    found = await failure(served.call(sent, metadata=tuple(metadata.items())))
    assert (found[0], found[2]["x-tidegate-dropped-reason"]) == (code, reason)
    assert len(found[1]) < 200


async def test_metadata_names_the_model_where_the_message_does_not(served, worker, kit):
    await served.call(kit.request(""), metadata=(("x-tidegate-model", "m"),))
    assert len(worker.seen) == 1


async def test_a_named_pool_gets_the_request_of_a_model_that_two_serve(router, start_worker, kit):
    first, second = await start_worker("w1"), await start_worker("w2")
    router.serve(first.routed(), name="a")
    router.serve(second.routed(), name="b")
    assert kit.answered_by(await router.call()) == "w1"
    named = router.call(metadata=(("x-tidegate-pool", "ns/b"),))
    assert kit.answered_by(await named) == "w2"


async def test_a_version_that_nobody_serves_is_not_found(served, worker, kit):
    assert await served.call(kit.request(model_version="1"))
    code, details, _ = await failure(served.call(kit.request(model_version="9")))
    assert (code, len(worker.seen)) == (Code.NOT_FOUND, 1)
    assert "no version 9" in details


@pytest.mark.parametrize(
    ("code", "details"),
    [(Code.UNAVAILABLE, "not now"), (Code.NOT_FOUND, "Request for unknown model: 'm'")],
)
async def test_what_never_ran_runs_on_another_worker(router, two, kit, code, details):
    two[0].infer = kit.refusing(code, details)
    answers = [await router.call() for _ in range(20)]
    assert {kit.answered_by(answer) for answer in answers} == {"w2"}
    assert two[0].seen


@pytest.mark.parametrize(
    ("code", "outcome"),
    [(Code.INVALID_ARGUMENT, "client"), (Code.INTERNAL, "model_error")],
)
async def test_other_errors_pass_with_their_details_and_are_not_retried(
    served, worker, kit, code, outcome
):
    worker.infer = kit.refusing(code, "unexpected shape", (("x-model", "hint"),))
    found, details, trailers = await failure(served.call())
    assert (found, details, trailers["x-model"]) == (code, "unexpected shape", "hint")
    assert trailers["x-tidegate-worker"] == "w1"
    assert len(worker.seen) == 1
    assert served.attempts() == {outcome: 1}


async def test_a_worker_that_cannot_be_reached_costs_no_request(
    router, two, kit, unused_tcp_port_factory
):
    dead = two[0]
    dead.port = unused_tcp_port_factory()
    router.serve(*(worker.routed() for worker in two))
    answers = await asyncio.gather(*(router.call() for _ in range(30)))
    assert {kit.answered_by(answer) for answer in answers} == {"w2"}
    assert router.lane.dispatcher.down.is_down("w1")


async def test_no_worker_at_all_is_said_with_when_to_try_again(router, worker):
    router.serve(worker.routed())
    router.serve(name="p", policy={"queue": {"noWorkersTtlSeconds": 0.05}})
    code, _, trailers = await failure(router.call())
    assert (code, trailers["x-tidegate-dropped-reason"]) == (Code.UNAVAILABLE, "no-workers")
    assert int(trailers["grpc-retry-pushback-ms"]) > 0


async def test_a_worker_killed_with_a_request_costs_nothing_if_it_may_run_again(
    router, worker, start_mortal, kit
):
    mortal = await start_mortal("mortal")
    router.serve(mortal.routed())
    call = asyncio.ensure_future(router.call())
    await mortal.process.stdout.readline()
    router.serve(mortal.routed(), worker.routed())
    mortal.process.kill()
    assert kit.answered_by(await call) == "w1"
    assert router.attempts() == {"worker_fault": 1, "ok": 1}


async def test_a_request_that_may_not_run_again_fails_with_its_worker(router, worker, start_mortal):
    mortal = await start_mortal("mortal")
    router.serve(mortal.routed(idempotent=False))
    call = asyncio.ensure_future(router.call())
    await mortal.process.stdout.readline()
    router.serve(mortal.routed(idempotent=False), worker.routed(idempotent=False))
    mortal.process.kill()
    code, _, trailers = await failure(call)
    assert (code, worker.seen) == (Code.UNAVAILABLE, [])
    assert trailers["x-tidegate-dropped-reason"] == "retries-exhausted"


async def test_a_clients_deadline_reaches_the_worker_and_counts_as_a_timeout(served, worker, kit):
    worker.infer = worker.hang
    code, _, _ = await failure(served.call(timeout=0.3))
    assert code is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(worker.cancelled.wait(), 1)
    await kit.eventually(lambda: served.attempts() == {"timeout": 1})
    assert served.in_flight() == 0


async def test_the_pools_timeout_ends_a_request_without_a_deadline(router, worker):
    worker.infer = worker.hang
    router.serve(worker.routed(), policy={"timeoutSeconds": 0.2, "retry": {"attempts": 0}})
    code, details, trailers = await failure(router.call())
    assert (code, trailers["x-tidegate-dropped-reason"]) == (Code.DEADLINE_EXCEEDED, "deadline")
    assert "0.2 s" in details or "did not answer" in details


async def test_a_slow_try_is_given_up_for_another_worker(router, start_worker, kit):
    slow, quick = await start_worker("slow"), await start_worker("quick")
    slow.infer = slow.hang
    policy = {"retry": {"attempts": 2, "perTryTimeoutSeconds": 0.2}}
    router.serve(slow.routed(), quick.routed(), policy=policy)
    answers = await asyncio.gather(*(router.call() for _ in range(8)))
    assert {kit.answered_by(answer) for answer in answers} == {"quick"}
    assert slow.cancelled.is_set()


async def test_a_client_that_leaves_frees_its_worker_at_once(served, worker, kit):
    worker.infer = worker.hang
    call = served.call()
    started = asyncio.ensure_future(call)
    await worker.arrived.wait()
    left_s = time.monotonic()
    call.cancel()
    await asyncio.wait_for(worker.cancelled.wait(), 1)
    assert time.monotonic() - left_s < 1
    await kit.eventually(lambda: served.in_flight() == 0)
    assert served.attempts() == {"cancelled": 1}
    with pytest.raises(asyncio.CancelledError):
        await started


async def test_a_request_that_finds_every_worker_busy_waits_then_is_refused(router, worker, kit):
    worker.infer = worker.hang
    router.serve(worker.routed(limit=1))
    held = router.call()
    waiting = asyncio.ensure_future(held)
    await worker.arrived.wait()
    code, _, trailers = await failure(router.call())
    assert (code, trailers["x-tidegate-dropped-reason"]) == (Code.RESOURCE_EXHAUSTED, "saturated")
    assert trailers["x-tidegate-revision"] == "r1"
    worker.infer = None
    later = asyncio.ensure_future(router.call())
    held.cancel()
    assert kit.answered_by(await later) == "w1"
    await asyncio.wait([waiting])


async def test_health_and_readiness_follow_the_routes_and_the_drain(router, worker):
    async def asked():
        health = await router.channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        ready = await router.call(b"", "ServerReady")
        return health, service_pb2.ServerReadyResponse.FromString(ready).ready

    assert await asked() == (b"\x08\x02", False)
    router.serve(worker.routed())
    assert await asked() == (b"\x08\x01", True)
    router.lane.draining = True
    assert await asked() == (b"\x08\x02", False)
    live = await router.call(b"", "ServerLive")
    assert service_pb2.ServerLiveResponse.FromString(live).live


async def test_model_ready_is_the_routers_own_knowledge(served, worker):
    async def ready(name):
        asked = service_pb2.ModelReadyRequest(name=name).SerializeToString()
        answer = await served.call(asked, "ModelReady")
        return service_pb2.ModelReadyResponse.FromString(answer).ready

    assert await ready("m") is True
    assert (await failure(ready("unknown")))[0] is Code.NOT_FOUND
    served.serve(worker.routed(ready=False))
    assert await ready("m") is False
    assert worker.seen == []


async def test_a_request_in_flight_outlives_the_stop(start_router, worker, kit):
    router = await start_router(drain_s=5)
    released = asyncio.Event()

    async def slow(message, _context):
        await released.wait()
        return kit.echo(message, "w1")

    worker.infer = slow
    router.serve(worker.routed())
    call = asyncio.ensure_future(router.call())
    await worker.arrived.wait()
    stopping = asyncio.ensure_future(router.lane.stop())
    await asyncio.sleep(0)
    released.set()
    assert kit.answered_by(await call) == "w1"
    await stopping


async def test_a_port_that_is_taken_is_an_error(router, start_router):
    with pytest.raises(OSError, match="cannot listen"):
        await start_router(grpc_port=router.lane.port)


async def test_metadata_of_a_pin_sends_a_call_to_its_revision(router, start_worker, kit):
    stable, canary = await start_worker("stable"), await start_worker("canary")
    router.serve(stable.routed(), canary.routed(revision="r2"))
    [table] = router.lane.routes.book.applied.values()
    pin = Pin(revision="r2", headers={"x-canary": "always"})
    router.lane.routes.restore([table.model_copy(update={"pins": [pin]})])
    assert kit.answered_by(await router.call(metadata=(("x-canary", "always"),))) == "canary"
    assert kit.answered_by(await router.call(metadata=(("x-canary", "no"),))) == "stable"
    assert router.attempts() == {"ok": 1}
