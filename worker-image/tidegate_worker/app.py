"""The agent's port: /healthz, /readyz, /v1/state and /metrics."""

from aiohttp import web

from tidegate_api.names import HEADER_DRAIN_ACK
from tidegate_worker.agent import Agent


def make_app(agent: Agent) -> web.Application:
    """Return the application; it only shows what the agent knows."""
    app = web.Application()

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def ready(_: web.Request) -> web.Response:
        state = agent.state()
        text = "ready" if state.ready else f"{state.reason}: {state.message}"
        return web.Response(text=text, status=200 if state.ready else 503)

    async def show(request: web.Request) -> web.Response:
        agent.scraped(acknowledged=request.headers.get(HEADER_DRAIN_ACK) == "1")
        return web.Response(
            body=agent.state().model_dump_json(by_alias=True, exclude_none=True),
            content_type="application/json",
        )

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(body=await agent.exposition(), headers=headers)

    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/v1/state", show)
    app.router.add_get("/metrics", metrics)
    return app
