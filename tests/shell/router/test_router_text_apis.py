"""OpenAI's completions and a bare /generate through a real router to servers that play Triton."""

import asyncio
import io
import json

import openai
import pytest
from aiohttp import web
from yarl import URL

from tidegate_api.state import Traits

PATH = "/v1/completions"
TEXT = Traits(text=True, decoupled=True)


def telling(*texts, **last):
    """Return a worker's answer: an event per text; the last one has more outputs."""

    async def answer(request, _body):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        for number, text in enumerate(texts, start=1):
            more = last if number == len(texts) else {}
            event = {"model_name": "story", "model_version": "1", "text_output": text, **more}
            await response.write(b"data: %b\n\n" % json.dumps(event).encode())
        return response

    return answer


@pytest.fixture
async def worker(start_worker):
    worker = await start_worker("w1")
    worker.answer = telling(" upon", " a", " time")
    return worker


@pytest.fixture
def served(router, worker, kit):
    router.serve(kit.table(kit.routed(worker, model="story", traits=TEXT)))
    return router


async def complete(router, **fields):
    """Return (answer, body)."""
    body = {"model": "story", "prompt": "Once", **fields}
    return await router.ask("POST", PATH, json=body)


def events(body):
    """Return the data of each event of a stream."""
    lines = body.decode().split("\n\n")
    assert lines.pop() == ""
    return [line.removeprefix("data: ") for line in lines]


async def test_an_answer_is_one_json_with_the_whole_text(served, worker):
    answer, body = await complete(served, max_tokens=3)
    told = json.loads(body)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-tidegate-worker"] == "w1"
    assert told["choices"] == [
        {"index": 0, "text": " upon a time", "logprobs": None, "finish_reason": "stop"}
    ]
    assert told["id"] == f"cmpl-{answer.headers['x-request-id']}"
    [seen] = worker.seen
    assert (seen.method, seen.target) == ("POST", "/v2/models/story/generate_stream")
    assert json.loads(seen.body)["parameters"]["max_tokens"] == 3
    assert seen.header("content-type") == ["application/json"]


async def test_a_stream_is_chunks_and_a_mark(served):
    answer, body = await complete(served, stream=True, stream_options={"include_usage": True})
    *chunks, counts, mark = events(body)
    told = [json.loads(one)["choices"][0] for one in chunks]
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert "".join(one["text"] for one in told) == " upon a time"
    *before, last = [one["finish_reason"] for one in told]
    assert set(before) == {None}
    assert last == "stop"
    assert json.loads(counts)["usage"] is None
    assert mark == "[DONE]"


async def test_a_chunk_arrives_before_the_next_is_made(served, worker):
    second = asyncio.Event()

    async def slow(request, _body):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"text_output": "a"}\n\n')
        await second.wait()
        await response.write(b'data: {"text_output": "b"}\n\n')
        return response

    worker.answer = slow
    body = {"model": "story", "prompt": "Once", "stream": True}
    async with served.open("POST", PATH, json=body) as answer:
        first = await answer.content.readuntil(b"\n\n")
        assert json.loads(first.removeprefix(b"data: "))["choices"][0]["text"] == "a"
        second.set()
        assert (await answer.content.read()).endswith(b"data: [DONE]\n\n")


async def test_openais_own_client_is_understood(served, worker):
    worker.answer = telling("a", "b", num_input_tokens=1, num_output_tokens=2)
    base = f"http://127.0.0.1:{served.port}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
        whole = await client.completions.create(model="story", prompt="Once", max_tokens=2)
        assert whole.choices[0].text == "ab"
        assert whole.usage.total_tokens == 3
        stream = await client.completions.create(model="story", prompt="Once", stream=True)
        assert "".join([one.choices[0].text async for one in stream]) == "ab"
        assert [one.id async for one in client.models.list()] == ["story"]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.completions.create(model="story", prompt="Once", n=2)
        assert (refused.value.param, refused.value.code) == ("n", "bad-request")


async def test_several_prompts_are_answered_side_by_side(served, worker):
    async def echo(request, body):
        return await telling(json.loads(body)["text_input"].upper())(request, body)

    worker.answer = echo
    _, body = await complete(served, prompt=["a", "b", "c"])
    assert [one["text"] for one in json.loads(body)["choices"]] == ["A", "B", "C"]
    _, body = await complete(served, prompt=["a", "b"], stream=True, echo=True)
    told = [json.loads(one)["choices"][0] for one in events(body)[:-1]]
    texts = ["".join(one["text"] for one in told if one["index"] == n) for n in (0, 1)]
    assert texts == ["aA", "bB"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_stop_ends_the_answer_and_the_workers_work(served, worker, kit, stream):
    gone = asyncio.Event()

    async def endless(request, _body):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"text_output": "a. b"}\n\n')
        await kit.eventually(lambda: request.transport is None)
        gone.set()
        return response

    worker.answer = endless
    answer, body = await complete(served, stop=".", stream=stream)
    assert answer.status == 200
    told = [json.loads(one) for one in events(body)[:-1]] if stream else [json.loads(body)]
    assert "".join(one["choices"][0]["text"] for one in told) == "a"
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    await gone.wait()
    await kit.eventually(lambda: served.in_flight("w1") == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_off_is_never_called_complete(served, worker, stream):
    async def broken(request, _body):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"text_output": "a"}\n\n')
        request.transport.close()
        return response

    worker.answer = broken
    answer, body = await complete(served, stream=stream)
    if stream:
        *_, last = events(body)
        assert json.loads(last)["error"]["message"] == "the worker broke its answer off"
        assert b"[DONE]" not in body
    else:
        assert answer.status == 503
        assert json.loads(body)["error"]["code"] == answer.headers["x-tidegate-dropped-reason"]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_the_middle_is_told(served, worker, stream):
    async def failing(request, _body):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'data: {"text_output": "a"}\n\ndata: {"error": "no memory"}\n\n')
        return response

    worker.answer = failing
    answer, body = await complete(served, stream=stream)
    error = json.loads(events(body)[-1]) if stream else json.loads(body)
    assert answer.status == (200 if stream else 500)
    assert error["error"]["message"] == "no memory"
    assert error["error"]["type"] == "server_error"
    assert b"[DONE]" not in body


