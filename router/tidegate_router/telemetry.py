"""Every metric of the router, and its log format."""

import json
import logging
import sys
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_REQUEST = ("namespace", "pool", "model", "revision")


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The metrics of one process, in a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Counter = field(init=False)
    request_duration: Histogram = field(init=False)
    queue_wait: Histogram = field(init=False)
    shed: Counter = field(init=False)
    retries: Counter = field(init=False)
    abandoned: Counter = field(init=False)
    table_age: Gauge = field(init=False)
    sequence_resets: Gauge = field(init=False)
    workers: Gauge = field(init=False)
    synced: Gauge = field(init=False)
    local_aborts: Counter = field(init=False)
    mirrored: Counter = field(init=False)
    records_dropped: Counter = field(init=False)

    def __post_init__(self) -> None:
        """Declare each metric once."""
        declare = {
            "requests": Counter(
                "tidegate_router_requests", "Requests by pool, model, revision and status.",
                [*_REQUEST, "code"], registry=self.registry,
            ),
            "request_duration": Histogram(
                "tidegate_router_request_duration_seconds", "Time that clients saw.",
                _REQUEST, buckets=_LATENCY_S, registry=self.registry,
            ),
            "queue_wait": Histogram(
                "tidegate_router_queue_wait_seconds", "Time from arrival to the first worker.",
                ["namespace", "pool", "model"], buckets=_LATENCY_S, registry=self.registry,
            ),
            "shed": Counter(
                "tidegate_router_shed", "Requests that the router itself refused.",
                ["reason"], registry=self.registry,
            ),
            "retries": Counter(
                "tidegate_router_retries", "Attempts after the first.",
                ["namespace", "pool", "model"], registry=self.registry,
            ),
            "abandoned": Counter(
                "tidegate_router_abandoned", "Answers awaited for their slot and thrown away.",
                registry=self.registry,
            ),
            "table_age": Gauge(
                "tidegate_router_table_age_seconds", "Time since the score loop proved its life.",
                registry=self.registry,
            ),
            "sequence_resets": Gauge(
                "tidegate_router_sequence_reset", "Lower sequences that were accepted.",
                registry=self.registry,
            ),
            "workers": Gauge(
                "tidegate_router_workers", "Workers by state.", ["state"], registry=self.registry,
            ),
            "synced": Gauge(
                "tidegate_router_synced", "1 after a fresh list, 0 on a snapshot.",
                registry=self.registry,
            ),
            "local_aborts": Counter(
                "tidegate_router_local_aborts", "Canaries dropped by a guard, without operator.",
                ["namespace", "pool", "revision"], registry=self.registry,
            ),
            "mirrored": Counter(
                "tidegate_router_mirrored", "Copies to a canary by what became of them.",
                ["result"], registry=self.registry,
            ),
            "records_dropped": Counter(
                "tidegate_router_records_dropped", "Request records that nobody took in time.",
                registry=self.registry,
            ),
        }  # fmt: skip
        for name, metric in declare.items():
            object.__setattr__(self, name, metric)


class JsonLines(logging.Formatter):
    """One JSON object a line: {ts, level, msg, object, revision}."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; `extra={"object": ..., "revision": ...}` adds those keys."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
        }
        for key in ("object", "revision"):
            if value := getattr(record, key, None):
                line[key] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str) -> None:
    """Log JSON lines to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
