"""Flags and environment variables of `python -m tidegate_operator`, read once at its start."""

import argparse
import math
import os
from collections.abc import Callable, Mapping, Sequence
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
    prometheus_url: str  # empty: queries of analysis have no data
    notifications_url: str  # empty: nobody is notified of rollouts
    notifications_key_file: str  # empty: notifications bear no signature
    network_policy: bool
    score_writes_per_second: float
    scrape_interval_s: float
    port: int
    log_level: str


_LEVELS = ("debug", "info", "warning", "error")


def _list(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def _service(text: str) -> str:
    if text and len(list(filter(None, text.split("/")))) != 2:
        raise argparse.ArgumentTypeError(f"expected namespace/name, not {text!r}")
    return text


def _url(text: str) -> str:
    if text and not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"expected http://... or https://..., not {text!r}")
    return text


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        raise argparse.ArgumentTypeError(f"expected true or false, not {text!r}")
    return text.lower() == "true"


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}")
    return value


def _level(text: str) -> str:
    if text not in _LEVELS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(_LEVELS)}, not {text!r}")
    return text


_FLAGS: tuple[tuple[str, Callable[[str], object], str, str], ...] = (
    ("pod-name", str, "tidegate-operator", "names the holder of the Lease, with a random part"),
    ("pod-namespace", str, "default", "namespace of the Leases"),
    ("release", str, "tidegate", "name by which this operator claims pools (status.operator)"),
    ("watch-namespaces", _list, "", "comma-separated; empty watches every namespace"),
    ("worker-image", str, "", "image of workers whose pool names none"),
    ("router-service", _service, "", "namespace/name of the Service whose endpoints acknowledge"),
    ("router-url", str, "", "shown in status.address.url"),
    ("prometheus-url", _url, "", "asked the queries of analysis; empty: they have no data"),
    ("notifications-url", _url, "", "gets each event of a rollout by POST; empty: none is sent"),
    ("notifications-key-file", str, "", "file of the key that signs them; empty: unsigned"),
    ("network-policy", _switch, "true", "give each pool a NetworkPolicy: true or false"),
    ("score-writes-per-second", _positive, "5", "budget of writes that only move scores"),
    ("scrape-interval", _positive, "1", "seconds between two scrapes of a worker or router"),
    ("port", int, str(names.PORT_OPERATOR), "port of /healthz, /readyz, /metrics, /v1/state"),
    ("log-level", _level, "info", "debug, info, warning or error"),
)


def read(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings; a flag goes before TIDEGATE_*, that before the default.

    A wrong value ends the program with a message that names its flag.
    """
    parser = argparse.ArgumentParser(prog="python -m tidegate_operator", description=__doc__)
    for flag, kind, default, text in _FLAGS:
        variable = f"TIDEGATE_{flag.upper().replace('-', '_')}"
        value = environment.get(variable) or default
        parser.add_argument(f"--{flag}", default=value, type=kind, help=f"{text} [{variable}]")
    found = parser.parse_args(arguments)
    return Settings(
        pod_name=found.pod_name,
        namespace=found.pod_namespace,
        release=found.release,
        watch_namespaces=found.watch_namespaces,
        worker_image=found.worker_image,
        router_service=found.router_service,
        router_url=found.router_url,
        prometheus_url=found.prometheus_url,
        notifications_url=found.notifications_url,
        notifications_key_file=found.notifications_key_file,
        network_policy=found.network_policy,
        score_writes_per_second=found.score_writes_per_second,
        scrape_interval_s=found.scrape_interval,
        port=found.port,
        log_level=found.log_level,
    )
