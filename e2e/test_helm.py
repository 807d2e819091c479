"""helm install, upgrade and uninstall of a second release that watches one namespace only."""

import json

import pytest

from tidegate_e2e.access import until
from tidegate_e2e.install import helm_values

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

POOL = "inferencepools.tidegate.dev/echo"


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


def uids(shell) -> set[str]:
    listed = shell.kubectl("get", "pods", "-l", "tidegate.dev/pool=echo", "-o", "json").stdout
    return {pod["metadata"]["uid"] for pod in json.loads(listed)["items"]}
