"""Versions 2 to 5 of the demo's classifier, as contexts of model images: `make demo-canary`.

v2   v1's network quantised to 8 bits by onnxruntime; its top-1 agreement with v1 is printed
v3   v2, each answer takes 5 times as long (labelled)
v4   v2, every 10th call fails (labelled)
v5   v2 with a truncated network: it cannot load
"""

import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic

from tidegate_e2e import magika
from tidegate_e2e.localcluster.binaries import cache_root
from tidegate_e2e.localcluster.progress import say, step
from tidegate_e2e.localcluster.system import ClusterError

FAULTY = Path(__file__).parents[1] / "models" / "magika-canary"
VERSIONS = ("v2", "v3", "v4", "v5")
FAULTS: Mapping[str, Mapping[str, object]] = {
    "v3": {"label": "answers take 5 times as long", "delayFactor": 5, "failEvery": 0},
    "v4": {"label": "every 10th call fails", "delayFactor": 1, "failEvery": 10},
}
_NETWORK = "model.onnx"
_LEAST_AGREEMENT = 0.98  # less, and v2 is no good canary
_SAMPLE_FILES = 400
_SAMPLE_FOLDERS = (
    "crds",
    "docs",
    "e2e",
    "operator",
    "router",
    "templates",
    "tests",
    "worker-image",
)


def contexts() -> Mapping[str, Path]:
    """Return {version: a folder with the Dockerfile and `magika/1/`}."""
    first = magika.context()
    files = [FAULTY / "model.py", Path(__file__)]
    text = b"".join(path.read_bytes() for path in files)
    asked = f"{first.name} {onnxruntime.__version__}".encode()
    target = cache_root() / f"model-magika-canary-{hashlib.sha256(asked + text).hexdigest()[:12]}"
    if not target.exists():
        with step("quantise the demo's model, and spoil copies of it"):
            unfinished = Path(tempfile.mkdtemp(dir=cache_root(), prefix="model-magika-canary-"))
            unfinished.chmod(0o755)
            _make(first, unfinished)
            unfinished.rename(target)
    return {version: target / version for version in VERSIONS}


def _make(first: Path, folder: Path) -> None:
    network = folder / _NETWORK
    quantise(first / "magika" / "1" / _NETWORK, network)
    for version in VERSIONS:
        shutil.copytree(first, folder / version)
        model = folder / version / "magika" / "1"
        shutil.copy(network, model / _NETWORK)
        if version in FAULTS:
            (model / "model.py").rename(model / "classifier.py")
            shutil.copy(FAULTY / "model.py", model)
            (model / "fault.json").write_text(json.dumps(FAULTS[version]))
    truncate(folder / "v5" / "magika" / "1" / _NETWORK)
    network.unlink()
    told_agreement(first / "magika" / "1", folder / "v2" / "magika" / "1")


def quantise(network: Path, target: Path) -> None:
    """Write `network` with 8-bit weights: what a team would do for CPU."""
    quantize_dynamic(network, target, weight_type=QuantType.QUInt8)


def truncate(file: Path) -> None:
    """Leave the first half of a file, as an upload that broke off does."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def told_agreement(before: Path, after: Path) -> float:
    """Return, and print, the share of this repository's files that get the same first label."""
    rows = sample(before)
    labels = [_first_labels(folder / _NETWORK, rows) for folder in (before, after)]
    ratio = float(np.mean(labels[0] == labels[1]))
    say(f"    v2 agrees with v1 on the first label of {ratio:.1%} of {len(rows)} files")
    if ratio < _LEAST_AGREEMENT:
        raise ClusterError(f"the quantised model agrees with v1 on {ratio:.1%} of files only")
    return ratio


def sample(model: Path) -> Sequence[Sequence[int]]:
    """Return the network's input for files of this repository."""
    texts = ("config.min.json", "content_types_kb.min.json")
    rules = _features().Rules(*(json.loads((model / name).read_text()) for name in texts))
    root = Path(__file__).parents[2]
    found = (path for name in _SAMPLE_FOLDERS for path in sorted((root / name).rglob("*")))
    files = [path for path in found if path.is_file() and path.suffix != ".pyc"]
    picked = files[:: max(1, len(files) // _SAMPLE_FILES)][:_SAMPLE_FILES]
    rows = (rules.features(path.read_bytes()) for path in picked)
    return [row for row in rows if row is not None]


def _features() -> ModuleType:
    """Load the model's own feature extraction, which is no package."""
    spec = importlib.util.spec_from_file_location("magika_features", magika.SOURCE / "features.py")
    if spec is None or spec.loader is None:
        raise ClusterError(f"{magika.SOURCE / 'features.py'} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _first_labels(network: Path, rows: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    answers = [
        session.run(["target_label"], {"bytes": np.array([row], dtype=np.int32)})[0].argmax()
        for row in rows
    ]
    return np.array(answers, dtype=np.int64)
