"""Brings a copy of a model into Triton and keeps it there: fetch, verify, render, load, prove.

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
from tidegate_worker.adapters import repository
from tidegate_worker.adapters.fetch import Progress, fetch
from tidegate_worker.adapters.triton import TritonClient, TritonUnreachableError
from tidegate_worker.core import backends, inference, modelconfig, pressure, probe, sources
from tidegate_worker.core.copies import Copy
from tidegate_worker.core.errors import ModelError, shown
from tidegate_worker.core.lifecycle import Stage
from tidegate_worker.core.restarts import model_backoff_s
from tidegate_worker.supervisor import Supervisor
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)
_POLL_S = 0.1
_END_S = 5.0  # a server that broke a connection has ended by then, or hangs


@dataclass(slots=True)
class ModelRunner:
    """One copy's way into Triton, again after each start of it.

    A second revision never takes the first one along: its copies wait until the main revision's
    are in or are in trouble, and are kept out when they seem to crash the server.
    """

    worker: Worker
    supervisor: Supervisor
    copy: Copy
    slots: asyncio.Semaphore  # copies that use network and disk at a time
    download_lock: asyncio.Lock  # another revision may have the same source

    @property
    def _name(self) -> str:
        return self.copy.loaded_as

    @property
    def _model(self) -> Model:
        return self.copy.model

    @property
    def _folder(self) -> Path:
        return repository.model_folder(self.worker.settings.state_directory, self._name)

    @property
    def _is_second(self) -> bool:
        return self._name not in self.worker.main.names

    async def run(self) -> None:
        """Serve the model until cancelled."""
        failures = 0
        while True:
            try:
                if self.worker.models[self._name].stage is Stage.FETCHING:
                    await self._materialize()
                while_loading = await self._load_once()
                failures = 0
                if self._is_second and self.supervisor.blames_second(while_loading=while_loading):
                    await self._keep_out()
            except (ModelError, TritonUnreachableError) as error:
                failures += 1
                self._note(error)
                await asyncio.sleep(model_backoff_s(failures))

    async def _load_once(self) -> bool:
        """Load into the running server and wait until that is gone; return whether it still loaded.

        TritonUnreachableError: the server does not answer and did not end either.
        """
        await self._let_main_go_first()
        generation = await self.supervisor.running()
        loading = asyncio.create_task(self._load(generation.client))
        gone = asyncio.create_task(generation.ended.wait())
        try:
            await asyncio.wait((loading, gone), return_when=asyncio.FIRST_COMPLETED)
            try:
                if not loading.done():
                    return True
                await loading
            except TritonUnreachableError:
                if await generation.ends_within(_END_S):
                    return True
                raise
            await gone
            return False
        finally:
            for task in (loading, gone):
                task.cancel()
            await asyncio.gather(loading, gone, return_exceptions=True)

    async def _let_main_go_first(self) -> None:
        waits = self._is_second and self.worker.main_is_on_its_way()
        while waits:
            await asyncio.sleep(_POLL_S)
            waits = self._is_second and self.worker.main_is_on_its_way()

    async def _keep_out(self) -> None:
        """Stay out of Triton for as long as this is a second revision."""
        words = self.worker.server.last_crash or "tritonserver ended"
        self._note(ModelError(Reason.SERVER_CRASHED, f"kept out beside the main revision: {words}"))
        second = self._is_second
        while second:
            await asyncio.sleep(_POLL_S)
            second = self._is_second

    def _note(self, error: ModelError | TritonUnreachableError) -> None:
        """Show a model's own trouble; a server that is away shows as such elsewhere."""
        if isinstance(error, TritonUnreachableError):
            return
        reason, message = error.reason, str(error)
        before = self.worker.models[self._name]
        if (before.reason, before.message) != (reason, message):
            _log.error("%s: %s", reason.value, message, extra={"object": self._name})
        self.worker.update(self._name, reason=reason, message=message, admitted=False)

    async def _materialize(self) -> None:
        """Fetch, verify, lay out and render the model's folder."""
        if self.worker.models[self._name].reason is None:
            uri = shown(self._model.source.uri)
            self.worker.update(self._name, message=f"fetching {uri}")
        async with self.download_lock, self.slots:
            source = await self._source()
            try:
                version = await self._prepare(source, self.worker.desired.kind)
            except ModelError as error:
                if error.reason is Reason.MODEL_DIGEST_MISMATCH:
                    self._downloads.forget()
                raise
        self.worker.update(
            self._name,
            stage=Stage.LOADING,
            version=version,
            reason=None,
            message="waits for tritonserver to load it",
        )

    async def _prepare(self, source: Path, kind: modelconfig.DeviceKind) -> int:
        """Lay out and render in a thread, which nothing can stop: who cancels waits for its end."""
        work = asyncio.create_task(
            asyncio.to_thread(repository.prepare, self._model, source, self._folder, kind)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait((work,))
            raise

    async def _source(self) -> Path:
        """Return where the source's files lie; a verified download is kept over restarts."""
        source = self._model.source
        if not sources.is_remote(source.uri):
            return Path(self.copy.wanted.path or urlsplit(source.uri).path)
        kept = self._downloads.kept() if source.sha256 else None
        if kept is not None:
            return kept
        secret = repository.read_secret(self.copy.wanted.credentials_path)
        progress = Progress(source.uri, self._name)
        return self._downloads.keep(
            await fetch(source.uri, secret, self._downloads.files, progress)
        )

    @property
    def _downloads(self) -> repository.Download:
        return repository.download(self.worker.settings.state_directory, self.copy.wanted.model)

    async def _load(self, client: TritonClient) -> None:
        """Load, read what was loaded, and prepare the readiness inference."""
        model = self._model
        await self.worker.devices_read.wait()
        self._check_backend()
        beside = [item for item in self.worker.admitted() if item.name != self._name]
        pressure.check_fit(model, beside, self.worker.devices, self.worker.settings.thresholds)
        self.worker.update(self._name, admitted=True)
        await client.load(self._name)
        config = await client.config(self._name)
        traits = modelconfig.traits(config)
        listed = config.get("input")
        tensors = probe.readiness_inputs(
            listed if isinstance(listed, list) else [], traits.max_batch_size, model.warmup
        )
        self.worker.probes[self._name] = inference.encode(
            tensors, repository.warmup_files(model, self._folder), sequence=traits.sequence
        )
        self.worker.update(
            self._name,
            stage=Stage.LOADED,
            reason=None,
            message="loaded, not proven yet",
            traits=traits,
            proof=probe.Proof(),
            sequence_idle_s=modelconfig.sequence_idle_s(config),
        )
        _log.info("loaded", extra={"object": self._name})

    def _check_backend(self) -> None:
        below = repository.names_below(self._folder)
        needed = backends.needed((self._folder / sources.CONFIG_FILE).read_text(), below)
        if needed is not None and not backends.brings_its_own(needed, below):
            backends.check(needed, self.worker.server.backends)
