"""Every router of the bench, started from its files in tests/bench/peers."""

import http
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidegate_api import names
from tidegate_e2e.ptier.processes import Program, free_ports
from tidegate_e2e.routerbench import table
from tidegate_e2e.routerbench.load import PEERS, need
from tidegate_e2e.routerbench.machine import (
    LOAD_CORE,
    ROUTER_CORE,
    Bench,
    output_of,
    status_of,
    until,
    wait_ready,
)
from tidegate_e2e.routerbench.table import Feature, Worker

BODY = (
    b'{"text":"tidegate","text_input":"tidegate","inputs":[{"name":"IN","datatype":"FP32","shape":[1,4],'
    b'"data":[1.5,2.5,3.5,4.5]}]}'
)
ANSWER = (
    '{"model_name":"m","model_version":"1","outputs":[{"name":"OUT","datatype":"FP32",'
    '"shape":[1,4],"data":[3.0,5.0,7.0,9.0]}]}'
)
INFER, GENERATE = f"/v2/models/{table.MODEL}/infer", "/generate"
RUST = ("vllm-router", "sglang-router")


@dataclass(frozen=True, slots=True)
class Router:
    """A router that runs. `program` None: no router, the worker itself."""

    name: str
    port: int
    path: str
    program: Program | None
    grpc_port: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)


def cache() -> Path:
    """Return the folder of what is fetched once."""
    home = Path.home() / ".cache" / "tidegate"
    return Path(os.environ.get("TIDEGATE_CACHE", home))


def stub(bench: Bench, more_addresses: Sequence[str] = ()) -> tuple[Program, list[int]]:
    """Start two workers that answer at once; the first port also answers on `more_addresses`."""
    need("nginx")
    ports = free_ports(2)
    places = [*(f"127.0.0.1:{port}" for port in ports)]
    places += [f"{address}:{ports[0]}" for address in more_addresses]
    listen = "\n    ".join(f"listen {place} backlog=16384;" for place in places)
    file = _filled("nginx-stub.conf", bench.folder, listen=listen, answer=ANSWER)
    command = ["nginx", "-c", str(file), "-p", str(bench.folder)]
    program = bench.start("stub", command, LOAD_CORE)
    wait_ready(ports[0], program)
    return program, ports


def ours(
    bench: Bench,
    workers: Sequence[Worker],
    *,
    model: str = table.MODEL,
    turned_on: Feature = table.PLAIN,
) -> Router:
    """Start the router of this checkout."""
    port, grpc, spare = free_ports(3)
    routes = table.write(bench.folder / f"routes-{port}.json", workers, model, turned_on)
    command = [
        sys.executable, "-m", "tidegate_router",
        *_arguments("ours.args", port=port, grpc=grpc, spare=spare, routes=routes),
        *turned_on.arguments,
    ]  # fmt: skip
    program = bench.start("ours", command, ROUTER_CORE)
    wait_ready(port, program)
    return Router("ours", port, INFER, program, grpc)


def generate(router: Router) -> Router | None:
    """Return our router asked as the Rust ones are; None where it does not serve that path."""
    headers = {names.HEADER_MODEL: table.MODEL}
    if status_of(router.port, GENERATE, BODY, headers) != http.HTTPStatus.OK:
        return None
    return replace(router, name="ours /generate", path=GENERATE, headers=headers)


def nginx(bench: Bench, workers: Sequence[int]) -> Router:
    """Start nginx as a proxy."""
    need("nginx")
    (port,) = free_ports(1)
    servers = "\n    ".join(f"server 127.0.0.1:{worker};" for worker in workers)
    file = _filled("nginx.conf", bench.folder, port=port, servers=servers)
    command = ["nginx", "-c", str(file), "-p", str(bench.folder)]
    return _ready(bench.start("nginx", command, ROUTER_CORE), "nginx", port, INFER)


def haproxy(bench: Bench, workers: Sequence[int]) -> Router:
    """Start HAProxy."""
    need("haproxy")
    (port,) = free_ports(1)
    servers = "\n  ".join(f"server w{worker} 127.0.0.1:{worker}" for worker in workers)
    file = _filled("haproxy.cfg", bench.folder, port=port, servers=servers)
    command = ["haproxy", "-f", str(file)]
    return _ready(bench.start("haproxy", command, ROUTER_CORE), "haproxy", port, INFER)


def aiohttp_proxy(bench: Bench, workers: Sequence[int]) -> Router:
    """Start the aiohttp proxy."""
    (port,) = free_ports(1)
    command = [sys.executable, str(PEERS / "aiohttp_proxy.py"), "--port", str(port)]
    command += ["--worker-urls", *_urls(workers)]
    return _ready(bench.start("aiohttp", command, ROUTER_CORE), "aiohttp", port, INFER)


def rust(bench: Bench, name: str, workers: Sequence[int]) -> Router:
    """Start one of the Rust routers of PyPI."""
    port, spare = free_ports(2)
    home = _installed(name)
    module = "sglang_router.launch_router" if name == "sglang-router" else "vllm_router"
    start = (
        [str(home / "bin" / "vllm-router")]
        if name == "vllm-router"
        else [str(home / "bin" / "python"), "-m", module]
    )
    urls = "\n".join(_urls(workers))
    command = [*start, *_arguments(f"{name}.args", port=port, spare=spare, urls=urls)]
    program = bench.start(name, command, ROUTER_CORE)
    return _ready(program, name, port, GENERATE)


def versions() -> dict[str, str]:
    """Return what runs, as the programs and files say it."""
    need("nginx", "haproxy", "wrk")
    pinned = {name: (PEERS / "requirements" / f"{name}.txt").read_text().strip() for name in RUST}
    return {
        "nginx": output_of(["nginx", "-v"]).rpartition("/")[2],
        "haproxy": output_of(["haproxy", "-v"]).split()[2],
        "wrk": subprocess.run(
            ["wrk", "-v"], check=False, text=True, capture_output=True
        ).stdout.split()[1],
        "python": sys.version.split()[0],
        "kernel": os.uname().release,
        **{name: text.rpartition("==")[2] for name, text in pinned.items()},
    }


def _ready(program: Program, name: str, port: int, path: str) -> Router:
    until(
        lambda: status_of(port, path, BODY) == http.HTTPStatus.OK, f"{name} does not route", program
    )
    return Router(name, port, path, program)


def _urls(workers: Sequence[int]) -> list[str]:
    return [f"http://127.0.0.1:{worker}" for worker in workers]


def _installed(name: str) -> Path:
    """Return the virtual environment of a peer, made on first use."""
    home = cache() / "peers" / name
    pinned = PEERS / "requirements" / f"{name}.txt"
    stamp = home / pinned.read_text().strip()
    if not stamp.exists():
        print(f"bench: installing {stamp.name} into {home} (a minute)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "-r", str(pinned)]
        subprocess.run(pip, check=True)
        stamp.touch()
    return home


def _arguments(name: str, **values: object) -> list[str]:
    """Return a command line from its file: blanks separate, so values have none."""
    text = (PEERS / name).read_text()
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text.split()


def _filled(name: str, folder: Path, **values: object) -> Path:
    """Write a configuration with its places filled in; return the file."""
    text = (PEERS / name).read_text()
    for key, value in {"folder": folder, **values}.items():
        text = text.replace("{" + key + "}", str(value))
    file = folder / f"{values.get('port', 'stub')}-{name}"
    file.write_text(text)
    return file
