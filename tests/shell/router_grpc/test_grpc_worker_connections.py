"""Workers that go away, refuse, answer with much, and clients that send much: nothing is lost."""

import asyncio
import struct

import grpc
import pytest
from tritonclient.grpc import service_pb2

from tidegate_router.core.h2 import frames
from tidegate_router.core.h2.frames import Code
from tidegate_router.core.h2.hpack import Decoder, encode

BIG = bytes(range(256)) * 40_000  # 10 MB


class Scripted:
    """A worker on bare frames: `take` is given each complete request."""

    def __init__(self, take):
        self.take, self.port, self.requests, self.connections = take, 0, [], []

    async def serve(self, reader, writer):
        decoder, bodies, heads = Decoder(), {}, {}
        self.connections.append(writer)
        try:
            await reader.readexactly(len(frames.PREFACE))
            writer.write(frames.settings({}) + frames.window_update(0, 2**30))
            while True:
                high, low, kind, flags, stream = frames.unpack_head(await reader.readexactly(9))
                payload = await reader.readexactly(high << 8 | low)
                if kind == frames.HEADERS:
                    heads[stream], bodies[stream] = dict(decoder.decode(payload)), b""
                if kind == frames.DATA:
                    bodies[stream] += payload
                if kind in {frames.DATA, frames.HEADERS} and flags & frames.END_STREAM:
                    self.requests.append(heads[stream])
                    writer.write(self.take(len(self.requests), stream, bodies[stream]))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answered(stream, body):
    head = encode([(b":status", b"200"), (b"content-type", b"application/grpc")])
    return (
        frames.head_frames(stream, head, end=False)
        + frames.frame(frames.DATA, 0, stream, body)
        + frames.head_frames(stream, encode([(b"grpc-status", b"0")]), end=True)
    )


@pytest.fixture
async def script(start_worker):
    servers = []

    async def start(take, name="bare"):
        played = await start_worker(name)
        one = Scripted(take)
        server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        servers.append((server, one))
        one.port = played.port = server.sockets[0].getsockname()[1]
        one.routed = played.routed
        return one

    yield start
    for server, one in servers:
        server.close()
        for writer in one.connections:
            writer.transport.abort()


async def test_a_goaway_during_load_loses_nothing(router, script, kit):
    """Every 50th request is answered by a GOAWAY that leaves the newest streams out."""

    def take(number, stream, body):
        if number % 50 == 0:
            return frames.goaway(stream - 2, Code.NO_ERROR)
        return answered(stream, body)

    bare = await script(take)
    router.serve(bare.routed(limit=64))
    sent = [kit.request(id=str(number)) for number in range(400)]
    answers = []
    for at in range(0, 400, 20):
        answers += await asyncio.gather(*(router.call(one) for one in sent[at : at + 20]))
    assert answers == sent
    assert len(bare.connections) >= 8
    assert router.in_flight() == 0
    assert router.attempts()["ok"] == 400


async def test_a_refused_stream_never_ran_and_runs_elsewhere(router, script, worker, kit):
    refusing = await script(
        lambda _number, stream, _body: frames.rst_stream(stream, Code.REFUSED_STREAM)
    )
    router.serve(refusing.routed(idempotent=False), worker.routed(idempotent=False))
    answers = [await router.call() for _ in range(20)]
    assert {kit.answered_by(answer) for answer in answers} == {"w1"}
    assert refusing.requests


@pytest.mark.parametrize(
    "last",
    [
        frames.head_frames(1, encode([(b":status", b"503")]), end=True),
        frames.head_frames(1, encode([(b":status", b"200")]), end=True),
        frames.rst_stream(1, Code.INTERNAL_ERROR),
        frames.frame(frames.DATA, 1, 1, b""),
        frames.frame(frames.PING, 0, 5, b""),
    ],
    ids=["503", "no-status", "reset", "data-first", "nonsense"],
)
async def test_a_worker_that_breaks_the_rules_is_an_error_and_frees_its_slot(router, script, last):
    bare = await script(lambda _number, _stream, _body: last)
    router.serve(bare.routed(idempotent=False))
    with pytest.raises(grpc.aio.AioRpcError):
        await router.call()
    assert router.in_flight() == 0


async def test_connections_are_shared_and_carry_no_secret(router, script, kit):
    bare = await script(lambda _number, stream, body: answered(stream, body))
    router.serve(bare.routed(limit=64))
    metadata = (
        ("x-tidegate-restricted-key", "k"),
        ("triton-grpc-protocol-x-tidegate-restricted-key", "k"),
        ("x-mine", "1"),
    )
    await router.call(kit.request(), metadata=metadata)
    await asyncio.gather(*(router.call(kit.request(), metadata=metadata) for _ in range(40)))
    assert len(bare.connections) == 1
    for head in bare.requests:
        assert head[b"x-mine"] == b"1"
        assert not [name for name in head if b"key" in name]


