"""Lays a model out for Triton: <state>/repository/NAME/{config.pbtxt, VERSION/...}."""

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate_api.names import Reason
from tidegate_api.workermodels import DesiredModel
from tidegate_worker.adapters.fetch import fetch, file_digest
from tidegate_worker.core.digest import folder_digest, verify
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.modelconfig import DeviceKind, render
from tidegate_worker.core.sources import (
    CONFIG_FILE,
    Placement,
    is_remote,
    place_file,
    place_folder,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repository:
    """Triton's model repository and the downloads beside it."""

    state_directory: Path
    kind: DeviceKind

    @property
    def folder(self) -> Path:
        """Return what tritonserver is given as --model-repository."""
        return self.state_directory / "repository"

    def prepare(self, desired: DesiredModel) -> int:
        """Fetch, verify and lay out one model; return the version. Blocking; ModelError."""
        source = self._source(desired)
        self._verify(desired, source)
        placement = _place(desired, source)
        base = source / CONFIG_FILE if source.is_dir() else None
        text = base.read_text() if base and base.exists() else ""
        config = render(desired.model, placement.version, self.kind, text)
        self._lay_out(desired.model.name, source, placement, config)
        return placement.version

    def _source(self, desired: DesiredModel) -> Path:
        model = desired.model
        if is_remote(model.source.uri):
            target = self.state_directory / "downloads" / model.name
            credentials = Path(desired.credentials_path) if desired.credentials_path else None
            return _only_file(fetch(model.name, model.source.uri, target, credentials))
        path = Path(desired.path or "")
        if not desired.path or not path.exists():
            raise ModelError(
                Reason.MODEL_FETCH_FAILED,
                f"{model.source.uri} is not there (looked at {path}): check "
                "the path inside the claim, ConfigMap or image",
            )
        return path

    def _verify(self, desired: DesiredModel, source: Path) -> None:
        expected = desired.model.source.sha256
        if not expected:
            return
        if source.is_file():
            found = file_digest(source)
        else:
            found = folder_digest({name: file_digest(source / name) for name in _files(source)})
        verify(desired.model.source.uri, expected, found)

    def _lay_out(self, model: str, source: Path, placement: Placement, config: str) -> None:
        target, unfinished = self.folder / model, self.state_directory / f".{model}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        (unfinished / str(placement.version)).mkdir(parents=True)
        for origin, place in placement.entries:
            entry = source / origin if origin else source
            inner = _files(entry) if entry.is_dir() else [""]
            for name in inner:
                file = unfinished / place / name
                file.parent.mkdir(parents=True, exist_ok=True)
                _link(entry / name, file)
        (unfinished / CONFIG_FILE).write_text(config)
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)


def _link(source: Path, target: Path) -> None:
    """Link what lies still; copy what the kubelet may swap under us (a ConfigMap's files)."""
    if source.is_symlink():
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


def _place(desired: DesiredModel, source: Path) -> Placement:
    if source.is_file():
        return place_file(desired.model, source.name)
    names = [entry.name for entry in source.iterdir()]
    return place_folder(desired.model, [name for name in names if not name.startswith("..")])


def _files(folder: Path) -> Iterator[str]:
    """Yield the files of a folder; a mounted ConfigMap's own bookkeeping (..data) is no file."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith("..") for part in name.parts):
            yield name.as_posix()


def _only_file(folder: Path) -> Path:
    """Return the one file of a download of a file, else the folder."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_file() else folder
