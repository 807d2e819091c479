"""Sources on disk: digests, layouts, what is copied and what is linked."""

import shutil
import subprocess

import pytest

from tidegate_api.template import Model
from tidegate_worker.adapters.repository import (
    digest,
    download,
    names_below,
    prepare,
    read_secret,
    warmup_files,
)
from tidegate_worker.adapters.server import environment, prepare_backends
from tidegate_worker.core.errors import ModelError


def model(uri="pvc://claim/m", **fields):
    source = {"uri": uri, **fields.pop("source", {})}
    return Model.model_validate({"name": "m", "source": source, **fields})


def write(folder, files):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


@pytest.fixture
def target(tmp_path):
    return tmp_path / "repository" / "m"


def test_a_triton_folder_is_copied_with_our_config(tmp_path, target):
    files = {"config.pbtxt": "max_batch_size: 4", "3/model.py": "x", "labels.txt": "a"}
    source = write(tmp_path / "source", files)
    assert prepare(model(maxBatchSize=8), source, target, "CPU") == 3
    assert sorted(names_below(target)) == ["3/model.py", "config.pbtxt", "labels.txt"]
    config = (target / "config.pbtxt").read_text()
    assert "max_batch_size: 8" in config
    assert "versions: 3" in config
    (source / "3" / "model.py").write_text("changed later")
    assert (target / "3" / "model.py").read_text() == "x"


def test_a_file_takes_the_name_that_triton_expects(tmp_path, target):
    source = write(tmp_path, {"net-v7.onnx": "weights"}) / "net-v7.onnx"
    assert prepare(model(), source, target, "CPU") == 1
    assert (target / "1" / "model.onnx").read_text() == "weights"


def test_a_second_preparation_leaves_nothing_of_the_first(tmp_path, target):
    prepare(model(), write(tmp_path / "one", {"1/old.txt": "x"}), target, "CPU")
    prepare(model(), write(tmp_path / "two", {"2/new.txt": "x"}), target, "CPU")
    assert sorted(names_below(target)) == ["2/new.txt", "config.pbtxt"]


def test_a_read_only_volume_is_no_obstacle_and_ours_stays_writable(tmp_path, target):
    source = write(tmp_path / "source", {"1/deep/model.py": "x"})
    for entry in [source, *source.rglob("*")]:
        entry.chmod(0o555)
    try:
        prepare(model(), source, target, "CPU")
        prepare(model(), source, target, "CPU")
    finally:
        for entry in [source, *source.rglob("*")]:
            entry.chmod(0o755)
    (target / "1" / "deep" / "new").write_text("Triton may write here")


def test_a_configmap_is_read_through_the_kubelets_links(tmp_path, target):
    volume = tmp_path / "volume"
    write(volume / "..2026_01", {"model.py": "x"})
    (volume / "..data").symlink_to("..2026_01")
    (volume / "model.py").symlink_to("..data/model.py")
    plain = write(tmp_path / "plain", {"model.py": "x"})
    assert digest(volume) == digest(plain)
    prepare(model(source={"sha256": digest(plain)}), volume, target, "CPU")
    assert sorted(names_below(target)) == ["1/model.py", "config.pbtxt"]
    assert not (target / "1" / "model.py").is_symlink()


def test_the_digest_of_a_folder_is_the_documented_commands(tmp_path):
    folder = write(tmp_path / "f", {"b": "1", "a/c": "2", "a b": "3", ".hidden": "4"})
    command = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum"
    shell = shutil.which("bash")
    printed = subprocess.run(  # noqa: S603  # the documented command
        [shell, "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    assert digest(folder) == printed.stdout.split()[0]


def test_links_in_a_circle_end(tmp_path, target):
    source = write(tmp_path / "source", {"1/model.py": "x"})
    (source / "1" / "again").symlink_to(source)
    prepare(model(), source, target, "CPU")
    assert "1/model.py" in names_below(target)


REFUSED = [
    ("nothing there", {}, {}, "is not there"),
    ("a wrong digest", {"1/model.py": "x"}, {"source": {"sha256": "0" * 64}}, "but source.sha256"),
    ("a damaged config", {"config.pbtxt": "{{{"}, {}, "does not parse"),
    (
        "a warmup file that is missing",
        {"1/model.py": "x"},
        {"warmup": [{"inputs": {"X": {"dataType": "FP32", "dims": [1], "fill": "File",
                                      "file": "x.bin"}}}]},
        "no file warmup/x.bin",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "fields", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_an_unusable_source_is_refused_in_words(tmp_path, target, files, fields, words):
    source = tmp_path / "source"
    with pytest.raises(ModelError, match=words):
        prepare(model(**fields), write(source, files), target, "CPU")


def test_warmup_files_lie_where_triton_and_the_probe_look(tmp_path, target):
    item = {"dataType": "FP32", "dims": [1], "fill": "File", "file": "x.bin"}
    asked = model(warmup=[{"inputs": {"X": item}}])
    source = write(tmp_path / "source", {"model.py": "x", "warmup/x.bin": "abcd"})
    prepare(asked, source, target, "CPU")
    assert sorted(names_below(target)) == ["1/model.py", "config.pbtxt", "warmup/x.bin"]
    assert warmup_files(asked, target) == {"x.bin": b"abcd"}


def test_a_download_is_linked_not_doubled_and_kept_over_restarts(tmp_path, target):
    asked = model("https://host/model.py", source={"sha256": ""})
    kept = download(tmp_path / "state", asked)
    assert kept.kept() is None
    found = write(kept.files, {"model.py": "x"}) / "model.py"
    assert kept.keep(found) == found
    assert download(tmp_path / "state", asked).kept() == found
    prepare(asked, found, target, "CPU")
    assert (target / "1" / "model.py").stat().st_ino == found.stat().st_ino
    kept.forget()
    assert kept.kept() is None


def test_another_digest_is_another_download(tmp_path):
    one, two = (model("https://h/m", source={"sha256": digit * 64}) for digit in "ab")
    assert download(tmp_path, one) != download(tmp_path, two)


def test_only_documented_files_of_a_secret_are_read(tmp_path):
    write(tmp_path, {"access_key_id": "k", "other": "x", "..data/region": "y"})
    assert read_secret(str(tmp_path)) == {"access_key_id": "k"}
    assert read_secret(None) == read_secret(str(tmp_path / "absent")) == {}


def test_only_pythons_backend_is_copied_and_what_is_no_backend_is_not_listed(tmp_path):
    installed = write(
        tmp_path / "installed",
        {
            "python/libtriton_python.so": "x",
            "python/triton_python_backend_stub": "x",
            "onnxruntime/libtriton_onnxruntime.so": "x",
            "vllm/model.py": "x",
            "notes/readme": "x",
        },
    )
    for entry in (installed / "python", *(installed / "python").iterdir()):
        entry.chmod(0o555)
    target = tmp_path / "backends"
    assert prepare_backends(installed, target) == ("onnxruntime", "python", "vllm")
    assert (target / "onnxruntime").is_symlink()
    assert not (target / "python").is_symlink()
    (target / "python" / "triton_python_backend_stub").chmod(0o700)
    assert prepare_backends(installed, target) == ("onnxruntime", "python", "vllm")
    assert prepare_backends(tmp_path / "absent", target) == ()


def test_tritonserver_sees_the_pods_environment_without_ours():
    given = {"PATH": "/bin", "TIDEGATE_POD_UID": "u", "LD_LIBRARY_PATH": "/usr/lib"}
    assert environment("/opt/lib", given) == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/lib:/usr/lib",
    }
    assert environment("", {"PATH": "/bin"}) == {"PATH": "/bin"}
