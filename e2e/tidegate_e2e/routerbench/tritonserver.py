"""A real tritonserver as a process on loopback: the PyPI wheel's, as in the worker image."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tidegate_e2e.ptier.processes import Program, free_ports
from tidegate_e2e.routerbench.load import PEERS
from tidegate_e2e.routerbench.machine import LOAD_CORE, Bench, wait_ready
from tidegate_e2e.routerbench.peers import cache

_WHEEL = "nvidia-pytriton==0.7.0"
_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Triton:
    """A server that is ready."""

    http: int
    grpc: int
    program: Program


def start(bench: Bench) -> Triton:
    """Start it with the models of tests/bench/peers/triton, on the load core."""
    home = _unpacked()
    server = home / "pytriton" / "tritonserver"
    backends = bench.folder / "backends"  # Triton changes modes in there
    shutil.copytree(server / "backends" / "python", backends / "python")
    stubs = server / "python_backend_stubs" / _VERSION
    shutil.copy(stubs / "triton_python_backend_stub", backends / "python")
    models = bench.folder / "models"
    shutil.copytree(PEERS / "triton", models)
    http, grpc, metrics = free_ports(3)
    command = [
        str(server / "bin" / "tritonserver"), f"--model-repository={models}",
        f"--backend-directory={backends}", "--http-address=127.0.0.1", f"--http-port={http}",
        "--grpc-address=127.0.0.1", f"--grpc-port={grpc}", f"--metrics-port={metrics}",
        f"--backend-config=python,shm-region-prefix-name=tidegate-bench-{os.getpid()}-",
    ]  # fmt: skip
    environment = {
        "LD_LIBRARY_PATH": f"{home / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        # The backend's stub finds numpy through the first python3 on PATH.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    program = bench.start("triton", command, LOAD_CORE, environment)
    wait_ready(http, program, "/v2/health/ready")
    return Triton(http, grpc, program)


def _unpacked() -> Path:
    home = cache() / "triton-0.7.0"
    binary = home / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if not binary.exists():
        print(f"bench: fetching {_WHEEL} into {home}", flush=True)
        fresh = cache() / f"triton-0.7.0.{os.getpid()}"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(fresh)]
        subprocess.run([*pip, _WHEEL], check=True)
        (wheel,) = fresh.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        wheel.unlink()
        fresh.rename(home)
    binary.chmod(0o755)
    stub = home / "pytriton/tritonserver/python_backend_stubs" / _VERSION
    (stub / "triton_python_backend_stub").chmod(0o755)
    return home
