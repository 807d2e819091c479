"""An API server, or a proxy before it, that says what none should: the router lives on."""

import asyncio
import json

import pytest
import yaml
from aiohttp import web

from tidegate_router.adapters import kube
from tidegate_router.adapters.routes import KubernetesRoutes

EMPTY = b'{"items": [], "metadata": {"resourceVersion": "1"}}'


class StrangeApi:
    """Answers lists with `page` and each watch with the next of `lines`; then as it should."""

    def __init__(self):
        self.page, self.lines, self.asked = EMPTY, [], []

    async def handle(self, request):
        if not request.path.endswith("routetables"):
            return web.Response(body=EMPTY)
        watching = "watch" in request.query
        self.asked.append("watch" if watching else "list")
        if not watching:
            return web.Response(body=self.page)
        answer = web.StreamResponse()
        await answer.prepare(request)
        if self.lines:
            await answer.write(self.lines.pop(0) + b"\n")
        await asyncio.Event().wait()
        return answer


@pytest.fixture
async def api():
    return StrangeApi()


@pytest.fixture
async def following(api, router, tmp_path):
    """The running task that follows the API server."""
    app = web.Application()
    app.router.add_get("/{path:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    reader = await kube.connect(str(tmp_path / "config"))
    task = asyncio.create_task(KubernetesRoutes(router.routes, reader, (), "system").run())
    yield task
    task.cancel()
    await asyncio.wait({task})
    await reader.close()
    await runner.cleanup()


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"<html>", id="a-page-for-people"),
        pytest.param(b"\xff\xfe", id="no-text"),
    ],
)
async def test_a_list_that_is_none_is_asked_for_again(api, following, router, kit, page):
    api.page = page
    await kit.eventually(lambda: following.done() or api.asked.count("list") >= 2)
    assert not following.done()
    assert not router.routes.ready
    api.page = EMPTY
    await kit.eventually(lambda: following.done() or router.routes.ready)
    assert not following.done()


async def test_what_is_no_object_among_objects_is_left_out(api, following, router, kit):
    api.page = b'{"items": [null, "x", 7], "metadata": {"resourceVersion": "1"}}'
    await kit.eventually(lambda: following.done() or router.routes.ready)
    assert not following.done()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"[]", id="a-list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"{", id="half-an-event"),
        pytest.param(b"\xff", id="no-text"),
        pytest.param(b'"' + b"a" * 5_000_000 + b'"', id="five-megabytes"),
    ],
)
async def test_a_watch_that_says_nonsense_is_begun_anew(api, following, router, kit, line):
    api.lines.append(line)
    await kit.eventually(lambda: following.done() or api.asked.count("watch") >= 2)
    assert not following.done()
    assert api.asked[:3] == ["list", "watch", "list"]
    assert router.routes.ready


async def test_an_event_of_a_quarter_megabyte_is_read(api, following, router, kit):
    spec = kit.table().to_wire() | {"padding": "a" * 260_000}
    item = {"metadata": {"namespace": "ml", "name": "vision"}, "spec": spec}
    api.lines.append(json.dumps({"type": "ADDED", "object": item}).encode())
    await kit.eventually(lambda: following.done() or router.routes.book.applied)
    assert not following.done()
