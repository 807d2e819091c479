"""`python -m tidegate_e2e.ptier.crowd MODEL`: a node for a thousand pools.

As `kubelet`, but in a process of its own, driven by a watch, and with agents that only tell their
state: what is measured beside it is the operator. Workers are ended without a drain.
"""

import asyncio
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, field

import uvloop
from aiohttp import web

from tidegate_api.names import LABEL_CLASS, LABEL_REVISION, PORT_WORKER_AGENT
from tidegate_api.state import ModelState, Phase, ServerState, Traits, WorkerState
from tidegate_api.template import JsonObject
from tidegate_operator.adapters.client import ApiError, KubeClient, NotFoundError, Resource, connect
from tidegate_operator.core.reading import mapping, number, records, text

_DEPLOYMENTS = Resource("apps/v1", "Deployment", "deployments")
_PODS = Resource("v1", "Pod", "pods")
_MERGE = "application/merge-patch+json"
_AT_ONCE, _TRIES, _SILENCE_S = 32, 100, 90.0
_log = logging.getLogger(__name__)
_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Stub:
    name: str
    address: str
    state: WorkerState


@dataclass(slots=True)
class Crowd:
    """Pods by (namespace, Deployment), and who answers at which address."""

    client: KubeClient
    model: str
    pods: dict[_Key, list[_Stub]] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)  # address -> state as JSON
    _locks: dict[_Key, asyncio.Lock] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _born: int = 0
    _runner: web.ServerRunner | None = None

    async def run(self) -> None:
        """List and watch Deployments for ever."""
        self._runner = web.ServerRunner(web.Server(self._state), access_log=None)
        await self._runner.setup()
        async with asyncio.TaskGroup() as group:
            while True:
                with suppress(ApiError):
                    await self._follow(group)
                await asyncio.sleep(0.2)

    async def _follow(self, group: asyncio.TaskGroup) -> None:
        listed = await self.client.request("GET", _DEPLOYMENTS.path(), timeout_s=30)
        for item in records(listed, "items"):
            group.create_task(self._sync(item, gone=False))
        query = {"resourceVersion": text(listed, "metadata", "resourceVersion")}
        async for event in self.client.watch(_DEPLOYMENTS.path(), query, _SILENCE_S):
            if event.get("type") in {"ADDED", "MODIFIED", "DELETED"}:
                gone = event.get("type") == "DELETED"
                group.create_task(self._sync(mapping(event, "object"), gone=gone))

    async def _sync(self, item: JsonObject, *, gone: bool) -> None:
        key = text(item, "metadata", "namespace"), text(item, "metadata", "name")
        async with self._locks.setdefault(key, asyncio.Lock()), self._slots:
            for _ in range(_TRIES):
                try:
                    await self._scale(key, item, 0 if gone else number(item, "spec", "replicas"))
                    if not gone:
                        await self._report(key, item)
                except ApiError as error:
                    _log.info("%s", error)
                    await asyncio.sleep(0.3)
                else:
                    return

    async def _scale(self, key: _Key, item: JsonObject, wanted: int) -> None:
        pods = self.pods.setdefault(key, [])
        while len(pods) < wanted:
            pods.append(await self._start(key, item))
        while len(pods) > wanted:
            stub = pods.pop()
            self.answers.pop(stub.address, None)
            with suppress(NotFoundError):
                path = _PODS.path(key[0], stub.name)
                await self.client.request("DELETE", path, body={"gracePeriodSeconds": 0})

    async def _start(self, key: _Key, item: JsonObject) -> _Stub:
        self._born += 1
        number_here, template = self._born, mapping(item, "spec", "template")
        name = f"{key[1]}-{number_here}"
        body = {
            "metadata": {**mapping(template, "metadata"), "name": name},
            "spec": {**mapping(template, "spec"), "nodeName": "ptier"},
        }
        made = await self.client.request("POST", _PODS.path(key[0]), body=body)
        address = f"127.2.{1 + number_here // 250}.{1 + number_here % 250}"
        stub = _Stub(name, address, self._state_of(made))
        self.answers[address] = stub.state.model_dump_json(by_alias=True, exclude_none=True)
        if self._runner is not None:
            await web.TCPSite(self._runner, address, PORT_WORKER_AGENT).start()
        path = _PODS.path(key[0], name, "status")
        await self.client.request("PATCH", path, body=_ready(address), content_type=_MERGE)
        return stub

    async def _report(self, key: _Key, item: JsonObject) -> None:
        count = len(self.pods[key])
        known = mapping(item, "status")
        if number(known, "readyReplicas") == count == number(known, "replicas"):
            return
        counts = {"replicas": count, "readyReplicas": count, "availableReplicas": count}
        status = {**counts, "observedGeneration": number(item, "metadata", "generation")}
        path = _DEPLOYMENTS.path(*key, "status")
        with suppress(NotFoundError):
            body = {"status": status}
            await self.client.request("PATCH", path, body=body, content_type=_MERGE)

    def _state_of(self, pod: JsonObject) -> WorkerState:
        uid, labels = text(pod, "metadata", "uid"), mapping(pod, "metadata", "labels")
        revision = text(labels, LABEL_REVISION)
        traits = Traits(instances=8)
        model = ModelState(
            name=self.model, revision=revision, ready=True, probe="Strong", traits=traits
        )
        return WorkerState(
            uid=uid,
            name=text(pod, "metadata", "name"),
            revision=revision,
            accelerator=text(labels, LABEL_CLASS),
            instance=f"{uid}/1",
            phase=Phase.READY,
            ready=True,
            server=ServerState(running=True),
            models=[model],
        )

    async def _state(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        here = transport.get_extra_info("sockname") if transport else None
        document = self.answers.get(here[0]) if here else None
        if document is None:
            return web.Response(status=404)
        return web.Response(text=document, content_type="application/json")


def _ready(address: str) -> JsonObject:
    conditions = [{"type": kind, "status": "True"} for kind in ("PodScheduled", "Ready")]
    status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    return {"status": {**status, "conditions": conditions}}


async def main(model: str) -> None:
    """Serve until killed; KUBECONFIG names the API server."""
    await Crowd(await connect(lambda _verb, _code: None), model).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvloop.run(main(sys.argv[1]))
