"""A proxy as one would write it: aiohttp on both sides, round robin, on uvloop."""

import argparse
import itertools

import aiohttp
import uvloop
from aiohttp import web

_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


async def make(urls: list[str]) -> web.Application:
    """Return the proxy over these workers."""
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
    workers = itertools.cycle(urls)

    async def handle(request: web.Request) -> web.Response:
        url = f"{next(workers)}{request.raw_path}"
        headers = {
            name: value for name, value in request.headers.items() if name.lower() not in _HOP
        }
        body = await request.read()
        async with session.request(request.method, url, headers=headers, data=body) as answer:
            kept = {n: v for n, v in answer.headers.items() if n.lower() not in _HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application(client_max_size=0)
    app.router.add_route("*", "/{path:.*}", handle)
    app.on_cleanup.append(lambda _app: session.close())
    return app


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--worker-urls", nargs="+", required=True)
    found = parser.parse_args()
    web.run_app(
        make(found.worker_urls),
        host="127.0.0.1",
        port=found.port,
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
