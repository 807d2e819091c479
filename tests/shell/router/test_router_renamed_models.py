"""Two revisions in one worker, the second under another name: HTTP clients see one model."""

import json

import pytest
from aiohttp import web

from tidegate_api.routetable import Served

LOADED = "m--0a1b2c3d"


@pytest.fixture
async def served(router, start_worker, kit):
    """A worker that serves both revisions; everything is drawn for the second."""
    worker = await start_worker("w1")
    both = kit.routed(worker, revision="old")
    both.serves.append(Served(revision="new", model="m", limit=8, loaded_as=LOADED))
    router.serve(kit.table(both, weights={"old": 0, "new": 100}))
    return router, worker


async def test_the_worker_is_asked_by_its_name_and_the_client_answered_by_its_own(served):
    router, worker = served

    async def infer(_request, _body):
        return web.json_response({"model_name": LOADED, "model_version": "1", "outputs": []})

    worker.answer = infer
    answer, body = await router.infer(headers={"Accept-Encoding": "gzip"})
    assert json.loads(body) == {"model_name": "m", "model_version": "1", "outputs": []}
    assert answer.headers["x-tidegate-revision"] == "new"
    [seen] = worker.seen
    assert seen.target == f"/v2/models/{LOADED}/infer"
    assert seen.header("accept-encoding") == []


async def test_binary_tensors_arrive_whole_behind_the_shorter_head(served):
    router, worker = served
    head = json.dumps({"model_name": LOADED, "outputs": []}).encode()

    async def infer(_request, _body):
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return web.Response(body=head + b"\x00\xff\n" * 9, headers=headers)

    worker.answer = infer
    answer, body = await router.infer()
    size = int(answer.headers["Inference-Header-Content-Length"])
    assert json.loads(body[:size]) == {"model_name": "m", "outputs": []}
    assert body[size:] == b"\x00\xff\n" * 9
    assert int(answer.headers["Content-Length"]) == len(body)


async def test_an_event_stream_names_the_clients_model(served):
    router, worker = served

    async def stream(request, _body):
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for piece in (b'data: {"model_na', b'me":"m--0a1b', b'2c3d"}\n\n', b"data: end"):
            await answer.write(piece)
        return answer

    worker.answer = stream
    _, body = await router.ask("POST", "/v2/models/m/generate_stream", data=b"{}")
    assert body == b'data: {"model_name":"m"}\n\ndata: end'


async def test_metadata_and_errors_name_the_clients_model(served, kit):
    router, worker = served
    worker.answer = kit.answering(200, json.dumps({"name": LOADED}).encode())
    _, body = await router.ask("GET", "/v2/models/m")
    assert json.loads(body) == {"name": "m"}
    worker.answer = kit.answering(400, json.dumps({"error": f"bad input for '{LOADED}'"}).encode())
    answer, body = await router.infer()
    assert (answer.status, json.loads(body)) == (400, {"error": "bad input for 'm'"})


async def test_the_other_revision_of_the_same_worker_keeps_the_plain_name(served, kit):
    router, worker = served
    table = kit.table(*router.routes.book.applied["uid-vision"].workers, sequence=2)
    router.serve(table.model_copy(update={"weights": []}))
    router.serve(kit.table(*table.workers, sequence=3, weights={"old": 100, "new": 0}))
    answer, _ = await router.infer()
    assert answer.headers["x-tidegate-revision"] == "old"
    assert worker.seen[-1].target == "/v2/models/m/infer"
