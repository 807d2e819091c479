"""Flags and environment variables of `python -m tidegate_operator`, read once at its start."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_api import names


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's configuration. Durations are in seconds."""

    pod_name: str
    namespace: str
    release: str
    watch_namespaces: tuple[str, ...]  # empty: every namespace
    worker_image: str
    router_service: str  # "namespace/name"; empty: no routers to wait for
    router_url: str
    network_policy: bool
    score_writes_per_second: float
    scrape_interval_s: float
    port: int
    log_level: str


_FLAGS: tuple[tuple[str, str, str], ...] = (
    ("pod-name", "tidegate-operator", "holder identity of the Lease"),
    ("pod-namespace", "default", "namespace of the Leases"),
    ("release", "tidegate", "name by which this operator claims pools (status.operator)"),
    ("watch-namespaces", "", "comma-separated; empty watches every namespace"),
    ("worker-image", "", "image of workers whose pool names none"),
    ("router-service", "", "namespace/name of the Service whose endpoints acknowledge tables"),
    ("router-url", "", "shown in status.address.url"),
    ("network-policy", "true", "give each pool a NetworkPolicy: true or false"),
    ("score-writes-per-second", "5", "budget of writes that only move scores and gauges"),
    ("scrape-interval", "1", "seconds between two scrapes of a worker or router"),
    ("port", str(names.PORT_OPERATOR), "port of /healthz, /readyz, /metrics and /v1/state"),
    ("log-level", "info", "debug, info, warning or error"),
)


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; a flag goes before TIDEGATE_*, that before the default."""
    parser = argparse.ArgumentParser(prog="python -m tidegate_operator", description=__doc__)
    for flag, default, text in _FLAGS:
        variable = f"TIDEGATE_{flag.upper().replace('-', '_')}"
        value = environment.get(variable, default)
        parser.add_argument(f"--{flag}", default=value, help=f"{text} [{variable}]")
    found = parser.parse_args(arguments)
    return Settings(
        pod_name=found.pod_name,
        namespace=found.pod_namespace,
        release=found.release,
        watch_namespaces=tuple(filter(None, found.watch_namespaces.split(","))),
        worker_image=found.worker_image,
        router_service=found.router_service,
        router_url=found.router_url,
        network_policy=found.network_policy.lower() == "true",
        score_writes_per_second=float(found.score_writes_per_second),
        scrape_interval_s=float(found.scrape_interval),
        port=int(found.port),
        log_level=found.log_level,
    )
