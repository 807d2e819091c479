"""What good clients notice of hostile ones: slow heads, slow bodies, slow readers, half-open.

A router process, a worker process, a process of hostile clients, and good clients in this one.
Rounds alternate: alone, hostile, alone. Writes .bench/hostile.json; the last line is key=value.
Target: p99 of good requests <= 2x of alone, none lost, each bad connection cut by its deadline.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = os.pathsep.join(str(ROOT / name) for name in ("crds", "router"))
HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"
ASK = HEAD + b"Content-Length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
LARGE_BYTES = 4 * 1024 * 1024
DRIP_S = 0.25


class Worker(asyncio.Protocol):
    """Answers each request that fits one segment at once; a large answer if it says so."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        size = LARGE_BYTES if b"x-large" in data else 2
        self.transport.write(OK % size + b"x" * size)


async def work(port):
    server = await asyncio.get_running_loop().create_server(Worker, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


async def abuse(port, slow, half_open):
    """Keep up so many bad connections for ever; print how each of those that ended did."""
    kinds = {
        "slow_head": (HEAD, b"a"),
        "slow_body": (HEAD + b"Content-Length: 99999\r\n\r\n", b"x"),
        "half_open": (b"POST /v2/mod", b""),
        "no_byte": (b"", b""),
    }
    async with asyncio.TaskGroup() as group:
        for kind, count in (("slow_head", slow), ("slow_body", slow), ("half_open", half_open)):
            for _ in range(count):
                group.create_task(bad(port, kind, *kinds[kind]))
        for _ in range(slow):
            group.create_task(unread(port))


async def bad(port, kind, begun, drop):
    while True:
        began_s = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        reading = asyncio.create_task(reader.read())
        while not reading.done():
            await asyncio.wait([reading], timeout=DRIP_S if drop else None)
            writer.write(drop)
        try:
            said = reading.result()[9:12].decode()
        except ConnectionError:
            said = "reset"
        writer.transport.abort()
        print(kind, said or "cut", round(time.monotonic() - began_s, 2), flush=True)


async def unread(port):
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(HEAD + b"x-large: 1\r\nContent-Length: 2\r\n\r\n{}")
    await asyncio.Event().wait()


async def good(port, clients, seconds):
    """Return the latencies in ms of a closed loop, and how many requests were lost."""
    until_s, latencies, lost = time.monotonic() + seconds, [], 0

    async def one():
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < until_s:
            began_s = time.monotonic()
            writer.write(ASK)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError, ValueError):
                lost += 1
                return
            if not head.startswith(b"HTTP/1.1 200"):
                lost += 1
                print("lost:", head.decode(errors="replace").splitlines(), flush=True)
            latencies.append((time.monotonic() - began_s) * 1000)
            await asyncio.sleep(0.002)
        writer.close()

    await asyncio.gather(*(one() for _ in range(clients)))
    return sorted(latencies), lost


def figures(latencies):
    return {
        "requests": len(latencies),
        "p50_ms": round(latencies[len(latencies) // 2], 3),
        "p99_ms": round(latencies[int(len(latencies) * 0.99)], 3),
    }


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def table(port):
    served = {"revision": "r1", "model": "m", "limit": 1000}
    worker = {
        "id": "w", "name": "w", "address": "127.0.0.1", "ports": {"http": port}, "revision": "r1",
        "serves": [served],
    }  # fmt: skip
    return [{
        "pool": {"namespace": "ml", "name": "p", "uid": "u"}, "sequence": 1, "workers": [worker],
        "weights": [{"revision": "r1", "weight": 100}],
    }]  # fmt: skip


async def own(*arguments, **environment):
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        env={**os.environ, "PYTHONPATH": FOLDERS, **environment},
    )  # fmt: skip


async def until_open(port):
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def rss_mib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


async def measure(given, folder):
    worker_port, port = free_port(), free_port()
    routes = Path(folder) / "routes.json"
    routes.write_text(json.dumps(table(worker_port)))
    running = [await own(__file__, "--role", "work", "--port", str(worker_port))]
    router = await own(
        "-m", "tidegate_router", "--host", "127.0.0.1", "--http-port", str(port), "--grpc-port",
        "-1", "--admin-port", str(free_port()), "--routes-file", str(routes),
    )  # fmt: skip
    running.append(router)
    rounds, ends = {"alone": [], "hostile": []}, []
    lost = {"alone": 0, "hostile": 0}
    try:
        for each in (worker_port, port):
            await until_open(each)
        await good(port, given.clients, 2)
        for number in range(2 * given.rounds + 1):
            kind = "hostile" if number % 2 else "alone"
            bad_ones = None
            if number % 2:
                bad_ones = await own(
                    __file__, "--role", "abuse", "--port", str(port), "--slow", str(given.slow),
                    "--half-open", str(given.half_open),
                )  # fmt: skip
                await asyncio.sleep(given.settle)  # until all are connected
            latencies, failed = await good(port, given.clients, given.seconds)
            lost[kind] += failed
            rounds[kind].append({**figures(latencies), "router_rss_mib": round(rss_mib(router))})
            print(kind, rounds[kind][-1], "lost", failed, flush=True)
            if bad_ones is not None:
                bad_ones.kill()
                ends += (await bad_ones.communicate())[0].decode().splitlines()
                await asyncio.sleep(2)
    finally:
        for one in running:
            one.kill()
            await one.communicate()
    return rounds, lost, ends


def report(given, rounds, lost, ends):
    p99 = {kind: statistics.median(one["p99_ms"] for one in rounds[kind]) for kind in rounds}
    cut = {}
    for line in ends:
        kind, said, seconds = line.split()
        known = cut.setdefault(f"{kind}:{said}", {"count": 0, "last_s": 0.0})
        known["count"] += 1
        known["last_s"] = max(known["last_s"], float(seconds))
    result = {
        "rounds": rounds, "lost": lost, "bad_ends": cut,
        "bad": {"slow_heads": given.slow, "slow_bodies": given.slow, "slow_readers": given.slow,
                "half_open": given.half_open},
        "p99_ratio": round(p99["hostile"] / p99["alone"], 2),
    }  # fmt: skip
    (ROOT / ".bench").mkdir(exist_ok=True)
    (ROOT / ".bench" / "hostile.json").write_text(json.dumps(result, indent=2))
    print("bad connections ended:", cut)
    print(
        f"p99_alone_ms={p99['alone']} p99_hostile_ms={p99['hostile']} "
        f"p99_ratio={result['p99_ratio']} lost_alone={lost['alone']} lost_hostile={lost['hostile']}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=("work", "abuse"))
    parser.add_argument("--port", type=int)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--settle", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow", type=int, default=100)
    parser.add_argument("--half-open", type=int, default=1000)
    given = parser.parse_args()
    if given.role == "work":
        asyncio.run(work(given.port))
    elif given.role == "abuse":
        asyncio.run(abuse(given.port, given.slow, given.half_open))
    else:
        with tempfile.TemporaryDirectory() as folder:
            report(given, *asyncio.run(measure(given, folder)))


if __name__ == "__main__":
    main()
