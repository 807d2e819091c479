"""How fast the gRPC relay is, beside nginx, HAProxy, a grpc.aio proxy and no proxy at all.

One worker that answers each message with itself (peers/grpc_echo, Go), one router of each kind,
pinned to the second core; load generator and worker share the first. h2load drives requests whose
header blocks are all the same; `differ` rows come from grpc_echo's own generator, whose requests
have an id each. Rounds are interleaved; figures are medians with the range over the rounds. CPU is
the router process's own, from /proc. Writes .bench/router_grpc.json; the last line repeats it.

Needs h2load (nghttp2-client), nginx, haproxy and go. `--quick`: 1 round of 2 s.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection, socket

from tidegate_api.pool import RevisionWeight
from tidegate_api.routetable import PoolIdentity, Ports, RoutedWorker, RouteTableSpec, Served

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
PATH = "/inference.GRPCInferenceService/ModelInfer"
MESSAGE = (
    b"\x0a\x05bench\x1a\x011\x2a\x0d\x0a\x01X\x12\x05BYTES\x1a\x01\x01\x3a\x05\x01\x00\x00\x00x"
)
SHAPES = ((1, 32), (8, 4), (1, 1))  # connections, streams on each
ROUTER_CORE, LOAD_CORE = "1", "0"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Target:
    """One thing that is measured; `pid` of its process, 0 for none."""

    name: str
    port: int
    pid: int


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(core: str, port: int, *command: str) -> Iterator[int]:
    """Run a server until the end; yields its process id once it listens."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["taskset", "-c", core, *command], stdout=said, stderr=said, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/crds:{ROOT}/router"},
        )  # fmt: skip
        try:
            _until_listening(process, port, said)
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)


