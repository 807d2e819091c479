"""The agent's metrics, made from its state at each scrape, and its log format."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tidegate_api.state import DeviceState, WorkerState
from tidegate_worker.core.batches import histogram

BatchCounts = Mapping[str, Mapping[int, int]]  # model -> batch size -> executions
_DEVICE_GAUGES = (
    ("memory_used_bytes", "Device memory in use."),
    ("memory_total_bytes", "Device memory."),
    ("utilization_ratio", "Share of time in which the device was busy."),
    ("temperature_celsius", "Device heat."),
    ("power_watts", "Power draw."),
    ("ecc_errors", "Uncorrected memory errors."),
)


class _StateCollector(Collector):
    def __init__(self, state: WorkerState, batches: BatchCounts) -> None:
        self._state = state
        self._batches = batches

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("tidegate_worker_ready", "1 while every model is ready.")
        ready.add_metric([], float(self._state.ready))
        yield ready
        restarts = GaugeMetricFamily(
            "tidegate_worker_server_restarts", "Restarts of tritonserver since the pod started."
        )
        restarts.add_metric([], self._state.server.restarts)
        yield restarts
        insecure = GaugeMetricFamily(
            "tidegate_worker_below_security_floor", "1 for a Triton with known holes."
        )
        insecure.add_metric([], float(self._state.server.below_security_floor))
        yield insecure
        yield from self._models()
        for name, text in _DEVICE_GAUGES:
            yield self._device_gauge(name, text)

    def _models(self) -> Iterator[Metric]:
        models = GaugeMetricFamily(
            "tidegate_worker_model_ready", "1 for a model that answers.", labels=["model"]
        )
        for model in self._state.models:
            models.add_metric([model.loaded_as or model.name], float(model.ready))
        yield models
        sizes = HistogramMetricFamily(
            "tidegate_worker_batch_size", "Batch sizes that Triton executed.", labels=["model"]
        )
        for model_name, counts in self._batches.items():
            counted = histogram(counts)
            sizes.add_metric([model_name], list(counted.buckets), counted.total)
        yield sizes

    def _device_gauge(self, name: str, text: str) -> Metric:
        labels = ["uuid", "simulated"]
        family = GaugeMetricFamily(f"tidegate_worker_device_{name}", text, labels=labels)
        for device in self._state.devices:
            value = _number(device, name)
            if value is not None:
                family.add_metric([device.uuid, str(device.simulated).lower()], value)
        return family


def _number(device: DeviceState, name: str) -> float | None:
    value = getattr(device, name)
    return None if value is None else float(value)


def exposition(state: WorkerState, batches: BatchCounts) -> bytes:
    """Return the agent's own metrics as text."""
    registry = CollectorRegistry()
    registry.register(_StateCollector(state, batches))
    return generate_latest(registry)


class JsonLines(logging.Formatter):
    """One JSON object a line: {ts, level, msg, object, revision}."""

    def __init__(self, revision: str) -> None:
        super().__init__()
        self._revision = revision

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; `extra={"object": ...}` names a model."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "ts": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "msg": record.getMessage(),
            "logger": record.name,
            "revision": self._revision,
        }
        if value := getattr(record, "object", None):
            line["object"] = value
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(level: str, revision: str) -> None:
    """Log JSON lines to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(revision))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
