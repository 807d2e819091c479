"""The operator's own port: probes, metrics, state; and its log lines."""

import json
import logging

import pytest
from aiohttp.test_utils import TestClient, TestServer

from tidegate_operator.app import Health, make_app
from tidegate_operator.leader import assemble
from tidegate_operator.settings import read
from tidegate_operator.telemetry import JsonLines, Telemetry


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
async def clock():
    return Clock()


@pytest.fixture
async def health(clock):
    return Health(Telemetry(), clock)


@pytest.fixture
async def port(health):
    async with TestClient(TestServer(make_app(health))) as client:
        yield client


async def test_a_standby_is_alive_and_ready(port):
    assert [(await port.get(path)).status for path in ("/healthz", "/readyz")] == [200, 200]
    assert await (await port.get("/v1/state")).json() == {"leader": False, "pools": []}


async def test_a_watch_that_fell_silent_is_named_and_fails_the_liveness(
    port, health, clock, connect
):
    parts = assemble(read([], {}), connect(), lambda: True, health.telemetry)
    health.caches, health.reconciler = parts.caches, parts.reconciler
    for cache in parts.caches.all:
        cache.heard_at_s = 1000.0
    clock.now_s = 1170.0
    assert (await port.get("/healthz")).status == 200
    parts.caches.all[0].heard_at_s = 900.0
    answer = await port.get("/healthz")
    assert (answer.status, await answer.text()) == (503, "no news of inferencepools")
    text = await (await port.get("/metrics")).text()
    assert 'tidegate_operator_watch_age_seconds{resource="inferencepools"} 270.0' in text


async def test_metrics_bear_their_documented_names(port, health):
    telemetry = health.telemetry
    telemetry.reconciles.labels("ok").inc()
    telemetry.api_requests.labels("GET", "200").inc()
    telemetry.scrapes.labels("worker", "ok").inc()
    telemetry.table_writes.labels("scores").inc()
    telemetry.pool_cost.labels("ml", "vision", "cpu").set(0.5)
    text = await (await port.get("/metrics")).text()
    for line in (
        'tidegate_operator_reconcile_total{result="ok"} 1.0',
        'tidegate_operator_api_requests_total{code="200",verb="GET"} 1.0',
        'tidegate_operator_scrapes_total{result="ok",target="worker"} 1.0',
        'tidegate_operator_table_writes_total{change="scores"} 1.0',
        'tidegate_operator_pool_cost_per_hour{class="cpu",namespace="ml",pool="vision"} 0.5',
        "tidegate_operator_leader 0.0",
        "tidegate_operator_scrape_age_seconds 0.0",
        "tidegate_operator_reconcile_duration_seconds_count 0.0",
    ):
        assert line in text


def test_a_log_line_is_one_json_object():
    record = logging.LogRecord("a.b", logging.WARNING, "f.py", 1, 'x %s "y"', ("1\n2",), None)
    record.object, record.revision = "ml/vision", "aaaaaaaa"
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line["ts"].endswith("Z")
    assert line | {"ts": ""} == {
        "ts": "", "level": "warning", "msg": 'x 1\n2 "y"', "logger": "a.b",
        "object": "ml/vision", "revision": "aaaaaaaa",
    }  # fmt: skip
