"""helm install, upgrade and uninstall of a second release that watches one namespace only."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tidegate_e2e.access import until
from tidegate_e2e.install import helm_values

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

POOL = "inferencepools.tidegate.dev/echo"
ROOT = Path(__file__).parents[1]
CHART = ("Chart.yaml", "values.yaml", "values.schema.json", ".helmignore", "templates", "charts")
CRD = "charts/crds/templates/tidegate.dev_inferencepools.yaml"


@pytest.fixture
def second(release, namespace):
    """A namespaced release: Roles only, CRDs left to the first one, which sleeps meanwhile."""
    first = release.get("deployments", "-l", "app.kubernetes.io/name=tidegate-operator")["items"][0]
    deployment = f"deployment/{first['metadata']['name']}"
    release.kubectl("scale", deployment, "--replicas=0")
    name = f"two-{namespace.namespace[-4:]}"
    install = [
        "upgrade", "--install", name, ".", "-n", namespace.namespace, "--wait", "--timeout=180s",
        *helm_values(), "--set", "crds.enabled=false",
        "--set-json", f'operator.watchNamespaces=["{namespace.namespace}"]',
        "--set-json",
        f'router.namespaces=["{namespace.namespace}"]',
        "--set", "operator.replicas=1", "--set", "router.replicas=1",
    ]  # fmt: skip
    namespace.helm(*install)
    yield name, install
    namespace.helm("uninstall", name, "-n", namespace.namespace, "--wait", check=False)
    release.kubectl("scale", deployment, f"--replicas={first['spec']['replicas']}")
    release.kubectl("rollout", "status", deployment, "--timeout=90s")


def test_install_says_what_is_next_and_grants_roles_only(second, namespace):
    name, _ = second
    notes = namespace.helm("get", "notes", name, "-n", namespace.namespace).stdout
    assert "kubectl" in notes
    cluster_wide = namespace.kubectl(
        "get", "clusterroles,clusterrolebindings", "-l", f"app.kubernetes.io/instance={name}"
    )
    assert cluster_wide.stdout == ""


def test_upgrade_restarts_no_worker_and_uninstall_leaves_pools_and_crds(second, namespace):
    name, install = second
    namespace.kubectl("apply", "-f", "e2e/manifests/echo.yaml")
    namespace.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=120s")
    before = uids(namespace)
    namespace.helm(*install, "--set", "operator.logLevel=debug")
    namespace.kubectl("wait", "--for=condition=Ready", POOL, "--timeout=60s")
    assert uids(namespace) == before
    assert namespace.helm("uninstall", name, "-n", namespace.namespace, "--wait").returncode == 0
    assert namespace.kubectl("get", POOL, check=False).returncode == 0
    assert namespace.kubectl("get", "crd", "inferencepools.tidegate.dev").returncode == 0
    until(lambda: uids(namespace) == before, what="workers outlive the release")


def test_an_upgrade_adds_a_new_field_to_the_crd_and_keeps_the_rest(release, tmp_path):
    install = ["upgrade", "tidegate", "-n", release.namespace, "--reuse-values", "--wait"]
    explain = ("explain", "inferencepools.tidegate.dev.spec.laterField")
    assert release.kubectl(*explain, check=False).returncode != 0
    try:
        release.helm(*install, str(next_chart(tmp_path)))
        until(lambda: release.kubectl(*explain, check=False).returncode == 0, what="the new field")
        assert "of the next release" in release.kubectl(*explain).stdout
        assert release.get("crd", "inferencepools.tidegate.dev")["status"]["storedVersions"]
    finally:
        release.helm(*install, str(ROOT))
    until(lambda: release.kubectl(*explain, check=False).returncode != 0, what="back again")


def next_chart(folder: Path) -> Path:
    """Return a copy of the chart whose InferencePool has one more field."""
    for name in CHART:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    crd = folder / CRD
    text = crd.read_text()
    document = yaml.safe_load(text)
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = schema["properties"]["spec"]["properties"]
    fields["laterField"] = {"type": "string", "description": "of the next release"}
    crd.write_text(yaml.safe_dump(document))
    return folder


def uids(shell) -> set[str]:
    listed = shell.kubectl("get", "pods", "-l", "tidegate.dev/pool=echo", "-o", "json").stdout
    return {pod["metadata"]["uid"] for pod in json.loads(listed)["items"]}
