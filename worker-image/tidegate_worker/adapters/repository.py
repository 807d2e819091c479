"""Model files on disk: their digest, and their place in Triton's repository.

<state>/repository/NAME/{config.pbtxt, VERSION/...}; <state>/downloads/NAME-HASH/...
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate_api.digest import folder_digest
from tidegate_api.names import Reason
from tidegate_api.template import Model
from tidegate_worker.core.credentials import FILES
from tidegate_worker.core.digest import verify
from tidegate_worker.core.errors import ModelError, shown
from tidegate_worker.core.modelconfig import DeviceKind, render
from tidegate_worker.core.sources import (
    CONFIG_FILE,
    Placement,
    is_remote,
    place_file,
    place_folder,
)

_COMPLETE = "complete"
_COPIED_BYTES = 2**30  # what is larger is linked: a second copy would double the pod's disk
_KUBELET_PREFIX = ".."  # ConfigMap volumes keep their versions in such folders


@dataclass(frozen=True, slots=True)
class Download:
    """Where a remote source is kept; the file `complete` names what was fetched."""

    folder: Path

    @property
    def files(self) -> Path:
        """Return the folder that a download fills."""
        return self.folder / "files"

    def kept(self) -> Path | None:
        """Return a complete download of before, e.g. after a restart of the container."""
        mark = self.folder / _COMPLETE
        return self.folder / mark.read_text() if mark.is_file() else None

    def keep(self, found: Path) -> Path:
        """Remember a complete download."""
        (self.folder / _COMPLETE).write_text(found.relative_to(self.folder).as_posix())
        return found

    def forget(self) -> None:
        """Have it fetched anew: its digest is wrong."""
        (self.folder / _COMPLETE).unlink(missing_ok=True)


def download(state_directory: Path, model: Model) -> Download:
    """Return the download of a model's source; another source or digest has another."""
    asked = f"{model.source.uri}\n{model.source.sha256 or ''}"
    name = hashlib.sha256(asked.encode()).hexdigest()[:16]
    return Download(state_directory / "downloads" / f"{model.name}-{name}")


def model_folder(state_directory: Path, name: str) -> Path:
    """Return the folder of a model of that name in Triton's repository."""
    return state_directory / "repository" / name


def clear(state_directory: Path, kept: Collection[str] = ()) -> None:
    """Remove what earlier starts left in Triton's repository, but for the models `kept`. Blocks."""
    root = state_directory / "repository"
    for folder in root.iterdir() if root.is_dir() else ():
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def prepare(model: Model, source: Path, folder: Path, kind: DeviceKind) -> int:
    """Verify a source, make it the model's `folder`, and return the version. Blocks."""
    if not source.exists():
        raise ModelError(
            Reason.MODEL_FETCH_FAILED,
            f"{shown(model.source.uri)} is not there (looked at {source}): check the path inside "
            "the claim, ConfigMap or image",
        )
    if model.source.sha256:
        verify(shown(model.source.uri), model.source.sha256, digest(source))
    place = placement(model, source)
    config = render(model, place.version, kind, _base_config(source))
    put(place, source, folder, ours=is_remote(model.source.uri))
    (folder / CONFIG_FILE).write_text(config)
    _check_warmup_files(model, folder)
    return place.version


def tree(root: Path) -> Iterator[Path]:
    """Yield the files below a folder, links followed, each folder once."""
    seen = set()
    for folder, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        names[:] = sorted(name for name in names if not name.startswith(_KUBELET_PREFIX))
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        yield from (Path(folder, name) for name in sorted(files) if _is_content(folder, name))


def _is_content(folder: str, name: str) -> bool:
    return not name.startswith(_KUBELET_PREFIX) and Path(folder, name).is_file()


def digest(source: Path) -> str:
    """Return a file's sha256, or a folder's (tidegate_api/digest.py)."""
    if source.is_file():
        return _file_digest(source)
    return folder_digest(
        {file.relative_to(source).as_posix(): _file_digest(file) for file in tree(source)}
    )


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def placement(model: Model, source: Path) -> Placement:
    """Return how a source is laid out in the repository."""
    if source.is_file():
        return place_file(model, source.name)
    names = [entry.name for entry in source.iterdir()]
    return place_folder(model, [n for n in names if not n.startswith(_KUBELET_PREFIX)])


def _base_config(source: Path) -> str:
    """Return the source's own config.pbtxt, empty where it has none."""
    file = source / CONFIG_FILE
    return file.read_text(errors="replace") if source.is_dir() and file.is_file() else ""


def put(wanted: Placement, source: Path, folder: Path, *, ours: bool) -> None:
    """Make `folder` the model's folder. `ours`: the source is our download, so it is hard-linked.

    Others are copied, so that a later change of a volume changes nothing that was verified; what
    is larger than 1 GiB is linked.
    """
    shutil.rmtree(folder, ignore_errors=True)
    linked = not ours and _size_bytes(source) > _COPIED_BYTES
    for inner, target in wanted.entries:
        entry, place = source / inner if inner else source, folder / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if linked:
            place.symlink_to(entry.resolve())
        elif entry.is_file():
            _put_file(entry, place, ours=ours)
        else:
            place.mkdir(exist_ok=True)
            for file in tree(entry):
                _put_file(file, place / file.relative_to(entry), ours=ours)
    (folder / str(wanted.version)).mkdir(parents=True, exist_ok=True)


def _put_file(file: Path, place: Path, *, ours: bool) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if ours:
        os.link(file, place)
    else:
        shutil.copy(file, place)


def _size_bytes(source: Path) -> int:
    files = [source] if source.is_file() else tree(source)
    return sum(file.stat().st_size for file in files)


def names_below(folder: Path) -> list[str]:
    """Return the relative names of all files below a folder."""
    return [file.relative_to(folder).as_posix() for file in tree(folder)]


def read_secret(folder: str | None) -> dict[str, str]:
    """Return the documented files of a mounted Secret; a missing folder reads as empty."""
    if folder is None:
        return {}
    files = [Path(folder, name) for name in FILES]
    return {file.name: file.read_text() for file in files if file.is_file()}


def warmup_files(model: Model, folder: Path) -> dict[str, bytes]:
    """Return the contents that the first warmup is filled from."""
    first = (model.warmup or [])[:1]
    named = [item.file for warmup in first for item in warmup.inputs.values() if item.file]
    return {name: (folder / "warmup" / name).read_bytes() for name in named}


def _check_warmup_files(model: Model, folder: Path) -> None:
    """Raise ModelError if a warmup names a file that the model's folder lacks."""
    for warmup in model.warmup or []:
        for name, item in warmup.inputs.items():
            if item.file and not (folder / "warmup" / item.file).is_file():
                raise ModelError(
                    Reason.MODEL_CONFIG_INVALID,
                    f"warmup.inputs.{name}.file: the source has no file warmup/{item.file}",
                )
