"""Packs textgenrnn's pretrained character network, from its PyPI package, as a model image.

The package is MIT-licensed; its weights (2 MB) were trained on titles of Reddit submissions, so the
texts are English of a kind, and not always polite. They are taken out of HDF5 into NumPy's format
because a worker has NumPy and nothing else.
"""

import hashlib
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from tidegate_e2e.localcluster.binaries import cache_root
from tidegate_e2e.localcluster.progress import step
from tidegate_e2e.localcluster.system import ClusterError, run

VERSION = "2.0.0"
SHA256: Mapping[str, str] = {
    "textgenrnn_weights.hdf5": "6a89ca4235ed9f00be7b2acd65d5fe4a099967d676bfe20afb696106286ffbca",
    "textgenrnn_vocab.json": "f9c6c0db9b07fb57da023d32df66e16a488d086c138e15706307bb5177c2be74",
}
SOURCE = Path(__file__).parents[1] / "models" / "textgenrnn"
_GATES = 4
Floats = NDArray[np.float32]


def context() -> Path:
    """Return a folder with the Dockerfile and `textgenrnn/1/`: our code beside the weights."""
    code = [SOURCE / "model.py", SOURCE / "network.py", SOURCE / "Dockerfile", Path(__file__)]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()[:12]
    target = cache_root() / f"model-textgenrnn-{VERSION}-{key}"
    if not target.exists():
        cache_root().mkdir(parents=True, exist_ok=True)
        files = _package_files()
        unfinished = Path(tempfile.mkdtemp(dir=cache_root(), prefix="model-textgenrnn-"))
        unfinished.chmod(0o755)
        version = unfinished / "textgenrnn" / "1"
        version.mkdir(parents=True)
        np.savez(version / "weights.npz", **weights(files / "textgenrnn_weights.hdf5"))
        shutil.copy(files / "textgenrnn_vocab.json", version / "vocabulary.json")
        shutil.copy(SOURCE / "Dockerfile", unfinished)
        for name in ("model.py", "network.py"):
            shutil.copy(SOURCE / name, version)
        unfinished.rename(target)
    return target


def weights(file: Path) -> dict[str, Floats]:
    """Return the arrays that network.Network takes."""
    with h5py.File(file) as stored:
        found = {
            "embedding": _read(stored, "embedding/embedding/embeddings:0"),
            "attention": _read(stored, "attention/attention/attention_W:0"),
            "output_kernel": _read(stored, "output/output/kernel:0"),
            "output_bias": _read(stored, "output/output/bias:0"),
        }
        for number in (1, 2):
            layer = f"rnn_{number}/rnn_{number}"
            found[f"kernel_{number}"] = _plain_input(_read(stored, f"{layer}/kernel:0"))
            recurrent = _read(stored, f"{layer}/recurrent_kernel:0")
            found[f"recurrent_{number}"] = _plain_recurrent(recurrent)
            found[f"bias_{number}"] = _read(stored, f"{layer}/bias:0").reshape(2, -1).sum(axis=0)
    return found


def _read(stored: h5py.File, name: str) -> Floats:
    return np.asarray(stored[name], dtype=np.float32)


def _plain_input(kernel: Floats) -> Floats:
    """Turn cuDNN's layout, column-major within each gate, into the usual one."""
    gates = np.hsplit(kernel, _GATES)
    return np.hstack([gate.T.reshape(gate.shape, order="F") for gate in gates])


def _plain_recurrent(kernel: Floats) -> Floats:
    """Turn cuDNN's transposed gates into the usual ones."""
    return np.hstack([gate.T for gate in np.hsplit(kernel, _GATES)])


def _package_files() -> Path:
    folder = cache_root() / f"textgenrnn-{VERSION}"
    if not folder.exists():
        with step(f"get a text model from the Python package textgenrnn {VERSION}"):
            _unpack(folder)
    return folder


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_root()) as place:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        command += ["--disable-pip-version-check", "-d", place, f"textgenrnn=={VERSION}"]
        run(*command)
        unfinished = Path(place) / "files"
        unfinished.mkdir()
        with tarfile.open(next(Path(place).glob("*.tar.gz"))) as package:
            for name, digest in SHA256.items():
                member = package.extractfile(f"textgenrnn-{VERSION}/textgenrnn/{name}")
                data = member.read() if member else b""
                found = hashlib.sha256(data).hexdigest()
                if found != digest:
                    raise ClusterError(f"{name} has sha256 {found}, expected {digest}")
                (unfinished / name).write_bytes(data)
        unfinished.rename(folder)
