"""Liveness where several namespaces are watched one by one."""

import pytest

from tidegate_operator.app import Health
from tidegate_operator.caches import Caches
from tidegate_operator.telemetry import Telemetry


@pytest.fixture
def health(client):
    caches = Caches(client, ("one", "two"), "", lambda _key: None)
    return Health(Telemetry(), lambda: 1000.0, caches=caches)


@pytest.mark.parametrize("silent", ["one", "two"])
async def test_a_silent_namespace_is_seen_beside_a_lively_one(health, silent):
    for cache in health.caches.all:
        pods_there = cache.resource.plural == "pods" and cache.covers(silent)
        cache.heard_at_s = 800.0 if pods_there else 999.0
    assert health.check() == ["pods"]
    age = health.telemetry.watch_age.labels("pods")
    assert age._value.get() == 200.0


async def test_a_namespace_that_was_never_listed_hides_no_silence_of_another(health):
    for cache in health.caches.all:
        cache.heard_at_s = 800.0 if cache.covers("one") else None
    assert len(health.check()) == len(health.caches.all) / 2


async def test_before_the_first_list_nothing_is_silent(health):
    assert health.check() == []
