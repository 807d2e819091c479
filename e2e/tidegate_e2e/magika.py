"""Packs magika's file-type classifier, from its PyPI package, as the context of a model image."""

import hashlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from tidegate_e2e.localcluster.binaries import cache_root
from tidegate_e2e.localcluster.progress import step
from tidegate_e2e.localcluster.system import ClusterError, run

VERSION = "1.0.3"
ONNX_SHA256 = "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
SOURCE = Path(__file__).parents[1] / "models" / "magika"
_FROM_WHEEL = (
    "magika/models/standard_v3_3/model.onnx",
    "magika/models/standard_v3_3/config.min.json",
    "magika/config/content_types_kb.min.json",
)


def context() -> Path:
    """Return a folder with the Dockerfile and `magika/1/`: our code beside the wheel's files."""
    wheel = _wheel_files()
    code = [SOURCE / "model.py", SOURCE / "features.py", SOURCE / "Dockerfile"]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]
    target = cache_root() / f"model-magika-{VERSION}-{key}"
    if not target.exists():
        unfinished = Path(tempfile.mkdtemp(dir=cache_root(), prefix="model-magika-"))
        unfinished.chmod(0o755)
        shutil.copytree(wheel, unfinished / "magika" / "1")
        shutil.copy(SOURCE / "Dockerfile", unfinished)
        for name in ("model.py", "features.py"):
            shutil.copy(SOURCE / name, unfinished / "magika" / "1")
        unfinished.rename(target)
    return target


def _wheel_files() -> Path:
    folder = cache_root() / f"magika-{VERSION}"
    if not folder.exists():
        with step(f"get the demo's model from the Python package magika {VERSION}"):
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=_made(cache_root())) as place:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--disable-pip-version-check", "-d", place, f"magika=={VERSION}"]
        run(*command)
        unfinished = Path(place) / "files"
        unfinished.mkdir()
        with zipfile.ZipFile(next(Path(place).glob("*.whl"))) as wheel:
            for name in _FROM_WHEEL:
                (unfinished / Path(name).name).write_bytes(wheel.read(name))
        found = hashlib.sha256((unfinished / "model.onnx").read_bytes()).hexdigest()
        if found != ONNX_SHA256:
            raise ClusterError(
                f"magika {VERSION}: model.onnx has sha256 {found}, expected {ONNX_SHA256}"
            )
        unfinished.rename(folder)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
