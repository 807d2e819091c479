"""The agent's own HTTP port: /healthz, /readyz, /v1/state, /metrics."""

from aiohttp import web

from tidegate_api.names import HEADER_DRAIN_ACK
from tidegate_worker.telemetry import exposition
from tidegate_worker.worker import Worker

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(worker: Worker) -> web.Application:
    """Return the application; every answer comes from memory."""

    async def healthz(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_request: web.Request) -> web.Response:
        state = worker.state()
        body = {"ready": state.ready, "reason": state.reason, "message": state.message}
        return web.json_response({"phase": state.phase, **body}, status=200 if state.ready else 503)

    async def state(request: web.Request) -> web.Response:
        worker.heard_scrape(acknowledged=request.headers.get(HEADER_DRAIN_ACK) == "1")
        return web.Response(
            text=worker.state().model_dump_json(by_alias=True, exclude_none=True),
            content_type="application/json",
        )

    async def metrics(_request: web.Request) -> web.Response:
        body = worker.exposition.encode() + exposition(worker.state(), worker.batches)
        return web.Response(body=body, headers={"Content-Type": _METRICS_TYPE})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/v1/state", state)
    app.router.add_get("/metrics", metrics)
    return app
