"""Between the operator and the API server: adds the certificate, counts writes, kills the writer.

Leases are no writes here: they are renewed by the clock, and would make a count say nothing.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp import web

_WRITES = {"POST", "PUT", "PATCH", "DELETE"}
_HOP = {"host", "connection", "transfer-encoding", "content-length", "authorization"}
_SENT_BACK = ("Content-Type", "Warning", "Retry-After")
When = Literal["before", "after"]


@dataclass(frozen=True, slots=True)
class KillPoint:
    """Kill the operator at its n-th write from now: before it is forwarded, or after its answer."""

    number: int
    when: When


@dataclass(slots=True)
class Proxy:
    """An HTTP server in front of an HTTPS one. `kill()` ends the operator's child."""

    server: str
    tls: ssl.SSLContext
    port: int
    kill: Callable[[], bool] = lambda: False
    writes: int = 0
    point: KillPoint | None = None
    killed_at: str = ""  # method and path of the write at which the operator was killed
    log: list[str] = field(default_factory=list)  # writes since `arm`

    def arm(self, point: KillPoint | None) -> None:
        """Count from 0 again, and kill at `point`."""
        self.writes, self.point, self.killed_at = 0, point, ""
        self.log.clear()

    async def run(self, started: asyncio.Event) -> None:
        """Serve until cancelled."""
        app = web.Application(client_max_size=2**26)
        connector = aiohttp.TCPConnector(ssl=self.tls, limit=0)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=5)
        async with aiohttp.ClientSession(
            connector=connector, timeout=limits, auto_decompress=False
        ) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                return await self._handle(session, request)

            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", self.port).start()
                started.set()
                await asyncio.Event().wait()
            finally:
                await runner.cleanup()

    def _count(self, request: web.Request) -> bool:
        """Count a write; whether it is the one to kill at."""
        if request.method not in _WRITES or "/leases/" in f"{request.path}/":
            return False
        self.writes += 1
        self.log.append(f"{request.method} {request.path}")
        return self.point is not None and self.writes == self.point.number

    def _strike(self, request: web.Request) -> None:
        self.kill()
        self.killed_at = f"{request.method} {request.path}"
        if request.transport is not None:
            request.transport.close()

    async def _handle(
        self, session: aiohttp.ClientSession, request: web.Request
    ) -> web.StreamResponse:
        struck = self._count(request)
        point = self.point
        if struck and point is not None and point.when == "before":
            self._strike(request)
            return web.Response(status=503)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _HOP}
        body = await request.read()
        url = self.server + str(request.rel_url)
        try:
            async with session.request(
                request.method, url, data=body or None, headers=headers
            ) as answer:
                if struck:
                    await answer.read()
                    self._strike(request)
                    return web.Response(status=503)
                return await _pass_on(request, answer)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return web.Response(status=503, text='{"message":"no answer"}')


async def _pass_on(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    sent = {name: answer.headers[name] for name in _SENT_BACK if name in answer.headers}
    if "Content-Encoding" in answer.headers:
        sent["Content-Encoding"] = answer.headers["Content-Encoding"]
    response = web.StreamResponse(status=answer.status, headers=sent)
    await response.prepare(request)
    async for piece in answer.content.iter_any():
        await response.write(piece)
    await response.write_eof()
    return response
