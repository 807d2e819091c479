"""The admin port: what this router knows and does. Never on the public port."""

from aiohttp import web
from prometheus_client import generate_latest

from tidegate_router.core import report
from tidegate_router.http_lane import HttpLane
from tidegate_router.lane import clock


def make_app(lane: HttpLane) -> web.Application:
    """Return the application of the admin port."""
    app = web.Application()
    dispatcher, routes, telemetry = lane.dispatcher, lane.routes, lane.telemetry

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def state(_: web.Request) -> web.Response:
        document = report.router_state(
            dispatcher, synced=routes.synced, draining=lane.draining, now_s=clock()
        )
        body = document.model_dump_json(by_alias=True, exclude_none=True)
        return web.Response(body=body, content_type="application/json")

    async def workers(_: web.Request) -> web.Response:
        return web.json_response(report.workers(dispatcher, clock()))

    async def pick(request: web.Request) -> web.Response:
        pool, model = request.query.get("pool", ""), request.query.get("model", "")
        found = report.preview(dispatcher, pool, model, clock())
        if found is None:
            error = f"no pool serves model '{model}': /debug/pick?model=NAME[&pool=NS/NAME]"
            return web.json_response({"error": error}, status=404)
        return web.json_response(found)

    async def metrics(_: web.Request) -> web.Response:
        for name, count in report.worker_counts(dispatcher).items():
            telemetry.workers.labels(name).set(count)
        for counted, times in dispatcher.keeper.ejections.items():
            telemetry.ejections.labels(*counted).set(times)
        telemetry.synced.set(routes.synced)
        telemetry.sequence_resets.set(routes.book.resets)
        telemetry.table_age.set(min(dispatcher.proof.silence_s(clock()), 1e9))
        headers = {"Content-Type": "text/plain; version=0.0.4"}
        return web.Response(body=generate_latest(telemetry.registry), headers=headers)

    app.router.add_get("/healthz", alive)
    app.router.add_get("/v1/state", state)
    app.router.add_get("/workers", workers)
    app.router.add_get("/debug/pick", pick)
    app.router.add_get("/metrics", metrics)
    return app
