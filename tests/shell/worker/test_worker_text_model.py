"""/v1/completions through a router and an agent to a real tritonserver with a text model."""

import json
import random
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import openai
import pytest
import yaml

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, Ports, RoutedWorker, RouteTableSpec, Served
from tidegate_e2e import textgenrnn
from tidegate_router.adapters.routes import Routes
from tidegate_router.adapters.server import listen
from tidegate_router.adapters.upstream import Upstream
from tidegate_router.core.dispatch import Dispatcher
from tidegate_router.http_lane import HttpLane
from tidegate_router.telemetry import Telemetry

pytestmark = pytest.mark.timeout(120)  # the first use gets the package
EXAMPLE = Path(__file__).parents[3] / "examples" / "text" / "textgenrnn.yaml"


@pytest.fixture
async def agent(start, conftest):
    path = str(textgenrnn.context() / "textgenrnn")
    *_, pool = yaml.safe_load_all(EXAMPLE.read_text())
    [model] = pool["spec"]["template"]["models"]
    fields = {name: value for name, value in model.items() if name not in {"name", "source"}}
    entry = conftest.entry(model["name"], f"file://{path}", path=path, **fields)
    agent = start(entry)
    await agent.until(lambda state: state.models and state.models[0].ready, limit_s=60)
    return agent


@pytest.fixture
async def url(agent):
    """Return the address of a router in front of that worker."""
    state = await agent.state()
    [model] = state.models
    worker = RoutedWorker(
        id="w1", name="w1", address="127.0.0.1", ports=Ports(http=agent.http_port), revision="r1",
        serves=[Served(revision="r1", model=model.name, limit=4, traits=model.traits)],
    )  # fmt: skip
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name="text", uid="u1"), sequence=1,
        weights=[RevisionWeight(revision="r1", weight=100)], workers=[worker],
    )  # fmt: skip
    dispatcher = Dispatcher("test/1", random.Random(7).random)
    routes = Routes(dispatcher)
    routes.restore([table])
    async with AsyncExitStack() as stack:
        upstream = Upstream()
        stack.push_async_callback(upstream.close)
        lane = HttpLane(dispatcher, routes, upstream, Telemetry(), 1024 * 1024)
        stack.push_async_callback(lane.mirror.close)
        port = await listen(stack, lane.make_app(), "127.0.0.1", 0, shutdown_s=1.0)
        yield f"http://127.0.0.1:{port}"


async def test_openais_client_completes_and_streams_through_real_triton(agent, url):
    [model] = (await agent.state()).models
    assert (model.traits.text, model.traits.decoupled) == (True, True)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [one.id async for one in client.models.list()] == ["textgenrnn"]
        wanted = {"model": "textgenrnn", "prompt": "Once upon a time", "seed": 1, "max_tokens": 20}
        whole = await client.completions.create(**wanted, temperature=0.5, top_p=0.9)
        assert len(whole.choices[0].text) == 20
        assert whole.choices[0].finish_reason == "length"
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (16, 20)
        pieces = await client.completions.create(**wanted, temperature=0.5, top_p=0.9, stream=True)
        texts = [one.choices[0].text async for one in pieces]
        assert "".join(texts) == whole.choices[0].text
        assert len(texts) > 5
        cut = await client.completions.create(**wanted, temperature=0.5, top_p=0.9, stop=" ")
        assert cut.choices[0].text == whole.choices[0].text.split(" ")[0]
        with pytest.raises(openai.APIStatusError) as refused:
            await client.completions.create(**wanted | {"model": "none"})
        assert refused.value.status_code == 404


async def test_a_stop_ends_the_work_in_triton(agent, url):
    wanted = {"model": "textgenrnn", "prompt": "Once", "max_tokens": 100_000, "temperature": 0}
    async with aiohttp.ClientSession() as session:
        for _ in range(4):  # twice as many as there are instances
            body = {**wanted, "stop": "e"}
            async with session.post(f"{url}/v1/completions", json=body) as answer:
                told = await answer.json()
                assert told["choices"][0]["finish_reason"] == "stop"
    await agent.until(lambda state: state.models[0].in_flight == 0, limit_s=30)


async def test_generate_stream_by_a_body_that_names_the_model(url):
    body = {"model": "textgenrnn", "text_input": "Hello", "max_tokens": 4, "temperature": 0}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/generate_stream", json=body) as answer,
    ):
        raw = (await answer.read()).decode()
    events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: ")]
    assert len("".join(one["text_output"] for one in events)) == 4
