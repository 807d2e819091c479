"""Stub workers: the agent's state and an echo model, with a latency and failures per revision."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from aiohttp import web

from tidegate_api.names import HEADER_DRAIN_ACK, PORT_WORKER_AGENT, PORT_WORKER_HTTP
from tidegate_api.state import ModelState, Phase, ServerState, Traits, WorkerState
from tidegate_e2e.ptier.api import Json

_INSTANCES = 8
_LAST_REQUESTS_S = 5.0
_SPREAD = 37  # failures come one by one: a hundred calls without one would look like a good canary


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the model of one revision answers."""

    delay_s: float = 0.0
    fail_percent: int = 0
    wrong: bool = False  # the answer's numbers have the other sign
    crashed: bool = False  # breaks every connection, and its pod is not Ready

    @staticmethod
    def of_pod(pod: Json) -> "Behaviour":
        """Read DELAY_MS and FAIL_PERCENT of a pod's environment."""
        pairs = [p for c in pod["spec"]["containers"] for p in c.get("env", [])]
        found = {pair["name"]: pair.get("value", "") for pair in pairs}
        return Behaviour(
            delay_s=float(found.get("DELAY_MS") or 0) / 1000,
            fail_percent=int(found.get("FAIL_PERCENT") or 0),
        )


@dataclass(slots=True)
class Worker:
    """One pod's programs. `turned` overrides the behaviour of a revision while it runs."""

    uid: str
    name: str
    address: str
    revision: str
    models: tuple[str, ...]
    behaviour: Behaviour
    turned: Mapping[str, Behaviour]
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    draining: bool = False
    calls: int = 0
    busy: int = 0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self) -> None:
        """Listen on the pod's own address."""
        inference, agent = web.Application(), web.Application()
        inference.router.add_post("/v2/models/{model}/infer", self._infer)
        inference.router.add_post("/v2/models/{model}/versions/{version}/infer", self._infer)
        agent.router.add_get("/v1/state", self._state)
        for app, port in ((inference, PORT_WORKER_HTTP), (agent, PORT_WORKER_AGENT)):
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=_LAST_REQUESTS_S)
            await runner.setup()
            self._stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, self.address, port).start()

    async def stop(self) -> None:
        """Answer what is in flight and go."""
        await self._stack.aclose()

    @property
    def now(self) -> Behaviour:
        """How its model answers at present."""
        return self.turned.get(self.revision, self.behaviour)

    async def _infer(self, request: web.Request) -> web.Response:
        self.calls += 1
        self.busy += 1
        try:
            body = await request.json()
            now = self.now
            if now.crashed:
                return _broken(request)
            if now.delay_s:
                await asyncio.sleep(now.delay_s)
        finally:
            self.busy -= 1
        if self.calls * _SPREAD % 100 < now.fail_percent:
            return web.json_response({"error": "labelled failure"}, status=500)
        sign = -1 if now.wrong else 1
        outputs = [
            {**item, "name": "OUTPUT", "data": [sign * number for number in item["data"]]}
            for item in body["inputs"]
        ]
        model = request.match_info["model"]
        return web.json_response({"model_name": model, "model_version": "1", "outputs": outputs})

    async def _state(self, request: web.Request) -> web.Response:
        if self.now.crashed:
            return _broken(request)
        if request.headers.get(HEADER_DRAIN_ACK) == "1":
            self.let_go.set()
        return web.Response(
            body=self.document().model_dump_json(by_alias=True, exclude_none=True),
            content_type="application/json",
        )

    def document(self) -> WorkerState:
        """Return what the agent says now."""
        models = [
            ModelState(
                name=name,
                revision=self.revision,
                ready=True,
                probe="Strong",
                traits=Traits(instances=_INSTANCES),
                in_flight=self.busy,
            )
            for name in self.models
        ]
        return WorkerState(
            uid=self.uid,
            name=self.name,
            revision=self.revision,
            accelerator="cpu",
            instance=f"{self.uid}/1",
            phase=Phase.DRAINING if self.draining else Phase.READY,
            ready=not self.draining,
            draining=self.draining,
            server=ServerState(running=True),
            models=models,
        )


def _broken(request: web.Request) -> web.Response:
    """End the connection as a process that dies does."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
