"""The demo's model against the package that publishes it, on the same ONNX Runtime."""

import importlib.util
import json
from pathlib import Path

import magika
import numpy as np
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate_e2e import magika as packing

ROOT = Path(__file__).parents[3]
PACKAGE = Path(magika.__file__).parent
MODEL = PACKAGE / "models" / "standard_v3_3"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


features = load(packing.SOURCE / "features.py")


@pytest.fixture(scope="module")
def reference():
    return magika.Magika()


@pytest.fixture(scope="module")
def rules():
    config = json.loads((MODEL / "config.min.json").read_text("utf-8"))
    kinds = json.loads((PACKAGE / "config" / "content_types_kb.min.json").read_text("utf-8"))
    return features.Rules(config, kinds)


@pytest.fixture(scope="module")
def ours(rules):
    session = onnxruntime.InferenceSession(
        str(MODEL / "model.onnx"), providers=["CPUExecutionProvider"]
    )

    def classify(content):
        row = rules.features(content)
        if row is None:
            return rules.without_network(content)
        tokens = np.array([row], dtype=np.int32)
        return rules.judge(session.run(["target_label"], {"bytes": tokens})[0][0].tolist())

    return classify


def same(answer, result):
    assert answer.label == result.output.label
    assert answer.score == pytest.approx(result.score, abs=1e-5)


def test_every_file_of_this_repository_gets_the_packages_answer(ours, reference):
    folders = ("charts", "crds", "docs", "e2e", "examples", "operator", "router", "tests")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*"))]
    contents = [path.read_bytes() for path in paths if path.is_file()][::3]
    assert len(contents) > 50
    for content in contents:
        same(ours(content), reference.identify_bytes(content))


TEXT = b"def f(x):\n    return x + 1\n"
SPACES = st.text(alphabet=" \n\t\r\v\f", max_size=5000).map(str.encode)
CONTENT = st.tuples(SPACES, st.binary(max_size=600), SPACES).map(b"".join)


@settings(max_examples=60, deadline=None)
@given(CONTENT)
@example(b"")
@example(b" " * 9000)
@example(b"\xff\xfe")
@example(b"a" * 7)
@example(b"a" * 8)
@example(b" " * 4090 + TEXT)
@example(TEXT * 400)
@example(bytes(range(256)) * 64)
def test_any_bytes_get_the_packages_answer(ours, reference, content):
    same(ours(content), reference.identify_bytes(content))


def test_an_unsure_network_is_overruled_also_where_its_label_is_mapped(rules):
    mapped = next(raw for raw in rules.overwrite if raw in rules.labels)
    unsure = [0.01 if label == mapped else 0.0 for label in rules.labels]
    assert rules.judge(unsure).label in {"txt", "unknown"}
    certain = [1.0 if label == mapped else 0.0 for label in rules.labels]
    assert rules.judge(certain).label == rules.overwrite[mapped]


def test_the_image_context_holds_the_packages_files_and_our_code():
    folder = packing.context()
    packed = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert packed == {
        "Dockerfile",
        "magika/1/config.min.json",
        "magika/1/content_types_kb.min.json",
        "magika/1/features.py",
        "magika/1/model.onnx",
        "magika/1/model.py",
    }
    assert (folder / "magika/1/model.onnx").read_bytes() == (MODEL / "model.onnx").read_bytes()