async def test_a_large_message_passes_both_ways_with_narrow_windows(router, worker, kit):
    router.serve(worker.routed())
    sent = kit.request(raw_input_contents=[BIG])
    answers = await asyncio.gather(*(router.call(sent) for _ in range(3)))
    assert answers == [kit.echo(sent, "w1")] * 3


async def send_all(reader, writer, body, taken):
    """Send DATA as far as the stream's window allows, then wait for more of it."""
    while taken["sent"] < len(body):
        size = min(taken["room"], 16384)
        if size:
            sent = taken["sent"]
            writer.write(frames.frame(frames.DATA, 0, 1, body[sent : sent + size]))
            taken["sent"], taken["room"] = sent + size, taken["room"] - size
            continue
        high, low, kind, _, stream = frames.unpack_head(await reader.readexactly(9))
        payload = await reader.readexactly(high << 8 | low)
        if kind == frames.WINDOW_UPDATE and stream == 1:
            taken["room"] += int.from_bytes(payload)


async def test_a_large_message_is_not_held_whole(router, worker, kit):
    """Its worker reads nothing: the client can send no more than a few windows."""
    reading = asyncio.Event()

    async def deaf(reader, writer):
        await reader.readexactly(len(frames.PREFACE))
        writer.write(frames.settings({}))
        await reading.wait()
        writer.close()

    server = await asyncio.start_server(deaf, "127.0.0.1", 0)
    worker.port = server.sockets[0].getsockname()[1]
    router.serve(worker.routed())
    reader, writer = await asyncio.open_connection("127.0.0.1", router.lane.port)
    head = encode([
        (b":method", b"POST"), (b":scheme", b"http"),
        (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
        (b"content-type", b"application/grpc"),
    ])  # fmt: skip
    raw = kit.request(raw_input_contents=[BIG])
    writer.write(frames.PREFACE + frames.settings({}) + frames.head_frames(1, head, end=False))
    body = struct.pack(">BL", 0, len(raw)) + raw
    taken = {"room": 65535, "sent": 0}
    sending = asyncio.create_task(send_all(reader, writer, body, taken))
    done, _ = await asyncio.wait({sending}, timeout=1)
    sending.cancel()
    assert not done
    assert 65535 <= taken["sent"] < 400_000
    writer.transport.abort()
    await kit.eventually(lambda: router.in_flight() == 0)
    reading.set()
    server.close()


@pytest.mark.parametrize("size", [10, 2_000_000])
async def test_a_compressed_message_is_routed_and_passes_as_it_is(router, worker, kit, size):
    router.serve(worker.routed())
    async with grpc.aio.insecure_channel(
        router.address, compression=grpc.Compression.Gzip,
        options=[("grpc.max_receive_message_length", -1)],
    ) as channel:  # fmt: skip
        sent = kit.request(raw_input_contents=[bytes(size)])
        call = channel.unary_unary(f"{kit.service}ModelInfer")
        assert await call(sent) == kit.echo(sent, "w1")
    assert worker.seen[0].message == sent


async def test_a_compressed_message_is_renamed(router, worker, kit):
    router.serve(worker.routed(loaded_as="m--2"))
    async with grpc.aio.insecure_channel(
        router.address, compression=grpc.Compression.Gzip
    ) as channel:
        await channel.unary_unary(f"{kit.service}ModelInfer")(kit.request())
    assert service_pb2.ModelInferRequest.FromString(worker.seen[0].message).model_name == "m--2"


async def test_a_large_answer_to_a_client_that_leaves_frees_its_slot(router, worker, kit):
    router.serve(worker.routed())
    sent = kit.request(raw_input_contents=[BIG])
    for _ in range(5):
        call = router.call(sent)
        waiting = asyncio.ensure_future(call)
        await asyncio.wait({waiting}, timeout=0.05)
        call.cancel()
        await asyncio.wait({waiting})
    await kit.eventually(lambda: router.in_flight() == 0)


async def test_more_streams_than_one_connection_takes_open_another(router, script, kit):
    held = []

    def take(_number, stream, body):
        held.append((stream, body))
        return b""

    bare = await script(take)
    router.serve(bare.routed(limit=300))
    channels = [grpc.aio.insecure_channel(router.address, options=[("x", n)]) for n in range(2)]
    calls = [
        asyncio.ensure_future(channel.unary_unary(f"{kit.service}ModelInfer")(kit.request()))
        for channel in channels
        for _ in range(75)
    ]
    await kit.eventually(lambda: len(held) == 150)
    assert len(bare.connections) == 2
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    for channel in channels:
        await channel.close()
    await kit.eventually(lambda: router.in_flight() == 0)


async def test_a_refusal_names_the_revision_that_was_drawn(router, worker):
    router.serve(worker.routed())
    router.serve(name="p", policy={"queue": {"noWorkersTtlSeconds": 0}})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.call()
    assert dict(caught.value.trailing_metadata())["x-tidegate-revision"] == "r1"
