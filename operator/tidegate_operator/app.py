"""The operator's own port: /healthz, /readyz, /metrics and /v1/state."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from aiohttp import web
from prometheus_client import generate_latest

from tidegate_operator.caches import Caches
from tidegate_operator.reconciler import Reconciler
from tidegate_operator.telemetry import Telemetry

_SILENT_S = 180.0  # a watch ends, or says something, within 75 s


@dataclass(slots=True)
class Health:
    """What the probes look at; caches and reconciler appear when this process leads."""

    telemetry: Telemetry
    now_s: Callable[[], float]
    caches: Caches | None = None
    reconciler: Reconciler | None = None
    silent: list[str] = field(default_factory=list)

    def check(self) -> list[str]:
        """Return the resources whose watch has said nothing for too long."""
        if self.caches is None:
            return []
        ages: dict[str, float] = {}  # of the one namespace that is worst off
        for cache in self.caches.all:
            if cache.heard_at_s is not None:
                plural, age_s = cache.resource.plural, self.now_s() - cache.heard_at_s
                ages[plural] = max(age_s, ages.get(plural, 0.0))
        for plural, age_s in ages.items():
            self.telemetry.watch_age.labels(plural).set(age_s)
        return [plural for plural, age_s in ages.items() if age_s > _SILENT_S]


def make_app(health: Health) -> web.Application:
    """Return the application; a standby is Ready too, so that `helm --wait` returns."""
    app = web.Application()

    async def alive(_: web.Request) -> web.Response:
        silent = health.check()
        words = f"no news of {', '.join(silent)}" if silent else "ok"
        return web.Response(text=words, status=503 if silent else 200)

    async def ready(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metrics(_: web.Request) -> web.Response:
        health.check()
        body = generate_latest(health.telemetry.registry)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def state(_: web.Request) -> web.Response:
        records = health.reconciler.records if health.reconciler else {}
        pools = [
            {
                "namespace": key.namespace,
                "pool": key.name,
                "workers": [asdict(score) for score in record.scores],
            }
            for key, record in records.items()
        ]
        return web.json_response({"leader": health.reconciler is not None, "pools": pools})

    app.router.add_get("/healthz", alive)
    app.router.add_get("/readyz", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/v1/state", state)
    return app


async def serve(app: web.Application, port: int) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
