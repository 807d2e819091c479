"""tritonserver: its process, its control API (guarded by a random key), its inference API."""

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import numpy as np
import tritonclient.grpc.aio as triton_grpc
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tidegate_api.names import HEADER_RESTRICTED_KEY, Reason
from tidegate_api.template import JsonObject
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.measure import Counters, Sample, read
from tidegate_worker.core.probe import Outcome, Tensor
from tidegate_worker.settings import Settings

_log = logging.getLogger(__name__)
_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging"
_LOAD_S = 600.0
_CLIENT_CODES = frozenset({"StatusCode.INVALID_ARGUMENT", "StatusCode.UNIMPLEMENTED", "400"})


def command(settings: Settings, repository: Path, backends: Path, key: str) -> list[str]:
    """Return tritonserver's command line. Its metrics stay on the loopback."""
    guarded = f"{_RESTRICTED}:{HEADER_RESTRICTED_KEY}={key}"
    return [
        str(settings.triton_server),
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        "--exit-on-error=false",
        "--strict-readiness=false",
        f"--http-port={settings.http_port}",
        f"--grpc-port={settings.grpc_port}",
        f"--metrics-port={settings.metrics_port}",
        "--metrics-address=127.0.0.1",
        "--metrics-interval-ms=1000",
        "--metrics-config=summary_latencies=true",
        f"--http-restricted-api={guarded}",
        f"--grpc-restricted-protocol={guarded}",
        "--exit-timeout-secs=30",
    ]


@dataclass(slots=True)
class Triton:
    """One tritonserver and the ways to speak to it."""

    settings: Settings
    repository: Path
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    process: asyncio.subprocess.Process | None = None
    _session: aiohttp.ClientSession | None = None
    _inference: triton_grpc.InferenceServerClient | None = None

    async def start(self) -> asyncio.subprocess.Process:
        """Start the process. Backends are copied first: Triton makes its Python stub executable."""
        self.repository.mkdir(parents=True, exist_ok=True)
        backends = self.settings.state_directory / "backends"
        if not backends.exists():
            await asyncio.to_thread(shutil.copytree, self.settings.triton_backends, backends)
        environment = dict(os.environ)
        if self.settings.triton_library_path:
            environment["LD_LIBRARY_PATH"] = self.settings.triton_library_path
        self.process = await asyncio.create_subprocess_exec(
            *command(self.settings, self.repository, backends, self.key), env=environment
        )
        return self.process

    async def stop(self, patience_s: float = 35.0) -> None:
        """TERM, so that work in flight ends; KILL after `patience_s`."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    async def live(self) -> bool:
        """Whether the server answers at all."""
        try:
            async with self._http().get(self._url("v2/health/live")) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def metadata(self) -> JsonObject:
        """Return name, version and extensions of the server."""
        return await self._json("v2")

    async def load(self, model: str) -> None:
        """Load or reload a model; ModelError carries Triton's reason."""
        timeout = aiohttp.ClientTimeout(total=_LOAD_S)
        url, headers = self._url(f"v2/repository/models/{model}/load"), self._headers()
        try:
            async with self._http().post(url, json={}, headers=headers, timeout=timeout) as answer:
                text = await answer.text()
                if answer.status != 200:
                    raise ModelError(Reason.MODEL_LOAD_FAILED, f"Triton refused it: {text}")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ModelError(
                Reason.MODEL_LOAD_FAILED, f"Triton did not answer: {error!r}"
            ) from error

    async def config(self, model: str) -> JsonObject:
        """Return the loaded config of a model."""
        return await self._json(f"v2/models/{model}/config")

    async def statistics(self) -> JsonObject:
        """Return the statistics of all models."""
        return await self._json("v2/models/stats")

    async def counters(self) -> dict[str, Counters]:
        """Return each model's counters; ValueError where the exposition is damaged."""
        families = text_string_to_metric_families(await self.metrics())
        return read(
            Sample(sample.name, sample.labels, sample.value)
            for family in families
            for sample in family.samples
        )

    async def metrics(self) -> str:
        """Return Triton's own exposition."""
        url = f"http://127.0.0.1:{self.settings.metrics_port}/metrics"
        async with self._http().get(url) as answer:
            answer.raise_for_status()
            return await answer.text()

    async def infer(
        self, model: str, tensors: Sequence[Tensor], timeout_s: float, folder: Path
    ) -> tuple[Outcome, str]:
        """Run one real inference; `folder` is the model's, for warmup files."""
        if self._inference is None:
            url = f"127.0.0.1:{self.settings.grpc_port}"
            self._inference = triton_grpc.InferenceServerClient(url)
        try:
            inputs = [_input(tensor, folder) for tensor in tensors]
            await self._inference.infer(model, inputs, client_timeout=timeout_s)
        except InferenceServerException as error:
            return _outcome(error), str(error.message())[:500]
        except (OSError, ValueError, grpc.RpcError) as error:
            return Outcome.FAILURE, f"{type(error).__name__}: {error}"[:500]
        return Outcome.SUCCESS, ""

    async def close(self) -> None:
        """Close connections."""
        if self._inference is not None:
            await self._inference.close()
        if self._session is not None:
            await self._session.close()

    def backends(self) -> list[str]:
        """Return the installed backends."""
        folder = self.settings.triton_backends
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []

    async def _json(self, path: str) -> JsonObject:
        async with self._http().get(self._url(path), headers=self._headers()) as answer:
            answer.raise_for_status()
            found: JsonObject = await answer.json(content_type=None)
            return found

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5))
        return self._session

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.settings.http_port}/{path}"

    def _headers(self) -> Mapping[str, str]:
        return {HEADER_RESTRICTED_KEY: self.key}


def _input(tensor: Tensor, folder: Path) -> triton_grpc.InferInput:
    item = triton_grpc.InferInput(tensor.name, list(tensor.shape), tensor.data_type)
    item.set_data_from_numpy(_values(tensor, folder))
    return item


def _values(tensor: Tensor, folder: Path) -> NDArray[np.generic]:
    dtype = triton_to_np_dtype(tensor.data_type)
    if tensor.data_type == "BYTES":
        return np.full(tensor.shape, b"", dtype=np.object_)
    if tensor.fill == "File":
        data = (folder / "warmup" / tensor.file).read_bytes()
        return np.frombuffer(data, dtype=dtype).reshape(tensor.shape)
    if tensor.fill == "Random":
        return (np.random.default_rng(0).random(tensor.shape) * 2).astype(dtype)
    return np.zeros(tensor.shape, dtype=dtype)


def _outcome(error: InferenceServerException) -> Outcome:
    status = str(error.status())
    if status == "StatusCode.DEADLINE_EXCEEDED":
        return Outcome.TIMEOUT
    return Outcome.REFUSED if status in _CLIENT_CODES else Outcome.FAILURE
