"""kopf's part: its watch of pools only wakes the work queue; truth is read from the caches.

No timers, daemons, indices or field handlers: they add finalizers, keep ghosts or lose edges.
"""

import asyncio
import logging

import kopf

from tidegate_api.names import GROUP, PLURALS, VERSION, Kind
from tidegate_operator.caches import PoolKey
from tidegate_operator.workqueue import WorkQueue

_log = logging.getLogger(__name__)


async def run(queue: WorkQueue[PoolKey], namespaces: tuple[str, ...]) -> None:
    """Run kopf's operator in this loop; it returns when a signal told it to, raises when broken."""
    registry = kopf.get_default_registry()

    @kopf.on.event(GROUP, VERSION, PLURALS[Kind.INFERENCE_POOL], registry=registry)
    async def wake(namespace: str | None, name: str | None, **_: object) -> None:
        queue.add(PoolKey(namespace or "", name or ""))

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # nothing but our kind: no right to list kinds is needed
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=asyncio.Event(),
    )