def _until_listening(process: "subprocess.Popen[bytes]", port: int, said) -> None:
    for _ in range(300):
        try:
            create_connection(("127.0.0.1", port), 0.1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
        if process.poll() is not None:
            break
    said.seek(0)
    sys.exit(f"{process.args} does not listen on {port}: {said.read().decode()}")


def route_table(backend: int) -> str:
    """Return a routes file with one pool on the worker."""
    served = Served(revision="r1", model="bench", limit=128)
    worker = RoutedWorker(
        id="w1", name="w1", address="127.0.0.1", ports=Ports(grpc=backend), revision="r1",
        serves=[served],
    )  # fmt: skip
    table = RouteTableSpec(
        pool=PoolIdentity(namespace="bench", name="p", uid="p", created_at="2026-01-01T00:00:00Z"),
        sequence=1,
        workers=[worker],
        weights=[RevisionWeight(revision="r1", weight=100)],
    )
    return json.dumps([table.model_dump(by_alias=True, mode="json")])


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / TICKS_PER_S


def core_busy_s(core: str) -> float:
    """Return the busy time of a core since boot."""
    [line] = [
        one for one in Path("/proc/stat").read_text().splitlines() if one.startswith(f"cpu{core} ")
    ]
    numbers = [int(one) for one in line.split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICKS_PER_S


def start_all(stack: ExitStack, place: Path, echo: Path) -> list[Target]:
    """Start the worker and every router."""
    backend = free_port()
    stack.enter_context(running(LOAD_CORE, backend, str(echo), "serve", f"127.0.0.1:{backend}"))
    (place / "routes.json").write_text(route_table(backend))
    ports = {name: free_port() for name in ("tidegate", "nginx", "haproxy", "grpc_aio")}
    for name in ("nginx.conf", "haproxy.cfg"):
        text = (PEERS / f"grpc_{name}").read_text().replace("BACKEND", str(backend))
        port = ports[name.partition(".")[0]]
        (place / name).write_text(text.replace("PREFIX", str(place)).replace("PORT", str(port)))
    commands = {
        "tidegate": [
            sys.executable, "-m", "tidegate_router", "--host", "127.0.0.1",
            "--http-port", str(free_port()), "--admin-port", str(free_port()),
            "--grpc-port", str(ports["tidegate"]), "--drain-seconds", "0",
            "--log-level", "warning", "--routes-file", str(place / "routes.json"),
        ],
        "nginx": ["nginx", "-p", str(place), "-c", str(place / "nginx.conf")],
        "haproxy": ["haproxy", "-db", "-f", str(place / "haproxy.cfg")],
        "grpc_aio": [
            sys.executable, str(PEERS / "grpc_aio_proxy.py"), str(ports["grpc_aio"]), str(backend),
        ],
    }  # fmt: skip
    found = [Target("direct", backend, 0)]
    for name, command in commands.items():
        pid = stack.enter_context(running(ROUTER_CORE, ports[name], *command))
        found.append(Target(name, ports[name], pid))
    return found


def h2load(place: Path, target: Target, shape: tuple[int, int], seconds: int) -> dict[str, float]:
    """Drive requests with equal header blocks; return requests, failures and times."""
    log = place / "times.tsv"
    log.unlink(missing_ok=True)
    done = subprocess.run(
        [
            "taskset", "-c", LOAD_CORE, "h2load", "-t1", f"-c{shape[0]}", f"-m{shape[1]}",
            f"-D{seconds}", "-d", str(place / "message"), "--log-file", str(log),
            "-H", "content-type: application/grpc", "-H", "te: trailers",
            f"http://127.0.0.1:{target.port}{PATH}",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(row[2]) for row in rows)
    failed = sum(row[1] != "200" for row in rows)
    if found := re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", done.stdout):
        failed = max(failed, sum(map(int, found.groups())))
    return {
        "requests": len(times), "failed": failed, "per_s": len(times) / seconds,
        "p50_us": float(times[len(times) // 2]), "p99_us": float(times[len(times) * 99 // 100]),
    }  # fmt: skip


def differing(echo: Path, target: Target, shape: tuple[int, int], seconds: int) -> dict[str, float]:
    """Drive requests with a header block each."""
    done = subprocess.run(
        [
            "taskset", "-c", LOAD_CORE, str(echo), "load", f"127.0.0.1:{target.port}",
            str(shape[0]), str(shape[1]), str(seconds),
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def measure(
    place: Path, echo: Path, target: Target, shape: tuple[int, int], kind: str, seconds: int
) -> dict[str, float]:
    """Measure one target once."""
    began_s, busy_s = time.monotonic(), core_busy_s(LOAD_CORE)
    used_s = cpu_s(target.pid) if target.pid else 0.0
    if kind == "same":
        found = h2load(place, target, shape, seconds)
    else:
        found = differing(echo, target, shape, seconds)
    took_s = time.monotonic() - began_s
    if target.pid:
        found["cpu_us"] = (cpu_s(target.pid) - used_s) / max(1, found["requests"]) * 1e6
    found["load_core_ratio"] = (core_busy_s(LOAD_CORE) - busy_s) / took_s
    return found


def summary(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return medians with ranges, by row."""
    made = {}
    for name, found in rows.items():
        made[name] = {}
        for key in found[0]:
            values = [one[key] for one in found]
            made[name][key] = round(statistics.median(values), 2)
            made[name][f"{key}_min"], made[name][f"{key}_max"] = (
                round(min(values), 2),
                round(max(values), 2),
            )
    return made


def ratios(rows: dict[str, list[dict[str, float]]], other: str, kind: str) -> list[float]:
    """Return our throughput over another's, per round and shape with more than one stream."""
    found = []
    for shape in SHAPES[:2]:
        label = f"{shape[0]}x{shape[1]}/{kind}"
        pairs = zip(rows[f"tidegate/{label}"], rows[f"{other}/{label}"], strict=True)
        found += [mine["per_s"] / theirs["per_s"] for mine, theirs in pairs]
    return found


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="comma-separated targets")
    options = parser.parse_args()
    rounds, seconds = (1, 2) if options.quick else (options.rounds, options.seconds)
    missing = [one for one in ("h2load", "nginx", "haproxy", "go") if not shutil.which(one)]
    if missing:
        sys.exit(f"missing: {', '.join(missing)} (Debian: nghttp2-client nginx haproxy golang)")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        echo = place / "grpc_echo"
        subprocess.run(["go", "build", "-o", str(echo), "."], cwd=PEERS / "grpc_echo", check=True)
        prefix = b"\0" + len(MESSAGE).to_bytes(4, "big")
        (place / "message").write_bytes(prefix + MESSAGE)
        rows: dict[str, list[dict[str, float]]] = {}
        targets = start_all(stack, place, echo)
        wanted = set(filter(None, options.only.split(","))) or {one.name for one in targets}
        for number in range(rounds):
            for shape in SHAPES:
                for kind in ("same", "differ"):
                    for target in targets:
                        if target.name in wanted:
                            found = measure(place, echo, target, shape, kind, seconds)
                            name = f"{target.name}/{shape[0]}x{shape[1]}/{kind}"
                            rows.setdefault(name, []).append(found)
                            print(f"round {number + 1} {name}: {_line(found)}", flush=True)
    write(rows, wanted)


def _line(found: dict[str, float]) -> str:
    marked = "  load-bound" if found["load_core_ratio"] > 0.9 else ""
    return " ".join(f"{key}={value:.2f}" for key, value in found.items()) + marked


def write(rows: dict[str, list[dict[str, float]]], wanted: set[str]) -> None:
    """Write the figures and print the last line."""
    figures: dict[str, float] = {}
    for other in ("grpc_aio", "nginx", "haproxy", "direct"):
        for kind in ("same", "differ"):
            if {"tidegate", other} <= wanted:
                found = ratios(rows, other, kind)
                name = f"grpc_ratio_to_{other}" + ("" if kind == "same" else "_differ")
                figures[name] = round(statistics.median(found), 3)
                figures[f"{name}_min"], figures[f"{name}_max"] = (
                    round(min(found), 3),
                    round(max(found), 3),
                )
    place = ROOT / ".bench"
    place.mkdir(exist_ok=True)
    document = {"figures": figures, "rows": summary(rows)}
    (place / "router_grpc.json").write_text(json.dumps(document, indent=1) + "\n")
    print(" ".join(f"{key}={value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
