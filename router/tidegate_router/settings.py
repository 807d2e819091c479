"""Flags and environment variables of `python -m tidegate_router`, read once at its start."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate_api import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The router's configuration. A port of 0 takes any free one."""

    http_port: int = names.PORT_ROUTER_HTTP
    grpc_port: int = names.PORT_ROUTER_GRPC
    admin_port: int = names.PORT_ROUTER_ADMIN
    host: str = "0.0.0.0"
    pod_uid: str = ""
    pod_name: str = "tidegate-router"
    namespaces: tuple[str, ...] = ()  # empty: all
    operator_namespace: str = "default"
    snapshot_file: Path | None = None
    routes_file: Path | None = None  # replaces Kubernetes
    bare_model_names: bool = True
    drain_s: float = 10.0
    max_body_bytes: int = 64 * 1024 * 1024
    queue_max_bytes: int = 256 * 1024 * 1024
    cache_max_bytes: int = 64 * 1024 * 1024
    log_level: str = "info"
    access_log_sample_ratio: float = 0.01
    kubeconfig: str = ""


_QUEUE_PART = 4
_LEVELS = ("debug", "info", "warning", "error")
_FLOATS = {"drain-seconds", "access-log-sample"}
_NUMBERS = {"http-port", "grpc-port", "admin-port", "max-body-bytes"} | {
    "queue-max-bytes",
    "cache-max-bytes",
    "memory-limit-bytes",
}
_FLAGS: tuple[tuple[str, str, str], ...] = (
    ("http-port", str(names.PORT_ROUTER_HTTP), "public port: OIP over HTTP"),
    ("grpc-port", str(names.PORT_ROUTER_GRPC), "public port: OIP over gRPC; -1: none"),
    ("admin-port", str(names.PORT_ROUTER_ADMIN), "/metrics, /v1/state, /workers, /debug/pick"),
    ("host", "0.0.0.0", "address to listen on"),
    ("pod-uid", "", "names this router in route tables, with its start time"),
    ("pod-name", "tidegate-router", "shown in logs"),
    ("namespaces", "", "comma-separated namespaces to serve; empty serves all"),
    ("operator-namespace", "default", "namespace of the Lease that dates the tables"),
    ("snapshot-file", "", "last tables, for a start while the API server is away"),
    ("routes-file", "", "JSON list of route tables to serve instead of Kubernetes'"),
    ("bare-model-names", "Oldest", "who owns a model name of several pools: Oldest or Off"),
    ("drain-seconds", "10", "how long a stopping router still accepts requests"),
    ("max-body-bytes", str(64 * 1024 * 1024), "largest request body"),
    ("memory-limit-bytes", str(1024 * 1024 * 1024), "memory that this process may use"),
    ("queue-max-bytes", "0", "bodies that wait, over all pools; 0: a quarter of the memory limit"),
    ("cache-max-bytes", str(64 * 1024 * 1024), "answers that are kept for responseCache"),
    ("log-level", "info", "debug, info, warning or error"),
    ("access-log-sample", "0.01", "part of the successes that leave a record, 0..1; errors all do"),
)


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; a flag goes before TIDEGATE_*, that before the default."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_router", description=__doc__)
    for flag, default, text in _FLAGS:
        variable = f"TIDEGATE_{flag.upper().replace('-', '_')}"
        value = environment.get(variable) or default
        kind = int if flag in _NUMBERS else float if flag in _FLOATS else str
        parser.add_argument(f"--{flag}", default=value, type=kind, help=f"{text} [{variable}]")
    found = parser.parse_args(arguments)
    if found.bare_model_names not in {"Oldest", "Off"}:
        parser.error(f"--bare-model-names: expected Oldest or Off, not {found.bare_model_names}")
    if found.log_level not in _LEVELS:
        parser.error(f"--log-level: expected one of {', '.join(_LEVELS)}, not {found.log_level}")
    if not 0 <= found.access_log_sample <= 1:
        parser.error(f"--access-log-sample: expected 0..1, not {found.access_log_sample}")
    return Settings(
        http_port=found.http_port,
        grpc_port=found.grpc_port,
        admin_port=found.admin_port,
        host=found.host,
        pod_uid=found.pod_uid,
        pod_name=found.pod_name,
        namespaces=tuple(filter(None, found.namespaces.split(","))),
        operator_namespace=found.operator_namespace,
        snapshot_file=Path(found.snapshot_file) if found.snapshot_file else None,
        routes_file=Path(found.routes_file) if found.routes_file else None,
        bare_model_names=found.bare_model_names == "Oldest",
        drain_s=found.drain_seconds,
        max_body_bytes=found.max_body_bytes,
        queue_max_bytes=found.queue_max_bytes or found.memory_limit_bytes // _QUEUE_PART,
        cache_max_bytes=found.cache_max_bytes,
        log_level=found.log_level,
        access_log_sample_ratio=found.access_log_sample,
        kubeconfig=environment.get("KUBECONFIG", ""),
    )
