"""The whole of tier P, started and ended as one: `async with Environment.open() as env`."""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import yaml

from tidegate_api.names import PORT_ROUTER_ADMIN, PORT_ROUTER_HTTP
from tidegate_e2e.localcluster import binaries
from tidegate_e2e.ptier.api import AWAY, AnswerError, Api, context
from tidegate_e2e.ptier.control import ControlPlane
from tidegate_e2e.ptier.kubelet import Kubelet
from tidegate_e2e.ptier.processes import Program, free_ports
from tidegate_e2e.ptier.proxy import Proxy

ROUTERS = 3
MODEL = "knobs"
_CRDS = Path(__file__).parents[3] / "crds"
T = TypeVar("T")


async def wait(
    probe: Callable[[], Awaitable[T | None]], what: str, limit_s: float = 60, every_s: float = 0.1
) -> T:
    """Return the first true answer; TimeoutError after `limit_s`. No answer counts as not yet."""
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            found = await probe()
        except (AnswerError, *AWAY):
            found = None
        if found:
            return found
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {limit_s:g} s: {what}")
        await asyncio.sleep(every_s)


@dataclass(slots=True)
class Environment:
    """Everything that runs. `operators[0]` speaks through the proxy, the others directly."""

    folder: Path
    octet: int
    control: ControlPlane
    api: Api
    kubelet: Kubelet
    proxy: Proxy
    operators: list[Program] = field(default_factory=list)
    routers: list[Program] = field(default_factory=list)

    @property
    def router_addresses(self) -> list[str]:
        """Return the addresses that the routers listen on."""
        return [f"127.{self.octet}.251.{number + 1}" for number in range(ROUTERS)]

    def infer_url(self, router: int) -> str:
        """Return where one router answers inference."""
        return f"http://{self.router_addresses[router]}:{PORT_ROUTER_HTTP}/v2/models/{MODEL}/infer"

    def state_url(self, router: int) -> str:
        """Return where one router tells its state."""
        return f"http://{self.router_addresses[router]}:{PORT_ROUTER_ADMIN}/v1/state"

    @staticmethod
    @asynccontextmanager
    async def open() -> AsyncIterator["Environment"]:
        """Start everything, yield once routers are members, end everything."""
        folder = Path(tempfile.mkdtemp(prefix="tidegate-ptier-"))
        control = ControlPlane(folder, binaries.ensure())
        try:
            control.start()
            async with Api(control.server, control.pki) as api, asyncio.TaskGroup() as group:
                made = _assemble(folder, control, api)
                tasks = await made.begin(group)
                try:
                    yield made
                finally:
                    made.end()
                    for task in tasks:
                        task.cancel()
        finally:
            control.stop()
            shutil.rmtree(folder, ignore_errors=True)

    async def begin(self, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start what runs on the API server; return our own tasks."""
        await wait(self.api.ready, f"API server: {self.control.apiserver.name}")
        await self._install()
        listens = asyncio.Event()
        tasks = [group.create_task(self.proxy.run(listens)), group.create_task(self.kubelet.run())]
        await listens.wait()
        self._start_routers()
        self.add_operator(self.control.kubeconfig("proxied", f"http://127.0.0.1:{self.proxy.port}"))
        self.proxy.kill = self.operators[0].kill_child
        return tasks

    def end(self) -> None:
        """End operators and routers."""
        for program in (*self.operators, *self.routers):
            program.kill()

    async def _install(self) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        for file in sorted(_CRDS.glob("*.yaml")):
            await self.api.request("POST", path, yaml.safe_load(file.read_text()))
        for plural in ("inferencepools", "modelrollouts", "routetables"):
            served = partial(self._served, f"/apis/tidegate.dev/v1alpha1/{plural}")
            await wait(served, f"CRD {plural}")
        await self.api.request("POST", "/api/v1/namespaces/default/services", _service())
        await self.publish_routers()

    async def _served(self, path: str) -> bool:
        return "items" in await self.api.get(path)

    async def publish_routers(self) -> None:
        """Make the routers endpoints of their Service.

        FQDN: the API server takes no loopback address as IPv4, and nothing resolves these.
        """
        document = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "tidegate-router-1",
                "labels": {"kubernetes.io/service-name": "tidegate-router"},
            },
            "addressType": "FQDN",
            "ports": [{"name": "admin", "port": PORT_ROUTER_ADMIN}],
            "endpoints": [
                {"addresses": [address], "conditions": {"ready": True}}
                for address in self.router_addresses
            ],
        }
        path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
        await self.api.request("POST", path, document)

    def _start_routers(self) -> None:
        config = str(self.control.kubeconfig("router"))
        for number, address in enumerate(self.router_addresses):
            command = [
                sys.executable, "-m", "tidegate_router", "--host", address, "--grpc-port", "-1",
                "--pod-uid", f"router-{number}", "--pod-name", f"router-{number}",
                "--drain-seconds", "0",
            ]  # fmt: skip
            program = _program(f"router-{number}", command, self.folder, config)
            program.start()
            self.routers.append(program)

    def add_operator(self, kubeconfig: Path) -> Program:
        """Start one more operator, a parent and its child."""
        number = len(self.operators)
        command = [
            sys.executable, "-m", "tidegate_operator", "--port", str(free_ports(1)[0]),
            "--pod-name", f"operator-{number}", "--release", "ptier", "--worker-image", "stub",
            "--router-service", "default/tidegate-router", "--network-policy", "false",
        ]  # fmt: skip
        program = _program(f"operator-{number}", command, self.folder, str(kubeconfig))
        program.start()
        self.operators.append(program)
        return program


def _assemble(folder: Path, control: ControlPlane, api: Api) -> Environment:
    octet = 64 + os.getpid() % 128
    return Environment(
        folder=folder,
        octet=octet,
        control=control,
        api=api,
        kubelet=Kubelet(api, octet, (MODEL,)),
        proxy=Proxy(control.server, context(control.pki), free_ports(1)[0]),
    )


def _program(name: str, command: Sequence[str], folder: Path, kubeconfig: str) -> Program:
    return Program(name, command, folder, {"KUBECONFIG": kubeconfig, "PYTHONUNBUFFERED": "1"})


def _service() -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tidegate-router"},
        "spec": {"ports": [{"name": "admin", "port": PORT_ROUTER_ADMIN}]},
    }
