"""A worker that loaded the model under another name: gRPC clients see their own."""

import grpc
import pytest
from tritonclient.grpc import service_pb2

LOADED = "m--0a1b2c3d"


@pytest.fixture
def served(router, worker):
    router.serve(worker.routed(loaded_as=LOADED))
    return router


async def test_a_unary_call_is_renamed_both_ways(served, worker, kit):
    answer = service_pb2.ModelInferResponse.FromString(await served.call(kit.request(id="7")))
    assert (answer.model_name, answer.id, len(answer.raw_output_contents)) == ("m", "7", 1)
    [seen] = worker.seen
    sent = service_pb2.ModelInferRequest.FromString(seen.message)
    assert (sent.model_name, sent.id) == (LOADED, "7")


async def test_each_message_of_a_stream_is_renamed_both_ways(served, worker, kit):
    call = served.open()
    for number in range(3):
        await call.write(kit.request(id=str(number)))
        answer = service_pb2.ModelStreamInferResponse.FromString(await call.read())
        found = answer.infer_response
        assert (found.model_name, found.id, answer.error_message) == ("m", str(number), "")
    await call.done_writing()
    sent = [service_pb2.ModelInferRequest.FromString(one.message) for one in worker.seen]
    assert {one.model_name for one in sent} == {LOADED}


async def test_an_error_names_the_clients_model(served, worker, kit):
    worker.infer = kit.refusing(grpc.StatusCode.INVALID_ARGUMENT, f"bad input for '{LOADED}'")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.call()
    assert caught.value.details() == "bad input for 'm'"


async def test_metadata_names_the_clients_model(served, worker):
    message = service_pb2.ModelMetadataRequest(name="m").SerializeToString()
    answer = await served.call(message, method="ModelMetadata")
    assert service_pb2.ModelMetadataResponse.FromString(answer).name == "m"
    asked = service_pb2.ModelMetadataRequest.FromString(worker.seen[-1].message)
    assert asked.name == LOADED