@pytest.mark.parametrize("stream", [False, True])
async def test_a_workers_refusal_has_openais_shape(served, worker, kit, stream):
    worker.answer = kit.answering(400, b'data: {"error":"bad prompt"}\n\n', Content_Type="text/x")
    answer, body = await complete(served, stream=stream)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(body)["error"]["message"] == "bad prompt"


async def test_an_answer_that_never_began_is_tried_elsewhere(router, start_worker, kit):
    bad, good = await start_worker("bad"), await start_worker("good")
    bad.answer, good.answer = kit.answering(503), telling("a")
    router.serve(kit.table(*(kit.routed(one, model="story", traits=TEXT) for one in (bad, good))))
    for stream in (False, True) * 4:
        answer, _ = await complete(router, stream=stream)
        assert answer.status == 200
        assert answer.headers["x-tidegate-worker"] == "good"
    assert bad.seen


async def test_a_refusal_of_the_router_has_openais_shape_and_the_reason(router):
    for stream in (False, True):
        answer, body = await complete(router, stream=stream)
        assert answer.status == 404
        assert answer.headers["x-tidegate-dropped-reason"] == "unknown-model"
        assert json.loads(body)["error"]["code"] == "unknown-model"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        pytest.param({"data": b"{"}, 400, id="no-json"),
        pytest.param({"json": {"prompt": "a", "best_of": 3}}, 400, id="a-field-not-supported"),
        pytest.param(
            {"data": b"{}", "headers": {"Content-Encoding": "gzip"}}, 415, id="a-packed-body"
        ),
        pytest.param({"data": io.BytesIO(b" " * 2**21)}, 413, id="a-large-body"),
        pytest.param(
            {"json": {"prompt": "a", "model": "x"}, "headers": {"x-tidegate-model": "y"}},
            400,
            id="two-names",
        ),
    ],
)
async def test_what_is_no_request_reaches_no_worker(served, worker, more, status):
    answer, body = await served.ask("POST", PATH, **more)
    assert answer.status == status
    assert "message" in json.loads(body)["error"]
    assert answer.headers["x-tidegate-dropped-reason"]
    assert worker.seen == []


async def test_the_client_that_leaves_before_the_first_piece_costs_one_attempt(served, worker, kit):
    left = asyncio.Event()

    async def silent(_request, _body):
        await left.wait()
        return web.Response()

    worker.answer = silent
    asking = asyncio.create_task(complete(served))
    await kit.eventually(lambda: worker.seen)
    asking.cancel()
    await kit.eventually(lambda: served.in_flight("w1") == 0)
    left.set()
    assert len(worker.seen) == 1


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"json": {"model": "story", "text_input": "a"}}, id="in-the-body"),
        pytest.param(
            {"json": {"text_input": "a"}, "headers": {"x-tidegate-model": "story"}}, id="a-header"
        ),
        pytest.param({"json": {"text_input": "a"}}, id="the-only-text-model"),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/pools/ml/vision/generate"])
async def test_generate_reaches_the_model_that_is_named(router, start_worker, kit, more, path):
    worker = await start_worker()
    router.serve(kit.table(kit.routed(worker, model="story", traits=Traits(text=True))))
    answer, body = await router.ask("POST", path, **more)
    assert answer.status == 200
    assert json.loads(body)["worker"] == "w1"
    [seen] = worker.seen
    assert seen.target == f"/v2/models/story/{path.rpartition('/')[2]}"
    assert json.loads(seen.body) == {"text_input": "a"}


async def test_a_body_without_a_model_reaches_the_worker_byte_for_byte(router, start_worker, kit):
    worker = await start_worker()
    router.serve(kit.table(kit.routed(worker, model="story", traits=Traits(text=True))))
    raw = b'{ "text_input" : "\\u00e9", "x": 1.0e2 }'
    await router.ask("POST", "/generate", data=raw, headers={"x-tidegate-model": "story"})
    assert worker.seen[0].body == raw


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"model": 1}', b'{"model": ""}', b'{"model": "a/b"}', b"nan"]
)
async def test_a_generate_that_names_nothing_is_refused(served, worker, raw):
    answer, body = await served.ask("POST", "/generate", data=raw)
    assert answer.status == 400
    assert json.loads(body)["error"]
    assert worker.seen == []


async def test_a_path_takes_its_own_method_only(served):
    for path, method in ((PATH, "GET"), ("/generate", "PUT"), ("/v1/models", "POST")):
        answer, _ = await served.ask(method, path)
        assert answer.status == 405
        assert answer.headers["Allow"] in {"GET", "POST"}
        assert answer.headers["Allow"] != method


async def test_a_path_with_a_line_end_is_refused_as_every_other(served, worker):
    url = URL(f"http://127.0.0.1:{served.port}/v2/models/a%0Ab/infer", encoded=True)
    async with served.session.post(url, data=b"{}") as answer:
        assert answer.status == 403
        assert answer.headers["x-tidegate-dropped-reason"] == "not-allowed"
    assert worker.seen == []


async def test_paths_that_only_look_alike_are_none(served):
    for path in ("/v1/completions/", "/V1/completions", "/v1/chat/completions", "/v1/models/story"):
        answer, _ = await served.ask("POST", path, data=b"{}")
        assert answer.status == 404
