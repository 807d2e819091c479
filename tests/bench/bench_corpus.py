"""The corpus of malformed requests through this router, nginx and HAProxy: what a worker sees.

Each entry says how many requests a worker should see, 0 or 1. The worker is an aiohttp server.
Writes docs/reference/http-corpus.md and .bench/corpus.json; the last line is key=value.
nginx and HAProxy are Debian's: `apt-get install nginx-light haproxy`, or give their paths.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from aiohttp import web

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "crds"), str(ROOT / "router")]

from tidegate_api.pool import RevisionWeight  # noqa: E402  # the path comes first
from tidegate_api.routetable import (  # noqa: E402
    PoolIdentity,
    Ports,
    RoutedWorker,
    RouteTableSpec,
    RoutingPolicy,
    Served,
)
from tidegate_router.adapters.routes import Routes  # noqa: E402
from tidegate_router.adapters.upstream import Upstream  # noqa: E402
from tidegate_router.core.dispatch import Dispatcher  # noqa: E402
from tidegate_router.http1 import lane as http1  # noqa: E402
from tidegate_router.http_lane import HttpLane  # noqa: E402
from tidegate_router.telemetry import Telemetry  # noqa: E402

CORPUS = ROOT / "tests/shell/router/corpus/requests.jsonl"
TABLE = ROOT / "docs/reference/http-corpus.md"
QUIET_S = 0.25
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 1m;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream worker {{ server 127.0.0.1:{worker}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location /v2/models/ {{
      proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
    location / {{ return 404; }}
  }}
}}
"""
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 10s
  timeout server 10s
frontend public
  bind 127.0.0.1:{port}
  http-request deny status 404 unless {{ path_beg /v2/models/ }}
  default_backend workers
backend workers
  server w1 127.0.0.1:{worker}
"""


INTRODUCTION = """
# Malformed requests: what a worker sees

`tests/shell/router/corpus`: {count} requests that are malformed, ambiguous or only look so; each
says how many requests a worker should see. Measured by `tests/bench/bench_corpus.py` with an
aiohttp server as worker; nginx and HAProxy are Debian's with their usual proxy settings. Their
authors chose leniency in places where this router refuses: a difference is no verdict by itself.

| Router | as meant | none meant, one seen | two or more seen | one meant, none seen |
|---|---|---|---|---|
"""


class Worker:
    """Counts requests as aiohttp reads them."""

    def __init__(self) -> None:
        self.seen = 0
        self.port = 0

    async def start(self, stack):
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]

    async def _handle(self, request):
        self.seen += 1
        return web.Response(body=await request.read())


def free_port():
    import socket  # noqa: PLC0415  # used by this only

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def tidegate(stack, worker):
    """Start this router in this process."""
    dispatcher = Dispatcher("bench/1", random.Random(7).random)
    served = Served(revision="r1", model="m", limit=64)
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="ml", name="vision", uid="u1", created_at=""),
        sequence=1,
        weights=[RevisionWeight(revision="r1", weight=100)],
        policy=RoutingPolicy(),
        workers=[
            RoutedWorker(
                id="w1", name="w1", address="127.0.0.1", ports=Ports(http=worker.port),
                revision="r1", accelerator="cpu", score=0.9, serves=[served],
            )
        ],
    )  # fmt: skip
    routes, upstream = Routes(dispatcher), Upstream()
    stack.push_async_callback(upstream.close)
    routes.restore([table])
    lane = HttpLane(dispatcher, routes, upstream, Telemetry(), 1024 * 1024)
    return await http1.listen(stack, http1.FastLane(lane, 1.0), "127.0.0.1", 0)


def configured(folder, text):
    """Write a configuration that a program of another user can read."""
    config = Path(folder) / "config"
    config.write_text(text)
    config.chmod(0o644)
    Path(folder).chmod(0o777)
    return config


async def peer(stack, name, program, template, worker):
    """Start nginx or HAProxy as a process."""
    folder, port = stack.enter_context(tempfile.TemporaryDirectory()), free_port()
    config = configured(folder, template.format(folder=folder, port=port, worker=worker.port))
    arguments = ["-c", str(config), "-p", str(folder)] if name == "nginx" else ["-f", str(config)]
    process = await asyncio.create_subprocess_exec(program, *arguments)
    stack.push_async_callback(process.wait)
    stack.callback(process.terminate)
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return port
    raise RuntimeError(f"{name} did not start")


async def send(port, raw):
    """Send an entry and read until the other side ends or is quiet."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    try:
        writer.write(raw)
        while piece := await asyncio.wait_for(reader.read(65536), QUIET_S):
            got += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return got[9:12].decode("latin-1")


async def measure(name, start):
    """Return (status, requests that the worker saw) by entry."""
    found = {}
    async with AsyncExitStack() as stack:
        worker = Worker()
        await worker.start(stack)
        port = await start(stack, worker)
        for number, line in enumerate(CORPUS.read_text().splitlines()):
            entry, worker.seen = json.loads(line), 0
            status = await send(port, entry["raw"].encode("latin-1"))
            await asyncio.sleep(0.02)
            found[entry["name"]] = (status, worker.seen)
            if number % 100 == 0:
                print(f"{name}: {number}", flush=True)
    return found


def table(results):
    """Return the page."""
    entries = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    lines = [INTRODUCTION.format(count=len(entries)).strip()]
    for name, found in results.items():
        pairs = [(entry["worker"], found[entry["name"]][1]) for entry in entries]
        right = sum(meant == seen for meant, seen in pairs)
        leaked = sum(meant == 0 and seen == 1 for meant, seen in pairs)
        many = sum(seen > 1 for _, seen in pairs)
        lost = sum(meant == 1 and seen == 0 for meant, seen in pairs)
        lines.append(f"| {name} | {right} | {leaked} | {many} | {lost} |")
    lines += ["", "Where they differ (answer, requests that the worker saw):", ""]
    lines += [f"| Request | meant | {' | '.join(results)} |", "|---|---|" + "---|" * len(results)]
    for entry in entries:
        seen = [found[entry["name"]] for found in results.values()]
        if any(count != entry["worker"] for _, count in seen):
            cells = " | ".join(f"{status or 'none'}, {count}" for status, count in seen)
            lines.append(f"| {entry['name']} | {entry['worker']} | {cells} |")
    return "\n".join(lines) + "\n"


async def main():
    """Run all that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nginx", default=shutil.which("nginx") or "")
    parser.add_argument("--haproxy", default=shutil.which("haproxy") or "")
    given = parser.parse_args()
    starts = {"tidegate": tidegate}
    for name, program, template in (
        ("nginx", given.nginx, NGINX), ("haproxy", given.haproxy, HAPROXY),
    ):  # fmt: skip
        if program:
            starts[name] = lambda stack, worker, name=name, program=program, template=template: (
                peer(stack, name, program, template, worker)
            )
        else:
            print(f"{name} is missing: apt-get install {name}")
    results = dict(
        zip(starts, await asyncio.gather(*(measure(*one) for one in starts.items())), strict=True)
    )
    TABLE.write_text(table(results))
    folder = ROOT / ".bench"
    folder.mkdir(exist_ok=True)
    (folder / "corpus.json").write_text(json.dumps(results, indent=1))
    entries = [json.loads(line) for line in CORPUS.read_text().splitlines()]
    print(" ".join(
        f"{name}_as_meant={sum(found[e['name']][1] == e['worker'] for e in entries)}"
        for name, found in results.items()
    ), f"entries={len(entries)}")  # fmt: skip


asyncio.run(main())
