"""Plays the Deployment controller, the scheduler and the kubelet: pods follow Deployments."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field

from tidegate_api.names import LABEL_REVISION
from tidegate_e2e.ptier.api import AWAY, AnswerError, Api, Json
from tidegate_e2e.ptier.workers import Behaviour, Worker

_POLL_S = 0.2
_GRACE_S = 20.0
_COST = "controller.kubernetes.io/pod-deletion-cost"
_ALL_PODS, _ALL_DEPLOYMENTS = "/api/v1/pods", "/apis/apps/v1/deployments"


@dataclass(slots=True)
class Kubelet:
    """Keeps pods as Deployments ask, and a stub worker behind each pod."""

    api: Api
    octet: int  # the workers' addresses are 127.OCTET.x.y
    models: tuple[str, ...]
    turned: dict[str, Behaviour] = field(default_factory=dict)  # by revision
    workers: dict[str, Worker] = field(default_factory=dict)  # by pod UID
    _born: int = 0
    _addressed: int = 0
    _ending: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Work until cancelled; an API server that is away is asked again."""
        try:
            while True:
                with suppress(AnswerError, *AWAY):
                    await self._turn()
                await asyncio.sleep(_POLL_S)
        finally:
            for task in self._ending.values():
                task.cancel()
            await asyncio.gather(*self._ending.values(), return_exceptions=True)
            await asyncio.gather(*(worker.stop() for worker in self.workers.values()))

    async def _turn(self) -> None:
        deployments = await self.api.items(_ALL_DEPLOYMENTS)
        pods = await self.api.items(_ALL_PODS)
        alive = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        owned: set[str] = set()
        for deployment in deployments:
            mine = [pod for pod in alive if _owner(pod) == deployment["metadata"]["uid"]]
            owned |= {pod["metadata"]["uid"] for pod in mine}
            await self._scale(deployment, mine)
            await self._report(deployment, mine)
        for pod in alive:
            if pod["metadata"]["uid"] not in owned:
                await self._delete(pod)
            elif not pod["status"].get("podIP"):
                await self._bring_up(pod)
            else:
                await self._look_after(pod)
        for pod in pods:
            if pod["metadata"].get("deletionTimestamp"):
                self._begin_end(pod)
        self._sweep({pod["metadata"]["uid"] for pod in pods})

    async def _scale(self, deployment: Json, pods: list[Json]) -> None:
        wanted = int(deployment["spec"]["replicas"])
        for _ in range(wanted - len(pods)):
            await self._create(deployment)
        ranked = sorted(pods, key=_rank)
        for pod in ranked[: max(0, len(pods) - wanted)]:
            await self._delete(pod)

    async def _create(self, deployment: Json) -> None:
        self._born += 1
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        owner = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "name": meta["name"],
            "uid": meta["uid"],
            "controller": True,
        }
        pod = {
            "metadata": {
                **template["metadata"],
                "name": f"{meta['name']}-{self._born}",
                "ownerReferences": [owner],
            },
            "spec": {**template["spec"], "nodeName": "ptier"},
        }
        await self.api.request("POST", f"/api/v1/namespaces/{meta['namespace']}/pods", pod)

    async def _bring_up(self, pod: Json) -> None:
        meta = pod["metadata"]
        worker = self.workers.get(meta["uid"])
        if worker is None:
            self._addressed += 1
            number = self._addressed
            worker = Worker(
                uid=meta["uid"],
                name=meta["name"],
                address=f"127.{self.octet}.{1 + number // 250 % 250}.{1 + number % 250}",
                revision=meta["labels"][LABEL_REVISION],
                models=self.models,
                behaviour=Behaviour.of_pod(pod),
                turned=self.turned,
            )
            await worker.start()
            self.workers[meta["uid"]] = worker
        await self._status(pod, ready=True)

    async def _look_after(self, pod: Json) -> None:
        """A pod whose program crashed is not Ready."""
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is not None and worker.now.crashed and _ready(pod):
            await self._status(pod, ready=False)

    async def _status(self, pod: Json, *, ready: bool) -> None:
        word = "True" if ready else "False"
        address = self.workers[pod["metadata"]["uid"]].address
        kinds = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [
                {"type": kind, "status": word if "Ready" in kind else "True"} for kind in kinds
            ],
        }
        await self.api.request("PATCH", f"{_path(pod)}/status", {"status": status})

    async def _report(self, deployment: Json, pods: list[Json]) -> None:
        ready = sum(_ready(pod) for pod in pods)
        known = deployment.get("status", {})
        if known.get("readyReplicas", 0) == ready and known.get("replicas", 0) == len(pods):
            return
        meta = deployment["metadata"]
        path = f"/apis/apps/v1/namespaces/{meta['namespace']}/deployments/{meta['name']}/status"
        counts = {
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": meta["generation"],
        }
        await self.api.request("PATCH", path, {"status": counts})

    async def _delete(self, pod: Json) -> None:
        with suppress(AnswerError):
            await self.api.request("DELETE", _path(pod), {"gracePeriodSeconds": int(_GRACE_S)})

    def _begin_end(self, pod: Json) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._ending:
            self._ending[uid] = asyncio.create_task(_guarded(self._end(pod)))

    async def _end(self, pod: Json) -> None:
        """As the agent does: not Ready, serve until every router let go, then end."""
        worker = self.workers.get(pod["metadata"]["uid"])
        if worker is not None:
            worker.draining = True
            await self._status(pod, ready=False)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await worker.let_go.wait()
            await worker.stop()
            del self.workers[worker.uid]
        await self.api.request("DELETE", _path(pod), {"gracePeriodSeconds": 0})

    def _sweep(self, existing: set[str]) -> None:
        """Forget ends that are over; one that failed is begun anew."""
        for uid, task in list(self._ending.items()):
            if task.done() or uid not in existing:
                del self._ending[uid]


async def _guarded(work: Coroutine[None, None, None]) -> None:
    with suppress(AnswerError, *AWAY):
        await work


def _ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _owner(pod: Json) -> str:
    owners = pod["metadata"].get("ownerReferences", [])
    return str(owners[0]["uid"]) if owners else ""


def _rank(pod: Json) -> tuple[bool, int, str]:
    """Order of removal: not Ready first, then the cheapest, as the ReplicaSet controller does."""
    cost = int(pod["metadata"].get("annotations", {}).get(_COST, 0))
    return bool(pod["status"].get("podIP")), cost, pod["metadata"]["name"]


def _path(pod: Json) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
