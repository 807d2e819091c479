"""The child process: wait for the Lease, then lead until it is lost or this process is told to end.

Renewing and all leading work run in one task group: whatever breaks ends the process, and its
parent starts a fresh one.
"""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tidegate_api.names import (
    ANNOTATION_SCORE_LAG_MS,
    LEADER_LEASE,
    ROUTES_LEASE,
)
from tidegate_api.pool import OperatorClaim
from tidegate_api.routerstate import RouterState
from tidegate_api.state import WorkerState
from tidegate_operator import handlers
from tidegate_operator.adapters import client as kube
from tidegate_operator.adapters.lease import Lease, touch
from tidegate_operator.adapters.prometheus import Prometheus
from tidegate_operator.adapters.scrape import Scraper
from tidegate_operator.adapters.webhook import Webhook
from tidegate_operator.app import Health, make_app, serve
from tidegate_operator.caches import Caches, PoolKey
from tidegate_operator.core.observation import OperatorSettings
from tidegate_operator.gather import Gatherer
from tidegate_operator.reconciler import Reconciler
from tidegate_operator.settings import Settings
from tidegate_operator.telemetry import Telemetry
from tidegate_operator.workqueue import WorkQueue
from tidegate_operator.writer import Writer

_log = logging.getLogger(__name__)
_CONCURRENCY = 16
_ROUTES_RENEWAL_S = 2.0


class _Stop(Exception):  # noqa: N818  # not an error: the way out of a task group
    """SIGTERM or SIGINT arrived, or the parent is gone."""


async def main(settings: Settings, identity: str) -> int:
    """Run until told to end (0) or until something breaks (1). `identity` holds the Lease."""
    telemetry = Telemetry()
    api = await kube.connect(
        lambda verb, code: telemetry.api_requests.labels(verb, str(code)).inc()
    )
    lease = Lease(api, settings.namespace, LEADER_LEASE, identity)
    health = Health(telemetry, asyncio.get_running_loop().time)
    code = 0
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_signals())
            group.create_task(_orphaned())
            group.create_task(serve(make_app(health), settings.port))
            group.create_task(_lead(settings, api, lease, health))
    except* _Stop:
        _log.info("told to end")
    except* Exception as broken:  # noqa: BLE001  # the last frame: say why, let the parent restart
        code = 1
        for error in broken.exceptions:
            _log.error("ending: %r", error, exc_info=error)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            await lease.release()
    await api.close()
    return code


async def _signals() -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    raise _Stop


async def _orphaned() -> None:
    """End when the parent is gone, which closes our input: nobody would restart this process."""
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
    raise _Stop


@dataclass(frozen=True, slots=True)
class Leading:
    """The parts that work while this process leads."""

    caches: Caches
    gatherer: Gatherer
    reconciler: Reconciler
    workers: Scraper[WorkerState]
    routers: Scraper[RouterState]


def assemble(
    settings: Settings, api: kube.KubeClient, leads: Callable[[], bool], telemetry: Telemetry
) -> Leading:
    """Put the parts together; nothing runs yet. `leads()` says whether writing is allowed."""
    queue: WorkQueue[PoolKey] = WorkQueue()
    caches = Caches(api, settings.watch_namespaces, settings.router_service, queue.add)
    known = OperatorSettings(
        release=OperatorClaim(name=settings.release, namespace=settings.namespace),
        worker_image=settings.worker_image,
        router_url=settings.router_url,
        network_policy=settings.network_policy,
    )
    gatherer = Gatherer(caches, known)
    writer = Writer(api, caches, leads)
    budget = settings.score_writes_per_second
    reconciler = Reconciler(caches, gatherer, writer, known, telemetry, queue, budget)
    workers, routers = _scrapers(settings, gatherer, telemetry)
    gatherer.workers, gatherer.routers = workers, routers
    return Leading(caches, gatherer, reconciler, workers, routers)


async def lead(parts: Leading) -> None:
    """List everything, then reconcile for ever; whatever breaks ends it all."""
    async with asyncio.TaskGroup() as group:
        for cache in parts.caches.all:
            group.create_task(cache.run())
        await parts.caches.synced()
        group.create_task(parts.workers.run())
        group.create_task(parts.routers.run())
        group.create_task(parts.reconciler.queue.run(parts.reconciler.reconcile, _CONCURRENCY))
        group.create_task(parts.reconciler.tick())


async def _lead(settings: Settings, api: kube.KubeClient, lease: Lease, health: Health) -> None:
    await lease.acquire()
    health.telemetry.leader.set(1)
    parts = assemble(settings, api, lambda: lease.held, health.telemetry)
    health.caches, health.reconciler = parts.caches, parts.reconciler
    async with asyncio.TaskGroup() as group:
        group.create_task(lease.keep())
        if settings.notifications_url:
            webhook = _webhook(settings, health.telemetry)
            parts.reconciler.reporter.notify = webhook.offer
            group.create_task(webhook.run())
        group.create_task(lead(parts))
        await parts.caches.synced()
        group.create_task(_watch(parts.reconciler, settings))
        if settings.prometheus_url:
            results = parts.gatherer.queries
            asker = Prometheus(settings.prometheus_url, parts.gatherer.wanted, results, time.time)
            group.create_task(asker.run())
        group.create_task(_date_tables(settings, api, lease, parts, health.telemetry))


async def _watch(reconciler: Reconciler, settings: Settings) -> None:
    """Run kopf, and take the signals back from it; its end is the end."""
    started = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(handlers.run(reconciler.queue, settings.watch_namespaces, started))
        await started.wait()
        await _signals()


def _webhook(settings: Settings, telemetry: Telemetry) -> Webhook:
    return Webhook(
        settings.notifications_url,
        settings.notifications_key_file,
        lambda outcome: telemetry.notifications.labels(outcome.value).inc(),
    )


def _scrapers(
    settings: Settings, gatherer: Gatherer, telemetry: Telemetry
) -> tuple[Scraper[WorkerState], Scraper[RouterState]]:
    interval_s = settings.scrape_interval_s
    workers = Scraper(
        WorkerState,
        gatherer.worker_targets,
        lambda result: telemetry.scrapes.labels("worker", result).inc(),
        time.time,
        interval_s,
    )
    routers = Scraper(
        RouterState,
        gatherer.router_targets,
        lambda result: telemetry.scrapes.labels("router", result).inc(),
        time.time,
        interval_s,
    )
    return workers, routers


async def _date_tables(
    settings: Settings, api: kube.KubeClient, lease: Lease, parts: Leading, telemetry: Telemetry
) -> None:
    """Renew the Lease that dates all tables, with how far scores lag behind what was measured."""
    while True:
        lag_ms = {ANNOTATION_SCORE_LAG_MS: str(int(parts.reconciler.score_lag_s * 1000))}
        if lease.held:
            try:
                await touch(api, settings.namespace, ROUTES_LEASE, settings.release, lag_ms)
            except kube.ApiError as error:
                _log.warning("lease %s: %s", ROUTES_LEASE, error)
        scraped_s = [r.scraped_s for r in parts.workers.readings.values() if r.scraped_s]
        telemetry.scrape_age.set(time.time() - min(scraped_s, default=time.time()))
        await asyncio.sleep(_ROUTES_RENEWAL_S)
