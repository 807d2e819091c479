"""Tags follow content, images in use stay, pip's settings reach a build, a given cluster wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_e2e.cluster import given_kubeconfig
from tidegate_e2e.images import (
    content_hash,
    files_below,
    pip_configuration,
    pip_settings,
    stale_images,
)
from tidegate_e2e.localcluster.configs import PAUSE_IMAGE
from tidegate_e2e.localcluster.plan import INSTANCES, plan

OURS = "docker.io/tidegate"


def tree(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def tag(folder):
    return content_hash(folder, files_below(folder))


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        pytest.param({"a.py": "1", "b/c.py": "2"}, True, id="the-same-bytes-have-the-same-tag"),
        pytest.param({"a.py": "1", "b/c.py": "3"}, False, id="another-byte-is-another-tag"),
        pytest.param({"a.py": "1", "b/d.py": "2"}, False, id="another-name-is-another-tag"),
        pytest.param({"a.py": "12", "b/c.py": ""}, False, id="a-moved-byte-is-another-tag"),
        pytest.param(
            {"a.py": "1", "b/c.py": "2", "b/__pycache__/c.pyc": "x"},
            True,
            id="compiled-python-does-not-count",
        ),
    ],
)
def test_a_tag_is_the_hash_of_names_and_bytes(tmp_path, changed, same):
    first = tag(tree(tmp_path / "one", {"a.py": "1", "b/c.py": "2"}))
    assert (tag(tree(tmp_path / "two", changed)) == first) is same


@pytest.mark.parametrize(
    ("have", "current", "objects", "stale"),
    [
        pytest.param([f"{OURS}/worker:a"], [f"{OURS}/worker:a"], "", [], id="the-trees-own-stays"),
        pytest.param(
            [f"{OURS}/worker:old"], [f"{OURS}/worker:a"], "", [f"{OURS}/worker:old"],
            id="an-old-one-that-nothing-names-goes",
        ),
        pytest.param(
            [f"{OURS}/worker:old"], [], f'{{"image": "{OURS}/worker:old"}}', [],
            id="an-old-one-of-a-stored-revision-stays",
        ),
        pytest.param(
            ["docker.io/library/nginx:1", "sha256:ab"], [], "", [], id="images-of-others-stay"
        ),
        pytest.param([PAUSE_IMAGE], [PAUSE_IMAGE], "", [], id="the-sandbox-image-stays"),
    ],
)  # fmt: skip
def test_an_image_is_dropped_only_when_nothing_can_need_it(have, current, objects, stale):
    assert stale_images(have, current, objects) == stale


@pytest.mark.parametrize(
    ("listing", "settings"),
    [
        pytest.param("", {}, id="nothing-is-set"),
        pytest.param("global.timeout='9'", {"timeout": "9"}, id="a-files-setting"),
        pytest.param(
            ":env:.timeout='1'\nglobal.timeout='9'", {"timeout": "1"}, id="environment-goes-first"
        ),
        pytest.param(
            "global.index-url='https://host/?a=b'", {"index-url": "https://host/?a=b"},
            id="a-value-with-an-equals-sign",
        ),
    ],
)  # fmt: skip
def test_pips_settings_are_read(listing, settings):
    found = pip_settings(listing)
    assert found == {"cert": "/etc/ssl/certs/ca-certificates.crt"} | settings


def test_a_build_uses_the_certificates_that_are_mounted_there():
    text = pip_configuration("global.cert='/home/someone/own.pem'\nglobal.timeout='9'")
    assert text == "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\ntimeout = 9\n"


@pytest.mark.parametrize(
    ("environment", "chosen"),
    [
        pytest.param({}, "", id="nothing-given"),
        pytest.param({"KUBECONFIG": "/home/a/config"}, "/home/a/config", id="ambient"),
        pytest.param(
            {"KUBECONFIG": "/a", "TIDEGATE_KUBECONFIG": "/b"}, "/b", id="explicit-goes-first"
        ),
        *(
            pytest.param({"KUBECONFIG": str(plan(name).kubeconfig)}, "", id=f"our-own-{name}")
            for name in INSTANCES
        ),
    ],
)
def test_a_kubeconfig_of_the_user_is_obeyed_and_one_of_ours_is_not(environment, chosen):
    assert given_kubeconfig(environment) == chosen


@given(st.dictionaries(st.sampled_from("abcd"), st.binary(max_size=4), min_size=1))
def test_the_tag_does_not_depend_on_where_the_tree_lies(tmp_path_factory, files):
    folders = [tmp_path_factory.mktemp("tree") for _ in range(2)]
    for folder in folders:
        for name, data in files.items():
            (folder / name).write_bytes(data)
    assert tag(folders[0]) == tag(folders[1])
