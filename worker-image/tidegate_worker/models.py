"""Brings each model into Triton and keeps it there: fetch, verify, render, load, prove.

Every step that fails shows its reason and is tried again, so a model recovers by itself when its
source, or the rest of an ensemble, appears.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tidegate_api.names import Reason
from tidegate_api.template import Model
from tidegate_api.workermodels import DesiredModel
from tidegate_worker.adapters import repository
from tidegate_worker.adapters.fetch import Progress, fetch
from tidegate_worker.adapters.triton import TritonClient, TritonUnreachableError
from tidegate_worker.core import backends, inference, modelconfig, pressure, probe, sources
from tidegate_worker.core.errors import ModelError, shown
from tidegate_worker.core.lifecycle import Stage
from tidegate_worker.core.restarts import model_backoff_s
from tidegate_worker.supervisor import Supervisor
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class ModelRunner:
    """One model's way into Triton, again after each start of it."""

    worker: Worker
    supervisor: Supervisor
    desired: DesiredModel
    slots: asyncio.Semaphore  # models that use network and disk at a time

    @property
    def _model(self) -> Model:
        return self.desired.model

    @property
    def _folder(self) -> Path:
        return self.worker.settings.state_directory / "repository" / self._model.name

    async def run(self) -> None:
        """Serve the model until cancelled."""
        failures = 0
        while True:
            try:
                if self.worker.models[self._model.name].stage is Stage.FETCHING:
                    await self._materialize()
                await self._load_once()
                failures = 0
            except (ModelError, TritonUnreachableError) as error:
                failures += 1
                self._note(error)
                await asyncio.sleep(model_backoff_s(failures))

    async def _load_once(self) -> None:
        """Load into the running server and wait until that server is gone."""
        generation = await self.supervisor.running()
        loading = asyncio.create_task(self._load(generation.client))
        gone = asyncio.create_task(generation.ended.wait())
        try:
            await asyncio.wait((loading, gone), return_when=asyncio.FIRST_COMPLETED)
            if loading.done():
                await loading
                await gone
        finally:
            for task in (loading, gone):
                task.cancel()
            await asyncio.gather(loading, gone, return_exceptions=True)

    def _note(self, error: ModelError | TritonUnreachableError) -> None:
        """Show a model's own trouble; a server that is away shows as such elsewhere."""
        if isinstance(error, TritonUnreachableError):
            return
        reason, message = error.reason, str(error)
        before = self.worker.models[self._model.name]
        if (before.reason, before.message) != (reason, message):
            _log.error("%s: %s", reason.value, message, extra={"object": self._model.name})
        self.worker.update(self._model.name, reason=reason, message=message, admitted=False)

    async def _materialize(self) -> None:
        """Fetch, verify, lay out and render the model's folder."""
        model, uri = self._model, shown(self._model.source.uri)
        if self.worker.models[model.name].reason is None:
            self.worker.update(model.name, message=f"fetching {uri}")
        async with self.slots:
            source = await self._source()
            kind = self.worker.desired.kind
            try:
                version = await asyncio.to_thread(
                    repository.prepare, model, source, self._folder, kind
                )
            except ModelError as error:
                if error.reason is Reason.MODEL_DIGEST_MISMATCH:
                    self._downloads.forget()
                raise
        self.worker.update(
            model.name,
            stage=Stage.LOADING,
            version=version,
            reason=None,
            message="waits for tritonserver to load it",
        )

    async def _source(self) -> Path:
        """Return where the source's files lie; a verified download is kept over restarts."""
        source = self._model.source
        if not sources.is_remote(source.uri):
            return Path(self.desired.path or urlsplit(source.uri).path)
        kept = self._downloads.kept() if source.sha256 else None
        if kept is not None:
            return kept
        secret = repository.read_secret(self.desired.credentials_path)
        progress = Progress(source.uri, self._model.name)
        return self._downloads.keep(
            await fetch(source.uri, secret, self._downloads.files, progress)
        )

    @property
    def _downloads(self) -> repository.Download:
        return repository.download(self.worker.settings.state_directory, self._model)

    async def _load(self, client: TritonClient) -> None:
        """Load, read what was loaded, and prepare the readiness inference."""
        model = self._model
        await self.worker.devices_read.wait()
        self._check_backend()
        beside = [item for item in self.worker.admitted() if item.name != model.name]
        pressure.check_fit(model, beside, self.worker.devices, self.worker.settings.thresholds)
        self.worker.update(model.name, admitted=True)
        await client.load(model.name)
        config = await client.config(model.name)
        traits = modelconfig.traits(config)
        listed = config.get("input")
        tensors = probe.readiness_inputs(
            listed if isinstance(listed, list) else [], traits.max_batch_size, model.warmup
        )
        self.worker.probes[model.name] = inference.encode(
            tensors, repository.warmup_files(model, self._folder), sequence=traits.sequence
        )
        self.worker.update(
            model.name,
            stage=Stage.LOADED,
            reason=None,
            message="loaded, not proven yet",
            traits=traits,
            proof=probe.Proof(),
            sequence_idle_s=modelconfig.sequence_idle_s(config),
        )
        _log.info("loaded", extra={"object": model.name})

    def _check_backend(self) -> None:
        below = repository.names_below(self._folder)
        needed = backends.needed((self._folder / sources.CONFIG_FILE).read_text(), below)
        if needed is not None and not backends.brings_its_own(needed, below):
            backends.check(needed, self.worker.server.backends)
