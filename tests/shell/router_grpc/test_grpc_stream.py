"""Streams through a real lane: one worker each, moved only before the first answer."""

import asyncio

import grpc
import pytest
from tritonclient.grpc import service_pb2

Code = grpc.StatusCode


async def messages(*items):
    for item in items:
        yield item


@pytest.fixture
def served(router, worker):
    router.serve(worker.routed())
    return router


async def test_every_message_of_a_stream_goes_to_one_worker(router, start_worker, kit):
    workers = [await start_worker(f"w{number}") for number in range(4)]
    router.serve(*(worker.routed() for worker in workers))
    sent = [kit.request(id=str(number)) for number in range(20)]
    call = router.open(messages(*sent))
    answers = [answer async for answer in call]
    [used] = [worker for worker in workers if worker.seen]
    assert [one.message for one in used.seen] == sent
    assert answers == [kit.streamed(message, used.name) for message in sent]
    assert dict(await call.initial_metadata())["x-tidegate-worker"] == used.name
    assert dict(await call.trailing_metadata())["x-tidegate-worker"] == used.name
    assert router.attempts() == {"ok": 1}
    assert router.in_flight() == 0


async def test_answers_come_while_the_client_still_sends(served, kit):
    call = served.open()
    for number in range(3):
        message = kit.request(id=str(number))
        await call.write(message)
        assert await call.read() == kit.streamed(message, "w1")
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is Code.OK


async def test_a_stream_without_a_message_ends_well(served, worker):
    assert [answer async for answer in served.open(messages())] == []
    assert not worker.arrived.is_set()


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"\x0a\x7fm", Code.INVALID_ARGUMENT), (b"\x0a\x01u", Code.NOT_FOUND)],
    ids=["no-protobuf", "unknown-model"],
)
async def test_a_stream_for_nobody_is_refused(served, message, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [answer async for answer in served.open(messages(message))]
    assert caught.value.code() is code


def says_unavailable(_kit):
    async def stream(received, context):
        async for _ in received:
            await context.abort(Code.UNAVAILABLE, "not now")
            yield b""

    return stream


def says_unknown_model(_kit):
    async def stream(received, _context):
        async for _ in received:
            text = "Request for unknown model: 'm' is not found"
            yield service_pb2.ModelStreamInferResponse(error_message=text).SerializeToString()

    return stream


@pytest.mark.parametrize("refuse", [says_unavailable, says_unknown_model])
async def test_a_stream_moves_with_all_its_messages_before_the_first_answer(
    router, start_worker, kit, refuse
):
    first, second = await start_worker("w1"), await start_worker("w2")
    first.stream = refuse(kit)
    router.serve(first.routed(), second.routed())
    sent = [kit.request(id=str(number)) for number in range(3)]
    for _ in range(30):
        answers = [answer async for answer in router.open(messages(*sent))]
        assert answers == [kit.streamed(message, "w2") for message in sent]
    assert first.arrived.is_set()


async def test_a_refusal_is_seen_as_one_however_many_messages_are_on_their_way(served, worker, kit):
    """With the blocking client: grpc.aio's own write() turns one refusal in ten into INTERNAL."""
    worker.stream = says_unavailable(kit)

    def use():
        codes = set()
        with grpc.insecure_channel(served.address) as channel:
            start = channel.stream_stream(f"{kit.service}ModelStreamInfer")
            for _ in range(100):
                with pytest.raises(grpc.RpcError) as caught:
                    list(start(iter([kit.request()] * 4)))
                codes.add(caught.value.code())
        return codes

    assert await asyncio.to_thread(use) == {Code.UNAVAILABLE}
    assert served.attempts() == {"worker_fault": 100}


async def test_an_error_about_the_request_is_an_answer_and_stays(served, worker):
    async def stream(received, _context):
        async for _ in received:
            yield service_pb2.ModelStreamInferResponse(
                error_message="unexpected shape for input 'X'"
            ).SerializeToString()

    worker.stream = stream
    [answer] = [one async for one in served.open(messages(b"\x0a\x01m"))]
    parsed = service_pb2.ModelStreamInferResponse.FromString(answer)
    assert parsed.error_message == "unexpected shape for input 'X'"


async def test_a_worker_killed_after_an_answer_ends_its_stream_with_an_error(
    router, worker, start_mortal, kit
):
    mortal = await start_mortal("mortal")
    router.serve(mortal.routed())
    call = router.open()
    await call.write(kit.request())
    assert await call.read() == kit.request()
    router.serve(mortal.routed(), worker.routed())
    mortal.process.kill()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is Code.UNAVAILABLE
    assert not worker.arrived.is_set()
    assert router.attempts() == {"worker_fault": 1}


async def test_a_worker_that_never_answers_a_stream_is_given_up(router, worker, kit):
    async def stream(received, _context):
        async for _ in received:
            await asyncio.Event().wait()
            yield b""

    worker.stream = stream
    router.serve(worker.routed(), policy={"timeoutSeconds": 0.2})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [answer async for answer in router.open(messages(kit.request()))]
    assert caught.value.code() is Code.DEADLINE_EXCEEDED
    await asyncio.wait_for(worker.ended.wait(), 1)
    assert router.attempts() == {"timeout": 1}


async def test_a_stream_may_last_longer_than_the_pools_timeout(router, worker, kit):
    router.serve(worker.routed(), policy={"timeoutSeconds": 0.2})
    call = router.open()
    for pause_s in (0, 0.4):
        await asyncio.sleep(pause_s)
        await call.write(kit.request())
        assert await call.read() == kit.streamed(kit.request(), "w1")
    await call.done_writing()
    assert await call.code() is Code.OK


async def test_a_client_that_leaves_its_stream_frees_the_worker(served, worker, kit):
    call = served.open()
    await call.write(kit.request())
    await call.read()
    call.cancel()
    await asyncio.wait_for(worker.ended.wait(), 1)
    await kit.eventually(lambda: served.in_flight() == 0)
    assert served.attempts() == {"cancelled": 1}


async def test_a_stream_larger_than_what_is_kept_passes_whole(served, kit):
    sent = [kit.request(raw_input_contents=[bytes(600_000)], id=str(n)) for n in range(12)]
    answers = [answer async for answer in served.open(messages(*sent))]
    assert answers == [kit.streamed(message, "w1") for message in sent]
