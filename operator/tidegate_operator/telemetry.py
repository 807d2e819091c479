"""Every metric of the operator, and its log format."""

import json
import logging
import sys
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

Metric = Counter | Gauge | Histogram


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The metrics of one process, in a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    reconciles: Counter = field(init=False)
    reconcile_duration: Histogram = field(init=False)
    queue_depth: Gauge = field(init=False)
    leader: Gauge = field(init=False)
    api_requests: Counter = field(init=False)
    scrapes: Counter = field(init=False)
    scrape_age: Gauge = field(init=False)
    table_writes: Counter = field(init=False)
    watch_age: Gauge = field(init=False)
    pool_cost: Gauge = field(init=False)
    rollout_phase: Gauge = field(init=False)
    rollout_weight: Gauge = field(init=False)
    rollout_windows: Counter = field(init=False)
    notifications: Counter = field(init=False)

    def __post_init__(self) -> None:
        """Declare each metric once."""
        for name, metric in {**self._of_the_loop(), **self._of_rollouts()}.items():
            object.__setattr__(self, name, metric)

    def _of_the_loop(self) -> dict[str, Metric]:
        return {
            "reconciles": Counter(
                "tidegate_operator_reconcile", "Reconciles by result.", ["result"],
                registry=self.registry,
            ),
            "reconcile_duration": Histogram(
                "tidegate_operator_reconcile_duration_seconds", "Time of one reconcile.",
                registry=self.registry,
            ),
            "queue_depth": Gauge(
                "tidegate_operator_queue_depth", "Pools that wait for a reconcile.",
                registry=self.registry,
            ),
            "leader": Gauge(
                "tidegate_operator_leader", "1 while this process holds the Lease.",
                registry=self.registry,
            ),
            "api_requests": Counter(
                "tidegate_operator_api_requests", "Requests to the API server.",
                ["verb", "code"], registry=self.registry,
            ),
            "scrapes": Counter(
                "tidegate_operator_scrapes", "Scrapes by target and result.",
                ["target", "result"], registry=self.registry,
            ),
            "scrape_age": Gauge(
                "tidegate_operator_scrape_age_seconds", "Age of the oldest worker scrape.",
                registry=self.registry,
            ),
            "table_writes": Counter(
                "tidegate_operator_table_writes", "RouteTables written, by what changed.",
                ["change"], registry=self.registry,
            ),
            "watch_age": Gauge(
                "tidegate_operator_watch_age_seconds", "Time since a watch last said anything.",
                ["resource"], registry=self.registry,
            ),
            "pool_cost": Gauge(
                "tidegate_operator_pool_cost_per_hour", "Cost of a pool's workers.",
                ["namespace", "pool", "class"], registry=self.registry,
            ),
        }  # fmt: skip

    def _of_rollouts(self) -> dict[str, Metric]:
        return {
            "rollout_phase": Gauge(
                "tidegate_operator_rollout_phase", "1 for the phase that a ModelRollout is in.",
                ["namespace", "rollout", "phase"], registry=self.registry,
            ),
            "rollout_weight": Gauge(
                "tidegate_operator_rollout_weight_percent",
                "Percent of requests that every router gives the canary.",
                ["namespace", "rollout"], registry=self.registry,
            ),
            "rollout_windows": Counter(
                "tidegate_operator_rollout_windows", "Ended analysis windows by verdict.",
                ["namespace", "rollout", "verdict"], registry=self.registry,
            ),
            "notifications": Counter(
                "tidegate_operator_notifications", "Attempts to notify, and events given up.",
                ["result"], registry=self.registry,
            ),
        }  # fmt: skip


class JsonLines(logging.Formatter):
    """One JSON object a line: {ts, level, msg, object, revision}."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; `extra={"object": ..., "revision": ...}` adds those keys."""
        line = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
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
    logging.getLogger("kopf").setLevel(logging.WARNING)
