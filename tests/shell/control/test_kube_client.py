"""The client: every answer of an API server, or of something before it, becomes one known error."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from tidegate_operator.adapters.client import (
    ApiError,
    ConflictError,
    ExpiredError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from tidegate_operator.caches import DEPLOYMENTS, POOLS, SERVICES

PATH = "/apis/apps/v1/namespaces/ml/deployments/vision"


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFoundError), (409, ConflictError), (410, ExpiredError), (429, UnavailableError),
     (500, UnavailableError), (503, UnavailableError), (401, RefusedError), (403, RefusedError),
     (422, RefusedError)],
)  # fmt: skip
async def test_each_status_is_one_error(api, client, status, error):
    api.fault = lambda _method, _path: status
    with pytest.raises(ApiError, match=rf"GET {PATH}: {status} broken on purpose") as caught:
        await client.request("GET", PATH)
    assert type(caught.value) is error


async def test_a_hanging_server_is_given_up_in_time(api, client):
    api.fault = lambda _method, _path: "hang"
    with pytest.raises(UnavailableError):
        await asyncio.wait_for(client.request("GET", PATH, timeout_s=0.2), 5)


async def test_an_absent_server_is_unavailable(connect):
    client = connect(f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(UnavailableError):
        await client.request("GET", PATH)


@pytest.mark.parametrize("body", [b"<html>login</html>", b"[]", b"\xff", b""])
async def test_a_gateway_that_answers_for_the_server_is_unavailable(connect, body):
    async def answer(_request):
        return web.Response(body=body)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    async with TestServer(app) as server:
        client = connect(str(server.make_url("/")).rstrip("/"))
        with pytest.raises(UnavailableError, match="no JSON"):
            await client.request("GET", PATH)


@pytest.mark.parametrize(
    ("path", "expected"),
    [(DEPLOYMENTS.path("ml", "vision"), PATH),
     (SERVICES.path("ml"), "/api/v1/namespaces/ml/services"),
     (POOLS.path(), "/apis/tidegate.dev/v1alpha1/inferencepools"),
     (POOLS.path("ml", "vision", "status"),
      "/apis/tidegate.dev/v1alpha1/namespaces/ml/inferencepools/vision/status")],
    ids=["an object", "a namespace of the core group", "all namespaces", "a subresource"],
)  # fmt: skip
def test_paths_are_those_of_the_api(path, expected):
    assert path == expected
