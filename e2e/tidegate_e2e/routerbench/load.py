"""Two load generators: wrk where a Python client would be the bound, ours for everything else."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_e2e.ptier.processes import Program
from tidegate_e2e.routerbench.machine import LOAD_CORE, cpu_s

PEERS = Path(__file__).parents[3] / "tests" / "bench" / "peers"
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_COUNT = re.compile(r"(\d+) requests in")
_FAILED = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_BROKEN = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_QUANTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_WARMUP_S = 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where load goes: a port of 127.0.0.1, a path, the file with the body, and more headers.

    `vary`: wrk sends a request id as well, another each time.
    """

    port: int
    path: str
    body: Path
    headers: Mapping[str, str] = field(default_factory=dict)
    vary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One measurement. CPU in microseconds for each request; uses are ratios of one core."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    router_cpu_us: float | None
    router_use: float | None
    load_use: float


def wrk(
    target: Target, connections: int, seconds: int, stub: Program, router: Program | None
) -> Measured:
    """Send with wrk from the load core; `router` None: directly at the workers."""
    _wrk(target, connections, _WARMUP_S)
    before = _cpu_s(stub), _cpu_s(router), time.monotonic(), _children_s()
    text = _wrk(target, connections, seconds)
    wall_s = time.monotonic() - before[2]
    stub_s, router_s = _cpu_s(stub) - before[0], _cpu_s(router) - before[1]
    load_s = stub_s + _children_s() - before[3]
    return _read(text, router_s if router else None, load_s, wall_s)


def _read(text: str, router_s: float | None, load_s: float, wall_s: float) -> Measured:
    rate, count = _RATE.search(text), _COUNT.search(text)
    if rate is None or count is None:
        raise RuntimeError(f"wrk said no figures: {text}")
    requests = int(count[1])
    latency_ms = {name: float(value) * _MS[unit] for name, value, unit in _QUANTILE.findall(text)}
    failed = sum(map(int, _FAILED.findall(text)))
    failed += sum(int(count) for found in _BROKEN.findall(text) for count in found)
    return Measured(
        rate=float(rate[1]),
        p50_ms=latency_ms["50"],
        p99_ms=latency_ms["99"],
        failed=failed,
        router_cpu_us=None if router_s is None else router_s / max(requests, 1) * 1e6,
        router_use=None if router_s is None else router_s / wall_s,
        load_use=load_s / wall_s,
    )


def wrk_at_once(targets: Sequence[Target], connections: int, seconds: int) -> float:
    """Send to several targets at the same time; return the sum of their rates."""
    for target in targets:
        _wrk(target, connections, _WARMUP_S)
    running = [_started(target, connections, seconds) for target in targets]
    texts = [process.communicate()[0] for process in running]
    return sum(_read(text, None, 0.0, 1.0).rate for text in texts)


def _wrk(target: Target, connections: int, seconds: int) -> str:
    process = _started(target, connections, seconds)
    text, _ = process.communicate()
    return text


def _started(target: Target, connections: int, seconds: int) -> subprocess.Popen[str]:
    url = f"http://127.0.0.1:{target.port}{target.path}"
    command = [
        "taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s",
        "--latency", "-s", str(PEERS / "post.lua"), url,
    ]  # fmt: skip
    headers = "\n".join(f"{name}: {value}" for name, value in target.headers.items())
    own = {"TIDEGATE_BENCH_BODY": str(target.body), "TIDEGATE_BENCH_HEADERS": headers}
    own |= {"TIDEGATE_BENCH_VARY": "1"} if target.vary else {}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | own)


def _cpu_s(program: Program | None) -> float:
    return 0.0 if program is None else cpu_s(program.pid)


def _children_s() -> float:
    """CPU of ended children: wrk's, as everything else that a bench starts lives on."""
    times = os.times()
    return times.children_user + times.children_system


@dataclass(slots=True)
class Running:
    """A `tidegate loadtest` that runs; `result` waits for its JSON."""

    process: subprocess.Popen[str]
    file: Path

    def result(self) -> dict[str, object]:
        """Return what it measured."""
        output, _ = self.process.communicate()
        if not self.file.exists():
            raise RuntimeError(f"tidegate loadtest failed: {output}")
        found: dict[str, object] = json.loads(self.file.read_text())
        return found


def loadtest(folder: Path, name: str, options: Sequence[str], core: int = LOAD_CORE) -> Running:
    """Start `tidegate loadtest` on the load core."""
    file = folder / f"load-{name}.json"
    file.unlink(missing_ok=True)
    command = [
        "taskset", "-c", str(core), sys.executable, "-m", "tidegate_cli", "loadtest",
        *options, "--json", str(file),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return Running(process, file)


def http_options(target: Target) -> list[str]:
    """Return loadtest's options for a target."""
    return ["--url", f"127.0.0.1:{target.port}", "--path", target.path, "--body", str(target.body)]


def number(document: dict[str, object], *path: str) -> float:
    """Return a figure of loadtest's JSON; RuntimeError where it has none: no such answer came."""
    value: object = document
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, int | float):
        return float(value)
    raise RuntimeError(f"loadtest measured no {'.'.join(path)}: {document.get('outcomes')}")


def need(*programs: str) -> None:
    """Say which Debian packages are missing."""
    packages = {
        "wrk": "wrk",
        "nginx": "nginx-light",
        "haproxy": "haproxy",
        "h2load": "nghttp2-client",
    }
    missing = [packages.get(name, name) for name in programs if shutil.which(name) is None]
    if missing:
        raise RuntimeError(f"missing programs: apt-get install {' '.join(sorted(set(missing)))}")
