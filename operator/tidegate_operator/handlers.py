"""kopf's part: its watch of pools only wakes the work queue; truth is read from the caches.

No timers, daemons, indices or field handlers: they add finalizers, keep ghosts or lose edges.
"""

import asyncio

import kopf

from tidegate_api.names import GROUP, PLURALS, VERSION, Kind
from tidegate_operator.caches import PoolKey
from tidegate_operator.workqueue import WorkQueue


class WatchEndedError(RuntimeError):
    """kopf stopped watching pools, which nobody asked it to do."""


async def run(
    queue: WorkQueue[PoolKey], namespaces: tuple[str, ...], started: asyncio.Event
) -> None:
    """Run kopf's operator in this loop until cancelled; raises when it breaks.

    `started` is set once it runs. By then it has taken SIGTERM for itself; whoever wants the
    signal back takes it after that, because kopf's own way to end waits for all tasks of the loop.
    """
    registry = kopf.get_default_registry()

    @kopf.on.event(GROUP, VERSION, PLURALS[Kind.INFERENCE_POOL], registry=registry)
    async def wake(namespace: str | None, name: str | None, **_: object) -> None:
        queue.add(PoolKey(namespace or "", name or ""))

    @kopf.on.event(GROUP, VERSION, PLURALS[Kind.MODEL_ROLLOUT], registry=registry)
    async def wake_pool(namespace: str | None, spec: kopf.Spec, **_: object) -> None:
        pool = spec.get("poolRef") or {}
        queue.add(PoolKey(namespace or "", str(pool.get("name") or "")))

    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # nothing but our kind: no right to list kinds is needed
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.process.ultimate_exiting_timeout = None  # the kubelet kills what does not end
    await kopf.operator(
        registry=registry,
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        ready_flag=started,
    )
    raise WatchEndedError("kopf has ended")
