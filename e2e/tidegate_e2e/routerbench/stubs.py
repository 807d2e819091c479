"""Workers with service times and slots: the Go stub, built once into the cache folder."""

import hashlib
import subprocess
from pathlib import Path

from tidegate_e2e.ptier.processes import Program, free_ports
from tidegate_e2e.routerbench.load import PEERS, need
from tidegate_e2e.routerbench.machine import LOAD_CORE, Bench, wait_ready
from tidegate_e2e.routerbench.peers import ANSWER, cache


def binary() -> Path:
    """Return the stub's program, built when its source is new."""
    need("go")
    source = PEERS / "stub"
    digest = hashlib.sha256((source / "main.go").read_bytes()).hexdigest()[:12]
    built = cache() / "peers" / f"stub-{digest}"
    if not built.exists():
        built.parent.mkdir(parents=True, exist_ok=True)
        print("bench: building the stub workers", flush=True)
        command = ["go", "build", "-trimpath", "-o", str(built), "."]
        subprocess.run(command, cwd=source, check=True)
    return built


def workers(
    bench: Bench, count: int, *, service_ms: float, slots: int, slow: float = 1.0
) -> tuple[Program, list[int]]:
    """Start workers with exponential service times; the first is `slow` times slower."""
    ports = free_ports(count)
    command = [
        str(binary()), "-ports", ",".join(map(str, ports)), "-service", f"{service_ms}ms",
        "-slots", str(slots), "-slow", str(slow), "-exponential", "-answer", ANSWER,
    ]  # fmt: skip
    program = bench.start("stubs", command, LOAD_CORE)
    wait_ready(ports[-1], program)
    return program, ports
