"""How a source's files become Triton's model folder, and what its digest is."""

import hashlib
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_api.digest import folder_digest
from tidegate_api.names import Reason
from tidegate_api.template import Model
from tidegate_worker.core.digest import verify
from tidegate_worker.core.errors import ModelError, one_line, shown
from tidegate_worker.core.sources import (
    Placement,
    is_remote,
    place_file,
    place_folder,
    safe_relative,
)


def model(uri="pvc://models/m", *, backend=None, version=None, warmup_file=None):
    source = {"uri": uri}
    if version:
        source["version"] = version
    document = {"name": "m", "source": source, "backend": backend}
    if warmup_file:
        item = {"dataType": "FP32", "dims": [1], "fill": "File", "file": warmup_file}
        document["warmup"] = [{"inputs": {"X": item}}]
    return Model.model_validate(document)


FILES = [
    ("a file takes its suffix's name", "net.onnx", None, None, "1/model.onnx"),
    ("a file takes its backend's name", "weights.bin", "pytorch", None, "1/model.pt"),
    ("the backend goes before the suffix", "net.onnx", "python", None, "1/model.py"),
    ("a file goes to the version asked for", "net.plan", None, 7, "7/model.plan"),
]


@pytest.mark.parametrize(
    ("name", "backend", "version", "place"), [f[1:] for f in FILES], ids=[f[0] for f in FILES]
)
def test_a_file_becomes_the_default_file_of_its_version(name, backend, version, place):
    placed = place_file(model(backend=backend, version=version), name)
    assert placed == Placement(version or 1, (("", place),))


def test_a_file_of_unknown_kind_is_refused_with_the_remedy():
    with pytest.raises(ModelError, match="set backend") as refused:
        place_file(model(), "weights.bin")
    assert refused.value.reason is Reason.MODEL_CONFIG_INVALID


FOLDERS = [
    ("a plain folder is the version", ["model.py", "labels.txt"], None, (("", "1"),)),
    ("a plain folder takes the version asked for", ["model.py"], 3, (("", "3"),)),
    ("a name that only begins with digits is no version", ["1abc", "model.py"], None, (("", "1"),)),
    ("a leading zero is no version for Triton", ["01", "model.py"], None, (("", "1"),)),
    ("the one version is served", ["1", "config.pbtxt"], None, (("1", "1"),)),
    ("an odd version keeps its number", ["42"], None, (("42", "42"),)),
    (
        "other versions stay behind",
        ["1", "2", "config.pbtxt", "labels.txt"],
        2,
        (("2", "2"), ("labels.txt", "labels.txt")),
    ),
    ("a config alone is an ensemble", ["config.pbtxt"], None, ()),
]


@pytest.mark.parametrize(
    ("names", "version", "entries"), [f[1:] for f in FOLDERS], ids=[f[0] for f in FOLDERS]
)
def test_a_folder_is_laid_out_as_triton_expects(names, version, entries):
    placed = place_folder(model(version=version), names)
    assert placed.entries == entries
    assert placed.version == version or version is None


def test_warmup_files_lie_beside_the_version_not_in_it():
    placed = place_folder(model(warmup_file="x.bin"), ["model.py", "warmup"])
    assert placed.entries == (("model.py", "1/model.py"), ("warmup", "warmup"))


REFUSED = [
    ("two versions need a choice", ["1", "2"], None, "1, 2: set source.version"),
    ("a version that is not there", ["1", "2"], 5, "source.version is 5, but .* holds 1, 2"),
    ("an empty folder", [], None, "holds no files"),
]


@pytest.mark.parametrize(
    ("names", "version", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_a_folder_that_says_too_little_is_refused(names, version, words):
    with pytest.raises(ModelError, match=words):
        place_folder(model(version=version), names)


@given(st.sets(st.integers(1, 10**6), min_size=1, max_size=5), st.data())
def test_the_served_version_is_one_that_the_folder_holds(versions, data):
    wanted = data.draw(st.sampled_from(sorted(versions)))
    placed = place_folder(model(version=wanted), [*map(str, versions), "config.pbtxt"])
    assert placed == Placement(wanted, ((str(wanted), str(wanted)),))


SCHEMES = [("https", True), ("s3", True), ("gs", True), ("pvc", False), ("file", False)]


@pytest.mark.parametrize(("scheme", "remote"), SCHEMES)
def test_only_https_s3_and_gs_are_fetched(scheme, remote):
    assert is_remote(f"{scheme}://somewhere/model") is remote


ESCAPES = ["../x", "/etc/passwd", "a/../../x", "..", ""]


@pytest.mark.parametrize("path", ESCAPES)
def test_an_object_that_would_leave_its_folder_is_refused(path):
    with pytest.raises(ModelError, match="refused"):
        safe_relative(path)


@given(st.lists(st.from_regex(r"\A[a-z0-9_.-]{1,8}\Z"), min_size=1, max_size=4))
def test_a_safe_path_never_climbs(parts):
    path = "/".join(parts)
    try:
        safe = safe_relative(path)
    except ModelError:
        assert ".." in parts or set(parts) == {"."}
    else:
        assert ".." not in safe.split("/")
        assert not safe.startswith("/")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]),
    min_size=1,
    max_size=8,
).filter(lambda name: name not in {".", ".."} and len(name.encode()) < 200)


@settings(max_examples=40, deadline=None)
@given(files=st.dictionaries(NAMES, st.binary(max_size=20), min_size=1, max_size=5))
def test_a_folder_digest_is_what_the_documented_command_prints(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digest")
    (folder / "inner").mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
        (folder / "inner" / name).write_bytes(content + b"x")
    command = (
        "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-64"
    )
    shell = shutil.which("bash")
    printed = subprocess.run(  # noqa: S603  # the documented command
        [shell, "-c", command], cwd=folder, capture_output=True, text=True, check=True
    )
    listing = {}
    for name, content in files.items():
        listing[name] = hashlib.sha256(content).hexdigest()
        listing[f"inner/{name}"] = hashlib.sha256(content + b"x").hexdigest()
    assert folder_digest(listing) == printed.stdout.strip()


def test_a_wrong_digest_names_both_and_the_remedy():
    with pytest.raises(ModelError, match=r"has sha256 bb, but source\.sha256 is aa") as refused:
        verify("s3://b/m", "aa", "bb")
    assert refused.value.reason is Reason.MODEL_DIGEST_MISMATCH


@pytest.mark.parametrize("expected", [None, "", "bb"], ids=["absent", "empty", "right"])
def test_no_digest_or_the_right_one_passes(expected):
    verify("s3://b/m", expected, "bb")


SECRETS = [
    ("a signed query", "https://h/m.onnx?X-Amz-Signature=abc&k=v", "https://h/m.onnx?..."),
    ("a user", "https://user:pw@h/m.onnx", "https://h/m.onnx"),
    ("inside a message", "get 'https://u:p@h/m?sig=1': 403", "get 'https://h/m?...': 403"),
    ("nothing to hide", "s3://bucket/a/b", "s3://bucket/a/b"),
]


@pytest.mark.parametrize(("text", "seen"), [s[1:] for s in SECRETS], ids=[s[0] for s in SECRETS])
def test_what_may_be_a_credential_is_not_shown(text, seen):
    assert shown(text) == seen


def test_only_what_is_too_long_is_cut():
    assert one_line("x" * 600) == "x" * 600
    assert one_line("x" * 601) == "x" * 597 + "..."


@given(st.text(max_size=2000))
def test_messages_are_one_short_line(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert len(line) <= 600
