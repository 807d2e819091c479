"""A real tritonserver outside any container, and a real agent around it.

tritonserver comes from the wheel of nvidia-pytriton, unpacked once into the cache folder
(TIDEGATE_CACHE, else ~/.cache/tidegate). Its Python backend needs libpython of this Python.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tidegate_api.state import WorkerState

PYTRITON = "nvidia-pytriton==0.7.0"
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Triton:
    server: Path
    backends: Path
    libraries: str


@pytest.fixture(scope="session")
def triton(tmp_path_factory) -> Triton:
    libpython = f"libpython{VERSION}.so.1.0"
    library_folder = sysconfig.get_config_var("LIBDIR")
    try:
        ctypes.CDLL(libpython)
    except OSError:
        beside = Path(library_folder, libpython)
        assert beside.exists(), f"{libpython} is missing: apt-get install libpython{VERSION}"
    home = _unpacked()
    server = home / "pytriton" / "tritonserver"
    backends = tmp_path_factory.mktemp("backends")
    shutil.copytree(server / "backends" / "python", backends / "python")
    stub = server / "python_backend_stubs" / VERSION / "triton_python_backend_stub"
    shutil.copy(stub, backends / "python")
    libraries = f"{home / 'nvidia_pytriton.libs'}:{library_folder}"
    return Triton(server / "bin" / "tritonserver", backends, libraries)


def _unpacked() -> Path:
    cache = Path(os.environ.get("TIDEGATE_CACHE", Path.home() / ".cache" / "tidegate"))
    home = cache / "triton-0.7.0"
    binary = home / "pytriton" / "tritonserver" / "bin" / "tritonserver"
    if not binary.exists():
        fresh = cache / f"triton-0.7.0.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "-d",
            fresh,
            PYTRITON,
        ]
        subprocess.run(command, check=True)  # noqa: S603  # our own interpreter
        (wheel,) = fresh.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(fresh)
        wheel.unlink()
        (fresh / "pytriton" / "tritonserver" / "bin" / "tritonserver").chmod(0o755)
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    binary.chmod(0o755)
    return home


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


@dataclass
class Agent:
    """`python -m tidegate_worker` with free ports; its output is in `log`."""

    folder: Path
    triton: Triton
    models: list[dict]
    environment: dict[str, str] = field(default_factory=dict)
    revision: str = "r1"  # of the models document
    process: subprocess.Popen | None = None

    def start(self) -> "Agent":
        self.agent_port, self.http_port, self.grpc_port, self.metrics_port = free_ports(4)
        file = self.folder / "models.json"
        document = {"schema": "worker-models.v1", "generation": 1, "revision": self.revision}
        file.write_text(json.dumps({**document, "kind": "CPU", "models": self.models}))
        paths = [str(ROOT / "crds"), str(ROOT / "worker-image")]
        settings = {
            "MODELS_FILE": file,
            "STATE_DIRECTORY": self.folder / "state",
            "TRITON_SERVER": self.triton.server,
            "TRITON_BACKENDS": self.triton.backends,
            "TRITON_LIBRARY_PATH": self.triton.libraries,
            "AGENT_PORT": self.agent_port,
            "HTTP_PORT": self.http_port,
            "GRPC_PORT": self.grpc_port,
            "METRICS_PORT": self.metrics_port,
            "POD_UID": "uid-1",
            "POD_NAME": "worker-1",
            "REVISION": "r1",
            "CLASS": "cpu",
            "DRAIN_TIMEOUT": 15,
            **self.environment,
        }
        own = {f"TIDEGATE_{name}": str(value) for name, value in settings.items()}
        # The stub finds numpy through the first python3 on PATH.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        extra = {"PATH": path, "PYTHONPATH": ":".join(paths)}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # our own interpreter and module
                [sys.executable, "-m", "tidegate_worker"],
                env={**os.environ, **extra, **own},
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.agent_port}"

    @property
    def inference(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(self.url + path, headers=headers) as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientError:
            return 0, ""

    async def state(self, **headers: str) -> WorkerState:
        status, text = await self.get("/v1/state", **headers)
        assert status == 200, self.log
        return WorkerState.model_validate_json(text)

    async def until(
        self, holds: Callable[[WorkerState], bool], *, limit_s: float = 15
    ) -> WorkerState:
        deadline_s = time.monotonic() + limit_s
        last = ""
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, self.log
            status, last = await self.get("/v1/state")
            if status == 200:
                state = WorkerState.model_validate_json(last)
                if holds(state):
                    return state
            await asyncio.sleep(0.05)
        raise AssertionError(f"not within {limit_s} s: {last}\n{self.log}")

    async def ended(self, limit_s: float = 15) -> int:
        deadline_s = time.monotonic() + limit_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline_s, self.log
            await asyncio.sleep(0.05)
        return self.process.returncode

    def server_pid(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in children.split():
            if b"tritonserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
        raise AssertionError(f"no tritonserver below {self.process.pid}: {self.log}")

    async def ask(self, model: str, value: float) -> tuple[int, dict]:
        body = {"inputs": [{"name": "X", "shape": [1, 1], "datatype": "FP32", "data": [value]}]}
        url = f"{self.inference}/v2/models/{model}/infer"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            return answer.status, await answer.json(content_type=None)

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        servers = []
        with contextlib.suppress(AssertionError, OSError):
            servers.append(self.server_pid())
        self.process.kill()
        self.process.wait()
        for pid in servers:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def start(triton, tmp_path) -> Iterator[Callable[..., Agent]]:
    agents = []

    def begin(*models: dict, **environment: object) -> Agent:
        text = {name: str(value) for name, value in environment.items()}
        agents.append(Agent(tmp_path, triton, list(models), text).start())
        return agents[-1]

    yield begin
    for agent in agents:
        agent.stop()


MODEL = """
import time
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "X", "data_type": "TYPE_FP32", "dims": [1]})
        config.add_output({"name": "Y", "data_type": "TYPE_FP32", "dims": [1]})
        config.set_max_batch_size(4)
        return config

    def execute(self, requests):
        answers = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            time.sleep(float(values.max()))
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", values)]))
        return answers
"""


def python_model(folder: Path, name: str, text: str = MODEL, **fields: object) -> dict:
    """Write a Triton model folder and return its entry of models.json."""
    source = folder / "sources" / name
    (source / "1").mkdir(parents=True)
    (source / "1" / "model.py").write_text(text)
    return entry(name, f"file://{source}", path=str(source), **fields)


def entry(name: str, uri: str, *, path: str | None = None, **fields: object) -> dict:
    sha256 = fields.pop("sha256", None)
    credentials_path = fields.pop("credentials_path", None)
    source = {"uri": uri, **({"sha256": sha256} if sha256 else {})}
    model = {"name": name, "source": source, "backend": "python", **fields}
    return {
        "model": model,
        **({"path": path} if path else {}),
        **({"credentialsPath": credentials_path} if credentials_path else {}),
    }


@pytest.fixture
def conftest():
    """This module: tests are no package, so they reach its helpers through a fixture."""
    return sys.modules[__name__]
