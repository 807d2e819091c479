"""Follows the models document: what Triton holds becomes what the document says, by least work.

The document is a mounted ConfigMap: the kubelet replaces its files, so it is read once a second.
One that cannot be used changes nothing.
"""

import asyncio
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from tidegate_worker.adapters import repository
from tidegate_worker.adapters.triton import TritonUnreachableError
from tidegate_worker.core.copies import Copy, plan
from tidegate_worker.core.lifecycle import Stage
from tidegate_worker.core.probe import Proof
from tidegate_worker.models import ModelRunner
from tidegate_worker.settings import SettingsError, models_text, parse_models
from tidegate_worker.supervisor import Supervisor
from tidegate_worker.worker import Worker

_log = logging.getLogger(__name__)
_LOOK_S = 1.0
_STEP_S = 0.2
_UNLOAD_POLL_S = 0.1
_FETCHES = 3  # at a time; more would starve the threads that read devices


@dataclass(slots=True)
class Loader:
    """Every copy's runner, and the unloading of what is no longer wanted."""

    worker: Worker
    supervisor: Supervisor
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_FETCHES))
    _download_locks: dict[Path, asyncio.Lock] = field(default_factory=dict)
    _runners: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _leaving: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _text: bytes = b""
    _trouble: str = ""

    async def run(self) -> None:
        """Follow the document until cancelled."""
        state_directory = self.worker.settings.state_directory
        await asyncio.to_thread(repository.clear, state_directory, list(self.worker.copies))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            while True:
                self._step(group)
                await asyncio.sleep(_STEP_S)

    async def _read(self) -> None:
        """Take in the document whenever its text changes."""
        file = self.worker.settings.models_file
        while True:
            try:
                text = await asyncio.to_thread(models_text, file)
                if text != self._text:
                    self._text = text
                    self._take_in(file, text)
                    self._trouble = ""
            except SettingsError as error:
                self._tell(str(error))
            await asyncio.sleep(_LOOK_S)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            _log.error("the models stay as they are: %s", trouble)
        self._trouble = trouble

    def _take_in(self, file: Path, text: bytes) -> None:
        document = parse_models(file, text)
        if document != self.worker.desired:
            second = document.alongside.revision if document.alongside else "none"
            _log.info(
                "models document %d: revision %s, beside it %s",
                document.generation, document.revision, second,
            )  # fmt: skip
        self.worker.desired = document

    def _step(self, group: asyncio.TaskGroup) -> None:
        worker = self.worker
        step = plan(
            worker.desired,
            list(worker.copies.values()),
            worker.main,
            ready=worker.ready_names(),
            leaving=set(self._leaving),
        )
        worker.main = step.main
        for copy in step.load:
            worker.add(copy)
        for name, copy in worker.copies.items():
            if name not in self._runners and name not in self._leaving:
                self._runners[name] = group.create_task(self._runner(copy).run())
        for name in step.unload:
            self._leaving[name] = group.create_task(self._leave(name))

    def _runner(self, copy: Copy) -> ModelRunner:
        place = repository.download(self.worker.settings.state_directory, copy.wanted.model)
        lock = self._download_locks.setdefault(place.folder, asyncio.Lock())
        return ModelRunner(self.worker, self.supervisor, copy, self._slots, lock)

    async def _leave(self, name: str) -> None:
        """Refuse new requests for a copy, let its running ones end, and forget it."""
        runner = self._runners.pop(name)
        runner.cancel()
        await asyncio.wait((runner,))
        self.worker.update(
            name, stage=Stage.LOADING, proof=Proof(), reason=None, message="is being unloaded"
        )
        await self._unload(name)
        self.worker.drop(name)
        folder = repository.model_folder(self.worker.settings.state_directory, name)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        _log.info("unloaded", extra={"object": name})
        del self._leaving[name]

    async def _unload(self, name: str) -> None:
        """Wait until Triton no longer holds the model; a server that is away holds none."""
        while (generation := self.supervisor.current) is not None:
            try:
                state = (await generation.client.states()).get(name)
                if state is None:
                    return
                if state != "UNLOADING":
                    await generation.client.unload(name)
            except TritonUnreachableError as error:
                _log.debug("unloading: %s", error)
            await asyncio.sleep(_UNLOAD_POLL_S)
