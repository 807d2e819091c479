from pathlib import Path

import pytest

from tidegate_api import schemagen
from tidegate_api.reference import StatusError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources():
    return {path: (ROOT / path).read_text("utf-8") for path in schemagen.SOURCES}


@pytest.fixture(scope="module")
def files(sources):
    return schemagen.generated(sources)


def test_every_generated_file_is_committed_as_generated(files):
    assert schemagen.stale(files, ROOT) == []


def test_a_stale_file_is_named(files, tmp_path):
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    (tmp_path / "docs/status.md").write_text("edited by hand", "utf-8")
    (tmp_path / "crds/tidegate.dev_routetables.yaml").unlink()
    assert schemagen.stale(files, tmp_path) == [
        "docs/status.md",
        "crds/tidegate.dev_routetables.yaml",
    ]


def test_each_crd_for_kubectl_is_the_one_that_helm_installs(files):
    for kind in ("inferencepools", "modelrollouts", "routetables"):
        path = f"tidegate.dev_{kind}.yaml"
        assert files[f"crds/{path}"] == files[f"charts/crds/templates/{path}"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("InferencePool spec.paused: later", "built, but listed as absent"),
        ("InferencePool spec.pausing", "listed as built, but not in the CRD"),
    ],
)
def test_the_list_of_designed_fields_cannot_contradict_the_crds(sources, line, complaint):
    path = schemagen.DESIGNED_FIELDS
    changed = sources[path].replace("InferencePool spec.paused\n", f"{line}\n")
    with pytest.raises(StatusError, match=complaint):
        schemagen.generated({**sources, path: changed})


def test_a_built_field_cannot_miss_in_the_list_of_designed_fields(sources):
    path = schemagen.DESIGNED_FIELDS
    changed = sources[path].replace("InferencePool spec.paused\n", "")
    with pytest.raises(StatusError, match=r"spec\.paused is not in the list"):
        schemagen.generated({**sources, path: changed})
