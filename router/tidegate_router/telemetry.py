"""Every metric of the router, and its log format."""

import json
import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_LATENCY_S = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip
_REQUEST = ("namespace", "pool", "model", "revision")


class Tally:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        """Count one."""
        self.value += 1


class Times:
    """How often a time fell into which bucket."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(_LATENCY_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count a time."""
        self.counts[bisect_left(_LATENCY_S, seconds)] += 1
        self.total_s += seconds


class Tallies(Collector):
    """A counter whose children are found by one dictionary: it is on every request's way.

    prometheus-client's own takes locks and strings for 4 us a call.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = (name, text, tuple(labels))
        self._children: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Return the child with these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Tally()
        return child

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield what is exposed."""
        name, text, labels = self._about
        family = CounterMetricFamily(name, text, labels=labels)
        for values, child in self._children.items():
            family.add_metric(values, child.value)
        yield family


class TimesBy(Collector):
    """A histogram of seconds, made like `Tallies`."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry
    ) -> None:
        self._about = (name, text, tuple(labels))
        self._children: dict[tuple[str, ...], Times] = {}
        registry.register(self)

    def labels(self, *values: str) -> Times:
        """Return the child with these label values."""
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = Times()
        return child

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield what is exposed: cumulative counts by upper bound."""
        name, text, labels = self._about
        family = HistogramMetricFamily(name, text, labels=labels)
        bounds = [*(str(bound) for bound in _LATENCY_S), "+Inf"]
        for values, child in self._children.items():
            sums = [float(sum(child.counts[: at + 1])) for at in range(len(bounds))]
            buckets = list(zip(bounds, sums, strict=True))
            family.add_metric(values, buckets=buckets, sum_value=child.total_s)
        yield family


Metric = Tallies | TimesBy | Counter | Gauge


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The metrics of one process, in a registry of its own."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    requests: Tallies = field(init=False)
    request_duration: TimesBy = field(init=False)
    queue_wait: TimesBy = field(init=False)
    shed: Tallies = field(init=False)
    retries: Tallies = field(init=False)
    abandoned: Counter = field(init=False)
    table_age: Gauge = field(init=False)
    sequence_resets: Gauge = field(init=False)
    workers: Gauge = field(init=False)
    synced: Gauge = field(init=False)
    local_aborts: Counter = field(init=False)
    mirrored: Counter = field(init=False)
    ejections: Gauge = field(init=False)
    cached: Counter = field(init=False)
    cache_bytes: Gauge = field(init=False)
    records_dropped: Counter = field(init=False)

    def __post_init__(self) -> None:
        """Declare each metric once."""
        for name, metric in {**self._of_requests(), **self._of_the_rest()}.items():
            object.__setattr__(self, name, metric)

    def _of_requests(self) -> dict[str, Metric]:
        return {
            "requests": Tallies(
                "tidegate_router_requests", "Requests by pool, model, revision and status.",
                [*_REQUEST, "code"], registry=self.registry,
            ),
            "request_duration": TimesBy(
                "tidegate_router_request_duration_seconds", "Time that clients saw.",
                _REQUEST, registry=self.registry,
            ),
            "queue_wait": TimesBy(
                "tidegate_router_queue_wait_seconds", "Time from arrival to the first worker.",
                ["namespace", "pool", "model"], registry=self.registry,
            ),
            "shed": Tallies(
                "tidegate_router_shed", "Requests that the router itself refused.",
                ["reason"], registry=self.registry,
            ),
            "retries": Tallies(
                "tidegate_router_retries", "Attempts after the first.",
                ["namespace", "pool", "model"], registry=self.registry,
            ),
            "abandoned": Counter(
                "tidegate_router_abandoned", "Answers awaited for their slot and thrown away.",
                registry=self.registry,
            ),
        }  # fmt: skip

    def _of_the_rest(self) -> dict[str, Metric]:
        return {
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
            "ejections": Gauge(
                "tidegate_router_ejections", "Ejections since the start, by what a worker did.",
                ["namespace", "pool", "revision", "reason"], registry=self.registry,
            ),
            "cached": Counter(
                "tidegate_router_cache_requests", "Cacheable requests: hit, miss, coalesced.",
                ["namespace", "pool", "model", "result"], registry=self.registry,
            ),
            "cache_bytes": Gauge(
                "tidegate_router_cache_bytes", "Memory that kept answers take.",
                registry=self.registry,
            ),
            "records_dropped": Counter(
                "tidegate_router_records_dropped", "Request records that nobody took in time.",
                registry=self.registry,
            ),
        }  # fmt: skip


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
