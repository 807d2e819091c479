"""How programs on this machine reach a Service of the cluster, and how they wait."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from tidegate_e2e.cluster import Cluster

T = TypeVar("T")
HTTP, GRPC, ADMIN = 8000, 8001, 9090


@dataclass(frozen=True)
class Endpoints:
    """Where the router listens, as seen from here."""

    host: str
    http_port: int
    grpc_port: int

    @property
    def http(self) -> str:
        """Return host:port of OIP over HTTP."""
        return f"{self.host}:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Return host:port of OIP over gRPC."""
        return f"{self.host}:{self.grpc_port}"


def until(probe: Callable[[], T | None], *, timeout_s: float = 60, what: str = "") -> T:
    """Return the first true answer of `probe`; TimeoutError after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:.0f} s: {what or probe}")
        time.sleep(0.2)


@contextmanager
def reach(cluster: Cluster, namespace: str, service: str) -> Iterator[Endpoints]:
    """Yield the Service's endpoints: its cluster address locally, a port-forward elsewhere."""
    if cluster.kind == "local":
        yield Endpoints(_cluster_ip(cluster, namespace, service), HTTP, GRPC)
        return
    ports = (_free_port(), _free_port())
    command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}"]
    command += [f"{ports[0]}:{HTTP}", f"{ports[1]}:{GRPC}"]
    process = subprocess.Popen(command, env=cluster.environment(), stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(ports[0]), what="kubectl port-forward")
        yield Endpoints("127.0.0.1", *ports)
    finally:
        process.terminate()
        process.wait(timeout=10)


def _cluster_ip(cluster: Cluster, namespace: str, service: str) -> str:
    command = ["kubectl", "-n", namespace, "get", "service", service]
    command += ["-o", "jsonpath={.spec.clusterIP}"]
    return subprocess.run(
        command, env=cluster.environment(), check=True, capture_output=True, text=True
    ).stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
